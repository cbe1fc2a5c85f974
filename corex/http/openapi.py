"""The OpenAPI 3.1 document of a route table, made from the table and its types and nothing else."""

import zlib
from collections.abc import Sequence
from inspect import cleandoc
from typing import Any

import msgspec

from corex.http import problem
from corex.http.problem import Problem, ProblemType
from corex.http.routes import OCTETS, PUBLIC, NoParameters, Request, Route, Upload

_REF = "#/components/schemas/{name}"
# What each route can answer, whatever it does.
_ALWAYS = (
    problem.MALFORMED_REQUEST,
    problem.UNAUTHENTICATED,
    problem.FORBIDDEN,
    problem.TIMED_OUT,
    problem.TOO_LARGE,
    problem.INVALID,
    problem.RATE_LIMITED,
    problem.INTERNAL,
)
_WITH_BODY = (problem.MALFORMED_JSON, problem.UNSUPPORTED_TYPE)


def openapi_route(routes: Sequence[Route], *, title: str, version: str, security: dict[str, Any]) -> Route:
    """The row that serves the document of `routes` and of itself at /v1/openapi.json, to any role of theirs.

    Args:
        routes: the rest of the table.
        title: the API's name.
        version: the API's version.
        security: the one security scheme object, as in the OpenAPI specification.
    """
    made: list[bytes] = []  # packed, as it is asked for rarely: a twelfth of its bytes

    async def show(_request: Request[Any, NoParameters, Any]) -> msgspec.Raw:
        if not made:
            text = msgspec.json.encode(document([*routes, row], title, version, security))
            made.append(zlib.compress(text))
        return msgspec.Raw(zlib.decompress(made[0]))

    role = next((route.role for route in routes if route.role != PUBLIC), PUBLIC)
    row = Route("GET", "/v1/openapi.json", role, "This document", show, response=dict[str, Any])
    return row


def document(routes: Sequence[Route], title: str, version: str, security: dict[str, Any]) -> dict[str, Any]:
    """The whole document as plain values."""
    types = {id(kind): kind for route in routes for kind in _types_of(route)}
    schemas, components = msgspec.json.schema_components([*types.values(), Problem], ref_template=_REF)
    for component in components.values():
        # Before Python 3.13 docstrings keep their source's indentation.
        if "description" in component:
            component["description"] = cleandoc(component["description"])
    by_type = dict(zip(types, schemas, strict=False))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"caller": security}},
    }


def _types_of(route: Route) -> list[Any]:
    fields = [field.encode_name for field in msgspec.structs.fields(route.parameters)]
    parameters = [route.parameters] if fields else []
    return parameters + [kind for kind in (route.request, route.response) if kind not in (None, Upload)]


def _operation(route: Route, schemas: dict[int, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__name__ + "_" + route.method.lower(),
        "x-role": route.role,
        "security": [] if route.role == PUBLIC else [{"caller": []}],
        "parameters": [_parameter(route, field) for field in msgspec.structs.fields(route.parameters)],
        "responses": _responses(route, schemas),
    }
    if route.request is not None:
        upload: dict[str, Any] = {OCTETS: {}}
        content = (
            upload
            if route.request is Upload
            else {"application/json": {"schema": schemas[id(route.request)]}}
        )
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(route: Route, field: msgspec.structs.FieldInfo) -> dict[str, Any]:
    in_path = f"{{{field.encode_name}}}" in route.segments
    return {
        "name": field.encode_name,
        "in": "path" if in_path else "query",
        "required": in_path or field.required,
        "schema": msgspec.json.schema(field.type),
    }


def _responses(route: Route, schemas: dict[int, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.response is not None:
        content["application/json"] = {"schema": schemas[id(route.response)]}
    content.update({media_type: {} for media_type in route.streams})
    success = {"description": route.summary} | ({"content": content} if content else {})
    responses: dict[str, Any] = {str(status): success for status in (route.status, *route.other_statuses)}
    if route.upgrades:
        responses = {"101": {"description": f"WebSocket, by subprotocol {' or '.join(route.upgrades)}"}}
    for status, kinds in _problems_of(route).items():
        responses[status] = {
            "description": "; ".join(f"{kind.title} ({kind.urn})" for kind in kinds),
            "content": {problem.CONTENT_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
    return responses


def _problems_of(route: Route) -> dict[str, list[ProblemType]]:
    with_body = _WITH_BODY if route.request is not None else ()
    upgrading = (problem.UPGRADE_REQUIRED,) if route.upgrades else ()
    kinds = [*_ALWAYS, *with_body, *upgrading, *route.errors]
    by_status: dict[str, list[ProblemType]] = {}
    for kind in kinds:
        listed = by_status.setdefault(str(kind.status), [])
        if kind not in listed:
            listed.append(kind)
    return by_status
