"""A build's progress on the terminal: a bar per step with its time, plain lines where nobody watches."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
)

from image.report import Report


class TerminalReport(Report):
    """Draws on standard error, so that standard output stays for results."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._transfer: TaskID | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show that a step runs, and its time once it has."""
        start = perf_counter()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[arrived]}"),
        )
        with self._bar(columns) as self._progress:
            self._transfer = self._progress.add_task(name, total=None, arrived="")
            yield
        self._console.print(f"{name:<18} {perf_counter() - start:6.2f} s")

    def _bar(self, columns: tuple[ProgressColumn, ...]) -> Progress:
        watched = self._console.is_terminal
        return Progress(*columns, console=self._console, transient=True, disable=not watched)

    def expect(self, size: int) -> None:
        """Give the bar of the present step its length."""
        if self._progress and self._transfer is not None:
            self._progress.update(self._transfer, total=size or None)

    def arrived(self, size: int) -> None:
        """Advance the bar."""
        if self._progress and self._transfer is not None:
            self._progress.advance(self._transfer, size)
            done = self._progress.tasks[0].completed
            self._progress.update(self._transfer, arrived=f"{done / 1e6:.1f} MB")

    def warn(self, message: str) -> None:
        """Print a warning above the bar."""
        self._console.print(f"[bold yellow]Warning:[/] {message}")
