"""The web console's files: our own, and those of npm packages, each compressed as browsers take it.

On a node they stand beside Core-X's code, `NAME.gz` each: Core-X sends them as they are.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from image import npm, runtime
from image.errors import ImageError
from image.lock import Lock
from image.manifest import NodeManifest
from image.node import OWN
from image.tree import Entry, file

# zlib's number for gzip's frame, which then has neither a name nor a time.
_GZIP = 31
# One compressor decides what the bytes are, wherever an image is built: the image's own.
_COMPRESS = f"""
import sys, zlib
while size := sys.stdin.buffer.readline():
    made = zlib.compressobj(9, zlib.DEFLATED, {_GZIP})
    content = made.compress(sys.stdin.buffer.read(int(size))) + made.flush()
    sys.stdout.buffer.write(b"%d\\n" % len(content) + content)
"""


class ConsoleError(ImageError):
    """The console cannot be put together: a file is missing, or two have one name."""


def files(manifest: NodeManifest, lock: Lock, contents: Mapping[str, bytes], root: Path) -> list[Entry]:
    """Every file of the console, with its path in the console's folder.

    Args:
        manifest: which files of which packages it has, and where its own are.
        lock: the packages.
        contents: their archives, by checksum.
        root: of the repository.

    Raises:
        ConsoleError: a file that the manifest names is in no package, or one of ours has its name.
    """
    folder = root / manifest.console.source
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    own = [file(str(path.relative_to(folder)), path.read_bytes(), OWN) for path in paths]
    vendored = _vendored(manifest.console.files, lock, contents)
    for twice in {one.path for one in own} & {one.path for one in vendored}:
        raise ConsoleError(f"cannot place {twice} of the console: our own folder and a package have it")
    return [*own, *vendored]


def _vendored(wanted: Mapping[str, str], lock: Lock, contents: Mapping[str, bytes]) -> list[Entry]:
    unpacked = {one.name: npm.read(contents[one.sha256], one.name) for one in lock.npm}
    found = []
    for target, source in wanted.items():
        package, _, path = source.partition(":")
        if path not in unpacked.get(package, {}):
            raise ConsoleError(f"cannot find {source}: no package of [console] brings it; correct its files")
        found.append(file(target, unpacked[package][path], package))
    return found


def packed(found: Sequence[Entry], folder: str, command: Sequence[str]) -> list[Entry]:
    """The console's files as an image has them.

    Args:
        found: from `files`.
        folder: where they are in the image.
        command: what starts the image's Python (`runtime.command`).
    """
    request = b"".join(b"%d\n%s" % (len(one.content), one.content) for one in found)
    done = runtime.run([*command, "-sSPB", "-c", _COMPRESS], request)
    if done.returncode:
        raise ConsoleError(f"cannot compress the console: {done.stderr.decode(errors='replace').strip()}")
    contents = _answers(done.stdout)
    return [
        file(f"{folder}/{one.path}.gz", content, one.origin)
        for one, content in zip(found, contents, strict=True)
    ]


def _answers(answer: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(answer):
        end = answer.index(b"\n", offset)
        size = int(answer[offset:end])
        offset = end + 1 + size
        yield answer[end + 1 : offset]


def write(found: Iterable[Entry], folder: Path) -> None:
    """Put the console's files into a folder of this host as a node has them, for a Core-X that runs here."""
    for one in found:
        target = folder / f"{one.path}.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(zlib.compress(one.content, 9, _GZIP))


def licences(lock: Lock, contents: Mapping[str, bytes]) -> dict[str, str]:
    """What the npm packages of a lock say of their licences, by package."""
    return {one.name: npm.licence(npm.read(contents[one.sha256], one.name)) for one in lock.npm}
