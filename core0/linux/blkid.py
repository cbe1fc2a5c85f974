"""What libblkid finds on a block device: every signature, the partition table and its entries.

By ctypes: a program for each look would take an emulated machine longer than the look itself. It parses what
strangers wrote, so call it in a process that may die (core0.linux.worker).

Source: libblkid's documentation, "Low-level probing"; blkid.h of util-linux.
"""

import ctypes
import os

import msgspec

from core0.linux import tools

# What is wanted of superblocks and of partition tables (blkid.h).
_LABEL, _UUID, _TYPE, _BAD_CHECKSUMS = 1 << 1, 1 << 3, 1 << 5, 1 << 10
_FORCE_GPT, _ENTRY_DETAILS = 1 << 1, 1 << 2
_FOUND, _NOTHING = 0, 1
_MOST = 64


class Found(msgspec.Struct, frozen=True):
    """A signature: its type as blkid(8) names it, its label and UUID where it has them."""

    type: str
    label: str = ""
    uuid: str = ""


class Partition(msgspec.Struct, frozen=True):
    """An entry of a partition table: number, type and own UUID (lower case), name; start and size in bytes."""

    number: int
    type: str
    uuid: str
    name: str
    start: int
    size: int


class Probed(msgspec.Struct, frozen=True):
    """What is on a device. The table is `gpt`, `dos` or another that blkid knows, or none."""

    signatures: tuple[Found, ...] = ()
    table: str = ""
    table_uuid: str = ""
    partitions: tuple[Partition, ...] = ()


def probe(path: str) -> Probed:
    """Look at a device, or a file.

    Raises:
        OSError: if it cannot be opened or read.
    """
    library = _load()
    handle = library.blkid_new_probe_from_filename(os.fsencode(path))
    if not handle:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot probe {path}: {os.strerror(number)}")
    try:
        return _probe(library, handle, path)
    finally:
        library.blkid_free_probe(handle)


def _probe(library: ctypes.CDLL, handle: int, path: str) -> Probed:
    library.blkid_probe_enable_superblocks(handle, 1)
    library.blkid_probe_set_superblocks_flags(handle, _LABEL | _UUID | _TYPE | _BAD_CHECKSUMS)
    library.blkid_probe_enable_partitions(handle, 1)
    library.blkid_probe_set_partitions_flags(handle, _FORCE_GPT | _ENTRY_DETAILS)
    signatures: list[Found] = []
    table = table_uuid = ""
    for _ in range(_MOST):
        result = library.blkid_do_probe(handle)
        if result == _NOTHING:
            break
        if result != _FOUND:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot probe {path}: {os.strerror(number)}")
        kind = _value(library, handle, "TYPE")
        if kind:
            found = Found(kind, _value(library, handle, "LABEL"), _value(library, handle, "UUID"))
            signatures.append(found)
        elif not table:
            table, table_uuid = _value(library, handle, "PTTYPE"), _value(library, handle, "PTUUID")
    return Probed(tuple(signatures), table, table_uuid, _partitions(library, path) if table else ())


def _value(library: ctypes.CDLL, handle: int, name: str) -> str:
    data = ctypes.c_char_p()
    if library.blkid_probe_lookup_value(handle, name.encode(), ctypes.byref(data), None):
        return ""
    return (data.value or b"").decode(errors="replace")


def _partitions(library: ctypes.CDLL, path: str) -> tuple[Partition, ...]:
    """By a probe of its own: the binary interface works on a fresh one only."""
    handle = library.blkid_new_probe_from_filename(os.fsencode(path))
    if not handle:
        return ()
    try:
        library.blkid_probe_enable_partitions(handle, 1)
        entries = library.blkid_probe_get_partitions(handle)
        count = library.blkid_partlist_numof_partitions(entries) if entries else 0
        places = (library.blkid_partlist_get_partition(entries, index) for index in range(count))
        return tuple(_partition(library, place) for place in places if place)
    finally:
        library.blkid_free_probe(handle)


def _partition(library: ctypes.CDLL, place: int) -> Partition:
    def text(function: str) -> str:
        value: bytes | None = getattr(library, function)(place)
        return (value or b"").decode(errors="replace")

    return Partition(
        library.blkid_partition_get_partno(place),
        text("blkid_partition_get_type_string").lower(),
        text("blkid_partition_get_uuid").lower(),
        text("blkid_partition_get_name"),
        library.blkid_partition_get_start(place) * 512,
        library.blkid_partition_get_size(place) * 512,
    )


_POINTERS = (
    "blkid_new_probe_from_filename",
    "blkid_probe_get_partitions",
    "blkid_partlist_get_partition",
)
_TEXTS = (
    "blkid_partition_get_type_string",
    "blkid_partition_get_uuid",
    "blkid_partition_get_name",
)
_HANDLES = (
    "blkid_free_probe",
    "blkid_do_probe",
    "blkid_partlist_numof_partitions",
    "blkid_partition_get_partno",
    "blkid_partition_get_start",
    "blkid_partition_get_size",
    "blkid_probe_get_partitions",
    *_TEXTS,
)
_loaded: list[ctypes.CDLL] = []


def _load() -> ctypes.CDLL:
    """The library with the types of its functions."""
    if not _loaded:
        library = tools.library("libblkid.so.1")
        for name in _POINTERS:
            getattr(library, name).restype = ctypes.c_void_p
        for name in _TEXTS:
            getattr(library, name).restype = ctypes.c_char_p
        for name in _HANDLES:
            getattr(library, name).argtypes = (ctypes.c_void_p,)
        for name in ("superblocks", "partitions"):
            getattr(library, f"blkid_probe_enable_{name}").argtypes = (ctypes.c_void_p, ctypes.c_int)
            getattr(library, f"blkid_probe_set_{name}_flags").argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.blkid_partlist_get_partition.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.blkid_probe_lookup_value.argtypes = (
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.POINTER(ctypes.c_char_p),
            ctypes.c_void_p,
        )
        library.blkid_partition_get_start.restype = ctypes.c_longlong
        library.blkid_partition_get_size.restype = ctypes.c_longlong
        _loaded.append(library)
    return _loaded[0]
