"""Core-X as PID 1 of a real pid namespace, its children in a busybox root: what one sees from outside."""

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from corex.client.client import RefusedError
from corex.process.output import MAX_LINE
from corex.process.spawn import Command, SpawnError, spawn_now
from corex.wire.api import ExecRequest, Exit, LogGap, LogLine
from corex.wire.process import ProcessSpec, Readiness
from tests.corex.conftest import children, plain_http

pytestmark = pytest.mark.root

Start = Callable[..., Awaitable[Any]]
Script = Callable[..., ProcessSpec]


def command(script: str, **fields: Any) -> ExecRequest:
    return ExecRequest(("sh", "-c", script), **fields)


# What a child gets.


async def test_a_command_runs_in_the_containers_root_as_the_containers_user(core: Any) -> None:
    script = "id; pwd; ls /; echo error >&2; exit 3"
    result = await core.client.execute(command(script, user="web", cwd="/tmp"))
    assert result.exit == Exit(code=3)
    assert result.stdout.data == (
        "uid=1000(web) gid=1001(web) groups=29(audio)\n/tmp\nbin\ndev\netc\nhome\nproc\nsecret\ntmp\n"
    )
    assert result.stderr.data == "error\n"


@pytest.mark.parametrize(
    ("user", "env", "home"),
    [
        ("0", {}, "/root"),
        ("web", {}, "/home/web"),
        ("1000", {}, "/home/web"),
        ("4711:29", {}, "/"),
        ("web", {"HOME": "/srv"}, "/srv"),
        ("web", {"HOME": ""}, ""),
    ],
)
async def test_a_command_without_a_home_folder_gets_its_users(
    core: Any, user: str, env: dict[str, str], home: str
) -> None:
    result = await core.client.execute(ExecRequest(("/bin/busybox", "env"), env, user=user))
    assert f"HOME={home}\n" in result.stdout.data


async def test_children_live_in_the_containers_root_and_core_x_does_not(
    core: Any, sh: Script, busybox_root: Path
) -> None:
    await core.client.put("a", ProcessSpec(("sleep", "100"), cwd="/tmp"))
    await core.client.start("a", 5)
    (child,) = _children_of(core)
    assert _link(core.pid, "root") == Path("/")
    assert _link(child, "root") == busybox_root
    assert _link(child, "cwd") == busybox_root / "tmp"


@pytest.mark.parametrize("way", ["/proc/self/root", "/proc/self/cwd", "/proc/thread-self/root", "{link}/usr"])
def test_no_working_directory_leads_through_links_of_proc(tmp_path: Path, way: str) -> None:
    link = tmp_path / "link"
    link.symlink_to("/proc/self/root")
    before = Path.cwd()
    with pytest.raises(SpawnError, match=r"its working directory .*: it leads through links of /proc"):
        spawn_now(Command(("true",), {}, way.format(link=link), "0"))
    assert Path.cwd() == before


def _link(pid: int, name: str) -> Path:
    return Path(f"/proc/{pid}/{name}").readlink()


def _children_of(container: Any) -> list[int]:
    lists = Path(f"/proc/{container.pid}/task").glob("*/children")
    return [int(child) for listed in lists for child in listed.read_text().split()]


async def test_a_child_inherits_no_signal_setting_and_no_descriptor(start: Start) -> None:
    container = await start()
    result = await container.client.execute(
        ExecRequest(
            ("/bin/sh", "-c", "cat /proc/self/status; ls /proc/self/fd"), env={"PATH": "/bin:/usr/bin"}
        )
    )
    status = dict(line.split(":\t", 1) for line in result.stdout.data.splitlines() if ":\t" in line)
    assert int(status["SigBlk"], 16) == 0
    # The C library's own two signals: its posix_spawn ignores them in whatever started these tests.
    internal = 1 << 31 | 1 << 32
    assert int(status["SigIgn"], 16) & ~internal == 0
    descriptors = [line for line in result.stdout.data.splitlines() if line.isdigit()]
    assert descriptors == ["0", "1", "2", "3"]  # 3 is the folder that ls reads


