"""A registry that needs no network, for those who test clients of registries."""
