"""Which actions bring a pool in order, and a volume to what is wanted. Pure.

Nothing that can be seen through the API is ever deleted by a plan: what is swept away was never acknowledged, or was
deleted by a verb.
"""

from collections.abc import Collection

import msgspec

from core0.volumes.model import (
    INCOMING,
    SNAPSHOTS,
    Action,
    Clone,
    Create,
    DropGroup,
    EnableQuota,
    MakeFolders,
    Record,
    Regroup,
    SeenPool,
    SeenVolume,
    SetRecord,
    Sweep,
)
from core0.wire.volumes import VolumeSpec


def plan_pool(seen: SeenPool, busy: Collection[str] = ()) -> tuple[Action, ...]:
    """The actions that bring a pool in order; planning again after they were applied gives none.

    Turning quota on changes what the rest is about, so nothing else is planned with it.

    Args:
        seen: the pool as it is.
        busy: entries of `incoming` that something is being made in.
    """
    first: list[Action] = [] if seen.ready else [MakeFolders()]
    if not seen.quota:
        return (*first, EnableQuota())
    if not seen.simple:
        return tuple(first)
    volumes = (action for volume in seen.volumes for action in _plan_seen(volume))
    leftovers = (Sweep(INCOMING, entry) for entry in seen.leftovers if entry not in busy)
    orphans = (Sweep(SNAPSHOTS, entry) for entry in seen.orphans)
    return (*first, *volumes, *leftovers, *orphans, *(DropGroup(group) for group in seen.groups))


def _plan_seen(volume: SeenVolume) -> tuple[Action, ...]:
    record = volume.record
    if record is None:
        return ()
    if not volume.member:
        return (Regroup(volume.name, record),)
    return () if volume.limit == record.limit else (SetRecord(volume.name, record),)


def plan_volume(name: str, spec: VolumeSpec, seen: SeenVolume | None) -> tuple[Action, ...]:
    """The actions that make a volume as the spec says; none if it is.

    Args:
        name: its name.
        spec: what it shall be.
        seen: what it is; None if there is none.
    """
    if seen is None:
        made = Clone(name, spec.origin, spec.size, spec.io) if spec.origin else None
        return (made or Create(name, spec.size, spec.io),)
    if seen.record is None or (seen.record.size, seen.record.io) == (spec.size, spec.io):
        return ()
    return (SetRecord(name, msgspec.structs.replace(seen.record, size=spec.size, io=spec.io)),)


def plan_count(volume: SeenVolume, shared: int) -> tuple[Action, ...]:
    """The actions that follow from counting what a clone still has of its source."""
    record: Record | None = volume.record
    if record is None or (record.shared, record.counted) == (shared, True):
        return ()
    return (SetRecord(volume.name, msgspec.structs.replace(record, shared=shared, counted=True)),)
