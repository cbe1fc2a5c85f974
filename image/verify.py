"""Checking a build folder: outputs against SHA256SUMS, files of the initramfs against the listing."""

from collections.abc import Iterator
from pathlib import Path

from image import contents, initramfs, outputs
from image.contents import Contents
from image.cpio import CpioError


def problems(folder: Path) -> list[str]:
    """All that is wrong with a build folder, as messages; an empty list means that it is whole."""
    found = [*outputs.mismatches(folder), *_unlisted(folder)]
    return found or list(_wrong_files(folder, contents.load(folder)))


def _unlisted(folder: Path) -> Iterator[str]:
    sums = folder / outputs.SUMS
    if not sums.is_file():
        return
    listed = {line.split("  ", 1)[1] for line in sums.read_text().splitlines()}
    for path in sorted(folder.iterdir()):
        if path.name not in {*listed, outputs.SUMS}:
            yield f"{path.name}: not in {outputs.SUMS}"


def _wrong_files(folder: Path, listing: Contents) -> Iterator[str]:
    try:
        unpacked = {entry.path: entry for entry in initramfs.entries((folder / "initramfs").read_bytes())}
    except CpioError as error:
        yield f"initramfs: {error}"
        return
    expected = {file.path: file for file in listing.files}
    for path in sorted(expected.keys() - unpacked.keys()):
        yield f"initramfs: /{path} is missing"
    for path in sorted(unpacked.keys() - expected.keys()):
        yield f"initramfs: /{path} is not listed"
    for path in sorted(unpacked.keys() & expected.keys()):
        entry, wanted = unpacked[path], expected[path]
        if (entry.kind, entry.mode, len(entry.content)) != (wanted.kind, wanted.mode, _length(wanted)):
            yield f"initramfs: /{path} has another kind, mode or size than listed"
        elif wanted.sha256 and entry.sha256 != wanted.sha256:
            yield f"initramfs: /{path} has another sha256 than listed"


def _length(file: contents.Listed) -> int:
    return file.size or len(file.target)
