"""The volume manager: observe, plan, apply."""
