"""dpkg's database in an image, as dpkg itself reads it."""

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from image import deb, dpkg
from tests.image.test_deb import ar, info, tar

pytestmark = pytest.mark.skipif(not shutil.which("dpkg"), reason="needs dpkg")
CONTROL = """Package: {name}
Version: 1.2-3
Architecture: amd64
{more}Maintainer: me <me@example.com>
Description: for tests
 in two lines
"""


def package(name: str, more: str = "") -> bytes:
    control = tar(
        (info("./control"), CONTROL.format(name=name, more=more).encode()),
        (info("./conffiles"), b"/etc/tool.conf\nremove-on-upgrade /etc/old.conf\n"),
        (info("./postinst", mode=0o755), b"#!/bin/sh\n"),
    )
    data = tar((info("./etc/tool.conf"), b"a = 1\n"), (info("./usr/bin/tool", mode=0o755), b"#!"))
    return ar(
        [
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", lzma.compress(control)),
            ("data.tar.xz", lzma.compress(data)),
        ]
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the database of two packages."""
    for entry in dpkg.database([package("tool"), package("libtool1", "Multi-Arch: same\n")]):
        place = tmp_path / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(entry.content)
        place.chmod(entry.mode)
    return tmp_path


def asked(root: Path, *words: str) -> str:
    command = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_dpkg_takes_the_packages_for_installed(root: Path) -> None:
    shown = asked(root, "--show", "--showformat", "${binary:Package} ${Version} ${Status}\n")
    assert shown == "libtool1:amd64 1.2-3 install ok installed\ntool 1.2-3 install ok installed\n"


def test_dpkg_knows_whose_a_file_is_and_which_scripts_there_are(root: Path) -> None:
    assert asked(root, "--listfiles", "tool").split() == ["/.", "/etc/tool.conf", "/usr/bin/tool"]
    assert asked(root, "--control-list", "libtool1").split() == ["postinst"]
    assert (root / "var/lib/dpkg/info/libtool1:amd64.postinst").stat().st_mode & 0o111


def test_settings_are_noted_as_they_came(root: Path) -> None:
    shown = asked(root, "--show", "--showformat", "${Conffiles}", "tool")
    assert shown.strip() == "/etc/tool.conf 9358f2568f3316fe7e78a4fa7707c414"


def test_a_package_without_a_control_member_is_refused() -> None:
    with pytest.raises(deb.DebError, match=r"cannot read tool: it has no control\.tar"):
        deb.control(ar([("debian-binary", b"2.0\n")]), "tool")
