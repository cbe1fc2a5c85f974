"""Addresses that the node's network and its containers agree on."""

import socket

# One /16; the address of a container comes from its number.
CONTAINER_NETWORK = "10.88.0.0/16"
# The gateway is link-local and the same for all: links are routed, no container sees another's frames.
CONTAINER_GATEWAY = "169.254.1.1"


def container_address(number: int) -> str:
    """The address of a container; numbers count from 1."""
    network = int.from_bytes(socket.inet_aton(CONTAINER_NETWORK.partition("/")[0]))
    return socket.inet_ntoa((network + number + 1).to_bytes(4))
