"""The node's state for tests of networks: the real store would want a worker and files for what is not its test."""

from dataclasses import dataclass, field

from cli.bench_network import StateInMemory


@dataclass
class KeptInMemory(StateInMemory):
    """Sections in memory; `told` has what was reported."""

    node: str = "0123456789abcdef" * 2
    told: list[tuple[str, str, str]] = field(default_factory=list)

    def report(self, kind: str, subject: str, message: str) -> None:
        """Take an event."""
        self.told.append((kind, subject, message))
