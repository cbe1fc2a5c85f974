"""Whether what was asked of processes is done."""

from collections.abc import Sequence

from corex.process import model
from corex.process.life import Life
from corex.process.manager import Processes
from corex.process.operations import FailedError
from corex.wire.api import State
from corex.wire.operations import OperationKind
from corex.wire.process import ProcessSpec

_STARTED: frozenset[State] = frozenset({"running", "ready", "backoff", "scheduled", *model.SETTLED})
_RESTARTED = _STARTED - {"stopped"}
# Seconds between looks whether somebody asked for something else meanwhile.
_LOOK = 2.0


def done_states(kind: OperationKind, spec: ProcessSpec) -> frozenset[State]:
    """The states in which a verb is done with a process of this specification."""
    if kind == "stop":
        return model.SETTLED
    done = _RESTARTED if kind == "restart" else _STARTED
    # who can show that it is ready has not started before that
    return done - {"running"} if spec.ready is not None else done


async def follow(processes: Processes, kind: OperationKind, lives: Sequence[Life]) -> str:
    """Wait until a verb is done with processes; says how they are then.

    Raises:
        FailedError: one of them failed, or somebody asked for something else.
    """
    for life in lives:
        await _follow(processes, kind, life)
    return lives[0].why if len(lives) == 1 else "all that changed is done"


async def _follow(processes: Processes, kind: OperationKind, life: Life) -> None:
    done, wanted = done_states(kind, life.spec), kind != "stop"
    while not await life.wait(_LOOK, done):
        if processes.get(life.name) is not life:
            if kind == "stop":
                return
            raise FailedError(f"{life.name} is not declared any more")
        if life.wanted is not wanted:
            raise FailedError(f"somebody wanted {life.name} {'stopped' if wanted else 'to run'} meanwhile")
    if kind != "stop" and life.state in ("failed", "backoff", "stopped"):
        raise FailedError(f"{life.name} is {life.state}: {life.why}")
