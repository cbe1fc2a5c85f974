"""The disk manager: every disk of the node, and the pools on those that were given to it."""
