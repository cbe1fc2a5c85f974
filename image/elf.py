"""ELF files (elf(5)), as far as the builder reads and shortens them: 64 bit, little endian."""

import struct
from dataclasses import dataclass

from image.errors import ImageError

_MAGIC = b"\x7fELF\x02\x01"
_RELOCATABLE = 1
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


def _segments(image: bytes) -> list[tuple[int, int]]:
    """Offset and length in the file of each program header."""
    (table,) = struct.unpack_from("<Q", image, _PROGRAM_TABLE)
    size, count = struct.unpack_from("<HH", image, _SIZES)
    rows = [struct.unpack_from("<IIQQQQ", image, table + index * size) for index in range(count)]
    return [(table, size * count), *((offset, length) for _, _, offset, _, _, length in rows)]
