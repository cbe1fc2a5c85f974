"""`zn container` against a node's real API: verbs, tokens, exit codes and JSON."""

import hashlib
import json
import re
import stat
from pathlib import Path

import msgspec
import pytest

from cli import context as contexts
from core0.containers.observe import is_alive, observe_record
from core0.wire.types import Container, Limits, TmpfsMount
from corex.wire.health import HealthCheck
from tests.cli.conftest import SPEC, TOKEN, Said, Zn, write_context
from tests.host_node import HostNode


def container(said: Said) -> Container:
    """The container that a command printed as JSON."""
    return msgspec.json.decode(said.out, type=Container)


def test_ls_shows_every_container(served: HostNode, zn: Zn) -> None:
    said = zn("container", "ls")
    assert said.code == 0
    assert "demo" in said.out
    assert "running" in said.out
    (listed,) = msgspec.json.decode(zn("container", "ls", "--json").out, type=list[Container])
    assert (listed.name, listed.state, listed.spec) == ("demo", "running", SPEC)


def test_ls_of_nothing_says_so(served: HostNode, zn: Zn) -> None:
    zn("container", "rm", "demo")
    until_gone(zn)
    assert "no containers" in zn("container", "ls").out


def until_gone(zn: Zn) -> None:
    for _ in range(200):
        if zn("container", "ls", "--json").json() == []:
            return
    pytest.fail("the container is still there")


def test_show_tells_where_core_x_answers(served: HostNode, zn: Zn) -> None:
    said = zn("container", "show", "demo")
    assert said.code == 0
    assert "port 9001" in said.out
    shown = container(zn("container", "show", "demo", "--json"))
    assert shown.corex
    assert (shown.corex.port, shown.corex.fingerprint) == (9001, "cd" * 32)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["show", "gone"], id="show"),
        pytest.param(["start", "gone"], id="start"),
        pytest.param(["stop", "gone"], id="stop"),
        pytest.param(["limit", "gone"], id="limit"),
        pytest.param(["wait", "gone"], id="wait"),
        pytest.param(["stats", "gone"], id="stats"),
        pytest.param(["pause", "gone"], id="pause"),
        pytest.param(["resume", "gone"], id="resume"),
        pytest.param(["rm", "gone"], id="rm"),
    ],
)
def test_a_container_that_is_not_there_is_exit_code_3(served: HostNode, zn: Zn, words: list[str]) -> None:
    said = zn("container", *words)
    assert (said.code, said.out) == (3, "")
    assert (
        said.err
        == "zn: cannot find container 'gone': there is none; list the containers to see their names\n"
    )
    assert not list((served.folder.parent / "config").glob("*.token"))


def test_stop_waits_until_its_processes_have_ended(served: HostNode, zn: Zn) -> None:
    record = observe_record(served.folder / "containers" / "demo")
    assert record
    said = zn("container", "stop", "demo", "--json")
    assert (said.code, container(said).state) == (0, "stopped")
    assert not is_alive(record)
    assert zn("container", "stop", "demo").code == 0


def test_limit_changes_what_is_given_and_what_cannot_be_is_told(served: HostNode, zn: Zn) -> None:
    zn("container", "stop", "demo")
    said = zn("container", "limit", "demo", "--cpus", "0.5", "--memory-high", "100", "--json")
    assert (said.code, container(said).spec.limits) == (0, Limits(cpus=0.5, memory_high_mib=100))
    said = zn("container", "limit", "demo", "--memory-high", "0", "--processes", "99", "--json")
    assert container(said).spec.limits == Limits(cpus=0.5, processes=99)
    said = zn("container", "limit", "demo", "--read-bps", "10M", "--write-iops", "50", "--json")
    assert container(said).spec.limits == Limits(cpus=0.5, processes=99, read_bps=10 << 20, write_iops=50)
    said = zn("container", "limit", "demo", "--storage", "32", "--json")
    assert container(said).spec.limits.storage_mib == 32
    zn("container", "limit", "demo", "--storage", "64")
    zn("container", "limit", "demo", "--send-bps", "1M", "--receive-bps", "2M")
    said = zn("container", "show", "demo", "--json")
    assert (container(said).spec.limits.send_bps, container(said).spec.limits.receive_bps) == (
        1 << 20,
        2 << 20,
    )
    zn("container", "limit", "demo", "--send-bps", "0", "--receive-bps", "0")
    said = zn("container", "limit", "demo", "--read-bps", "0", "--write-iops", "0", "--json")
    assert container(said).spec.limits == Limits(cpus=0.5, processes=99)
    assert zn("container", "limit", "demo", "--cpu-weight", "0").code == 2
    said = zn("container", "limit", "demo", "--cpus", "1024")
    assert said.code == 3
    assert "cannot allow container demo 1024 processors: the node has" in said.err


