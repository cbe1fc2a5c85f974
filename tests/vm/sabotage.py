"""A booted node with `saboteur.py` behind its back: a process that kills, writes and reads where no API leads."""

import re
from pathlib import Path

from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot
from image import initramfs
from image.tree import file, folder

PROGRAM = Path(__file__).with_name("saboteur.py")
SECONDS = 20.0


def sabotage(boot: DirectBoot, place: Path) -> DirectBoot:
    """The image with the saboteur before PID 1; `place` is the folder for the longer initramfs."""
    assert boot.initramfs
    entries = [
        file("saboteur", PROGRAM.read_bytes(), "tests", 0o755),
        *(folder(path, "tests") for path in ("saboteur.d", "saboteur.d/proc", "saboteur.d/devtmpfs")),
    ]
    whole = place / "initramfs"
    whole.write_bytes(initramfs.put_before(boot.initramfs.read_bytes(), entries))
    return DirectBoot(boot.kernel, whole, f"{boot.arguments} rdinit=/saboteur")


async def order(machine: Machine, *words: str) -> str:
    """What the saboteur answers to a verb of its own."""
    start = len(machine.console.lines)
    await machine.type(" ".join(words) + "\n")
    line = await machine.wait_for_line(f"^saboteur: {re.escape(words[0])}: ", SECONDS, start)
    return line.partition(": ")[2].partition(": ")[2]
