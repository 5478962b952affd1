"""The queues of one origin: the machines that are ready to send, and how many may be under way at once."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

import attrs

from regproto._machines.base import Machine
from regproto._model.config import Config

PASSES_MAX: Final = 16
"""Bodies that may pass one that has no room: they keep the line busy. After them the room is kept for the large one, so
that it waits no longer than for what is under way."""
LIGHT_PLACES: Final = 4
"""Exchanges that bodies leave free for requests without one, if there are any: a push of thousands of small blobs would
else hold up the few requests of every other."""
LANES_LOOKED_AT: Final = 8
"""Pushes looked through for a body that has room: bounds the cost of a step."""


@attrs.define(eq=False, repr=False)
class Lanes:
    """Machines that are ready to send, a lane for each push; the lanes take turns, so that no push starves another."""

    lanes: dict[int, deque[Machine]] = attrs.field(factory=dict)
    turn: deque[int] = attrs.field(factory=deque)

    def __bool__(self) -> bool:
        return bool(self.turn)

    def add(self, lane: int, machine: Machine) -> None:
        """Put a machine at the end of its lane."""
        queue = self.lanes.get(lane)
        if queue is None:
            self.lanes[lane] = deque((machine,))
            self.turn.append(lane)
        else:
            queue.append(machine)

    def first(self) -> Machine:
        """The machine whose turn it is."""
        return self.lanes[self.turn[0]][0]

    def put_first(self, lane: int) -> None:
        """Let this lane have the next turn."""
        self.turn.remove(lane)
        self.turn.appendleft(lane)

    def pop(self) -> Machine:
        """Take the machine whose turn it is."""
        lane = self.turn.popleft()
        queue = self.lanes[lane]
        machine = queue.popleft()
        if queue:
            self.turn.append(lane)
        else:
            del self.lanes[lane]
        return machine

    def take(self) -> deque[Machine]:
        """Take the whole lane whose turn it is."""
        return self.lanes.pop(self.turn.popleft())


@attrs.define(eq=False, repr=False)
class Origin:
    """One scheme, host and port."""

    name: str
    exchanges: int = 0
    bodies: int = 0
    """The number of these that have a body."""
    body_bytes: int = 0
    """In flight."""
    hold_until: float = 0.0
    """After a 429: nothing is sent before this."""
    passed: int = 0
    """Bodies sent ahead of one that had its turn and no room."""
    proven: bool = False
    """An answer of it was a registry's (`evidence.py`), so its answers about writes are believed."""
    answered: bool = False
    """It has answered once. Until then one request at a time: the first serves as the ping, and takes the first 401."""
    light: Lanes = attrs.field(factory=Lanes)
    """Requests without a body."""
    heavy: Lanes = attrs.field(factory=Lanes)
    ending: Lanes = attrs.field(factory=Lanes)
    """Requests that cancel upload sessions: they go before all others."""
    withheld: Lanes = attrs.field(factory=Lanes)
    """Requests that may open an upload session, and had their turn when as many were open as may be."""

    @property
    def waits(self) -> bool:
        """True if a request is ready to be sent."""
        return bool(self.light or self.heavy or self.ending or self.withheld)

    def ready(self, config: Config, now: float, may_open: bool) -> Lanes | None:
        """The lanes to take the next machine from; None: none is ready, or there is no room for it.

        Args:
            config: the session's.
            now: the time.
            may_open: there may be one more upload session.
        """
        if self.exchanges >= (config.max_exchanges if self.answered else 1) or now < self.hold_until:
            return None
        if self.ending.turn:
            return self.ending
        if may_open and self.withheld.turn and self._has_room(self.withheld.first().body_bytes, config):
            return self.withheld  # it was before all that is ready now
        # Bodies first: they take longest, and what a small one is answered teaches how the large ones may go.
        heavy, light = self.heavy, self.light
        if heavy.turn and not (light.turn and self.bodies >= self._places(config)):
            if not self.body_bytes or self.body_bytes + heavy.first().body_bytes <= config.max_body_bytes:
                self.passed = 0
                return heavy
            if len(heavy.turn) > 1 and self._may_pass(config.max_body_bytes - self.body_bytes):
                return heavy
        return light if light.turn else None

    def _has_room(self, size_bytes: int, config: Config) -> bool:
        """Whether a body may go now: only those of single POSTs, which are small, come here."""
        if not size_bytes:
            return True
        if self.light.turn and self.bodies >= self._places(config):
            return False
        return not self.body_bytes or self.body_bytes + size_bytes <= config.max_body_bytes

    def _places(self, config: Config) -> int:
        """The number of exchanges that may have a body while others wait; where there is but one place, one."""
        return config.max_exchanges - min(LIGHT_PLACES, config.max_exchanges // 2)

    def _may_pass(self, room_bytes: int) -> bool:
        """Whether another push's body has room; it is then put first."""
        if self.passed < PASSES_MAX:
            for lane in islice(self.heavy.turn, 1, LANES_LOOKED_AT):
                if self.heavy.lanes[lane][0].body_bytes <= room_bytes:
                    self.passed += 1
                    self.heavy.put_first(lane)
                    return True
        return False
