"""ELF files (elf(5)), as far as the builder reads and shortens them: 64 bit, little endian."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from image.errors import ImageError

_MAGIC = b"\x7fELF\x02\x01"
_RELOCATABLE = 1
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5
# Offsets in the file header: type, then the place of both tables and their entries' sizes and counts.
_TYPE, _PROGRAM_TABLE, _SECTION_TABLE, _SIZES = 16, 32, 40, 54


class ElfError(ImageError):
    """The bytes are not an ELF file that can be read."""


@dataclass(frozen=True)
class _Section:
    name: bytes
    offset: int
    size: int


def is_elf(image: bytes) -> bool:
    """Whether the bytes start like a 64-bit little-endian ELF file."""
    return image.startswith(_MAGIC)


def section(image: bytes, wanted: bytes) -> bytes:
    """The bytes of the section of that name; ElfError if there is none."""
    if not is_elf(image):
        raise ElfError("not a 64-bit little-endian ELF file")
    for found in _sections(image):
        if found.name == wanted:
            return image[found.offset : found.offset + found.size]
    raise ElfError(f"no section {wanted.decode()}")


def _sections(image: bytes) -> list[_Section]:
    (table,) = struct.unpack_from("<Q", image, _SECTION_TABLE)
    _, _, size, count, names_index = struct.unpack_from("<HHHHH", image, _SIZES)
    headers = [struct.unpack_from("<IIQQQQ", image, table + index * size) for index in range(count)]
    names = headers[names_index][4]
    return [_Section(_text(image, names + name), offset, length) for name, _, _, _, offset, length in headers]


def _text(image: bytes, start: int) -> bytes:
    return image[start : image.index(b"\0", start)]


def loadable(image: bytes) -> bytes:
    """A program or library without what the loader never reads: symbols for debuggers and the section table.

    The program headers say what is loaded; linkers put the rest behind it. Relocatable files (kernel
    modules) need their sections, and signed ones every byte: they come back as they are.
    """
    (kind,) = struct.unpack_from("<H", image, _TYPE)
    if kind == _RELOCATABLE:
        return image
    end = max(offset + size for offset, size in _segments(image))
    shortened = bytearray(image[:end])
    struct.pack_into("<Q", shortened, _SECTION_TABLE, 0)
    struct.pack_into("<HHH", shortened, _SIZES + 4, 0, 0, 0)
    return bytes(shortened)


def needed(image: bytes) -> list[str]:
    """The libraries that a program or library asks the loader for (DT_NEEDED), in its order.

    Read by the program headers, so that it works on what `loadable` has shortened.
    """
    headers = list(_program_headers(image))
    dynamic = next(((offset, size) for kind, offset, _, size in headers if kind == _PT_DYNAMIC), (0, 0))
    rows = list(struct.iter_unpack("<QQ", image[dynamic[0] : sum(dynamic)]))
    names = next((value for tag, value in rows if tag == _DT_STRTAB), 0)
    start = next(
        (names - at + offset for kind, offset, at, size in headers if _holds(kind, at, size, names)), 0
    )
    return [_text(image, start + value).decode() for tag, value in rows if tag == _DT_NEEDED]


def _holds(kind: int, at: int, size: int, address: int) -> bool:
    return kind == _PT_LOAD and at <= address < at + size


def _program_headers(image: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Type, offset in the file, address in memory and length in the file of each program header."""
    (table,) = struct.unpack_from("<Q", image, _PROGRAM_TABLE)
    size, count = struct.unpack_from("<HH", image, _SIZES)
    for index in range(count):
        kind, _, offset, at, _, length = struct.unpack_from("<IIQQQQ", image, table + index * size)
        yield kind, offset, at, length


def _segments(image: bytes) -> list[tuple[int, int]]:
    """Offset and length in the file of each program header."""
    (table,) = struct.unpack_from("<Q", image, _PROGRAM_TABLE)
    size, count = struct.unpack_from("<HH", image, _SIZES)
    return [(table, size * count), *((offset, length) for _, offset, _, length in _program_headers(image))]
