"""The files of new disks: sparse, so that a disk takes what is written to it."""

from pathlib import Path


def make_blank(path: Path, size: int) -> Path:
    """Make the file of a disk of so many bytes that holds nothing. Raises FileExistsError rather than empty one."""
    with path.open("xb") as file:
        file.truncate(size)
    return path
