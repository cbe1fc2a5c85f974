"""The node daemon: root, no network-facing code; it owns the state and runs the managers."""
