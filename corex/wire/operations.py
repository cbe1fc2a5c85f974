"""Long work that goes on after its request was answered."""

from typing import Annotated, Literal

import msgspec

from corex.wire.api import Wait

OperationId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$(?!\n)")]
OperationKind = Literal["start", "stop", "restart", "reset", "apply", "delete-folder"]
OperationState = Literal["running", "succeeded", "failed", "cancelled"]


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of long work.

    Attributes:
        id: names it, for as long as it is kept.
        kind: what is done.
        subject: to what: the path of a resource, or of a file.
        by: the identity that asked for it.
        state: how far it is.
        why: one sentence.
        since: when it began, seconds since 1970 UTC.
        ended: when it ended.
    """

    id: OperationId
    kind: OperationKind
    subject: str
    by: str
    state: OperationState
    why: str
    since: float
    ended: float | None = None


class OperationList(msgspec.Struct, frozen=True):
    """All operations that are kept, the oldest first."""

    operations: list[Operation]


class ByOperation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Path of one operation."""

    id: OperationId


class ByOperationWait(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Path of one operation; `wait` is how many seconds the answer may wait for its end."""

    id: OperationId
    wait: Wait = 0.0
