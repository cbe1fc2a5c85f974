"""The node daemon's end: has the process that answers containers' questions run, and tells it the names.

The sockets are the daemon's: questions wait in them while the process is started again, and none is refused.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable

from core0.wire.control import Report, encoded
from core0.wire.names import PORT, Host, Told, Zone
from core0.wire.network import GATEWAY

_FIRST_DELAY, _LONGEST_DELAY, _STABLE = 0.1, 30.0, 60.0
_BACKLOG = 64


class Names:
    """What containers may ask.

    Args:
        report: where to tell what happened.
        nameservers: the name servers that the node knows now.
        fork: starts the process, without privilege, with its end of the talk, a stream socket.
        at: the address and port where containers ask.
    """

    def __init__(
        self,
        report: Report,
        nameservers: Callable[[], tuple[str, ...]],
        fork: Callable[[int], Awaitable[None]],
        at: tuple[str, int] = (GATEWAY, PORT),
    ) -> None:
        self._report = report
        self._nameservers = nameservers
        self._fork = fork
        self._at = at
        self._wanted = asyncio.Event()
        self._zones: tuple[Zone, ...] = ()
        self._hosts: dict[str, Host] = {}
        self._asked: tuple[str, ...] = ()
        self._writer: asyncio.StreamWriter | None = None
        self._sockets: tuple[socket.socket, ...] = ()

    def begin(self) -> None:
        """Answer from now on: there is a container, and the address to ask at."""
        self._wanted.set()

    def set_zones(self, zones: Iterable[Zone]) -> None:
        """Say which networks there are."""
        self._zones = tuple(zones)
        self._tell(Told(zones=self._zones))

    def add(self, host: Host) -> None:
        """Say that a container is linked."""
        self._hosts[host.ipv4] = host
        self._tell(Told(came=(host,)))

    def remove(self, ipv4: str) -> None:
        """Say that the container with an address is gone; one that is not known is fine."""
        if self._hosts.pop(ipv4, None):
            self._tell(Told(went=(ipv4,)))

    def look(self) -> None:
        """See which name servers the node knows now."""
        now = self._nameservers()
        if now != self._asked:
            self._asked = now
            self._tell(Told(nameservers=now))

    def _tell(self, told: Told) -> None:
        """What the process does not take yet waits in memory: it is small, and ends with the process."""
        if self._writer:
            self._writer.write(encoded(told))

    async def run(self) -> None:
        """Have the process run, for ever, once a container needs it."""
        await self._wanted.wait()
        loop, delay = asyncio.get_running_loop(), _FIRST_DELAY
        while True:
            begun = loop.time()
            try:
                await self._live()
                said = "the process that answers ended"
            except OSError as error:
                said = f"cannot start what answers: {error or 'the template did not answer in time'}"
            delay = _FIRST_DELAY if loop.time() - begun >= _STABLE else delay
            self._report("network", "names", f"Failed: {said}; starting it again in {delay:.1f} s")
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    async def _live(self) -> None:
        """One life of the process, to its end. Raises OSError if it cannot begin."""
        if not self._sockets:
            self._sockets = _listen(self._at)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                await self._fork(theirs.fileno())
                socket.send_fds(ours, [b"\0"], [one.fileno() for one in self._sockets])
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            self._asked = self._nameservers()
            self._tell(Told(self._zones, self._asked, tuple(self._hosts.values())))
            await _ended(reader)
        finally:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Close the sockets."""
        for one in self._sockets:
            one.close()
        self._sockets = ()


async def _ended(reader: asyncio.StreamReader) -> None:
    """Wait until the other end is closed: nothing else comes from there."""
    with contextlib.suppress(ConnectionError):
        await reader.read(1)


def _listen(at: tuple[str, int]) -> tuple[socket.socket, ...]:
    """Where containers ask, by UDP and TCP.

    An earlier daemon's process may have sockets there still, until this one's takes its place (SO_REUSEPORT).
    """
    made = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        one = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        made.append(one)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(at)
            if kind == socket.SOCK_STREAM:
                one.listen(_BACKLOG)
        except OSError as error:
            for other in made:
                other.close()
            raise OSError(error.errno, f"cannot listen at {at[0]} port {at[1]}: {error.strerror}") from None
    return tuple(made)