async def test_nobody_inside_sets_the_limits_of_core_x(start: Start) -> None:
    container = await start()
    for limits in ((5, 5), (1 << 20, 1 << 20)):
        script = f"import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, {limits})"
        refused = await container.client.execute(ExecRequest((sys.executable, "-S", "-c", script)))
        assert "PermissionError: [Errno 1]" in refused.stderr.data
    script = "import os; print(os.getresuid(), os.getresgid(), os.getgroups())"
    own = await container.client.execute(ExecRequest((sys.executable, "-S", "-c", script)))
    ids = [os.getuid()] * 3, [os.getgid()] * 3, os.getgroups()
    assert own.stdout.data == f"{tuple(ids[0])} {tuple(ids[1])} {ids[2]}\n", (
        "what it starts has its own alone"
    )


async def test_the_environment_is_what_was_asked_for_a_home_folder_and_nothing_else(core: Any) -> None:
    result = await core.client.execute(ExecRequest(("/bin/env",), env={"A": "ä b", "B": ""}))
    assert result.stdout.data == "A=ä b\nB=\nHOME=/root\n"


async def test_a_service_reads_an_empty_standard_input(core: Any, sh: Script) -> None:
    await core.client.put("a", sh("cat; echo done"))
    await core.client.start("a")
    assert await core.output("a", 1) == ["done"]


# How it ends.


async def test_all_exit_codes_are_passed_on(core: Any) -> None:
    async def code_of(code: int) -> int:
        return (await core.client.execute(command(f"exit {code}"))).exit.code

    assert await asyncio.gather(*map(code_of, range(256))) == list(range(256))


async def test_a_death_by_signal_is_named(core: Any) -> None:
    result = await core.client.execute(command("kill -SEGV $$"))
    assert result.exit == Exit(signal="SIGSEGV")


@pytest.mark.parametrize("code", [0, 1, 255, *random.Random(7).sample(range(2, 255), 3)])
async def test_the_container_exits_with_its_only_process(
    start: Start, sh: Script, busybox_root: Path, code: int
) -> None:
    container = await start(busybox_root, main=sh(f"exit {code}"))
    assert await container.exit_code() == code


async def test_a_container_whose_program_is_missing_exits_as_a_shell_would(
    start: Start, busybox_root: Path
) -> None:
    container = await start(busybox_root, main=ProcessSpec(("/missing",)))
    assert await container.exit_code() == 127


async def test_a_container_lives_as_long_as_one_of_its_processes(
    start: Start, sh: Script, busybox_root: Path
) -> None:
    container = await start(busybox_root, main=sh("exit 5"), side=sh("sleep 100"))
    await container.until("main", "failed")
    await container.until("side", "running")
    await container.client.signal("side", "KILL")
    assert await container.exit_code() == 5


async def test_a_container_whose_process_was_stopped_by_request_lives_on(
    start: Start, sh: Script, busybox_root: Path
) -> None:
    container = await start(busybox_root, main=sh("sleep 100"))
    await container.until("main", "running")
    await container.client.stop("main", 10)
    assert (await container.client.start("main", 10)).state == "running"


async def test_sigterm_stops_in_reverse_order_and_keeps_the_main_exit_code(
    start: Start, sh: Script, busybox_root: Path, tmp_path: Path
) -> None:
    order = busybox_root / "tmp/order"
    order.unlink(missing_ok=True)

    def traps(name: str, code: int, **after: str) -> ProcessSpec:
        return sh(
            f"trap 'echo {name} >> /tmp/order; exit {code}' TERM; echo up; while :; do sleep 0.05; done",
            after=after,
        )

    container = await start(
        busybox_root,
        first=traps("first", 9),
        second=traps("second", 0, first="started"),
        third=traps("third", 0, first="ready", second="ready"),
    )
    for name in ("first", "second", "third"):
        assert await container.output(name, 1) == ["up"]
    container.process.terminate()
    assert await container.exit_code() == 9
    assert order.read_text().split() == ["third", "second", "first"]


