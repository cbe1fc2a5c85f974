"""What happens when the archive has dropped what the lock names."""

import msgspec
import pytest

from image import sources
from image.fetch import GoneError
from image.lock import DebFile, Lock

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
