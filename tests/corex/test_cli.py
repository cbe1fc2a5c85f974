"""`zn process` against a real Core-X: what a person types, what a shell gets."""

import asyncio
import fcntl
import json
import os
import signal
import struct
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from corex.client.client import Client, Endpoint, RefusedError
from corex.wire.sessions import SessionSpec
from tests.corex.typist import sit_down

pytestmark = pytest.mark.root


async def test_a_process_is_listed_started_shown_signalled_and_stopped(core: Any, sh: Any, zn: Any) -> None:
    assert (await zn("ls", "demo")).out == "no process is declared\n"
    await core.client.put("web", sh("trap 'echo got it' HUP; echo up; while :; do sleep 0.05; done"))
    started = await zn("start", "demo", "web")
    assert (started.code, started.out) == (0, "web is running: it runs: it was started on request\n")
    await core.output("web", 1)
    (listed,) = json.loads((await zn("ls", "demo", "--json")).out)
    assert (listed["name"], listed["state"]) == ("web", "running")
    assert (await zn("ls", "demo")).out.splitlines()[1].split()[:2] == ["web", "running"]
    assert (await zn("signal", "demo", "web", "HUP")).code == 0
    await core.output("web", 2)
    assert (await zn("logs", "demo", "web")).out == "up\ngot it\n"
    shown = (await zn("show", "demo", "web")).out
    assert "SIGTERM, SIGKILL after 10 s" in shown
    assert (await zn("restart", "demo", "web")).code == 0
    stopped = await zn("stop", "demo", "web")
    assert (stopped.code, stopped.out) == (
        0,
        "web is stopped: it was stopped on request and was ended by SIGTERM\n",
    )


async def test_what_happened_is_listed(core: Any, sh: Any, zn: Any) -> None:
    await core.client.put("job", sh("exit 3"))
    await core.client.start("job", wait=10)
    listed = (await zn("events", "demo")).out.splitlines()
    assert listed[-1].endswith("job failed: it exited with code 3; its restart policy is never")
    as_json = (await zn("events", "demo", "--json")).out.splitlines()
    assert [json.loads(one)["state"] for one in as_json] == ["starting", "running", "failed"]


async def test_a_process_that_cannot_start_ends_the_command_with_the_reason(
    core: Any, sh: Any, zn: Any
) -> None:
    await core.client.put("web", sh("exit 3"))
    await core.client.put("none", sh("x", argv=("/missing",)))
    done = await zn("start", "demo", "none")
    assert done.code == 1
    assert "'/missing' or its interpreter is not in the container" in done.err
    unknown = await zn("show", "demo", "nothing")
    assert (unknown.code, unknown.out) == (3, "")
    assert unknown.err.startswith("zn: cannot find process nothing: it is not declared")


async def test_exec_passes_streams_environment_and_exit_code_on(zn: Any) -> None:
    script = "cat; echo $GREETING >&2; exit 42"
    done = await zn("exec", "demo", "-i", "-e", "GREETING=hello", "--", "sh", "-c", script, stdin=b"typed")
    assert (done.code, done.out, done.err) == (42, "typed", "hello\n")
    assert (await zn("exec", "demo", "--", "sh", "-c", "kill -9 $$")).code == 137
    assert (await zn("exec", "demo", "--timeout", "0.2", "--", "sleep", "100")).code == 124
    missing = await zn("exec", "demo", "--", "missing")
    assert missing.code == 3
    assert missing.err.startswith("zn: cannot run the command: 'missing' is in no folder of PATH")


async def test_a_container_that_the_context_does_not_know_is_said(zn: Any) -> None:
    done = await zn("ls", "other")
    assert (done.code, done.out) == (3, "")
    assert "the context has the token of demo" in done.err


async def test_files_are_listed_shown_and_deleted(zn: Any) -> None:
    assert (await zn("mkdir", "demo", "/tmp/cli/sub", "--parents", "--owner", "web", noun="file")).code == 0
    listed = await zn("ls", "demo", "/tmp/cli", noun="file")
    assert listed.out.splitlines()[1].split()[:3] == ["0755", "folder", "1000:1001"]
    shown = json.loads((await zn("show", "demo", "/etc/passwd", "--json", noun="file")).out)
    assert (shown["kind"], shown["name"]) == ("file", "passwd")
    assert (await zn("cat", "demo", "/etc/passwd", noun="file")).out.startswith("root:x:0:0:")
    refused = await zn("rm", "demo", "/tmp/cli", noun="file")
    assert (refused.code, "add recursive=true" in refused.err) == (3, True)
    assert (await zn("rm", "demo", "/tmp/cli", "-r", noun="file")).out == "Deleted 2\n"