async def test_followers_get_the_last_line_and_an_orderly_end(
    start: Start, sh: Script, busybox_root: Path
) -> None:
    container = await start(busybox_root, main=sh("echo first; sleep 0.5; echo last"))
    async with asyncio.timeout(20):
        texts = [record.text async for record in container.client.follow("main")]
    assert texts == ["first", "last"]
    assert await container.exit_code() == 0


# Stopping and restarting.


async def test_who_ignores_the_stop_signal_is_killed_in_time(core: Any, sh: Script) -> None:
    await core.client.put("deaf", sh("trap '' TERM; echo up; while :; do sleep 1; done", stop_timeout=0.2))
    await core.client.start("deaf", 5)
    await core.output("deaf", 1)
    info = await core.client.stop("deaf", 10)
    assert (info.state, info.exit) == ("stopped", Exit(signal="SIGKILL"))
    assert "did not end within 0.2 s" in info.why


@pytest.mark.parametrize(
    ("script", "survivors"),
    [
        pytest.param("sleep 1000 & echo up; sleep 1000", 0, id="in its group"),
        pytest.param("setsid sh -c 'echo up; exec sleep 1000' & sleep 1000", 1, id="in its own session"),
    ],
)
async def test_a_grandchild_that_holds_the_pipe_does_not_hang_a_stop(
    core: Any, sh: Script, script: str, survivors: int
) -> None:
    await core.client.put("a", sh(script))
    await core.client.start("a", 5)
    await core.output("a", 1)
    async with asyncio.timeout(5):
        assert (await core.client.stop("a", 10)).state == "stopped"
        await _until_children(core, survivors)
        assert (await core.client.start("a", 10)).state == "running"


async def _until_children(container: Any, number: int) -> None:
    async with asyncio.timeout(10):
        while len(_children_of(container)) != number:
            await container.client.events(after=10**6, wait=0.01)


async def test_what_a_process_leaves_in_its_group_ends_with_it(core: Any, sh: Script) -> None:
    await core.client.put("a", sh("sleep 1000 & exit 0"))
    await core.client.start("a")
    await core.until("a", "exited")
    await _until_children(core, 0)
    assert (await core.client.system()).orphans == 1


async def test_stopping_during_backoff_leaves_no_ghost(core: Any, sh: Script) -> None:
    await core.client.put("crash", sh("echo run; exit 1", restart="always"))
    await core.client.start("crash")
    waiting = await core.until("crash", "backoff")
    assert waiting.next_start is not None
    assert waiting.next_start > waiting.since
    assert waiting.why.startswith("it exited with code 1; the next start follows after 0.")
    assert (await core.client.stop("crash", 5)).state == "stopped"
    events = (await core.client.events()).next
    assert (await core.client.events(after=events, wait=1.0)).events == []


async def test_stopping_while_it_waits_for_another_leaves_no_ghost(core: Any, sh: Script) -> None:
    gate = "while ! test -e /tmp/go; do sleep 0.02; done; echo up; exec sleep 1000"
    await core.client.put("db", sh(gate, ready=Readiness(line="up")))
    await core.client.put("web", sh("exec sleep 1000", after={"db": "ready"}))
    assert (await core.client.start("web")).state == "waiting"
    assert (await core.client.stop("web", 5)).state == "stopped"
    cursor = (await core.client.events()).next
    await core.client.write_file("/tmp/go", b"")
    await core.until("db", "ready")
    assert {event.process for event in (await core.client.events(cursor)).events} == {"db"}
    assert ((await core.client.process("web")).state, len(children(core.pid))) == ("stopped", 1)
    await core.client.delete_file("/tmp/go")


