"""The node's own links."""
