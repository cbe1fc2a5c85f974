"""Makes what the template has immortal, so that its forks share it: no reference to it is counted any more.

A fork writes into every object that it only looks at, because CPython counts references in the object, and the
kernel copies the page for it. Objects that are never freed need no count, and CPython has had such since PEP 683:
their count is one value which nothing changes. There is no call to make an object immortal, so the value is written
here, in versions in which it is known, and only after a fork of this process has tried it.

Sources: PEP 683; CPython's Include/object.h and Include/refcount.h of these versions.
"""

import ctypes
import gc
import os
import sys
import types
from collections.abc import Iterable

# The lower half of ob_refcnt of an immortal object (_Py_IMMORTAL_REFCNT), on machines of 64 bits.
_IMMORTAL = 0xFFFFFFFF
_VERSIONS = ((3, 12), (3, 13))
_WORD = ctypes.c_uint32
# All addresses that a process can have, as an array of words that begins at 0: only those of objects are touched.
_WORDS = 1 << 45
# Parts of objects that the garbage collector does not lead to.
_OF_CODE = (
    "co_consts",
    "co_names",
    "co_varnames",
    "co_cellvars",
    "co_freevars",
    "co_name",
    "co_qualname",
    "co_filename",
    "co_linetable",
    "co_exceptiontable",
)
_OF_TYPES = ("__name__", "__qualname__")


def make_immortal() -> int:
    """Make everything immortal that this process has now, if its interpreter is one of those that are known.

    What is frozen (gc.freeze) is so again.

    Returns:
        How many objects it is; 0 if the interpreter is another, or did not stand the trial.
    """
    gc.unfreeze()  # the collector does not tell what is frozen
    try:
        return _make_immortal(_reachable()) if _is_known() and _stands_trial() else 0
    finally:
        gc.collect()
        gc.freeze()


def _is_known() -> bool:
    return (
        sys.implementation.name == "cpython"
        and sys.version_info[:2] in _VERSIONS
        and sys.maxsize == (1 << 63) - 1
        and sys.byteorder == "little"
        and getattr(sys, "_is_gil_enabled", lambda: True)()
    )


def _stands_trial() -> bool:
    """Whether a fork does it and works on: what it breaks is its own."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            probe = [object() for _ in range(8)]
            _make_immortal([*_reachable(), *probe])
            copies = [list(probe) for _ in range(64)]
            counts = {sys.getrefcount(one) for one in probe}
            del copies
            gc.collect()
            code = int(counts != {_IMMORTAL} or {sys.getrefcount(one) for one in probe} != {_IMMORTAL})
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return status == 0


def _reachable() -> list[object]:
    """Every object that the garbage collector knows, and what they refer to."""
    found: dict[int, object] = {}
    coming: Iterable[object] = gc.get_objects()
    while fresh := {id(one): one for one in coming if id(one) not in found}:
        found |= fresh
        coming = [*gc.get_referents(*fresh.values()), *_hidden(fresh.values())]
    return list(found.values())


def _hidden(objects: Iterable[object]) -> Iterable[object]:
    for one in objects:
        if isinstance(one, types.CodeType):
            yield from (getattr(one, name) for name in _OF_CODE)
        elif isinstance(one, type):
            yield from (getattr(one, name) for name in _OF_TYPES)


def _make_immortal(objects: Iterable[object]) -> int:
    words = (_WORD * _WORDS).from_address(0)
    count = 0
    for one in objects:
        at = id(one) >> 2
        if words[at] != _IMMORTAL:
            words[at] = _IMMORTAL
            count += 1
    return count