def test_wait_ends_with_the_container_or_with_the_time(served: HostNode, zn: Zn) -> None:
    said = zn("container", "wait", "demo", "--for", "0")
    assert said.code == 1
    assert "container demo is running after 0 s" in said.err
    zn("container", "stop", "demo")
    assert zn("container", "wait", "demo").code == 0
    said = zn("container", "stats", "demo")
    assert said.code == 3
    assert "cannot measure container demo: it is stopped" in said.err


def test_pause_of_what_is_stopped_says_what_to_do(served: HostNode, zn: Zn) -> None:
    zn("container", "stop", "demo")
    for verb in ("pause", "resume"):
        said = zn("container", verb, "demo")
        assert (said.code, said.out) == (3, "")
        assert said.err == f"zn: cannot {verb} container demo: it is stopped; start it first\n"


def test_what_cannot_start_is_exit_code_1_with_the_node_s_words(served: HostNode, zn: Zn) -> None:
    zn("container", "stop", "demo")
    said = zn("container", "start", "demo")
    assert said.code == 1
    assert "container demo is failed, not running: " in said.err


def test_rm_removes_the_container_with_its_token(served: HostNode, contexts_file: Path, zn: Zn) -> None:
    keep_token(contexts_file)
    assert zn("container", "rm", "demo").code == 0
    until_gone(zn)
    assert not (contexts_file.parent / "local-demo.token").exists()


def keep_token(contexts_file: Path) -> None:
    contexts.write_token(contexts_file, "local-demo", TOKEN)


def create(zn: Zn, *words: str, name: str = "demo", image: str = SPEC.image) -> Said:
    return zn("container", "create", name, "--image", image, "--json", *words)


def test_create_keeps_a_token_for_its_owner_only_and_the_same_one_ever_after(
    served: HostNode, contexts_file: Path, zn: Zn
) -> None:
    first = create(zn, name="web")  # nothing serves the image here
    assert first.code == 1
    file = contexts_file.parent / "local-web.token"
    token = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token) >= 43
    assert token not in contexts_file.read_text() + first.out + first.err
    made = container(first)
    assert made.spec.token_sha256 == hashlib.sha256(token.encode()).hexdigest()

    assert container(create(zn, name="web")).spec == made.spec
    assert file.read_text().strip() == token


def test_create_of_what_runs_already_changes_nothing_and_remembers_core_x(
    served: HostNode, contexts_file: Path, zn: Zn
) -> None:
    keep_token(contexts_file)
    before = container(zn("container", "show", "demo", "--json"))
    said = create(zn)
    assert (said.code, container(said)) == (0, before)
    endpoint = contexts.choose(contexts_file).container["demo"]
    assert endpoint == contexts.CoreXEndpoint("127.0.0.1:9001", "cd" * 32, "local-demo.token")
    assert contexts.read_token(contexts_file, endpoint) == TOKEN
    assert create(zn).code == 0

    assert zn("container", "rm", "demo").code == 0
    assert contexts.choose(contexts_file).container == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["-p", "http"], "cannot publish 'http': it is not NODE:CONTAINER", id="port"),
        pytest.param(["-p", "80:70000"], "cannot publish '80:70000'", id="port out of range"),
        pytest.param(["-p", "80:80/sctp"], "cannot publish '80:80/sctp'", id="protocol"),
        pytest.param(["-e", "NAME"], "cannot set 'NAME': it is not NAME=VALUE", id="variable"),
        pytest.param(["--memory", "1"], "cannot create the container: .*memory_mib", id="memory"),
        pytest.param(["--restart", "sometimes"], "cannot create the container: .*restart", id="policy"),
    ],
)
def test_a_command_line_that_makes_no_spec_is_exit_code_2(
    served: HostNode, zn: Zn, words: list[str], message: str
) -> None:
    said = create(zn, *words, name="web")
    assert (said.code, said.out) == (2, "")
    assert re.search(message, said.err), said.err
    (listed,) = msgspec.json.decode(zn("container", "ls", "--json").out, type=list[Container])
    assert listed.name == "demo"


@pytest.mark.parametrize(
    ("name", "words", "image", "message"),
    [
        pytest.param("web", ["-p", "8443:80"], SPEC.image, "the node's API has it", id="port of the API"),
        pytest.param("web", [], "ftp://x/y", "cannot read image reference", id="reference"),
        pytest.param("Web", [], SPEC.image, "cannot accept the parameters", id="name"),
    ],
)
def test_what_the_node_refuses_is_exit_code_3(
    served: HostNode, zn: Zn, name: str, words: list[str], image: str, message: str
) -> None:
    said = create(zn, *words, name=name, image=image)
    assert said.code == 3
    assert message in said.err


def test_nobody_at_the_address_is_exit_code_4(served: HostNode, contexts_file: Path, zn: Zn) -> None:
    write_context(contexts_file, served, address="127.0.0.1:1")
    assert create(zn).code == 4


