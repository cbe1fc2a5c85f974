"""`zn node` against a node's real API: what it prints, as text and as JSON, and its exit codes."""

import datetime
import gc
import json
import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cli import connect
from tests.cli.conftest import Zn, write_context
from tests.core0.disks.loop import LoopDisks
from tests.host_node import HostNode


def test_show_describes_the_node(served: HostNode, zn: Zn) -> None:
    said = zn("node", "show")
    assert said.code == 0
    assert f"sha256:{served.fingerprint}" in said.out.replace("\n", "")
    assert "1.2.3 (build bbbbbbbbbbbb)" in said.out
    shown = zn("node", "show", "--json").json()
    assert isinstance(shown, dict)
    assert (shown["version"], shown["fingerprint"]) == ("1.2.3", served.fingerprint)


def test_a_node_whose_clock_is_days_ahead_is_used_all_the_same(
    served: HostNode, zn: Zn, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, behind = connect.issue_certificate, [datetime.timedelta(days=3)]

    def issue(key: Ed25519PrivateKey, name: str, *, now: datetime.datetime) -> bytes:
        return real(key, name, now=now - (behind.pop() if behind else datetime.timedelta()))

    monkeypatch.setattr(connect, "issue_certificate", issue)
    said = zn("node", "show")
    assert (said.code, f"sha256:{served.fingerprint}" in said.out.replace("\n", "")) == (0, True), said.err


def test_health_ends_with_1_when_a_check_fails(served: HostNode, zn: Zn) -> None:
    said = zn("node", "health")
    assert said.code == 1
    assert "phases that failed: drivers" in said.out
    health = zn("node", "health", "--json").json()
    assert isinstance(health, dict)
    assert health["ok"] is False
    assert {"memory", "network", "boot"} <= {check["name"] for check in health["checks"]}


def test_health_tells_of_disks_and_pools(disks: LoopDisks, zn: Zn) -> None:
    health = zn("node", "health", "--json").json()
    assert isinstance(health, dict)
    told = {check["name"]: (check["ok"], check["why"]) for check in health["checks"]}
    assert told["disks"] == (True, "disks that fail or hang: none")
    assert told["pools"] == (True, "pools in trouble: none")


def test_a_node_without_disks_says_that_it_forgets(served: HostNode, zn: Zn) -> None:
    said = zn("node", "state")
    assert said.code == 0
    assert "in memory only: what the node is told ends with this boot" in said.out
    assert "ends with this boot" in zn("node", "show").out
    state = zn("node", "state", "--json").json()
    assert isinstance(state, dict)
    assert (state["durable"], state["copies"]) == (False, [])


def test_a_node_with_disks_shows_which_of_them_hold_its_state(disks: LoopDisks, zn: Zn) -> None:
    disks.plug("one")
    plugged(zn, "one")
    assert zn("disk", "claim", "one").code == 0
    said = zn("node", "state")
    assert "on its disks" in said.out
    assert "it holds all that was acknowledged" in said.out
    assert "kept on the node's disks" in zn("node", "show").out
    assert "1 of 1 disks hold all that the node was told" in zn("node", "health").out


def test_nothing_is_adopted_that_no_node_has_claimed(disks: LoopDisks, zn: Zn) -> None:
    disks.plug("one")
    plugged(zn, "one")
    said = zn("node", "adopt", "one", "--yes")
    assert said.code == 3
    assert "cannot adopt what virtio-one remembers: no node has claimed it" in said.err
    assert zn("node", "adopt", "none", "--yes").code == 3


def plugged(zn: Zn, name: str) -> None:
    """Wait until a disk has been looked at."""
    for _ in range(200):
        shown = zn("disk", "show", name, "--json")
        if shown.code == 0 and '"probing"' not in shown.out:
            return
    pytest.fail(f"disk {name} was not looked at: {shown.out}{shown.err}")


def test_boot_lists_phases_with_their_times(served: HostNode, zn: Zn) -> None:
    said = zn("node", "boot")
    assert said.code == 0
    assert [line.split() for line in said.out.splitlines() if "drivers" in line] == [
        ["drivers", "failed", "1.200", "no", "such", "module"]
    ]
    boot = zn("node", "boot", "--json").json()
    assert isinstance(boot, dict)
    assert [phase["name"] for phase in boot["phases"]] == ["init", "drivers"]


def test_events_tell_what_happened(served: HostNode, zn: Zn) -> None:
    assert "Core-X answers on port 9001" in zn("node", "events").out
    events = zn("node", "events", "--json").json()
    assert isinstance(events, dict)
    assert events["events"][-1]["subject"] == "demo"
    assert events["cursor"] == events["events"][-1]["cursor"]


@pytest.mark.parametrize("verb", ["reboot", "poweroff"])
def test_power_reaches_pid_1(served: HostNode, zn: Zn, verb: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
        control.bind(str(served.folder / "init.sock"))
        control.settimeout(10)
        assert zn("node", verb).code == 0
        assert control.recv(64) == verb.encode()


def test_nobody_at_the_address_is_exit_code_4(host_node: HostNode, contexts_file: Path, zn: Zn) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        write_context(contexts_file, host_node, address=address, fingerprint="00" * 32)
        said = zn("node", "show")
    assert (said.code, said.out) == (4, "")
    assert said.err.startswith(f"zn: cannot reach the node at {address}: ")
    assert said.err.count("\n") == 1


# aiohttp closes the connection that it mistrusts in order, and the command ends before the other side has agreed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_another_node_than_the_pinned_one_is_exit_code_5(
    served: HostNode, contexts_file: Path, zn: Zn
) -> None:
    write_context(contexts_file, served, fingerprint="00" * 32)
    said = zn("node", "show")
    assert said.code == 5
    assert f"its certificate is {served.fingerprint}" in said.err
    gc.collect()


def test_another_key_is_exit_code_5(served: HostNode, contexts_file: Path, zn: Zn) -> None:
    served.key = Ed25519PrivateKey.generate()
    write_context(contexts_file, served)
    said = zn("node", "show")
    assert said.code == 5
    assert "its signature is not by the operator's key that the node booted with" in said.err


def test_a_key_that_is_none_is_told_with_its_path(served: HostNode, contexts_file: Path, zn: Zn) -> None:
    (contexts_file.parent / "operator.pem").write_text("rubbish")
    said = zn("node", "show")
    assert said.code == 1
    assert f"cannot read the operator's key {contexts_file.parent / 'operator.pem'}" in said.err


def test_no_context_is_exit_code_2(zn: Zn) -> None:
    said = zn("node", "show")
    assert said.code == 2
    assert "run zn up first" in said.err


def test_events_as_json_are_one_document(served: HostNode, zn: Zn) -> None:
    assert set(json.loads(zn("node", "events", "--json").out)) <= {"events", "cursor", "lost"}
