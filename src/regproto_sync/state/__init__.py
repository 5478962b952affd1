"""State that outlives the process. For every driver."""