def test_rename_keeps_the_token(served: HostNode, contexts_file: Path, zn: Zn) -> None:
    keep_token(contexts_file)
    said = zn("container", "rename", "demo", "shop")
    assert (said.code, "stop it first" in said.err) == (3, True)
    zn("container", "stop", "demo")
    said = zn("container", "rename", "demo", "shop", "--json")
    assert (said.code, container(said).name) == (0, "shop")
    assert contexts_file.parent.joinpath("local-shop.token").read_text() == f"{TOKEN}\n"
    assert not contexts_file.parent.joinpath("local-demo.token").exists()


def test_an_export_that_is_refused_leaves_no_file(served: HostNode, zn: Zn, tmp_path: Path) -> None:
    zn("container", "stop", "demo")
    file = tmp_path / "demo.tar"
    said = zn("container", "export", "demo", str(file))
    assert (said.code, "its files end with it; start it first" in said.err) == (3, True)
    assert list(tmp_path.glob("demo*")) == []
    file.write_text("precious")
    assert "there is one" in zn("container", "export", "demo", str(file)).err
    assert file.read_text() == "precious"


def test_a_commit_that_is_refused_says_why(served: HostNode, zn: Zn) -> None:
    for image, told in (("../shop", "is no name"), ("shop:1", "its image is not here any more")):
        said = zn("container", "commit", "demo", image)
        assert (said.code, told in said.err) == (3, True), said


def test_create_takes_every_part_of_a_spec(served: HostNode, zn: Zn) -> None:
    words = ["--hostname", "shop.example.com", "--read-only", "--cap-drop", "cap_chown", "--priority", "7"]
    words += ["--tmpfs", "/run:size=1M,mode=0750,exec", "--tmpfs", "/tmp", "-l", "app=shop", "--ipv4"]
    said = zn(
        "container", "create", "shop", "--image", SPEC.image, *words, "10.88.0.77", "--wait", "0", "--json"
    )
    spec = container(said).spec
    assert (spec.hostname, spec.read_only, spec.drop_capabilities) == ("shop.example.com", True, ("CHOWN",))
    assert spec.tmpfs == (TmpfsMount("/run", 1, 0o750, executable=True), TmpfsMount("/tmp"))
    assert (spec.labels, spec.priority, spec.ipv4) == ({"app": "shop"}, 7, "10.88.0.77")
    assert [one["name"] for one in listed(zn, "app=shop")] == ["shop"]
    assert [one["name"] for one in listed(zn, "app")] == ["shop"]
    assert listed(zn, "app=other") == []
    for wrong in (["--tmpfs", "run"], ["--tmpfs", "/run:size"], ["--cap-drop", "SYS_ADMIN"], ["-l", "app"]):
        assert zn("container", "create", "x", "--image", SPEC.image, *wrong).code == 2


def test_create_takes_a_plan(served: HostNode, zn: Zn, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan = {"processes": {"db": {"argv": ["db"]}, "web": {"after": {"db": "ready"}}}}
    file.write_text(json.dumps(plan))
    words = ["container", "create", "shop", "--image", SPEC.image, "--wait", "0"]
    assert container(zn(*words, "--plan", str(file), "--json")).spec.plan == plan
    file.write_text(json.dumps({"processes": {"db": {"after": {"db": "ready"}}}}))
    said = zn(*words, "--update", "--plan", str(file))
    assert said.code == 3
    assert "db would start after itself: db after db" in said.err
    for wrong in ("", "[]", "{"):
        file.write_text(wrong)
        assert zn(*words, "--update", "--plan", str(file)).code == 2
    assert zn(*words, "--plan", str(tmp_path / "absent")).code == 2


def listed(zn: Zn, label: str) -> list[dict[str, object]]:
    found = zn("container", "ls", "--label", label, "--json").json()
    assert isinstance(found, list)
    return found


def test_create_takes_an_order_and_a_health_check(served: HostNode, zn: Zn) -> None:
    words = [
        "--after",
        "demo",
        "--health-command",
        "test -e '/a b'",
        "--health-interval",
        "2",
        "--health-restart",
    ]
    made = zn("container", "create", "shop", "--image", SPEC.image, *words, "--wait", "0", "--json")
    spec = container(made).spec
    assert spec.after == {"demo": "running"}
    assert spec.health == HealthCheck(("test", "-e", "/a b"), interval=2.0, restart=True)
    words = [
        "--after",
        "shop:healthy",
        "--health-port",
        "80",
        "--health-path",
        "/well",
        "--health-start",
        "9",
    ]
    made = zn("container", "create", "next", "--image", SPEC.image, *words, "--wait", "0", "--json")
    spec = container(made).spec
    assert (spec.after, spec.health) == (
        {"shop": "healthy"},
        HealthCheck(port=80, path="/well", start_period=9),
    )
    said = zn(
        "container", "create", "shop", "--image", SPEC.image, "--after", "next", "--update", "--wait", "0"
    )
    assert said.code == 3
    assert "itself: shop after next after shop" in said.err
    for wrong in (["--health-command", "'"], ["--health-port", "0"], ["--after", "demo:happy"]):
        assert zn("container", "create", "x", "--image", SPEC.image, *wrong).code == 2
