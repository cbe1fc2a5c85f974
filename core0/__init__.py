"""Core-0: PID 1, the node daemon, its API, client and shared types."""
