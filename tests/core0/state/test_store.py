"""The store on areas in memory: what is acknowledged, who takes part, what is refused, and what becomes of it."""

import asyncio
import hashlib
import struct
from pathlib import Path

import msgspec
import pytest

from core0.state.area import BLOCK, HEADERS, encode_slot
from core0.state.disk import read_slots
from core0.state.model import Machine
from core0.state.store import IDENTITY, LARGEST, StateStore
from core0.wire.control import RefusedError
from core0.wire.state import NEWER_IMAGE
from tests.core0.state.model_disks import ModelAreas, ModelDisk

HERE = Machine("e2b1c3d4-1111-4222-8333-444455556666", ("52:54:00:00:00:01",))
ELSEWHERE = Machine("aaaabbbb-9999-4888-8777-666655554444", ("52:54:00:00:00:99",))


class Host:
    """A machine, its disks, and the node daemons that run on it one after the other."""

    def __init__(self, folder: Path, machine: Machine = HERE, disks: str = "ab") -> None:
        self.machine = machine
        self.memory = folder / f"{machine.uuid}.json"
        self.disks = {disk: ModelDisk() for disk in disks}
        self.areas = ModelAreas(self.disks)
        self.events: list[str] = []
        self.now = 1000

    async def start(self, present: str | None = None) -> StateStore:
        """A daemon begins with what it can read."""
        beginning = {IDENTITY: b'"me"'}
        store = StateStore(
            self.areas, self.machine, self._report, str(self.memory), lambda: self.now, beginning
        )
        there = sorted(self.disks) if present is None else present
        store.take([await self.areas.read(disk) for disk in there])
        return store

    async def boot(self, present: str | None = None) -> StateStore:
        """The machine boots: what was in memory only is gone."""
        self.memory.unlink(missing_ok=True)
        return await self.start(present)

    async def claimed(self, disks: str = "ab") -> StateStore:
        """A node that has these disks."""
        store = await self.start("")
        for disk in disks:
            await store.join(disk, disk)
        return store

    def _report(self, kind: str, subject: str, message: str) -> None:
        self.events.append(f"{subject}: {message}")


def why(store: StateStore) -> dict[str, tuple[bool, str]]:
    return {copy.disk: (copy.ok, copy.why) for copy in store.status().copies}


