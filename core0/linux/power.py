"""Ending the machine: reboot(2)."""

import os

from core0.linux.libc import syscall

_MAGIC1, _MAGIC2 = 0xFEE1DEAD, 0x28121969
_COMMANDS = {"reboot": 0x01234567, "poweroff": 0x4321FEDC, "halt": 0xCDEF0123}


def end_machine(how: str) -> None:
    """Flush and reboot, power off or halt; returns only by an error.

    Raises:
        KeyError: for another word than reboot, poweroff, halt.
        OSError: if the kernel refuses.
    """
    os.sync()
    syscall("reboot", _MAGIC1, _MAGIC2, _COMMANDS[how], None, doing=f"cannot {how}")
