"""How long builds take and how many bytes they make."""

import shutil
import tempfile
from pathlib import Path
from time import perf_counter

from cli.image import cache_folder
from cli.measure import Measure
from cli.tasks import ROOT
from image import build, contents
from image.report import Report
from image.sources import Places

_MB = 1_000_000
# What a build reads of the checkout.
_SOURCES = ("core0", "corex", "initramfs", "requirements.lock", "pyproject.toml")


def measure_builds(runs: int) -> list[Measure]:
    """Build a copy of the checkout: warm after an edit each time, then cold from the downloaded files."""
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        checkout = Path(scratch) / "checkout"
        _copy_sources(checkout)
        _build(checkout, cache_folder())
        warm = tuple(_build_after_edit(checkout, run) for run in range(runs))
        cold = tuple(_build_cold(checkout, Path(scratch) / f"cache{run}") for run in range(runs))
    return [
        Measure("rebuild after editing a Python file", "s", warm, goal=2),
        Measure("cold build with a filled cache", "s", cold, goal=15),
    ]


def measure_size(image: Path) -> list[Measure]:
    """The bytes that firmware fetches."""
    outputs = contents.load(image).outputs
    sizes = {name: outputs[name].size / _MB for name in ("vmlinuz", "initramfs")}
    return [
        *(Measure(name, "MB", (size,)) for name, size in sizes.items()),
        Measure("kernel + initramfs", "MB", (sum(sizes.values()),), goal=32),
    ]


def _copy_sources(checkout: Path) -> None:
    checkout.mkdir()
    for name in _SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, checkout / name)


def _build_after_edit(checkout: Path, run: int) -> float:
    with (checkout / "core0" / "__init__.py").open("a") as file:
        file.write(f"EDITED = {run}\n")
    return _build(checkout, cache_folder())


def _build_cold(checkout: Path, cache: Path) -> float:
    cache.mkdir()
    (cache / "sha256").symlink_to(cache_folder() / "sha256")
    return _build(checkout, cache)


def _build(checkout: Path, cache: Path) -> float:
    """Seconds of one build without the network."""
    start = perf_counter()
    manifest = checkout / "initramfs" / "virt.toml"
    places = Places(checkout, cache, offline=True)
    build.build(build.Request(manifest, "amd64", checkout.parent / "output", places), Report())
    return perf_counter() - start
