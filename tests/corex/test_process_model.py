"""Kinds, order, readiness, scope and settings of processes by a real Core-X, seen from outside."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corex.client.client import RefusedError
from corex.wire.api import ExecRequest, Exit
from corex.wire.plan import CheckLayer, Layer, ProcessLayer
from corex.wire.process import Backoff, CheckSpec, ProcessSpec, Readiness, Schedule
from tests.corex.conftest import children, eventually

pytestmark = pytest.mark.root

Start = Callable[..., Awaitable[Any]]
Script = Callable[..., ProcessSpec]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def python(script: str, **fields: Any) -> ProcessSpec:
    return ProcessSpec((sys.executable, "-S", "-E", "-u", "-c", script), env={"PATH": "/bin"}, **fields)


async def started(core: Any, name: str, spec: ProcessSpec, wait: float = 10) -> Any:
    await core.client.put(name, spec)
    return await core.client.start(name, wait)


# What a child gets.


async def test_a_child_gets_its_groups_umask_and_limits(core: Any, sh: Script) -> None:
    await started(
        core,
        "a",
        sh(
            "id; umask; ulimit -Sn; ulimit -Hn; ulimit -Sc; sleep 100",
            user="web",
            groups=("29", "web", "4711"),
            umask="027",
            limits={"nofile": (64, 128), "core": (0, 0)},
        ),
    )
    lines = await core.output("a", 5)
    assert lines == [
        "uid=1000(web) gid=1001(web) groups=29(audio),1001(web),4711",
        "0027",
        "64",
        "128",
        "0",
    ]
    assert core.imported_late() == []


@pytest.mark.parametrize(
    "fields", [{"umask": "0077"}, {"groups": ()}, {"nice": 1}, {"limits": {"nofile": (9, 9)}}], ids=str
)
async def test_a_child_that_gets_something_special_gets_everything_else_as_usual(
    start: Start, fields: dict[str, Any]
) -> None:
    container = await start()
    script = "cat /proc/self/status /proc/self/stat; ls -l /proc/self/fd; exit 3"
    await container.client.put(
        "a", ProcessSpec(("sh", "-c", script), env={"PATH": "/bin:/usr/bin"}, cwd="/tmp", **fields)
    )
    await container.client.start("a")
    assert (await container.until("a", "failed")).exit == Exit(code=3)
    text = [one.text for one in (await container.client.logs("a")).records]
    status = dict(line.split(":\t", 1) for line in text if ":\t" in line)
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & ~(1 << 31 | 1 << 32) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["Groups"].split() == []
    stat = next(line for line in text if " (cat) " in line).rpartition(") ")[2].split()
    assert int(stat[19 - 3]) == fields.get("nice", 0), "proc(5)"
    descriptors = [line.split()[8:] for line in text if " -> " in line]
    assert [line[0] for line in descriptors] == ["0", "1", "2", "3"]
    assert all(line[2].startswith("pipe:") for line in descriptors[:3])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"nice": -5}, "it cannot get its nice: Permission denied"),
        ({"limits": {"nofile": (2**40, 2**40)}}, "it cannot get its limit nofile: Operation not permitted"),
        ({"groups": ("nope",)}, "group 'nope' is not in the container's /etc/group"),
        ({"groups": (str(2**32 - 1),)}, "is not in the container's /etc/group"),
        ({"nice": 1, "argv": ("/bin/nope",)}, "or its interpreter is not in the container"),
        ({"nice": 1, "argv": ("nope",), "env": {"PATH": "/x:/bin"}}, "is in no folder of PATH (/x:/bin)"),
        ({"nice": 1, "argv": ("/bin/data",)}, "Permission denied"),
        ({"nice": 1, "argv": ("sh", "x" * 200_000)}, "Argument list too long"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_child_that_cannot_get_something_says_what(
    core: Any, fields: dict[str, Any], reason: str
) -> None:
    info = await started(core, "a", ProcessSpec(**{"argv": ("id",), **fields}))
    assert info.state == "failed"
    assert reason in info.why
    await eventually(lambda: children(core.pid) == [])


async def test_as_many_settings_as_one_likes_do_not_let_a_child_be_core_x(core: Any, sh: Script) -> None:
    """A fork that could not become its program must end at once, and take no descriptor of Core-X's along."""
    for number in range(20):
        await started(core, f"a{number}", ProcessSpec(("nope",), nice=1))
    await eventually(lambda: children(core.pid) == [])
    assert (await core.client.system()).processes == 20