async def test_a_failing_process_is_restarted_with_growing_pauses(core: Any, sh: Script) -> None:
    await core.client.put("crash", sh("exit 1", restart="on-failure"))
    await core.client.start("crash")
    pauses = []
    cursor = 0
    while len(pauses) < 3:
        page = await core.client.events(cursor, wait=10)
        cursor = page.next
        pauses += [float(event.why.split()[-2]) for event in page.events if event.state == "backoff"]
    assert pauses == sorted(pauses)
    assert pauses[2] > 1.5 * pauses[0]
    info = await core.client.process("crash")
    assert info.restarts >= 2


async def test_on_failure_does_not_restart_a_success(core: Any, sh: Script) -> None:
    await core.client.put("once", sh("exit 0", restart="on-failure"))
    await core.client.start("once")
    info = await core.until("once", "exited")
    assert (info.restarts, info.exit, info.why) == (
        0,
        Exit(code=0),
        "it exited with code 0; its restart policy is on-failure",
    )


async def test_restarting_runs_the_new_specification(core: Any, sh: Script) -> None:
    await core.client.put("a", sh("echo one; sleep 100"))
    first = await core.client.start("a", 5)
    again = await core.client.put("a", sh("echo two; sleep 100"))
    assert (again.pid, again.outdated) == (first.pid, True)
    second = await core.client.restart("a", 10)
    assert (second.state, second.outdated) == ("running", False)
    assert second.pid != first.pid
    assert await core.output("a", 2) == ["one", "two"]


async def test_a_hundred_impatient_verbs_end_where_the_last_one_says(core: Any, sh: Script) -> None:
    await core.client.put("a", sh("sleep 100"))
    verbs = [core.client.start, core.client.stop, core.client.restart]
    chosen = random.Random(11)
    for _ in range(100):
        await chosen.choice(verbs)("a")
    assert (await core.client.stop("a", 15)).state == "stopped"
    assert _children_of(core) == []
    assert (await core.client.start("a", 5)).state == "running"


# Orphans.


async def test_ten_thousand_orphans_leave_no_zombie(core: Any) -> None:
    script = "i=0; while [ $i -lt 10000 ]; do (: &); i=$((i+1)); done"
    result = await core.client.execute(command(script, timeout=100))
    assert result.exit == Exit(code=0)
    async with asyncio.timeout(30):
        while (await core.client.system()).orphans < 10_000:
            await core.client.events(after=10**6, wait=0.02)
    assert core.zombies() == []
    assert _children_of(core) == []


async def test_a_thousand_quick_commands_leave_nothing(core: Any) -> None:
    limit = asyncio.Semaphore(20)

    async def one() -> None:
        async with limit:
            assert (await core.client.execute(ExecRequest(("sh", "-c", "exit 0")))).exit.code == 0

    pipes = _pipes_of(core)
    await asyncio.gather(*(one() for _ in range(1000)))
    assert _children_of(core) == []
    assert _pipes_of(core) == pipes


def _pipes_of(container: Any) -> int:
    entries = Path(f"/proc/{container.pid}/fd").iterdir()
    return sum(entry.readlink().name.startswith("pipe:") for entry in entries)


# Output.


async def test_output_that_is_not_utf_8(core: Any, sh: Script) -> None:
    await core.client.put("a", sh("printf 'gr\\374n\\n'"))
    await core.client.start("a")
    assert await core.output("a", 1) == ["gr\\xfcn"]
    result = await core.client.execute(command("printf '\\374'"))
    assert (result.stdout.encoding, result.stdout.data) == ("base64", "/A==")


async def test_a_line_of_a_megabyte_arrives_in_marked_parts(core: Any, sh: Script) -> None:
    pieces = "i=0; while [ $i -lt 16 ]; do printf '%65537s' x; i=$((i+1)); done"
    await core.client.put("a", sh(f"sleep 0.2; {pieces}; echo; echo end; sleep 100"))
    await core.client.start("a")
    length = gaps = 0
    async with aclosing(core.client.follow("a")) as records:
        async for record in records:
            if isinstance(record, LogGap):
                gaps += record.lost
            elif record.text == "end":
                break
            else:
                assert record.partial == (len(record.text) == MAX_LINE)
                length += len(record.text)
    assert length <= 16 * 65537 <= length + gaps * MAX_LINE


