"""Questions to mount sources for a blob, asked once for all pushes that overlap in time.

A blob with two sources and more asks the first four at once, and is mounted from the first, in its own order, that is
not ruled out. A source that lacked the first of its blobs goes last: it is asked where no other is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from regproto._engine.push_state import PushState
from regproto._machines.base import Details, Machine, QueueState, State
from regproto._machines.blob import BlobMachine
from regproto._machines.source_check import SourceCheckMachine, SourceCheckState
from regproto._model.digest import Digest
from regproto._model.plan import MountSource

AT_ONCE_MAX: Final = 4
"""Sources of one blob that are asked at the same time: more than people name; bounds the requests for a blob before its
source is known."""
FIRST_LOOKS: Final = 8
"""A source that has none of so many blobs is unlikely to have the next. An image has fewer changed layers than this, so
the repository of its base image is not mistaken for one that has none of it."""

CheckKey = tuple[str, Digest]
"""A source repository, and a blob."""


@attrs.define(kw_only=True, eq=False, repr=False)
class SourceCheck:
    """A question that was asked, the blobs that wait for its answer, and the pushes that use it."""

    machine: SourceCheckMachine
    waiting: dict[BlobMachine, None] = attrs.field(factory=dict)
    works: dict[int, PushState] = attrs.field(factory=dict)


@attrs.define(eq=False, repr=False)
class Tally:
    """The answers of a source so far."""

    checks: int = 0
    """The number of questions to it that are remembered."""
    lacked: int = 0
    may_have: int = 0

    @property
    def is_poor(self) -> bool:
        """True if it lacked its first blobs, and all since."""
        return not self.may_have and self.lacked >= FIRST_LOOKS


@attrs.define(kw_only=True, eq=False, repr=False)
class SourceChecks:
    """The mount sources that the pushes under way have asked."""

    base: str
    checks: dict[CheckKey, SourceCheck] = attrs.field(factory=dict)
    tallies: dict[str, Tally] = attrs.field(factory=dict)
    by_push: dict[int, dict[CheckKey, None]] = attrs.field(factory=dict)
    """The questions that each push under way uses."""

    def begin(self, blob: BlobMachine) -> list[SourceCheckMachine]:
        """Ask the sources of a blob; gives the machines to be started."""
        first, *more = [s for s in self._in_order(blob.candidates) if s is not None and not s.foreign]
        poor = self._is_poor(first)
        fresh = []
        for source in (first, *(s for s in more if self._is_poor(s) is poor))[:AT_ONCE_MAX]:
            key = source.repository, blob.digest
            check = self.checks.get(key)
            if check is None:
                machine = SourceCheckMachine(
                    base=self.base,
                    repository=blob.repository,
                    source=source.repository,
                    digest=blob.digest,
                    lane=blob.lane,
                )
                check = self.checks[key] = SourceCheck(machine=machine)
                self.tallies.setdefault(source.repository, Tally()).checks += 1
                fresh.append(machine)
            self._used_by(key, check, blob.node.users)
        return fresh

    def left_to(self, blob: BlobMachine) -> Details | None:
        """The sources that are left to a blob, in order; None while it waits for one to answer.

        It waits until the first that is left has it, or else until all that were asked have answered.
        """
        left: list[MountSource | None] = []
        cleared: set[str] = set()
        first: State | None = None
        for source in self._in_order(blob.candidates):
            check = self.checks.get((source.repository, blob.digest)) if source is not None else None
            state = check.machine.state if check is not None else None
            if state is SourceCheckState.LACKING:
                continue
            if not left:
                first = state
            if check is not None and state is SourceCheckState.CHECKING and first is not SourceCheckState.HAVING:
                check.waiting[blob] = None
                return None
            left.append(source)
            if source is not None and state in (SourceCheckState.HAVING, SourceCheckState.POSSIBLE):
                cleared.add(source.repository)
        return Details(sources=tuple(left), cleared=frozenset(cleared))

    def ended(self, machine: SourceCheckMachine) -> Iterable[BlobMachine]:
        """Note the end of a question; gives the blobs that waited for it."""
        check = self.checks.get((machine.source, machine.digest))
        if check is None or check.machine is not machine:
            return ()
        tally = self.tallies[machine.source]
        if machine.state is SourceCheckState.LACKING:
            tally.lacked += 1
        else:
            tally.may_have += 1
        waiting, check.waiting = check.waiting, {}
        return waiting

    def spared(self, source: str) -> list[SourceCheck]:
        """Forget the unsent questions to a source that has just turned out a poor one, where the blobs have other
        sources; gives them, to be stopped."""
        tally = self.tallies.get(source)
        if tally is None or tally.may_have or tally.lacked != FIRST_LOOKS:
            return []
        found = []
        for key, check in tuple(self.checks.items()):
            machine = check.machine
            queued = machine.place in (QueueState.QUEUED, QueueState.DELAYED)
            if key[0] == source and queued and all(map(self._has_better, check.waiting)):
                for push_id in check.works:
                    del self.by_push[push_id][key]
                self._forget(key)
                found.append(check)
        return found

    def _has_better(self, blob: BlobMachine) -> bool:
        return any(s is not None and not s.foreign and not self._is_poor(s) for s in blob.candidates)

    def left(self, work: PushState) -> list[Machine]:
        """Take out a push that is over, and the questions that no other uses; gives their machines, to be stopped."""
        stopped: list[Machine] = []
        for key in self.by_push.pop(work.id, ()):
            check = self.checks[key]
            del check.works[work.id]
            for blob in check.waiting:
                if blob.state not in blob.ENDS:
                    self._used_by(key, check, blob.node.users)
            if not check.works:
                stopped.append(check.machine)
                self._forget(key)
        return stopped

    def _forget(self, key: CheckKey) -> None:
        del self.checks[key]
        tally = self.tallies[key[0]]
        tally.checks -= 1
        if not tally.checks:
            del self.tallies[key[0]]

    def _used_by(self, key: CheckKey, check: SourceCheck, works: Iterable[PushState]) -> None:
        for work in works:
            check.works[work.id] = work
            self.by_push.setdefault(work.id, {})[key] = None

    def _is_poor(self, source: MountSource) -> bool:
        tally = self.tallies.get(source.repository)
        return tally is not None and tally.is_poor

    def _in_order(self, candidates: tuple[MountSource | None, ...]) -> list[MountSource | None]:
        """The candidates in the order to be tried: poor ones last, and after them the one that names no source."""
        return sorted(candidates, key=lambda source: 2 if source is None else self._is_poor(source))
