"""The command line as a person meets it: help, examples, exit codes, messages."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.frame import MOUNTS, load
from cli.outcome import MEANINGS, ExitCode, Failure, explain
from corex.client.client import RefusedError
from corex.http.problem import Problem

ROOT = Path(__file__).resolve().parents[2]


# Completion is for the shell that is named, whichever shell has started the tests, if any.
_NAMED_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}


def zn(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        env={"XDG_CONFIG_HOME": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "100", **_NAMED_SHELL},
    )


def verbs() -> Iterator[Any]:
    for name in MOUNTS:
        command = load(name)
        if not hasattr(command, "commands"):
            yield pytest.param(command, id=name)
            continue
        for verb, inner in command.commands.items():
            yield pytest.param(inner, id=f"{name} {verb}")


@pytest.mark.parametrize("verb", list(verbs()))
def test_the_help_of_each_verb_has_an_example(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    verb.get_help(typer.Context(verb))
    assert "Example: zn " in capsys.readouterr().out


def test_help_lists_every_noun_and_imports_none(tmp_path: Path) -> None:
    done = zn("--help", folder=tmp_path)
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in MOUNTS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(tmp_path: Path, shell: str) -> None:
    done = zn("--show-completion", shell, folder=tmp_path)
    assert {"bash": "complete -o", "zsh": "compdef", "fish": "complete --command"}[shell] in done.stdout


def test_completion_knows_nouns_and_verbs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"_ZN_COMPLETE": "complete_bash", "COMP_WORDS": "zn vm ", "COMP_CWORD": "2", "PATH": "/usr/bin"},
    )
    assert {"run", "ls", "console", "stop"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        pytest.param(("vn",), ExitCode.USAGE, "No such command 'vn'.", id="typing error"),
        pytest.param(("vm", "stop", "none"), ExitCode.REFUSED, "cannot find machine 'none'", id="no machine"),
        pytest.param(("node", "show"), ExitCode.USAGE, "names none; run zn up first", id="no context"),
        pytest.param(
            ("vm", "run", "--image", "/none"),
            ExitCode.FAILED,
            "build it first: zn image build",
            id="no image",
        ),
    ],
)
def test_errors_are_one_message_and_a_documented_code(
    tmp_path: Path, words: tuple[str, ...], code: ExitCode, message: str
) -> None:
    done = zn(*words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_for_programs(tmp_path: Path) -> None:
    assert json.loads(zn("vm", "ls", "--json", folder=tmp_path).stdout) == []


def test_an_unreachable_node_has_its_own_code(tmp_path: Path) -> None:
    from cli import context, operator

    path = tmp_path / "zeronode" / "contexts.toml"
    operator.kernel_argument(path)
    context.put(path, "local", context.Context("127.0.0.1:9", "ab" * 32, operator.KEY_FILE))
    done = zn("node", "show", folder=tmp_path)
    assert done.returncode == ExitCode.UNREACHABLE, done.stderr
    assert "cannot reach the node at 127.0.0.1:9" in done.stderr


def test_every_exit_code_is_documented_where_people_look() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for code, meaning in MEANINGS.items():
        assert f"| {code.value} | {meaning} |" in text


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    assert explain(KeyError("x")) is None
    assert explain(Failure("cannot x: y; z", ExitCode.REFUSED)) == (ExitCode.REFUSED, "cannot x: y; z")
    forged = RefusedError(Problem("about:blank", "", 409, "cannot x: y\nzn: all is well", pointer="/a"))
    assert explain(forged) == (ExitCode.REFUSED, "cannot x: y\\nzn: all is well (at /a)")
    assert explain(KeyboardInterrupt()) == (ExitCode.INTERRUPTED, "interrupted")
    assert explain(PermissionError(13, "Permission denied")) == (
        ExitCode.FAILED,
        "[Errno 13] Permission denied",
    )