async def test_a_flood_is_read_with_declared_gaps_only(core: Any, sh: Script) -> None:
    lines = 200_000
    await core.client.put("flood", sh(f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done"))
    await core.client.start("flood")
    received = gaps = 0
    async with asyncio.timeout(60), aclosing(core.client.follow("flood")) as records:
        async for record in records:
            received += isinstance(record, LogLine)
            gaps += record.lost if isinstance(record, LogGap) else 0
            if received + gaps >= lines:
                break
    assert isinstance((await core.client.logs("flood", limit=1)).records[0], LogGap)
    page = await core.client.logs("flood", after=lines - 1)
    assert received + gaps == page.next == lines
    last = page.records[-1]
    assert isinstance(last, LogLine)
    assert last.text == f"line {lines - 1}"


async def test_the_merged_log_has_all_processes_in_order(core: Any, sh: Script) -> None:
    for name in ("a", "b"):
        await core.client.put(name, sh(f"echo {name} out; echo {name} err >&2; sleep 100"))
        await core.client.start(name)
        await core.output(name, 2)
    page = await core.client.logs()
    assert [record.order for record in page.records] == [1, 2, 3, 4]
    assert {(record.process, record.stream, record.text) for record in page.records} == {
        (name, f"std{kind}", f"{name} {kind}") for name in ("a", "b") for kind in ("out", "err")
    }


# Commands.


async def test_a_command_reads_its_standard_input(core: Any) -> None:
    text = "".join(f"{number}\n" for number in range(50_000))
    assert (await core.client.execute(ExecRequest(("cat",), stdin=text))).stdout.data == text
    assert (await core.client.execute(ExecRequest(("sh", "-c", "exit 4"), stdin=text))).exit.code == 4


async def test_a_command_is_killed_when_its_time_is_up(core: Any) -> None:
    result = await core.client.execute(command("echo begun; sleep 1000 & sleep 1000", timeout=0.3))
    assert (result.timed_out, result.exit, result.stdout.data) == (True, Exit(signal="SIGKILL"), "begun\n")


async def test_a_command_dies_with_its_caller(core: Any) -> None:
    call = asyncio.ensure_future(core.client.execute(command("sleep 1000")))
    await _until_children(core, 1)
    call.cancel()
    await _until_children(core, 0)


async def test_more_output_than_the_limit_is_cut_and_said(core: Any) -> None:
    script = "i=0; while [ $i -lt 40 ]; do printf '%65537s' x; i=$((i+1)); done"
    result = await core.client.execute(command(script))
    assert (len(result.stdout.data), result.stdout.truncated) == (1 << 20, True)


# What cannot be started.


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        pytest.param(ExecRequest(("missing",)), "'missing' is in no folder of PATH", id="no program"),
        pytest.param(
            ExecRequest(("missing",), env={"PATH": "/x:"}),
            "is in no folder of PATH (/x:)",
            id="no program in PATH",
        ),
        pytest.param(ExecRequest(("/bin/nope",)), "or its interpreter is not in the container", id="no file"),
        pytest.param(ExecRequest(("/bin/script",)), "or its interpreter is not", id="no interpreter"),
        pytest.param(ExecRequest(("/bin/data",)), "Permission denied", id="no execute bit"),
        pytest.param(ExecRequest(("/tmp",)), "Permission denied", id="a folder"),
        pytest.param(
            ExecRequest(("id",), cwd="/nowhere"), "its working directory '/nowhere': No such", id="no cwd"
        ),
        pytest.param(ExecRequest(("id",), cwd="/etc/passwd"), "Not a directory", id="cwd is a file"),
        pytest.param(
            ExecRequest(("id",), cwd="/secret", user="web"),
            "'/secret': Permission denied",
            id="unreadable cwd",
        ),
        pytest.param(
            ExecRequest(("id",), user="nobody"), "user 'nobody' is not in the container's", id="no user"
        ),
        pytest.param(ExecRequest(("id",), user="web:nope"), "group 'nope' is not in", id="no group"),
        pytest.param(ExecRequest(("id", "x" * 200_000)), "Argument list too long", id="too long"),
    ],
)
async def test_what_cannot_be_started_says_why(core: Any, request_: ExecRequest, reason: str) -> None:
    with pytest.raises(RefusedError, match="cannot run the command") as refused:
        await core.client.execute(request_)
    assert reason in refused.value.problem.detail
    assert refused.value.problem.type == "urn:zeronode:problem:cannot-run"
    assert (await core.client.execute(ExecRequest(("id", "-u")))).stdout.data == "0\n"
    assert core.zombies() == []


