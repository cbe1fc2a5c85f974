"""What a build tells while it runs. This one tells nobody; the command line draws it."""

from collections.abc import Iterator
from contextlib import contextmanager


class Report:
    """Steps with their times, transfers in bytes, and warnings."""

    @contextmanager
    def step(self, _name: str) -> Iterator[None]:
        """Tell that a step runs while the block does."""
        yield

    def expect(self, size: int) -> None:
        """Tell that this many bytes are going to be fetched."""

    def arrived(self, size: int) -> None:
        """Tell that this many more bytes are there."""

    def warn(self, message: str) -> None:
        """Tell something that a person must not miss, although the build goes on."""
