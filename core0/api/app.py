"""The API as an application: the routes that a boot waits for at once, all others when one of them is asked for."""

from functools import cached_property

from core0.api.daemon import Daemon
from core0.api.routes import OPERATOR, ROUTES
from corex.http import problem
from corex.http.connection import RawRequest, Response
from corex.http.routes import App, Identity, Match, build_table, match

MAX_BODY = 1 << 20


class Api:
    """The application over a way to the node daemon."""

    def __init__(self, daemon: Daemon, max_body: int = MAX_BODY) -> None:
        self._daemon = daemon
        self._max_body = max_body
        self._first = App(build_table(ROUTES), authenticate, daemon, max_body)

    async def __call__(self, raw: RawRequest) -> Response:
        """Answer one request."""
        first = isinstance(match(self._first.table, raw.method, raw.path), Match)
        return await (self._first if first else self._whole)(raw)

    @cached_property
    def _whole(self) -> App:
        """Every route. An emulated node imports them for a tenth of a second."""
        from core0.api.table import ROUTES as EVERY

        return App(build_table(EVERY), authenticate, self._daemon, self._max_body)


def authenticate(request: RawRequest) -> Identity:
    """Who asks, by the client certificate that TLS has verified. Raises the 401 problem without one."""
    certificate = request.peer_certificate
    if not certificate:
        raise problem.UNAUTHENTICATED(
            "cannot answer: the connection has no client certificate",
            remedy="connect with a certificate signed by the operator's key, as `zn` does",
        )
    names = dict(pair for part in certificate["subject"] for pair in part)
    return Identity(names.get("commonName", "operator"), frozenset({OPERATOR}))
