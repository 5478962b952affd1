"""The `regproto` command."""
