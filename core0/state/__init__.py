"""What the node remembers over reboots: copies on every claimed disk, of which the newest wins."""
