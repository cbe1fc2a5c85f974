"""Core-X: the process manager of a container, its REST interface, client and shared types."""
