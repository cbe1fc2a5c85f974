"""The database of dpkg in a container image: what dpkg would have noted, had it installed the packages.

Formats: deb-control(5); `status`, `info/format` and `info/NAME.*` as dpkg(1) keeps them below /var/lib/dpkg. Packages
of which several architectures can be installed side by side are noted as `NAME:ARCH`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.parser import Parser
from typing import NamedTuple

from image import deb
from image.tree import Entry, file

_FOLDER = "var/lib/dpkg"
_ORIGIN = "dpkg's database"
# Maintainer scripts are called by the name that they have here.
_SCRIPTS = frozenset(("config", "postinst", "postrm", "preinst", "prerm"))


class _Noted(NamedTuple):
    """A package: the files of its control member, and those that it installs."""

    described: Mapping[str, bytes]
    entries: Sequence[Entry]


def database(packages: Iterable[bytes]) -> list[Entry]:
    """The files that say of Debian packages that they are installed, whatever of them was dropped."""
    noted = [_Noted(deb.control(package, "package"), deb.read(package, "package")) for package in packages]
    status = "\n".join(map(_paragraph, noted))
    return [
        file(f"{_FOLDER}/status", status.encode(), _ORIGIN),
        file(f"{_FOLDER}/info/format", b"1\n", _ORIGIN),
        *(entry for one in noted for entry in _info(one)),
    ]


def _name(control: str) -> str:
    fields = Parser().parsestr(control)
    own = str(fields["Package"])
    return f"{own}:{fields['Architecture']}" if fields["Multi-Arch"] == "same" else own


def _paragraph(noted: _Noted) -> str:
    """What a package says of itself, its state behind its name, and the checksums of its settings as they came."""
    first, _, others = noted.described["control"].decode().strip().partition("\n")
    return f"{first}\nStatus: install ok installed\n{others}\n{''.join(_settings(noted))}"


def _settings(noted: _Noted) -> Iterator[str]:
    there = {f"/{entry.path}": entry.content for entry in noted.entries}
    paths = [path for path in noted.described.get("conffiles", b"").decode().split("\n") if path in there]
    if paths:
        yield "Conffiles:\n"
    for path in paths:
        yield f" {path} {hashlib.md5(there[path], usedforsecurity=False).hexdigest()}\n"


def _info(noted: _Noted) -> Iterator[Entry]:
    place = f"{_FOLDER}/info/{_name(noted.described['control'].decode())}"
    for kind, content in noted.described.items():
        if kind != "control":
            yield file(f"{place}.{kind}", content, _ORIGIN, 0o755 if kind in _SCRIPTS else 0o644)
    paths = "".join(f"/{entry.path}\n" for entry in noted.entries)
    yield file(f"{place}.list", f"/.\n{paths}".encode(), _ORIGIN)