async def test_without_disks_a_node_remembers_until_the_end_of_the_boot(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.start("")
    assert (store.ephemeral, store.durable, store.get(IDENTITY)) == (True, False, b'"me"')
    await store.put("x", b"[1]")
    again = await host.start("")
    assert (again.get("x"), again.node) == (b"[1]", store.node)
    after = await host.boot("")
    assert after.get("x") is None
    assert after.node != store.node


async def test_what_a_node_remembered_in_memory_is_on_the_first_disk_that_it_gets(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.start("")
    await store.put("x", b"[1]")
    await store.join("a", "a")
    assert (store.ephemeral, store.durable) == (False, True)
    after = await host.boot("a")
    assert (after.get("x"), after.get(IDENTITY), after.node) == (b"[1]", b'"me"', store.node)


@pytest.mark.parametrize("present", ["ab", "ba", "a", "b"])
async def test_any_one_of_its_disks_is_enough(tmp_path: Path, present: str) -> None:
    host = Host(tmp_path)
    store = await host.claimed()
    await store.change({"x": b"[1]", "y": b"[2]"})
    await store.remove("y")
    after = await host.boot(present)
    assert (after.get("x"), after.get("y"), after.node) == (b"[1]", None, store.node)
    assert after.names() == (IDENTITY, "x")


async def test_a_stale_disk_that_comes_back_changes_nothing_and_is_brought_up_to_date(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.claimed()
    await store.put("x", b"1")
    store = await host.boot("a")
    assert why(store)["b"] == (False, "it has not come back since the last start")
    await store.put("x", b"2")
    store = await host.boot()
    assert store.get("x") == b"2"
    await store.catch_up()
    assert (await host.boot("b")).get("x") == b"2"


async def test_changes_that_come_while_one_is_written_are_written_together(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.claimed()
    before = store.status().sequence
    await asyncio.gather(*(store.put(f"x{number}", b"1") for number in range(10)))
    assert store.status().sequence == before + 1
    assert len(store.names("x")) == 10


async def test_a_dead_disk_is_left_out_told_and_let_in_again(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.claimed()
    host.disks["b"].mode = "dead"
    await store.put("x", b"1")
    assert why(store) == {
        "a": (True, "it holds all that was acknowledged"),
        "b": (False, "Input/output error"),
    }
    assert store.joined() == {"a": "a"}
    assert "b: Lost: b does not hold the node's state any more: Input/output error" in host.events
    host.disks["b"].mode = "well"
    await store.join("b", "b")
    assert store.joined() == {"a": "a", "b": "b"}
    assert (await host.boot("b")).get("x") == b"1"


async def test_without_any_disk_left_nothing_is_acknowledged(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.claimed("a")
    await store.put("x", b"1")
    host.disks["a"].mode = "dead"
    with pytest.raises(RefusedError, match="none of the disks is left that hold the node's state"):
        await store.put("x", b"2")
    with pytest.raises(RefusedError, match="none of the disks is left"):
        await store.put("x", b"3")
    assert (store.get("x"), store.ephemeral, store.durable) == (b"1", False, False)


async def test_a_disk_that_is_pulled_counts_as_old_when_it_is_back(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.claimed()
    await store.lose("b", "it was pulled")
    assert why(store)["b"] == (False, "it was pulled")
    await store.put("x", b"1")
    await store.join("b", "b")
    assert (await host.boot("b")).get("x") == b"1"


async def test_a_disk_that_the_operator_takes_away_is_not_missed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.claimed()
    await store.leave("b")
    assert list(why(store)) == ["a"]
    await store.leave("a")
    assert store.ephemeral
    await store.put("x", b"1")


async def test_what_is_too_large_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.claimed("a")
    with pytest.raises(RefusedError, match="all that the node remembers would have"):
        await store.put("x", msgspec.json.encode("a" * LARGEST))
    with pytest.raises(msgspec.DecodeError):
        await store.put("x", b"{")
    assert store.get("x") is None
    await store.put("x", msgspec.json.encode("a" * (LARGEST - 1000)))


async def test_another_machine_s_disk_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    there, host = Host(tmp_path, ELSEWHERE, "c"), Host(tmp_path)
    await (await there.claimed("c")).put("x", b"1")
    host.disks["c"] = there.disks["c"]
    before = dict(host.disks["c"].medium)
    store = await host.boot("c")
    assert store.get("x") is None
    assert "it belongs to node" in store.status().warnings[0]
    with pytest.raises(RefusedError, match="cannot keep the node's state on c: it belongs to another node"):
        await store.join("c", "c")
    assert not store.superseded.is_set()
    assert host.disks["c"].medium == before


async def test_a_machine_becomes_the_node_whose_disks_it_adopts(tmp_path: Path) -> None:
    there, host = Host(tmp_path, ELSEWHERE, "cd"), Host(tmp_path, disks="")
    former = await there.claimed("cd")
    await former.put("x", b"1")
    host.disks.update(there.disks)
    store = await host.boot()
    await store.adopt("c", ("c", "d"))
    assert store.superseded.is_set()
    after = await host.start()
    assert (after.node, after.get("x")) == (former.node, b"1")
    assert (await host.boot("d")).node == former.node
    assert (await there.boot("d")).node != former.node, "it is this machine's now"


async def test_a_node_with_disks_of_its_own_adopts_no_other(tmp_path: Path) -> None:
    there, host = Host(tmp_path, ELSEWHERE, "c"), Host(tmp_path)
    await there.claimed("c")
    store = await host.claimed()
    host.disks["c"] = there.disks["c"]
    with pytest.raises(RefusedError, match="this node remembers itself on disks of its own"):
        await store.adopt("c")
    host.disks["d"] = ModelDisk()
    with pytest.raises(RefusedError, match="it has states of 0 nodes"):
        await store.adopt("d")
    assert not store.superseded.is_set()


async def test_a_disk_of_another_node_is_overwritten_if_the_operator_says_so(tmp_path: Path) -> None:
    there, host = Host(tmp_path, ELSEWHERE, "c"), Host(tmp_path)
    await there.claimed("c")
    store = await host.claimed("a")
    host.disks["c"] = there.disks["c"]
    await store.join("c", "c", overwrite=True)
    assert (await host.boot("c")).node == store.node
    assert (await there.boot("c")).node not in (store.node,)


async def test_a_node_that_began_without_its_late_disk_begins_again_with_it(tmp_path: Path) -> None:
    host = Host(tmp_path)
    former = await host.claimed()
    await former.put("x", b"1")
    store = await host.boot("")
    await store.welcome(await host.areas.read("a"))
    assert store.superseded.is_set()
    again = await host.start()
    assert (again.node, again.get("x")) == (former.node, b"1")
    assert not again.superseded.is_set()


async def test_a_late_disk_does_not_undo_what_was_told_to_the_node_meanwhile(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await (await host.claimed()).put("x", b"1")
    store = await host.boot("")
    await store.put("x", b"2")
    await store.welcome(await host.areas.read("a"))
    assert not store.superseded.is_set()
    assert store.get("x") == b"2"
    assert "it belongs to another node" in why(store)["a"][1]


async def test_a_late_disk_that_knows_more_is_told_from_one_that_knows_less(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = await host.claimed()
    await store.lose("b", "it was pulled")
    await store.put("x", b"2")
    stale = await host.boot("b")
    assert stale.get("x") is None
    await stale.welcome(await host.areas.read("a"))
    assert stale.superseded.is_set()
    store = await host.boot("a")
    await store.welcome(await host.areas.read("b"))
    assert not store.superseded.is_set()
    assert store.joined() == {"a": "a", "b": "b"}


async def test_disks_that_ran_by_turns_are_a_fork_that_only_the_operator_ends(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await (await host.claimed()).put("x", b"0")
    for host.now, disk in ((2000, "a"), (3000, "b")):
        await (await host.boot(disk)).put("x", msgspec.json.encode(disk))
    store = await host.boot()
    assert store.get("x") == b'"b"'
    assert store.joined() == {"b": "b"}
    assert (
        "it remembers changes of this node that the chosen state does not have" in store.status().warnings[0]
    )
    with pytest.raises(RefusedError, match="it remembers changes of this node that this node does not have"):
        await store.join("a", "a")
    await store.adopt("a")
    assert store.superseded.is_set()
    assert (await host.boot()).get("x") == b'"a"'


async def test_a_foreign_disk_is_told_in_the_status_with_what_to_do(tmp_path: Path) -> None:
    there, host = Host(tmp_path, ELSEWHERE, "c"), Host(tmp_path)
    former = await there.claimed("c")
    host.disks["c"] = there.disks["c"]
    (warning,) = (await host.boot("c")).status().warnings
    assert former.node in warning
    assert ELSEWHERE.uuid in warning
    assert "adopt" in warning


async def test_what_an_image_does_not_understand_is_told_and_nothing_is_written_beside_it(
    tmp_path: Path,
) -> None:
    """Each disk has an older state that can be read: the node is who it was, and knows that it knows too little."""
    host = Host(tmp_path)
    before = await host.claimed()
    await before.put("x", b"[1]")
    for disk in host.disks.values():
        write_newer(disk)
    kept = [dict(disk.medium) for disk in host.disks.values()]
    store = await host.boot()
    assert (store.node, store.get(IDENTITY)) == (before.node, b'"me"')
    assert store.outdated == store.strange["a"] == "format 7, this image knows format 1"
    with pytest.raises(RefusedError, match="cannot use what the node's disks remember: format 7"):
        await store.put("x", b"[2]")
    for overwrite in (False, True):
        with pytest.raises(
            RefusedError, match="something that this image does not understand: format 7"
        ) as no:
            await store.join("a", "a", overwrite=overwrite)
        assert no.value.refusal.remedy == NEWER_IMAGE
    with pytest.raises(RefusedError, match="format 7"):
        await store.adopt("a")
    assert [disk.medium for disk in host.disks.values()] == kept


async def test_a_disk_of_a_newer_image_among_others_is_left_alone_and_they_serve(tmp_path: Path) -> None:
    host = Host(tmp_path, disks="abc")
    await (await host.claimed("abc")).put("x", b"[1]")
    write_newer(host.disks["c"])
    store = await host.boot()
    assert (store.outdated, store.strange) == ("", {"c": "format 7, this image knows format 1"})
    await store.put("x", b"[2]")
    assert sorted(store.joined()) == ["a", "b"]
    assert any("/dev" not in one and "c is left as it is: format 7" in one for one in host.events)


async def test_a_field_of_a_newer_image_is_not_lost(tmp_path: Path) -> None:
    host = Host(tmp_path, disks="a")
    store = await host.claimed("a")
    state = {**msgspec.json.decode(msgspec.json.encode(store._state)), "replicas": 3}
    payload = msgspec.json.encode({"disk": "a", "state": state})
    mark = (await host.areas.read("a")).held[-1].mark
    await host.areas.write("a", mark, encode_slot(store._state.sequence, payload), alone=True)
    after = await host.boot()
    assert after.node != store.node
    assert "unknown field `replicas`" in after.strange["a"]


def write_newer(disk: ModelDisk) -> None:
    """Write a state of another format, as another image would: beside the one that was written last."""
    older = min(read_slots(disk).slots, key=lambda slot: slot.sequence).mark
    place = next(at for at in HEADERS if disk.read(at, BLOCK)[-32:] == older)
    head = bytearray(encode_slot(1000, b"{}").header[:-32])
    struct.pack_into("<I", head, 16, 7)
    disk.write(place, bytes(head) + hashlib.sha256(head).digest())
    disk.flush()