# Order and readiness.


async def test_a_line_tells_that_a_process_is_ready(core: Any, sh: Script) -> None:
    ready = Readiness(line=r"^listening on \d+$")
    await core.client.put(
        "db", sh("echo listening; sleep 0.3; echo listening on 5432; sleep 100", ready=ready)
    )
    await core.client.put("web", sh("sleep 100", after={"db": "ready"}))
    info = await core.client.start("web")
    assert (info.state, info.wanted) == ("waiting", "running")
    assert info.why in (
        "it starts once db is ready, which is starting",
        "it starts once db is ready, which is running",
    )
    await core.until("web", "running")
    db = await core.client.process("db")
    assert (db.state, db.why) == ("ready", "it is ready: it wrote the line that says so")


async def test_a_line_in_many_pieces_tells_it_too(core: Any, sh: Script) -> None:
    script = "printf lis; sleep 0.1; printf 'ten\\nxlisten'; sleep 0.1; echo; sleep 100"
    info = await started(core, "a", sh(script, ready=Readiness(line="^xlisten$")))
    assert info.state == "ready", "a start waits for that"
    assert info.health is None


@pytest.mark.parametrize("path", [None, "/index.html"])
async def test_a_port_tells_that_a_process_is_ready(core: Any, busybox_root: Path, path: str | None) -> None:
    (busybox_root / "tmp/index.html").write_text("x")
    port = free_port()
    script = f"sleep 0.3; exec httpd -f -p 127.0.0.1:{port} -h /tmp"
    ready = Readiness(port=port, path=path, interval=0.05)
    await started(core, "a", ProcessSpec(("sh", "-c", script), ready=ready))
    info = await core.until("a", "ready")
    assert info.why == f"it is ready: port {port} {'answers' if path else 'takes connections'}"
    assert core.imported_late() == []


async def test_a_command_tells_that_a_process_is_ready(core: Any, sh: Script, busybox_root: Path) -> None:
    (busybox_root / "tmp/ready").unlink(missing_ok=True)
    ready = Readiness(argv=("test", "-e", "/tmp/ready"), interval=0.05)
    await started(core, "a", sh("sleep 0.3; echo > /tmp/ready; sleep 100", ready=ready))
    assert (await core.until("a", "ready")).why == "it is ready: its command succeeded"


async def test_who_is_not_ready_in_time_is_restarted(core: Any, sh: Script) -> None:
    ready = Readiness(port=free_port(), timeout=0.3, interval=0.05)
    await started(core, "a", sh("sleep 100", ready=ready, restart="always", backoff=Backoff(first=60)))
    info = await core.until("a", "backoff")
    assert info.why.startswith("it was not ready within 0.3 s, and was ended by SIGTERM; the next start")


NOTIFY = """
import os, socket, struct, sys, time
def say(text, *descriptors):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
        end.sendmsg([text], extra if descriptors else [], 0, "\\0" + os.environ["NOTIFY_SOCKET"][1:])
"""


async def test_a_process_tells_that_it_is_ready(start: Start) -> None:
    container = await start()
    script = NOTIFY + "say(b'STATUS=warm\\nREADY=1'); time.sleep(100)"
    await started(container, "a", python(script, ready=Readiness(notify=True)))
    info = await container.until("a", "ready")
    assert (info.status, info.why) == ("warm", "it is ready: it said so")
    assert container.imported_late() == []


async def test_a_child_that_waits_for_the_barrier_may_tell_it(start: Start) -> None:
    container = await start()
    child = "r, w = os.pipe(); say(b'READY=1'); say(b'BARRIER=1', w); os.close(w); os.read(r, 1); os._exit(0)"
    fork = f"pid = os.fork()\nif not pid:\n    os.setsid(); {child}\n"
    script = NOTIFY + fork + "os.waitpid(pid, 0); print('told'); time.sleep(100)"
    await started(container, "a", python(script, ready=Readiness(notify=True)))
    assert await container.output("a", 1) == ["told"]
    assert (await container.until("a", "ready")).status == ""


