"""The mesh between nodes: networks of containers that span them by WireGuard."""
