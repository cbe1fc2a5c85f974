"""Reading Debian packages: an ar archive (deb(5)) around a compressed tar of the files.

Nothing is run and nothing is written: a package becomes a list of entries. Maintainer scripts are in the
control member: they are kept for dpkg's database where an image has one, never executed.
"""

import io
import lzma
import tarfile
from collections.abc import Iterator

import zstandard

from image.errors import ImageError
from image.tree import Entry, Kind, TreeError, normalise

_MAGIC = b"!<arch>\n"


class DebError(ImageError):
    """A file is not a Debian package that can be read."""


def members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of an ar archive, name and bytes (ar(5), the common variant of short names)."""
    if not archive.startswith(_MAGIC):
        raise DebError("not an ar archive")
    offset = len(_MAGIC)
    while offset < len(archive):
        header = archive[offset : offset + 60]
        if len(header) != 60 or header[58:] != b"`\n":
            raise DebError(f"no ar header at byte {offset}: the file is cut or damaged")
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        size = int(header[48:58])
        content = archive[offset + 60 : offset + 60 + size]
        if len(content) != size:
            raise DebError(f"member {name} is cut: {len(content)} of {size} bytes")
        yield name, content
        offset += 60 + size + size % 2


def read(package: bytes, origin: str) -> list[Entry]:
    """The files of a package as entries; `origin` names it in messages and listings."""
    for name, content in members(package):
        if name.startswith("data.tar"):
            return list(_entries(decompress(name, content), origin))
    raise DebError(f"cannot read {origin}: it has no data.tar")


def control(package: bytes, origin: str) -> dict[str, bytes]:
    """The files of a package's control member by name: `control`, `md5sums`, maintainer scripts and so on."""
    for name, content in members(package):
        if name.startswith("control.tar"):
            with tarfile.open(fileobj=io.BytesIO(decompress(name, content)), mode="r:") as tar:
                found = {normalise(member.name): tar.extractfile(member) for member in tar if member.isreg()}
            return {name: file.read() for name, file in found.items() if file is not None}
    raise DebError(f"cannot read {origin}: it has no control.tar")


def decompress(name: str, content: bytes) -> bytes:
    """Undo the compression that a member's name tells: .xz, .zst, .gz or none."""
    if name.endswith(".xz"):
        return lzma.decompress(content)
    if name.endswith(".zst"):
        return zstandard.ZstdDecompressor().stream_reader(content).read()
    if name.endswith(".tar"):
        return content
    raise DebError(f"cannot read {name}: unknown compression")


def _entries(archive: bytes, origin: str) -> Iterator[Entry]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for member in tar:
            entry = _entry(tar, member, origin)
            if entry.path:
                yield entry


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo, origin: str) -> Entry:
    path = normalise(member.name)
    if member.isdir():
        return Entry(path, Kind.FOLDER, member.mode, b"", origin, (0, 0), member.uid, member.gid)
    if member.issym():
        return Entry(path, Kind.LINK, 0o777, member.linkname.encode(), origin)
    if not member.isreg() and not member.islnk():
        raise TreeError(f"cannot read {origin}: {member.name} is neither file, folder nor link")
    content = tar.extractfile(member)
    if content is None:
        raise DebError(f"cannot read {origin}: hard link {member.name} leads nowhere")
    return Entry(path, Kind.FILE, member.mode, content.read(), origin, (0, 0), member.uid, member.gid)