async def test_files_and_folders_are_copied_both_ways(zn: Any, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/page").write_bytes(os.urandom(2_000_000))
    (folder / "link").symlink_to("deep/page")
    done = await zn(str(folder), "demo:/tmp/", noun="cp")
    assert (done.code, done.out, done.err) == (0, "Copied to /tmp/site\n", "")
    assert (await zn("demo:/tmp/site", str(tmp_path / "back"), noun="cp")).code == 0
    assert (tmp_path / "back/deep/page").read_bytes() == (folder / "deep/page").read_bytes()
    assert (tmp_path / "back/link").readlink() == Path("deep/page")
    assert (await zn("demo:/tmp/site/deep/page", str(tmp_path), noun="cp")).code == 0
    assert (tmp_path / "page").read_bytes() == (folder / "deep/page").read_bytes()
    one = await zn(str(tmp_path / "page"), "demo:/tmp/other", "--mode", "0600", noun="cp")
    assert one.out == "Copied to /tmp/other\n"
    assert (await zn("demo:/a", "demo:/b", noun="cp")).code == 2
    missing = await zn("demo:/missing", str(tmp_path), noun="cp")
    assert (missing.code, "No such file" in missing.err) == (3, True)


async def test_a_terminal_is_left_found_again_and_ends_with_the_commands_code(
    contexts: Path, core: Any, zn: Any
) -> None:
    def at_the_terminal() -> bytes:
        one = sit_down(contexts, "exec", "-it", "demo", "--", "sh")
        one.read(b"# ")
        one.type(b"stty size; echo $TERM\r")
        assert b"33 111\r\nvt220\r\n" in one.read(b"vt220\r\n")
        one.type(b"x=kept\r")
        one.read(b"# ")
        fcntl.ioctl(one.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 70, 0, 0))
        os.kill(one.pid, signal.SIGWINCH)
        one.type(b"sleep 0.3; stty size\r")
        one.read(b"50 70\r\n")
        one.type(b"\x1d")
        said = one.read(b"minutes")
        assert one.end() == 0
        return said

    said = await asyncio.to_thread(at_the_terminal)
    session = said.split(b"zn attach demo ")[1].split()[0].decode()
    assert session in (await zn("sessions", "demo")).out

    def come_back() -> int:
        again = sit_down(contexts, "attach", "demo", session)
        again.read(b"50 70\r\n/ # ")  # what was there before is shown again
        again.type(b"echo $x; exit 9\r")
        again.read(b"kept\r\n")
        return again.end()

    assert await asyncio.to_thread(come_back) == 9
    assert (await zn("sessions", "demo")).out == "there is no session\n"


async def test_a_session_is_hung_up(core: Any, zn: Any) -> None:
    left = await core.client.create_session(SessionSpec(("/bin/sleep", "1000"), keep=600))
    done = await zn("hangup", "demo", left.id)
    assert (done.code, done.out) == (0, f"Session {left.id} is hung up\n")
    assert (await zn("sessions", "demo")).out == "there is no session\n"
    assert (await zn("hangup", "demo", left.id)).code == 3


async def test_what_is_piped_in_and_out_keeps_its_bytes_and_streams(contexts: Path, zn: Any) -> None:
    many = bytes(range(256)) * 8192
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "--contexts", str(contexts)),
        *("exec", "-i", "demo", "--", "sh", "-c", "cat; echo done >&2"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(many), 60)
    assert (out == many, err, process.returncode) == (True, b"done\n", 0)
    refused = await zn("exec", "-i", "--timeout", "3", "demo", "--", "cat")
    assert (refused.code, "cannot use --json or --timeout" in refused.err) == (2, True)


SHOP = {
    "summary": "a shop",
    "processes": {
        "db": {"argv": ["sleep", "100"], "env": {"PATH": "/bin"}},
        "web": {"argv": ["sleep", "100"], "env": {"PATH": "/bin"}, "after": {"db": "started"}},
    },
    "checks": {"alive": {"process": "web", "argv": ["/bin/sh", "-c", "exit 0"], "interval": 0.1}},
}


