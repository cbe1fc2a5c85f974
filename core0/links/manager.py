"""The link manager: brings the links to what config and leases want, whenever one of the three changes.

It never stops the boot: what the kernel refuses of one link is tried again while the others serve.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from core0.links.apply import apply, load, missing
from core0.links.leases import Leases
from core0.links.model import Action, Conversation, SeenLink
from core0.links.names import Names
from core0.links.observe import observe, observe_indexes, observe_own, observe_rules, own
from core0.links.plan import plan
from core0.links.settings import Settings
from core0.links.uplinks import plan_rules
from core0.links.wanted import Wanted
from core0.linux import files
from core0.linux.files import StrPath
from core0.linux.netlink import LinkChanges, Netlink
from core0.wire import paths
from core0.wire.control import Report, conflict
from core0.wire.network import CONTAINER_LINKS

if TYPE_CHECKING:
    from core0.links.autoconfig import Autoconfiguration
    from core0.wire.link_config import LinkConfig, NetworkConfig

_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
_SETTLE = 0.05


class Links:
    """The node's own links.

    Args:
        report: where to tell what happens.
        on_address: told of the first address that comes, and where from.
        kept: the file of the leases; beside it is the resolv.conf(5) of the node's own programs.
        settings: the file of what the config says.
    """

    def __init__(
        self,
        report: Report,
        on_address: Callable[[str], None],
        kept: StrPath = paths.LEASES,
        settings: StrPath = paths.LINKS,
    ) -> None:
        self._report = report
        self._on_address = on_address
        self._leases = Leases(report, self._reconcile, self._reached, self._fail, kept)
        self._names = Names(report)
        self._settings = Settings(report, settings)
        self._wanted = Wanted((), frozenset(), {}, {})
        self._failing: dict[str, str] = {}
        # The subnets that no link may be given, by whose they are. Who has any says so.
        self.taken: Callable[[], Mapping[str, Sequence[str]]] = dict
        # Called when the node knows other name servers or time servers. Who asks them says so.
        self.on_servers: Callable[[], None] = lambda: None
        self._rtnetlink = Netlink()
        self._changes = LinkChanges()
        self._indexes: tuple[int, ...] | None = None  # of the node's own links, until one comes or goes
        self._wake = asyncio.Event()
        self._linkless = False
        self._is_reached = bool(self._leases.held)
        self._told: frozenset[tuple[int, str]] = frozenset()
        self._routers: Autoconfiguration | None = None
        self._resolver_file = f"{os.path.dirname(kept)}/resolv.conf"
        self._servers: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._defect: BaseException | None = None

    @property
    def nameservers(self) -> tuple[str, ...]:
        """Those of the config, then those of all leases and routers, each once."""
        advertised = self._routers.nameservers if self._routers else ()
        return tuple(dict.fromkeys((*self._settings.nameservers, *self._leases.nameservers, *advertised)))

    @property
    def timeservers(self) -> tuple[str, ...]:
        """The NTP servers of all leases, each once."""
        advertised = self._routers.timeservers if self._routers else ()
        return tuple(dict.fromkeys((*self._leases.timeservers, *advertised)))

    @property
    def conversations(self) -> Mapping[int, Conversation]:
        """How each link's talk with DHCP servers stands, by its index; one without a carrier may have had none."""
        return self._leases.conversations

    @property
    def wanted(self) -> Wanted:
        """The links as they shall be, since the last look at them."""
        return self._wanted

    def seen(self) -> tuple[SeenLink, ...]:
        """The node's links as they are, without their routes, cards first."""
        links = observe_own(self._rtnetlink, self.indexes())
        return tuple(sorted(links, key=lambda link: (not link.is_card, link.index)))

    def indexes(self) -> tuple[int, ...]:
        """The numbers of the node's own links, the loopback's among them."""
        self._hear()  # what came or went a moment ago, which the loop may not have heard of yet
        if self._indexes is None:
            self._indexes = observe_indexes()
        return self._indexes

    def check(self, config: "NetworkConfig") -> None:
        """Refuse a config that can never be, or not with the links of now. Raises RefusedError with the field."""
        self._settings.check(config, observe(self._rtnetlink), self.taken())

    async def prepare(self, config: "NetworkConfig") -> None:
        """Load the drivers of the links that a config has made: before `change`, which could not wait for them."""
        await self._load_drivers(config.links)

    def change(self, config: "NetworkConfig") -> None:
        """Bring the links to a config; if the kernel refuses any of it, they are brought back.

        Raises:
            RefusedError: with the field, or with the kernel's words.
        """
        self.check(config)
        before, self._settings.links = self._settings.links, config.links
        refused = self._bring_to_settings()
        if not refused:
            # at once: who asks on a link that became a member of another would tell that it failed
            self._leases.end_others(link for link in self.seen() if link.name in self._wanted.dhcp)
            self._settings.keep()
            self._wake.set()
            return
        self._settings.links = before
        self._bring_to_settings()
        self._wake.set()
        link, error = next(iter(refused.items()))
        said = f"cannot use the config: {error.strerror or error}"
        raise conflict(said, f"link {link} cannot be so on this machine; all links are as before", "/network")

    def adopt(self, config: "NetworkConfig") -> None:
        """Bring the links to a config as far as it goes: what the kernel refuses is tried again for ever.

        Raises:
            RefusedError: if it can never be.
        """
        self._settings.check(config, (), {})
        self._settings.links = config.links
        self._settings.keep()
        self._wake.set()

    def close(self) -> None:
        """Close the sockets to the kernel."""
        if self._routers:
            self._routers.close()
        self._rtnetlink.close()
        self._changes.close()

    async def run(self) -> None:
        """Keep the links as the leases want them. Ends only by cancellation, or by a defect, which it raises."""
        asyncio.get_running_loop().add_reader(self._changes.fileno(), self._hear)
        delay = _FIRST_DELAY
        while True:
            self._wake.clear()
            await self._load_drivers(self._settings.links)
            refused = self._reconcile()
            delay = min(delay * 2, _LONGEST_DELAY) if refused else _FIRST_DELAY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay if refused else None):
                    await self._wake.wait()
            if self._defect:
                raise self._defect
            await asyncio.sleep(_SETTLE)

    async def _load_drivers(self, links: "Mapping[str, LinkConfig]") -> None:
        """In a thread; what fails here fails again for the link that needs it, and is told there."""
        if kinds := missing(link.kind for link in links.values()):
            with contextlib.suppress(OSError):
                await asyncio.to_thread(load, kinds)

    def _hear(self) -> None:
        """Look at the links again, but not for containers' links: there may be thousands."""
        if _concern_node(self._changes.links()):
            self._indexes = None
            self._wake.set()

    async def follow_routers(self) -> None:
        """Do for ever as routers say; the addresses that a boot waits for the kernel takes from them by itself."""
        from core0.links.autoconfig import Autoconfiguration

        routers = Autoconfiguration(self._report, self._rtnetlink, self._fail, self._keep_resolver)
        self._routers, heard = routers, asyncio.Event()
        routers.ask(self.seen())

        def hear() -> None:
            if _concern_node(routers.hear()):
                heard.set()

        asyncio.get_running_loop().add_reader(routers.fileno(), hear)
        while True:
            heard.clear()
            routers.follow(self.seen())
            self._keep_resolver()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(routers.seconds_left):
                    await heard.wait()

    def _look(self) -> tuple[SeenLink, ...]:
        """Every link of the node; cards that came are called by their names first."""
        landscape = observe(self._rtnetlink)
        return observe(self._rtnetlink) if self._names.give(landscape, self._rtnetlink) else landscape

    def _reconcile(self) -> dict[str, OSError]:
        """Bring the links to what config and leases want; returns what the kernel refused, by link, and tells it."""
        landscape = self._look()
        wanted = self._settings.want(self._leases.held, landscape)
        refused = self._settle(wanted, landscape)
        links = own(landscape)
        self._tell_routed(links)
        if self._routers:
            self._routers.follow(links)
        self._leases.keep(links, wanted.dhcp)
        self._keep_resolver()
        return refused

    def _keep_resolver(self) -> None:
        """Have everybody here ask the servers that the node knows now."""
        known = self.nameservers, self.timeservers
        if known != self._servers:
            self._servers = known
            files.replace(self._resolver_file, _resolver(known[0]).encode())
            self.on_servers()

    def _bring_to_settings(self) -> dict[str, OSError]:
        """The same for the links alone: who changed the settings hears what the kernel says of it."""
        landscape = self._look()
        return self._settle(self._settings.want(self._leases.held, landscape), landscape)

    def _settle(self, wanted: Wanted, landscape: Sequence[SeenLink]) -> dict[str, OSError]:
        self._wanted = wanted
        self._tell_linkless(not any(link.is_card for link in landscape))
        rules = plan_rules(wanted.rules, observe_rules(self._rtnetlink))
        return self._carry_out((*plan(wanted.links, landscape), *rules))

    def _carry_out(self, actions: Iterable[Action]) -> dict[str, OSError]:
        """Apply a plan. After a failure nothing more is done to the link; the same failure is told once."""
        refused: dict[str, OSError] = {}
        failing: dict[str, str] = {}
        for action in actions:
            if action.link in refused:
                continue
            said = str(action)
            if said not in self._failing:
                self._report("network", action.link, f"{said[0].upper()}{said[1:]}")
            try:
                apply(action, self._rtnetlink)
            except OSError as error:  # a link that was pulled at this moment, an address that is none
                if self._failing.get(said) != str(error):
                    self._report("network", action.link, f"Failed: {error}")
                refused[action.link] = error
                failing[said] = str(error)
        self._failing = failing
        return refused

    def _fail(self, defect: BaseException) -> None:
        self._defect = defect
        self._wake.set()

    def _tell_linkless(self, linkless: bool) -> None:
        """A node without a link is reached by nobody: its console is where to say so."""
        if linkless and not self._linkless:
            said = "None is there; plug a network card for which the image has a driver"
            self._report("network", "links", said)
        self._linkless = linkless

    def _tell_routed(self, seen: Sequence[SeenLink]) -> None:
        """Tell which addresses routers gave, and which of them another machine has."""
        own = {(link.index, address): link for link in seen for address in link.routed}
        taken = {(link.index, address): link for link in seen for address in link.duplicates}
        for (index, address), link in {**own, **taken}.items():
            if (index, address) in self._told:
                continue
            if (index, address) in taken:
                said = f"Alert: {address} is not used: another machine on this link has it; find that one"
                self._report("network", link.name, said)
            else:
                self._reached(f"{address} on {link.name}")
        self._told = frozenset((*own, *taken))

    def _reached(self, said: str) -> None:
        """Tell that the node has an address, if it is the first."""
        if not self._is_reached:
            self._is_reached = True
            self._on_address(said)


def _concern_node(links: Iterable[int]) -> bool:
    """Whether one of these links is not a container's; 0 stands for any."""
    return any(index < CONTAINER_LINKS for index in links)


def _resolver(nameservers: Sequence[str]) -> str:
    """The text of resolv.conf(5), of which programs read three servers."""
    return "".join(f"nameserver {address}\n" for address in nameservers[:3]) + "options timeout:2\n"
