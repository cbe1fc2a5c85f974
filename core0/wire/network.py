"""What the node and its containers know of the link between them; all that differs comes with the start message."""

import socket

# Numbers of containers' links begin here, far above what the kernel gives out itself: nobody has to ask for them.
CONTAINER_LINKS = 1 << 20
# What the names of the node's ends of them begin with.
CONTAINER_LINK_PREFIX = "zc"
# The links of meshes come behind them, and are called by this and a number.
MESH_LINKS = CONTAINER_LINKS + (1 << 16)
MESH_LINK_PREFIX = "zm"

# The router of every container, as routes name it: links are routed, no container sees another's frames.
GATEWAY = "169.254.1.1"
GATEWAY6 = "fe80::1"
# The hardware address of the node's end of each link, known beforehand: nobody needs ARP or neighbour discovery.
GATEWAY_HARDWARE = "02:5a:4e:00:00:01"


def packed(address: str) -> bytes | None:
    """An IPv4 or IPv6 address as bytes; None if the text is none."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):  # ValueError: a null character
        return None
