"""The routes of containers' secrets: what is given is in no answer."""

import msgspec

from core0.api.daemon import Daemon
from core0.api.routes import OPERATOR
from core0.wire.secrets import Secret, SecretName, Secrets, SecretValue
from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Request, Route


class BySecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which secret."""

    name: SecretName


async def _secrets(request: Request[Daemon, NoParameters, NoBody]) -> Secrets:
    return await request.context.call("secrets", Secrets)


async def _secret(request: Request[Daemon, BySecret, NoBody]) -> Secret:
    return await request.context.call("secret", Secret, name=request.parameters.name)


async def _put(request: Request[Daemon, BySecret, SecretValue]) -> Secret:
    return await request.context.call("put_secret", Secret, name=request.parameters.name, body=request.body)


async def _delete(request: Request[Daemon, BySecret, NoBody]) -> None:
    await request.context.call("delete_secret", type(None), name=request.parameters.name)


_ONE = "/v1/secrets/{name}"

SECRET_ROUTES = (
    Route("GET", "/v1/secrets", OPERATOR, "All secrets, without their values", _secrets, response=Secrets),
    Route(
        "GET",
        _ONE,
        OPERATOR,
        "One secret, without its value",
        _secret,
        parameters=BySecret,
        response=Secret,
        errors=(problem.NOT_FOUND,),
    ),
    Route(
        "PUT",
        _ONE,
        OPERATOR,
        "Give the node a secret; containers that run keep an earlier one",
        _put,
        parameters=BySecret,
        request=SecretValue,
        response=Secret,
        errors=(problem.CONFLICT,),
    ),
    Route(
        "DELETE",
        _ONE,
        OPERATOR,
        "Forget a secret that no container has",
        _delete,
        parameters=BySecret,
        errors=(problem.NOT_FOUND, problem.CONFLICT),
    ),
)
