"""Actions that end in the middle: whatever a process had done when it died, the next take-over brings in order."""

import os
import random
import signal
from pathlib import Path

import pytest

from core0.volumes import apply
from core0.volumes.model import (
    Action,
    Clone,
    Create,
    DeleteSnapshot,
    DeleteVolume,
    EnableQuota,
    MakeFolders,
    RollBack,
    SeenPool,
    TakeSnapshot,
)
from core0.volumes.observe import observe
from core0.volumes.plan import plan_pool
from core0.wire.volumes import Origin
from tests.core0.conftest import Loop

pytestmark = pytest.mark.root
MIB = 1 << 20
_ROUNDS = 8


@pytest.fixture
def root(btrfs_disk: Loop) -> str:
    apply.repair(str(btrfs_disk.place), (MakeFolders(), EnableQuota()))
    return str(btrfs_disk.place)


def do_and_die(root: str, actions: tuple[Action, ...], seconds: float) -> None:
    """Carry out actions in a process that the kernel ends after so much time, wherever it is then."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        for action in actions:
            apply.change(root, (action,), "data")
        os._exit(0)
    os.waitpid(pid, 0)


def settle(root: str) -> SeenPool:
    seen = observe(root)
    for _ in range(10):
        if not (actions := plan_pool(seen)):
            break
        seen = apply.repair(root, actions)
    return seen


def test_what_a_dead_process_left_is_swept_and_what_is_seen_is_whole(root: str) -> None:
    chance = random.Random(4)
    for number in range(_ROUNDS):
        life = (
            Create("data", 64 * MIB),
            TakeSnapshot("data", "monday"),
            Clone("copy", Origin("data", "monday"), 64 * MIB),
            RollBack("data", "monday"),
            DeleteSnapshot("data", "monday"),
            TakeSnapshot("data", "tuesday"),
            DeleteVolume("data"),
            DeleteVolume("copy"),
        )
        do_and_die(root, life, chance.uniform(0.0005, 0.06))
        seen = settle(root)
        assert (seen.leftovers, seen.orphans) == ((), ()), number
        assert all(one.record and one.member and one.limit == one.record.limit for one in seen.volumes), (
            number
        )
        for one in seen.volumes:
            apply.change(root, (DeleteVolume(one.name),), one.name)
        assert settle(root).volumes == ()


def test_snapshots_whose_volume_was_deleted_do_not_come_back_with_its_name(root: str) -> None:
    apply.change(root, (Create("data", 64 * MIB), TakeSnapshot("data", "monday")), "data")
    volumes, incoming = Path(root, "volumes"), Path(root, "incoming")
    (volumes / "data").rename(incoming / "gone")  # and there the power went
    seen = observe(root)
    assert (seen.leftovers, seen.orphans) == (("gone",), ("data",))
    assert settle(root).orphans == ()
    made = apply.change(root, (Create("data", 64 * MIB),), "data")
    assert made
    assert made.snapshots == ()
