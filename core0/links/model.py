"""What the link manager decides about: links, leases, and the actions between them."""

from typing import Literal

import msgspec


class Lease(msgspec.Struct, frozen=True):
    """An IPv4 lease (RFC 2131): what the server gave, and for how many seconds.

    Attributes:
        address: with the network's prefix length, as `10.0.2.15/24`.
        gateway: the router to use, if any.
        nameservers: by preference.
        server: who gave it.
        seconds: how long it holds.
    """

    address: str
    gateway: str | None
    nameservers: tuple[str, ...]
    server: str
    seconds: int


class Lease6(msgspec.Struct, frozen=True):
    """What a DHCPv6 server gave (RFC 8415).

    Attributes:
        address: with its prefix length, which is 128; None if the server only told what goes with other addresses.
        nameservers: by preference.
        server: its unique identifier (DUID), hexadecimal.
        renew: seconds until it is to be asked again.
        seconds: how long the address is valid.
    """

    address: str | None
    nameservers: tuple[str, ...]
    server: str
    renew: int
    seconds: int


class SeenLink(msgspec.Struct, frozen=True):
    """A link as it is.

    Attributes:
        index: the kernel's number of it.
        name: the kernel's name of it.
        hardware: its hardware address in hexadecimal pairs.
        is_up: whether it is set up.
        carrier: whether it has a peer.
        addresses: `address/prefix length`: its IPv4 addresses.
        routed: its IPv6 addresses that reach beyond the link: routers or DHCPv6 gave them.
        duplicates: IPv6 addresses that it does not use, because another machine on the link has them.
    """

    index: int
    name: str
    hardware: str
    is_up: bool
    carrier: bool
    addresses: frozenset[str]
    routed: frozenset[str] = frozenset()
    duplicates: frozenset[str] = frozenset()


class SetUp(msgspec.Struct, frozen=True):
    """Set a link up."""

    link: SeenLink

    def __str__(self) -> str:
        return f"set {self.link.name} up"


class AddAddress(msgspec.Struct, frozen=True):
    """Give a link its leased address and the routes that go with it."""

    link: SeenLink
    lease: Lease

    def __str__(self) -> str:
        way = f", default route by {self.lease.gateway}" if self.lease.gateway else ""
        return f"add {self.lease.address} to {self.link.name}{way}"


class DeleteAddress(msgspec.Struct, frozen=True):
    """Take an address that no lease covers any more."""

    link: SeenLink
    address: str

    def __str__(self) -> str:
        return f"delete {self.address} from {self.link.name}"


Action = SetUp | AddAddress | DeleteAddress


class Conversation(msgspec.Struct, frozen=True):
    """How a link's talk with DHCP servers stands. Moments are seconds of the monotonic clock.

    Attributes:
        state: `asking` for the first time, `bound` to the lease, `renewing` it; or how the last try ended:
            `unanswered`, `refused` by the server, `failed` because the kernel did not take what it gave.
        since: when this state began.
        lease: the one that is held.
        until: when it ends, if this node daemon got it.
        next_try: when it is asked for again; None while that goes on.
        cause: why the last try ended.
    """

    state: Literal["asking", "bound", "renewing", "unanswered", "refused", "failed"]
    since: float
    lease: Lease | None = None
    until: float | None = None
    next_try: float | None = None
    cause: str = ""
