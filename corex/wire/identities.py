"""Who may ask Core-X, and tickets for WebSockets."""

from typing import Annotated, Literal

import msgspec

from corex.wire.process import ProcessName

# metrics: figures; viewer: also all else; operator: also declares, starts, stops, types; admin: also lets others in.
Role = Literal["viewer", "operator", "admin", "metrics"]
# What each role is allowed.
ALLOWED: dict[Role, frozenset[Role]] = {
    "viewer": frozenset({"viewer", "metrics"}),
    "operator": frozenset({"viewer", "operator", "metrics"}),
    "admin": frozenset({"viewer", "operator", "admin", "metrics"}),
    "metrics": frozenset({"metrics"}),
}
# Seconds until a ticket is of no use.
TICKET_SECONDS = 30.0


class IdentitySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who may ask.

    Attributes:
        role: what for.
        token_sha256: SHA-256 of their bearer token, 64 hexadecimal digits. The token is 32 random bytes, theirs, and
            never comes here.
    """

    role: Role
    token_sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class IdentityInfo(msgspec.Struct, frozen=True):
    """Somebody who may ask; nothing of their token."""

    name: str
    role: Role


class IdentityList(msgspec.Struct, frozen=True):
    """All of them by name, and who asks now."""

    identities: list[IdentityInfo]
    own: str


class ByIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Path of one identity."""

    name: ProcessName


class TicketRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for a ticket: a browser's WebSocket has no other way to say who asks.

    Attributes:
        path: of the WebSocket, without its query.
    """

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class Ticket(msgspec.Struct, frozen=True):
    """Opens one WebSocket of the path once: as its query's parameter `ticket`."""

    ticket: str
    seconds: float
