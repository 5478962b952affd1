"""The machines: each one thing with a life at the registry, its table, and all that changes its state."""