async def test_what_strangers_tell_does_not_count(start: Start) -> None:
    container = await start()
    ready = Readiness(notify=True)
    env = "print(os.environ['NOTIFY_SOCKET'])"
    await started(
        container, "a", python(NOTIFY + f"{env}; sys.stdin.read(); time.sleep(100)", ready=ready), 0
    )
    (address,) = await container.output("a", 1)
    stranger = (
        NOTIFY.replace('os.environ["NOTIFY_SOCKET"]', repr(address))
        + "say(b'STATUS=x\\nREADY=1'); time.sleep(100)"
    )
    await started(container, "b", python(stranger))
    result = await container.client.execute(
        ExecRequest((sys.executable, "-S", "-c", stranger.replace("time.sleep(100)", "say(b'BARRIER=1')")))
    )
    assert result.exit == Exit(code=0)
    info = await container.client.process("a")
    assert (info.state, info.status) == ("running", "")


async def test_a_flood_of_messages_keeps_nobody_waiting(start: Start) -> None:
    container = await start()
    script = (
        NOTIFY
        + "print('up')\nwhile True: say(b'STATUS=' + b'x' * 5000 + b'\\nREADY=1'); say(b'=\\n\\0\\xff=')"
    )
    await started(container, "a", python(script, ready=Readiness(notify=True)), 0)
    await container.output("a", 1)
    for _ in range(10):
        assert (await container.client.process("a")).state == "running", "too long a message is none"


# Scope.


TREE = "setsid sh -c 'setsid sleep 1000 & echo up; exec sleep 1000' & sleep 1000 & exec sleep 1000"


async def test_a_tree_ends_as_a_whole_by_its_cgroup(
    start: Start, sh: Script, busybox_root: Path, cgroup: Path
) -> None:
    container = await start(busybox_root, group=cgroup)
    await started(container, "a", sh(TREE, scope="tree"))
    await container.output("a", 1)
    own = cgroup / "process-a/cgroup.procs"
    await eventually(lambda: len(own.read_text().split()) == 4)
    assert str(container.pid) in (cgroup / "core-x/cgroup.procs").read_text().split()
    info = await container.client.process("a")
    assert info.usage.tasks == 4
    assert info.usage.cpu_seconds >= 0
    assert (await container.client.stop("a", 10)).state == "stopped"
    await eventually(lambda: not own.read_text() and not children(container.pid))
    assert (await container.client.start("a", 10)).state == "running"
    await container.client.stop("a", 10)
    await eventually(lambda: not own.read_text())
    await container.client.delete("a")
    assert not (cgroup / "process-a").exists()
    assert container.imported_late() == []


async def test_the_end_of_a_tree_s_leader_ends_the_rest(
    start: Start, sh: Script, busybox_root: Path, cgroup: Path
) -> None:
    container = await start(busybox_root, group=cgroup)
    await started(container, "a", sh("setsid sleep 1000 & exit 4", scope="tree"))
    assert (await container.until("a", "failed")).exit == Exit(code=4)
    await eventually(lambda: not ((cgroup / "process-a/cgroup.procs").read_text()))


async def test_a_tree_without_a_cgroup_is_its_session_and_descendants(core: Any, sh: Script) -> None:
    """What left the session and lost its parent is known to nobody: it goes on, as the page says."""
    await started(core, "a", sh("setsid sh -c 'echo up; sleep 1000; :' & sleep 1000 & wait", scope="tree"))
    await core.output("a", 1)
    await eventually(lambda: not (len(children(core.pid)) + len(children(children(core.pid)[0])) < 3))
    assert (await core.client.stop("a", 10)).state == "stopped"
    await eventually(lambda: not (children(core.pid)))


async def test_with_scope_process_the_rest_goes_on(core: Any, sh: Script) -> None:
    script = "trap 'exit 0' TERM; sh -c 'trap \"echo hit\" TERM; while :; do sleep 0.1; done' & echo up; wait"
    await started(core, "a", sh(script, scope="process"))
    await core.output("a", 1)
    assert (await core.client.stop("a", 10)).state == "stopped"
    (survivor,) = children(core.pid)
    assert [one.text for one in (await core.client.logs("a")).records] == ["up"]
    os.kill(survivor, signal.SIGKILL)


# Schedules.


async def test_a_scheduled_process_runs_again_and_again(start: Start, busybox_root: Path, sh: Script) -> None:
    every = Schedule(every=1)
    container = await start(
        busybox_root, tick=sh("echo tick", kind="scheduled", schedule=every), keep=sh("sleep 100")
    )
    assert await container.output("tick", 2) == ["tick", "tick"]
    info = await container.until("tick", "scheduled")
    assert info.next_start is not None
    assert info.last_start is not None
    assert info.next_start - info.last_start == pytest.approx(1, abs=0.001)
    assert container.imported_late() == []


