"""The delay before another try: backoff with jitter, from a seed that is an argument."""

from __future__ import annotations

import attrs

from regproto._model.config import Config

_MASK = (1 << 64) - 1


@attrs.define
class Jitter:
    """A small seeded generator (splitmix64): the core has no randomness of its own, and copies of a session must behave
    alike."""

    state: int

    def next(self) -> float:
        """A number in [0, 1)."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return (z ^ (z >> 31)) / 2**64


def backoff_s(config: Config, faults: int, jitter: Jitter) -> float:
    """Seconds to wait after this many faults in a row (1 or more): doubled each time, spread over its upper half."""
    whole = min(config.backoff_max_s, config.backoff_base_s * 2.0 ** min(faults - 1, 32))
    return whole * (0.5 + 0.5 * jitter.next())
