"""Core-X's route table: the rows of its parts, the container's own, and how to run a command."""

import functools
import os
import sys

import msgspec

from corex.http import problem
from corex.http.openapi import openapi_route
from corex.http.routes import PUBLIC, NoBody, NoParameters, Request, Route, Table, build_table
from corex.process import model
from corex.process.execute import execute
from corex.process.spawn import SpawnError
from corex.rest import auditing, files, identities, metrics, operations, plans, processes, sessions, streams
from corex.rest.access import OPERATOR, SCHEME, VIEWER
from corex.rest.container import CANNOT_RUN, Container, cannot_run, refuse
from corex.wire.api import ExecRequest, ExecResult, Health, System

VERSION = "1"


@functools.cache
def table() -> Table:
    """All routes, as requests look for them: the same for all forks of a process that has them."""
    return build_table(routes())


def routes() -> list[Route]:
    """The whole table, its OpenAPI document included."""
    table = [
        Route("GET", "/v1/health", PUBLIC, "Whether Core-X answers", get_health, response=Health),
        Route("GET", "/v1/system", VIEWER, "The container", get_system, response=System),
        *processes.routes(),
        *plans.routes(),
        *streams.routes(),
        *sessions.routes(),
        *files.routes(),
        *operations.routes(),
        *identities.routes(),
        *metrics.routes(),
        *auditing.routes(),
        Route(
            "POST",
            "/v1/exec",
            OPERATOR,
            "Run a command to its end",
            post_exec,
            request=ExecRequest,
            response=ExecResult,
            errors=(CANNOT_RUN,),
        ),
    ]
    # every one of them wants a Host that is the container's
    table = [msgspec.structs.replace(row, errors=(*row.errors, problem.MISDIRECTED)) for row in table]
    table.append(openapi_route(table, title="Core-X", version=VERSION, security=SCHEME))
    return table


async def get_health(_request: Request[Container, NoParameters, NoBody]) -> Health:
    """Answers whoever can connect, so that a load balancer needs no token."""
    return Health("up")


async def get_system(request: Request[Container, NoParameters, NoBody]) -> System:
    """The container as Core-X sees it."""
    container = request.context
    lives = container.processes.all()
    world = container.processes.world
    return System(
        name=container.name,
        kernel=os.uname().release,
        python=sys.version.partition(" ")[0],
        uptime=round(world.loop.time() - container.started, 3),
        processes=len(lives),
        running=sum(life.state in model.UP for life in lives),
        orphans=world.reaper.orphans,
        usage=world.figures.of(os.getpid()),
        health=container.health.report if container.health else None,
    )


async def post_exec(request: Request[Container, NoParameters, ExecRequest]) -> ExecResult:
    """The command's own failure is a result; that it could not be started is a problem."""
    body = request.body
    refuse(model.flaw_of_command(body.argv, body.env, body.cwd))
    try:
        return await execute(body, request.context.processes.world)
    except SpawnError as error:
        raise cannot_run(error) from None
