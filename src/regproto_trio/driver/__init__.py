"""The driver on trio."""
