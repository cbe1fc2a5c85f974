#!/usr/bin/python3.13 -ISB
"""The first program of a test's machine (`rdinit=/workbench`), in place of PID 1: it runs what the test types.

A line is a JSON list. The first word is a verb of this program or the name of a program of the storage part, which
runs with the rest as its arguments. The answer is one line: `workbench: NUMBER {"code": …, "out": …}`.
"""

import json
import os
import subprocess
import sys
import termios
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

from core0.init.phases import Boot, mount_kernel_files
from core0.linux import fdisk, mounts, tools, uevents
from core0.linux.modules import Modules


def main() -> None:
    """Mount the kernel's file systems, then obey for ever."""
    mount_kernel_files(Boot())
    console = os.open("/dev/ttyS0", os.O_RDWR)
    silence(console)
    os.write(console, b"workbench: listens\n")
    with os.fdopen(console, "rb", buffering=0) as lines:
        for number, line in enumerate(lines):
            answer = json.dumps(obey(json.loads(line)))
            os.write(console, f"workbench: {number} {answer}\n".encode())


def silence(console: int) -> None:
    """No echo: what is typed must not look like an answer."""
    attributes = termios.tcgetattr(console)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(console, termios.TCSANOW, attributes)


def obey(words: list[str]) -> dict[str, object]:
    """Do what a line asks; an error is an answer, too."""
    verb, *rest = words
    try:
        if verb in VERBS:
            return {"code": 0, "out": VERBS[verb](*rest)}
        done = subprocess.run(
            [tools.tool(verb), *rest],
            env=tools.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except BaseException:  # noqa: BLE001 — whatever it is, the test shall read it
        return {"code": -1, "out": traceback.format_exc()}
    return {"code": done.returncode, "out": done.stdout}


def load(*names: str) -> str:
    """Load kernel modules of root and storage part; says what went wrong."""
    return "\n".join(tools.all_modules().load_all(names))


def load_drivers() -> str:
    """Load the drivers of the devices that are there, as the node does late in its boot."""
    known = tools.all_modules()
    found = [name for alias in uevents.present_modaliases(known.buses) for name in known.matching(alias)]
    return "\n".join(known.load_all(dict.fromkeys(found)))


def partition(device: str, *script: str) -> str:
    """Write a new partition table."""
    fdisk.write_table(device, script)
    return ""


def mount(source: str, target: str, kind: str) -> str:
    """Mount a file system in a new folder."""
    Path(target).mkdir(parents=True, exist_ok=True)
    mounts.mount(source, target, kind)
    return ""


def listing(folder: str) -> str:
    """The names in a folder."""
    return "\n".join(sorted(path.name for path in Path(folder).iterdir()))


def read(path: str) -> str:
    """The text of a file."""
    return Path(path).read_text(errors="replace")


def write(path: str, text: str) -> str:
    """Write a file's text, to the disk."""
    with Path(path).open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return ""


def mount_tools() -> str:
    """Mount the storage part, twice: the second time must change nothing. Gives the mounts at that place."""
    tools.mount_tools(Modules.of_running_kernel())
    tools.mount_tools()
    return "".join(line for line in read("/proc/mounts").splitlines(keepends=True) if "storage" in line)


VERBS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (load, load_drivers, partition, mount, mount_tools, listing, read, write)
}

if __name__ == "__main__":
    main()
