"""Who may ask: bearers of tokens whose hashes are known (RFC 6750), and of tickets for one WebSocket each.

Failures are limited per address, so that guessing fills neither processor nor log. A right token always passes:
neighbours behind one address cannot lock each other out.
"""

import base64
import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from corex.http import problem
from corex.http.connection import RawRequest
from corex.http.routes import Identity
from corex.wire.identities import ALLOWED, TICKET_SECONDS, IdentitySpec, Role, Ticket

VIEWER, OPERATOR, ADMIN, METRICS = "viewer", "operator", "admin", "metrics"
SCHEME = {"type": "http", "scheme": "bearer"}
# The identity that the container was made with.
OWNER = "owner"
MAX_FAILURES = 20  # per address and window
WINDOW = 60.0  # seconds
MAX_ADDRESSES = 1024
MAX_IDENTITIES = 64
MAX_TICKETS = 256
_TICKET_BYTES = 32


class _Known(msgspec.Struct, frozen=True):
    """What is known of an identity."""

    role: Role
    digest: bytes


class _Redeemable(msgspec.Struct, frozen=True):
    """What a ticket is for: a path, until when, for whom."""

    path: str
    until: float
    name: str


class Access:
    """Authenticates requests."""

    def __init__(
        self,
        token_sha256: str,
        clock: Callable[[], float],
        identities: Mapping[str, IdentitySpec] = MappingProxyType({}),
        keep: Callable[[Mapping[str, IdentitySpec]], None] = lambda _: None,
    ) -> None:
        """Begin.

        Args:
            token_sha256: of the owner's token.
            clock: seconds, for tickets and failures.
            identities: who may ask besides the owner.
            keep: is told who may, before somebody else may; what it raises, changes nothing.
        """
        self._known = {OWNER: _Known("admin", bytes.fromhex(token_sha256))}
        self._known |= {
            name: _Known(one.role, bytes.fromhex(one.token_sha256)) for name, one in identities.items()
        }
        self._keep = keep
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        # By the SHA-256 of each.
        self._tickets: OrderedDict[bytes, _Redeemable] = OrderedDict()

    def __call__(self, raw: RawRequest) -> Identity:
        """Who asks.

        Raises:
            ProblemError: 401 without a right token or ticket, 429 after too many such answers.
        """
        name = self._by_ticket(raw) or self._by_token(raw.headers)
        if name is not None:
            return Identity(name, ALLOWED[self._known[name].role])
        self._count(raw.remote)
        raise problem.UNAUTHENTICATED(
            "cannot tell who asks: the bearer token is missing or wrong",
            remedy="send 'Authorization: Bearer TOKEN' with the token that the container's creation returned",
            headers={"WWW-Authenticate": 'Bearer realm="corex"'},
        )

    def _by_token(self, headers: Mapping[str, str]) -> str | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        # all of them are compared, so that the time tells nothing of which one it was
        names = [name for name, known in self._known.items() if hmac.compare_digest(given, known.digest)]
        return names[0] if names and scheme.lower() == "bearer" else None

    def _by_ticket(self, raw: RawRequest) -> str | None:
        """Who has the ticket that the request shows, which is of no use from then on."""
        shown = [value for name, value in raw.query if name == "ticket"]
        if len(shown) != 1 or raw.headers.get("upgrade", "").lower() != "websocket":
            return None
        ticket = self._tickets.pop(hashlib.sha256(shown[0].encode("utf-8", "surrogateescape")).digest(), None)
        if ticket is None or ticket.path != raw.path or ticket.until < self._clock():
            return None
        raw.query = tuple(pair for pair in raw.query if pair[0] != "ticket")
        return ticket.name if ticket.name in self._known else None

    def ticket(self, identity: Identity, path: str) -> Ticket:
        """A ticket for one WebSocket, for somebody who asked with a token."""
        secret = base64.urlsafe_b64encode(os.urandom(_TICKET_BYTES)).rstrip(b"=")
        until = self._clock() + TICKET_SECONDS
        self._tickets[hashlib.sha256(secret).digest()] = _Redeemable(path, until, identity.name)
        while len(self._tickets) > MAX_TICKETS:
            self._tickets.popitem(last=False)
        return Ticket(secret.decode(), TICKET_SECONDS)

    def identities(self) -> dict[str, Role]:
        """All who may ask, and what for."""
        return {name: known.role for name, known in sorted(self._known.items())}

    def put(self, name: str, role: Role, token_sha256: str) -> bool:
        """Let somebody ask, or change what they may; true if they are new.

        Raises:
            ProblemError: 409 for the container's owner, for a token that somebody else has, for too many; 507.
        """
        digest = bytes.fromhex(token_sha256)
        if name == OWNER:
            remedy = "make the container anew for another token"
            raise problem.CONFLICT(
                f"cannot change {OWNER}: the node made the container for it", remedy=remedy
            )
        if any(known.digest == digest for other, known in self._known.items() if other != name):
            raise problem.CONFLICT(
                "cannot take the token: another identity has it",
                remedy="make a token of 32 random bytes for each",
            )
        is_new = name not in self._known
        if is_new and len(self._known) >= MAX_IDENTITIES:
            raise problem.CONFLICT(
                f"cannot take more than {MAX_IDENTITIES} identities", remedy="delete some first"
            )
        self._change({**self._known, name: _Known(role, digest)})
        return is_new

    def delete(self, name: str) -> None:
        """Let somebody ask no more. Raises ProblemError: 404, or 409 for the container's owner."""
        if name == OWNER:
            raise problem.CONFLICT(f"cannot delete {OWNER}: nobody could come in any more")
        if name not in self._known:
            raise problem.NOT_FOUND(f"cannot find identity {name}", remedy="see GET /v1/identities")
        self._change({other: known for other, known in self._known.items() if other != name})

    def _change(self, known: dict[str, _Known]) -> None:
        others = {name: one for name, one in known.items() if name != OWNER}
        self._keep({name: IdentitySpec(one.role, one.digest.hex()) for name, one in others.items()})
        self._known = known

    def _count(self, address: str) -> None:
        now = self._clock()
        since, failures = self._failures.pop(address, (now, 0))
        if now - since >= WINDOW:
            since, failures = now, 0
        self._failures[address] = (since, failures + 1)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        if failures >= MAX_FAILURES:
            seconds = f"{since + WINDOW - now:.0f}"
            raise problem.RATE_LIMITED(
                "cannot accept more wrong tokens from this address now",
                remedy=f"wait {seconds} s or send the right token",
                headers={"Retry-After": seconds},
            )
