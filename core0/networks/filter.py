"""The node's packet filter: one static ruleset, made once; a container only adds elements to its maps."""

from core0.linux.nftables import Nftables
from core0.networks.model import CONTAINER_LINK_PREFIX
from core0.wire.network import CONTAINER_NETWORK

# Containers reach the outside (behind the node's address) and nothing of the node; what comes to a published
# port of the node goes to its container; everything else between links is dropped.
RULESET = f"""
table ip zeronode
delete table ip zeronode
table ip zeronode {{
    map published {{
        type inet_proto . inet_service : ipv4_addr . inet_service
    }}

    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept
        fib daddr type local dnat ip to meta l4proto . th dport map @published
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept
        ip saddr {CONTAINER_NETWORK} oifname != "{CONTAINER_LINK_PREFIX}*" masquerade
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        ct status dnat accept
        iifname "{CONTAINER_LINK_PREFIX}*" oifname != "{CONTAINER_LINK_PREFIX}*" accept
    }}
    chain input {{
        type filter hook input priority filter; policy accept
        iifname "{CONTAINER_LINK_PREFIX}*" ct state established,related accept
        iifname "{CONTAINER_LINK_PREFIX}*" drop
    }}
}}
"""

MODULES = (
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_fib",
    "nft_fib_ipv4",
)


class Filter:
    """The ruleset in force."""

    def __init__(self) -> None:
        self._nftables = Nftables()
        self._nftables.run(RULESET)
        self._published: set[tuple[str, int]] = set()

    def publish(self, protocol: str, port: int, address: str, target: int) -> None:
        """Lead a port of the node to a port of an address."""
        element = f"{{ {protocol} . {port} : {address} . {target} }}"
        self._nftables.run(f"add element ip zeronode published {element}")
        self._published.add((protocol, port))

    def withdraw(self, protocol: str, port: int) -> None:
        """Take a published port back; one that is not published is fine."""
        if (protocol, port) not in self._published:
            return
        self._published.discard((protocol, port))
        self._nftables.run(f"delete element ip zeronode published {{ {protocol} . {port} }}")
