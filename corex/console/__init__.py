"""The web console: a page for people, and the serving of its files."""
