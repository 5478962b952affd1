"""The engine: what depends on what, when things are sent, and what is told; it runs the machines."""
