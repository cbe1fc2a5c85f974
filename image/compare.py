"""What differs between two builds: packages by version, files by content."""

from collections.abc import Iterable, Mapping

import msgspec

from image.contents import Contents, Listed


class Change(msgspec.Struct, frozen=True):
    """One thing that differs: old and new as text, "" where it is absent, and the growth in bytes."""

    name: str
    old: str
    new: str
    growth: int


class Difference(msgspec.Struct, frozen=True):
    """All that differs; empty tuples mean that two builds are the same."""

    outputs: tuple[Change, ...]
    packages: tuple[Change, ...]
    files: tuple[Change, ...]


def difference(old: Contents, new: Contents) -> Difference:
    """Compare two builds."""
    return Difference(
        outputs=_changes(
            {name: (output.sha256[:12], output.size) for name, output in old.outputs.items()},
            {name: (output.sha256[:12], output.size) for name, output in new.outputs.items()},
        ),
        packages=_changes(
            {package.name: (package.version, package.installed) for package in old.packages},
            {package.name: (package.version, package.installed) for package in new.packages},
        ),
        files=_changes(_files(old.unpacked), _files(new.unpacked)),
    )


def _files(files: Iterable[Listed]) -> dict[str, tuple[str, int]]:
    return {f"/{file.path}": (_state(file), file.size) for file in files}


def _state(file: Listed) -> str:
    return f"{file.kind} {file.mode:o} {file.sha256[:12] or file.target}".strip()


def _changes(old: Mapping[str, tuple[str, int]], new: Mapping[str, tuple[str, int]]) -> tuple[Change, ...]:
    absent = ("", 0)
    rows = [(name, old.get(name, absent), new.get(name, absent)) for name in sorted(old.keys() | new.keys())]
    return tuple(
        Change(name, before[0], after[0], after[1] - before[1])
        for name, before, after in rows
        if before != after
    )