async def test_a_plan_is_tried_applied_looked_at_and_taken_away(zn: Any, core: Any, tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    file.write_text(json.dumps(SHOP))
    tried = await zn("apply", "demo", "shop", str(file), "--dry-run")
    assert [line.split()[:3] for line in tried.out.splitlines()[1:]] == [
        ["start", "process", "db"],
        ["start", "process", "web"],
        ["start", "check", "alive"],
    ]
    assert (await zn("layers", "demo")).out == "the plan has no layer\n"
    assert (await zn("apply", "demo", "shop", str(file))).code == 0
    await core.until("web", "running")
    assert "db started" in (await zn("plan", "demo")).out
    assert (await zn("layers", "demo")).out.splitlines()[1].split() == [
        "shop",
        "db,",
        "web",
        "alive",
        "a",
        "shop",
    ]
    (check,) = json.loads((await zn("checks", "demo", "--json")).out)
    assert (check["name"], check["spec"]["process"]) == ("alive", "web")
    assert (await zn("reset", "demo", "web")).code == 0
    gone = json.loads((await zn("unapply", "demo", "shop", "--json")).out)
    assert {change["verb"] for change in gone["changes"]} == {"stop"}
    file.write_text(
        '{"targets": {"out": {"override": "replace", "type": "syslog", "location": "udp://127.0.0.1:9"}}}'
    )
    tried = await zn("apply", "demo", "shop", str(file), "--dry-run")
    assert tried.out.splitlines()[1].split()[:3] == ["start", "target", "out"]
    file.write_text('{"processes": {"db": {"argw": []}}}')
    refused = await zn("apply", "demo", "shop", str(file))
    assert (refused.code, "argw" in refused.err) == (2, True)


async def test_somebody_is_let_in_with_a_token_and_out_again(zn: Any, core: Any) -> None:
    made = await zn("allow", "demo", "prometheus", "--role", "metrics")
    token = made.out.strip()
    assert len(token) == 43
    listed = (await zn("identities", "demo")).out.split()
    assert listed == ["name", "role", "owner", "admin", "prometheus", "metrics"]
    theirs = Endpoint(core.endpoint.address, core.endpoint.fingerprint, token)
    async with Client(theirs) as client:
        with pytest.raises(RefusedError, match="needs the role viewer"):
            await client.processes()
        assert (await zn("deny", "demo", "prometheus")).code == 0
        with pytest.raises(RefusedError, match="cannot tell who asks"):
            await client.processes()
    assert (await zn("allow", "demo", "x", "--role", "king")).code == 2


async def test_who_was_let_in_logs_in_elsewhere_without_a_node_and_out_again(
    zn: Any, core: Any, tmp_path: Path
) -> None:
    made = await zn("allow", "demo", "bob", "--role", "viewer")
    token, at = made.out.strip().encode(), tmp_path / "bob" / "contexts.toml"
    address, fingerprint = core.endpoint.address, core.endpoint.fingerprint
    assert f"zn process login demo {address} --fingerprint {fingerprint}" in made.err

    spaced = ":".join(fingerprint[n : n + 2] for n in range(0, 64, 2)).upper()
    words = ("login", "shop", f"https://{address}/#/logs", "--fingerprint", spaced)
    done = await zn(*words, stdin=token + b"\n", at=at)
    assert (done.code, done.out) == (
        0,
        "Core-X of shop takes you for bob, viewer; go on with: zn process ls shop\n",
    )
    assert (await zn("ls", "shop", at=at)).out == "no process is declared\n"
    assert token.decode() not in at.read_text("utf-8")
    asked = await zn("ls", noun="container", at=at)
    assert (asked.code, "has containers alone" in asked.err) == (2, True)

    await zn("logout", "shop", at=at)
    assert [path.name for path in at.parent.iterdir()] == ["contexts.toml"]
    left = await zn("ls", "shop", at=at)
    assert (left.code, "then zn process login" in left.err) == (3, True)


@pytest.mark.parametrize(
    ("name", "address", "fingerprint", "token", "code", "said"),
    [
        pytest.param("a/b", None, None, "x", 2, "letters, digits and hyphens", id="a name that is a path"),
        pytest.param("a", "nowhere", None, "x", 2, "write it as", id="no port"),
        pytest.param("a", None, "12", "x", 2, "64 hexadecimal digits", id="no fingerprint"),
        pytest.param("a", None, "00" * 32, "x", 5, "certificate", id="another certificate"),
        pytest.param("a", None, None, "", 2, "one line of printable ASCII", id="no token"),
        pytest.param("a", None, None, "x", 5, "cannot tell who asks", id="a wrong token"),
        pytest.param("a", "127.0.0.1:1", None, "x", 4, "127.0.0.1:1", id="nobody there"),
    ],
)
async def test_a_login_that_does_not_work_keeps_nothing(
    zn: Any,
    core: Any,
    tmp_path: Path,
    name: str,
    address: str | None,
    fingerprint: str | None,
    token: str,
    code: int,
    said: str,
) -> None:
    at = tmp_path / "elsewhere" / "contexts.toml"
    words = ("login", name, address or core.endpoint.address)
    pinned = fingerprint or core.endpoint.fingerprint
    done = await zn(*words, "--fingerprint", pinned, stdin=token.encode(), at=at)
    assert (done.code, said in done.err) == (code, True), done.err
    assert not at.parent.exists()


async def test_a_process_is_attached_to_left_and_followed_to_its_end(
    core: Any, sh: Any, contexts: Path
) -> None:
    script = "stty -echo; echo ready; while read line; do echo got $line; test $line = end && exit 7; done"
    await core.client.put("repl", sh(script, tty=True))
    await core.client.start("repl", 5)
    await core.output("repl", 1)
    first = await asyncio.to_thread(sit_down, contexts, "attach", "demo", "repl")
    await asyncio.to_thread(first.read, b"ready")
    first.type(b"one\n")
    await asyncio.to_thread(first.read, b"got one")
    first.type(b"\x1d")
    await asyncio.to_thread(first.read, b"zn attach demo repl comes back")
    assert await asyncio.to_thread(first.end) == 0
    assert (await core.client.process("repl")).state == "running"
    second = await asyncio.to_thread(sit_down, contexts, "attach", "demo", "repl")
    await asyncio.to_thread(second.read, b"got one")
    second.type(b"end\n")
    assert await asyncio.to_thread(second.end) == 7
