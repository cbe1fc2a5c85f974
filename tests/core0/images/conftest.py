"""What tests of images share: the image's own mkfs.erofs on this host, and a registry that can misbehave."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.image import cache_folder
from core0.wire import paths
from image import deb, lock, runtime
from image.fetch import Cache, Wanted
from tests.core0.images.registry import Registry

ROOT = Path(__file__).parents[3]
# What mkfs.erofs needs, and what brings it.
PACKAGES = {
    "erofs-utils", "gcc-14-base", "libc6", "libdeflate0", "libgcc-s1", "liblz4-1", "liblzma5", "libpcre2-8-0",
    "libselinux1", "libstdc++6", "libuuid1", "libxxhash0", "libzstd1", "zlib1g",
}  # fmt: skip


# Until an image is built from nothing.
_BUILD_SECONDS = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test of them comes first may wait for a build."""
    for item in items:
        if "programs" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(_BUILD_SECONDS))


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the storage part's, whose mkfs.erofs is the image's; a build brings what the cache lacks."""
    if os.uname().machine != "x86_64":
        pytest.skip("needs amd64, as the image's mkfs.erofs does")
    locked = lock.load(ROOT / "initramfs/virt.amd64.lock.json")
    cache = Cache(cache_folder())
    wanted = [Wanted(one.name, one.sha256, one.size, ()) for one in locked.packages if one.name in PACKAGES]
    if not all(map(cache.has, wanted)):
        request.getfixturevalue("image")
    folder = tmp_path_factory.mktemp("programs")
    entries = [entry for one in wanted for entry in deb.read(cache.read(one), one.name)]
    runtime.write({entry.path: entry for entry in entries}.values(), folder / "image")
    words = runtime.command(folder / "image", "amd64", "mkfs.erofs")
    script = folder / "usr/bin/mkfs.erofs"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
    script.chmod(0o755)
    return folder


@pytest.fixture
def mkfs(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the puller find the image's mkfs.erofs."""
    monkeypatch.setattr(paths, "STORAGE", str(programs))


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry on this machine."""
    with Registry() as running:
        yield running


@pytest.fixture
def mounted(tmp_path: Path) -> Callable[[Path], "contextmanager[Path]"]:
    """Mounts a layer as the node's kernel would."""
    if os.geteuid() != 0 or "erofs" not in Path("/proc/filesystems").read_text():
        pytest.skip("needs root and a kernel with EROFS")

    @contextmanager
    def mount(layer: Path) -> Iterator[Path]:
        place = Path(tempfile.mkdtemp(dir=tmp_path, prefix="mounted"))
        subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro,nodev,nosuid", layer, place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)

    return mount
