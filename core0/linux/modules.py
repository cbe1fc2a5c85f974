"""Kernel modules: the image's index of them, and finit_module(2).

The index is `/usr/lib/modules/<release>/modules.json`, written by the image builder from the modules
themselves: names to files with their dependencies in load order, and alias patterns to names.
"""

import errno
import fnmatch
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core0.linux.libc import syscall


@dataclass
class Modules:
    """The loadable modules of the running kernel, and which of them this process has loaded."""

    folder: Path
    index: dict[str, dict[str, object]]
    aliases: list[tuple[str, str]]
    loaded: set[str] = field(default_factory=set)

    @classmethod
    def of_running_kernel(cls, root: Path = Path("/usr/lib/modules")) -> "Modules":
        """Read the index of this kernel release; an image without modules has an empty one."""
        folder = root / os.uname().release
        try:
            document = json.loads((folder / "modules.json").read_bytes())
        except FileNotFoundError:
            return cls(folder, {}, [])
        return cls(folder, document["modules"], [(pattern, name) for pattern, name in document["aliases"]])

    def matching(self, modalias: str) -> list[str]:
        """Names of the modules that claim a device by its MODALIAS, each once, in the index's order."""
        bus = modalias.partition(":")[0]
        names = (
            name
            for pattern, name in self.aliases
            # fnmatch compiles each pattern it is given: most are of other buses
            if pattern.partition(":")[0] == bus and fnmatch.fnmatchcase(modalias, pattern)
        )
        return list(dict.fromkeys(names))

    def load(self, name: str) -> None:
        """Load a module after the ones it needs; one that is loaded or built in already is fine.

        Raises:
            OSError: with the module's name and the kernel's reason.
        """
        for step in self._steps(name):
            if step in self.loaded:
                continue
            self._insert(step)
            self.loaded.add(step)

    def load_all(self, names: Iterable[str]) -> list[str]:
        """Load each module, going on after a failure; returns one message per failure."""
        failures = []
        for name in names:
            try:
                self.load(name)
            except OSError as error:
                failures.append(str(error.strerror or error))
        return failures

    def _steps(self, name: str) -> Iterator[str]:
        entry = self.index.get(name)
        if entry is None:
            return
        depends = entry["depends"]
        if isinstance(depends, list):
            yield from depends
        yield name

    def _insert(self, name: str) -> None:
        path = self.folder / str(self.index[name]["path"])
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, f"cannot load module {name}: {path}: {error.strerror}") from None
        try:
            syscall("finit_module", descriptor, "", 0, doing=f"cannot load module {name}")
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        finally:
            os.close(descriptor)
