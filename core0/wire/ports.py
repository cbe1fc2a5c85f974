"""TCP ports of the node, fixed so that clients and firewalls can name them."""

# The node's API: HTTPS with TLS 1.3 and client certificates.
API = 8443
# Core-X of a container is published on the node at the first free port from here on.
COREX_FIRST = 9001
COREX_LAST = 10999
