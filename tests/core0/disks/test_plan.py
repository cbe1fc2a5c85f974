"""The disk plan: what must hold for any landscape, and what each situation gets."""

import msgspec
import pytest
from hypothesis import given, settings

from core0.disks.explain import explain_pool
from core0.disks.model import (
    ClaimDisk,
    Known,
    KnownDisk,
    KnownPool,
    MakePool,
    Mount,
    Release,
    RemakePool,
    Remount,
    Seen,
    SeenPool,
    Wanted,
    WantedPool,
)
from core0.disks.plan import plan
from core0.wire.state import NEWER_IMAGE
from core0.wire.storage import Encryption, MountOptions, PoolSpec, Selector
from tests.core0.disks.landscape import World, blank, claimed, foreign, worlds

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")


def planned(world: World) -> tuple[object, ...]:
    return plan(world.wanted, world.known, world.seen)


def applied(world: World) -> World:
    for action in plan(world.wanted, world.known, world.seen):
        world = world.after(action)
    return world


@given(worlds())
@settings(max_examples=400, deadline=None)
def test_planning_again_after_applying_gives_nothing(world: World) -> None:
    assert planned(applied(world)) == ()


@given(worlds())
@settings(max_examples=400, deadline=None)
def test_nothing_is_destroyed_that_the_operator_did_not_name(world: World) -> None:
    for action in plan(world.wanted, world.known, world.seen):
        if isinstance(action, ClaimDisk):
            (disk,) = (one for one in world.seen.disks if one.id == action.disk)
            assert disk.content
            assert disk.content.id == action.content
            assert disk.content.claim not in world.known.disks
            named = action.content in world.wanted.claims.values()
            assert named or (disk.content.blank and world.wanted.pools[action.pool].spec.format_blank)
        if isinstance(action, RemakePool):
            assert not world.known.pools[action.name].made
        if isinstance(action, MakePool):
            assert action.name not in world.known.pools


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_pools_are_made_of_free_disks_of_the_node_only(world: World) -> None:
    for action in plan(world.wanted, world.known, world.seen):
        if isinstance(action, MakePool):
            free = {
                disk.id for disk in world.seen.disks if disk.content and _is_free(world, disk.content.claim)
            }
            assert set(action.disks) <= free
            assert len(set(action.disks)) == len(action.disks)
        world = world.after(action)


def _is_free(world: World, claim: str) -> bool:
    return claim in world.known.disks and world.known.disks[claim].pool is None


def pool(spec: PoolSpec) -> Wanted:
    return Wanted({"fast": WantedPool(spec)})


def text(wanted: Wanted, known: Known, seen: Seen) -> list[str]:
    return [str(action) for action in plan(wanted, known, seen)]


def test_blank_disks_are_formatted_where_the_config_says_so() -> None:
    spec = PoolSpec(Selector(), profile="raid1", format_blank=True)
    seen = Seen((blank("sda"), blank("sdb"), foreign("sdc")))
    assert text(pool(spec), Known(), seen) == [
        "claim ata-sda",
        "claim ata-sdb",
        "make pool fast, raid1, of ata-sda, ata-sdb",
        "mount pool fast",
    ]


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        pytest.param(PoolSpec(Selector()), Seen((blank("sda"),)), id="blank disks need a word"),
        pytest.param(PoolSpec(Selector(), format_blank=True), Seen((foreign("sda"),)), id="not blank"),
        pytest.param(
            PoolSpec(Selector(), "raid1", format_blank=True), Seen((blank("sda"),)), id="raid1 of one disk"
        ),
        pytest.param(
            PoolSpec(Selector(count=3), format_blank=True), Seen((blank("sda"), blank("sdb"))), id="too few"
        ),
        pytest.param(
            PoolSpec(Selector(), format_blank=True), Seen((blank("sda"),), settled=False), id="still looking"
        ),
        pytest.param(
            PoolSpec(Selector(), format_blank=True), Seen((blank("sda", size=1 << 20),)), id="tiny disk"
        ),
        pytest.param(
            PoolSpec(Selector(), format_blank=True),
            Seen((blank("sda", read_only=True),)),
            id="read-only disk",
        ),
        pytest.param(
            PoolSpec(Selector(media=("hdd",)), format_blank=True), Seen((blank("sda"),)), id="other media"
        ),
        pytest.param(
            PoolSpec(Selector(), format_blank=True), Seen((claimed("sda", B),)), id="another node's disk"
        ),
    ],
)
def test_nothing_happens(spec: PoolSpec, seen: Seen) -> None:
    assert text(pool(spec), Known(), seen) == []


def two_disks(**other: object) -> Known:
    disks = {A: KnownDisk("ata-sda", 1, "fast"), B: KnownDisk("ata-sdb", 1, "fast")}
    return Known(disks, {"fast": KnownPool("fs", "raid1", (A, B), **other)})  # type: ignore[arg-type]


def test_a_pool_is_mounted_with_the_options_that_are_wanted() -> None:
    options = MountOptions(compress="zstd:1")
    seen = Seen((claimed("sda", A), claimed("sdb", B)))
    (action,) = plan(pool(PoolSpec(Selector(), "raid1", mount=options)), two_disks(), seen)
    assert action == Mount("fast", options)


