"""What the node says of its memory, in its health and to the operator."""

import msgspec

from core0.wire.storage import DiskName

# What to do about anything that only a newer image understands: this one leaves it as it is.
NEWER_IMAGE = "boot the image that wrote it, or a newer one"


class StateCopy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk that holds the node's state, or should.

    Attributes:
        disk: the id that the disk got when it was claimed.
        path: where its state area is.
        ok: whether it holds all that was acknowledged.
        why: one plain sentence.
    """

    disk: str
    path: str
    ok: bool
    why: str


class StateStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the node remembers, and where.

    Attributes:
        node: the node's id.
        durable: whether what is acknowledged is on a disk; otherwise it ends with this boot.
        sequence: grows with each change.
        bytes: how large it is.
        copies: the disks.
        warnings: what the operator should know, one sentence each.
    """

    node: str
    durable: bool
    sequence: int
    bytes: int
    copies: tuple[StateCopy, ...] = ()
    warnings: tuple[str, ...] = ()


class Adoption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which disk remembers the node that this machine shall be: its id or serial number."""

    disk: DiskName
