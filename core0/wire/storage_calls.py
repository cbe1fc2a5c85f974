"""What the API process asks the node daemon of disks, pools and long work (see `core0.wire.control`)."""

import msgspec

from core0.wire.operations import OperationId
from core0.wire.storage import Claim, DiskName, EraseRequest


class OperationQuery(msgspec.Struct, frozen=True):
    """An operation, once it has ended, or after so many seconds as it is."""

    id: OperationId
    wait: float = 0.0


class DiskCall(msgspec.Struct, frozen=True):
    """What to do with a disk."""

    disk: DiskName
    claim: Claim = Claim()


class EraseCall(msgspec.Struct, frozen=True):
    """Which disk to erase, and what it holds."""

    disk: DiskName
    request: EraseRequest


class PoolQuery(msgspec.Struct, frozen=True):
    """A pool, once it serves or has failed, or after so many seconds as it is."""

    wait: float