@pytest.fixture
def zones(busybox_root: Path) -> Iterator[Path]:
    """The container's time zones, of the area Etc."""
    made = busybox_root / "usr/share/zoneinfo/Etc"
    made.mkdir(parents=True)
    yield made
    shutil.rmtree(busybox_root / "usr")


async def test_a_schedule_is_of_the_zone_that_the_container_knows(core: Any, sh: Script, zones: Path) -> None:
    # RFC 9636: a header without transitions, one type at +05:45, and the footer
    head = b"TZif2" + bytes(15) + b"".join(n.to_bytes(4, "big") for n in (0, 0, 0, 0, 1, 4))
    block = (20700).to_bytes(4, "big") + bytes(2) + b"NPT\0"
    (zones / "Here").write_bytes((head + block) * 2 + b"\nNPT-5:45\n")
    (zones / "Broken").write_bytes(b"TZif")
    noon = Schedule(cron="0 12 * * *", zone="Etc/Here")
    await core.client.put("a", sh("echo", kind="scheduled", schedule=noon))
    await core.client.start("a")
    async with asyncio.timeout(10):
        while (info := await core.client.process("a")).next_start is None:
            await core.client.events(after=10**6, wait=0.01)
    assert info.next_start % 86400 == 12 * 3600 - 20700
    for zone, reason in (("Etc/Broken", "is no time zone: "), ("Etc/Not", "is not in the container's ")):
        broken = Schedule(cron="0 12 * * *", zone=zone)
        await core.client.put("b", sh("echo", kind="scheduled", schedule=broken))
        await core.client.start("b")
        assert reason in (await core.until("b", "failed")).why
    assert core.imported_late() == []


# Plans.


def layer(**processes: ProcessLayer) -> Layer:
    return Layer(processes=processes)


SLEEP = ("sleep", "100")


async def test_applying_a_plan_restarts_only_what_changed(core: Any) -> None:
    client = core.client
    three = {name: ProcessLayer(argv=SLEEP) for name in ("a", "b", "c")}
    would = await client.put_layer("base", layer(**three), new=True)
    assert [(one.verb, one.process) for one in would.changes] == [
        ("start", "a"),
        ("start", "b"),
        ("start", "c"),
    ]
    assert await client.processes() == [], "nothing is applied yet"
    await client.apply(etag=would.etag)
    before = {one.name: (await core.until(one.name, "running")).pid for one in await client.processes()}
    await client.stop("c", 10)
    upper = layer(
        a=ProcessLayer(env={"A": "1"}),
        b=ProcessLayer(restart="always"),
        d=ProcessLayer(argv=SLEEP, enabled=False),
    )
    dry = await client.put_layer("upper", upper, dry_run=True)
    assert [(one.verb, one.process, one.fields) for one in dry.changes] == [
        ("restart", "a", ("env",)),
        ("adopt", "b", ("restart",)),
        ("adopt", "d", ()),
    ]
    assert [one.name for one in await client.layers()] == ["base"], "a dry run changes nothing"
    assert await client.put_layer("upper", upper) == dry
    with pytest.raises(RefusedError, match="it is not what If-Match says"):
        await client.apply(etag=would.etag)
    assert (await client.apply(etag=dry.etag, dry_run=True)).changes == dry.changes
    assert (await client.apply(etag=dry.etag)).changes == dry.changes
    await core.until("a", "running")
    after = {one.name: (one.state, one.pid) for one in await client.processes()}
    assert after["a"][1] != before["a"]
    assert (after["b"], after["c"], after["d"]) == (
        ("running", before["b"]),
        ("stopped", None),
        ("stopped", None),
    )
    assert (await client.apply()).changes == []


async def test_what_no_layer_declares_is_stopped_and_forgotten(core: Any) -> None:
    client = core.client
    await client.put_layer("one", layer(a=ProcessLayer(argv=SLEEP), b=ProcessLayer(argv=SLEEP)))
    await client.apply()
    await core.until("b", "running")
    await client.put_layer("one", layer(b=ProcessLayer(argv=SLEEP)))
    assert [(one.verb, one.process) for one in (await client.apply()).changes] == [("stop", "a")]
    async with asyncio.timeout(10):
        while [one.name for one in await client.processes()] != ["b"]:
            await client.events(after=10**6, wait=0.01)
    await client.delete_layer("one")
    await client.apply()
    async with asyncio.timeout(10):
        while await client.processes():
            await client.events(after=10**6, wait=0.01)
    assert children(core.pid) == []


