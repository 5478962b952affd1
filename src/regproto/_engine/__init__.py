"""The engine: the graph of dependencies, the scheduler, progress and the checkpoint; it runs the machines."""
