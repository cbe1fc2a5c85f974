"""A machine whose only program obeys the test: `workbench.py` in place of PID 1, where a kernel is enough."""

import json
from pathlib import Path
from typing import NamedTuple

from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot
from image import initramfs
from image.tree import file

PROGRAM = Path(__file__).with_name("workbench.py")
SECONDS = 20.0


def workbench_boot(boot: DirectBoot, folder: Path) -> DirectBoot:
    """The image with the workbench in place of PID 1; `folder` takes the longer initramfs."""
    assert boot.initramfs
    entries = [file("workbench", PROGRAM.read_bytes(), "tests", 0o755)]
    whole = folder / "initramfs"
    whole.write_bytes(initramfs.put_before(boot.initramfs.read_bytes(), entries))
    return DirectBoot(boot.kernel, whole, f"{boot.arguments} rdinit=/workbench")


class Answer(NamedTuple):
    """What a program ended with and said."""

    code: int
    out: str


class Workbench:
    """Types lines and reads the answers, one after the other."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._typed = 0

    async def listens(self) -> "Workbench":
        """Wait until it obeys."""
        await self._machine.wait_for_line("workbench: listens", SECONDS)
        return self

    async def ask(self, *words: str) -> Answer:
        """Do a verb of the workbench or run a program of the storage part; see `workbench.py`."""
        await self._machine.type(json.dumps(words) + "\n")
        marker = f"workbench: {self._typed} "
        line = await self._machine.wait_for_line(f"^{marker}", SECONDS)
        self._typed += 1
        return Answer(**json.loads(line.removeprefix(marker)))

    async def do(self, *words: str) -> str:
        """What it says to a line that must succeed."""
        answer = await self.ask(*words)
        assert answer.code == 0, f"{words[0]}: {answer.out}"
        return answer.out
