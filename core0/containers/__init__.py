"""The container manager: observe, plan, apply."""
