"""Imports by the image's list of modules instead of by looking through folders.

Python's own finders list folders, look at each file before they open it and keep books on both: a tenth of the time
that an emulated boot spends on imports. An image never changes, so its builder lists where each module is
(`image/node.py`), and this finder opens the file at once. What is not listed is left to Python's finders.

Some modules of the standard library are imported by many and used by few. Their code runs when something of them is
first used. (`importlib.util.LazyLoader` runs it when they are imported a second time.)

Sources: importlib.abc.MetaPathFinder and Loader; PEP 451 (specs), PEP 552 (the header of byte code).
"""

import marshal
import os
import sys
from _thread import RLock
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType

_HEADER = 16  # bytes before the code: magic number, flags, hash of the source
_PACKAGE = "/__init__.pyc"
# Used to print a stack, to read source code or a child's text, to spread load, to decode: not by a boot.
_LATE = frozenset(
    (
        "ast",
        "base64",
        "locale",
        "msgspec.inspect",
        "random",
        "textwrap",
        "tokenize",
        "traceback",
        "urllib.parse",
    )
)
_late_loading = RLock()


def install(listing: str) -> None:
    """Find modules by a listing from now on, after built-in and frozen ones.

    Args:
        listing: a text file with a module's full name and the absolute path of its byte code or shared library in
            each line.

    Raises:
        OSError: it cannot be read.
    """
    lines = _read(listing).decode().splitlines()
    sys.meta_path.insert(-1, Importer(dict(line.split(" ", 1) for line in lines)))


class Importer:
    """A finder and loader of modules whose files are known."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module is, if it is listed."""
        file = self._files.get(name)
        if file is None:
            return None
        if file.endswith(".so"):
            return ModuleSpec(name, ExtensionFileLoader(name, file), origin=file)
        is_package = file.endswith(_PACKAGE)
        spec = ModuleSpec(name, self, origin=file, is_package=is_package)  # type: ignore[arg-type]
        if is_package:  # for those of its modules that are not listed
            spec.submodule_search_locations = [file.removesuffix(_PACKAGE)]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """An ordinary module, but for those that load late."""
        return _Late(spec.name) if spec.name in _LATE else None

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code, if it does not load late."""
        module.__file__ = self._files[module.__name__]
        if not isinstance(module, _Late):
            _run(module)


class _Late(ModuleType):
    """A module whose code runs when a name of it is first looked for."""

    def __getattr__(self, name: str) -> object:
        if not name.startswith("__"):
            self._load()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def _load(self) -> None:
        with _late_loading:
            if self.__dict__.setdefault("__late__", True):
                self.__dict__["__late__"] = False  # before it runs: it may import what imports it
                try:
                    _run(self)
                except BaseException:
                    self.__dict__["__late__"] = True
                    raise


def _run(module: ModuleType) -> None:
    code = marshal.loads(memoryview(_read(str(module.__file__)))[_HEADER:])  # noqa: S302 — the image's own
    exec(code, module.__dict__)  # noqa: S102 — as import does


def _read(path: str) -> bytes:
    """A small file, by three calls of the kernel."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
