"""What quota costs: subvolumes, snapshots and writes on btrfs with none, with the simple and with the full kind.

Each kind has a file system of its own in a file, with a tree of many files and snapshots of it: what the full kind
costs grows with them, because it looks for everyone who shares what a transaction touched.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.measure import Measure
from cli.outcome import ExitCode, Failure
from core0.linux import btrfs

_SIZE = 6 << 30
_FILES, _SNAPSHOTS, _CHANGED = 4000, 60, 2000
_WRITTEN = 256 << 20
_KINDS = ("no quota", "simple quota", "full quota")


def measure_quota(runs: int) -> list[Measure]:
    """Take each step `runs` times, the kinds in turn."""
    if os.geteuid() != 0 or not shutil.which("mkfs.btrfs"):
        raise Failure("cannot make file systems: run it as root, with btrfs-progs", ExitCode.USAGE)
    samples: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        for kind in _KINDS:
            with _filesystem(Path(scratch), kind) as root:
                for run in range(runs):
                    for step, work in _STEPS.items():
                        samples.setdefault((step, kind), []).append(_timed(work, root, run))
    return [_measure(step, kind, taken) for (step, kind), taken in sorted(samples.items())]


def _measure(step: str, kind: str, taken: list[float]) -> Measure:
    return Measure(f"{step}, {kind}", "ms", tuple(1000 * one for one in taken))


def _timed(work: Callable[[int, Path, int], None], root: Path, run: int) -> float:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        btrfs.sync(descriptor)
        begun = time.perf_counter()
        work(descriptor, root, run)
        return time.perf_counter() - begun
    finally:
        os.close(descriptor)


@contextmanager
def _filesystem(scratch: Path, kind: str) -> Iterator[Path]:
    file, root = scratch / "disk.img", scratch / "root"
    root.mkdir(exist_ok=True)
    with file.open("wb") as new:
        new.truncate(_SIZE)
    subprocess.run(["mkfs.btrfs", "--quiet", "--force", file], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", file, root], check=True)
    try:
        _fill(root, kind)
        yield root
    finally:
        subprocess.run(["umount", root], check=True)
        file.unlink()


def _fill(root: Path, kind: str) -> None:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    if kind != "no quota":
        btrfs.enable_quota(descriptor, simple=kind == "simple quota")
    btrfs.create_subvolume(descriptor, "tree")
    for number in range(_FILES):
        (root / "tree" / str(number)).write_bytes(os.urandom(8192))
    for number in range(_SNAPSHOTS):
        _snapshot(descriptor, root, -1 - number)
    btrfs.sync(descriptor)
    os.close(descriptor)


def _create(descriptor: int, _: Path, run: int) -> None:
    btrfs.create_subvolume(descriptor, f"new{run}")
    btrfs.commit(descriptor)


def _snapshot(descriptor: int, root: Path, run: int) -> None:
    source = os.open(root / "tree", os.O_RDONLY | os.O_DIRECTORY)
    try:
        btrfs.create_snapshot(descriptor, f"snapshot{run}", source, read_only=True)
    finally:
        os.close(source)


def _change(descriptor: int, root: Path, _: int) -> None:
    """Write to files that snapshots share, and commit."""
    for number in range(_CHANGED):
        with (root / "tree" / str(number)).open("r+b") as file:
            file.write(b"changed")
    btrfs.sync(descriptor)


def _write(_: int, root: Path, run: int) -> None:
    with (root / "tree" / f"large{run}").open("wb") as file:
        data = os.urandom(1 << 20)
        for _ in range(_WRITTEN >> 20):
            file.write(data)
        os.fsync(file.fileno())


def _delete(descriptor: int, _: Path, run: int) -> None:
    """Until the room is free again."""
    btrfs.delete_subvolume(descriptor, f"snapshot{run}")
    btrfs.commit(descriptor)
    subprocess.run(
        ["btrfs", "subvolume", "sync", f"/proc/{os.getpid()}/fd/{descriptor}"],
        check=True,
        capture_output=True,
    )


_STEPS: dict[str, Callable[[int, Path, int], None]] = {
    "create a subvolume": _create,
    "take a snapshot": _snapshot,
    f"change {_CHANGED} files that snapshots share": _change,
    f"write {_WRITTEN >> 20} MiB": _write,
    "delete a snapshot": _delete,
}
