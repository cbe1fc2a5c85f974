"""The state area's format: two slots, written alternately, each of which proves that it is whole. Pure.

```
0         512 KiB   1 MiB      8.5 MiB    16 MiB
| header  | header  | payload  | payload  |
  slot 0    slot 1    slot 0     slot 1
```

A slot is written by two writes and one flush: the header has the SHA-256 of the payload and of itself, so whatever a
crash leaves of these writes, in whatever order the disk carried them out, is whole or is seen not to be. A flush
between payload and header would prove nothing more and costs a hard disk another turn. Meanwhile nothing of the other
slot is touched; their headers are so far apart that no disk writes both at once. They are in the first MiB, so that
who clears the beginning of a partition, as one does, has cleared both.

Header, little endian: magic (16 bytes), format version (4), zero (4), sequence (8), length of the payload (8), its
SHA-256 (32), zeros, and in the last 32 bytes of its 4,096 the SHA-256 of all before. That one is the slot's mark.
"""

import struct
from typing import NamedTuple

BLOCK = 4096
AREA = 16 << 20
HEADERS = (0, 512 << 10)
PAYLOADS = (1 << 20, 17 << 19)
LARGEST_PAYLOAD = 15 << 19
VERSION = 1

_MAGIC = b"zeronode state\0\0"
_FIELDS = struct.Struct("<16sI4xQQ32s")
_MARK = 32


class Header(NamedTuple):
    """What a slot's header says of the slot."""

    version: int
    sequence: int
    length: int
    digest: bytes
    mark: bytes


class Encoded(NamedTuple):
    """A slot's bytes: one block, and a multiple of 4,096."""

    header: bytes
    payload: bytes

    @property
    def mark(self) -> bytes:
        """By what the slot is found again."""
        return self.header[-_MARK:]


def encode_slot(sequence: int, payload: bytes) -> Encoded:
    """A slot for a payload.

    Raises:
        ValueError: if the payload is too large for a slot.
    """
    if len(payload) > LARGEST_PAYLOAD:
        raise ValueError(f"cannot fit {len(payload)} bytes into a slot of {LARGEST_PAYLOAD}")
    fields = _FIELDS.pack(_MAGIC, VERSION, sequence, len(payload), _sha256(payload))
    head = fields.ljust(BLOCK - _MARK, b"\0")
    return Encoded(head + _sha256(head), payload + bytes(-len(payload) % BLOCK))


def parse_header(block: bytes) -> Header | None:
    """The header in a block; None if there is none that is whole. Its version may be one of the future."""
    head, mark = block[: BLOCK - _MARK], block[BLOCK - _MARK : BLOCK]
    magic, version, sequence, length, digest = _FIELDS.unpack_from(head)
    if magic != _MAGIC or _sha256(head) != mark:
        return None
    if version == VERSION and length > LARGEST_PAYLOAD:
        return None
    return Header(version, sequence, length, digest, mark)


def is_whole(header: Header, payload: bytes) -> bool:
    """Whether a payload is the one that the header announces."""
    return len(payload) == header.length and _sha256(payload) == header.digest


def _sha256(data: bytes) -> bytes:
    from hashlib import sha256

    return sha256(data).digest()
