"""What Core-X, its client and the node agree on."""
