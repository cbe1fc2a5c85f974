"""Which actions bring one container from what is seen to what is wanted. Pure."""

from core0.containers.model import Action, Create, Pull, Remove, Seen, Stop, Wanted


def plan(wanted: Wanted | None, seen: Seen) -> tuple[Action, ...]:
    """The actions, in order; planning again after they were applied gives none.

    Args:
        wanted: None if the container shall be gone.
        seen: the container as it is.
    """
    as_wanted = (
        wanted is not None and wanted.run and seen.record is not None and seen.record.spec == wanted.spec
    )
    if as_wanted and seen.alive:
        return ()
    return (*_end(seen), *(_begin(wanted, seen) if wanted and wanted.run else ()))


def _end(seen: Seen) -> tuple[Action, ...]:
    if seen.record is None:
        return ()
    return (Stop(seen.record), Remove(seen.record)) if seen.alive else (Remove(seen.record),)


def _begin(wanted: Wanted, seen: Seen) -> tuple[Action, ...]:
    reference = wanted.spec.image
    here = () if seen.image else (Pull(reference),)
    return (*here, Create(wanted.spec))
