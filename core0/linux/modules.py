"""Kernel modules: the image's index of them, and finit_module(2).

The indexes are modules.dep and modules.alias below `/usr/lib/modules/<release>`, as depmod(8) writes them; here the
image builder does, from the modules themselves. Source: modules.dep(5).
"""

import errno
import fnmatch
import os
from collections.abc import Iterable

from core0.linux import files
from core0.linux.libc import syscall

ROOT = "/usr/lib/modules"
_PRESENT = "/sys/module"
# Where devices are that firmware describes: their aliases start with `of` or `acpi`.
_FIRMWARE_BUSES = ("amba", "i2c", "platform", "pnp", "spi")


class Modules:
    """The loadable modules of the running kernel, and which of them this process has loaded.

    Attributes:
        steps: by a module's name the files to load for it, in their order, its own last.
        aliases: what a device's name must start with, its whole pattern, and the module that serves it.
        loaded: the files of those that are in the kernel.
        waits: whether loading a driver waits until it has tried its devices. Only where no disk can be one of them:
            the kernel reads a disk's partition table then, and a disk that hangs would hold whoever loads. Without,
            it waits for no other driver's devices, either (kernel/module/main.c, async_probe_requested).
        parameters: by a module's name what it is to be told.
    """

    def __init__(self) -> None:
        self.steps: dict[str, tuple[str, ...]] = {}
        self.aliases: list[tuple[str, str, str]] = []
        self.loaded: set[str] = set()
        self.waits = False
        self.parameters: dict[str, str] = {}

    @classmethod
    def of_running_kernel(cls, *roots: str) -> "Modules":
        """Read the indexes of this kernel release below some folders, the image's own if none is named."""
        found = cls()
        for root in roots or (ROOT,):
            found.add(root)
        return found

    def add(self, root: str) -> None:
        """Read the indexes of this kernel release below one more folder; an image without modules has none."""
        folder = f"{root}/{os.uname().release}"
        try:
            dependencies = files.read_text(f"{folder}/modules.dep")
            aliases = files.read_text(f"{folder}/modules.alias")
        except FileNotFoundError:
            return
        self.steps.update(_parse_dependencies(folder, dependencies))
        self.aliases += _parse_aliases(aliases)

    @property
    def buses(self) -> set[str]:
        """The buses on which devices of these modules may be: an alias starts with the name of its bus."""
        return {*_FIRMWARE_BUSES, *(pattern.partition(":")[0] for _, pattern, _ in self.aliases)}

    def matching(self, modalias: str) -> list[str]:
        """Names of the modules that claim a device by its MODALIAS, each once, in the index's order."""
        names = (
            name
            for beginning, pattern, name in self.aliases
            # fnmatch compiles each pattern that it is given: most are of other devices, as their beginnings tell
            if modalias.startswith(beginning) and fnmatch.fnmatchcase(modalias, pattern)
        )
        return list(dict.fromkeys(names))

    def is_of_cards(self, name: str) -> bool:
        """Whether a module is a driver of network cards."""
        return any("/drivers/net/" in path for path in self.steps.get(name, ())[-1:])

    def load(self, name: str) -> None:
        """Load a module after the ones it needs; one that is loaded or built in already is fine.

        What comes before it and has no device or instruction here (ENODEV: ciphers for other processors) is passed
        over: a module that cannot do without says so itself.

        Raises:
            OSError: with the module's name and the kernel's reason.
        """
        steps = self.steps.get(name, ())
        for step in steps:
            if step in self.loaded:
                continue
            try:
                if not _is_live(_name(step)):
                    self._insert(step)
            except OSError as error:
                if error.errno != errno.ENODEV or step == steps[-1]:
                    raise
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

    def _insert(self, path: str) -> None:
        name = _name(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, f"cannot load module {name}: {path}: {error.strerror}") from None
        try:
            own, asynchronous = self.parameters.get(name, ""), "" if self.waits else "async_probe=1"
            syscall(
                "finit_module",
                descriptor,
                f"{asynchronous} {own}".strip(),
                0,
                doing=f"cannot load module {name}",
            )
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        finally:
            os.close(descriptor)


def _parse_dependencies(folder: str, text: str) -> dict[str, tuple[str, ...]]:
    """modules.dep names what to load last first, by paths relative to its folder or absolute ones."""
    steps = {}
    for line in text.splitlines():
        file, _, needed = line.partition(":")
        steps[_name(file)] = tuple(os.path.join(folder, step) for step in (*reversed(needed.split()), file))
    return steps


def _is_live(name: str) -> bool:
    """Whether the kernel has a module already: it would check the whole file's signature to say so."""
    try:
        return files.read(f"{_PRESENT}/{name}/initstate") == b"live\n"
    except FileNotFoundError:
        return False


def _name(file: str) -> str:
    return os.path.basename(file).partition(".")[0].replace("-", "_")


def _parse_aliases(text: str) -> list[tuple[str, str, str]]:
    words = (line.split() for line in text.splitlines())
    return [(_beginning(pattern), pattern, name) for _, pattern, name in words]


def _beginning(pattern: str) -> str:
    """What a name must start with to match a pattern: all before its first wildcard."""
    for at, letter in enumerate(pattern):
        if letter in "*?[":
            return pattern[:at]
    return pattern
