"""The packet filter's rules as text for libnftables. Pure.

One table of family inet, so that IPv6 meets the very rules that IPv4 meets. The rules are made once; containers are
elements of hashed sets and maps, so the thousandth costs what the first does. A network has one chain, with what its
containers may reach outside, and elements by its subnets.

The way of a packet (docs/networks.md has the picture): `origin` drops what a container sends with another's address;
`published` turns ports of the node into those of containers; `forward` lets pass what answers, what stays within a
network, what was published, and what the network's own chain accepts; `input` lets nothing of containers in but
questions for names. What comes by the link of a mesh is for the containers of its network, or for other nodes of the
same mesh. Most of what stays within a network takes a shorter way, before all of this (shortcut.py).
"""

from collections.abc import Iterable, Mapping, Sequence

from core0.linux.nfnetlink import Element, address, hardware, link_name
from core0.networks import shortcut
from core0.networks.model import Attachment, MeshPolicy, Policy
from core0.wire.names import PORT
from core0.wire.network import CONTAINER_LINK_PREFIX, GATEWAY, MESH_LINK_PREFIX
from core0.wire.networks import INTERNET, EgressRule
from core0.wire.subnets import parse_subnet
from core0.wire.types import PublishedPort

_ANY_LINK, _ANY_MESH = f'"{CONTAINER_LINK_PREFIX}*"', f'"{MESH_LINK_PREFIX}*"'
# What is nowhere in the Internet (RFC 6890); of IPv6 the Internet is 2000::/3.
_PRIVATE4 = (
    "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, "
    "192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3"
)

# Where containers ask for names, and how often each may: a flood ends here, and takes nobody's place in a socket.
_TO_NAMES = f"ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport {PORT}"
_QUESTIONS = "500/second burst 1000 packets"

# Names of sets and maps with their types, for a family: 4 or 6.
_SETS = """
    set origins{n} {{ type ifname . ether_addr . ipv{n}_addr; }}
    set members{n} {{ type ipv{n}_addr . ipv{n}_addr; flags interval; }}
    set hidden{n} {{ type ipv{n}_addr; flags interval; }}
    set routed{n} {{ type ipv{n}_addr; flags interval; }}
    set open{n} {{ type ipv{n}_addr . inet_proto . inet_service; }}
    set lan{n} {{ type ipv{n}_addr; flags interval; auto-merge; }}
    map published{n} {{ type inet_proto . inet_service : ipv{n}_addr . inet_service; }}
    map published_at{n} {{ type ipv{n}_addr . inet_proto . inet_service : ipv{n}_addr . inet_service; }}
    map egress{n} {{ type ipv{n}_addr : verdict; flags interval; }}
"""

_MESHES = """
    map meshes { type ifname : verdict; }
"""

_CHAINS = f"""
    set refused {{ type ifname; counter; }}
    set askers {{ type ipv4_addr; size 65536; flags dynamic,timeout; timeout 1m; }}
    set flows {{ type ifname; size 65536; flags dynamic; }}
    chain refuse {{
        iifname @refused drop
        drop
    }}
    chain origin {{
        type filter hook prerouting priority raw; policy accept
        iifname {_ANY_MESH} accept
        iifname != {_ANY_LINK} fib saddr oifname {{ {_ANY_LINK}, {_ANY_MESH} }} drop
        iifname != {_ANY_LINK} accept
        {_TO_NAMES} notrack
        iifname . ether saddr . ip saddr @origins4 accept
        iifname . ether saddr . ip6 saddr @origins6 accept
        ip6 daddr ff02::/16 drop
        meta protocol {{ ip, ip6 }} goto refuse
    }}
    chain answers {{
        type filter hook output priority raw; policy accept
        ip saddr {GATEWAY} oifname {_ANY_LINK} meta l4proto {{ tcp, udp }} th sport {PORT} notrack
    }}
    chain published {{
        type nat hook prerouting priority dstnat; policy accept
        fib daddr type != local accept
        iifname {_ANY_MESH} meta nfproto ipv4 meta l4proto {{ tcp, udp }} th dport {PORT} dnat ip to {GATEWAY}
        dnat ip to ip daddr . meta l4proto . th dport map @published_at4
        dnat ip6 to ip6 daddr . meta l4proto . th dport map @published_at6
        meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published4
        meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @published6
    }}
    chain hide {{
        type nat hook postrouting priority srcnat; policy accept
        oifname {_ANY_LINK} ct status dnat ip saddr . ip daddr @members4 masquerade
        oifname {_ANY_LINK} ct status dnat ip6 saddr . ip6 daddr @members6 masquerade
        oifname {_ANY_LINK} accept
        oifname {_ANY_MESH} accept
        ip saddr @hidden4 masquerade
        ip6 saddr @hidden6 masquerade
    }}
    chain internet {{
        ip daddr != {{ {_PRIVATE4} }} ip daddr != @lan4 accept
        ip6 daddr 2000::/3 ip6 daddr != @lan6 accept
    }}
    chain many {{
    }}
    chain from_container {{
        jump many
        oifname {_ANY_LINK} ip saddr . ip daddr @members4 accept
        oifname {_ANY_LINK} ip6 saddr . ip6 daddr @members6 accept
        ip saddr vmap @egress4
        ip6 saddr vmap @egress6
        goto refuse
    }}
    chain from_mesh {{
        iifname vmap @meshes
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop
        ct state vmap {{ established : accept, related : accept, invalid : drop }}
        iifname {_ANY_LINK} goto from_container
        iifname {_ANY_MESH} goto from_mesh
        oifname != {_ANY_LINK} drop
        ct status dnat accept
        ip daddr @routed4 ip daddr . meta l4proto . th dport @open4 accept
        ip6 daddr @routed6 ip6 daddr . meta l4proto . th dport @open6 accept
    }}
    chain input {{
        type filter hook input priority filter; policy accept
        iifname != {_ANY_LINK} iifname != {_ANY_MESH} accept
        {_TO_NAMES} update @askers {{ ip saddr limit rate over {_QUESTIONS} }} drop
        ct state established,related accept
        {_TO_NAMES} accept
        iifname {_ANY_MESH} drop
        goto refuse
    }}
"""

