"""The container's end of its link, configured by the container's first process in its own network namespace."""

import errno
import socket

from core0.linux import files, netlink
from core0.linux.netlink import Netlink, Request
from core0.template.messages import Go
from core0.wire.network import GATEWAY, GATEWAY6, GATEWAY_HARDWARE

# Each network namespace's first link (kernel: include/net/net_namespace.h, LOOPBACK_IFINDEX).
_LOOPBACK = 1
# Groups that may ping without the right to make any packet (icmp(7)): all that a container has.
_PING = "/proc/sys/net/ipv4/ping_group_range"
_EVERY_GROUP = "0 65535"


def configure_link(go: Go) -> None:
    """Set up the loopback and `eth0`: two addresses, everything else by the node (routed, no neighbours)."""
    with Netlink() as rtnetlink:
        own = socket.if_nametoindex("eth0")
        limits = _limit(rtnetlink, own, go) if go.send_bps else []
        rtnetlink.apply([netlink.set_up(_LOOPBACK), *limits, *_requests(go, own)])
    files.write(_PING, _EVERY_GROUP)
    socket.sethostname(go.hostname)


def _limit(rtnetlink: Netlink, index: int, go: Go) -> list[Request]:
    """What it sends waits here, where its own sockets notice. It can change nothing of that: it gives the right up.

    CAP_NET_ADMIN is none of CAPABILITIES, and a namespace that the container makes is not this one's owner.
    """
    from core0.linux.netlink_traffic import limit_rate

    link = rtnetlink.link(index)
    if link is None:
        raise OSError(errno.ENODEV, "cannot limit its link: it is gone")
    return limit_rate(index, go.send_bps, link.mtu)


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
