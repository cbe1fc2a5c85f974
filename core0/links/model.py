"""What the link manager decides about: links, leases, and the actions between them."""

from typing import Literal

import msgspec

from core0.linux.link_actions import AddAddress, DeleteAddress, DeleteLink, SetUp


class Lease(msgspec.Struct, frozen=True):
    """An IPv4 lease (RFC 2131): what the server gave, and for how many seconds.

    Attributes:
        address: with the network's prefix length, as `10.0.2.15/24`.
        gateway: the router to use, if any.
        nameservers: by preference.
        server: who gave it.
        seconds: how long it holds.
        timeservers: by preference (RFC 2132, section 8.3).
        mtu: of the network (RFC 2132, section 5.1), whatever the server says; None if it does not.
    """

    address: str
    gateway: str | None
    nameservers: tuple[str, ...]
    server: str
    seconds: int
    timeservers: tuple[str, ...] = ()
    mtu: int | None = None


class Lease6(msgspec.Struct, frozen=True):
    """What a DHCPv6 server gave (RFC 8415).

    Attributes:
        address: with its prefix length, which is 128; None if the server only told what goes with other addresses.
        nameservers: by preference.
        server: its unique identifier (DUID), hexadecimal.
        renew: seconds until it is to be asked again.
        seconds: how long the address is valid.
        timeservers: by preference (RFC 5908; RFC 4075).
    """

    address: str | None
    nameservers: tuple[str, ...]
    server: str
    renew: int
    seconds: int
    timeservers: tuple[str, ...] = ()


class Route(msgspec.Struct, frozen=True, order=True):
    """A route out of a link: to a network, by a gateway ("" for a network on the link), of a metric.

    It is in the table of all (0), or in that of the link's own addresses.
    """

    to: str
    via: str = ""
    metric: int = 0
    table: int = 0

    def __str__(self) -> str:
        return f"{self.to}{f' by {self.via}' if self.via else ''}{' for its own addresses' if self.table else ''}"


class Rule(msgspec.Struct, frozen=True, order=True):
    """By which table packets of an IP version are routed: those from a source, by a table of its link's.

    Without a source: all, by the table of all, but for its ways out. That comes first.
    """

    version: int
    source: str = ""
    table: int = 0


class Bond(msgspec.Struct, frozen=True):
    """How a bond works: its mode, milliseconds between looks at carriers, the member preferred ("" for none)."""

    mode: str
    miimon: int
    primary: str = ""


class SeenLink(msgspec.Struct, frozen=True):
    """A link as it is.

    Attributes:
        index: the kernel's number of it.
        name: the kernel's name of it.
        hardware: its own hardware address in hexadecimal pairs, not the one that a bond lends it.
        is_up: whether it is set up.
        carrier: whether it has a peer.
        addresses: `address/prefix length`: every IPv4 address, and the IPv6 addresses that the config gave it.
        kind: what it was made as, as `vlan`; "" for hardware.
        ours: whether the config had it made.
        mtu: bytes.
        original_mtu: of a card whose MTU the config or a lease changed, what it was before.
        largest_mtu: what its driver takes at most; 0 if nobody says.
        ipv6: whether it speaks IPv6; None if nobody knows.
        master: the bond or bridge that it is a member of, or "".
        parent: of a VLAN the link that it is on.
        vlan: of a VLAN its number.
        bond: of a bond how it works.
        routes: the static ones.
        driver: the name of its driver.
        path: its PCI address.
        routed: its other IPv6 addresses that reach beyond the link: routers or DHCPv6 gave them.
        duplicates: IPv6 addresses that it does not use, because another machine on the link has them.
    """

    index: int
    name: str
    hardware: str
    is_up: bool
    carrier: bool
    addresses: frozenset[str]
    kind: str = ""
    ours: bool = False
    mtu: int = 1500
    original_mtu: int | None = None
    largest_mtu: int = 0
    ipv6: bool | None = True
    master: str = ""
    parent: str = ""
    vlan: int = 0
    bond: Bond | None = None
    routes: frozenset[Route] = frozenset()
    driver: str = ""
    path: str = ""
    routed: frozenset[str] = frozenset()
    duplicates: frozenset[str] = frozenset()

    @property
    def is_card(self) -> bool:
        """Whether it stands for hardware."""
        return not self.kind


