"""A container's root with the image's own Python in it: the same files for an image of ours and for crun."""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from image import initramfs, oci
from image.tree import Entry, file, folder

HERE = Path(__file__).parent
PYTHON = ("/usr/bin/python3.13", "-ISB")
# What waits to be told to do something, without a processor.
WAIT = (*PYTHON, "-c", "import signal; signal.pause()")
_LIBRARIES = ("ld-linux-x86-64", "libc", "libexpat", "libffi", "libm", "libz")
_TAKEN = (
    "bin",
    "lib",
    "lib64",
    "usr/bin/python3.13",
    "usr/lib/python3.13",
    "usr/lib/python3.13/*",
    "usr/lib64/*",
    *(f"usr/lib/x86_64-linux-gnu/{name}.so*" for name in _LIBRARIES),
)
_LEFT = ("*/asyncio/*", "*/email/*", "*/http/*", "*/urllib/*", "*/logging/*", "*/tomllib/*", "*/concurrent/*")


def taken(image: Path) -> Iterator[Entry]:
    """The files of the image's root that belong to its Python."""
    for entry in initramfs.entries((image / "initramfs").read_bytes()):
        names = any(fnmatch(entry.path, pattern) for pattern in _TAKEN)
        if names and not any(fnmatch(entry.path, pattern) for pattern in _LEFT):
            yield entry


def brought(*programs: str) -> list[Entry]:
    """What the root has besides: programs of this folder, and a place to write."""
    return [
        *(file(name, (HERE / name).read_bytes(), "tests", 0o755) for name in programs),
        *(
            folder(name, "tests")
            for name in ("etc", "usr", "usr/bin", "usr/lib", "usr/lib/x86_64-linux-gnu", "usr/lib64")
        ),
        folder("tmp", "tests", 0o1777),
    ]


def layer(image: Path, *programs: str) -> bytes:
    """The tar of a root with these programs of this folder."""
    return oci.layer([*reversed(brought(*programs)), *taken(image)], 0)
