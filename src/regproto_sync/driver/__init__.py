"""The driver on blocking sockets and threads."""
