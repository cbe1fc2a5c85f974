"""Volumes in the node's API: the same types for server, client and command line."""

from typing import Annotated, Literal

import msgspec

from core0.wire.operations import OperationId
from core0.wire.storage import Bytes, PoolName
from core0.wire.types import ContainerName

# Names of folders' entries on the pool; one name of a container, as everywhere.
VolumeName = ContainerName
SnapshotName = ContainerName
# Below 16 MiB what the file system itself needs makes more than a hundredth of it.
SMALLEST = 16 << 20
Size = Annotated[int, msgspec.Meta(ge=SMALLEST, le=1 << 60)]
Rate = Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]
Sha256OrNone = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$(?!\n)")]

VolumeState = Literal["ready", "offline", "conflict", "failed"]
ImportState = Literal["receiving", "done", "failed"]


class IoLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a container may move to and from the volume's pool at most; None is no limit.

    The kernel limits a container's cgroup on each disk of the pool, not a volume: a container with several volumes of
    one pool has the sum of their limits there, and none if one of them has none.

    Attributes:
        read_bps: bytes read per second from each disk of the pool.
        write_bps: bytes written per second to each.
        read_iops: reads per second from each.
        write_iops: writes per second to each.
    """

    read_bps: Rate | None = None
    write_bps: Rate | None = None
    read_iops: Rate | None = None
    write_iops: Rate | None = None


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a clone is made from: a volume as it is, or one of its snapshots."""

    volume: VolumeName
    snapshot: SnapshotName | None = None


class VolumeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a volume shall be.

    Attributes:
        size: bytes that its files and what its snapshots keep of them may take together.
        pool: where it lies; None makes it in the node's memory, where it ends with this boot.
        io: limits for containers that use it.
        origin: `from`: what it is made as a copy of; takes space only as they begin to differ.
    """

    size: Size
    pool: PoolName | None = None
    io: IoLimits = IoLimits()
    origin: Origin | None = msgspec.field(default=None, name="from")


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A volume's snapshot: it never changes.

    Attributes:
        name: its name within the volume.
        created: seconds since 1970, UTC.
        id: its UUID, hexadecimal; a stream of changes names the one that it begins at.
        received: the UUID that it had where it was exported, if it was imported.
    """

    name: SnapshotName
    created: float
    id: str
    received: str = ""


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A volume as it is.

    Attributes:
        name: its name.
        pool: where it lies; None in the node's memory.
        state: whether it can be used.
        why: one plain sentence.
        size: bytes that it may take.
        used: bytes that it takes, as of the file system's last commit: its files, what they need of metadata, what
            its snapshots keep, and of a clone also what it still has of its source.
        io: limits for containers that use it.
        created: seconds since 1970, UTC.
        origin: `from`: what it was made as a copy of.
        snapshots: by time.
        containers: that have it in their spec.
    """

    name: VolumeName
    pool: PoolName | None
    state: VolumeState
    why: str
    size: Bytes
    used: Bytes
    io: IoLimits
    created: float
    origin: Origin | None = msgspec.field(default=None, name="from")
    snapshots: tuple[Snapshot, ...] = ()
    containers: tuple[str, ...] = ()


class Volumes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All volumes, by name."""

    volumes: tuple[Volume, ...]


class Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The snapshot whose content a volume shall have again; what was written since is lost."""

    snapshot: SnapshotName


class ImportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stream that is about to come.

    Attributes:
        snapshot: the snapshot that it becomes.
        volume: what the volume shall be if there is none of that name yet; it begins as that snapshot's copy.
        bytes: length of the stream, where that is known, to tell how far it is.
    """

    snapshot: SnapshotName
    volume: VolumeSpec | None = None
    bytes: Bytes | None = None


class Import(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stream that is coming, or came.

    Attributes:
        volume: the volume's name.
        snapshot: the snapshot that it becomes.
        operation: where to see how far it is, and to end it.
        state: where it is.
        offset: bytes that arrived: where to go on.
        why: one plain sentence.
    """

    volume: VolumeName
    snapshot: SnapshotName
    operation: OperationId
    state: ImportState
    offset: Bytes
    why: str
