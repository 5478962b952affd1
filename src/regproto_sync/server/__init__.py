"""The fake registry over HTTP, in memory or on disk: `regproto serve`."""
