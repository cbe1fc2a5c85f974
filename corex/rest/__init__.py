"""Core-X's REST interface."""
