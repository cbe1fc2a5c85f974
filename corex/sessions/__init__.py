"""Terminals and pipes that people attach to, and come back to."""
