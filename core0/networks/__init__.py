"""The network manager: the node's links by DHCP, container links, address translation."""
