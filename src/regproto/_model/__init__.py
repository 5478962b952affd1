"""The values that pass between rooms: errors, digests, manifests, plans, messages. No behaviour, no state."""
