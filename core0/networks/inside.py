"""The container's end of its link, which the node configures by a socket that it opens in the container's namespace.

The container's first process builds its root meanwhile.
"""

import socket

from core0.linux import namespaces, netlink
from core0.linux.netlink import Netlink, Request
from core0.networks.model import Attachment
from core0.wire.network import GATEWAY, GATEWAY6, GATEWAY_HARDWARE

# Each network namespace's first link (kernel: include/net/net_namespace.h, LOOPBACK_IFINDEX).
_LOOPBACK = 1


def configure(namespace: int, attachment: Attachment, send_bps: int | None) -> None:
    """Set up the loopback and `eth0`: two addresses, everything else by the node (routed, no neighbours).

    Args:
        namespace: a descriptor of the container's network namespace.
        attachment: its link, whose other end is there.
        send_bps: bytes per second that the container may send. It waits there, where its own sockets notice, and can
            change nothing of that: CAP_NET_ADMIN is none of its capabilities, and a namespace that it makes does not
            own this one.

    Raises:
        OSError: with what could not be done.
    """
    with namespaces.inside_network(namespace):
        rtnetlink, own = Netlink(), socket.if_nametoindex("eth0")
    with rtnetlink:
        limits = _limit(own, send_bps, attachment.mtu) if send_bps else []
        rtnetlink.apply([netlink.set_up(_LOOPBACK), *limits, *_requests(attachment, own)])


def _limit(index: int, bps: int, mtu: int) -> list[Request]:
    from core0.linux.netlink_traffic import limit_rate

    return limit_rate(index, bps, mtu)


def _requests(attachment: Attachment, index: int) -> list[Request]:
    return [
        netlink.set_up(index),
        netlink.add_address(index, f"{attachment.ipv4}/32"),
        netlink.add_address(index, f"{attachment.ipv6}/128", properties=netlink.UNIQUE),
        netlink.add_neighbour(index, GATEWAY, GATEWAY_HARDWARE),
        netlink.add_neighbour(index, GATEWAY6, GATEWAY_HARDWARE),
        netlink.add_route(f"{GATEWAY}/32", index),
        netlink.add_route("0.0.0.0/0", index, GATEWAY),
        netlink.add_route("::/0", index, GATEWAY6),
    ]
