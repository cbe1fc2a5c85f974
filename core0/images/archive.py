"""An OCI layout that comes as one tar: read once, as it passes, its blobs kept until the image is made of them.

Which blobs the image needs stands in an index that may come last, so all are kept, each verified by the digest that
it is called by. A tar is looked at as layers are (`core0.images.tar`); here, links have no place either.

Sources: OCI image specification 1.1 (image-layout.md); what `docker save` writes since Docker 25 is one, too.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from core0.images.model import LARGEST_MANIFEST, Descriptor, PullError
from core0.images.room import STEP
from core0.images.tar import TarCheck
from corex.files.untar import TarError

MOST_BLOBS = 10_000
LARGEST = 8 << 30
_PIECE = 1 << 20
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_FOLDER, _REGULAR = "5", "\x000" + "7"

Sink = Callable[[bytes], None]


class Spool:
    """The blobs of an archive, asked like a server of them.

    Args:
        folder: where they are kept; it is made.
        name: of the archive, for messages.
        check_room: looks whether there is room for so many bytes more.
    """

    def __init__(self, folder: Path, name: str, check_room: Callable[[int], None]) -> None:
        self._check_room = check_room
        self._folder = folder
        self._name = name
        self._index = b""
        self._seen: set[str] = set()
        self._bytes = 0
        self._looked = 0
        self._open = ExitStack()  # the blob that is being kept
        folder.mkdir(mode=0o700)

    def fill(self, pieces: Iterator[bytes]) -> None:
        """Take a whole archive.

        Raises:
            PullError: it is none, or not taken: with the entry and the reason.
        """
        try:
            with self._open:
                self._read(pieces)
        except TarError as error:
            raise PullError(f"cannot use {self._name}: {error}") from None
        if not self._index:
            raise PullError(
                f"cannot use {self._name}: it has no index.json, so it is no OCI layout; make one of what an older "
                "docker saved: skopeo copy docker-archive:FILE oci-archive:OTHER"
            )

    def _read(self, pieces: Iterator[bytes]) -> None:
        check, begun = TarCheck(self._entry), False
        for piece in pieces:
            if not begun:
                _check_plain(piece)
                begun = True
            check.feed(piece)
            if check.ended:  # who sends for ever shall not be heard for ever
                break
        check.end()

    def small(self, path: str, _: object = None) -> tuple[bytes, str]:
        """A document that no digest names: there is the index."""
        if path != "index.json":
            raise PullError(f"cannot use {self._name}: it has no {path}")
        return self._index, "application/json"

    def blob(self, descriptor: Descriptor, first: int) -> Iterator[bytes]:
        """A blob's bytes from one on. Raises PullError: the archive does not have it."""
        try:
            with self._path(descriptor.digest.removeprefix("sha256:")).open("rb") as file:
                size = file.seek(0, 2)
                if size != descriptor.size:
                    said = f"it has {size} bytes, not the {descriptor.size} that its parent names"
                    raise PullError(f"cannot use blob {descriptor.digest}: {said}")
                file.seek(first)
                while piece := file.read(_PIECE):
                    yield piece
        except FileNotFoundError:
            raise PullError(
                f"cannot use {self._name}: it has no blob {descriptor.digest}; pack all of the layout"
            ) from None

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256

    def _entry(self, kind: str, path: str, size: int) -> Sink | None:
        name = path.removeprefix("./").rstrip("/")
        if kind == _FOLDER:
            return None
        if kind not in _REGULAR:
            raise TarError(
                f"{path[:200]!a} is no file and no folder; an OCI layout has no links: make one of what an older "
                "docker saved: skopeo copy docker-archive:FILE oci-archive:OTHER"
            )
        if name in self._seen:
            raise TarError(f"it has {path[:200]!a} twice")
        self._seen.add(name)
        self._bytes += size
        if self._bytes > LARGEST or len(self._seen) > MOST_BLOBS:
            raise TarError(f"it is larger than {LARGEST >> 30} GiB, or has over {MOST_BLOBS} files; split it")
        return self._sink(name, size)

    def _sink(self, name: str, size: int) -> Sink | None:
        """Who takes a file's bytes, and at its end an empty piece."""
        blob = _BLOB.fullmatch(name)
        if blob:
            return self._keep(blob[1])
        if name != "index.json":
            return None
        if size > LARGEST_MANIFEST:
            raise TarError(f"its index.json is over {LARGEST_MANIFEST} bytes")
        return self._take_index

    def _take_index(self, piece: bytes) -> None:
        self._index += piece

    def _keep(self, sha256: str) -> Sink:
        file, digest = self._path(sha256).open("xb"), hashlib.sha256()
        self._open.callback(file.close)

        def take(piece: bytes) -> None:
            if not piece:
                self._open.close()
                if digest.hexdigest() != sha256:
                    raise TarError(
                        f"its blob {sha256} has another digest; it is damaged or was tampered with"
                    )
                return
            self._looked -= len(piece)
            if self._looked < 0:
                self._check_room(STEP)
                self._looked = STEP
            digest.update(piece)
            file.write(piece)

        return take


def _check_plain(first: bytes) -> None:
    """Raises TarError: it is compressed."""
    packed = next((name for magic, name in _PACKED.items() if first.startswith(magic)), None)
    if packed:
        raise TarError(f"it is compressed by {packed}; unpack it to a plain tar")
