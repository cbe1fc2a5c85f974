"""What both ends of a wire agree on: kernel parameters, console markers, paths, ports and API types."""
