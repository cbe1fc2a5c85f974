"""The routes of what the node remembers."""

from core0.api.daemon import Daemon
from core0.api.routes import OPERATOR
from core0.wire.state import Adoption, StateStatus
from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Request, Route


async def _state(request: Request[Daemon, NoParameters, NoBody]) -> StateStatus:
    return await request.context.call("state", StateStatus)


async def _adopt(request: Request[Daemon, NoParameters, Adoption]) -> StateStatus:
    return await request.context.call("adopt_state", StateStatus, body=request.body)


STATE_ROUTES = (
    Route(
        "GET",
        "/v1/state",
        OPERATOR,
        "What the node remembers, and which of its disks hold it",
        _state,
        response=StateStatus,
    ),
    Route(
        "POST",
        "/v1/state/adopt",
        OPERATOR,
        "Be the node that a disk remembers",
        _adopt,
        request=Adoption,
        response=StateStatus,
        errors=(problem.NOT_FOUND, problem.CONFLICT),
    ),
)
