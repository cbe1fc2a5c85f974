"""`zn config`: checked without a node, signed by the operator's key, given to a node's real API."""

from pathlib import Path

import pytest

from core0.wire.config import parse_signature
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
    assert zn("config", "check", str(file)).out == f"{file} is a config; pools: fast; claims: 0\n"
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
    ]


def test_the_schema_is_json(zn: Zn) -> None:
    assert isinstance(zn("config", "schema").json(), dict)