async def test_single_processes_are_the_highest_layer(core: Any) -> None:
    client = core.client
    await client.put("a", ProcessSpec(SLEEP, env={"A": "edit"}))
    await client.put_layer("later", layer(a=ProcessLayer(argv=("id",)), b=ProcessLayer(argv=("id",))))
    assert [one.name for one in await client.layers()] == ["later", "edits"]
    assert (await client.plan()).value.processes["a"].argv == SLEEP
    with pytest.raises(RefusedError, match="layer later declares it"):
        await client.delete("a")
    await client.apply()
    assert (await client.process("a")).spec == ProcessSpec(SLEEP, env={"A": "edit"})


async def test_a_process_says_which_layers_declare_it(core: Any) -> None:
    client = core.client
    await client.put_layer("low", layer(a=ProcessLayer(argv=SLEEP), b=ProcessLayer(argv=SLEEP)))
    await client.put_layer("high", layer(b=ProcessLayer(nice=1)))
    await client.apply()
    await client.put("b", ProcessSpec(SLEEP, nice=2))
    await client.put("c", ProcessSpec(SLEEP))
    assert {one.name: one.layers for one in await client.processes()} == {
        "a": ("low",),
        "b": ("low", "high", "edits"),
        "c": ("edits",),
    }
    await client.delete_layer("low")
    assert (await client.process("b")).layers == ("high", "edits")
    assert (await client.process("a")).layers == (), "it is there until the plan is applied"


async def test_changes_heed_their_preconditions(core: Any) -> None:
    client = core.client
    await client.put("a", ProcessSpec(SLEEP), new=True)
    with pytest.raises(RefusedError, match="it is there already"):
        await client.put("a", ProcessSpec(SLEEP), new=True)
    with pytest.raises(RefusedError, match="it is not what If-Match says") as refused:
        await client.put("a", ProcessSpec(SLEEP), etag='"x"')
    assert refused.value.problem.status == 412
    base = layer(b=ProcessLayer(argv=SLEEP))
    await client.put_layer("base", base)
    etag = (await client.layer("base")).etag
    await client.put_layer("base", layer(b=ProcessLayer(argv=("id",))), etag=etag)
    with pytest.raises(RefusedError, match="it is not what If-Match says"):
        await client.put_layer("base", base, etag=etag)


