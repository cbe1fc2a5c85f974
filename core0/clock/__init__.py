"""The node's clock: whom it asks for the time, and chronyd, which keeps it."""
