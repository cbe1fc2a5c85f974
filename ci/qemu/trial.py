"""The choice of acceleration, by trying: /dev/kvm may open and yet no stock kernel come up.

In some nested machines a guest under KVM dies in the kernel's decompressor, before its first line. So a real
kernel is booted once, with a short deadline, until it prints its version; the answer is remembered as
long as the host runs the same kernel on the same CPU. Without KVM, QEMU translates, a thread per virtual CPU.
"""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from ci.qemu.accel import KVM, TCG, Acceleration
from ci.qemu.console import ConsoleError
from ci.qemu.machine import Machine
from ci.qemu.monitor import MonitorError
from ci.qemu.process import NoProgramError, StartError
from ci.qemu.spec import DirectBoot, MachineSpec

KVM_DEVICE = Path("/dev/kvm")
# A stock kernel under working KVM prints its version within half a second.
_TRIAL_SECONDS = 8.0

Trial = Callable[[Path], Awaitable[bool]]


async def choose(kernel: Path, trial: Trial | None = None, cache: Path | None = None) -> Acceleration:
    """The best acceleration that works on this host.

    Args:
        kernel: a stock kernel (vmlinuz) to try KVM with.
        trial: boots the kernel under KVM and says whether it spoke; by default `boots_under_kvm`.
        cache: the folder that remembers answers; by default the user's cache folder.

    Raises:
        NoProgramError: without QEMU there is nothing to try.
    """
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return TCG
    memory = (cache or _cache_folder()) / "acceleration.json"
    key = host_key()
    known = _recall(memory)
    if key not in known:
        known = {key: await (trial or boots_under_kvm)(kernel)}
        _remember(memory, known)
    return KVM if known[key] else TCG


async def boots_under_kvm(kernel: Path) -> bool:
    """Boot a kernel without any user space under KVM until it prints its version."""
    spec = MachineSpec(
        "kvm-trial",
        DirectBoot(kernel, arguments="console=ttyS0 earlyprintk=serial,ttyS0 panic=-1"),
        nics=(),
        spare_slots=0,
        on_reboot="shutdown",
    )
    with tempfile.TemporaryDirectory(prefix="zn-kvm-") as folder:
        try:
            async with Machine(spec, KVM, Path(folder)) as machine:
                await machine.wait_for_line("Linux version", _TRIAL_SECONDS)
        except NoProgramError:  # says nothing about KVM
            raise
        except (ConsoleError, MonitorError, StartError):
            return False
    return True


def host_key() -> str:
    """What the answer depends on: kernel release, this boot of the host, CPU."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    model = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    return hashlib.sha256(f"{platform.release()}\n{boot}\n{model}".encode()).hexdigest()


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeronode"


def _recall(memory: Path) -> dict[str, bool]:
    try:
        known = json.loads(memory.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(memory: Path, known: dict[str, bool]) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    fresh = memory.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(known))
    fresh.replace(memory)
