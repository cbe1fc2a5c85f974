"""Power is cut at every single step of a node's writes: whatever was acknowledged before is there after the boot."""

from pathlib import Path
from random import Random

import pytest

from core0.state.model import Machine
from core0.state.store import StateStore
from tests.core0.state.model_disks import ModelAreas, ModelDisk, PowerCutError

HERE = Machine("e2b1c3d4-1111-4222-8333-444455556666")
# Blocks and flushes that the writing below takes on each disk, and more: the last cut comes after all of it.
STEPS = 60
CHANGES = 12


async def begin(disks: dict[str, ModelDisk], folder: Path) -> StateStore:
    """The machine boots with these disks."""
    memory = folder / "state.json"
    memory.unlink(missing_ok=True)
    areas = ModelAreas(disks)
    store = StateStore(areas, HERE, lambda *_: None, str(memory), lambda: 1000)
    store.take([await areas.read(path) for path in sorted(disks)])
    return store


async def write_until_cut(store: StateStore) -> tuple[int, int]:
    """Change one section and its twin together; returns the last change that was acknowledged, and the last tried."""
    done = 0
    for number in range(1, CHANGES + 1):
        value = str(number).encode().ljust(1 + 3000 * (number % 3))
        try:
            await store.change({"x": value, "twin": value})
        except PowerCutError:
            return done, number
        done = number
    return done, done


@pytest.mark.parametrize("victim", ["a", "b"])
@pytest.mark.parametrize("steps", range(STEPS))
async def test_what_was_acknowledged_before_a_power_cut_is_there_after_it(
    tmp_path: Path, steps: int, victim: str
) -> None:
    random = Random(steps)
    disks = {"a": ModelDisk(), "b": ModelDisk()}
    store = await begin(disks, tmp_path)
    for disk in disks:
        await store.join(disk, disk)
    disks[victim].steps = steps
    acknowledged, tried = await write_until_cut(store)
    for disk in disks.values():
        disk.cut_power(lambda: random.random() < 0.5)
    for present in ("ab", "a", "b"):
        after = await begin({name: disks[name] for name in present}, tmp_path)
        assert after.get("x") == after.get("twin")
        found = int(after.get("x") or b"0")
        assert acknowledged <= found <= tried, present


async def test_the_cuts_reach_to_the_end_of_the_writing(tmp_path: Path) -> None:
    disk = ModelDisk()
    store = await begin({"a": disk}, tmp_path)
    await store.join("a", "a")
    disk.steps = STEPS
    assert (await write_until_cut(store))[0] == CHANGES
    assert disk.steps is not None
    assert disk.steps < STEPS // 4, "most of the cuts are amid it"