# Tables that an earlier node daemon of this boot left go in the same transaction.
RULESET = f"""
table inet zeronode
delete table inet zeronode
table inet zeronode {{{_SETS.format(n=4)}{_SETS.format(n=6)}{_MESHES}{_CHAINS}}}
{shortcut.RULESET}"""

_PROTOCOLS = {
    None: "",
    "tcp": "meta l4proto tcp",
    "udp": "meta l4proto udp",
    "icmp": "meta l4proto { icmp, ipv6-icmp }",
}

# Family, table and name of the set whose elements count what is refused.
REFUSED = ("inet", "zeronode", "refused")

Elements = Mapping[str, Sequence[str]]


def limit_flows(each: int) -> str:
    """Commands that let each container have so many connections by the IP stack: the kernel's table is for all."""
    chain = "inet zeronode many"
    return f"add rule {chain} ct state new add @flows {{ iifname ct count over {each} }} goto refuse\n"


def chain_of(network: Policy) -> str:
    """The name of the chain with what a network's containers may reach outside."""
    return f"from-{network.name}"


def define_chain(network: Policy) -> str:
    """Commands that make a network's chain, or give it other rules; elements come after, in another transaction.

    libnftables 1.1 sends a map's element before the chain that it names, if both are new.
    """
    return "".join(_define(name, rules) for name, rules in _chains(network).items())


def _chains(network: Policy) -> dict[str, list[str]]:
    """A network's chains: for what comes from its containers, and for what comes by its mesh."""
    chains = {chain_of(network): rules_of(network)}
    if network.mesh:
        chains[f"mesh-{network.name}"] = _mesh_rules(network, network.mesh)
    return chains


def _define(name: str, rules: Iterable[str]) -> str:
    chain = f"inet zeronode {name}"
    added = "".join(f"add rule {chain} {rule}\n" for rule in rules)
    return f"add chain {chain}\nflush chain {chain}\n{added}"


def delete_chains(network: Policy, besides: Policy | None = None) -> str:
    """Commands that delete a network's chains, but those that it still has as another one; no element leads there."""
    kept = _chains(besides) if besides else {}
    return "".join(f"delete chain inet zeronode {name}\n" for name in _chains(network) if name not in kept)


def _wholes(mesh: MeshPolicy) -> list[tuple[str, str]]:
    return [(family, text) for family, text in (("ip", mesh.ipv4), ("ip6", mesh.ipv6)) if text]


def _mesh_rules(network: Policy, mesh: MeshPolicy) -> list[str]:
    """What comes by a mesh is for the network's containers, or goes on to another node of the same mesh.

    WireGuard has made sure that a source is the sender's own (cryptokey routing).
    """
    own = {"ip": network.ipv4, "ip6": network.ipv6}
    return [
        f"{family} saddr {whole} {family} daddr {to} oifname {out} accept"
        for family, whole in _wholes(mesh)
        for to, out in ((own[family], _ANY_LINK), (whole, f'"{mesh.link}"'))
        if mesh.link
    ]