class WantedLink(msgspec.Struct, frozen=True):
    """A link as it shall be, by the kernel's names.

    Attributes:
        name: the kernel's name of it.
        kind: `vlan`, `bond` or `bridge`: it is made if it is not there; "" is a card.
        parent: of a VLAN the link that it is on.
        vlan: of a VLAN its number.
        bond: of a bond how it works.
        master: the bond or bridge that it is a member of, or "".
        master_is_bond: whether that is a bond, which takes a member's state upon itself.
        mtu: bytes; None leaves it.
        is_up: whether it is set up.
        ipv6: whether it speaks IPv6.
        addresses: `address/prefix length`, as the kernel writes them.
        routes: its static ones.
    """

    name: str
    kind: str = ""
    parent: str = ""
    vlan: int = 0
    bond: Bond | None = None
    master: str = ""
    master_is_bond: bool = False
    mtu: int | None = None
    is_up: bool = True
    ipv6: bool = True
    addresses: frozenset[str] = frozenset()
    routes: frozenset[Route] = frozenset()


class Create(msgspec.Struct, frozen=True):
    """Make a VLAN, a bond or a bridge, marked as the config's."""

    link: str
    wanted: WantedLink

    def __str__(self) -> str:
        if self.wanted.kind == "vlan":
            return f"create {self.link}, VLAN {self.wanted.vlan} of {self.wanted.parent}"
        mode = f" of mode {self.wanted.bond.mode}" if self.wanted.bond else ""
        return f"create {self.wanted.kind} {self.link}{mode}"


class SetMaster(msgspec.Struct, frozen=True):
    """Make a link a member of a bond or a bridge, or of none (""). A bond takes only a link that is down."""

    link: str
    master: str
    is_bond: bool = False

    def __str__(self) -> str:
        return f"make {self.link} a member of {self.master}" if self.master else f"release {self.link}"


class SetBond(msgspec.Struct, frozen=True):
    """Set how a bond looks at its carriers, and which member it prefers."""

    link: str
    bond: Bond

    def __str__(self) -> str:
        prefers = f", preferring {self.bond.primary}" if self.bond.primary else ""
        return f"let {self.link} look at carriers each {self.bond.miimon} ms{prefers}"


class SetMtu(msgspec.Struct, frozen=True):
    """Set a link's MTU; of a card, note on it what it was (`original`, None forgets that)."""

    link: str
    mtu: int
    is_card: bool = False
    original: int | None = None

    def __str__(self) -> str:
        return f"set the MTU of {self.link} to {self.mtu}"


class SetIpv6(msgspec.Struct, frozen=True):
    """Let a link speak IPv6, or not: it has no IPv6 address then."""

    link: str
    on: bool

    def __str__(self) -> str:
        return f"set IPv6 of {self.link} {'on' if self.on else 'off'}"


class SetDown(msgspec.Struct, frozen=True):
    """Set a link down."""

    link: str

    def __str__(self) -> str:
        return f"set {self.link} down"


class AddRoute(msgspec.Struct, frozen=True):
    """Route a network out of a link."""

    link: str
    route: Route

    def __str__(self) -> str:
        return f"add route to {self.route} out of {self.link}"


class DeleteRoute(msgspec.Struct, frozen=True):
    """Take a static route that neither lease nor config has any more."""

    link: str
    route: Route

    def __str__(self) -> str:
        return f"delete route to {self.route} out of {self.link}"


class AddRule(msgspec.Struct, frozen=True):
    """Route what leaves with an address by the table of its link."""

    rule: Rule
    link: str = "links"

    def __str__(self) -> str:
        return f"let {_of_rule(self.rule)}"


class DeleteRule(msgspec.Struct, frozen=True):
    """Take a rule of an address that is no more, or that has the only way out."""

    rule: Rule
    link: str = "links"

    def __str__(self) -> str:
        return f"no longer let {_of_rule(self.rule)}"


def _of_rule(rule: Rule) -> str:
    if rule.source:
        return f"{rule.source} leave by its own link's router"
    return f"routes to networks of IPv{rule.version} come before ways out"


Action = (
    Create
    | DeleteLink
    | SetMaster
    | SetBond
    | SetMtu
    | SetIpv6
    | SetUp
    | SetDown
    | AddAddress
    | DeleteAddress
    | AddRoute
    | DeleteRoute
    | AddRule
    | DeleteRule
)


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
