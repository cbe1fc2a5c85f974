"""apt in its private root, against the archive that this machine uses; skipped only if that is out of reach."""

import hashlib
from pathlib import Path

import pytest

from image import debian, fetch
from image.debian import Apt, AptError, Mirror
from image.errors import ImageError
from image.fetch import Cache, Wanted


@pytest.fixture(scope="module")
def mirror() -> Mirror:
    try:
        return debian.served(debian.machine_mirror(), "trixie")
    except ImageError as error:
        pytest.skip(f"the archive is out of reach: {error}")


@pytest.fixture(scope="module")
def apt(mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Apt:
    made = Apt(tmp_path_factory.mktemp("apt"), mirror, "trixie", "amd64")
    made.update(["libgmp10"])
    return made


def test_a_package_comes_with_what_it_needs_but_without_what_is_assumed(apt: Apt) -> None:
    names = {file.name for file in apt.resolve(["libnftables1"])}
    assert {"libnftables1", "libmnl0", "libc6"} <= names
    assert "libgmp10" not in names


def test_the_checksum_is_the_one_of_the_file_that_the_mirror_serves(apt: Apt, tmp_path: Path) -> None:
    (found,) = [file for file in apt.resolve(["libmnl0"]) if file.name == "libmnl0"]
    wanted = Wanted(found.name, found.sha256, found.size, (apt.mirror.url(found.archive, found.path),))
    fetch.fetch_all([wanted], Cache(tmp_path))
    assert hashlib.sha256(Cache(tmp_path).read(wanted)).hexdigest() == found.sha256


def test_the_epoch_is_a_date_that_the_archive_signed(apt: Apt) -> None:
    assert apt.epoch() > 1754697600  # trixie was released on 2025-08-09


def test_an_unknown_package_is_named(apt: Apt) -> None:
    with pytest.raises(
        AptError, match="cannot run apt-get install: Unable to locate package no-such-package"
    ):
        apt.resolve(["no-such-package"])


def test_what_cannot_be_installed_is_told_with_the_dependency(mirror: Mirror, tmp_path: Path) -> None:
    apt = Apt(tmp_path, mirror, "trixie", "amd64")
    apt.update(["nginx-common"])
    with pytest.raises(AptError, match=r"nginx : (Pre)?Depends: nginx-common|nginx.*nginx-common"):
        apt.resolve(["nginx"])


def test_a_suite_that_the_mirror_does_not_serve_is_refused(mirror: Mirror) -> None:
    with pytest.raises(AptError, match="does not serve warty; try --mirror"):
        debian.served(mirror, "warty")


def test_an_archive_that_no_key_signed_is_refused(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = tmp_path / "empty.gpg"
    keyring.write_bytes(b"")
    monkeypatch.setattr(debian, "KEYRING", keyring)
    with pytest.raises(
        AptError, match=r"cannot run apt-get update: .*(not signed|signature|NO_PUBKEY|keyring)"
    ):
        Apt(tmp_path / "root", mirror, "trixie", "amd64").update([])


def test_without_a_keyring_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "none.gpg")
    apt = Apt(tmp_path, debian.with_security("http://127.0.0.1:1/debian"), "trixie", "amd64")
    with pytest.raises(AptError, match="install the package debian-archive-keyring"):
        apt.update([])


def test_the_security_archive_is_the_sibling_of_a_named_mirror() -> None:
    mirror = debian.with_security("http://127.0.0.1/debian/")
    assert mirror.url("debian-security", "pool/a.deb") == "http://127.0.0.1/debian-security/pool/a.deb"


def test_an_archive_of_snapshots_has_the_archive_inside_its_address() -> None:
    mirror = debian.named_mirror("http://127.0.0.1/archive/{archive}/20261101T000000Z/")
    assert mirror.url("debian-security", "pool/a.deb") == (
        "http://127.0.0.1/archive/debian-security/20261101T000000Z/pool/a.deb"
    )
