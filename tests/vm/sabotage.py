"""A booted node with `saboteur.py` behind its back: a process that kills, writes and reads where no API leads."""

import lzma
import re
from collections.abc import Iterator
from pathlib import Path

from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot
from cli.image import cache_folder
from image import deb, initramfs, manifest, sources
from image.fetch import Cache, Wanted
from image.manifest import NodeManifest
from image.report import Report
from image.sources import Places
from image.tree import file, folder

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("saboteur.py")
SECONDS = 20.0


def sabotage(boot: DirectBoot, place: Path, *modules: str) -> DirectBoot:
    """The image with the saboteur before PID 1.

    Args:
        boot: the image.
        place: the folder for the longer initramfs.
        modules: of the image's kernel that the saboteur takes along, none of which needs another.
    """
    assert boot.initramfs
    entries = [
        file("saboteur", PROGRAM.read_bytes(), "tests", 0o755),
        *(folder(path, "tests") for path in ("saboteur.d", "saboteur.d/proc", "saboteur.d/devtmpfs")),
        *(file(f"saboteur.d/{name}.ko", content, "tests") for name, content in kernel_modules(modules)),
    ]
    whole = place / "initramfs"
    whole.write_bytes(initramfs.put_before(boot.initramfs.read_bytes(), entries))
    return DirectBoot(boot.kernel, whole, f"{boot.arguments} rdinit=/saboteur")


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
