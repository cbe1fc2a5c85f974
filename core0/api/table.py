"""The whole route table: one row each, from which handlers, access rules, OpenAPI and the access tests come."""

from core0.api import routes
from core0.api.container_routes import CONTAINER_ROUTES
from core0.api.image_routes import IMAGE_ROUTES
from core0.api.link_routes import LINK_ROUTES
from core0.api.network_routes import NETWORK_ROUTES
from core0.api.secret_routes import SECRET_ROUTES
from core0.api.state_routes import STATE_ROUTES
from core0.api.storage_routes import STORAGE_ROUTES
from core0.api.volume_routes import VOLUME_ROUTES
from corex.http.openapi import openapi_route

_ROUTES = (
    *routes.ROUTES,
    *IMAGE_ROUTES,
    *CONTAINER_ROUTES,
    *LINK_ROUTES,
    *NETWORK_ROUTES,
    *SECRET_ROUTES,
    *STATE_ROUTES,
    *STORAGE_ROUTES,
    *VOLUME_ROUTES,
)
ROUTES = (
    *_ROUTES,
    openapi_route(
        _ROUTES,
        title="Zeronode node API",
        version="1",
        security={"type": "mutualTLS", "description": "A client certificate signed by the operator's key"},
    ),
)
