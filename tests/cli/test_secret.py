"""`zn secret` against a node's real API: from a file or a pipe, and never shown."""

import io
import sys
from pathlib import Path

import pytest

from core0.wire.secrets import LARGEST
from tests.cli.conftest import SPEC, Zn
from tests.host_node import HostNode

VALUE = b"correct horse\nbattery\x00staple"


class Pipe:
    """What comes through a pipe."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


def test_the_life_of_a_secret(
    served: HostNode, zn: Zn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no secrets" in zn("secret", "ls").out
    (tmp_path / "value").write_bytes(VALUE)
    said = zn("secret", "set", "db", "--file", str(tmp_path / "value"))
    assert (said.code, said.out) == (0, f"secret db: {len(VALUE)} B\n")
    assert (served.folder / "secrets" / "db").read_bytes() == VALUE
    monkeypatch.setattr(sys, "stdin", Pipe(b"from a pipe\n"))
    assert zn("secret", "set", "db").code == 0
    assert (served.folder / "secrets" / "db").read_bytes() == b"from a pipe\n"
    made = zn(
        "container",
        "create",
        "shop",
        "--image",
        SPEC.image,
        "--secret",
        "db:file=password,uid=33",
        "--wait",
        "0",
    )
    assert "cannot create" not in made.err
    assert "shop" in zn("secret", "ls").out
    said = zn("secret", "rm", "db")
    assert (said.code, said.err) == (
        3,
        "zn: cannot delete secret db: container shop has it; remove that first\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        pytest.param(["set", "db", "--file", "/nowhere"], 2, "cannot read /nowhere", id="no such file"),
        pytest.param(["set", "db"], 2, "cannot keep a secret of 0 bytes", id="nothing"),
        pytest.param(["rm", "gone"], 3, "cannot find secret 'gone'", id="none of that name"),
        pytest.param(["set", "../x", "--file", __file__], 3, "cannot accept", id="a name that climbs"),
    ],
)
def test_what_cannot_be_is_told(
    served: HostNode, zn: Zn, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, told: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(b""))
    said = zn("secret", *words)
    assert said.code == code, said
    assert told in said.err


def test_one_that_is_too_large_is_not_sent(served: HostNode, zn: Zn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(b"x" * (LARGEST + 1)))
    said = zn("secret", "set", "db")
    assert said.code == 2
    assert "give it 1 to 262144" in said.err


@pytest.mark.parametrize("text", ["db:mode=9", "db:uid=x", "db:colour=red", "DB", "db:uid=70000"])
def test_a_secret_of_a_container_that_is_none_is_exit_code_2(served: HostNode, zn: Zn, text: str) -> None:
    assert zn("container", "create", "x", "--image", SPEC.image, "--secret", text).code == 2
