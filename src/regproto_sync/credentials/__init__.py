"""Where credentials come from: docker's and podman's files, helpers, or the caller. For every driver."""
