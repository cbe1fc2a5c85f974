"""The IPv4 leases of the node's links: a conversation with DHCP servers on each, tried for ever, side by side."""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from time import monotonic as now
from typing import Literal

import msgspec

from core0.links import dhcp
from core0.links.model import Conversation, Lease, SeenLink
from core0.linux import files
from core0.linux.files import StrPath
from core0.wire.control import Report

_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
# Seconds that the rest of a boot has for itself before a leased address is looked for on other machines.
_BREATH = 2.0
# Before another address is asked for (RFC 2131 section 3.1, step 5).
_DECLINED = 10.0
# Between two tries to renew a lease (RFC 2131 section 4.4.5).
_LEAST_RENEWAL = 60.0


class Leases:
    """What DHCP servers gave, by the links' numbers, and how it is kept.

    Args:
        report: where to tell what happens.
        use: brings the links to what the leases want now; returns what the kernel refused, by link.
        reached: told of an address that is used, and where from.
        failed: takes the defect by which a conversation ended.
        kept: the file that an earlier node daemon left its leases in.
    """

    def __init__(
        self,
        report: Report,
        use: Callable[[], Mapping[str, OSError]],
        reached: Callable[[str], None],
        failed: Callable[[BaseException], None],
        kept: StrPath,
    ) -> None:
        self._report = report
        self._use = use
        self._reached = reached
        self._failed = failed
        self._kept = kept
        self._held = _kept_leases(kept)
        self._clients: dict[int, asyncio.Task[None]] = {}
        self._conversations: dict[int, Conversation] = {}
        self._dark: set[int] = set()

    @property
    def held(self) -> Mapping[int, Lease]:
        """Those that are in force."""
        return self._held

    @property
    def timeservers(self) -> tuple[str, ...]:
        """Those of all leases."""
        return tuple(server for lease in self._held.values() for server in lease.timeservers)

    @property
    def nameservers(self) -> tuple[str, ...]:
        """Those of all leases, in their order."""
        return tuple(server for lease in self._held.values() for server in lease.nameservers)

    @property
    def conversations(self) -> Mapping[int, Conversation]:
        """How each link's talk with DHCP servers stands; one without a carrier may have had none."""
        return self._conversations

    def keep(self, links: Iterable[SeenLink], asking: frozenset[str]) -> None:
        """Ask for leases on these links, and on no other any more."""
        asked = [link for link in links if link.name in asking]
        self.end_others(asked)
        for link in asked:
            if not link.carrier:
                self._dark.add(link.index)
            elif link.index in self._dark or link.index not in self._clients:
                self._begin_client(link)

    def end_others(self, asked: Iterable[SeenLink]) -> None:
        """Ask on no links but these any more."""
        indexes = {link.index for link in asked}
        for index in self._clients.keys() - indexes:
            self._clients.pop(index).cancel()
            self._held.pop(index, None)
            self._conversations.pop(index, None)
        self._dark &= indexes

    def _begin_client(self, link: SeenLink) -> None:
        """Ask for a lease; anew if the carrier was away: behind it may be another network."""
        self._dark.discard(link.index)
        moved = link.index in self._clients
        if moved:
            self._clients[link.index].cancel()
        self._clients[link.index] = asyncio.create_task(self._keep_lease(link, moved=moved))
        self._clients[link.index].add_done_callback(self._ended)

    def _ended(self, client: asyncio.Task[None]) -> None:
        """A client that ends by itself is a defect: the daemon shall end by it and start again."""
        if not client.cancelled() and (error := client.exception()):
            self._failed(error)

    async def _keep_lease(self, link: SeenLink, *, moved: bool = False) -> None:
        """Get a lease, keep it, and start over when it is lost; `moved` if the carrier was away just now."""
        delay = _FIRST_DELAY
        while True:
            self._note_asking(link)
            if link.index in self._held and self._time_left(link) == 0:
                self._end_lease(link)
            held = self._held.get(link.index)
            try:
                lease = await self._lease(link, moved=moved)
                self._set_lease(link, lease)
                # T1, RFC 2131 section 4.4.5; a lease of seconds would otherwise be renewed without a pause.
                pause = max(lease.seconds / 2, 10.0)
                renewal = now() + pause
                self._note_lease(link, lease, pause)
                if held is None or held.address != lease.address:
                    await self._refuse_duplicate(link, lease)
            except (dhcp.NoAnswerError, OSError) as error:
                held, left = self._held.get(link.index), self._time_left(link)
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
            delay, moved = _FIRST_DELAY, False
            await asyncio.sleep(max(0.0, renewal - now()))

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
        lease = self._held.get(link.index)
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

    async def _lease(self, link: SeenLink, *, moved: bool = False) -> Lease:
        """Renew the lease that is held, or get one; who moved takes another server's if nobody renews it."""
        held = self._held.get(link.index)
        with dhcp.Client(link.name) as client:
            if held:
                try:
                    async with asyncio.timeout(self._time_left(link)):
                        return await client.renew(held)
                except (dhcp.NoAnswerError, TimeoutError) as error:
                    is_refused = isinstance(error, dhcp.RefusedError)
                    if isinstance(error, TimeoutError) or self._time_left(link) == 0:
                        self._end_lease(link)
                        return await client.acquire()
                    if not is_refused and not moved:
                        raise
                    self._report("network", link.name, f"Lease of {held.address} not renewed: {error}")
                    if is_refused:  # it may not be used any more, whoever answers next
                        self._drop_lease(link)
            return await client.acquire()

    def _set_lease(self, link: SeenLink, lease: Lease) -> None:
        """Use a lease. Raises OSError if the kernel does not take its address or its route."""
        before = self._held.get(link.index)
        self._held[link.index] = lease
        self._write()
        refused = self._use() if lease != before else {}
        if link.name in refused:
            raise refused[link.name]
        self._reached(f"{lease.address} from {lease.server}")

    def _end_lease(self, link: SeenLink) -> None:
        """Use a lease no more whose time is over."""
        self._report(
            "network", link.name, f"Lease of {self._held[link.index].address} ended: nobody renewed it"
        )
        self._drop_lease(link)
        self._conversations[link.index] = Conversation("asking", now())

    def _drop_lease(self, link: SeenLink) -> None:
        if self._held.pop(link.index, None):
            self._write()
            self._use()

    def _write(self) -> None:
        files.replace(self._kept, msgspec.json.encode(self._held))


def _in_words(error: Exception) -> str:
    """What went wrong, without the number that the kernel has for it."""
    return getattr(error, "strerror", None) or str(error)


def _kept_leases(file: StrPath) -> dict[int, Lease]:
    """The leases of an earlier node daemon: the links keep their addresses while it starts again."""
    try:
        return msgspec.json.decode(files.read(file), type=dict[int, Lease])
    except FileNotFoundError:
        return {}
