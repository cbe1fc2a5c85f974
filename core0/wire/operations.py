"""Long work of the node as the API shows it: started by one call, watched by others."""

from typing import Annotated, Literal

import msgspec

OperationId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]{1,32}$(?!\n)")]
OperationState = Literal["running", "done", "failed", "cancelled"]


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Long work.

    Attributes:
        id: its name in the API; it ends with the node daemon's life.
        kind: what is done, as `scrub` or `erase`.
        subject: what it is done to: a disk, pool or volume.
        state: where it is.
        progress: from 0 to 1; None while that is not known.
        detail: one plain sentence: what it does now, its result, or why it failed and what to do.
        started: seconds since 1970, UTC.
        ended: the same, of its end.
    """

    id: OperationId
    kind: str
    subject: str
    state: OperationState
    progress: float | None
    detail: str
    started: float
    ended: float | None = None


class Operations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Those that run, and the last that ended, newest first."""

    operations: tuple[Operation, ...]
