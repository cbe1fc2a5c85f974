"""Routes of operations: what goes on after its request was answered with 202."""

from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Request, Route
from corex.process.operations import Operation
from corex.rest.access import OPERATOR, VIEWER
from corex.rest.container import Container
from corex.wire import operations as wire


def routes() -> list[Route]:
    """Rows of the table."""
    one = "/v1/operations/{id}"
    return [
        Route(
            "GET",
            "/v1/operations",
            VIEWER,
            "Long work, the oldest first",
            list_operations,
            response=wire.OperationList,
        ),
        Route(
            "GET",
            one,
            VIEWER,
            "One operation",
            get_operation,
            wire.ByOperationWait,
            response=wire.Operation,
            errors=(problem.NOT_FOUND,),
        ),
        Route(
            "DELETE",
            one,
            OPERATOR,
            "Cancel it, or forget one that has ended",
            delete_operation,
            wire.ByOperation,
            status=204,
            errors=(problem.NOT_FOUND, problem.CONFLICT),
        ),
    ]


def location(operation: Operation) -> dict[str, str]:
    """The header of an answer of 202."""
    return {"Location": f"/v1/operations/{operation.id}"}


async def list_operations(request: Request[Container, NoParameters, NoBody]) -> wire.OperationList:
    """As many as are kept."""
    return wire.OperationList([one.info() for one in request.context.operations.all()])


async def get_operation(request: Request[Container, wire.ByOperationWait, NoBody]) -> wire.Operation:
    """Waits for its end for at most `wait` seconds."""
    found = _operation(request.context, request.parameters.id)
    if request.parameters.wait:
        await found.wait(request.parameters.wait)
    return found.info()


async def delete_operation(request: Request[Container, wire.ByOperation, NoBody]) -> None:
    """What it did already stays done."""
    found = _operation(request.context, request.parameters.id)
    if found.state != "running":
        request.context.operations.forget(found)
    elif found.is_cancellable:
        found.cancel()
    else:
        raise problem.CONFLICT(
            f"cannot cancel {found.kind} of {found.subject}: others changed with it already",
            remedy="start or stop the processes as they shall be",
        )


def _operation(container: Container, name: str) -> Operation:
    found = container.operations.get(name)
    if found is None:
        raise problem.NOT_FOUND(
            f"cannot find operation {name}: it ended a while ago, or never was",
            remedy="see GET /v1/operations",
        )
    return found
