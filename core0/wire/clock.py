"""The node's clock in its config: the same types for the node, the API, the command line and TOML."""

from typing import Annotated

import msgspec

MOST_SERVERS = 16
# A host name or an address: what stands in a line of chrony.conf(5), so no space, and nothing that begins a comment.
TimeServer = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]{0,253}$(?!\n)")]


class ClockConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom the node asks for the time.

    Attributes:
        servers: NTP servers, names or addresses; none: those that DHCP names, else a public pool.
        enabled: False leaves the clock alone.
    """

    servers: Annotated[tuple[TimeServer, ...], msgspec.Meta(max_length=MOST_SERVERS)] = ()
    enabled: bool = True
