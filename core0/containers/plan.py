"""Which actions bring one container from what is seen to what is wanted. Pure."""

from core0.containers.limits import changes_while_running
from core0.containers.model import Action, Create, Freeze, Limit, Pull, Remove, Seen, Stop, Thaw, Wait, Wanted


def plan(wanted: Wanted | None, seen: Seen) -> tuple[Action, ...]:
    """The actions, in order; planning again after they were applied gives none, or the same `Wait`.

    Args:
        wanted: None if the container shall be gone.
        seen: the container as it is.
    """
    if wanted is None or not wanted.run:
        return _end(seen)
    if seen.alive and seen.record is not None:
        if seen.record.spec == wanted.spec:
            return _hold(wanted, seen)
        if changes_while_running(seen.record.spec, wanted.spec):
            return (Limit(seen.record, wanted.spec), *_hold(wanted, seen))
    return (*_end(seen), *_begin(wanted, seen))


def _hold(wanted: Wanted, seen: Seen) -> tuple[Action, ...]:
    """A freezer that is asked to halt them and has not yet is neither as wanted nor as not wanted."""
    if wanted.paused:
        return () if seen.freezer == "frozen" else (Freeze(),)
    return () if seen.freezer == "thawed" else (Thaw(),)


def _end(seen: Seen) -> tuple[Action, ...]:
    if seen.record is None:
        return ()
    if not seen.alive:
        return (Remove(seen.record),)
    # halted processes would not hear that they shall end
    hear = () if seen.freezer == "thawed" else (Thaw(),)
    return (*hear, Stop(seen.record), Remove(seen.record))


def _begin(wanted: Wanted, seen: Seen) -> tuple[Action, ...]:
    reference = wanted.spec.image
    here = () if seen.image else (Pull(reference),)
    if seen.lacks:
        return (*here, Wait(seen.lacks))
    return (*here, Create(wanted.spec), *((Freeze(),) if wanted.paused else ()))
