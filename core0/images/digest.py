"""SHA-256 of what passes, beside whatever else is done with it.

A processor without instructions for SHA takes as long to hash a layer as to unpack it: both are done at a time where
there is more than one. hashlib lets other threads run meanwhile, and so does zlib.
"""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

# Pieces that wait for their turn: each is memory.
_BEHIND = 3
# Bytes that are hashed sooner than handed to a thread.
_SMALL = 32 << 10


class Digest:
    """The digest of pieces, in their order; use it with `with`, whose end ends its thread."""

    def __init__(self) -> None:
        self._seen = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._behind: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def update(self, piece: bytes) -> None:
        """Take one more; waits if too many wait already."""
        if len(piece) < _SMALL and not self._behind:
            self._seen.update(piece)
            return
        self._behind.append(self._thread.submit(self._seen.update, piece))
        if len(self._behind) > _BEHIND:
            self._behind.popleft().result()

    def text(self) -> str:
        """`sha256:` and the digest of all that was taken."""
        while self._behind:
            self._behind.popleft().result()
        return f"sha256:{self._seen.hexdigest()}"
