"""The container's end of its link, configured by the container's first process in its own network namespace."""

import socket

from core0.linux import files, netlink
from core0.linux.netlink import Link, Netlink, Request
from core0.template.messages import Go
from core0.wire.network import GATEWAY, GATEWAY6, GATEWAY_HARDWARE

# Groups that may ping without the right to make any packet (icmp(7)): all that a container has.
_PING = "/proc/sys/net/ipv4/ping_group_range"
_EVERY_GROUP = "0 65535"


def configure_link(go: Go) -> None:
    """Set up the loopback and `eth0`: two addresses, everything else by the node (routed, no neighbours)."""
    with Netlink() as rtnetlink:
        links = {link.name: link for link in rtnetlink.links()}
        own = links["eth0"]
        rtnetlink.apply([netlink.set_up(links["lo"].index), *_limit(own, go), *_requests(go, own.index)])
    files.write(_PING, _EVERY_GROUP)
    socket.sethostname(go.hostname)


def _limit(link: Link, go: Go) -> list[Request]:
    """What it sends waits here, where its own sockets notice. It can change nothing of that: it gives the right up.

    CAP_NET_ADMIN is none of KEPT_CAPABILITIES, and a namespace that the container makes is not this one's owner.
    """
    if not go.send_bps:
        return []
    from core0.linux.netlink_traffic import limit_rate

    return limit_rate(link.index, go.send_bps, link.mtu)


def _requests(go: Go, index: int) -> list[Request]:
    return [
        netlink.set_up(index),
        netlink.add_address(index, f"{go.address}/32"),
        netlink.add_address(index, f"{go.address6}/128", properties=netlink.UNIQUE),
        netlink.add_neighbour(index, GATEWAY, GATEWAY_HARDWARE),
        netlink.add_neighbour(index, GATEWAY6, GATEWAY_HARDWARE),
        netlink.add_route(f"{GATEWAY}/32", index),
        netlink.add_route("0.0.0.0/0", index, GATEWAY),
        netlink.add_route("::/0", index, GATEWAY6),
    ]
