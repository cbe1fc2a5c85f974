"""The server as a process of its own: started, found, replaced, stopped, and never confused with a stranger."""

import os
from pathlib import Path

import msgspec
import pytest

from ci.qemu import process
from cli import serving
from cli.outcome import Failure
from cli.serving import Server


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "boot.ipxe").write_text("#!ipxe\n")
    return folder


async def test_a_server_is_found_again_and_ends_when_told(tmp_path: Path, image: Path) -> None:
    started = serving.start(tmp_path, [str(image)])
    try:
        assert serving.find(tmp_path) == started
        assert started.port > 0
    finally:
        assert await serving.stop(tmp_path)
    assert serving.find(tmp_path) is None
    assert not process.is_alive(started.identity)
    assert not await serving.stop(tmp_path)


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"cannot serve .* it has no boot\.ipxe; build an image first"):
        serving.start(tmp_path, [str(tmp_path)])
    assert serving.find(tmp_path) is None


async def test_a_stranger_with_the_old_number_is_left_alone(tmp_path: Path) -> None:
    own = process.identify(os.getpid())
    assert own is not None
    stranger = Server(process.Identity(own.pid, own.started - 1), 80, ())
    (tmp_path / "server.json").write_bytes(msgspec.json.encode(stranger))
    assert serving.find(tmp_path) is None
    assert not await serving.stop(tmp_path)
