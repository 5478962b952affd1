"""What outlives the process. For every driver."""
