"""Makes what the template has immortal, so that its forks share it (`core0.init.immortal`).

What it had before the node daemon and the API were forked is so already, as far as the collector knows it. To look
for the rest takes too long for a boot, and writes into whatever is looked at: a fork does it after the warm-up, and
says where it found objects. Those on pages that the template shares with the other two stay counted: a page of its
own for each would cost more than containers write, which mostly run what the warm-up ran.
"""

import gc
import os
import types
from array import array
from collections.abc import Iterable, Set

from core0.init import immortal

_PAGE = os.sysconf("SC_PAGE_SIZE")
# Of an entry of /proc/PID/pagemap: nobody else has the page (admin-guide/mm/pagemap.rst).
_EXCLUSIVE = 1 << 56


def make_immortal() -> bool:
    """Make immortal what this process has on pages of its own, and freeze all that it has (gc.freeze).

    Returns:
        False if this interpreter is none that is known, or the fork failed.
    """
    gc.freeze()
    if not immortal.is_known():
        return False
    # until it is written, nothing may be freed that was there when everything was frozen: what is told are addresses
    own = _own_pages()
    found = os.memfd_create("objects", os.MFD_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _tell(found, own)
        _, status = os.waitpid(pid, 0)
        with open(found, "rb", closefd=False) as file:
            file.seek(0)
            immortal.write(memoryview(file.read()).cast("Q"))
    finally:
        os.close(found)
    return status == 0


def _own_pages() -> Set[int]:
    """Numbers of the pages that no other process has."""
    own: set[int] = set()
    with open("/proc/self/maps") as maps, open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for line in maps.readlines():
            first, end = (int(part, 16) // _PAGE for part in line.split(maxsplit=1)[0].split("-"))
            pagemap.seek(first * 8)
            entries = array("Q", pagemap.read((end - first) * 8))
            own.update(first + number for number, entry in enumerate(entries) if entry & _EXCLUSIVE)
    return own


def _tell(found: int, own: Set[int]) -> None:
    """The fork's part. Never returns."""
    code = 1
    try:
        objects = (one for one in _reachable() if not immortal.is_immortal(one))
        with open(found, "wb") as file:
            array("Q", (id(one) for one in objects if id(one) // _PAGE in own)).tofile(file)
        code = 0
    finally:
        os._exit(code)


def _reachable() -> Iterable[object]:
    """Every object that is frozen, and what they refer to: what is not is this fork's, or will be freed."""
    late = gc.get_objects()
    gc.unfreeze()  # the collector does not tell what is frozen
    coming: Iterable[object] = gc.get_objects()
    passing = {id(one) for one in (late, *late)}
    coming = [one for one in coming if id(one) not in passing]
    found: dict[int, object] = {}
    while fresh := {id(one): one for one in coming if id(one) not in found}:
        found |= fresh
        coming = [*gc.get_referents(*fresh.values()), *_constants(fresh.values())]
    return found.values()


def _constants(objects: Iterable[object]) -> Iterable[object]:
    """What the collector does not lead to: it does not know code."""
    return (one.co_consts for one in objects if isinstance(one, types.CodeType))
