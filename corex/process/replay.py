"""The newest output of a command, capped in bytes and addressed by offset."""

from collections import deque
from typing import NamedTuple

CAPACITY = 256 * 1024


class Piece(NamedTuple):
    """Bytes that were written together, and how many came before them on both streams."""

    offset: int
    stream: int
    data: bytes


class Ring:
    """What a command wrote, both streams in the order in which they were read."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.end = 0
        self._capacity = capacity
        self._pieces: deque[Piece] = deque()
        self._kept = 0

    @property
    def start(self) -> int:
        """The offset of the oldest byte that is kept."""
        return self.end - self._kept

    def add(self, stream: int, data: bytes) -> None:
        """Keep bytes, and let the oldest ones go."""
        self._pieces.append(Piece(self.end, stream, data))
        self.end += len(data)
        self._kept += len(data)
        while self._kept - len(self._pieces[0].data) >= self._capacity:
            self._kept -= len(self._pieces.popleft().data)

    def after(self, offset: int, most: int) -> Piece | None:
        """The first bytes behind an offset that are kept, `most` of them at most; None if there are none."""
        if offset >= self.end:
            return None
        # a reader is most often at the newest pieces
        found = next((piece for piece in reversed(self._pieces) if piece.offset <= offset), self._pieces[0])
        skipped = max(0, offset - found.offset)
        return Piece(found.offset + skipped, found.stream, found.data[skipped : skipped + most])
