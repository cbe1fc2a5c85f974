"""The networks of containers."""
