"""The deadlines of pushes: as a whole, and, once they are over, for ending what they left in flight.

Limits are the same for all pushes of a session, so the first in a queue is due first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import attrs

from regproto._model.config import Config


@attrs.define(eq=False, repr=False)
class Deadlines:
    """The deadlines of a session's pushes, by their ids."""

    config: Config
    due: float = math.inf
    """The time at or after which one of the queues below has something due. Minus infinity: at the next poll."""
    begun: deque[int] = attrs.field(factory=deque)
    """Pushes whose time begins with the next poll."""
    running: deque[tuple[float, int]] = attrs.field(factory=deque)
    ending: deque[tuple[float, int]] = attrs.field(factory=deque)

    def begin(self, push_id: int) -> None:
        """Start the time of a push that was submitted."""
        if self.config.push_timeout_s is not None:
            self.begun.append(push_id)
            self.due = -math.inf

    def end(self, push_id: int, now: float) -> None:
        """Start the time of a push that is over but for what it left in flight."""
        self.ending.append((now + self.config.cleanup_timeout_s, push_id))
        self.due = min(self.due, self.ending[-1][0])

    def overdue(self, now: float) -> Iterator[int]:
        """The pushes that have taken too long as a whole by now."""
        if self.config.push_timeout_s is not None:
            while self.begun:
                self.running.append((now + self.config.push_timeout_s, self.begun.popleft()))
        yield from self._take(self.running, now)

    def out_of_time(self, now: float) -> Iterator[int]:
        """The pushes whose time to end what they left is over by now."""
        yield from self._take(self.ending, now)

    def _take(self, queue: deque[tuple[float, int]], now: float) -> Iterator[int]:
        while queue and queue[0][0] <= now:
            yield queue.popleft()[1]
        self.due = min((waiting[0][0] for waiting in (self.running, self.ending) if waiting), default=math.inf)
