"""The client of Core-X's REST interface."""
