"""The rows of `prober.py` of two containers against each other. Pure.

A row of ours that has a word which the other's has not is looser, and must be listed here with its reason.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

Rows = Mapping[str, Sequence[str]]

# By a pattern of row names, why ours may be looser there.
LISTED = {
    "call personality": "with the upper half of the argument set podman refuses the question which personality there "
    "is; the kernel reads the lower half only (`SYSCALL_DEFINE1(personality, unsigned int, …)`)",
    "call landlock_restrict_self": "the kernel lets only processes with no_new_privs give up rights so, and podman "
    "sets that not",
}
AREAS = {
    "capabilities": "capabilities, by set",
    "ids": "users and groups of the user namespace",
    "namespace": "namespaces of its own",
    "process": "no_new_privs, filter, keyring, oom_score_adj, securebits, groups, cgroup",
    "descriptors": "descriptors",
    "limit": "limits (rlimits)",
    "mount": "mounts: write, set-user-ID, devices, execution, propagation",
    "path /proc": "/proc: read, write, list, make",
    "path /sys": "/sys",
    "path /dev": "/dev",
    "call": "system calls by number, 0 to 479",
    "x32 call": "x32 calls",
    "i386 call": "32-bit calls (`int 0x80`)",
    "argument": "arguments of clone, unshare, setns, ioctl, personality, mknod, ptrace",
    "socket": "sockets, by family and type",
    "reach": "who answers by the network",
}
_ARGUMENTS = ("unshare", "clone", "setns", "ioctl", "personality", "mknod", "ptrace")


@dataclass(frozen=True)
class Difference:
    """A row in which the two containers are not the same."""

    row: str
    ours: frozenset[str]
    theirs: frozenset[str]

    @property
    def looser(self) -> bool:
        """Whether ours has something that the other has not."""
        if self.row.startswith("RLIMIT_"):
            return _limit(self.ours) > _limit(self.theirs)
        if self.row == "oom_score_adj":
            return _limit(self.ours) < _limit(self.theirs)
        return bool(self.ours - self.theirs)

    @property
    def reason(self) -> str:
        """Why it may be looser; empty if nobody said."""
        return next((why for pattern, why in LISTED.items() if re.fullmatch(pattern, self.row)), "")


def _limit(words: frozenset[str]) -> float:
    (word,) = words
    return float("inf") if word == "unlimited" else int(word)


def prepared(rows: Rows, node: Mapping[str, str], calls: Mapping[int, str]) -> dict[str, frozenset[str]]:
    """Rows with words that can be compared: what is the node's own counts, not how it is called.

    Args:
        rows: as the probe printed them.
        node: the node's own namespaces.
        calls: names of system calls.
    """
    return {_named(row, calls): frozenset(_comparable(row, words, node)) for row, words in rows.items()}


def _named(row: str, calls: Mapping[int, str]) -> str:
    kind, _, name = row.partition(" ")
    return f"call {calls.get(int(name), name)}" if kind == "call" else row


def _comparable(row: str, words: Sequence[str], node: Mapping[str, str]) -> Sequence[str]:
    kind, _, name = row.partition(" ")
    if kind == "namespace":
        return ["the node's"] if words == [node[name]] else []
    if kind == "ids":
        return ["the node's"] if words[1] == "0" else []
    return words


def compare(ours: Mapping[str, frozenset[str]], theirs: Mapping[str, frozenset[str]]) -> list[Difference]:
    """All rows that differ. A place that only one has as a mount is, for the other, what it is mounted in."""
    found = []
    for row in sorted({*ours, *theirs}):
        mine, its = (_row(row, rows) for rows in (ours, theirs))
        if mine != its:
            found.append(Difference(row, mine, its))
    return found


def _row(row: str, rows: Mapping[str, frozenset[str]]) -> frozenset[str]:
    if row not in rows and row.startswith("mount /"):
        places = PurePosixPath(row.removeprefix("mount ")).parents
        return next(rows[f"mount {place}"] for place in places if f"mount {place}" in rows)
    return rows.get(row, frozenset())


def area_of(row: str) -> str:
    """Which of AREAS a row belongs to."""
    kind, _, name = row.partition(" ")
    if kind == "path":
        return f"path /{name.split('/')[1]}"
    if kind.startswith("RLIMIT_"):
        return "limit"
    if kind in _ARGUMENTS:
        return "argument"
    known = " ".join(row.split(" ")[:2])
    return next((one for one in (known, kind) if one in AREAS), "process")


def table(ours: Mapping[str, frozenset[str]], theirs: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """A table of how many rows are the same, stricter and looser, and which are, where they are few."""
    differences = {one.row: one for one in compare(ours, theirs)}
    yield "| what | rows | same | ours is stricter | looser |"
    yield "|---|---|---|---|---|"
    by_area = {area: list(rows) for area, rows in groupby(sorted({*ours, *theirs}, key=_order), key=area_of)}
    for area, rows in by_area.items():
        other = [differences[row] for row in rows if row in differences]
        looser = [one for one in other if one.looser]
        figures = (len(rows), len(rows) - len(other), len(other) - len(looser), len(looser))
        yield f"| {AREAS[area]} | {' | '.join(map(str, figures))} |"
    yield from ("", "Stricter, besides paths:", "")
    for area, rows in by_area.items():
        names = [name_of(row) for row in rows if row in differences and not differences[row].looser]
        if names and not area.startswith("path"):
            yield _item(f"{AREAS[area]}: {', '.join(names)}")
    yield from ("", "Looser:", "")
    for one in differences.values():
        if one.looser:
            yield _item(f"`{one.row}`: {one.reason}")


def _item(text: str) -> str:
    return textwrap.fill(
        text, 118, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _order(row: str) -> tuple[int, str]:
    return list(AREAS).index(area_of(row)), row


def name_of(row: str) -> str:
    """A row without what its area says already."""
    area = area_of(row)
    return f"`{row.removeprefix(area).strip() or row}`"


def call_names(table_of_numbers: Path) -> dict[int, str]:
    """Names of system calls by their numbers."""
    lines = [line for line in table_of_numbers.read_text().splitlines() if not line.startswith("#")]
    return {int(number): name for number, name in (line.split("\t") for line in lines)}
