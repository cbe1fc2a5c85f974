"""What the node tells a fresh fork of the template, and what it answers."""

import msgspec

from core0.wire.types import Capability, SecretFile, TmpfsMount

# What the template may be asked for, with descriptors.
FORK, NAMES = b"fork", b"names"
# What the node tells a fork after `Go`, once its link is made.
LINKED = b"linked"


class Forked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The template's answer: the pid of the container's first process, or why there is none."""

    pid: int = 0
    error: str = ""


class Go(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the container builds itself by.

    Its root comes along as a descriptor, what reaches its files, and what its Core-X kept (`core0.containers.kept`).

    The node makes its link meanwhile, and says so by `LINKED`.

    Attributes:
        hostname: the container's host name.
        address: its IPv4 address.
        address6: its IPv6 address.
        nameserver: for its resolv.conf.
        search: the domain in which it looks for names without a dot.
        targets: where the volumes are seen, whose mounts come behind those three.
        tmpfs: files in memory.
        secrets: files below /run/secrets, whose contents come behind the volumes.
        read_only: whether the root cannot be written to once it is built.
        dropped: capabilities that the container's processes go without.
        health: whether the file for reports on its health comes last.
        open_files: RLIMIT_NOFILE.
    """

    hostname: str
    address: str
    address6: str
    nameserver: str
    search: str
    targets: tuple[str, ...] = ()
    tmpfs: tuple[TmpfsMount, ...] = ()
    secrets: tuple[SecretFile, ...] = ()
    read_only: bool = False
    dropped: tuple[Capability, ...] = ()
    health: bool = False
    open_files: int = 65536


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The container is built, or the step that failed and why."""

    error: str = ""
