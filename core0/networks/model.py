"""What the network manager decides about."""

CONTAINER_LINK_PREFIX = "zc"
