"""Core-X on a booted node: one container with a plan, used by the client and by `zn` as a person would."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from ci.pytest_machines import watched_during
from ci.qemu.machine import Machine
from cli import context
from cli.context import Context, CoreXEndpoint
from core0.client.client import NodeClient
from core0.wire.types import Container, ContainerSpec, Exit, Limits
from corex.client.client import Client, Endpoint, RefusedError
from corex.wire.api import ExecRequest, LogGap, LogLine, ProcessInfo
from corex.wire.identities import IdentitySpec
from corex.wire.plan import Layer, ProcessLayer
from corex.wire.sessions import SESSION_PROTOCOL, SessionSpec, Window
from tests.vm.inside import TOKEN, gone, inside, running, until
from tests.vm.layouts import PERL, layer_of_busybox, write_layout

Spec = Callable[..., ContainerSpec]
Connect = Callable[[Machine], Awaitable[NodeClient]]
ROOT = Path(__file__).resolve().parents[2]
OTHER_TOKEN = "the token of the other container"
PATH = {"PATH": "/bin"}
STORAGE_MIB = 8
FLOOD = 100_000

# sd_notify(3) by the numbers of Linux: AF_UNIX is 1, SOCK_DGRAM is 2, an abstract address begins with a zero byte.
NOTIFY = r"""
socket(S, 1, 2, 0) or die $!;
send(S, "STATUS=warm\nREADY=1", 0, pack("S a*", 1, "\0" . substr($ENV{NOTIFY_SOCKET}, 1))) or die $!;
sleep;
"""
LISTENS = "trap 'echo again' HUP; echo listening; while :; do sleep 0.2; done"
# Of this family nobody heeds SIGTERM; one is a daemon by the book: a child of its own session's dead leader.
BROOD = "trap '' TERM; busybox setsid sh -c 'sleep 1000 & echo born'; sleep 1000 & exec sleep 1000"
# Never ends by itself: a shell does when it cannot fork.
BOMB = r"$SIG{TERM} = 'IGNORE'; while (1) { fork; select(undef, undef, undef, 0.01) }"
ANSWERS = "while read line; do echo got $line; done"


def sh(script: str, **fields: Any) -> dict[str, Any]:
    return {"argv": ["/bin/sh", "-c", script], "env": PATH, **fields}


PLAN: dict[str, Any] = {
    "processes": {
        "init": sh("sleep 0.5; echo made > /tmp/made", kind="one-shot"),
        "db": {"argv": [PERL, "-e", NOTIFY], "after": {"init": "succeeded"}, "ready": {"notify": True}},
        "api": sh(LISTENS, after={"db": "ready"}, ready={"line": "^listening$"}),
        "web": {
            "argv": ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"],
            "after": {"api": "started"},
            "ready": {"port": 8080, "path": "/index.html"},
            "restart": "always",
            "backoff": {"first": 0.2, "jitter": 0},
        },
        "probe": sh("exec sleep 1000", after={"web": "healthy"}, ready={"argv": ["/bin/cat", "/tmp/made"]}),
        "broken": sh("echo no good >&2; exit 3", kind="one-shot"),
        "mourner": sh("exit 0", kind="one-shot", after={"broken": "completed"}),
        "heir": sh("exit 0", kind="one-shot", after={"broken": "succeeded"}),
        "tick": sh("echo tick", kind="scheduled", schedule={"every": 1}),
        "brood": sh(BROOD, scope="tree", stop_timeout=0.5),
        "repl": sh(ANSWERS, tty=True),
        "flood": sh(f"exec busybox seq {FLOOD}", kind="one-shot", enabled=False),
    },
    "checks": {"web": {"process": "web", "port": 8080, "path": "/index.html", "interval": 0.5}},
}
# What must have come about before what.
ORDER = [
    (("init", "exited"), ("db", "starting")),
    (("db", "ready"), ("api", "starting")),
    (("api", "running"), ("web", "starting")),
    (("web", "running"), ("probe", "starting")),
    (("probe", "running"), ("probe", "ready")),
    (("broken", "failed"), ("mourner", "starting")),
    (("broken", "failed"), ("heir", "failed")),
]


@dataclass(frozen=True)
class Site:
    """A container with a plan, beside another one.

    Attributes:
        machine: its node is in it.
        node: asks the node.
        container: the one with the plan.
        corex: asks its Core-X.
        other: the other one.
        contexts: the contexts file of who uses it by `zn`.
    """

    machine: Machine
    node: NodeClient
    container: Container
    corex: Client
    endpoint: Endpoint
    other: Container
    contexts: Path

    async def zn(self, *words: str, code: int = 0) -> str:
        """What `zn` prints, after it ended with that exit code."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", "--contexts", str(self.contexts), *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == code, said.decode()
        return said.decode()

    async def shell(self, script: str) -> str:
        done = await self.corex.execute(ExecRequest(("/bin/sh", "-c", script), env=PATH))
        return done.stdout.data + done.stderr.data

    async def until(self, name: str, *states: str) -> ProcessInfo:
        """Wait by events until a process is in one of the states."""
        cursor = 0
        async with asyncio.timeout(60):
            while (info := await self.corex.process(name)).state not in states:
                cursor = (await self.corex.events(cursor, wait=10)).next
        return info

    def browser(self, token: str = TOKEN) -> aiohttp.ClientSession:
        """Asks as a program that knows HTTP and nothing else."""
        pin = aiohttp.Fingerprint(bytes.fromhex(self.endpoint.fingerprint))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connector = aiohttp.TCPConnector(ssl=pin)
        return aiohttp.ClientSession(f"https://{self.endpoint.address}", connector=connector, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(
    booted: Machine, connect: Connect, spec: Spec, oci: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """One for all tests here: each leaves the processes that the others use as they were."""
    write_layout(oci / "tools", layer_of_busybox(PERL))
    await booted.restore("ready")
    async with await connect(booted) as node:
        limits = Limits(memory_mib=64, storage_mib=STORAGE_MIB)
        container = await running(node, "shop", spec("oci/tools/", plan=PLAN, limits=limits, restart="never"))
        digest = hashlib.sha256(OTHER_TOKEN.encode()).hexdigest()
        theirs = spec("oci/tools/", argv=("/bin/sleep", "1000"))
        other = await running(node, "other", msgspec.structs.replace(theirs, token_sha256=digest))
        assert container.corex
        address = f"127.0.0.1:{await booted.forward(container.corex.port)}"
        endpoint = Endpoint(address, container.corex.fingerprint, TOKEN)
        contexts = tmp_path_factory.mktemp("contexts") / "contexts.toml"
        shop = CoreXEndpoint(address, endpoint.fingerprint, context.write_token(contexts, "shop", TOKEN))
        context.put(
            contexts, "local", Context("127.0.0.1:1", "00" * 32, "operator.pem", container={"shop": shop})
        )
        async with Client(endpoint) as corex:
            yield Site(booted, node, container, corex, endpoint, other, contexts)


@pytest.fixture(autouse=True)
def watched(site: Site, request: pytest.FixtureRequest) -> Iterator[None]:
    with watched_during(request.node, site.machine):
        yield


async def test_what_the_plan_says_comes_about_in_its_order_and_each_process_says_why(site: Site) -> None:
    ready = {name: (await site.until(name, "ready")).why for name in ("db", "api", "web", "probe")}
    assert ready == {
        "db": "it is ready: it said so",
        "api": "it is ready: it wrote the line that says so",
        "web": "it is ready: port 8080 answers",
        "probe": "it is ready: its command succeeded",
    }
    assert (await site.corex.process("db")).status == "warm"
    assert (await site.until("heir", "failed")).why.startswith(
        "it does not start before broken has succeeded, which is failed"
    )
    assert (await site.until("mourner", "exited")).exit
    events = [(one.process, one.state) for one in (await site.corex.events()).events]
    for before, after in ORDER:
        assert events.index(before) < events.index(after), (before, after, events)
    check, probe = await site.corex.check("web"), await site.corex.process("probe")
    assert check.state == "healthy"
    assert probe.last_start
    assert check.since <= probe.last_start
    listed = {line.split()[0]: line for line in (await site.zn("process", "ls", "shop")).splitlines()}
    assert listed.keys() >= PLAN["processes"].keys()
    assert "failed" in listed["broken"]
    assert "it exited with code 3; its restart policy is never" in listed["broken"]
    assert "web" in await site.zn("process", "checks", "shop")
    assert (await site.node.container("shop")).why == site.container.why


async def test_a_scheduled_process_runs_again_and_again(site: Site) -> None:
    async with asyncio.timeout(60), aclosing(site.corex.follow("tick")) as records:
        ticks = [record async for record in _first(records, 3)]
    assert all(isinstance(one, LogLine) and one.text == "tick" for one in ticks)
    tick = await site.until("tick", "scheduled")
    assert tick.next_start
    assert tick.last_start
    assert tick.next_start >= tick.last_start + 1


async def _first(records: AsyncIterator[LogLine | LogGap], count: int) -> AsyncIterator[LogLine | LogGap]:
    async for record in records:
        yield record
        count -= 1
        if not count:
            return


async def test_a_person_stops_starts_signals_and_resets(site: Site) -> None:
    before = await site.corex.process("api")
    assert (await site.zn("process", "signal", "shop", "api", "HUP")) == "Sent HUP to api\n"
    await until(lambda: _wrote(site, "api", "again"))
    stopped = await site.zn("process", "stop", "shop", "api")
    assert stopped == "api is stopped: it was stopped on request and was ended by SIGTERM\n"
    started = await site.zn("process", "start", "shop", "api")
    assert started == "api is ready: it is ready: it wrote the line that says so\n"
    await site.zn("process", "restart", "shop", "api")
    after = await site.corex.process("api")
    assert (after.state, after.restarts) == ("ready", 0)
    assert after.pid != before.pid
    assert "cannot find process nobody" in await site.zn("process", "stop", "shop", "nobody", code=3)
    await site.corex.signal("web", "KILL")
    await until(lambda: _came_back(site, "web"))
    assert "it was ended by SIGKILL; the next start follows after 0.2 s" in await site.zn(
        "process", "events", "shop"
    )
    assert "broken is stopped: its end was forgotten" in await site.zn("process", "reset", "shop", "broken")


async def _came_back(site: Site, name: str) -> bool:
    info = await site.corex.process(name)
    return (info.state, info.restarts) == ("ready", 1)


async def _wrote(site: Site, name: str, text: str) -> bool:
    return any(getattr(one, "text", "") == text for one in (await site.corex.logs(name)).records)


async def test_a_changed_plan_touches_what_changed_and_nothing_else(site: Site, tmp_path: Path) -> None:
    pids = await _pids(site)
    more = Layer(
        processes={
            "api": ProcessLayer(env={"COLOUR": "blue"}),
            "web": ProcessLayer(stop_timeout=3.0),
            "extra": ProcessLayer(argv=("/bin/sleep", "1000")),
        }
    )
    before = await site.corex.plan()
    would = await site.corex.put_layer("more", more, dry_run=True)
    verbs = {one.process: (one.verb, one.fields) for one in would.changes}
    assert verbs == {
        "api": ("restart", ("env",)),
        "web": ("adopt", ("stop_timeout",)),
        "extra": ("start", ()),
    }
    assert (await site.corex.plan()) == before
    file = tmp_path / "more.json"
    file.write_bytes(msgspec.json.encode(more))
    said = await site.zn("process", "apply", "shop", "more", str(file), "--dry-run")
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["restart", "adopt", "start"]
    assert (await site.corex.put_layer("more", more)) == would
    with pytest.raises(RefusedError) as refused:
        await site.corex.apply(etag=before.etag)
    assert refused.value.problem.status == 412
    assert (await site.corex.process("api")).pid == pids["api"]
    assert (await site.corex.apply(etag=would.etag, wait=60)) == would
    assert {name for name, pid in (await _pids(site)).items() if pids.get(name) != pid} == {"api", "extra"}
    assert (await site.corex.process("api")).spec.env["COLOUR"] == "blue"
    await site.zn("process", "unapply", "shop", "more")
    await until(lambda: _is_plan(site, before.etag))
    circle = Layer(processes={"db": ProcessLayer(after={"probe": "ready"})})
    with pytest.raises(RefusedError, match="would start after itself"):
        await site.corex.put_layer("circle", circle)


async def _pids(site: Site) -> dict[str, int | None]:
    """Of what runs on, which the scheduled one does not."""
    return {
        one.name: one.pid for one in await site.corex.processes() if one.pid and one.spec.kind == "service"
    }


async def _is_plan(site: Site, etag: str) -> bool:
    """Whether all is as a plan says, and what no layer declares is gone."""
    found = {one.name: one.state for one in await site.corex.processes()}
    return (await site.corex.plan()).etag == etag and "extra" not in found and found["api"] == "ready"


async def test_lines_and_gaps_of_a_flood_are_what_was_written(site: Site) -> None:
    async def follow() -> tuple[int, int]:
        lines = lost = 0
        async with asyncio.timeout(60), aclosing(site.corex.follow("flood")) as records:
            async for record in records:
                if isinstance(record, LogGap):
                    lost += record.lost
                    continue
                lines += 1
                assert (record.seq, record.text) == (lines + lost, str(lines + lost))
                if record.seq == FLOOD:
                    break
        return lines, lost

    following = asyncio.create_task(follow())
    await site.corex.start("flood")
    lines, lost = await following
    assert lines + lost == FLOOD
    late = await site.corex.logs("flood", limit=10_000)
    assert isinstance(late.records[0], LogGap), "the ring has less than was written"
    said = await site.zn("logs", "shop", "flood")
    assert said.splitlines()[-1] == str(FLOOD)
    assert "lines were overwritten before they were read" in said


async def test_lines_are_chosen_by_process_stream_and_pattern(site: Site) -> None:
    async with site.browser() as http:
        query = [("process", "broken"), ("process", "tick"), ("stream", "stderr"), ("match", "go+d$")]
        async with http.get("/v1/logs", params=query) as answer:
            found = [one for one in (await answer.json())["records"] if one["kind"] == "line"]
        assert {(one["process"], one["text"]) for one in found} == {("broken", "no good")}
        for accept, told in (
            ("text/plain", "listening\n"),
            ("application/x-ndjson", '"text":"listening"'),
        ):
            query = [("process", "api"), ("match", "^listening$")]
            async with http.get("/v1/logs", params=query, headers={"Accept": accept}) as answer:
                assert answer.content_type == accept
                assert told in (await answer.content.readany()).decode()
        headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
        async with http.get("/v1/events", headers=headers) as answer:
            assert b"id: 2\n" in await answer.content.readuntil(b"\n\n")


async def test_a_shell_is_found_again_where_it_was(site: Site) -> None:
    script = "busybox stty size; while read line; do echo got $line; [ $line != end ] || exit 4; done"
    session = await site.corex.create_session(
        SessionSpec(("/bin/sh", "-c", script), PATH, window=Window(40, 120))
    )
    async with site.corex.attach(session.id) as first:
        await first.write(b"one\r")
        seen = await _output(first, b"got one\r\n")
    assert seen.startswith((b"40 120\r\n", b"one\r\n"))
    assert session.id in await site.zn("process", "sessions", "shop")
    path = f"/v1/sessions/{session.id}/attach"
    async with site.browser() as http, http.post("/v1/tickets", json={"path": path}) as answer:
        ticket = (await answer.json())["ticket"]
    query = {"ticket": ticket, "after": str(first.offset)}
    async with site.browser("") as nobody:
        async with nobody.ws_connect(path, params=query, protocols=(SESSION_PROTOCOL,)) as watching:
            hello = msgspec.json.decode((await watching.receive(30)).data)
            assert (hello["kind"], hello["after"]) == ("hello", first.offset)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await nobody.ws_connect(path, params=query, protocols=(SESSION_PROTOCOL,))
        assert refused.value.status == 401, "a ticket is of use once"
    async with site.corex.attach(session.id, after=first.offset) as again:
        await again.write(b"end\r")
        rest = b"".join([data async for _, data in again.output()])
    assert (rest, again.lost, again.exit and again.exit.code) == (b"end\r\ngot end\r\n", 0, 4)
    async with site.corex.attach_process("repl") as viewer:
        await viewer.write(b"hello\r")
        await _output(viewer, b"got hello\r\n")
    await until(lambda: _wrote(site, "repl", "got hello"))


async def _output(attachment: Any, end: bytes) -> bytes:
    """What comes until it ends so."""
    seen = b""
    async with asyncio.timeout(60):
        async for _, data in attachment.output():
            seen += data
            if seen.endswith(end):
                break
    return seen


async def test_files_go_both_ways_and_a_full_disk_leaves_the_earlier_one(site: Site, tmp_path: Path) -> None:
    kept, large = tmp_path / "kept", tmp_path / "large"
    kept.write_bytes(os.urandom(1 << 20))
    with large.open("wb") as file:
        file.truncate(2 * STORAGE_MIB << 20)
    await site.zn("cp", str(kept), "shop:/tmp/data", "--owner", "web", "--mode", "0640")
    before = await site.corex.stat("/tmp/data")
    assert (before.uid, before.mode, before.size) == (33, "0640", 1 << 20)
    assert "No space left on device" in await site.zn("cp", str(large), "shop:/tmp/data", code=3)

    async def unannounced() -> AsyncIterator[bytes]:
        """Its length is known when the last piece came: the disk is full before."""
        for _ in range(2 * STORAGE_MIB):
            yield bytes(1 << 20)

    for content in (bytes(2 * STORAGE_MIB << 20), unannounced()):
        with pytest.raises(RefusedError) as full:
            await site.corex.write_file("/tmp/data", content)
        assert full.value.problem.status == 507
    assert await site.corex.stat("/tmp/data") == before
    back = tmp_path / "back"
    await site.zn("cp", "shop:/tmp/data", str(back))
    assert back.read_bytes() == kept.read_bytes()
    with pytest.raises(RefusedError) as changed:
        await site.corex.write_file("/tmp/data", b"x", etag='"another"')
    assert changed.value.problem.status == 412
    assert [one.name for one in (await site.corex.folder("/tmp")).entries] == ["data", "made"]
    await site.zn("file", "rm", "shop", "/tmp/data")
    assert await site.shell("cat /tmp/data") == "cat: can't open '/tmp/data': No such file or directory\n"


async def test_everybody_may_do_what_their_role_says_and_all_is_written_down(site: Site) -> None:
    tokens = {role: role * 8 for role in ("metrics", "viewer", "operator")}
    for role, token in tokens.items():
        digest = hashlib.sha256(token.encode()).hexdigest()
        await site.corex.put_identity(role, IdentitySpec(role, digest))  # type: ignore[arg-type]
    printed = (await site.zn("process", "allow", "shop", "guest")).splitlines()[-1]
    asked = [
        ("GET", "/v1/metrics", {"metrics", "viewer", "operator", "guest", "owner"}),
        ("GET", "/v1/processes", {"viewer", "operator", "guest", "owner"}),
        ("GET", "/v1/plan", {"viewer", "operator", "guest", "owner"}),
        ("POST", "/v1/processes/api/start", {"operator", "owner"}),
        ("GET", "/v1/fs/file?path=/tmp/made", {"operator", "owner"}),
        ("GET", "/v1/audit", {"owner"}),
    ]
    everybody = {**tokens, "guest": printed, "owner": TOKEN}
    for name, token in everybody.items():
        async with site.browser(token) as http:
            for method, path, allowed in asked:
                async with http.request(method, path) as answer:
                    assert answer.status == (200 if name in allowed else 403), (name, method, path)
    for token in (OTHER_TOKEN, "", "guess"):
        async with site.browser(token) as http:
            for path in ("/v1/processes", "/v1/nothing"):
                async with http.get(path) as answer:
                    assert answer.status == 401, (token, path)
    async with site.browser() as http:
        async with http.get("/v1/health", headers={"Host": "evil.example"}) as answer:
            assert (answer.status, answer.content_type) == (421, "application/problem+json")
        async with http.get("/v1/metrics") as answer:
            figures = (await answer.text()).splitlines()
    assert 'corex_process_state{process="web",corex_process_state="ready"} 1' in figures
    assert any(line.startswith('corex_process_tasks{process="brood"} ') for line in figures)
    assert figures[-1] == "# EOF"
    await site.zn("process", "deny", "shop", "guest")
    async with site.browser(printed) as http, http.get("/v1/processes") as answer:
        assert answer.status == 401
    written = {(one.event, one.who, one.status) for one in (await site.corex.audit()).events}
    assert written >= {
        ("sys_startup", "", 0),
        ("user_created", "owner", 201),
        ("authz_fail", "viewer", 403),
        ("authn_login_fail", "", 401),
        ("sensitive_read", "operator", 200),
        ("user_deleted", "owner", 204),
    }, written
    said = await site.zn("process", "audit", "shop")
    assert not [token for token in everybody.values() if token in said]


async def test_the_containers_root_may_not_set_the_limits_of_core_x(site: Site) -> None:
    # prlimit(2) is system call 302 of x86_64, RLIMIT_NOFILE is 7
    script = '$few = pack("QQ", 5, 5); print syscall(302, 1, 7, $few, 0), " $!"'
    done = await site.corex.execute(ExecRequest((PERL, "-e", script)))
    assert done.stdout.data == "-1 Operation not permitted"


async def test_a_tree_ends_with_all_that_left_it(site: Site) -> None:
    """The cgroup has those who made themselves sessions of their own and lost their parents."""
    brood = await site.until("brood", "running", "ready")
    assert brood.usage
    assert brood.usage.tasks == 3
    assert brood.usage.memory_bytes
    procs = "/sys/fs/cgroup/process-brood/cgroup.procs"
    members = (await site.shell(f"cat {procs}")).split()
    assert len(members) == 3
    assert str(brood.pid) in members
    stopped = await site.corex.stop("brood", 60)
    assert stopped.why.endswith("because it did not end within 0.5 s and was sent SIGKILL")
    assert await site.shell(f"cat {procs}") in ("", f"cat: can't open '{procs}': No such file or directory\n")
    left = await site.shell(f"for one in {' '.join(members)}; do cat /proc/$one/comm; done")
    assert left.count("No such file or directory") == 3
    await site.corex.start("brood", 60)


async def test_a_container_full_of_processes_says_so_and_is_well_once_they_are_gone(
    site: Site, spec: Spec
) -> None:
    plan = {
        "processes": {
            "steady": {"argv": ["/bin/sleep", "1000"]},
            "bomb": {"argv": [PERL, "-e", BOMB], "scope": "tree", "stop_timeout": 0.1, "enabled": False},
        }
    }
    most = 40
    wanted = spec("oci/tools/", plan=plan, limits=Limits(memory_mib=64, processes=most))
    container = await running(site.node, "crowded", wanted)
    async with inside(site.machine, container) as corex:
        await corex.start("bomb", 30)
        # the others are Core-X with its spawner, and the steady one
        await until(lambda: _has_tasks(corex, "bomb", most - 3))
        for _ in range(5):
            with pytest.raises(
                RefusedError, match="has as many processes as it may; try again later"
            ) as full:
                await corex.write_file("/tmp/file", b"x")
            assert full.value.problem.status == 503
        with pytest.raises(RefusedError, match="no process: Resource temporarily unavailable"):
            await corex.execute(ExecRequest(("/bin/true",)))
        assert (await corex.stop("bomb", 60)).state == "stopped"
        assert (await corex.write_file("/tmp/file", b"x")).size == 1
        assert (await corex.execute(ExecRequest(("/bin/sh", "-c", "exit 5")))).exit.code == 5
    await site.node.delete_container("crowded")
    await until(gone(site.node, "crowded"))


async def _has_tasks(corex: Client, name: str, count: int) -> bool:
    usage = (await corex.process(name)).usage
    return bool(usage and usage.tasks and usage.tasks >= count)


async def test_the_end_of_a_process_is_the_containers_and_the_node_knows_it(site: Site, spec: Spec) -> None:
    plan = {
        "processes": {
            "beside": sh("trap 'echo last words; exit 0' TERM; while :; do sleep 0.1; done"),
            "work": sh("sleep 0.3; exit 7", on_failure="stop-container", after={"beside": "started"}),
        }
    }
    greedy = sh("sleep 0.3; exec dd if=/dev/zero of=/dev/null bs=64M count=1")
    hungry = {"processes": {"beside": sh("exec sleep 1000"), "greedy": greedy}}
    small = Limits(memory_mib=24, storage_mib=4)
    await site.node.put_container("coded", spec("oci/tools/", plan=plan, restart="never"))
    await site.node.put_container("hungry", spec("oci/tools/", plan=hungry, limits=small, restart="never"))
    coded = await site.node.container_end("coded", wait=60)
    assert (coded.state, coded.exit) == ("failed", Exit(code=7)), coded
    assert "exit code 7" in coded.why
    hungry_end = await site.node.container_end("hungry", wait=60)
    assert hungry_end.exit == Exit(signal=9, out_of_memory=True), "a container ends as one (memory.oom.group)"
    assert "it needed more than its 28 MiB of memory" in hungry_end.why
    stopped = await site.node.stop_container("shop", wait=60)
    assert stopped.state == "stopped", stopped.why