@pytest.mark.parametrize(
    ("wrong", "pointer", "reason"),
    [
        (layer(a=ProcessLayer()), "/processes/a/argv", "no layer gives argv of a"),
        (layer(a=ProcessLayer(argv=("",))), "/processes/a/argv/0", "it is empty"),
        (
            layer(a=ProcessLayer(argv=SLEEP, after={"b": "ready"})),
            "/processes/a/after/b",
            "a starts after b, and there is none",
        ),
        (
            layer(
                a=ProcessLayer(argv=SLEEP, after={"c": "started"}),
                b=ProcessLayer(argv=SLEEP, after={"a": "ready"}),
                c=ProcessLayer(argv=SLEEP, after={"b": "healthy"}),
            ),
            "/processes/c/after/b",
            "c waits until b is healthy, and it has no check",
        ),
        (
            layer(
                a=ProcessLayer(argv=SLEEP, after={"c": "started"}),
                b=ProcessLayer(argv=SLEEP, after={"a": "ready"}),
                c=ProcessLayer(argv=SLEEP, after={"b": "ready"}),
            ),
            "/processes/a/after/c",
            "a would start after itself: a after c after b after a",
        ),
        (
            Layer(checks={"a": CheckLayer(process="nobody", port=1)}),
            "/checks/a/process",
            "there is no process nobody",
        ),
    ],
)
async def test_what_makes_no_plan_is_refused_and_changes_nothing(
    core: Any, wrong: Layer, pointer: str, reason: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        await core.client.put_layer("base", wrong)
    assert reason in refused.value.problem.detail
    assert (refused.value.problem.pointer, refused.value.problem.status) == (pointer, 422)
    assert await core.client.layers() == []


async def test_a_process_that_would_start_after_itself_is_refused(core: Any) -> None:
    await core.client.put("a", ProcessSpec(SLEEP))
    await core.client.put("b", ProcessSpec(SLEEP, after={"a": "started"}))
    with pytest.raises(RefusedError, match="a would start after itself: a after b after a") as refused:
        await core.client.put("a", ProcessSpec(SLEEP, after={"b": "started"}))
    assert refused.value.problem.pointer == "/after/b"
    with pytest.raises(RefusedError, match="cannot delete a: b starts after a, and there is none"):
        await core.client.delete("a")


# Checks.


async def test_a_check_says_how_its_process_is_and_others_wait_for_it(
    start: Start, sh: Script, busybox_root: Path
) -> None:
    well = busybox_root / "tmp/well"
    well.unlink(missing_ok=True)
    check = CheckSpec(process="db", argv=("test", "-e", "/tmp/well"), interval=0.1, retries=2)
    container = await start(
        busybox_root,
        checks={"db": check},
        web=sh("sleep 100", after={"db": "healthy"}),
        db=sh("sleep 100"),
    )
    await container.until("db", "running")
    assert (await container.client.process("web")).why.startswith("it starts once db is healthy, which is ")
    well.touch()
    await container.until("web", "running")
    assert (await container.client.process("db")).health == "healthy"
    (info,) = await container.client.checks()
    assert (info.name, info.spec, info.state, info.failures) == ("db", check, "healthy", 0)
    well.unlink()
    async with asyncio.timeout(10):
        while (await container.client.check("db")).state != "unhealthy":
            await container.client.events(after=10**6, wait=0.02)
    assert (await container.client.process("db")).state == "running", "nothing follows"


@pytest.mark.parametrize("action", ["restart", "stop-container"])
async def test_a_check_that_fails_has_consequences(
    start: Start, sh: Script, busybox_root: Path, action: Any
) -> None:
    check = CheckSpec(
        process="a", argv=("test", "-e", "/nowhere"), interval=0.1, retries=1, on_failure=action
    )
    container = await start(
        busybox_root, checks={"x": check}, a=sh("sleep 100", restart="always", backoff=Backoff(first=60))
    )
    if action == "stop-container":
        assert await container.exit_code() == 69
        return
    info = await container.until("a", "backoff")
    assert info.why.startswith(
        "check x failed: its command ended with code 1, and was ended by SIGTERM; the next"
    )


# The end of the container.


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 143, 255])
async def test_the_exit_code_is_passed_on(start: Start, sh: Script, busybox_root: Path, code: int) -> None:
    container = await start(busybox_root, main=sh(f"exit {code}"))
    assert await container.exit_code() == code


async def test_signals_are_passed_on_to_the_main_process(
    start: Start, sh: Script, busybox_root: Path
) -> None:
    script = "trap 'echo hup' HUP; trap 'echo usr' USR1; echo up; while :; do sleep 0.05; done 2>&-"
    container = await start(busybox_root, main=sh(script), other=sh(script))
    assert await container.output("main", 1) == ["up"]
    assert await container.output("other", 1) == ["up"]
    container.process.send_signal(signal.SIGHUP)
    assert await container.output("main", 2) == ["up", "hup"]
    container.process.send_signal(signal.SIGUSR1)
    assert await container.output("main", 3) == ["up", "hup", "usr"]
    assert await container.output("other", 1) == ["up"]
    assert len((await container.client.logs("other")).records) == 1


async def test_a_plan_from_creation_ends_with_the_code_that_stops_it(
    start: Start, sh: Script, busybox_root: Path
) -> None:
    container = await start(
        busybox_root,
        main=sh("sleep 100", after={"init": "succeeded"}),
        init=sh("echo once; exit 0", kind="one-shot"),
        watch=sh("sleep 0.3; exit 42", on_failure="stop-container"),
    )
    await container.until("main", "running")
    assert await container.exit_code() == 42


async def test_a_thousand_processes_cost_nothing_at_rest(start: Start, busybox_root: Path) -> None:
    container = await start(busybox_root)
    await container.client.health()
    before = _private(container.pid)
    entry = ProcessLayer(argv=("sleep", "1000"), restart="always")
    await container.client.put_layer("many", layer(**{f"p{number}": entry for number in range(1000)}))
    await container.client.apply()
    async with asyncio.timeout(60):
        while (await container.client.system()).running < 1000:
            await container.client.events(after=10**6, wait=0.1)
    switches = _switches(container.pid)
    grown = _private(container.pid) - before
    assert grown < 25 * 1000, f"{grown} KiB for 1,000 processes"
    await asyncio.sleep(1)
    assert _switches(container.pid) - switches < 30, "who rests does not wake"
    container.process.terminate()
    assert await container.exit_code() == 0


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _switches(pid: int) -> int:
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt"):
                total += int(line.split()[1])
    return total
