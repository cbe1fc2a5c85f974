"""The node's REST interface over TLS: no privilege, it talks to the node daemon over a Unix socket."""
