"""Addresses that the node's network and its containers agree on."""

# One /16; the address of a container comes from its number.
CONTAINER_NETWORK = "10.88.0.0/16"
# The gateway is link-local and the same for all: links are routed, no container sees another's frames.
CONTAINER_GATEWAY = "169.254.1.1"
