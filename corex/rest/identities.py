"""Routes of identities and of tickets."""

from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Reply, Request, Route
from corex.rest.access import ADMIN, VIEWER
from corex.rest.container import Container
from corex.wire.identities import (
    ByIdentity,
    IdentityInfo,
    IdentityList,
    IdentitySpec,
    Ticket,
    TicketRequest,
)


def routes() -> list[Route]:
    """Rows of the table."""
    one = "/v1/identities/{name}"
    return [
        Route("GET", "/v1/identities", VIEWER, "Who may ask", list_identities, response=IdentityList),
        Route(
            "PUT",
            one,
            ADMIN,
            "Let somebody ask; 201 if they are new",
            put_identity,
            ByIdentity,
            request=IdentitySpec,
            response=IdentityInfo,
            errors=(problem.CONFLICT, problem.FULL),
            other_statuses=(201,),
        ),
        Route(
            "DELETE",
            one,
            ADMIN,
            "Let somebody ask no more",
            delete_identity,
            ByIdentity,
            status=204,
            errors=(problem.NOT_FOUND, problem.CONFLICT, problem.FULL),
        ),
        Route(
            "POST",
            "/v1/tickets",
            VIEWER,
            "A ticket for one WebSocket",
            post_ticket,
            request=TicketRequest,
            response=Ticket,
            status=201,
        ),
    ]


async def list_identities(request: Request[Container, NoParameters, NoBody]) -> IdentityList:
    """By name."""
    found = request.context.access.identities()
    return IdentityList([IdentityInfo(name, role) for name, role in found.items()], request.identity.name)


async def put_identity(request: Request[Container, ByIdentity, IdentitySpec]) -> Reply[IdentityInfo]:
    """Idempotent; what they may do changes with their next request."""
    name, spec = request.parameters.name, request.body
    is_new = request.context.access.put(name, spec.role, spec.token_sha256)
    headers = {"Location": f"/v1/identities/{name}"} if is_new else {}
    return Reply(IdentityInfo(name, spec.role), status=201 if is_new else 200, headers=headers)


async def delete_identity(request: Request[Container, ByIdentity, NoBody]) -> None:
    """From their next request on."""
    request.context.access.delete(request.parameters.name)


async def post_ticket(request: Request[Container, NoParameters, TicketRequest]) -> Ticket:
    """For whoever asks, with the role that they have."""
    return request.context.access.ticket(request.identity, request.body.path)
