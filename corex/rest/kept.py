"""What people changed, kept for Core-X's next start: a file of the node's that outlives the container's end.

The file has two slots, written in turn, each with a number that grows, its length and a checksum: whenever Core-X
ends, one of them is whole. A change is answered once it is in there.
"""

import binascii
import os
import struct
from collections.abc import Mapping

import msgspec

from corex.http import problem
from corex.wire.identities import IdentitySpec
from corex.wire.plan import Layer

# Bytes of all that is kept; what makes it smaller is always taken.
LARGEST = 1 << 20
_SLOT = 2 * LARGEST
_HEAD = struct.Struct("!8sQII")  # what it is, its number, bytes that follow, their CRC-32
_MAGIC = b"core-x 1"


class Known(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept.

    Attributes:
        layers: those of the plan that are not as the container was created, the lowest first; None for one that was
            taken away.
        identities: who may ask besides the owner.
    """

    layers: dict[str, Layer | None] = {}
    identities: dict[str, IdentitySpec] = {}


_decoder, _encoder = msgspec.json.Decoder(Known), msgspec.json.Encoder()


class Kept:
    """Reads the file once, and writes it with each change.

    Attributes:
        known: what is kept now.
    """

    def __init__(self, descriptor: int | None) -> None:
        """Read what an earlier Core-X kept; None keeps nothing."""
        self._descriptor = descriptor
        self._number, self._bytes = 0, 0
        self.known = Known()
        if descriptor is not None:
            for slot in (0, 1):
                self._read(descriptor, slot)

    def keep_layers(self, layers: Mapping[str, Layer | None]) -> None:
        """Keep the plan's layers. Raises ProblemError: 507, there is no room."""
        self._write(msgspec.structs.replace(self.known, layers=dict(layers)))

    def keep_identities(self, identities: Mapping[str, IdentitySpec]) -> None:
        """Keep who may ask. Raises ProblemError: 507, there is no room."""
        self._write(msgspec.structs.replace(self.known, identities=dict(identities)))

    def _read(self, descriptor: int, slot: int) -> None:
        head = os.pread(descriptor, _HEAD.size, slot * _SLOT)
        if len(head) < _HEAD.size:
            return
        magic, number, length, checksum = _HEAD.unpack(head)
        if magic != _MAGIC or number <= self._number or length > _SLOT - _HEAD.size:
            return
        data = os.pread(descriptor, length, slot * _SLOT + _HEAD.size)
        if binascii.crc32(data) != checksum:
            return
        try:
            self.known = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        self._number, self._bytes = number, length

    def _write(self, known: Known) -> None:
        data = _encoder.encode(known)
        if len(data) > max(LARGEST, self._bytes):
            raise problem.FULL(
                f"cannot keep it: plan and identities together have {len(data)} bytes of at most {LARGEST}",
                remedy="take layers, processes or identities away first",
            )
        if self._descriptor is not None:
            number = self._number + 1
            whole = _HEAD.pack(_MAGIC, number, len(data), binascii.crc32(data)) + data
            try:
                written = os.pwrite(self._descriptor, whole, number % 2 * _SLOT)
            except OSError as error:
                raise _no_room(error.strerror or "") from None
            if written < len(whole):
                raise _no_room("the node's memory for it is full")
            self._number = number
        self._bytes, self.known = len(data), known


def _no_room(cause: str) -> problem.ProblemError:
    return problem.FULL(
        f"cannot keep it for the next start: {cause}", remedy="try again when there is memory"
    )
