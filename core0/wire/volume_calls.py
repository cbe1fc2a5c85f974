"""What the API process asks the node daemon of volumes (see `core0.wire.control`); the call names the volume."""

import msgspec

from core0.wire.storage import PoolName
from core0.wire.volumes import SnapshotName


class VolumeCall(msgspec.Struct, frozen=True):
    """Which of two volumes of one name: the pool."""

    pool: PoolName | None = None


class VolumeDeletion(msgspec.Struct, frozen=True):
    """The same, and whether its snapshots go with it."""

    pool: PoolName | None = None
    snapshots: bool = False


class SnapshotCall(msgspec.Struct, frozen=True):
    """One of a volume's snapshots."""

    snapshot: SnapshotName
    pool: PoolName | None = None
