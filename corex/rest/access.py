"""Who may ask: bearers of the one token, whose hash Core-0 gave us (RFC 6750).

Failures are limited per address, so that guessing fills neither processor nor log. The right token always
passes: neighbours behind one address cannot lock each other out.
"""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable

from corex.http import problem
from corex.http.connection import RawRequest
from corex.http.routes import Identity

OPERATOR = "operator"
SCHEME = {"type": "http", "scheme": "bearer"}
MAX_FAILURES = 20  # per address and window
WINDOW = 60.0  # seconds
MAX_ADDRESSES = 1024


class Access:
    """Authenticates requests by bearer token."""

    def __init__(self, token_sha256: str, clock: Callable[[], float]) -> None:
        self._wanted = bytes.fromhex(token_sha256)
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __call__(self, raw: RawRequest) -> Identity:
        """The operator.

        Raises:
            ProblemError: 401 without the right token, 429 after too many such answers.
        """
        scheme, _, token = raw.headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        if hmac.compare_digest(given, self._wanted) and scheme.lower() == "bearer":
            return Identity(OPERATOR, frozenset({OPERATOR}))
        self._count(raw.remote)
        raise problem.UNAUTHENTICATED(
            "cannot tell who asks: the bearer token is missing or wrong",
            remedy="send 'Authorization: Bearer TOKEN' with the token that the container's creation returned",
            headers={"WWW-Authenticate": 'Bearer realm="corex"'},
        )

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
