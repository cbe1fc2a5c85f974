"""What the node tells a fresh fork of the template, and what it answers."""

import msgspec

# What the template may be asked for, with descriptors.
FORK, NAMES = b"fork", b"names"


class Forked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The template's answer: the pid of the container's first process, or why there is none."""

    pid: int = 0
    error: str = ""


class Go(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The node has done its part; the container's root comes along as a descriptor.

    Attributes:
        hostname: the container's host name.
        address: its IPv4 address.
        address6: its IPv6 address.
        nameserver: for its resolv.conf.
        search: the domain in which it looks for names without a dot.
        targets: where the volumes are seen, whose mounts come behind the root's.
        send_bps: bytes per second that it may send; 0 for as many as it likes.
        open_files: RLIMIT_NOFILE.
    """

    hostname: str
    address: str
    address6: str
    nameserver: str
    search: str
    targets: tuple[str, ...] = ()
    send_bps: int = 0
    open_files: int = 65536


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The container is built, or the step that failed and why."""

    error: str = ""
