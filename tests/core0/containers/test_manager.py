"""The container manager over real processes and records: what is taken over, stopped, removed, and tried again."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from core0.containers import apply, manager
from core0.containers.limits import limits_of
from core0.containers.manager import Containers
from core0.containers.model import Identity, Record, Wanted
from core0.containers.observe import is_alive, observe_record
from core0.linux import cgroups
from core0.wire.control import Refusal, RefusedError
from core0.wire.types import Container, ContainerSpec, Exit, Limits, PublishedPort
from tests.core0.containers.conftest import Files
from tests.host_node import HostNode

SPEC = ContainerSpec("http://127.0.0.1:9/demo/", "ab" * 32)


@asynccontextmanager
async def running(node: HostNode) -> AsyncIterator[Containers]:
    async with node.daemon() as state:
        yield state.containers


async def until(containers: Containers, accept: Callable[[Container], bool], name: str = "demo") -> Container:
    """Wait until the container is as wanted, polling: the manager tells no one-by-one changes."""
    async with asyncio.timeout(20):
        while not accept(containers.get(name)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return containers.get(name)


async def gone(containers: Containers, name: str = "demo") -> None:
    async with asyncio.timeout(20):
        while containers.list():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def write_exit(node: HostNode, record: Record, status: int) -> None:
    """As PID 1 does."""
    (node.folder / "exits" / str(record.pid)).write_text(str(status))


async def test_a_container_that_lives_is_taken_over_as_it_is(host_node: HostNode) -> None:
    record = host_node.add_container("demo", SPEC)
    async with running(host_node) as containers:
        found = await containers.wait("demo", 10)
        assert (found.state, found.pid, found.corex) == ("running", record.pid, record.corex)
        assert (await containers.put("demo", SPEC)).pid == record.pid
    assert is_alive(record)


async def test_stopping_ends_its_process_and_removing_its_files(host_node: HostNode) -> None:
    record = host_node.add_container("demo", SPEC)
    async with running(host_node) as containers:
        await containers.wait("demo", 10)
        await containers.set_running("demo", False)
        stopped = await until(containers, lambda one: one.state == "stopped")
        assert (stopped.why, stopped.pid) == ("it was stopped as asked", None)
        assert not is_alive(record)
        assert observe_record(host_node.folder / "containers" / "demo") is None
        await containers.delete("demo")
        await gone(containers)
    assert list((host_node.folder / "containers").iterdir()) == []


@pytest.mark.root
async def test_a_paused_container_is_halted_until_it_is_resumed(cgroup_node: HostNode) -> None:
    record = cgroup_node.add_container("demo", SPEC)
    async with running(cgroup_node) as containers:
        await containers.wait("demo", 10)
        assert (await containers.set_paused("demo", True)).state == "pausing"
        paused = await containers.wait("demo", 10)
        assert (paused.state, paused.pid) == ("paused", record.pid)
        assert freezer_of(cgroup_node) == "frozen"
        again = await containers.set_paused("demo", True)
        assert again.state == "paused", "the same wish again changes nothing"
        assert (await containers.set_paused("demo", False)).state == "resuming"
        assert (await containers.wait("demo", 10)).state == "running"
        assert freezer_of(cgroup_node) == "thawed"
    assert is_alive(record)


@pytest.mark.root
async def test_what_an_earlier_node_daemon_had_not_finished_is_ended_and_its_exit_is_forgotten(
    cgroup_node: HostNode,
) -> None:
    lives, unfinished = (
        cgroup_node.add_container(name, SPEC, number) for number, name in ((1, "a"), (2, "b"))
    )
    (cgroup_node.folder / "containers" / "b" / "record.json").unlink()
    assert cgroup_node.cgroup
    begun = cgroup_node.cgroup / "b"
    cgroups.create(begun / "below")
    assert cgroups.first_processes(begun) == [unfinished.pid]
    write_exit(cgroup_node, unfinished, 9)
    del cgroup_node.wanted["b"]
    async with running(cgroup_node) as containers:
        assert is_alive(lives)
        assert not is_alive(unfinished)
        assert not begun.exists()
        await until(containers, lambda _: not list((cgroup_node.folder / "exits").iterdir()), "a")


def freezer_of(node: HostNode, name: str = "demo") -> str:
    assert node.cgroup
    return cgroups.freezer(node.cgroup / name)


@pytest.mark.root
async def test_a_paused_container_is_paused_for_the_next_node_daemon_and_resumed_by_it(
    cgroup_node: HostNode,
) -> None:
    record = cgroup_node.add_container("demo", SPEC)
    cgroup_node.keeps_identity = True
    async with running(cgroup_node) as containers:
        await containers.wait("demo", 10)
        await containers.set_paused("demo", True)
        await until(containers, lambda one: one.state == "paused")
    cgroup_node.wanted.clear()
    async with running(cgroup_node) as containers:
        found = await until(containers, lambda one: one.state == "paused")
        assert found.pid == record.pid
        assert freezer_of(cgroup_node) == "frozen"
        await containers.put("demo", SPEC)
        await until(containers, lambda one: one.state == "running")
        assert freezer_of(cgroup_node) == "thawed"


@pytest.mark.root
@pytest.mark.parametrize("halfway", [False, True], ids=["paused", "a daemon died on the way to it"])
async def test_a_paused_container_is_stopped_and_removed_in_order(
    cgroup_node: HostNode, halfway: bool
) -> None:
    record = cgroup_node.add_container("demo", SPEC)
    write_exit(cgroup_node, record, 15)
    assert cgroup_node.cgroup
    if halfway:
        cgroups.freeze(cgroup_node.cgroup / "demo")
    async with running(cgroup_node) as containers:
        await containers.wait("demo", 10)
        if not halfway:
            await containers.set_paused("demo", True)
            await until(containers, lambda one: one.state == "paused")
        await containers.set_running("demo", False)
        await until(containers, lambda one: one.state == "stopped")
        assert not is_alive(record)
        assert list(cgroup_node.cgroup.glob("*/")) == []
        with pytest.raises(RefusedError, match="cannot pause container demo: it is stopped"):
            await containers.set_paused("demo", True)
        await containers.delete("demo")
        await gone(containers)


async def test_what_does_not_halt_in_time_is_told_and_tried_again(
    host_node: HostNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for a disk: the kernel's files say `freezing` for as long."""
    monkeypatch.setattr(apply, "_FREEZE_DEADLINE", 0.01)
    host_node.add_container("demo", SPEC)
    group = host_node.folder / "cgroup" / "demo"
    group.mkdir()
    (group / "cgroup.freeze").write_text("0")
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    async with running(host_node) as containers:
        await containers.wait("demo", 10)
        await containers.set_paused("demo", True)
        await until(containers, lambda one: "still waits for a disk" in one.why)
        (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
        await until(containers, lambda one: one.state == "paused")


def limits_group(node: HostNode, name: str) -> Path:
    """A cgroup's files."""
    group = node.folder / "cgroup" / name
    group.mkdir()
    for file in (*limits_of(SPEC.limits), "memory.current", "memory.stat"):
        (group / file).write_text("")
    (group / "memory.current").write_text("0")
    return group


async def test_a_container_that_runs_goes_on_with_other_limits(host_node: HostNode) -> None:
    """The kernel's files are there, without their effect: the kernel here may have given the controllers away."""
    record = host_node.add_container("demo", SPEC)
    group = limits_group(host_node, "demo")
    (group / "memory.current").write_text(str(50 << 20))
    (group / "memory.stat").write_text(f"anon {30 << 20}\nactive_file {2 << 20}\ninactive_file {10 << 20}\n")
    async with running(host_node) as containers:
        await containers.wait("demo", 10)
        limits = Limits(memory_mib=32, storage_mib=64, cpus=0.5)
        assert (await containers.set_limits("demo", limits)).spec.limits == limits
        found = await containers.wait("demo", 10)
        assert (found.state, found.pid) == ("running", record.pid)
        assert (group / "memory.max").read_text() == str(96 << 20)
        assert (group / "cpu.max").read_text() == "50000 100000"
        known = observe_record(host_node.folder / "containers" / "demo")
        assert known
        assert known.spec.limits == limits
        (group / "memory.current").write_text(str(90 << 20))
        for wish in (
            containers.set_limits("demo", Limits(memory_mib=4)),
            containers.put("demo", msgspec.structs.replace(SPEC, limits=Limits(memory_mib=4))),
        ):
            with pytest.raises(RefusedError, match="it uses 78 MiB now") as refused:
                await wish
            assert refused.value.refusal.pointer.endswith("/memory_mib")
        assert containers.get("demo").spec.limits == limits


@pytest.mark.root
async def test_the_size_of_its_files_changes_while_it_runs_and_not_below_what_it_has(
    host_node: HostNode, files: Files
) -> None:
    record = host_node.add_container("demo", SPEC, work=files.work)
    limits_group(host_node, "demo")
    async with running(host_node) as containers:
        await containers.wait("demo", 10)
        for size in (128, 16):
            await containers.set_limits("demo", Limits(storage_mib=size))
            found = await containers.wait("demo", 10)
            assert (found.state, found.pid) == ("running", record.pid), found.why
            assert files.size == size << 20
            assert (host_node.folder / "cgroup/demo/memory.max").read_text() == str((128 + size) << 20)
        files.write(5)
        less = Limits(storage_mib=4)
        for wish, pointer in (
            (containers.set_limits("demo", less), "/storage_mib"),
            (containers.put("demo", msgspec.structs.replace(SPEC, limits=less)), "/limits/storage_mib"),
        ):
            with pytest.raises(RefusedError, match="4 MiB of files: it has 5 MiB now") as refused:
                await wish
            assert (refused.value.refusal.status, refused.value.refusal.pointer) == (409, pointer)
        assert files.size == 16 << 20


async def test_a_container_that_has_let_go_of_its_files_keeps_their_size_while_it_runs(
    host_node: HostNode,
) -> None:
    host_node.add_container("demo", SPEC)
    limits = msgspec.structs.replace(SPEC.limits, storage_mib=4096)
    async with running(host_node) as containers:
        await containers.wait("demo", 10)
        with pytest.raises(RefusedError, match="its first process does not hold them") as refused:
            await containers.set_limits("demo", limits)
        assert refused.value.refusal.pointer == "/storage_mib"
        await containers.set_running("demo", False)
        await until(containers, lambda one: one.state == "stopped")
        assert (await containers.set_limits("demo", limits)).spec.limits == limits


async def test_who_waits_for_an_end_is_told_of_a_removal_and_of_the_time(host_node: HostNode) -> None:
    host_node.add_container("demo", SPEC)
    async with running(host_node) as containers:
        assert (await containers.wait_end("demo", 0.01)).state == "running"
        waiting = asyncio.create_task(containers.wait_end("demo", 20))
        await containers.delete("demo")
        with pytest.raises(RefusedError, match="cannot find container 'demo'"):
            await waiting
        with pytest.raises(RefusedError, match="cannot find container 'demo'"):
            containers.stats("demo")


async def test_removing_a_container_that_runs_stops_it_first(host_node: HostNode) -> None:
    record = host_node.add_container("demo", SPEC)
    async with running(host_node) as containers:
        await containers.delete("demo")
        await gone(containers)
        assert not is_alive(record)
        with pytest.raises(RefusedError, match="cannot find container 'demo'"):
            containers.get("demo")


@pytest.mark.parametrize(
    ("policy", "status", "state", "why"),
    [
        pytest.param("never", 0, "stopped", "it ended: exit code 0", id="never, in order"),
        pytest.param("never", 0x300, "failed", "it ended: exit code 3", id="never, failed"),
        pytest.param("on-failure", 0, "stopped", "it ended: exit code 0", id="on failure, in order"),
        pytest.param("on-failure", 9, "failed", "it ended: killed by signal 9", id="on failure, killed"),
        pytest.param("always", 0, "failed", "it ended: exit code 0", id="always"),
    ],
)
async def test_an_end_of_its_own_is_told_with_its_cause(
    host_node: HostNode, policy: str, status: int, state: str, why: str
) -> None:
    record = host_node.add_container("demo", msgspec.structs.replace(SPEC, restart=policy))
    write_exit(host_node, record, status)
    async with running(host_node) as containers:
        await containers.wait("demo", 10)
        os.kill(record.pid, signal.SIGKILL)
        found = await containers.wait_end("demo", 20)
        assert why in found.why
        assert found.state == state
        assert found.exit == (Exit(signal=9) if status == 9 else Exit(code=status >> 8))


async def test_a_wish_while_the_cause_of_an_end_is_looked_for_is_kept(
    host_node: HostNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, look = asyncio.Event(), asyncio.Event()

    async def exit_of(_: Record) -> Exit:
        looking.set()
        await look.wait()
        return Exit(code=0)

    monkeypatch.setattr(manager, "_exit_of", exit_of)
    record = host_node.add_container("demo", msgspec.structs.replace(SPEC, restart="never"))
    async with running(host_node) as containers:
        await containers.wait("demo", 10)
        os.kill(record.pid, signal.SIGKILL)
        await looking.wait()
        await containers.delete("demo")
        look.set()
        await gone(containers)


async def test_a_slow_pull_ends_with_the_wish_for_it(
    host_node: HostNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(host_node) as containers:

        async def pull(_: str) -> None:
            await asyncio.sleep(600)

        monkeypatch.setattr(containers._world.store, "pull", pull)
        await containers.put("demo", SPEC)
        await until(containers, lambda one: one.state == "pulling")
        await containers.set_running("demo", False)
        await until(containers, lambda one: one.state == "stopped")
        await containers.set_running("demo", True)
        await until(containers, lambda one: one.state == "pulling")
        await containers.delete("demo")
        await gone(containers)


async def test_what_cannot_be_pulled_is_tried_again_later_and_later(host_node: HostNode) -> None:
    async with running(host_node) as containers:
        await containers.put("demo", SPEC)
        await until(containers, lambda one: "trying again in 0.5 s" in one.why)
        failed = await until(containers, lambda one: "trying again in 1.0 s" in one.why)
        assert failed.state == "failed"


async def test_a_container_that_fails_for_days_is_still_tried(host_node: HostNode) -> None:
    async with running(host_node) as containers:
        await containers.put("demo", SPEC)
        containers._lives["demo"].failures = 100_000
        await until(containers, lambda one: "trying again in 60.0 s" in one.why)


async def test_numbers_of_containers_that_live_are_not_given_to_others(host_node: HostNode) -> None:
    host_node.add_container("second", SPEC, number=1)
    host_node.wanted["first"] = Wanted(SPEC, run=False)
    (host_node.folder / "containers" / "empty").mkdir()
    async with running(host_node) as containers:
        assert {name: life.number for name, life in containers._lives.items()} == {"second": 1, "first": 2}
    assert not (host_node.folder / "containers" / "empty").exists()


async def test_what_is_wanted_is_begun_again_after_a_reboot_and_what_was_deleted_is_not(
    host_node: HostNode,
) -> None:
    async with running(host_node) as containers:
        await containers.put("demo", SPEC)
        await containers.put("rests", SPEC)
        await containers.set_running("rests", False)
        await containers.put("former", SPEC)
        await containers.delete("former")
    shutil.rmtree(host_node.folder / "containers")  # it is in memory
    (host_node.folder / "containers").mkdir()
    async with running(host_node) as containers:
        assert [one.name for one in containers.list()] == ["demo", "rests"]
        await until(containers, lambda one: one.state in ("pulling", "failed"))
        assert containers.get("rests").spec == SPEC
        await until(containers, lambda one: one.state == "stopped", "rests")


async def test_wishes_at_the_same_moment_do_not_get_the_same_port(host_node: HostNode) -> None:
    spec = msgspec.structs.replace(SPEC, ports=(PublishedPort(node=8080, container=80),))
    async with running(host_node) as containers:
        wishes = (containers.put(name, spec) for name in ("one", "two"))
        first, second = await asyncio.gather(*wishes, return_exceptions=True)
        assert isinstance(first, Container)
        assert isinstance(second, RefusedError)
        assert "container one has it" in str(second)


async def test_what_a_container_had_is_free_once_it_wants_it_no_more_or_is_gone(host_node: HostNode) -> None:
    ports = (PublishedPort(node=8080, container=80), PublishedPort(node=53, container=53, protocol="udp"))
    has = msgspec.structs.replace(SPEC, ports=ports, ipv4="10.88.0.9")
    async with running(host_node) as containers:
        await containers.put("one", has)
        assert containers.port_owner(53) == "container one"
        for wanted, pointer in (
            (msgspec.structs.replace(SPEC, ports=ports[:1]), "/ports/0/node"),
            (msgspec.structs.replace(SPEC, ipv4="10.88.0.9"), "/ipv4"),
        ):
            with pytest.raises(RefusedError, match="container one has it") as refused:
                await containers.put("two", wanted)
            assert refused.value.refusal.pointer == pointer
        await containers.put("one", msgspec.structs.replace(SPEC, ipv4="10.88.0.10"))
        await containers.put("two", has)
        assert containers.port_owner(53) == "container two"
        await containers.delete("two")
        await until(containers, lambda one: len(containers.list()) == 1, "one")
        assert containers.port_owner(53) == ""
        await containers.put("three", has)
        assert containers.hosts_of("default")["three"] == 9
        twice = msgspec.structs.replace(SPEC, ports=(ports[1], ports[1]))
        with pytest.raises(RefusedError, match="an earlier entry of this container has it") as refused:
            await containers.put("three", twice)
        assert refused.value.refusal.pointer == "/ports/1/node"


async def test_an_address_of_its_own_is_kept_from_others_and_refused_if_one_has_it(
    host_node: HostNode,
) -> None:
    async with running(host_node) as containers:
        await containers.put("one", msgspec.structs.replace(SPEC, ipv4="10.88.0.2"))
        other = await containers.put("other", SPEC)
        hosts = containers.hosts_of("default")
        assert hosts == {"one": 2, other.name: 3}
        with pytest.raises(RefusedError, match=r"10\.88\.0\.2: container one has it") as refused:
            await containers.put("two", msgspec.structs.replace(SPEC, ipv4="10.88.0.2"))
        assert (refused.value.refusal.status, refused.value.refusal.pointer) == (409, "/ipv4")
        await containers.put("other", msgspec.structs.replace(SPEC, ipv4="10.88.1.9"))
        assert containers.hosts_of("default")["other"] == 265
        for wanted, pointer in (("192.168.1.1", "/ipv4"), ("10.88.0.1", "/ipv4"), ("fe80::7", "/ipv6")):
            with pytest.raises(RefusedError) as refused:
                await containers.put("two", msgspec.structs.replace(SPEC, **{pointer[1:]: wanted}))
            assert (refused.value.refusal.status, refused.value.refusal.pointer) == (422, pointer)
        assert [one.name for one in containers.list()] == ["one", "other"]


async def test_a_container_that_does_not_run_is_renamed_with_all_that_it_has(host_node: HostNode) -> None:
    host_node.keeps_identity = True
    async with running(host_node) as containers:
        await containers.put("demo", msgspec.structs.replace(SPEC, ipv4="10.88.0.9"))
        with pytest.raises(RefusedError, match="cannot rename container demo: it is"):
            await containers.rename("demo", "shop")
        await containers.set_running("demo", False)
        await until(containers, lambda one: one.state == "stopped")
        found = await containers.rename("demo", "shop")
        assert (found.name, found.spec.ipv4) == ("shop", "10.88.0.9")
        stopped = await until(containers, lambda one: one.state == "stopped", "shop")
        assert stopped.why == "it was stopped as asked"
        assert [one.name for one in containers.list()] == ["shop"]
        assert containers.hosts_of("default") == {"shop": 9}
        assert [folder.name for folder in (host_node.folder / "containers").iterdir()] == ["shop"]
        await containers.put("other", msgspec.structs.replace(SPEC, after={"shop": "running"}))
        for new, told in (("other", "there is one of that name"), ("next", "other begins after it")):
            with pytest.raises(RefusedError, match=told) as refused:
                await containers.rename("shop", new)
            assert refused.value.refusal.status == 409
        with pytest.raises(RefusedError, match="there is none"):
            await containers.rename("demo", "next")
        await containers.delete("other")
        await until(containers, lambda one: len(containers.list()) == 1, "shop")
        assert (await containers.rename("shop", "shop")).name == "shop"
    async with running(host_node) as containers:
        assert [one.name for one in containers.list()] == ["shop"], "also for the next node daemon"


async def test_only_a_container_that_runs_has_files_to_export(host_node: HostNode) -> None:
    host_node.add_container("demo", SPEC)
    async with host_node.daemon() as state:
        await state.containers.wait("demo", 10)
        await state.containers.set_running("demo", False)
        await until(state.containers, lambda one: one.state == "stopped")
        with pytest.raises(RefusedError, match="it is stopped, and its files end with it"):
            state.containers.export("demo", 0, state.operations)
        with pytest.raises(RefusedError, match="cannot find container 'gone'"):
            state.containers.export("gone", 0, state.operations)


async def test_what_cannot_be_committed_is_refused_before_anything_is_halted(host_node: HostNode) -> None:
    host_node.add_container("demo", SPEC)
    async with host_node.daemon() as state:
        containers, operations = state.containers, state.operations
        await containers.wait("demo", 10)
        cases = [
            ("demo", "http://127.0.0.1:9/shop", 422, "is no name"),
            ("demo", "..", 422, "is no name"),
            ("gone", "shop", 404, "there is none"),
            ("demo", "shop", 409, "its image is not here any more"),
        ]
        for name, reference, status, told in cases:
            with pytest.raises(RefusedError, match=told) as refused:
                containers.commit(name, reference, operations)
            assert refused.value.refusal.status == status
        containers._lives["demo"].held = True
        with pytest.raises(RefusedError, match="it is being committed"):
            containers.commit("demo", "shop", operations)
        assert operations.list() == ()


async def test_containers_begin_by_their_priority_after_a_reboot(host_node: HostNode) -> None:
    for name, priority in (("early", 10), ("late", -10), ("usual", 0)):
        host_node.wanted[name] = Wanted(msgspec.structs.replace(SPEC, priority=priority), run=False)
    async with running(host_node) as containers:
        assert list(containers._lives) == ["early", "usual", "late"]


@pytest.mark.parametrize(
    ("section", "value"),
    [
        pytest.param("container/demo", b'{"spec": {"image": "x", "of": "the future"}}', id="of the future"),
        pytest.param("container/../../etc", msgspec.json.encode(Wanted(SPEC)), id="a name that climbs"),
    ],
)
async def test_what_this_image_does_not_understand_is_told_and_kept(
    host_node: HostNode, section: str, value: bytes
) -> None:
    async with running(host_node) as containers:
        await containers._keep.put(section, value)
    async with host_node.daemon() as state:
        assert state.containers.list() == ()
        (said,) = [
            one.message for one in (await state.events.wait_after(0, 0)).events if one.kind == "container"
        ]
        assert "this image does not understand what is wanted" in said
        assert state.remembered.store.get(section) == value


async def test_what_cannot_be_remembered_is_not_acknowledged(
    host_node: HostNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(host_node) as containers:

        async def change(values: Mapping[str, bytes | None]) -> None:
            raise RefusedError(Refusal(503, "unavailable", "cannot remember it: no disk is left"))

        monkeypatch.setattr(containers._keep, "change", change)
        with pytest.raises(RefusedError, match="no disk is left"):
            await containers.put("demo", SPEC)
        assert containers.list() == ()


async def test_its_core_x_has_one_port_and_certificate_as_long_as_a_container_is_wanted(
    host_node: HostNode,
) -> None:
    host_node.wanted["old"] = Wanted(SPEC, run=False)  # as an earlier image remembered it

    async def shown(containers: Containers, *names: str) -> list[Identity]:
        return [await containers._identify(name, containers._lives[name].number) for name in names]

    async with running(host_node) as containers:
        for name in ("first", "demo"):
            await containers.put(name, SPEC)
        before = await shown(containers, "demo", "old")
        assert [one.number for one in before] == [3, 1]
        assert before[0].key != before[1].key
        await containers.put("demo", msgspec.structs.replace(SPEC, hostname="other"))
        await containers.delete("first")
        for name in ("demo", "old"):
            await containers.set_running(name, False)
            await until(containers, lambda one: one.state == "stopped", name)
        await until(containers, lambda _: len(containers.list()) == 2)
    async with running(host_node) as containers:
        assert await shown(containers, "demo", "old") == before
        await containers.rename("demo", "shop")
        assert await shown(containers, "shop") == before[:1]
        assert containers._keep.names("core-x/") == ("core-x/old", "core-x/shop")
        await containers.delete("shop")
        await containers.delete("old")
        await gone(containers)
        assert containers._keep.names("core-x/") == ()
        await containers.put("shop", SPEC)
        (reborn,) = await shown(containers, "shop")
        assert reborn.key != before[0].key


async def test_a_port_is_of_one_container_and_who_a_container_was_that_is_gone_is_forgotten(
    host_node: HostNode,
) -> None:
    host_node.wanted |= {name: Wanted(SPEC, run=False) for name in ("a", "b", "c")}
    same = msgspec.json.encode(Identity(7, "certificate", "key", "ab" * 32))
    beyond = msgspec.json.encode(Identity(10**6, "certificate", "key", "ab" * 32))
    async with running(host_node) as containers:
        changes = {"core-x/a": same, "core-x/b": same, "core-x/c": beyond, "core-x/gone": same}
        await containers._keep.change(changes)
    async with running(host_node) as containers:
        assert {name: life.number for name, life in containers._lives.items()} == {"a": 7, "b": 1, "c": 2}
        other = await containers._identify("b", 1)
        assert (other.number, other.key) == (1, "key")
        async with asyncio.timeout(20):
            while containers._keep.get("core-x/gone"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_another_image_by_the_same_name_is_told(host_node: HostNode) -> None:
    async with host_node.daemon() as state:
        await state.containers.put("demo", SPEC)
        for digest in ("sha256:1", "sha256:1", "sha256:2"):
            await state.containers._note_image(SPEC.image, digest)
        said = [one.message for one in (await state.events.wait_after(0, 0)).events if one.kind == "image"]
        assert [text for text in said if "it was sha256:1, it is sha256:2" in text] == said[-1:]
        assert msgspec.json.decode(state.remembered.store.get("images") or b"") == {SPEC.image: "sha256:2"}


async def test_what_cannot_be_removed_is_tried_again_after_a_pause(
    host_node: HostNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    async def remove(*_: object) -> None:
        nonlocal tried
        tried += 1
        raise OSError("cannot delete link zc1: device or resource busy")

    monkeypatch.setattr(apply, "remove", remove)
    record = host_node.add_container("demo", SPEC)
    write_exit(host_node, record, 0)
    async with running(host_node) as containers:
        await containers.wait("demo", 10)
        os.kill(record.pid, signal.SIGKILL)
        await until(containers, lambda one: "device or resource busy" in one.why)
        await asyncio.sleep(0.4)
        assert tried <= 2


async def test_a_removal_that_outlasts_the_pause_does_not_end_the_tries(
    host_node: HostNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = apply.remove

    async def slowly(world: apply.World, name: str, record: Record) -> None:
        await asyncio.sleep(manager._FIRST_DELAY + 0.1)
        await remove(world, name, record)

    monkeypatch.setattr(apply, "remove", slowly)
    record = host_node.add_container("demo", SPEC)
    write_exit(host_node, record, 9)
    async with running(host_node) as containers:
        await containers.wait("demo", 10)
        os.kill(record.pid, signal.SIGKILL)
        await until(containers, lambda one: "killed by signal 9; trying again in 0.5 s" in one.why)
        await until(containers, lambda one: "trying again in 1.0 s" in one.why)


def test_a_record_whose_number_is_another_process_s_by_now_is_not_alive(host_node: HostNode) -> None:
    record = host_node.add_container("demo", SPEC)
    assert is_alive(record)
    stranger = msgspec.structs.replace(record, pid=os.getpid())
    never = msgspec.structs.replace(record, pid=2**22, started=0)
    assert not is_alive(stranger)
    assert not is_alive(never)
    assert apply.open_pidfd(stranger) is None
    assert apply.open_pidfd(never) is None


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    apply.write_whole(tmp_path / "record.json", Wanted(SPEC))
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
