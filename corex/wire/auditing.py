"""Who did what, from where. Names of events are OWASP's (Logging Vocabulary Cheat Sheet)."""

from typing import Literal

import msgspec

from corex.wire.api import Cursor, PageSize

AuditName = Literal[
    "authn_login_fail", "authn_token_created", "authz_fail", "excess_rate_limit_exceeded", "input_validation_fail",
    "sensitive_create", "sensitive_delete", "sensitive_read", "sensitive_update", "session_created", "sys_crash",
    "sys_shutdown", "sys_startup", "user_created", "user_deleted", "user_updated",
]  # fmt: skip
Level = Literal["INFO", "WARN"]


class AuditEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that somebody did, or tried to do.

    Attributes:
        seq: its number, from 1 without holes.
        time: seconds since 1970 UTC.
        event: OWASP's name for it.
        level: WARN for what was refused or went wrong.
        who: the identity; empty where nobody knows.
        source: the address that the request came from.
        action: method and path of the request, without its query.
        status: HTTP status of the answer, 0 where there was none.
        subject: what it was about besides: a file's path, percent-encoded.
        times: how often the same was refused to the same one within a minute; the others are not kept.
    """

    seq: int
    time: float
    event: AuditName
    level: Level
    who: str = ""
    source: str = ""
    action: str = ""
    status: int = 0
    subject: str = ""
    times: int = 1


class AuditPage(msgspec.Struct, frozen=True):
    """Events in order; `lost` were let go before the first of them; `next` is the following cursor."""

    events: list[AuditEvent]
    lost: int
    next: int


class AuditQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events after number `after`."""

    after: Cursor = 0
    limit: PageSize = 1000
