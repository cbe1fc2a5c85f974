"""The node's state for tests of networks: the real store would want a worker and files for what is not its test."""


class KeptInMemory:
    """Sections in memory; `told` has what was reported."""

    def __init__(self, node: str = "0123456789abcdef" * 2) -> None:
        self.node = node
        self.sections: dict[str, bytes] = {}
        self.told: list[tuple[str, str, str]] = []

    def get(self, section: str) -> bytes | None:
        """A section of the state."""
        return self.sections.get(section)

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """The sections whose names begin so."""
        return tuple(sorted(name for name in self.sections if name.startswith(prefix)))

    async def put(self, section: str, value: bytes) -> None:
        """Write a section."""
        self.sections[section] = value

    async def remove(self, section: str) -> None:
        """Take a section away."""
        self.sections.pop(section, None)

    def report(self, kind: str, subject: str, message: str) -> None:
        """Take an event."""
        self.told.append((kind, subject, message))
