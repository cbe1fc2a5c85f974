"""Kernel modules: what a module says about itself, which ones an image needs, and the index for PID 1.

Debian's kernel package carries no modules.dep, so dependencies are read from the modules: the ELF section
.modinfo holds NUL-separated `key=value` strings (kernel: include/linux/moduleparam.h, scripts/mod/modpost.c).
The signature behind the ELF image stays where it is, so decompressed modules still load under lockdown.
"""

import lzma
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

from image import elf
from image.errors import ImageError
from image.tree import Entry, Kind, file

_SUFFIXES = (".ko", ".ko.xz")


class ModuleError(ImageError):
    """A module cannot be read or is not in the kernel package."""


@dataclass(frozen=True)
class ModuleInfo:
    """What .modinfo says: names of needed modules, of soft ones to load before, and device aliases."""

    depends: tuple[str, ...]
    before: tuple[str, ...]
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Module:
    """A module of an image: `path` relative to the version's folder, `depends` in load order."""

    name: str
    path: str
    content: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def modinfo(image: bytes) -> ModuleInfo:
    """Read the facts of a decompressed module."""
    pairs = [
        text.partition("=") for text in elf.section(image, b".modinfo").decode("utf-8", "replace").split("\0")
    ]
    depends = [name for key, _, value in pairs if key == "depends" for name in value.split(",") if name]
    softdeps = [value.split() for key, _, value in pairs if key == "softdep"]
    aliases = [value for key, _, value in pairs if key == "alias"]
    before = [name for words in softdeps for name in _before(words)]
    return ModuleInfo(_canonical(depends), _canonical(before), tuple(aliases))


def _before(words: list[str]) -> list[str]:
    """The modules between `pre:` and the next mark of a softdep line (modprobe.d(5))."""
    if "pre:" not in words:
        return []
    rest = words[words.index("pre:") + 1 :]
    return rest[: rest.index("post:")] if "post:" in rest else rest


def _canonical(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.replace("-", "_") for name in names)


def select(
    files: Mapping[str, bytes],
    builtin: Iterable[str],
    wanted: Iterable[str],
    before: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Module]:
    """The wanted modules and all that they need, by name. One that is nowhere is an error.

    Args:
        files: the kernel package's, by path relative to the version's folder.
        builtin: paths of what the kernel has built in.
        wanted: names of modules.
        before: names of modules to load before a module, besides those it names itself.
    """
    paths = {_name(path): path for path in files if path.endswith(_SUFFIXES)}
    present = frozenset(_name(path) for path in builtin)
    selection = _Selection(files, paths, present, before)
    for name in _canonical(wanted):
        selection.add(name)
    return [selection.modules[name] for name in sorted(selection.modules)]


def _name(path: str) -> str:
    return PurePosixPath(path).name.split(".ko")[0].replace("-", "_")


@dataclass
class _Selection:
    files: Mapping[str, bytes]
    paths: Mapping[str, str]
    builtin: frozenset[str]
    before: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        self.modules: dict[str, Module] = {}

    def add(self, name: str) -> tuple[str, ...]:
        """Select a module with all it needs; gives the load order that ends with it."""
        if name in self.builtin:
            return ()
        if name not in self.modules:
            self.modules[name] = self._read(name)
        return (*self.modules[name].depends, name)

    def _read(self, name: str) -> Module:
        if name not in self.paths:
            raise ModuleError(f"cannot find kernel module {name}: the kernel package has no such module")
        path = self.paths[name]
        content = lzma.decompress(self.files[path]) if path.endswith(".xz") else self.files[path]
        info = modinfo(content)
        before = [
            *_canonical(self.before.get(name, ())),
            *(soft for soft in info.before if soft in self.paths),
        ]
        order = dict.fromkeys(step for needed in (*before, *info.depends) for step in self.add(needed))
        return Module(name, path.removesuffix(".xz"), content, tuple(order), info.aliases)


def dependencies(modules: Iterable[Module], elsewhere: Mapping[str, str]) -> bytes:
    """A modules.dep: each module's file, and those of all that it needs, soft ones too, the first to load last.

    `elsewhere` maps the names of modules that are in another folder to their absolute paths. Source:
    modules.dep(5), and depmod's order.
    """
    paths = {**{module.name: module.path for module in modules}, **elsewhere}
    return "".join(
        f"{module.path}:{''.join(f' {paths[name]}' for name in reversed(module.depends))}\n"
        for module in modules
    ).encode()


def aliases(modules: Iterable[Module]) -> bytes:
    """A modules.alias: patterns (fnmatch(3)) of what a module serves. Source: modprobe.d(5)."""
    return "".join(
        f"alias {alias} {module.name}\n" for module in modules for alias in module.aliases
    ).encode()


def take(
    entries: Iterable[Entry],
    wanted: Iterable[str],
    before: Mapping[str, Sequence[str]] = MappingProxyType({}),
    base: Container[str] = (),
) -> list[Entry]:
    """What an image carries of a kernel package: wanted modules, their indexes, the list of built-in ones.

    `before` is that of `select`; `base` are the paths of what is there already: such modules are needed where they
    are, not taken twice.
    """
    files = {entry.path: entry for entry in entries if entry.kind is Kind.FILE}
    folder = _version_folder(files)
    own = {
        path.removeprefix(folder): entry.content for path, entry in files.items() if path.startswith(folder)
    }
    builtin = own["modules.builtin"].decode().split()
    selected = select(own, builtin, wanted, before)
    modules = [module for module in selected if folder + module.path not in base]
    elsewhere = {module.name: f"/{folder}{module.path}" for module in selected if module not in modules}
    origin = files[folder + "modules.builtin"].origin
    return [
        file(folder + "modules.dep", dependencies(modules, elsewhere), origin),
        file(folder + "modules.alias", aliases(modules), origin),
        *([] if base else [file(folder + "modules.builtin", own["modules.builtin"], origin)]),
        *(file(folder + module.path, module.content, origin) for module in modules),
    ]


def _version_folder(files: Iterable[str]) -> str:
    for path in files:
        if path.startswith("usr/lib/modules/") and path.endswith("/modules.builtin"):
            return path.removesuffix("modules.builtin")
    raise ModuleError("cannot find kernel modules: no package brings usr/lib/modules/*/modules.builtin")


def kernel(entries: Iterable[Entry]) -> bytes:
    """The bootable kernel of a kernel package, the file boot/vmlinuz-<version>."""
    for entry in entries:
        if entry.path.startswith("boot/vmlinuz-"):
            return entry.content
    raise ModuleError("cannot find the kernel: no package brings boot/vmlinuz-*")
