"""A booted node with `saboteur.py` behind its back: a process that kills, writes and reads where no API leads."""

import lzma
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot
from cli.image import cache_folder
from image import deb, initramfs, manifest, oci, sources
from image.fetch import Cache, Wanted
from image.manifest import NodeManifest
from image.report import Report
from image.sources import Places
from image.tree import Entry, file, folder

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("saboteur.py")
SECONDS = 20.0


def sabotage(boot: DirectBoot, place: Path, *modules: str, files: Iterable[Entry] = ()) -> DirectBoot:
    """The image with the saboteur before PID 1.

    Args:
        boot: the image.
        place: the folder for the longer initramfs.
        modules: of the image's kernel that the saboteur takes along, none of which needs another.
        files: what else it takes along, by paths in its folder; it runs programs among them.
    """
    assert boot.initramfs
    entries = [
        file("saboteur", PROGRAM.read_bytes(), "tests", 0o755),
        *(folder(path, "tests") for path in ("saboteur.d", "saboteur.d/proc", "saboteur.d/devtmpfs")),
        *(file(f"saboteur.d/{name}.ko", content, "tests") for name, content in kernel_modules(modules)),
        *(replace(entry, path=f"saboteur.d/{entry.path}") for entry in files),
    ]
    whole = place / "initramfs"
    whole.write_bytes(initramfs.put_before(boot.initramfs.read_bytes(), entries))
    return DirectBoot(boot.kernel, whole, f"{boot.arguments} rdinit=/saboteur")


def brought(path: Path) -> Entry:
    """A file that the saboteur takes along."""
    return file(path.name, path.read_bytes(), "tests", 0o755)


def of_debian() -> list[Entry]:
    """Programs of Debian that the saboteur takes along, with their libraries, below `debian`."""
    path = ROOT / "initramfs" / "vm-tests.toml"
    tree = oci.compose_root(path, "amd64", Places(ROOT, cache_folder()), Report()).tree
    return [folder("debian", "tests"), *(replace(one, path=f"debian/{one.path}") for one in tree.values())]


def kernel_modules(names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Modules of the image's kernel by their names, out of the package that the image was built from."""
    if not names:
        return
    path = ROOT / "initramfs" / "virt.toml"
    wanted = manifest.load_kind(path, NodeManifest)
    places = Places(ROOT, cache_folder())
    lock = sources.obtain(wanted, sources.load_lock(path, wanted, "amd64", ROOT), places, Report()).lock
    (kernel,) = (one for one in lock.packages if re.match(r"linux-image-\d", one.name))
    content = Cache(places.cache).read(Wanted(kernel.name, kernel.sha256, kernel.size, ()))
    for entry in deb.read(content, kernel.name):
        name = Path(entry.path).name.partition(".")[0]
        if name in names and entry.path.endswith(".ko.xz"):
            yield name, lzma.decompress(entry.content)


async def order(machine: Machine, *words: str) -> str:
    """What the saboteur answers to a verb of its own."""
    start = len(machine.console.lines)
    await machine.type(" ".join(words) + "\n")
    line = await machine.wait_for_line(f"^saboteur: {re.escape(words[0])}: ", SECONDS, start)
    return line.partition(": ")[2].partition(": ")[2]
