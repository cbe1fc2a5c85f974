"""Errors as RFC 9457 problem details: one struct, a fixed list of types, one exception that carries them.

A `detail` reads 'cannot X: cause', the `remedy` says what to do about it. Components that need more types
declare them as `ProblemType` constants in their own wire package.
"""

import re
from collections.abc import Mapping

import msgspec

CONTENT_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One problem, as sent.

    Attributes:
        type: the type's URN; machines decide by it.
        title: the same for all problems of a type.
        status: the HTTP status of the answer.
        detail: what could not be done and why, for people.
        remedy: what to do about it.
        pointer: JSON pointer (RFC 6901) to the offending value of the request's body.
        instance: identifies this occurrence in the server's log.
    """

    type: str
    title: str
    status: int
    detail: str
    remedy: str = ""
    pointer: str | None = None
    instance: str = ""


class ProblemType(msgspec.Struct, frozen=True):
    """A kind of problem: its name in the URN, its HTTP status and its title."""

    name: str
    status: int
    title: str

    def __call__(
        self,
        detail: str,
        *,
        remedy: str = "",
        pointer: str | None = None,
        instance: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> "ProblemError":
        """The exception to raise for one problem of this type."""
        problem = Problem(self.urn, self.title, self.status, detail, remedy, pointer, instance)
        return ProblemError(problem, headers or {})

    @property
    def urn(self) -> str:
        """What `Problem.type` holds."""
        return f"urn:zeronode:problem:{self.name}"


class ProblemError(Exception):
    """Ends a request with a problem document."""

    def __init__(self, problem: Problem, headers: Mapping[str, str]) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = headers


MALFORMED_REQUEST = ProblemType("malformed-request", 400, "The request is not valid HTTP")
MALFORMED_JSON = ProblemType("malformed-json", 400, "The body is not valid JSON")
UNAUTHENTICATED = ProblemType("unauthenticated", 401, "Authentication is required")
FORBIDDEN = ProblemType("forbidden", 403, "The caller's role does not allow this")
NOT_FOUND = ProblemType("not-found", 404, "There is no such resource")
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", 405, "The resource does not have this method")
TIMED_OUT = ProblemType("timed-out", 408, "The request took too long to arrive")
CONFLICT = ProblemType("conflict", 409, "The resource's state does not allow this")
GONE = ProblemType("gone", 410, "What the cursor points to is gone")
PRECONDITION_FAILED = ProblemType("precondition-failed", 412, "The resource has changed")
TOO_LARGE = ProblemType("too-large", 413, "The body is too large")
UNSUPPORTED_TYPE = ProblemType("unsupported-type", 415, "The body's media type is not supported")
RANGE = ProblemType("range", 416, "The range is not within the resource")
INVALID = ProblemType("invalid", 422, "The request does not fit its schema")
MISDIRECTED = ProblemType("misdirected", 421, "This is not the server that was asked for")
UPGRADE_REQUIRED = ProblemType("upgrade-required", 426, "The resource speaks another protocol")
RATE_LIMITED = ProblemType("rate-limited", 429, "Too many failures from this address")
INTERNAL = ProblemType("internal", 500, "Internal error")
UNAVAILABLE = ProblemType("unavailable", 503, "The service cannot answer now")
FULL = ProblemType("full", 507, "There is no room left")

TYPES = (
    MALFORMED_REQUEST,
    MALFORMED_JSON,
    UNAUTHENTICATED,
    FORBIDDEN,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    TIMED_OUT,
    CONFLICT,
    GONE,
    PRECONDITION_FAILED,
    TOO_LARGE,
    UNSUPPORTED_TYPE,
    RANGE,
    INVALID,
    MISDIRECTED,
    UPGRADE_REQUIRED,
    RATE_LIMITED,
    INTERNAL,
    UNAVAILABLE,
    FULL,
)

_AT = re.compile(r" - at `(?P<key>key in )?\$(?P<path>.*)`$", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"^Object contains unknown field `(?P<field>.*?)`", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")


def invalid(error: msgspec.ValidationError, *, remedy: str = "") -> ProblemError:
    """The 422 problem for what msgspec refused, with a JSON pointer as deep as msgspec says."""
    message = str(error)
    at = _AT.search(message)
    reason = message[: at.start()] if at else message
    steps = [step["name"] or step["index"] for step in _STEP.finditer(at["path"])] if at else []
    unknown = _UNKNOWN_FIELD.match(message)
    if unknown:
        steps.append(unknown["field"])
    # msgspec does not name the key of a mapping: the pointer then ends at the mapping itself.
    known = steps[: steps.index("...")] if "..." in steps else steps
    return INVALID(
        f"cannot accept the request: {reason[:1].lower()}{reason[1:]}",
        remedy=remedy or "see the route's schema in /v1/openapi.json",
        pointer="".join("/" + _escape(step) for step in known),
    )


def _escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
