"""What the node remembers, and the copies of it that disks hold.

A state is a value: a change makes the next one, with a higher sequence. Its history names the terms in which it came
to be, a term being one run of the node daemon that wrote. So of two states it can be told whether one came from the
other, or both from a third, as happens where a machine ran on each of its disks while the other was away.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
# What a disk's claim is called.
DiskId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f-]{1,64}$(?!\n)")]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 60)]
# Terms that a history keeps: what is older than the oldest of them counts as an ancestor.
LONGEST_HISTORY = 64

# What SMBIOS says where nobody has set a UUID, besides those of few different digits.
_DUMMY_UUIDS = ("03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009")
_FEW_DIGITS = 3


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By what a machine knows itself.

    Attributes:
        uuid: the SMBIOS system UUID (DSP0134, 7.2.1); empty if it has none or a dummy.
        addresses: the permanent hardware addresses of its network cards.
    """

    uuid: str = ""
    addresses: tuple[str, ...] = ()

    def likeness(self, other: "Machine") -> int:
        """How much speaks for the two being one machine; 0 if nothing does."""
        same_board = is_telling(self.uuid) and self.uuid.lower() == other.uuid.lower()
        common = {address.lower() for address in self.addresses} & {one.lower() for one in other.addresses}
        return 1000 * same_board + len(common)

    def __str__(self) -> str:
        return ", ".join((*(() if not self.uuid else (f"UUID {self.uuid}",)), *self.addresses)) or "unknown"


def is_telling(uuid: str) -> bool:
    """Whether a UUID tells one machine from another: makers leave zeros, ones, or a well-known dummy."""
    digits = uuid.lower().replace("-", "")
    return len(set(digits)) > _FEW_DIGITS and uuid.lower() not in _DUMMY_UUIDS


class Term(msgspec.Struct, frozen=True, array_like=True):
    """A run of the node daemon, by a name that no other has, and the first sequence that it wrote."""

    name: Id
    first: Count


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the node remembers. A field of a newer image would be lost with the next change, so it is refused.

    Attributes:
        node: the node's id.
        sequence: one more with each change.
        history: the terms in which it came to be, oldest first, the one that wrote it last.
        members: the disks that it was to be written to. It was acknowledged once all of them had it.
        machine: the machine that the node is.
        changed: when its sections were changed last, in seconds since 1970 by that machine's clock: only used where
            nothing else tells which of two states is the later one.
        sections: what it is all for, as JSON by name.
    """

    node: Id
    sequence: Count
    history: Annotated[tuple[Term, ...], msgspec.Meta(min_length=1, max_length=LONGEST_HISTORY)]
    members: Annotated[tuple[DiskId, ...], msgspec.Meta(max_length=4096)]
    machine: Machine
    changed: Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
    sections: Mapping[str, msgspec.Raw]

    def comes_from(self, earlier: "State") -> bool:
        """Whether the other is this state or one of those that it was made of."""
        term = earlier.history[-1].name
        for index, own in enumerate(self.history):
            if own.name == term:
                last = self.sequence if own is self.history[-1] else self.history[index + 1].first - 1
                return own.first <= earlier.sequence <= last
        return earlier.sequence < self.history[0].first


class Copy(msgspec.Struct, frozen=True):
    """What one disk holds: the id that it got when it was claimed, and the state. Memory is a disk without an id."""

    disk: DiskId
    state: State


class Held(msgspec.Struct, frozen=True):
    """A copy that was read, and the mark by which it is found again on its disk."""

    copy: Copy
    mark: bytes = b""


class Reading(msgspec.Struct, frozen=True):
    """What a state area turned out to hold.

    Attributes:
        path: where it is.
        held: its valid copies, up to two.
        strange: what is wrong with a slot that is valid but cannot be understood; empty if there is none.
        error: why it could not be read; empty if it was.
    """

    path: str
    held: tuple[Held, ...] = ()
    strange: str = ""
    error: str = ""


class Area(msgspec.Struct, frozen=True):
    """A disk's state area: the id that the disk got when it was claimed, and the area's device."""

    disk: DiskId
    path: str


Relation = Literal["blank", "current", "stale", "newer", "fork", "foreign", "strange", "unread"]


def digest(state: State) -> bytes:
    """SHA-256 of a state's content: equal for the copies of one state, whatever disk they are on."""
    from hashlib import sha256

    return sha256(msgspec.json.encode(state, order="deterministic")).digest()
