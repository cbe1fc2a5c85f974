"""The template process: preloads Core-X and forks one per container."""
