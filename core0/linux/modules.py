"""Kernel modules: the image's index of them, and finit_module(2).

The index is `/usr/lib/modules/<release>/modules.json`, written by the image builder from the modules
themselves: names to files with their dependencies in load order, and alias patterns to names.
"""

import errno
import fnmatch
import json
import os
from collections.abc import Iterable, Iterator

from core0.linux.libc import syscall


class Modules:
    """The loadable modules of the running kernel, and which of them this process has loaded.

    Attributes:
        folder: where their files are.
        index: a file's path and the modules to load before it, by name.
        aliases: patterns of device names with the module that serves them.
        loaded: names of those that are in the kernel.
    """

    def __init__(
        self, folder: str, index: dict[str, dict[str, object]], aliases: list[tuple[str, str]]
    ) -> None:
        self.folder = folder
        self.index = index
        self.aliases = aliases
        self.loaded: set[str] = set()

    @classmethod
    def of_running_kernel(cls, root: str = "/usr/lib/modules") -> "Modules":
        """Read the index of this kernel release; an image without modules has an empty one."""
        folder = f"{root}/{os.uname().release}"
        try:
            with open(f"{folder}/modules.json", "rb") as file:
                document = json.load(file)
        except FileNotFoundError:
            return cls(folder, {}, [])
        return cls(folder, document["modules"], document["aliases"])

    def matching(self, modalias: str) -> list[str]:
        """Names of the modules that claim a device by its MODALIAS, each once, in the index's order."""
        names = (
            name
            for pattern, name in self.aliases
            # fnmatch compiles each pattern that it is given: most are of other devices, as their beginnings tell
            if modalias.startswith(_beginning(pattern)) and fnmatch.fnmatchcase(modalias, pattern)
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
        path = f"{self.folder}/{self.index[name]['path']}"
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


def _beginning(pattern: str) -> str:
    """What a name must start with to match a pattern: all before its first wildcard."""
    for at, letter in enumerate(pattern):
        if letter in "*?[":
            return pattern[:at]
    return pattern
