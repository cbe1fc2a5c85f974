"""A segment between two cards that are sockets of this test."""

import asyncio
import socket
from pathlib import Path

import pytest

from ci.qemu.segment import Quality, Segment

SECONDS = 10.0


def card(lan: Segment, name: str) -> tuple[socket.socket, str]:
    """A card's own socket, and where it sends its frames."""
    nic = lan.nic(name)
    own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    own.setblocking(False)
    own.bind(str(nic.local))
    return own, str(nic.remote)


async def passed(folder: Path, quality: Quality, frames: list[bytes]) -> list[bytes]:
    """Which of these frames come through, in the order in which they come."""
    async with Segment(folder) as lan:
        left, way = card(lan, "left")
        right, _ = card(lan, "right")
        loop, found = asyncio.get_running_loop(), list[bytes]()
        lan.quality = quality
        with left, right:
            loop.add_reader(right, lambda: found.append(right.recv(65536)))
            async with asyncio.timeout(SECONDS):
                for frame in frames:
                    await loop.sock_sendto(left, frame, way)
                    await taken(lan)
                ended = asyncio.Event()
                loop.call_later(2 * quality.delay, ended.set)  # behind the last one that may be late
                await ended.wait()
            loop.remove_reader(right)
            while waits(right):
                found.append(right.recv(65536))
    return found


async def taken(lan: Segment) -> None:
    """Wait until the segment has taken all that was sent."""
    while any(map(waits, lan._ports.values())):  # noqa: ASYNC110
        await asyncio.sleep(0)


def waits(port: socket.socket) -> bool:
    try:
        return bool(port.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


FRAMES = [bytes([number]) * 60 for number in range(100)]


async def test_a_good_segment_passes_all_in_their_order(tmp_path: Path) -> None:
    assert await passed(tmp_path, Quality(), FRAMES) == FRAMES


@pytest.mark.parametrize("share", [0.2, 1.0])
async def test_a_share_of_the_frames_is_lost(tmp_path: Path, share: float) -> None:
    found = await passed(tmp_path, Quality(loss=share), FRAMES)
    assert len(found) in range(round(100 * (1 - share)) - 10, round(100 * (1 - share)) + 11)
    assert found == sorted(found)


async def test_late_frames_are_overtaken_and_come_all_the_same(tmp_path: Path) -> None:
    found = await passed(tmp_path, Quality(late=0.05), FRAMES)
    assert found != FRAMES
    assert sorted(found) == FRAMES


async def test_a_frame_that_is_too_large_does_not_come_through(tmp_path: Path) -> None:
    frames = [bytes(1414), bytes(1415)]
    assert await passed(tmp_path, Quality(largest=1414), frames) == frames[:1]
