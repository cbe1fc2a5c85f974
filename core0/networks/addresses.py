"""Which addresses networks and containers get. Pure: what is in use comes in, what is free comes out.

A container has one number in its network, for both of its addresses. The number stands with the wish for the
container in the node's state, so that it is the same as long as the container is wanted.
"""

from collections.abc import Collection, Iterable

from core0.wire.subnets import Subnet, parse_subnet

# 0 is the subnet itself, 1 is what people take for a router.
FIRST_HOST = 2
# Of containers on a node; a subnet may have more room than anybody can use.
_MOST_HOSTS = 1 << 20


def last_host(ipv4: Subnet, ipv6: Subnet) -> int:
    """The highest number that a container of these subnets can have: the last IPv4 address is for broadcasts."""
    return min(ipv4.size - 2, ipv6.size - 1, _MOST_HOSTS)


def free_host(used: Collection[int], last: int) -> int | None:
    """The lowest number that is free; None if none is."""
    return next((host for host in range(FIRST_HOST, last + 1) if host not in used), None)


def free_ipv4(used: Iterable[Subnet]) -> Subnet | None:
    """A private subnet that overlaps with none in use: 10.88.0.0/16 and those after it; None if all are in use."""
    taken = tuple(used)
    candidates = (parse_subnet(f"10.{second}.0.0/16") for second in (*range(88, 256), *range(88)))
    return next((one for one in candidates if not any(one.overlaps(other) for other in taken)), None)


def free_ipv6(node: str, used: Iterable[Subnet]) -> Subnet | None:
    """A /64 of the node's unique local prefix that overlaps with none in use; None if all of them do.

    Args:
        node: the node's id, random hexadecimal digits: ten of them make the prefix (RFC 4193, section 3.2).
        used: subnets in use.
    """
    digits = f"fd{node[:10]}"
    prefix = parse_subnet(f"{digits[:4]}:{digits[4:8]}:{digits[8:12]}::/48")
    taken = tuple(used)
    candidates = (Subnet(prefix.family, prefix.first + (number << 64), 64) for number in range(1 << 16))
    return next((one for one in candidates if not any(one.overlaps(other) for other in taken)), None)
