"""IPv6 as routers say: the kernel takes addresses and routes from them; the rest is here.

That is name servers, which routers advertise or DHCPv6 tells, and addresses by DHCPv6 where routers say so.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Sequence
from time import monotonic as now

import msgspec

from core0.links import dhcp6
from core0.links.dhcp import NoAnswerError, RefusedError
from core0.links.model import Lease6, SeenLink
from core0.linux import netlink, routers
from core0.linux.netlink import ROUTER_MANAGED, Netlink
from core0.linux.routers import Advertisements, NameServers
from core0.wire.control import Report

_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
# A lease of seconds would otherwise be renewed without a pause.
_LEAST_PAUSE = 10.0
# Between two tries to renew a lease that nobody renewed.
_LEAST_RENEWAL = 60.0
# A router may name as many as it likes; who asks names uses the first three (resolv.conf(5)).
_MOST_NAMESERVERS = 8


class _Asking(msgspec.Struct, frozen=True):
    """A link's client, and what routers said when it began."""

    flags: int
    task: asyncio.Task[None]


class Autoconfiguration:
    """What routers say on the node's links.

    Args:
        report: where to tell what happened.
        rtnetlink: the socket to the kernel.
        failed: takes the defect by which a client ended.
        changed: told when name servers or time servers came or went.
    """

    def __init__(
        self,
        report: Report,
        rtnetlink: Netlink,
        failed: Callable[[BaseException], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._report = report
        self._rtnetlink = rtnetlink
        self._failed = failed
        self._changed = changed
        self._heard = Advertisements()
        self._told: list[NameServers] = []
        self._clients: dict[int, _Asking] = {}
        self._leases: dict[int, Lease6] = {}
        # When the address of each ends, of the monotonic clock.
        self._ends: dict[int, float] = {}
        self._advertised: dict[tuple[int, str], float] = {}

    def fileno(self) -> int:
        """The descriptor to poll: it is time to `hear` when it can be read."""
        return self._heard.fileno()

    def close(self) -> None:
        """End the clients, close the socket."""
        for asking in self._clients.values():
            asking.task.cancel()
        self._heard.close()

    @property
    def nameservers(self) -> tuple[str, ...]:
        """Those that may be used now, each once; a link's own address says which link."""
        moment = now()
        advertised = [name for (_, name), until in self._advertised.items() if until > moment]
        told = [name for lease in self._leases.values() for name in lease.nameservers]
        return tuple(dict.fromkeys((*advertised, *told)))[:_MOST_NAMESERVERS]

    @property
    def seconds_left(self) -> float | None:
        """Until the first of what routers advertise may not be used any more; None for nothing."""
        moment = now()
        return min((until - moment for until in self._advertised.values() if until > moment), default=None)

    @property
    def timeservers(self) -> tuple[str, ...]:
        """Those that DHCPv6 named."""
        return tuple(one for lease in self._leases.values() for one in lease.timeservers)

    def ask(self, links: Sequence[SeenLink]) -> None:
        """Ask the routers of these links to advertise now: what they said before this began was not heard."""
        for link in links:
            with contextlib.suppress(OSError):  # it has no address yet: the kernel asks when it has
                routers.solicit(link.index)

    def hear(self) -> frozenset[int]:
        """Listen to what has come, for `follow` to do it; returns the links that it is about."""
        heard = self._heard.pending()
        self._told += heard.servers
        return heard.links

    def follow(self, links: Sequence[SeenLink]) -> None:
        """Do as routers say now, on these links."""
        names = {link.index: link.name for link in links}
        self.hear()
        for found in self._told:
            self._note(names.get(found.index), found)
        self._told.clear()
        flags = self._rtnetlink.router_flags()
        wanted = {link.index: flags.get(link.index, 0) for link in links if link.carrier}
        for index, asking in tuple(self._clients.items()):
            if asking.flags != wanted.get(index, 0):
                self._end(index)
        for link in links:
            if wanted.get(link.index) and link.index not in self._clients:
                self._begin(link, wanted[link.index])
        self._forget(names)

    def _note(self, link: str | None, found: NameServers) -> None:
        """Remember name servers as long as their router says; link-local ones are of use with its name only."""
        if link is None:
            return
        for address in found.addresses:
            name = f"{address}%{link}" if address.startswith("fe80:") else address
            self._advertised.pop((found.index, name), None)
            if found.seconds and len(self._advertised) < _MOST_NAMESERVERS:
                self._advertised[found.index, name] = now() + found.seconds

    def _forget(self, links: Iterable[int]) -> None:
        """What is over, or of a link that is gone."""
        moment, there = now(), set(links)
        self._advertised = {
            key: until for key, until in self._advertised.items() if until > moment and key[0] in there
        }

    def _begin(self, link: SeenLink, flags: int) -> None:
        task = asyncio.create_task(self._keep(link, managed=bool(flags & ROUTER_MANAGED)), name="dhcp6")
        self._clients[link.index] = _Asking(flags, task)
        task.add_done_callback(self._ended)

    def _end(self, index: int) -> None:
        self._clients.pop(index).task.cancel()
        self._drop(index)  # the kernel takes its address away when its time is over

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._failed(error)

    async def _keep(self, link: SeenLink, *, managed: bool) -> None:
        """Have what DHCPv6 gives, and start over when it is lost."""
        delay = _FIRST_DELAY
        while True:
            try:
                lease = await self._ask(link, managed=managed)
                self._use(link, lease)
            except (NoAnswerError, OSError) as error:
                if left := self._time_left(link):
                    await self._wait_unrenewed(link, error, left)
                    continue
                self._report("network", link.name, f"No DHCPv6: {error}; trying again in {delay:.0f} s")
                if managed:  # what goes with others' addresses holds until something else is told
                    self._drop(link.index)
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 — spreads load, hides nothing
                delay = min(delay * 2, _LONGEST_DELAY)
                continue
            delay = _FIRST_DELAY
            await asyncio.sleep(max(lease.renew, _LEAST_PAUSE))

    def _time_left(self, link: SeenLink) -> float:
        """For how many seconds more a link may use the address that it has; the kernel takes it away then."""
        return max(0.0, self._ends.get(link.index, 0.0) - now())

    async def _wait_unrenewed(self, link: SeenLink, error: Exception, left: float) -> None:
        """Keep an address that was not renewed as long as it holds, and wait half of that."""
        address = self._leases[link.index].address
        said = f"Lease of {address} not renewed: {error}; it holds for {left:.0f} s, asking again until then"
        self._report("network", link.name, said)
        await asyncio.sleep(min(max(left / 2, _LEAST_RENEWAL), left))

    def _drop(self, index: int) -> None:
        self._ends.pop(index, None)
        if self._leases.pop(index, None):
            self._changed()

    async def _ask(self, link: SeenLink, *, managed: bool) -> Lease6:
        with dhcp6.Client(link.name, bytes.fromhex(link.hardware.replace(":", ""))) as client:
            if not managed:
                return await client.inform()
            if self._time_left(link):
                held = self._leases[link.index]
                try:
                    return await client.renew(held)
                except RefusedError as error:
                    self._report("network", link.name, f"Lease of {held.address} not renewed: {error}")
            return await client.acquire()

    def _use(self, link: SeenLink, lease: Lease6) -> None:
        """Have it. Raises OSError if the kernel does not take its address."""
        held = self._leases.get(link.index)
        if lease.address:
            self._rtnetlink.apply([netlink.add_address(link.index, lease.address, seconds=lease.seconds)])
            self._ends[link.index] = now() + lease.seconds
        self._leases[link.index] = lease
        self._changed()
        if held is None or (held.address, held.nameservers) != (lease.address, lease.nameservers):
            told = ", ".join(lease.nameservers) or "none"
            said = f"Has {lease.address} by DHCPv6" if lease.address else "Asked DHCPv6"
            self._report("network", link.name, f"{said}; name servers: {told}")
