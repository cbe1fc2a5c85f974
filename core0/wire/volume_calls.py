"""What the API process asks the node daemon of volumes (see `core0.wire.control`); the call names the volume."""

import msgspec

from core0.wire.operations import OperationId
from core0.wire.storage import PoolName
from core0.wire.volumes import ImportRequest, Sha256OrNone, SnapshotName


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


class ExportCall(msgspec.Struct, frozen=True):
    """Send a snapshot as a stream over this connection.

    Attributes:
        snapshot: its name.
        base: an earlier one that the receiver has: only what differs is sent.
        offset: bytes that the receiver has.
        sha256: of those bytes.
        pool: which of two volumes of one name.
    """

    snapshot: SnapshotName
    base: SnapshotName | None = None
    offset: int = 0
    sha256: Sha256OrNone = ""
    pool: PoolName | None = None


class ImportCall(msgspec.Struct, frozen=True):
    """A stream is about to come."""

    request: ImportRequest
    pool: PoolName | None = None


class ImportQuery(msgspec.Struct, frozen=True):
    """A stream that comes, once it has ended, or after so many seconds as it is."""

    operation: OperationId
    wait: float = 0.0


class FeedCall(msgspec.Struct, frozen=True):
    """Bytes of a stream come over this connection, from this byte on."""

    operation: OperationId
    offset: int
