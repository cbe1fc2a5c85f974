"""Which wishes for networks can be granted; the others are refused by their field, and nothing is changed. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from core0.networks.addresses import FIRST_HOST, last_host
from core0.networks.model import Kept
from core0.wire.control import conflict, invalid
from core0.wire.network import packed
from core0.wire.networks import INTERNET, EgressRule, NetworkSpec
from core0.wire.subnets import Subnet, parse_interface, parse_subnet, unusable

# Interface addresses of the node by the names of their links.
Around = Mapping[str, Sequence[str]]

_LENGTHS = {"ipv4": (8, 29), "ipv6": (32, 112)}


def check_spec(spec: NetworkSpec) -> None:
    """Refuse a spec that can never be (422)."""
    for field, text in (("ipv4", spec.ipv4), ("ipv6", spec.ipv6)):
        if text is not None:
            _check_subnet(field, text)
    if spec.mesh:
        for field, text in (("ipv4", spec.mesh.ipv4), ("ipv6", spec.mesh.ipv6)):
            if text is not None:
                _check_subnet(field, text, f"/mesh/{field}")
    if spec.egress == "none" and spec.egress_allow not in ((), NetworkSpec().egress_allow):
        detail = "cannot allow anything outside: containers of a network with egress none stay within it"
        raise invalid(detail, "leave egress_allow out, or choose nat or routed", "/egress_allow")
    for index, rule in enumerate(spec.egress_allow):
        _check_rule(index, rule)


def _check_subnet(field: str, text: str, pointer: str = "") -> None:
    pointer, (shortest, longest) = pointer or f"/{field}", _LENGTHS[field]
    try:
        subnet = parse_subnet(text)
    except ValueError as error:
        detail = f"cannot use subnet {text!a}: {error}"
        raise invalid(detail, "write it as 10.9.0.0/24 or fd00:1::/64", pointer) from None
    if (":" in text) != (field == "ipv6"):
        raise invalid(
            f"cannot use subnet {text} as {field}: it is of the other family", "exchange the two", pointer
        )
    if not shortest <= subnet.length <= longest:
        detail = f"cannot use subnet {text}: its prefix length is not from {shortest} to {longest}"
        raise invalid(detail, "a shorter prefix has more room", pointer)
    touched = unusable(subnet)
    if touched:
        detail = f"cannot use subnet {text}: no container can have an address of {touched}"
        raise invalid(detail, "use a private subnet, as of 10.0.0.0/8 or fd00::/8", pointer)


def _check_rule(index: int, rule: EgressRule) -> None:
    pointer = f"/egress_allow/{index}"
    if rule.to != INTERNET:
        try:
            parse_subnet(rule.to)
        except ValueError as error:
            detail = f"cannot allow {rule.to!a}: {error}"
            raise invalid(
                detail, f"write a subnet, as 192.168.1.0/24, or {INTERNET}", f"{pointer}/to"
            ) from None
    if rule.port is not None and rule.protocol not in ("tcp", "udp"):
        detail = f"cannot allow port {rule.port} without its protocol"
        raise invalid(detail, "say tcp or udp; a rule for each if both", f"{pointer}/protocol")


def overlap(subnet: Subnet, networks: Mapping[str, Kept], around: Around) -> str:
    """Which network or link of the node has addresses of a subnet, in words; empty if none has."""
    for name, kept in networks.items():
        for other in kept.reach:
            if subnet.overlaps(other):
                return f"{other} of network {name}"
    for link, interfaces in around.items():
        for interface in interfaces:
            if subnet.overlaps(parse_interface(interface)[0]):
                return f"{interface} of the node's link {link}"
    return ""


def check_free(name: str, kept: Kept, others: Mapping[str, Kept], around: Around) -> None:
    """Refuse subnets that something else has (409)."""
    for family, subnet, own in zip(("ipv4", "ipv6"), kept.reach, kept.subnets, strict=True):
        other, field = overlap(subnet, others, around), family if subnet == own else f"mesh/{family}"
        if other:
            detail = f"cannot have network {name}: its subnet {subnet} overlaps {other}"
            raise conflict(detail, f"choose another {family} subnet, or leave it to the node", f"/{field}")


def check_change(name: str, old: Kept, new: Kept, users: Iterable[str]) -> None:
    """Refuse to take the subnets from under containers (409)."""
    names = ", ".join(sorted(users))
    for field, before, after in (("ipv4", old.ipv4, new.ipv4), ("ipv6", old.ipv6, new.ipv6)):
        if names and before != after:
            detail = f"cannot change the subnet of network {name}: container {names} is in it"
            raise conflict(detail, "remove the container first, or make another network", f"/{field}")


def check_unused(name: str, users: Iterable[str]) -> None:
    """Refuse to delete what containers have (409)."""
    names = ", ".join(sorted(users))
    if names:
        detail = f"cannot delete network {name}: container {names} is in it"
        raise conflict(detail, "remove the container first, or put it into another network")


def check_fixed(name: str, kept: Kept, ipv4: str | None, ipv6: str | None) -> int | None:
    """The number that a container's addresses mean; None if it has none of its own.

    Raises:
        RefusedError: (422) one is none of the network, or they mean two numbers.
    """
    hosts = {
        field: _number_of(name, kept, subnet, field, text)
        for field, subnet, text in zip(("ipv4", "ipv6"), kept.subnets, (ipv4, ipv6), strict=True)
        if text is not None
    }
    if len(set(hosts.values())) > 1:
        both = f"{ipv4} is number {hosts['ipv4']} of network {name}, {ipv6} is number {hosts['ipv6']}"
        remedy = "give one of them, the other follows from it"
        raise invalid(f"cannot give a container both: {both}, and it has one", remedy, "/ipv6")
    return next(iter(hosts.values()), None)


def _number_of(name: str, kept: Kept, subnet: Subnet, field: str, text: str) -> int:
    value = packed(text)
    number = -1 if value is None else int.from_bytes(value) - subnet.first
    why = ""
    if value is None or len(value) * 8 != subnet.bits:
        why = "it is no IPv4 address" if field == "ipv4" else "it is no IPv6 address"
    elif not 0 <= number < subnet.size:
        why = f"it is not in {subnet} of network {name}"
    elif not FIRST_HOST <= number <= check_room(kept):
        why = f"network {name} gives none of it to containers"
    elif number in kept.lent:
        why = "a machine of the mesh has it"
    if why:
        first, last = subnet.address(FIRST_HOST), subnet.address(check_room(kept))
        remedy = f"choose one from {first} to {last}, or leave it to the node"
        raise invalid(f"cannot give a container address {text!a}: {why}", remedy, f"/{field}")
    return number


def check_room(kept: Kept) -> int:
    """The highest number of a container there. Raises RefusedError (422) if it has room for none."""
    last = last_host(*kept.subnets)
    if last < FIRST_HOST:
        detail = f"cannot use subnets {kept.ipv4} and {kept.ipv6}: they have no room for a container"
        raise invalid(detail, "choose shorter prefixes", "/ipv6")
    return last
