"""The file of what a Core-X keeps: of one spec, whatever of it may change while the container runs."""

import os
from pathlib import Path

import msgspec
import pytest

from core0.containers.kept import open_kept
from core0.wire.types import ContainerSpec, Limits

SPEC = ContainerSpec("http://127.0.0.1:9/demo/", "ab" * 32)


def content(folder: Path, spec: ContainerSpec) -> bytes:
    descriptor = open_kept(folder, spec)
    try:
        return os.pread(descriptor, 100, 0)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("changed", "is_there"),
    [
        pytest.param({}, True, id="started again"),
        pytest.param({"limits": Limits(memory_mib=99), "labels": {"a": "b"}}, True, id="other limits"),
        pytest.param({"token_sha256": "cd" * 32}, False, id="somebody else's"),
        pytest.param({"image": "http://127.0.0.1:9/other/"}, False, id="another image"),
    ],
)
def test_it_is_there_again_for_the_same_container_only(
    tmp_path: Path, changed: dict[str, object], is_there: bool
) -> None:
    descriptor = open_kept(tmp_path, SPEC)
    os.pwrite(descriptor, b"kept", 0)
    os.close(descriptor)
    spec = msgspec.structs.replace(SPEC, **changed)
    assert content(tmp_path, spec) == (b"kept" if is_there else b"")
    assert content(tmp_path, SPEC) == (b"kept" if is_there else b""), "what it was before is gone"
    assert len(list(tmp_path.iterdir())) == 1


def test_no_link_is_followed(tmp_path: Path) -> None:
    descriptor = open_kept(tmp_path, SPEC)
    os.close(descriptor)
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        open_kept(tmp_path, SPEC)
