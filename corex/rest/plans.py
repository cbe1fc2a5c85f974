"""The plan: its layers, what they say together, applying it, and its checks."""

from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Reply, Request, Route
from corex.process import plan
from corex.process.life import Life
from corex.process.manager import Processes
from corex.process.operations import FailedError
from corex.process.plan import PlanError, etag_of
from corex.rest.access import OPERATOR, VIEWER
from corex.rest.container import Container, check_preconditions, no_plan
from corex.rest.follow import follow
from corex.rest.operations import location
from corex.wire.api import ByName, CheckInfo, CheckList
from corex.wire.plan import ApplyQuery, ByLayer, Difference, Layer, LayerInfo, LayerList, Plan, Verb
from corex.wire.targets import TargetInfo, TargetList


def routes() -> list[Route]:
    """Their rows of the table."""
    gone, changed = (problem.NOT_FOUND,), (problem.PRECONDITION_FAILED,)
    one = "/v1/layers/{name}"
    return [
        Route("GET", "/v1/plan", VIEWER, "What all layers say together", get_plan, response=Plan),
        Route(
            "POST",
            "/v1/plan/apply",
            OPERATOR,
            "Make processes and checks what the plan says; 202 if that is still under way",
            apply_plan,
            ApplyQuery,
            response=Difference,
            errors=(*changed, problem.CONFLICT),
            other_statuses=(202,),
        ),
        Route("GET", "/v1/layers", VIEWER, "All layers, the lowest first", list_layers, response=LayerList),
        Route("GET", one, VIEWER, "One layer", get_layer, ByName, response=LayerInfo, errors=gone),
        Route(
            "PUT",
            one,
            OPERATOR,
            "Add or replace; 201 if it is new. What applying the plan would do then",
            put_layer,
            ByLayer,
            request=Layer,
            response=Difference,
            other_statuses=(201,),
            errors=(*changed, problem.FULL),
        ),
        Route(
            "DELETE",
            one,
            OPERATOR,
            "Take away. What applying the plan would do then",
            delete_layer,
            ByName,
            response=Difference,
            errors=(*gone, *changed, problem.FULL),
        ),
        Route("GET", "/v1/targets", VIEWER, "All targets of log lines", list_targets, response=TargetList),
        Route(
            "GET",
            "/v1/targets/{name}",
            VIEWER,
            "One target of log lines",
            get_target,
            ByName,
            response=TargetInfo,
            errors=gone,
        ),
        Route("GET", "/v1/checks", VIEWER, "All checks", list_checks, response=CheckList),
        Route(
            "GET",
            "/v1/checks/{name}",
            VIEWER,
            "One check",
            get_check,
            ByName,
            response=CheckInfo,
            errors=gone,
        ),
    ]


async def get_plan(request: Request[Container, NoParameters, NoBody]) -> Reply[Plan]:
    """With its ETag."""
    wanted = request.context.processes.plan
    return Reply(wanted, headers={"ETag": etag_of(wanted)})


async def apply_plan(request: Request[Container, ApplyQuery, NoBody]) -> Reply[Difference]:
    """Restarts only what changed."""
    container, processes = request.context, request.context.processes
    etag = etag_of(processes.plan)
    check_preconditions(request, etag)
    if request.parameters.dry_run:
        return Reply(Difference(processes.differences(processes.plan), etag))
    if processes.is_ending:
        raise problem.CONFLICT(
            "cannot start anything: the container is stopping", remedy="start the container"
        )
    before = {life.name: life for life in processes.all()}
    changes = processes.apply()
    lives = before | {life.name: life for life in processes.all()}
    work = _follow(processes, [(change.verb, lives[change.process]) for change in changes if change.process])
    going_on = container.operations.begin("apply", "/v1/plan", request.identity.name, work)
    await going_on.wait(request.parameters.wait)
    answer = Difference(changes, etag)
    if going_on.state != "running":
        container.operations.forget(going_on)
        return Reply(answer)
    return Reply(answer, status=202, headers=location(going_on))


async def _follow(processes: Processes, changed: list[tuple[Verb, Life]]) -> str:
    """Wait until all that changed is done; a failure of one does not hide the others'."""
    failures = []
    for verb, life in changed:
        if verb == "adopt":
            continue
        try:
            await follow(processes, verb, [life])
        except FailedError as error:
            failures.append(str(error))
    if failures:
        raise FailedError("; ".join(failures))
    return "all that changed is done"


async def list_layers(request: Request[Container, NoParameters, NoBody]) -> LayerList:
    """In their order."""
    layers = request.context.processes.layers
    return LayerList([_info(request.context, name) for name in layers])


async def get_layer(request: Request[Container, ByName, NoBody]) -> Reply[LayerInfo]:
    """With its ETag."""
    info = _info(request.context, request.parameters.name)
    return Reply(info, headers={"ETag": info.etag})


async def put_layer(request: Request[Container, ByLayer, Layer]) -> Reply[Difference]:
    """Checks the whole plan; nothing is started or stopped before it is applied."""
    processes, name = request.context.processes, request.parameters.name
    known = processes.layers.get(name)
    check_preconditions(request, etag_of(known) if known else None)
    try:
        if request.parameters.dry_run:
            wanted = plan.merge(processes.layers_with(name, request.body))
            return Reply(Difference(processes.differences(wanted), etag_of(wanted)))
        is_new = processes.put_layer(name, request.body)
    except PlanError as error:
        raise no_plan(error) from None
    headers = {"ETag": etag_of(request.body)} | ({"Location": f"/v1/layers/{name}"} if is_new else {})
    return Reply(_difference(request.context), status=201 if is_new else 200, headers=headers)


async def delete_layer(request: Request[Container, ByName, NoBody]) -> Difference:
    """What it declared goes on until the plan is applied."""
    info = _info(request.context, request.parameters.name)
    check_preconditions(request, info.etag)
    try:
        request.context.processes.remove_layer(info.name)
    except PlanError as error:
        raise no_plan(error) from None
    return _difference(request.context)


async def list_checks(request: Request[Container, NoParameters, NoBody]) -> CheckList:
    """In the order of their declaration."""
    return CheckList(request.context.processes.checks())


async def get_check(request: Request[Container, ByName, NoBody]) -> CheckInfo:
    """One of them."""
    found = request.context.processes.check(request.parameters.name)
    if found is None:
        raise problem.NOT_FOUND(
            f"cannot find check {request.parameters.name}: there is none", remedy="see GET /v1/checks"
        )
    return found


async def list_targets(request: Request[Container, NoParameters, NoBody]) -> TargetList:
    """In the order of their declaration."""
    return TargetList(request.context.processes.targets())


async def get_target(request: Request[Container, ByName, NoBody]) -> TargetInfo:
    """One of them."""
    found = request.context.processes.target(request.parameters.name)
    if found is None:
        raise problem.NOT_FOUND(
            f"cannot find target {request.parameters.name}: there is none", remedy="see GET /v1/targets"
        )
    return found


def _info(container: Container, name: str) -> LayerInfo:
    layers = container.processes.layers
    layer = layers.get(name)
    if layer is None:
        raise problem.NOT_FOUND(f"cannot find layer {name}: there is none", remedy="see GET /v1/layers")
    return LayerInfo(name, list(layers).index(name), etag_of(layer), layer)


def _difference(container: Container) -> Difference:
    processes = container.processes
    return Difference(processes.differences(processes.plan), etag_of(processes.plan))
