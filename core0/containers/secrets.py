"""Secrets of containers: files in the node's memory, which only root may read, for as long as the node runs.

No disk has them: what the node remembers is not encrypted there. A new node daemon finds them, a reboot ends them:
containers that need one wait until it was given again.
"""

import os
from pathlib import Path

from core0.linux import files
from core0.wire import paths
from core0.wire.control import absent, conflict
from core0.wire.secrets import LARGEST_OF_ALL, Secret


class SecretStore:
    """The secrets that the node has."""

    def __init__(self, folder: Path = Path(paths.SECRETS)) -> None:
        self._folder = folder

    def names(self) -> tuple[str, ...]:
        """Those that are there, in order."""
        return tuple(sorted(file.name for file in self._files()))

    def has(self, name: str) -> bool:
        """Whether there is one of that name."""
        return (self._folder / name).exists()

    def get(self, name: str) -> Secret:
        """What may be told of one. Raises RefusedError (404)."""
        try:
            status = (self._folder / name).stat()
        except FileNotFoundError:
            detail = f"cannot find secret {name[:80]!a}: there is none"
            raise absent(detail, "see 'zn secret ls'; secrets end with a reboot") from None
        return Secret(name, status.st_size, status.st_mtime)

    def put(self, name: str, value: bytes) -> None:
        """Keep one in memory; who has an earlier one keeps that. Raises RefusedError (409): they are too many."""
        others = sum(file.stat().st_size for file in self._files() if file.name != name)
        if others + len(value) > LARGEST_OF_ALL:
            detail = f"cannot keep secret {name}: all together would be over {LARGEST_OF_ALL >> 20} MiB"
            raise conflict(detail, "delete those that no container has", "/value")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        files.replace(self._folder / name, value, 0o600)

    def delete(self, name: str) -> None:
        """Forget one. Raises RefusedError (404)."""
        self.get(name)
        (self._folder / name).unlink()

    def open(self, name: str) -> int:
        """A descriptor to read one by. Raises OSError: it is gone."""
        try:
            return os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise OSError(error.errno, f"secret {name} is not there any more") from None

    def _files(self) -> tuple[Path, ...]:
        """Without one that is being written: its name has a dot."""
        if not self._folder.exists():
            return ()
        return tuple(file for file in self._folder.iterdir() if "." not in file.name)
