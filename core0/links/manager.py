"""The link manager: leases on every link, tried for ever and side by side.

It never stops the boot: a link that nobody answers on is tried again while the others serve.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic as now
from typing import TYPE_CHECKING, Literal

import msgspec

from core0.links import dhcp
from core0.links.apply import apply
from core0.links.model import Action, Conversation, Lease, SeenLink
from core0.links.observe import observe, own
from core0.links.plan import plan
from core0.links.settings import Settings
from core0.links.wanted import Wanted
from core0.linux import files
from core0.linux.files import StrPath
from core0.linux.netlink import LinkChanges, Netlink
from core0.wire import paths
from core0.wire.control import Report, conflict
from core0.wire.network import CONTAINER_LINKS

if TYPE_CHECKING:
    from core0.links.autoconfig import Autoconfiguration
    from core0.wire.link_config import NetworkConfig

_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
_SETTLE = 0.05
# Seconds that the rest of a boot has for itself before a leased address is looked for on other machines.
_BREATH = 2.0
# Before another address is asked for (RFC 2131 section 3.1, step 5).
_DECLINED = 10.0
# Between two tries to renew a lease (RFC 2131 section 4.4.5).
_LEAST_RENEWAL = 60.0


class Links:
    """The node's own links.

    Args:
        report: where to tell what happens.
        on_address: told of the first address that comes, and where from.
        kept: the file of the leases.
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
        self._kept = kept
        self._leases = _kept_leases(kept)
        self._settings = Settings(report, settings)
        self._failing: dict[str, str] = {}
        # The subnets that no link may be given, by whose they are. Who has any says so.
        self.taken: Callable[[], Mapping[str, Sequence[str]]] = dict
        self._clients: dict[int, asyncio.Task[None]] = {}
        self._conversations: dict[int, Conversation] = {}
        self._dark: set[int] = set()
        self._rtnetlink = Netlink()
        self._changes = LinkChanges()
        self._wake = asyncio.Event()
        self._linkless = False
        self._is_reached = bool(self._leases)
        self._told: frozenset[tuple[int, str]] = frozenset()
        self._routers: Autoconfiguration | None = None
        self._defect: BaseException | None = None

    @property
    def nameservers(self) -> tuple[str, ...]:
        """Those of the config, then those of all leases and routers, each once."""
        leased = [server for lease in self._leases.values() for server in lease.nameservers]
        advertised = self._routers.nameservers if self._routers else ()
        return tuple(dict.fromkeys((*self._settings.nameservers, *leased, *advertised)))

    @property
    def conversations(self) -> Mapping[int, Conversation]:
        """How each link's talk with DHCP servers stands, by its index; one without a carrier may have had none."""
        return self._conversations

    def seen(self) -> tuple[SeenLink, ...]:
        """The node's links as they are, cards first."""
        return tuple(sorted(own(observe(self._rtnetlink)), key=lambda link: (not link.is_card, link.index)))

    def check(self, config: "NetworkConfig") -> None:
        """Refuse a config that can never be, or not with the links of now. Raises RefusedError with the field."""
        self._settings.check(config, observe(self._rtnetlink), self.taken())

    def change(self, config: "NetworkConfig") -> None:
        """Bring the links to a config; if the kernel refuses any of it, they are brought back.

        Raises:
            RefusedError: with the field, or with the kernel's words.
        """
        self.check(config)
        before, self._settings.links = self._settings.links, config.links
        refused = self._bring_to_settings()
        if not refused:
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
            refused = self._reconcile()
            delay = min(delay * 2, _LONGEST_DELAY) if refused else _FIRST_DELAY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay if refused else None):
                    await self._wake.wait()
            if self._defect:
                raise self._defect
            await asyncio.sleep(_SETTLE)

    def _hear(self) -> None:
        """Look at the links again, but not for containers' links: there may be thousands."""
        if any(index < CONTAINER_LINKS for index in self._changes.links()):
            self._wake.set()

    async def follow_routers(self) -> None:
        """Do for ever as routers say; the addresses that a boot waits for the kernel takes from them by itself."""
        from core0.links.autoconfig import Autoconfiguration

        self._routers = Autoconfiguration(self._report, self._rtnetlink, self._fail)
        self._routers.ask(self.seen())
        heard = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._routers.fileno(), heard.set)
        while True:
            heard.clear()
            self._routers.follow(self.seen())
            await heard.wait()

    def _reconcile(self) -> dict[str, OSError]:
        """Bring the links to what config and leases want; returns what the kernel refused, by link, and tells it."""
        landscape = observe(self._rtnetlink)
        wanted = self._settings.want(self._leases, landscape)
        refused = self._settle(wanted, landscape)
        links = own(landscape)
        self._tell_routed(links)
        if self._routers:
            self._routers.follow(links)
        self._keep_clients(links, wanted.dhcp)
        return refused

    def _bring_to_settings(self) -> dict[str, OSError]:
        """The same for the links alone: who changed the settings hears what the kernel says of it."""
        landscape = observe(self._rtnetlink)
        return self._settle(self._settings.want(self._leases, landscape), landscape)

    def _settle(self, wanted: Wanted, landscape: Sequence[SeenLink]) -> dict[str, OSError]:
        self._tell_linkless(not any(link.is_card for link in landscape))
        return self._carry_out(plan(wanted.links, landscape))

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

    def _keep_clients(self, links: Iterable[SeenLink], asking: frozenset[str]) -> None:
        """Ask for leases on these links, and on no other any more."""
        indexes = set()
        for link in links:
            if link.name not in asking:
                continue
            indexes.add(link.index)
            if not link.carrier:
                self._dark.add(link.index)
            elif link.index in self._dark or link.index not in self._clients:
                self._begin_client(link)
        for index in self._clients.keys() - indexes:
            self._clients.pop(index).cancel()
            self._leases.pop(index, None)
            self._conversations.pop(index, None)
        self._dark &= indexes

    def _begin_client(self, link: SeenLink) -> None:
        """Ask for a lease; anew if the carrier was away: behind it may be another network."""
        self._dark.discard(link.index)
        if link.index in self._clients:
            self._clients[link.index].cancel()
        self._clients[link.index] = asyncio.create_task(self._keep_lease(link))
        self._clients[link.index].add_done_callback(self._ended)

    def _ended(self, client: asyncio.Task[None]) -> None:
        """A client that ends by itself is a defect: the daemon shall end by it and start again."""
        if not client.cancelled() and (error := client.exception()):
            self._fail(error)

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

    async def _keep_lease(self, link: SeenLink) -> None:
        """Get a lease, keep it, and start over when it is lost."""
        delay = _FIRST_DELAY
        while True:
            self._note_asking(link)
            if link.index in self._leases and self._time_left(link) == 0:
                self._drop_lease(link)
            held = self._leases.get(link.index)
            try:
                lease = await self._lease(link)
                self._set_lease(link, lease)
                # T1, RFC 2131 section 4.4.5; a lease of seconds would otherwise be renewed without a pause.
                pause = max(lease.seconds / 2, 10.0)
                self._note_lease(link, lease, pause)
                if held is None or held.address != lease.address:
                    await self._refuse_duplicate(link, lease)
            except (dhcp.NoAnswerError, OSError) as error:
                left = self._time_left(link)
                if held and left and not isinstance(error, dhcp.RefusedError):
                    await self._wait_unrenewed(link, held, error, left)
                    continue
                delay = max(delay, _DECLINED) if isinstance(error, dhcp.DeclinedError) else delay
                self._report("network", link.name, f"No lease: {error}; trying again in {delay:.0f} s")
                self._drop_lease(link)
                pause = delay * random.uniform(0.8, 1.2)  # noqa: S311 — spreads load, hides nothing
                self._note_failure(link, error, pause)
                await asyncio.sleep(pause)
                delay = min(delay * 2, _LONGEST_DELAY)
                continue
            delay = _FIRST_DELAY
            await asyncio.sleep(pause)

    def _time_left(self, link: SeenLink) -> float | None:
        """How many seconds a link's lease still holds; None if nobody knows, as of one of an earlier node daemon."""
        talk = self._conversations.get(link.index)
        return None if talk is None or talk.until is None else max(0.0, talk.until - now())

    async def _wait_unrenewed(self, link: SeenLink, lease: Lease, error: Exception, left: float) -> None:
        """Keep a lease that nobody renewed as long as it holds, and wait half of that (RFC 2131 section 4.4.5)."""
        cause = _in_words(error)
        said = f"Lease of {lease.address} not renewed: {cause}; it holds for {left:.0f} s, asking again until then"
        self._report("network", link.name, said)
        pause = min(max(left / 2, _LEAST_RENEWAL), left)
        since = self._conversations[link.index].since
        self._conversations[link.index] = Conversation(
            "renewing", since, lease, now() + left, now() + pause, cause
        )
        await asyncio.sleep(pause)

    def _note_asking(self, link: SeenLink) -> None:
        """A try begins. After one that failed it is still told how that ended, until another answer comes."""
        before = self._conversations.get(link.index)
        if before and before.state != "bound":
            again = Conversation(before.state, before.since, before.lease, before.until, cause=before.cause)
            self._conversations[link.index] = again
            return
        lease = self._leases.get(link.index)
        state: Literal["renewing", "asking"] = "renewing" if lease else "asking"
        self._conversations[link.index] = Conversation(state, now(), lease, before.until if before else None)

    def _note_lease(self, link: SeenLink, lease: Lease, pause: float) -> None:
        moment = now()
        until = moment + lease.seconds
        self._conversations[link.index] = Conversation("bound", moment, lease, until, moment + pause)

    def _note_failure(self, link: SeenLink, error: Exception, pause: float) -> None:
        before = self._conversations.get(link.index)
        state: Literal["refused", "unanswered", "failed"] = "failed"
        if isinstance(error, dhcp.NoAnswerError):
            state = "refused" if isinstance(error, dhcp.RefusedError) else "unanswered"
        since = before.since if before and before.state == state else now()
        cause = _in_words(error)
        self._conversations[link.index] = Conversation(state, since, next_try=now() + pause, cause=cause)

    async def _refuse_duplicate(self, link: SeenLink, lease: Lease) -> None:
        """Look for another machine with the address while it is used already: no boot waits for nobody's answer.

        Raises:
            DeclinedError: there is one; the server knows.
            OSError: the link went.
        """
        await asyncio.sleep(_BREATH)
        from core0.links.conflict import find_other

        if other := await find_other(link.name, lease.address.partition("/")[0]):
            with dhcp.Client(link.name) as client:
                client.decline(lease)
            cause = f"the server gave {lease.address}, which machine {other} has"
            raise dhcp.DeclinedError(f"{cause}; take the address from one of them")

    async def _lease(self, link: SeenLink) -> Lease:
        held = self._leases.get(link.index)
        with dhcp.Client(link.name) as client:
            if held:
                try:
                    return await client.request(held)
                except dhcp.NoAnswerError as error:
                    if self._time_left(link) and not isinstance(error, dhcp.RefusedError):
                        raise
                    self._report("network", link.name, f"Lease of {held.address} not renewed: {error}")
            return await client.acquire()

    def _set_lease(self, link: SeenLink, lease: Lease) -> None:
        """Use a lease. Raises OSError if the kernel does not take its address or its route."""
        before = self._leases.get(link.index)
        self._leases[link.index] = lease
        self._keep_leases()
        refused = self._reconcile() if lease != before else {}
        if link.name in refused:
            raise refused[link.name]
        self._reached(f"{lease.address} from {lease.server}")

    def _drop_lease(self, link: SeenLink) -> None:
        if self._leases.pop(link.index, None):
            self._keep_leases()
            self._reconcile()

    def _keep_leases(self) -> None:
        files.replace(self._kept, msgspec.json.encode(self._leases))


def _in_words(error: Exception) -> str:
    """What went wrong, without the number that the kernel has for it."""
    return getattr(error, "strerror", None) or str(error)


def _kept_leases(file: StrPath) -> dict[int, Lease]:
    """The leases of an earlier node daemon: the links keep their addresses while it starts again."""
    try:
        return msgspec.json.decode(files.read(file), type=dict[int, Lease])
    except FileNotFoundError:
        return {}
