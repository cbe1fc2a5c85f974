"""Makes objects immortal, so that forks share them: no reference to them is counted any more.

A fork writes into every object that it only looks at, because CPython counts references in the object, and the
kernel copies the page for it. Objects that are never freed need no count, and CPython has had such since PEP 683:
their count is one value which nothing changes. There is no call to make an object immortal, so the value is written
into its header, in versions in which it is known, and only if headers there are what they are taken for.

The interpreter would take longer to go over the objects than a boot can spare: the kernel writes, as it reads a file
into many places at once.

Sources: PEP 683; CPython's Include/object.h and Include/refcount.h of these versions; readv(2).
"""

import ctypes
import gc
import os
import sys

# The lower half of ob_refcnt of an immortal object (_Py_IMMORTAL_REFCNT), on machines of 64 bits.
_IMMORTAL = 0xFFFFFFFF
_VERSIONS = ((3, 12), (3, 13))
_WORD = ctypes.c_uint32
_WIDTH = ctypes.sizeof(_WORD)
# All addresses that a process can have, as an array of words that begins at 0: only those of objects are touched.
_WORDS = _WORD * (1 << 45)
# Places that one call fills (IOV_MAX), each an address and a length (struct iovec).
_MOST = 1024
_LENGTHS = memoryview(_WIDTH.to_bytes(8, sys.byteorder) * _MOST).cast("Q")
_libc = ctypes.CDLL(None)


def freeze() -> bool:
    """Freeze what the collector knows (gc.freeze), and have it counted no more, but for what is frozen already.

    For a process that is about to fork for the first time. Nothing of it is freed any more, in the forks neither.

    Returns:
        False if everything is frozen and nothing else: the interpreter is none that is known.
    """
    known = is_known()
    if known:
        objects = tuple(gc.get_objects())
        # a tuple has what it refers to side by side, behind its header
        write(memoryview(ctypes.string_at(id(objects) + tuple.__basicsize__, 8 * len(objects))).cast("Q"))
    gc.freeze()
    return known


def is_known() -> bool:
    """Whether this interpreter's objects have the headers that are written here."""
    if not (
        sys.implementation.name == "cpython"
        and sys.version_info[:2] in _VERSIONS
        and "t" not in sys.abiflags
        and sys.maxsize == (1 << 63) - 1
        and sys.byteorder == "little"
    ):
        return False
    mortal = object()
    return is_immortal(None) and _WORDS.from_address(0)[id(mortal) >> 2] == sys.getrefcount(mortal) - 1


def is_immortal(one: object) -> bool:
    """Whether no reference to an object is counted, in an interpreter that is known."""
    return _WORDS.from_address(0)[id(one) >> 2] == _IMMORTAL


def write(addresses: memoryview) -> None:
    """Make objects immortal, in an interpreter that is known; those that are so already are written, too.

    Args:
        addresses: where they are (`id`), of format Q.
    """
    places = memoryview(bytearray(_MOST * 16)).cast("Q")
    places[1::2] = _LENGTHS
    vector = (ctypes.c_char * places.nbytes).from_buffer(places)
    values = os.memfd_create("immortal", os.MFD_CLOEXEC)
    try:
        os.write(values, _IMMORTAL.to_bytes(_WIDTH, "little") * _MOST)
        for first in range(0, len(addresses), _MOST):
            some = addresses[first : first + _MOST]
            places[: 2 * len(some) : 2] = some
            # what the kernel does not write stays counted: that costs memory and nothing else
            _libc.preadv(values, vector, len(some), ctypes.c_long(0))
    finally:
        os.close(values)
