"""Writes partition tables through libfdisk, the library of sfdisk(8).

By ctypes, not by the program: that ends with sync(2), which waits for every disk of the machine, also for one that
does not answer. Call it in a process that may hang (core0.linux.worker).

Source: libfdisk's documentation; sfdisk(8), INPUT FORMATS.
"""

import ctypes
import os

from core0.linux import tools

_WITHOUT_SYNC = 1


def write_table(device: str, script: tuple[str, ...]) -> None:
    """Make a new partition table, and wipe what other signatures it would not overwrite.

    Args:
        device: the disk.
        script: lines as of sfdisk(8).

    Raises:
        OSError: with the step that failed.
    """
    library = _load()
    context = library.fdisk_new_context()
    try:
        _check("open", library.fdisk_assign_device(context, os.fsencode(device), 0))
        library.fdisk_disable_dialogs(context, 1)
        _check("wipe", library.fdisk_enable_wipe(context, 1))
        wanted = _read(library, context, script)
        _check("partition", library.fdisk_apply_script(context, wanted))
        library.fdisk_unref_script(wanted)
        _check("write to", library.fdisk_write_disklabel(context))
        _check("finish", library.fdisk_deassign_device(context, _WITHOUT_SYNC))
    finally:
        library.fdisk_unref_context(context)


def _read(library: ctypes.CDLL, context: int, script: tuple[str, ...]) -> int:
    """The library reads scripts from files only: this one is in memory."""
    descriptor = os.memfd_create("script")
    try:
        os.write(descriptor, "".join(f"{line}\n" for line in script).encode())
        wanted: int = library.fdisk_new_script_from_file(context, f"/proc/self/fd/{descriptor}".encode())
    finally:
        os.close(descriptor)
    _check("read the script of", 0 if wanted else -ctypes.get_errno())
    return wanted


def _check(doing: str, result: int) -> None:
    if result < 0:
        raise OSError(-result, f"cannot {doing} the disk: {os.strerror(-result)}")


def _load() -> ctypes.CDLL:
    """The library with the types of its functions."""
    library = tools.library("libfdisk.so.1", "libblkid.so.1")
    for name in ("fdisk_new_context", "fdisk_new_script_from_file"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("write_disklabel", "unref_script", "unref_context"):
        getattr(library, f"fdisk_{name}").argtypes = (ctypes.c_void_p,)
    for name in ("disable_dialogs", "enable_wipe", "deassign_device"):
        getattr(library, f"fdisk_{name}").argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.fdisk_assign_device.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
    library.fdisk_new_script_from_file.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    library.fdisk_apply_script.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    return library
