"""`zn process put`, `edit` and `rm` against a real Core-X."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root


def left_in(folder: Path) -> list[Path]:
    """What an editor left of process web."""
    return list(folder.glob("web-*.json"))


async def test_a_process_is_declared_by_options_started_changed_and_forgotten(zn: Any, core: Any) -> None:
    words = ("put", "demo", "web", "--env", "A=1", "--user", "web", "--restart", "always", "--start")
    done = await zn(*words, "--", "sh", "-c", "echo $A as $(id -u); sleep 100")
    assert (done.code, done.out) == (0, "web is running: it runs: it was started on request\n")
    assert await core.output("web", 1) == ["1 as 1000"]
    again = await zn(*words, "--if-absent", "--", "sleep", "1")
    assert (again.code, "it is there already" in again.err) == (3, True)
    before = await core.client.process("web")
    changed = await zn("put", "demo", "web", "--after", "db=started", "--", "sleep", "100")
    reason = "web starts after db, and there is none (at /after/db); see GET /v1/plan"
    assert (changed.code, reason in changed.err) == (3, True)
    changed = await zn("put", "demo", "web", "--", "sleep", "100")
    assert changed.out.endswith("; restart it to apply its specification\n")
    assert (await core.client.process("web")).pid == before.pid
    assert (await zn("put", "demo", "web", "--start", "--", "sleep", "100")).code == 0
    assert (await core.client.process("web")).pid != before.pid
    refused = await zn("rm", "demo", "web")
    assert (refused.code, "it is running; stop it first" in refused.err) == (3, True)
    assert (await zn("rm", "demo", "web", "--stop")).out == "web is forgotten\n"
    assert await core.client.processes() == []


async def test_a_process_is_declared_by_json_and_what_is_wrong_is_pointed_at(zn: Any, core: Any) -> None:
    spec = {"argv": ["sleep", "100"], "ready": {"line": "up"}, "stop_timeout": 3}
    done = await zn("put", "demo", "web", "-", stdin=json.dumps(spec).encode())
    assert (done.code, done.out.startswith("web is stopped: ")) == (0, True)
    assert (await core.client.process("web")).spec.ready.line == "up"
    for wrong, code, reason in (
        ({"argv": ["x"], "shell": 1}, 2, "cannot use -: object contains unknown field `shell` (at /shell)"),
        ({"argv": ["x"], "ready": {"line": "("}}, 3, "(at /ready/line)"),
        ({"argv": ["x"], "stop_signal": "SIGNOTHING"}, 3, "(at /stop_signal)"),
    ):
        refused = await zn("put", "demo", "web", "-", stdin=json.dumps(wrong).encode())
        assert (refused.code, reason in refused.err) == (code, True), refused.err
    refused = await zn("put", "demo", "web", "-", stdin=b"{")
    assert (refused.code, refused.err.startswith("zn: cannot read -: ")) == (2, True)
    assert (await core.client.process("web")).spec.stop_timeout == 3


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param((), "give either FILE or '--' and a command", id="nothing"),
        pytest.param(("-", "--", "x"), "give either FILE or '--' and a command", id="both"),
        pytest.param(("-", "--env", "A=B"), "cannot use --env with FILE", id="a file and options"),
        pytest.param(("--env", "A", "--", "x"), "'A': it is not NAME=VALUE", id="no value"),
        pytest.param(("--after", "db", "--", "x"), "it is not NAME=CONDITION", id="no condition"),
        pytest.param(("--after", "db=up", "--", "x"), "invalid enum value 'up'", id="unknown condition"),
        pytest.param(("/missing.json",), "cannot read /missing.json: ", id="no file"),
    ],
)
def test_what_is_no_declaration_is_said_before_anybody_is_asked(
    words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.frame import load
    from cli.outcome import ExitCode, Failure

    with pytest.raises(Failure, match=reason) as refused:
        load("process").main(["put", "demo", "web", *words], standalone_mode=False)
    assert refused.value.code == ExitCode.USAGE


async def test_a_process_is_edited_and_what_is_refused_is_kept(
    zn: Any, core: Any, sh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("VISUAL", raising=False)
    await core.client.put("web", sh("echo old"))
    monkeypatch.setenv("EDITOR", "sed -i 's/echo old/echo new/'")
    assert (await zn("edit", "demo", "web")).out.startswith("web is stopped: ")
    assert (await core.client.process("web")).spec.argv[-1] == "echo new"
    assert (await zn("edit", "demo", "web")).out == "nothing changed\n"
    assert left_in(tmp_path) == []
    monkeypatch.setenv("EDITOR", "sed -i 's/argv/argw/'")
    refused = await zn("edit", "demo", "web")
    (kept,) = left_in(tmp_path)
    assert (refused.code, f"zn process put demo web {kept}" in refused.err) == (2, True)
    assert "argw" in kept.read_text()
    kept.unlink()


async def test_an_edit_does_not_overwrite_what_somebody_else_changed_meanwhile(
    zn: Any, core: Any, sh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("VISUAL", f"sh -c 'read line < {gate}; sed -i s/old/mine/ $0'")
    await core.client.put("web", sh("echo old"))
    editing = asyncio.create_task(zn("edit", "demo", "web"))
    opened = await asyncio.to_thread(gate.open, "w")  # waits until the editor is there
    await core.client.put("web", sh("echo theirs"))
    with opened:
        opened.write("go on\n")
    refused = await editing
    assert (refused.code, "it is not what If-Match says" in refused.err) == (3, True)
    assert (await core.client.process("web")).spec.argv[-1] == "echo theirs"
    (kept,) = left_in(tmp_path)
    assert "echo mine" in kept.read_text()
