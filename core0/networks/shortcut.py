"""The short way of packets that stay within a network, as text for libnftables. Pure.

All that containers of one network send each other is allowed, so it needs neither a route nor connection tracking: a
packet is handed from the link that it came in by to the link of its receiver (nft(8), FWD STATEMENT), below the IP
stack. So it is with what goes to a mesh, and with what comes from there. Whatever is looked up here in vain takes the
way of all others, through table inet (ruleset.py).

The sender is looked at as there: only a link with its own hardware address and its own address is in `senders`, and
only a peer's part of a mesh in `entries`. What is found is the sender's group, a number for one MTU of one network:
between links of different MTUs the IP stack is needed, for it says what is too big. Both directions of a connection
go the same way for that, so that connection tracking sees all of it or nothing.
"""

from collections.abc import Mapping, Sequence

from core0.linux import nfnetlink
from core0.linux.netlink import Request
from core0.linux.nfnetlink import Element, address, hardware, link_number
from core0.networks.model import Attachment, MeshPolicy
from core0.wire.network import GATEWAY, GATEWAY6

FAMILY, TABLE = "netdev", "zeronode"
# What hands a packet on also looks at its time to live, and only drops; a header without options has 20 bytes.
_IS_PLAIN4 = "meta protocol ip @nh,0,8 0x45 ip ttl > 1"
_IS_PLAIN6 = "meta protocol ip6 ip6 hoplimit > 1"

_OF_FAMILY = """
    map senders{n} {{ type iface_index . ether_addr . ipv{n}_addr : mark; }}
    map receivers{n} {{ type mark . ipv{n}_addr : iface_index; }}
    map entries{n} {{ type iface_index . ipv{n}_addr : mark; flags interval; }}
    map exits{n} {{ type mark . ipv{n}_addr : iface_index; flags interval; }}
    chain to_container{n} {{
        fwd {ip} to {ip} daddr device meta mark . {ip} daddr map @receivers{n}
        meta mark set 0
    }}
    chain within{n} {{
        fwd {ip} to {ip} daddr device meta mark . {ip} daddr map @receivers{n}
        fwd {ip} to {gateway} device meta mark . {ip} daddr map @exits{n}
        meta mark set 0
    }}
"""

# The loopback link is there so that no chain is ever without a link: the kernel would delete it.
_HOOK = "type filter hook ingress device lo priority 0; policy accept;"
_CHAINS = f"""
    chain from_container {{ {_HOOK}
        {_IS_PLAIN4} meta mark set iif . ether saddr . ip saddr map @senders4 goto within4
        {_IS_PLAIN6} meta mark set iif . ether saddr . ip6 saddr map @senders6 goto within6
    }}
    chain from_mesh {{ {_HOOK}
        {_IS_PLAIN4} meta mark set iif . ip saddr map @entries4 goto to_container4
        {_IS_PLAIN6} meta mark set iif . ip6 saddr map @entries6 goto to_container6
    }}
"""

RULESET = f"""
table {FAMILY} {TABLE}
delete table {FAMILY} {TABLE}
table {FAMILY} {TABLE} {{
    {_OF_FAMILY.format(n=4, ip="ip", gateway=GATEWAY)}{_OF_FAMILY.format(n=6, ip="ip6", gateway=GATEWAY6)}{_CHAINS}
}}
"""

# Those that libnftables fills; the others are filled with containers.
SETS = frozenset({"entries4", "entries6", "exits4", "exits6"})


def watch_container(link: str) -> Request:
    """Have packets of a container's link looked at."""
    return nfnetlink.watch_link(TABLE, "from_container", link)


def watch_mesh(link: str) -> Request:
    """Have packets that come by a mesh looked at."""
    return nfnetlink.watch_link(TABLE, "from_mesh", link)


def elements_of_container(attachment: Attachment, group: int) -> list[Element]:
    """What a container of a group puts into the maps."""
    link, mark = link_number(attachment.index), link_number(group)
    addresses = (("4", address(attachment.ipv4)), ("6", address(attachment.ipv6)))
    sender = link + hardware(attachment.hardware)
    return [
        Element(FAMILY, TABLE, name + n, key + own, data)
        for n, own in addresses
        for name, key, data in (("senders", sender, mark), ("receivers", mark, link))
    ]


def elements_of_mesh(mesh: MeshPolicy, group: int) -> Mapping[str, Sequence[str]]:
    """What a mesh that has a link puts into the maps; the group is that of containers' links with its MTU."""
    found: dict[str, list[str]] = {}
    for part in mesh.parts:
        n = 6 if ":" in part else 4
        found.setdefault(f"entries{n}", []).append(f"{mesh.index} . {part} : {group}")
        found.setdefault(f"exits{n}", []).append(f"{group} . {part} : {mesh.index}")
    return found
