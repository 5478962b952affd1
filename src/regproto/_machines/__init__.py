"""The machines: each one thing with a life on the wire, its table, and all that changes its state."""
