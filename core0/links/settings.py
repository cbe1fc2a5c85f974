"""What the config says of the links, kept for a node daemon that starts again: its links shall not go meanwhile."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from core0.links.model import Lease, SeenLink
from core0.links.wanted import Wanted, want
from core0.linux import files
from core0.linux.files import StrPath
from core0.wire.control import Report

if TYPE_CHECKING:
    from core0.wire.link_config import LinkConfig, NetworkConfig


class Settings:
    """The links of the config in force, by the names that it gives them.

    Args:
        report: where to tell what waits.
        kept: the file that an earlier node daemon left them in.
    """

    def __init__(self, report: Report, kept: StrPath) -> None:
        self._report = report
        self._kept = kept
        self.links = _kept_links(kept)
        self._waiting: Mapping[str, str] = {}
        self._passed_over: Mapping[str, str] = {}

    @property
    def nameservers(self) -> tuple[str, ...]:
        """Those that the config names, each once."""
        return tuple(dict.fromkeys(server for link in self.links.values() for server in link.nameservers))

    def want(self, leases: Mapping[int, Lease], landscape: Sequence[SeenLink]) -> Wanted:
        """What the links shall be; what has to wait, or is not used, is told once."""
        wanted = want(self.links, leases, landscape)
        for name, why in wanted.waiting.items():
            if self._waiting.get(name) != why:
                self._report("network", name, f"Waits: {why}; 'zn config show' says what it shall be")
        self._waiting = wanted.waiting
        for name, why in wanted.passed_over.items():
            if self._passed_over.get(name) != why:
                self._report("network", name, f"{why[0].upper()}{why[1:]}")
        self._passed_over = wanted.passed_over
        return wanted

    def check(
        self, config: "NetworkConfig", landscape: Sequence[SeenLink], taken: Mapping[str, Sequence[str]]
    ) -> None:
        """Refuse what can never be, or not with these links and subnets. Raises RefusedError with the field."""
        from core0.links.check import check

        check(config, landscape, taken)

    def keep(self) -> None:
        """Write the links down for the next node daemon of this boot."""
        files.replace(self._kept, msgspec.json.encode(self.links))


def _kept_links(file: StrPath) -> "Mapping[str, LinkConfig]":
    """What the last node daemon had; no boot finds any, and imports the types for it."""
    try:
        kept = files.read(file)
    except FileNotFoundError:
        return {}
    from core0.wire.link_config import LinkConfig

    return msgspec.json.decode(kept, type=dict[str, LinkConfig])
