"""What is said of pools: of their disks that are not there, and of those that serve badly."""

import pytest
from msgspec.structs import replace

from core0.disks.explain import explain_pool
from core0.disks.model import Figures, Known, KnownDisk, KnownPool, Seen, SeenPool, Wanted
from core0.wire.storage import MountOptions
from tests.core0.disks.landscape import claimed

A, B = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "ab")
BOTH_GONE = "disks ata-sda, ata-sdb are missing"
WAITING = ("waiting", f"{BOTH_GONE}; they may still come")
OFFLINE = (
    "offline",
    f"{BOTH_GONE}, and raid1 serves without 1 of its disks at most; plug what is missing",
)


def mirror(**other: object) -> Known:
    disks = {A: KnownDisk("ata-sda", 1, "fast"), B: KnownDisk("ata-sdb", 1, "fast")}
    return Known(disks, {"fast": KnownPool("fs", "raid1", (A, B), **other)})  # type: ignore[arg-type]


def said(known: Known, seen: Seen) -> tuple[str, str]:
    return explain_pool("fast", Wanted(), known, seen, {})


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(Seen(patient=True), WAITING, id="a young boot"),
        pytest.param(Seen(settled=False), WAITING, id="disks that have not been looked at"),
        pytest.param(Seen(), OFFLINE, id="later"),
        pytest.param(Seen(served=frozenset({"fast"}), patient=True), OFFLINE, id="pulled since it served"),
    ],
)
def test_a_pool_is_down_only_when_its_disks_had_time_to_come(seen: Seen, expected: tuple[str, str]) -> None:
    assert said(mirror(), seen) == expected


def test_a_pool_whose_last_disk_is_old_is_down_when_the_newer_one_had_time_to_come() -> None:
    known, old = mirror(stale=(B,)), Seen((claimed("sdb", B),), patient=True)
    assert said(known, old)[0] == "waiting"
    assert said(known, replace(old, patient=False))[0] == "offline"


@pytest.mark.parametrize(
    ("figures", "erred", "state", "why"),
    [
        pytest.param(Figures(), (), "online", "it serves, with all 2 disks", id="well"),
        pytest.param(
            Figures(full="data"),
            (A,),
            "online",
            "it serves, but it is full; delete files, snapshots or volumes",
            id="full",
        ),
        pytest.param(
            Figures(full="metadata"),
            (),
            "online",
            "it serves, but its metadata is full, so it takes nothing more; delete files, snapshots or volumes",
            id="full of metadata",
        ),
        pytest.param(
            Figures(),
            (B, A),
            "online",
            "it serves, but ata-sda, ata-sdb made errors; 'zn pool scrub fast' corrects what it can",
            id="errors",
        ),
        pytest.param(
            Figures(read_only=True, full="data"),
            (A,),
            "failed",
            "its files can only be read: the kernel stopped writing to it after an error; "
            "look at its disks and their errors, then 'zn node reboot'",
            id="read-only",
        ),
    ],
)
def test_a_pool_that_is_mounted_says_what_ails_it(
    figures: Figures, erred: tuple[str, ...], state: str, why: str
) -> None:
    disks = claimed("sda", A), claimed("sdb", B)
    seen = Seen(disks, mounted={"fast": SeenPool(frozenset((A, B)), MountOptions())})
    assert explain_pool("fast", Wanted(), mirror(), seen, {}, figures, erred) == (state, why)
