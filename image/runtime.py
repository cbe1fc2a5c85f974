"""Programs of the image, run on this host: Python for byte code, mkfs.erofs for file systems.

They run through the image's own dynamic linker and libraries, so nothing of the host's decides what the bytes are.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from image.errors import ImageError
from image.tree import Entry, Kind

_LOADERS = {"amd64": ("usr/lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu")}
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": os.defpath}
# mkfs.erofs gives the inode of its shared blocks the mode that a temporary file has.
_UMASK = 0o022


class ProgramError(ImageError):
    """A program of the image cannot run on this host."""


def write(entries: Iterable[Entry], folder: Path) -> None:
    """Unpack what the image's programs need to run on the host: programs, libraries, standard library."""
    for entry in entries:
        path = folder / entry.path
        if entry.kind is Kind.FOLDER or not entry.path.startswith(("usr/bin/", "usr/lib")):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind is Kind.LINK:
            path.symlink_to(entry.content.decode())
        else:
            path.write_bytes(entry.content)
            path.chmod(entry.mode)


def command(folder: Path, arch: str, program: str) -> list[str]:
    """The words that start a program of an image unpacked by `write`. Raises ProgramError."""
    if arch not in _LOADERS:
        raise ProgramError(
            f"cannot run the image's {program} for {arch} on this host; build on a machine of that architecture"
        )
    loader, triplet = _LOADERS[arch]
    libraries = str(folder / "usr/lib" / triplet)
    return [str(folder / loader), "--library-path", libraries, str(folder / "usr/bin" / program)]


def run(
    words: Sequence[str], data: bytes, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[bytes]:
    """Run a `command` with some input and nothing of this process's environment or umask. Raises ProgramError."""
    try:
        return subprocess.run(
            words,
            input=data,
            capture_output=True,
            env={**_ENVIRONMENT, **environment},
            umask=_UMASK,
            check=False,
        )
    except OSError as error:
        raise ProgramError(f"cannot run the image's programs on this host: {error.strerror}") from error