def test_a_pool_that_nobody_wants_any_more_is_mounted_all_the_same() -> None:
    seen = Seen((claimed("sda", A), claimed("sdb", B)))
    assert text(Wanted(), two_disks(), seen) == ["mount pool fast"]


def test_a_missing_disk_is_waited_for_before_a_pool_serves_without_it() -> None:
    seen = Seen((claimed("sda", A),), patient=True)
    assert text(Wanted(), two_disks(), seen) == []
    assert text(Wanted(), two_disks(), Seen((claimed("sda", A),))) == ["mount pool fast, degraded"]


def test_a_disk_that_is_being_rebuilt_on_is_unlocked_with_the_others() -> None:
    encryption = Encryption("operator")
    disks = {
        A: KnownDisk("ata-sda", 1, "fast"),
        B: KnownDisk("ata-sdb", 1, "fast"),
        C: KnownDisk("ata-sdc", 1),
    }
    one = KnownPool("fs", "raid1", (A, B), encryption, replacing=(B, C), stale=(B,))
    seen = Seen((claimed("sda", A), claimed("sdb", B), claimed("sdc", C)))
    assert text(Wanted(keys=frozenset({"fast"})), Known(disks, {"fast": one}), seen) == [
        "unlock disk aaaaaaaa of pool fast",
        "unlock disk cccccccc of pool fast",
        "mount pool fast, degraded",
    ]


def test_a_serving_pool_keeps_disks_that_a_new_daemon_has_not_looked_at() -> None:
    ahead = tuple(msgspec.structs.replace(claimed(name, A), content=None) for name in ("sda", "sdb"))
    serving = {"fast": SeenPool(frozenset({A, B}), devices={A: "sda", B: "sdb"})}
    assert text(Wanted(), two_disks(), Seen(ahead, mounted=serving, settled=False)) == []
    assert text(Wanted(), two_disks(), Seen((), mounted=serving)) == ["release pool fast"]


def test_a_pool_without_too_many_of_its_disks_stays_down() -> None:
    known = Known({A: KnownDisk("ata-sda", 1, "fast")}, {"fast": KnownPool("fs", "single", (A, B))})
    assert text(Wanted(), known, Seen((claimed("sda", A),))) == []


def test_a_copied_disk_is_not_trusted_and_neither_is_its_original() -> None:
    seen = Seen((claimed("sda", A), claimed("sdb", B), claimed("sdc", B)))
    assert text(Wanted(), two_disks(), seen) == ["mount pool fast, degraded"]


def test_a_pool_of_which_a_disk_may_know_more_than_is_understood_is_left_alone() -> None:
    seen = Seen((claimed("sda", A), claimed("sdb", B)), strange={"/dev/sdb1": "format 7"})
    assert text(Wanted(), two_disks(), seen) == []
    assert text(Wanted(), two_disks(made=False), seen) == []
    state, why = explain_pool("fast", Wanted(), two_disks(), seen, {})
    assert state == "offline"
    assert why == f"it is not touched: ata-sdb may know more of it than this image understands; {NEWER_IMAGE}"
    free = Known({B: KnownDisk("ata-sdb", 1)})
    assert text(pool(PoolSpec(Selector(("ata-sdb",)))), free, seen) == []


def test_an_interrupted_making_is_done_again() -> None:
    seen = Seen((claimed("sda", A), claimed("sdb", B)))
    assert text(Wanted(), two_disks(made=False), seen) == [
        "make pool fast, whose making was interrupted",
        "mount pool fast",
    ]


def test_a_mounted_pool_gets_new_options_by_a_remount() -> None:
    seen = Seen((claimed("sda", A), claimed("sdb", B)), mounted={"fast": SeenPool(frozenset({A, B}))})
    options = MountOptions(compress="zstd:3")
    (action,) = plan(pool(PoolSpec(Selector(), "raid1", mount=options)), two_disks(), seen)
    assert action == Remount("fast", options)


def test_a_pool_that_lost_too_many_disks_is_let_go() -> None:
    seen = Seen((), mounted={"fast": SeenPool(frozenset({A, B}))})
    assert plan(Wanted(), two_disks(), seen) == (Release("fast"),)
    seen = Seen((claimed("sda", A),), mounted={"fast": SeenPool(frozenset({A, B}))})
    assert plan(Wanted(), two_disks(), seen) == ()


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param({"ata-sda": "heldsda"}, ["claim ata-sda, wiping what it holds (heldsda)"], id="by id"),
        pytest.param({"Ssda": "heldsda"}, ["claim ata-sda, wiping what it holds (heldsda)"], id="by serial"),
        pytest.param({"ata-sda": "heldsdb"}, [], id="something else on it"),
        pytest.param({"nowhere": "heldsda"}, [], id="no such disk"),
    ],
)
def test_a_claim_wipes_what_it_names(claims: dict[str, str], expected: list[str]) -> None:
    assert text(Wanted(claims=claims), Known(), Seen((foreign("sda"), foreign("sdb")))) == expected
