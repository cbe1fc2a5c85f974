"""The client of the node's API."""
