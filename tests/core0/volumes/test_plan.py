"""The volume plan: what must hold for any pool, and what each situation gets."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core0.volumes.model import (
    INCOMING,
    SNAPSHOTS,
    Action,
    Clone,
    Create,
    DeleteSnapshot,
    DeleteVolume,
    DropGroup,
    EnableQuota,
    MakeFolders,
    Record,
    Regroup,
    RollBack,
    SeenPool,
    SeenSnapshot,
    SeenVolume,
    SetRecord,
    Sweep,
)
from core0.volumes.plan import plan_count, plan_pool, plan_volume
from core0.wire.volumes import IoLimits, Origin, VolumeSpec

MIB = 1 << 20
SIZES = st.integers(16 * MIB, 1 << 50)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)


@st.composite
def records(draw: st.DrawFn) -> Record:
    size = draw(SIZES)
    return Record(size, draw(st.integers(256, 1 << 40)), shared=draw(st.integers(0, size)))


@st.composite
def volumes(draw: st.DrawFn, name: str) -> SeenVolume:
    record = draw(st.none() | records())
    limit = draw(st.none() | SIZES | (st.just(record.limit) if record else st.none()))
    kept = draw(st.lists(NAMES, max_size=2, unique=True))
    snapshots = tuple(SeenSnapshot(one, 300, "00", "", 0.0) for one in kept)
    return SeenVolume(name, 256, 1, 0.0, record, 0, limit, draw(st.booleans()), snapshots)


@st.composite
def pools(draw: st.DrawFn) -> SeenPool:
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    found = tuple(draw(volumes(name)) for name in names)
    some = st.lists(NAMES, max_size=3, unique=True).map(tuple)
    orphans = tuple(one for one in draw(some) if one not in names)
    groups = draw(st.lists(st.integers(1, 1 << 50), max_size=3, unique=True).map(tuple))
    flags = (draw(st.booleans()) for _ in range(3))
    return SeenPool(*flags, 1 << 50, 1 << 50, found, draw(some), orphans, groups)


def after(pool: SeenPool, action: Action) -> SeenPool:
    """What a pool is once an action was carried out."""
    change = msgspec.structs.replace
    match action:
        case MakeFolders():
            return change(pool, ready=True)
        case EnableQuota():
            return change(pool, quota=True, simple=True)
        case Regroup(name, record) | SetRecord(name, record):
            found = tuple(
                change(one, record=record, limit=record.limit, member=True) if one.name == name else one
                for one in pool.volumes
            )
            return change(pool, volumes=found)
        case Sweep(folder, entry):
            field = {INCOMING: "leftovers", SNAPSHOTS: "orphans"}[folder]
            return change(pool, **{field: tuple(one for one in getattr(pool, field) if one != entry)})
        case DropGroup(group):
            return change(pool, groups=tuple(one for one in pool.groups if one != group))
    raise AssertionError(f"a plan of a pool never says {action}")


def settled(pool: SeenPool) -> SeenPool:
    while actions := plan_pool(pool):
        for action in actions:
            pool = after(pool, action)
    return pool


@given(pools())
@settings(deadline=None)
def test_planning_again_after_applying_gives_nothing(pool: SeenPool) -> None:
    assert plan_pool(settled(pool)) == ()


@given(pools())
@settings(deadline=None)
def test_nothing_that_can_be_seen_is_ever_deleted(pool: SeenPool) -> None:
    actions = plan_pool(pool)
    assert not any(isinstance(one, DeleteVolume | DeleteSnapshot | RollBack) for one in actions)
    swept = {one.entry for one in actions if isinstance(one, Sweep) and one.folder == SNAPSHOTS}
    assert swept.isdisjoint(one.name for one in pool.volumes)
    left = settled(pool)
    assert [one.name for one in left.volumes] == [one.name for one in pool.volumes]
    assert [one.snapshots for one in left.volumes] == [one.snapshots for one in pool.volumes]


@given(pools())
@settings(deadline=None)
def test_a_volume_that_is_ready_has_the_limit_of_its_size(pool: SeenPool) -> None:
    left = settled(pool)
    if left.simple:
        assert all(one.member and one.limit == one.record.limit for one in left.volumes if one.record)


def test_what_is_being_made_is_left_alone() -> None:
    pool = SeenPool(True, True, True, MIB, MIB, leftovers=("mine", "old"))
    assert plan_pool(pool, busy={"mine"}) == (Sweep(INCOMING, "old"),)


def test_quota_comes_before_what_needs_it() -> None:
    pool = SeenPool(False, False, False, MIB, MIB, leftovers=("old",))
    assert plan_pool(pool) == (MakeFolders(), EnableQuota())


RECORD = Record(64 * MIB, 256)
SEEN = SeenVolume("data", 256, 1, 0.0, RECORD, limit=64 * MIB, member=True)


@pytest.mark.parametrize(
    ("spec", "seen", "expected"),
    [
        pytest.param(VolumeSpec(64 * MIB, "fast"), None, "create volume data of 67108864 bytes", id="new"),
        pytest.param(VolumeSpec(64 * MIB, "fast"), SEEN, "", id="as it is"),
        pytest.param(VolumeSpec(32 * MIB, "fast"), SEEN, "limit volume data to 33554432 bytes", id="size"),
        pytest.param(
            VolumeSpec(64 * MIB, "fast", IoLimits(read_bps=1)),
            SEEN,
            "limit volume data to 67108864 bytes",
            id="limits",
        ),
        pytest.param(
            VolumeSpec(64 * MIB, "fast", origin=Origin("old", "monday")),
            None,
            "clone volume old at monday as data",
            id="clone of a snapshot",
        ),
        pytest.param(
            VolumeSpec(64 * MIB, "fast", origin=Origin("old")), None, "clone volume old as data", id="clone"
        ),
    ],
)
def test_a_wish_becomes_the_least_that_grants_it(
    spec: VolumeSpec, seen: SeenVolume | None, expected: str
) -> None:
    assert "; ".join(map(str, plan_volume("data", spec, seen))) == expected


@given(SIZES, records())
@settings(deadline=None)
def test_a_wish_that_was_granted_needs_nothing(size: int, record: Record) -> None:
    spec = VolumeSpec(size, "fast")
    for action in plan_volume("data", spec, msgspec.structs.replace(SEEN, record=record)):
        assert isinstance(action, SetRecord)
        record = action.record
    assert plan_volume("data", spec, msgspec.structs.replace(SEEN, record=record)) == ()
    assert isinstance(plan_volume("data", spec, None)[0], Create)
    copied = msgspec.structs.replace(spec, origin=Origin("old"))
    assert isinstance(plan_volume("data", copied, None)[0], Clone)


@given(records(), st.integers(0, 1 << 50))
@settings(deadline=None)
def test_what_was_counted_once_is_not_written_again(record: Record, shared: int) -> None:
    volume = msgspec.structs.replace(SEEN, record=record)
    for action in plan_count(volume, shared):
        assert isinstance(action, SetRecord)
        volume = msgspec.structs.replace(volume, record=action.record)
    assert plan_count(volume, shared) == ()


@given(records())
@settings(deadline=None)
def test_a_limit_never_exceeds_the_size_and_never_is_nothing(record: Record) -> None:
    assert 0 < record.limit <= record.size
