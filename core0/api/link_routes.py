"""The routes of the node's own links."""

import msgspec

from core0.api.daemon import Daemon
from core0.api.routes import OPERATOR
from core0.wire.links import Link, LinkName, LinkQuery, Links
from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Request, Route


class ByLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which link: its name, or its bus address."""

    name: LinkName


async def _links(request: Request[Daemon, NoParameters, NoBody]) -> Links:
    return await request.context.call("links", Links)


async def _link(request: Request[Daemon, ByLink, NoBody]) -> Link:
    return await request.context.call("link", Link, body=LinkQuery(request.parameters.name))


LINK_ROUTES = (
    Route("GET", "/v1/links", OPERATOR, "The node's own links", _links, response=Links),
    Route(
        "GET",
        "/v1/links/{name}",
        OPERATOR,
        "One link",
        _link,
        parameters=ByLink,
        response=Link,
        errors=(problem.NOT_FOUND,),
    ),
)
