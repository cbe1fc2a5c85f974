"""Kernel calls, one module per danger, without policy."""
