"""Kernel uevents: the multicast that announces devices, and the walk over those that are there already.

Sources: kobject_uevent_net_broadcast() in lib/kobject_uevent.c; netlink(7).
"""

import contextlib
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_LARGEST = 64 * 1024


class Uevent(NamedTuple):
    """One announcement: what happened to which device, with the kernel's own variables."""

    action: str
    devpath: str
    variables: Mapping[str, str] = MappingProxyType({})

    @property
    def modalias(self) -> str | None:
        """The string by which a driver module is looked for, where the device has one."""
        return self.variables.get("MODALIAS")


def parse_uevent(data: bytes) -> Uevent | None:
    """Parse one datagram: `action@devpath`, then KEY=VALUE strings, each ended by NUL; None if it is none."""
    head, *rest = data.decode(errors="replace").split("\0")
    action, separator, devpath = head.partition("@")
    if not separator:
        return None
    variables = dict(pair.split("=", 1) for pair in rest if "=" in pair)
    return Uevent(action, devpath, variables)


class UeventSocket:
    """A non-blocking subscription to the kernel's own uevents."""

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
        # A burst at boot must not overrun the queue: SO_RCVBUFFORCE, socket(7).
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)
        self._socket.bind((0, _KERNEL_GROUP))

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the subscription."""
        self._socket.close()

    def pending(self) -> Iterator[Uevent]:
        """The announcements waiting now. Only the kernel (port 0) is believed."""
        while True:
            try:
                data, _, _, (sender, _) = self._socket.recvmsg(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost; the coldplug walk finds what matters
                continue
            event = parse_uevent(data) if sender == 0 else None
            if event:
                yield event


def present_modaliases(buses: Collection[str], root: str = "/sys/bus") -> Iterator[str]:
    """The MODALIAS of every device on some buses that has no driver yet, from sysfs."""
    for bus in sorted(buses):
        devices = f"{root}/{bus}/devices"
        with contextlib.suppress(FileNotFoundError):
            for device in sorted(os.listdir(devices)):
                yield from _modalias(f"{devices}/{device}")


def _modalias(device: str) -> Iterator[str]:
    if os.path.exists(f"{device}/driver"):
        return
    with contextlib.suppress(OSError), open(f"{device}/modalias") as file:
        yield file.read().strip()
