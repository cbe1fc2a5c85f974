"""What happens when the archive has dropped what the lock names."""

from pathlib import Path

import msgspec
import pytest

from image import debian, manifest, sources
from image import lock as locks
from image.errors import ImageError
from image.fetch import Cache, GoneError
from image.lock import DebFile, Lock
from image.report import Report
from image.sources import Places

ROOT = Path(__file__).parents[2]

KERNEL = DebFile("linux-image-6.12.117+deb13-cloud-amd64", "6.12.117-1", "amd64", "debian", "k", 1, "0" * 64)
LIBC = DebFile("libc6", "2.41-12", "amd64", "debian", "c", 1, "1" * 64)
LOCK = Lock(1, "virt", "amd64", "", 0, (LIBC, KERNEL))
NEW_KERNEL = msgspec.structs.replace(
    KERNEL, name="linux-image-6.12.120+deb13-cloud-amd64", version="6.12.120-1", sha256="2" * 64
)
NEW_LIBC = msgspec.structs.replace(LIBC, version="2.41-13", sha256="3" * 64)


def test_only_what_is_gone_is_replaced_and_the_change_is_told() -> None:
    found = sources.substitute(LOCK, LOCK, [NEW_LIBC, NEW_KERNEL], [LIBC.name])
    assert found.lock.packages == (NEW_LIBC, KERNEL)
    assert found.substituted == ("libc6 2.41-12 by libc6 2.41-13",)


def test_a_kernel_is_found_although_its_name_bears_its_version() -> None:
    found = sources.substitute(LOCK, LOCK, [NEW_LIBC, NEW_KERNEL], [KERNEL.name])
    assert found.lock.packages == (LIBC, NEW_KERNEL)


def test_what_was_substituted_before_and_is_gone_again_is_replaced_again() -> None:
    once = sources.substitute(LOCK, LOCK, [NEW_KERNEL], [KERNEL.name])
    newest = msgspec.structs.replace(
        NEW_KERNEL, name=NEW_KERNEL.name.replace("120", "130"), version="6.12.130-1"
    )
    twice = sources.substitute(LOCK, once.lock, [newest], [NEW_KERNEL.name])
    assert twice.lock.packages == (LIBC, newest)
    assert twice.substituted == (f"{KERNEL.name} 6.12.117-1 by {newest.name} 6.12.130-1",)


def test_a_package_that_no_longer_exists_stays_an_error() -> None:
    with pytest.raises(GoneError, match="libc6"):
        sources.substitute(LOCK, LOCK, [NEW_KERNEL], [LIBC.name])


DEMO = ROOT / "initramfs/demo.toml"


class Heard(Report):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def outdated() -> Lock:
    """The demo's lock as it would be after the archive dropped its nginx."""
    found = locks.load(locks.path_of(DEMO, "amd64"))
    old = {"version": "1.26.3-2", "path": "pool/main/n/nginx/nginx_1.26.3-2_amd64.deb", "sha256": "0" * 64}
    packages = tuple(
        msgspec.structs.replace(file, **old) if file.name == "nginx" else file for file in found.packages
    )
    return msgspec.structs.replace(found, packages=packages)


@pytest.fixture
def reachable() -> None:
    try:
        debian.served(debian.machine_mirror(), "trixie")
    except ImageError as error:
        pytest.skip(f"the archive is out of reach: {error}")


@pytest.mark.usefixtures("reachable")
def test_a_build_after_a_security_update_goes_on_says_so_and_works_offline_then(
    outdated: Lock, tmp_path: Path
) -> None:
    demo, heard = manifest.load(DEMO), Heard()
    found = sources.obtain(demo, outdated, Places(ROOT, tmp_path), heard)
    (nginx,) = [file for file in found.lock.packages if file.name == "nginx"]
    assert nginx.version != "1.26.3-2"
    assert found.substituted == (f"nginx 1.26.3-2 by nginx {nginx.version}",)
    assert heard.warnings == [
        f"Substituted {found.substituted[0]}: the archive no longer has the locked version"
    ]
    assert sources.contents(found.lock.files, Cache(tmp_path))[nginx.sha256].startswith(b"!<arch>")
    assert sources.obtain(demo, outdated, Places(ROOT, tmp_path, offline=True), Report()) == found


@pytest.mark.usefixtures("reachable")
def test_a_locked_build_after_a_security_update_refuses(outdated: Lock, tmp_path: Path) -> None:
    with pytest.raises(
        GoneError, match="cannot fetch nginx: no source has it any more; run 'zn image lock --update'"
    ):
        sources.obtain(manifest.load(DEMO), outdated, Places(ROOT, tmp_path, locked=True), Report())
