"""Has what forks of the template write lie together, as the kernel copies a page for the first byte written to it.

Two things that forks do are spread over the memory of the template otherwise: they write into the functions that they
run (`core0.template.written`), and they put what they make themselves wherever the template left a hole.

Sources: CPython's Python/specialize.c and Include/internal/pycore_backoff.h (counters in instructions),
Objects/obmalloc.c (small blocks, by size); mallinfo(3), sbrk(2).
"""

import ctypes
import gc
import os
import sys
import types
from collections.abc import Collection, Mapping

# Bytes of what malloc is asked for, from large to small: between two of them no hole is left that is worth it.
_SIZES = (120_000, 65_536, 32_768, 16_384, 8_192, 4_096, 2_048, *range(1_032, 23, -16))
# What the interpreter keeps beside a function's code for those who ask for it.
_KEPT = ("co_code", "co_varnames", "co_cellvars", "co_freevars")
# What was taken the place of: freed, it would be holes again.
_before: list[types.CodeType] = []


class _Memory(ctypes.Structure):
    """What malloc has (struct mallinfo2): `top` bytes at the end of its heap were never given out."""

    _fields_ = (*((f"before{index}", ctypes.c_size_t) for index in range(9)), ("top", ctypes.c_size_t))


def gather(written: Mapping[str, str]) -> int:
    """Move the code of functions to one place; before they are warmed up.

    Args:
        written: names by module; `*` for all that a module has.

    Returns:
        How many were found.
    """
    gc.unfreeze()  # the collector does not tell what is frozen
    names = {module: listed.split() for module, listed in written.items()}
    functions = (one for one in gc.get_objects() if type(one) is types.FunctionType)
    found = [one for one in functions if _is_named(one, names.get(one.__module__, ()))]
    gc.freeze()  # a collection would write into all that is shared with the node daemon and the API
    for function in found:
        _look_at(function.__code__)
    fill_holes()
    copies: dict[types.CodeType, types.CodeType] = {}
    for function in found:
        _before.append(function.__code__)
        if function.__code__ not in copies:
            copies[function.__code__] = _copy(function.__code__)
        function.__code__ = copies[function.__code__]
    return len(found)


def _is_named(function: types.FunctionType, names: Collection[str]) -> bool:
    return "*" in names or function.__code__.co_qualname in names


def _look_at(code: types.CodeType) -> None:
    """Have the interpreter make what copying looks at, so that it does not lie between the copies."""
    for name in _KEPT:
        getattr(code, name)
    for inner in _inner(code):
        _look_at(inner)


def _inner(code: types.CodeType) -> list[types.CodeType]:
    return [one for one in code.co_consts if isinstance(one, types.CodeType)]


def _copy(code: types.CodeType) -> types.CodeType:
    consts = (_copy(one) if isinstance(one, types.CodeType) else one for one in code.co_consts)
    return code.replace(co_consts=tuple(consts))


def fill_holes() -> int:
    """Take all memory that this process has been given and does not use, for good; returns how many bytes."""
    gc.collect()  # and what the interpreter keeps for the next object of a type
    return _fill_small() + _fill_large()


def _fill_small() -> int:
    """Of the interpreter's own blocks of up to 512 bytes."""
    allocate = ctypes.pythonapi.PyObject_Malloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    free = _free_blocks()
    for size, blocks in free.items():
        for _ in range(blocks):
            allocate(size)
    return sum(size * blocks for size, blocks in free.items())


def _free_blocks() -> dict[int, int]:
    """How many blocks of each size are free, as the interpreter tells the descriptor of errors."""
    own, told = os.dup(2), os.memfd_create("blocks", os.MFD_CLOEXEC)
    try:
        os.dup2(told, 2)
        sys._debugmallocstats()
        os.lseek(told, 0, os.SEEK_SET)
        said = os.read(told, 1 << 20).decode()
    finally:
        os.dup2(own, 2)
        os.close(own)
        os.close(told)
    # class, size, pools, blocks in use, blocks that are not
    rows = (line.split() for line in said.splitlines())
    return {int(row[1]): int(row[4]) for row in rows if len(row) == 5 and "".join(row).isdecimal()}


def _fill_large() -> int:
    """Of the C library's heap, up to what was never given out."""
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.sbrk.restype, library.sbrk.argtypes = ctypes.c_void_p, (ctypes.c_ssize_t,)
    library.mallinfo2.restype = _Memory
    top = library.sbrk(0) - library.mallinfo2().top
    filled = 0
    for size in _SIZES:
        while 0 < (library.malloc(size) or 0) < top:
            filled += size
    return filled
