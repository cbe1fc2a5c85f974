"""The README's first command, as a person runs it: from source to an answering container, and back to nothing."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from ci.qemu import process

ROOT = Path(__file__).resolve().parents[2]
Zn = Callable[..., Any]


@pytest.fixture
def zn(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zn]:
    """Runs a verb in a place of its own and returns its JSON; whatever was started ends with the test."""
    monkeypatch.setenv("ZN_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*words: str, code: int = 0) -> Any:
        done = subprocess.run([sys.executable, "-m", "cli", *words], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == code, f"zn {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout) if "--json" in words else done.stdout + done.stderr

    yield run
    run("down")


def test_up_leads_to_an_answering_container_and_down_to_nothing(zn: Zn, tmp_path: Path) -> None:
    reached = zn("up", "--json")
    with urlopen(reached["service"], timeout=60) as answer:
        assert answer.status == 200

    found = zn("process", "ls", "demo", "--json")
    assert any(one["state"] == "running" for one in found)
    assert zn("exec", "demo", "--", "sh", "-c", "ls /var/www") == "index.html\n"
    (machine,) = zn("vm", "ls", "--json")
    assert zn("up", "--json") == reached
    assert [again["pid"] for again in zn("vm", "ls", "--json")] == [machine["pid"]]

    assert zn("down", "--json") == {"stopped": ["machine node1", "netboot server"], "disks": []}
    assert process.identify(machine["pid"]) is None
    assert not (tmp_path / "run").exists()
    assert sorted(path.name for path in (tmp_path / "config" / "zeronode").iterdir()) == [
        "contexts.toml",
        "operator.pem",
    ]
    assert zn("down", "--json") == {"stopped": [], "disks": []}


def test_a_small_node_is_taken_up_again_after_a_reboot_with_its_new_identity(zn: Zn) -> None:
    before = zn("up", "--memory", "256", "--json")
    zn("node", "reboot")
    after = zn("up", "--json")
    assert after["fingerprint"] != before["fingerprint"]
    with urlopen(after["service"], timeout=60) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_up_ends_what_it_has_started(zn: Zn, number: signal.Signals) -> None:
    # a shell's background jobs, and so what they start, may ignore SIGINT
    command = ["env", "--default-signal=INT", sys.executable, "-m", "cli", "up"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as up:
        assert up.stderr is not None
        while not up.stderr.readline().startswith("machine "):
            assert up.poll() is None, "zn up ended before it was interrupted"
        (machine,) = zn("vm", "ls", "--json")
        up.send_signal(number)
        assert "interrupted" in up.stderr.read()
    assert up.returncode == 130
    assert process.identify(machine["pid"]) is None
    assert zn("down", "--json") == {"stopped": [], "disks": []}
