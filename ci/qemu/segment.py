"""An Ethernet segment between machines, without privilege.

Each card sends its frames as datagrams to a Unix socket of ours, and we repeat each frame to all others, like
a hub. The cable of each card can be cut and mended, and the segment can be a bad one.
"""

import asyncio
import random
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from ci.qemu.spec import CardModel, SegmentNic

# Ethernet with jumbo frames and a VLAN tag, and virtio's 64 KiB offload packets.
_LARGEST_FRAME = 65_550


class Quality(msgspec.Struct, frozen=True):
    """What becomes of frames on their way, as tc-netem(8) has it.

    Attributes:
        loss: the share of frames that is lost.
        late: the share of frames that others overtake.
        delay: how many seconds those are late.
        largest: bytes of the largest frame that comes through, its header included.
    """

    loss: float = 0.0
    late: float = 0.0
    delay: float = 0.02
    largest: int = _LARGEST_FRAME


class Segment:
    """One broadcast domain: `async with Segment(folder) as lan:`, then `lan.nic("eth1")` for each machine."""

    def __init__(self, folder: Path) -> None:
        """Make the segment; `frames` counts what each card has sent and the segment has passed on.

        `quality` may be changed at any time, and `lost` counts the frames that it cost.

        Args:
            folder: a folder for the sockets, with a short path (unix(7) allows 107 bytes in all).
        """
        self._folder = folder
        self._ports: dict[str, socket.socket] = {}
        self._cut: set[str] = set()
        self.frames: Counter[str] = Counter()
        self.quality = Quality()
        self.lost = 0
        self._chance = random.Random(1)  # noqa: S311 — no secret: in each run the same frames suffer
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for port in self._ports.values():
            asyncio.get_running_loop().remove_reader(port)
            port.close()
        self._ports.clear()  # of what is late nobody is left

    def nic(self, name: str, model: CardModel = "virtio") -> SegmentNic:
        """A card on this segment, for a machine's specification or `plug_nic`. Alone there, nobody answers it.

        Args:
            name: the card's name, unique on the segment.
            model: how the guest sees it.
        """
        ours = self._folder / f"{name}.hub"
        port = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        port.setblocking(False)
        port.bind(str(ours))
        asyncio.get_running_loop().add_reader(port, self._repeat, name)
        self._ports[name] = port
        return SegmentNic(name, self._folder / f"{name}.card", ours, model)

    async def wait_for_frame(self, name: str, deadline: float) -> None:
        """Wait until a card has sent a frame.

        Args:
            name: the card.
            deadline: seconds of real time; TimeoutError after that.
        """
        async with asyncio.timeout(deadline):
            while not self.frames[name]:
                self._news.clear()
                await self._news.wait()

    def cut(self, name: str) -> None:
        """Cut the cable of a card: its frames, in and out, are lost."""
        self._cut.add(name)

    def mend(self, name: str) -> None:
        """Mend a cut cable."""
        self._cut.discard(name)

    def _repeat(self, sender: str) -> None:
        frame = self._ports[sender].recv(_LARGEST_FRAME)
        quality = self.quality
        if sender in self._cut:
            return
        if len(frame) > quality.largest or self._chance.random() < quality.loss:
            self.lost += 1
            return
        self.frames[sender] += 1
        self._news.set()
        if self._chance.random() < quality.late:
            asyncio.get_running_loop().call_later(quality.delay, self._pass_on, sender, frame)
        else:
            self._pass_on(sender, frame)

    def _pass_on(self, sender: str, frame: bytes) -> None:
        for name, port in self._ports.items():
            if name != sender and name not in self._cut:
                self._send(port, self._folder / f"{name}.card", frame)

    @staticmethod
    def _send(port: socket.socket, card: Path, frame: bytes) -> None:
        # the machine is off, or its queue is full: Ethernet loses frames then
        with suppress(FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            port.sendto(frame, str(card))
