"""A router on a segment: this machine's kernel in a network namespace of its own, joined by a TAP device.

What it serves is dnsmasq's. Its namespace, and all that is in it, ends with the block. Needs root and /dev/net/tun.
"""

import asyncio
import fcntl
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ci.qemu.spec import SegmentNic
from core0.links.dhcp import checksum
from core0.linux import namespaces
from tests.core0 import dnsmasq

_TUN = Path("/dev/net/tun")
IS_POSSIBLE = os.geteuid() == 0 and _TUN.exists() and dnsmasq.IS_THERE
REASON = f"needs root, {_TUN} and Debian's dnsmasq-base"
# include/uapi/linux/if_tun.h
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x2, 0x1000
_IFREQ = struct.Struct("16sH22x")
_LARGEST_FRAME = 65550
_TAG = 0x8100
LINK = "lan"
# Type and code (RFC 792), and seconds between two.
_ECHO, _ECHO_REPLY, _ECHO_PAUSE = (8, 0), b"\0\0", 0.1


class Router:
    """A host with addresses, in the place of a machine's card.

    Args:
        nic: its card on the segment.
        addresses: its own, each as `address/prefix length`.
        vlan: the VLAN that it is in, as at a switch's access port; 0 for the frames without a tag.
        mtu: of its link.
    """

    def __init__(self, nic: SegmentNic, *addresses: str, vlan: int = 0, mtu: int = 1500) -> None:
        self._nic = nic
        self._tag = struct.pack("!HH", _TAG, vlan) if vlan else b""
        self._doors: list[asyncio.Server] = []
        self._relays: set[asyncio.Task[None]] = set()
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        namespaces.leave(namespaces.NEWNET)
        try:
            self._space = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._tap = _make_tap()
            Path("/proc/sys/net/ipv6/conf", LINK, "accept_dad").write_text("0")
            self._set_up(addresses, mtu)
        finally:
            namespaces.enter(before, namespaces.NEWNET)
            os.close(before)
        self._card = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._card.setblocking(False)
        self._card.bind(str(nic.local))

    def _set_up(self, addresses: tuple[str, ...], mtu: int) -> None:
        for address in addresses:
            dnsmasq.run("ip", "address", "add", address, "dev", LINK)
        dnsmasq.run("ip", "link", "set", LINK, "mtu", str(mtu), "up")
        dnsmasq.run("ip", "link", "set", "lo", "up")

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._tap, self._send)
        loop.add_reader(self._card, self._receive)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for relay in self._relays:
            relay.cancel()
        for door in self._doors:
            door.close()
        loop.remove_reader(self._tap)
        loop.remove_reader(self._card)
        self._card.close()
        os.close(self._tap)
        os.close(self._space)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread in the router's namespace: sockets and processes that it makes belong there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        namespaces.enter(self._space, namespaces.NEWNET)
        try:
            yield
        finally:
            namespaces.enter(before, namespaces.NEWNET)
            os.close(before)

    @contextmanager
    def serving(self, folder: Path, *options: str) -> Iterator[None]:
        """Let dnsmasq serve on the segment as long as this lasts."""
        with ExitStack() as stack:
            with self.inside():
                stack.enter_context(dnsmasq.serving(str(folder), *options, link=LINK))
            yield

    def set_addresses(self, *addresses: str) -> None:
        """Have these addresses, and no earlier ones."""
        with self.inside():
            dnsmasq.run("ip", "address", "flush", "dev", LINK, "scope", "global")
            for address in addresses:
                dnsmasq.run("ip", "address", "add", address, "dev", LINK)

    @asynccontextmanager
    async def pinging(self, address: str) -> AsyncIterator[Counter[str]]:
        """Send ten echoes a second as long as this lasts; counts how many were `sent`, and how many `came` back."""
        counts: Counter[str] = Counter()
        with self.inside():
            wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        wire.setblocking(False)
        loop = asyncio.get_running_loop()

        def count() -> None:
            packet, (sender, _) = wire.recvfrom(2048)
            counts["came"] += sender == address and packet[20:22] == _ECHO_REPLY

        async def send() -> None:
            while True:
                head = struct.pack("!BBHHH", *_ECHO, 0, 7, counts["sent"] & 0xFFFF)
                wire.sendto(
                    struct.pack("!BBHHH", *_ECHO, checksum(head), 7, counts["sent"] & 0xFFFF), (address, 0)
                )
                counts["sent"] += 1
                await asyncio.sleep(_ECHO_PAUSE)

        loop.add_reader(wire, count)
        sending = asyncio.create_task(send())
        try:
            yield counts
        finally:
            sending.cancel()
            loop.remove_reader(wire)
            wire.close()

    async def forward(self, address: str, port: int, source: str = "") -> str:
        """Where a host of the segment is reached from this machine: `127.0.0.1:port`.

        Args:
            address: the host's.
            port: of it.
            source: the router's own address to be seen as, as one of a network behind it; "" for the one nearest by.
        """

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task
            self._relays.add(task)
            with self.inside():
                far = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                far.bind((source, 0))
            try:
                await _join(far, (address, port), reader, writer)
            finally:
                far.close()
                writer.close()
                self._relays.discard(task)

        door = await asyncio.start_server(relay, "127.0.0.1")
        self._doors.append(door)
        return f"127.0.0.1:{door.sockets[0].getsockname()[1]}"

    def _send(self) -> None:
        frame = os.read(self._tap, _LARGEST_FRAME)
        with suppress(BlockingIOError):  # Ethernet loses frames
            self._card.sendto(frame[:12] + self._tag + frame[12:], str(self._nic.remote))

    def _receive(self) -> None:
        frame = self._card.recv(_LARGEST_FRAME)
        if self._tag:
            if frame[12:16] != self._tag:
                return
            frame = frame[:12] + frame[16:]
        elif int.from_bytes(frame[12:14]) == _TAG:
            return
        os.write(self._tap, frame)


def _make_tap() -> int:
    descriptor = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(LINK.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


async def _join(
    far: socket.socket, address: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Connect, and carry bytes both ways until one side ends."""
    far.setblocking(False)
    with suppress(OSError):  # nobody is there, or the connection broke: the near side sees its end
        await asyncio.get_running_loop().sock_connect(far, address)
        far_reader, far_writer = await asyncio.open_connection(sock=far)
        ways = [
            asyncio.create_task(_carry(reader, far_writer)),
            asyncio.create_task(_carry(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            far_writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