async def test_a_process_that_cannot_be_started_fails_with_the_reason(core: Any) -> None:
    await core.client.put("a", ProcessSpec(("/bin/nope",)))
    info = await core.client.start("a", 5)
    assert info.state == "failed"
    assert info.why.startswith(
        "it could not be started: '/bin/nope' or its interpreter is not in the container"
    )


async def test_a_process_that_cannot_be_started_yet_is_tried_again(core: Any, busybox_root: Path) -> None:
    late = busybox_root / "bin/late"
    late.unlink(missing_ok=True)
    await core.client.put("a", ProcessSpec(("late", "100"), restart="on-failure"))
    assert (await core.client.start("a", 5)).state == "backoff"
    late.symlink_to("busybox")
    try:
        await core.client.put("a", ProcessSpec(("/bin/busybox", "sleep", "100"), restart="on-failure"))
        assert (await core.until("a", "running")).restarts == 1
    finally:
        late.unlink()


@pytest.mark.parametrize("name", ["passwd", "group"])
async def test_a_pipe_in_place_of_an_account_file_is_not_waited_for(
    start: Start, busybox_root: Path, tmp_path: Path, name: str
) -> None:
    for folder in ("bin", "etc"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin/busybox").hardlink_to(busybox_root / "bin/busybox")
    os.mkfifo(tmp_path / "etc" / name)
    container = await start(tmp_path)
    async with asyncio.timeout(5):
        with pytest.raises(RefusedError, match="is not in the container's /etc/"):
            await container.client.execute(ExecRequest(("/bin/busybox", "id"), user="web:web"))


# The whole.


async def test_figures_come_from_proc(core: Any, sh: Script) -> None:
    await core.client.put("busy", sh("while :; do :; done"))
    info = await core.client.start("busy", 5)
    async with asyncio.timeout(20):
        while info.usage.cpu_seconds < 0.1:
            info = await core.client.process("busy")
    assert 100_000 < info.usage.memory_bytes < 10_000_000
    system = await core.client.system()
    assert (system.processes, system.running) == (1, 1)
    assert system.usage.memory_bytes > 5_000_000


async def test_nothing_is_imported_after_the_fork(core: Any, sh: Script) -> None:
    client = core.client
    await client.system()
    await client.execute(ExecRequest(("sh", "-c", "cat; printf '\\377'"), stdin="x" * 200_000, user="web"))
    await client.put("a", sh("echo hi; sleep 100"))
    await client.start("a", 5)
    await client.restart("a", 5)
    await client.signal("a", "WINCH")
    await client.logs("a")
    assert await core.output("a", 1) == ["hi"]
    await client.events(wait=0.01, after=1000)
    await client.stop("a", 5)
    await client.delete("a")
    await _rubbish(core)
    core.process.terminate()
    assert await core.exit_code() == 0
    assert core.imported_late() == []


async def _rubbish(core: Any) -> None:
    for wrong in ("a/b", "x" * 64):
        with pytest.raises(RefusedError):
            await core.client.process(wrong)
    host, port = core.endpoint.address.split(":")
    _reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await _reader.read()) is not None
    writer.close()
    async with (
        plain_http(core.endpoint, {"Authorization": "Bearer no"}) as session,
        session.put("/v1/processes/a", data=b"{") as answer,
    ):
        assert answer.status == 401
