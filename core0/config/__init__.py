"""The node's config: fetched from where the command line says, verified against the operator's key, applied."""
