"""Audit events: who did what, from where, made of what requests were answered with.

What was done and what was refused are kept apart, so that nobody washes away the one by the other; the same refusal
to the same address counts up for a minute. No event has a query, a header or a body: that is where secrets are.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from corex.files.look import quoted
from corex.http.connection import RawRequest
from corex.http.routes import NOBODY, Identity, Request, Route
from corex.rest.access import ADMIN
from corex.wire.auditing import AuditEvent, AuditName, AuditPage, AuditQuery

# Events of each of the two kinds.
KEPT = 1000
# Seconds within which the same refusal counts up.
_SAME = 60.0
_LONGEST = 200
# OWASP's names for what is refused, and for what is done where the method alone does not say it.
_REFUSED: dict[int, AuditName] = {
    400: "input_validation_fail",
    401: "authn_login_fail",
    403: "authz_fail",
    408: "input_validation_fail",
    413: "input_validation_fail",
    415: "input_validation_fail",
    421: "input_validation_fail",
    422: "input_validation_fail",
    429: "excess_rate_limit_exceeded",
    500: "sys_crash",
}
_DONE: dict[tuple[str, str], AuditName] = {
    ("PUT", "/v1/identities/{name}"): "user_updated",
    ("DELETE", "/v1/identities/{name}"): "user_deleted",
    ("POST", "/v1/tickets"): "authn_token_created",
    ("POST", "/v1/sessions"): "session_created",
    ("POST", "/v1/exec"): "session_created",
    ("GET", "/v1/fs/file"): "sensitive_read",
    ("GET", "/v1/fs/archive"): "sensitive_read",
}
_BY_METHOD: dict[str, AuditName] = {
    "PUT": "sensitive_update",
    "POST": "sensitive_update",
    "DELETE": "sensitive_delete",
}
# Queries of requests that change nothing, however they are called.
_TRIES = {("dry_run", "true"), ("dry_run", "1")}
_CREATED, _SWITCHED, _ERROR = 201, 101, 400


class Audit:
    """The events that are kept."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._done: deque[AuditEvent] = deque(maxlen=KEPT)
        self._refused: deque[AuditEvent] = deque(maxlen=KEPT)
        self._last = 0

    def note(self, event: AuditName) -> None:
        """Something happened that nobody asked for."""
        self._add(self._done, AuditEvent(0, 0, event, "INFO"))

    def __call__(self, raw: RawRequest, identity: Identity, route: Route | None, status: int) -> None:
        """A request was answered."""
        name = _REFUSED.get(status) if status >= _ERROR else _name_of(route, status)
        if name is None or (status < _ERROR and not _TRIES.isdisjoint(raw.query)):
            return
        event = AuditEvent(
            seq=0,
            time=0,
            event=name,
            level="WARN" if status >= _ERROR else "INFO",
            who="" if identity is NOBODY else identity.name,
            source=raw.remote,
            action=f"{raw.method} {raw.path}"[:_LONGEST],
            status=status,
            subject=quoted(raw.octets("path"))[:_LONGEST]
            if route and route.path.startswith("/v1/fs/")
            else "",
        )
        if status < _ERROR:
            self._add(self._done, event)
        elif not self._count(event):
            self._add(self._refused, event)

    def _add(self, kept: deque[AuditEvent], event: AuditEvent) -> None:
        self._last += 1
        kept.append(msgspec.structs.replace(event, seq=self._last, time=self._wall_clock()))

    def _count(self, event: AuditEvent) -> bool:
        """Whether it is one more of those that are there."""
        now = self._wall_clock()
        for at, known in enumerate(reversed(self._refused)):
            if not 0 <= now - known.time < _SAME:
                return False
            if (known.event, known.who, known.source, known.status) == (
                event.event, event.who, event.source, event.status,
            ):  # fmt: skip
                more = msgspec.structs.replace(known, times=known.times + 1)
                self._refused[len(self._refused) - 1 - at] = more
                return True
        return False

    def after(self, after: int, limit: int) -> AuditPage:
        """The events after number `after`."""
        found = sorted((one for one in (*self._done, *self._refused) if one.seq > after), key=_seq)[:limit]
        following = found[-1].seq if found and len(found) == limit else max(after, self._last)
        return AuditPage(found, following - after - len(found) if following > after else 0, following)


def _seq(event: AuditEvent) -> int:
    return event.seq


def _name_of(route: Route | None, status: int) -> AuditName | None:
    """What an answer without an error means; nothing for what only looks."""
    if route is None:
        return None
    if status == _SWITCHED:
        return "session_created"
    named = _DONE.get((route.method, route.path)) or _BY_METHOD.get(route.method)
    if status == _CREATED and named in ("user_updated", "sensitive_update"):
        return "user_created" if named == "user_updated" else "sensitive_create"
    return named


def routes() -> list[Route]:
    """The row of the table."""
    return [
        Route(
            "GET", "/v1/audit", ADMIN, "Who did what, from where", get_audit, AuditQuery, response=AuditPage
        ),
    ]


async def get_audit(request: Request[Any, AuditQuery, Any]) -> AuditPage:
    """The newest are kept; others are counted as lost."""
    query = request.parameters
    found: AuditPage = request.context.audit.after(query.after, query.limit)
    return found
