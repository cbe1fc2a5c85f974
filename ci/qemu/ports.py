"""Host ports that lead into a machine, bound by QEMU itself: the host's kernel picks them, so nobody races.

Text formats are those of libslirp's `hostfwd_add` and `info usernet`, the same from QEMU 7.2 to 10.
"""

import asyncio
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ci.qemu.monitor import Monitor, MonitorError

LOOPBACK = "127.0.0.1"
_LISTING = re.compile(
    r"^\s*TCP\[(?P<state>[A-Z_0-9]+)\]\s+-?\d+"
    r"\s+(?P<source>\S+)\s+(?P<source_port>\d+)\s+(?P<target>\S+)\s+(?P<target_port>\d+)",
    re.MULTILINE,
)
# libslirp tells nobody that a guest has accepted: look again after this many seconds.
LOOK_AGAIN = 0.05
_LOOKS = 20


@dataclass(frozen=True)
class Connection:
    """One line of `info usernet`: a TCP connection or, in state HOST_FORWARD, a listening forward."""

    state: str
    source: tuple[str, int]
    target: tuple[str, int]


def parse_connections(listing: str) -> Iterator[Connection]:
    """The TCP lines of `info usernet`."""
    for line in _LISTING.finditer(listing):
        yield Connection(
            line["state"],
            (line["source"], int(line["source_port"])),
            (line["target"], int(line["target_port"])),
        )


async def find_forward(monitor: Monitor, guest_port: int) -> int | None:
    """The host port that leads to a guest's TCP port already, if one does."""
    forwards = sorted(item.source[1] for item in await _forwards(monitor) if item.target[1] == guest_port)
    return forwards[0] if forwards else None


async def add_forward(monitor: Monitor, nic: str, guest_port: int) -> int:
    """Forward a fresh port of the host's loopback to a guest's port; returns the host port.

    Raises:
        MonitorError: QEMU could not bind a port.
    """
    before = await _forwards(monitor)
    refusal = await monitor.human(f"hostfwd_add {nic} tcp:{LOOPBACK}:0-:{guest_port}")
    if refusal.strip():
        raise MonitorError(f"cannot forward a port to guest port {guest_port}: {refusal.strip()}")
    added = await _forwards(monitor) - before
    return next(item.source[1] for item in added if item.target[1] == guest_port)


async def remove_forward(monitor: Monitor, nic: str, host_port: int) -> None:
    """Close a forward; connections through it live on.

    Raises:
        MonitorError: there is no such forward.
    """
    answer = await monitor.human(f"hostfwd_remove {nic} tcp:{LOOPBACK}:{host_port}")
    if "removed" not in answer:
        raise MonitorError(f"cannot remove the forward of host port {host_port}: {answer.strip()}")


async def wait_accepting(monitor: Monitor, host_port: int) -> None:
    """Return once the guest accepts connections through a forward."""
    # libslirp announces nothing
    while not await is_accepting(monitor, host_port):  # noqa: ASYNC110
        await asyncio.sleep(LOOK_AGAIN)


async def is_accepting(monitor: Monitor, host_port: int) -> bool:
    """Whether the guest accepts a connection through a forward now.

    libslirp completes the host's handshake before it asks the guest, so a successful connect proves nothing;
    the state of the connection on the guest's side does. A guest that is not on the network yet leaves it at
    SYN_SENT, with ever longer pauses between the tries: then the answer is no after a moment.
    """
    with socket.socket() as probe:
        probe.setblocking(False)
        await asyncio.get_running_loop().sock_connect(probe, (LOOPBACK, host_port))
        for _ in range(_LOOKS):
            connections = await _connections(monitor)
            if any(
                item.state == "ESTABLISHED" and item.source == (LOOPBACK, host_port) for item in connections
            ):
                return True
            if _is_closed(probe):
                return False
            await asyncio.sleep(LOOK_AGAIN)
    return False


def _is_closed(probe: socket.socket) -> bool:
    try:
        return not probe.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def _connections(monitor: Monitor) -> list[Connection]:
    return list(parse_connections(await monitor.human("info usernet")))


async def _forwards(monitor: Monitor) -> set[Connection]:
    return {item for item in await _connections(monitor) if item.state == "HOST_FORWARD"}