def _to_mesh(mesh: MeshPolicy | None) -> list[str]:
    """What containers send to other nodes goes there encrypted, or not at all."""
    if mesh is None:
        return []
    accepted = [f'{family} daddr {whole} oifname "{mesh.link}" accept' for family, whole in _wholes(mesh)]
    dropped = [f"{family} daddr {whole} drop" for family, whole in _wholes(mesh)]
    return [*(accepted if mesh.link else ()), *dropped]


def rules_of(network: Policy) -> list[str]:
    """What containers of a network may reach outside; all else is dropped by the policy of `forward`."""
    if network.egress == "none":
        return _to_mesh(network.mesh)
    public = any(rule.to == INTERNET for rule in network.allow)
    return [
        *_to_mesh(network.mesh),
        # a published port is what the whole outside reaches
        *(["ct status dnat accept"] if public else []),
        f"oifname {_ANY_LINK} return",
        *map(_rule, network.allow),
    ]


def _rule(rule: EgressRule) -> str:
    port = f"th dport {rule.port}" if rule.port else ""
    return " ".join(filter(None, (_where(rule.to), _PROTOCOLS[rule.protocol], port, _verdict(rule.to))))


def _where(to: str) -> str:
    if to == INTERNET:
        return ""
    return f"{'ip6' if ':' in to else 'ip'} daddr {parse_subnet(to)}"


def _verdict(to: str) -> str:
    return "jump internet" if to == INTERNET else "accept"


def elements_of_network(network: Policy) -> Elements:
    """What a network puts into the sets."""
    found: dict[str, list[str]] = {}
    for family, subnet in ((4, network.ipv4), (6, network.ipv6)):
        found[f"members{family}"] = [f"{subnet} . {subnet}"]
        found[f"hidden{family}"] = [subnet] if network.egress == "nat" else []
        found[f"routed{family}"] = [subnet] if network.egress == "routed" else []
        found[f"egress{family}"] = [f"{subnet} : jump {chain_of(network)}"]
    if network.mesh and network.mesh.link:
        found["meshes"] = [f'"{network.mesh.link}" : jump mesh-{network.name}']
    return found


def elements_of_container(attachment: Attachment) -> list[Element]:
    """What a container puts into the sets."""
    link, pairs = link_name(attachment.link), hardware(attachment.hardware)
    return [
        Element("inet", "zeronode", "origins4", link + pairs + address(attachment.ipv4)),
        Element("inet", "zeronode", "origins6", link + pairs + address(attachment.ipv6)),
        refused_of(attachment.link),
    ]


def refused_of(link: str) -> Element:
    """What counts a container's packets that are refused, by its link."""
    return Element(*REFUSED, link_name(link))


def elements_of_ports(attachment: Attachment, ports: Iterable[PublishedPort]) -> Elements:
    """What published ports put into the sets and maps."""
    found: dict[str, list[str]] = {}
    for port in ports:
        at, key = port.address, f"{port.protocol} . {port.node}"
        for family, target in ((4, attachment.ipv4), (6, attachment.ipv6)):
            to = f"{target} . {port.container}"
            if at is None:
                found.setdefault(f"published{family}", []).append(f"{key} : {to}")
                found.setdefault(f"open{family}", []).append(f"{target} . {port.protocol} . {port.container}")
            elif (":" in at) == (family == 6):
                found.setdefault(f"published_at{family}", []).append(f"{at} . {key} : {to}")
    return {name: list(dict.fromkeys(values)) for name, values in found.items()}


def add(*several: Elements) -> str:
    """Commands that add elements."""
    return _commands("add", several)


def delete(*several: Elements) -> str:
    """Commands that take elements away."""
    keys = [
        {name: [value.partition(" : ")[0] for value in values] for name, values in one.items()}
        for one in several
    ]
    return _commands("delete", keys)


def difference(one: Elements, other: Elements) -> Elements:
    """The elements that only the first has."""
    return {
        name: [value for value in values if value not in other.get(name, ())] for name, values in one.items()
    }


def replace(name: str, values: Sequence[str]) -> str:
    """Commands that give a set other elements."""
    return f"flush set inet zeronode {name}\n{add({name: values})}"


def _commands(verb: str, several: Iterable[Elements]) -> str:
    lines = []
    for one in several:
        for name, values in one.items():
            if text := ", ".join(values):
                family = shortcut.FAMILY if name in shortcut.SETS else "inet"
                lines.append(f"{verb} element {family} zeronode {name} {{ {text} }}\n")
    return "".join(lines)
