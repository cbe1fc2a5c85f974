"""`zn config`: checked without a node, signed by the operator's key, given to a node's real API."""

import io
from pathlib import Path

import pytest

from core0.client.client import NodeClient, UnreachableError
from core0.wire.config import ConfigStatus, NodeConfig, parse_signature
from tests.cli.conftest import Zn
from tests.host_node import HostNode

TEXT = """
[storage.pools.fast]
profile = "raid1"
select = { media = ["nvme"], count = 2 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(TEXT)
    return path


def test_a_config_is_checked_without_a_node(zn: Zn, file: Path) -> None:
    assert (
        zn("config", "check", str(file)).out == f"{file} is a config; pools: fast; claims: 0; links: none\n"
    )
    file.write_text(TEXT.replace("raid1", "raid5"))
    said = zn("config", "check", str(file))
    assert (said.code, said.out) == (2, "")
    assert "Invalid enum value 'raid5'" in said.err
    assert "docs/disks.md has an example" in said.err


def test_a_config_is_signed_by_the_operators_key(served: HostNode, zn: Zn, file: Path) -> None:
    assert zn("config", "sign", str(file)).code == 0
    signature = parse_signature(file.with_name("node.toml.sig").read_text())
    served.key.public_key().verify(signature.data, file.read_bytes())


def test_a_node_takes_a_config_and_shows_it(served: HostNode, zn: Zn, file: Path) -> None:
    assert "fast (raid1)" in zn("config", "apply", str(file)).out
    shown = zn("config", "show").out
    assert "fast (raid1)" in shown
    assert [line.split()[0] for line in shown.splitlines()[1:]] == [
        "state",
        "source",
        "why",
        "pools",
        "claims",
        "links",
    ]


LINKS = """
[network.links.lan]
select = { mac = "52:54:00:00:00:99" }
addresses = ["192.0.2.7/24"]
mtu = 1400
"""


def test_a_config_is_tried_and_confirmed_where_the_node_still_answers(
    served: HostNode, zn: Zn, file: Path
) -> None:
    file.write_text(LINKS)
    said = zn("config", "apply", str(file), "--try", "60s")
    assert said.code == 0
    assert [line.split() for line in said.out.splitlines()[1:2]] == [["state", "applied"]]
    assert "lan" in zn("config", "show").out
    again = zn("config", "confirm")
    assert (again.code, "none is on trial" in again.err) == (3, True)


class Person(io.StringIO):
    """Somebody at a terminal who says this."""

    def isatty(self) -> bool:
        """Who sits there is no pipe."""
        return True


def test_a_person_is_asked_whether_to_keep_a_config_that_is_tried(
    served: HostNode, zn: Zn, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(LINKS)
    monkeypatch.setattr("sys.stdin", Person("n\n"))
    said = zn("config", "apply", str(file), "--try", "5m")
    assert (said.code, "the node goes back to the earlier one in" in said.err) == (1, True)
    shown = zn("config", "show").out
    assert "trying" in shown
    assert "goes back in" in shown
    monkeypatch.setattr("sys.stdin", Person("y\n"))
    assert zn("config", "apply", str(file), "--try", "5m").code == 0
    assert "trying" not in zn("config", "show").out


@pytest.mark.parametrize(
    ("reached", "code", "said"),
    [
        pytest.param(False, 1, "it was lost before the node had it", id="the call is lost"),
        pytest.param(True, 0, "No answer yet", id="the answer is lost"),
    ],
)
def test_whether_the_node_had_the_config_is_told_apart(
    served: HostNode, zn: Zn, file: Path, monkeypatch: pytest.MonkeyPatch, reached: bool, code: int, said: str
) -> None:
    put_config = NodeClient.put_config

    async def lose(client: NodeClient, config: NodeConfig, trial: float | None = None) -> ConfigStatus:
        if reached:
            await put_config(client, config, trial)
        raise UnreachableError("cannot reach the node: the connection was reset")

    monkeypatch.setattr(NodeClient, "put_config", lose)
    file.write_text(LINKS)
    found = zn("config", "apply", str(file), "--try", "60s")
    assert (found.code, said in found.err) == (code, True), found.err


def test_links_that_cannot_be_are_refused_with_field_and_remedy(served: HostNode, zn: Zn, file: Path) -> None:
    file.write_text(LINKS.replace("1400", "20"))
    for words in ((), ("--try", "5m")):
        said = zn("config", "apply", str(file), *words)
        assert said.code == 3
        assert "link lan cannot have an MTU of 20; use 576 to 65535" in said.err
    assert "lan" not in zn("config", "show").out


@pytest.mark.parametrize("text", ["", "0", "soon", "-5s", "2h", "60s "])
def test_a_time_that_is_none_is_refused(served: HostNode, zn: Zn, file: Path, text: str) -> None:
    said = zn("config", "apply", str(file), "--try", text)
    assert (said.code, "give a time from 1s to 1h" in said.err) == (2, True)


def test_the_schema_is_json(zn: Zn) -> None:
    assert isinstance(zn("config", "schema").json(), dict)
