"""Several sessions, each a core of its own, that attach to one subject of a registry without the referrers API.

What can go wrong between them lies in the order in which reads take effect and writes land, so that is what is walked,
every order of it. A state is: where each session is, what the list has, and which writes are on their way. Steps:

    read      a session (or a foreign writer) reads the list, and decides with that; a write it decides on is on its
              way from then on
    land      a write on its way takes effect, and is answered; or is refused, where conditions are enforced
    lose      (a fault) a write takes effect and its answer is lost; or it was begun too late, and is not sent
    overrun   (outside the window) a session's write gets no answer in time, and takes effect at any time after

The window W and the deadline D come in as what they are for: a session that waits for quiet may not look again before
every write has landed that was on its way when it knew of the list it waits on. That is what waiting W + D gives it,
so no clock is needed, and every pace of every writer is covered. What is not: a manifest that is deleted meanwhile.

A slow session has a clock: each answer takes its round trip, so its first writes come too late, and its window is
widened. Who waits for its writes is a matter of numbers: those whose wait is two round trips, a read and a write, or
longer.

Two reductions keep it small, and neither leaves anything out. What a session does is worked out once for each of its
own states and what it meets there (`_race_sessions`). And writers of one kind are alike: states that differ by who is
who are one.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

import attrs

from regproto._machines.base import Edge
from regproto._model.referrers import Guarantee
from regproto.testing.explorer.explorer import Violation
from regproto.testing.explorer.race_sessions import NO_LIST, PROMISE_S, Local, RaceSessions, permuted

STATES_MAX: Final = 2_000_000
"""Where a walk gives up; about 2 GB."""
_IDLE: Final = -3
_LANDED: Final = -2


class _State(NamedTuple):
    """One state of a race."""

    sessions: tuple[int, ...]
    """By writer, as `RaceSessions` numbers them."""
    list: int
    """What is in the list."""
    blocks: tuple[int, ...]
    """For each session that waits for quiet: the writers whose writes it waits for."""
    foreign: tuple[int, ...]
    """For each foreign writer: not begun, landed, or what its write on its way has in it."""
    overrun: tuple[int, ...]
    """Writes that got no answer in time and have not taken effect yet."""
    late: int
    """How many more may overrun..."""
    faults: int
    """...and how many answers may be lost."""


@attrs.frozen(kw_only=True)
class RaceResult:
    """What was walked."""

    states: int
    transitions: int
    ends: int
    guarantees: frozenset[Guarantee | None]
    """Those that sessions ended with."""
    lost: int
    """Ends at which an attachment is not listed although its session said so: 0 inside the window."""
    unsure: int
    """Ends at which a session says that it is unsure."""
    edges: frozenset[Edge]
    """Every (machine, state, outcome) that was taken."""


@attrs.define(kw_only=True)
class Races:
    """All orders in which sessions and foreign writers may race.

    Args:
        sessions: how many of ours, each attaching one manifest.
        slow: the round trips of the first of them, in seconds, if they are slow ones.
        foreign: writers that read, write once, and never look.
        enforced: the registry refuses a write whose condition does not hold; else it ignores conditions.
        late: how many writes of ours may overrun, outside the window.
        faults: how many answers may be lost, or writes not sent.
    """

    sessions: int
    slow: tuple[float, ...] = ()
    foreign: int = 0
    enforced: bool = False
    late: int = 0
    faults: int = 0
    _runs: RaceSessions = attrs.field(init=False)
    _orders: dict[tuple[int, ...], list[tuple[int, ...]]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._runs = RaceSessions(self.sessions + self.foreign)

    def explore(self) -> RaceResult:
        """Walk it all.

        Raises:
            Violation: something was lost inside the window, or outside it without anybody telling, or a state has no
                way to an end.
        """
        first = self._canonical(self._first())
        known, states, parents = {first: 0}, [first], array("q", [-1])
        sources, targets = array("q"), array("q")
        ends: list[int] = []
        lost = unsure = 0
        guarantees = set()
        for number in itertools.count():
            if number == len(states):
                break
            following = list(self._following(states[number]))
            if not following:
                ends.append(number)
                lost += self._check_end(number, states, parents)
                ended = [self._runs.locals[n] for n in states[number].sessions]
                guarantees |= {local.guarantee for local in ended}
                unsure += any(local.unsure for local in ended)
            for after in map(self._canonical, following):
                found = known.setdefault(after, len(states))
                if found == len(states):
                    states.append(after)
                    parents.append(number)
                    if found >= STATES_MAX:
                        raise Violation(f"more than {STATES_MAX} states")
                sources.append(number)
                targets.append(found)
        _check_all_end(len(states), ends, sources, targets)
        return RaceResult(
            states=len(states),
            transitions=len(sources),
            ends=len(ends),
            guarantees=frozenset(guarantees),
            lost=lost,
            unsure=unsure,
            edges=frozenset(self._runs.edges),
        )

    # --- steps ---

    def _first(self) -> _State:
        round_trips = self.slow + (0.0,) * (self.sessions - len(self.slow))
        everyone = tuple(self._runs.first(me, round_trip) for me, round_trip in enumerate(round_trips))
        return _State(everyone, NO_LIST, (0,) * self.sessions, (_IDLE,) * self.foreign, (), self.late, self.faults)

    def _following(self, state: _State) -> Iterator[_State]:
        """Every step that may come next."""
        for me, number in enumerate(state.sessions):
            local = self._runs.locals[number]
            if local.sends is not None:
                yield from self._writing(state, me, number, local, local.sends)
            elif not local.done and not state.blocks[me]:
                yield self._stepped(state, me, self._runs.step(number, "read", state.list))
        for n, prepared in enumerate(state.foreign):
            name = self.sessions + n
            if prepared == _IDLE:
                yield state._replace(foreign=_with(state.foreign, n, max(state.list, 0) | 1 << name))
            elif prepared != _LANDED:
                yield _over(state._replace(list=prepared, foreign=_with(state.foreign, n, _LANDED)), name)
        for n, entries in enumerate(state.overrun):
            yield state._replace(list=entries, overrun=state.overrun[:n] + state.overrun[n + 1 :])

    def _writing(self, state: _State, me: int, number: int, local: Local, sends: int) -> Iterator[_State]:
        """What may become of a session's write on its way."""
        step, ended = self._runs.step, _over(state, me)
        if self.enforced and local.condition is not None and local.condition != state.list:
            yield self._stepped(ended, me, step(number, "refused"))
            return
        yield self._stepped(ended._replace(list=sends), me, step(number, "landed"))
        if state.faults:
            yield self._stepped(ended._replace(list=sends, faults=state.faults - 1), me, step(number, "lost"))
            yield self._stepped(ended._replace(faults=state.faults - 1), me, step(number, "not sent"))
        if state.late:
            overrun = tuple(sorted((*state.overrun, sends)))
            yield self._stepped(ended._replace(late=state.late - 1, overrun=overrun), me, step(number, "lost"))

    def _stepped(self, state: _State, me: int, number: int) -> _State:
        """A session has taken a step. If it waits for quiet now, it waits for all that is on its way."""
        blocks, local = 0, self._runs.locals[number]
        if local.waits:
            for other, at in enumerate(state.sessions):
                its = self._runs.locals[at]
                if other != me and its.sends is not None and local.rest_s >= 2 * its.round_trip_s:
                    blocks |= 1 << other
            for n, prepared in enumerate(state.foreign):
                if prepared not in (_IDLE, _LANDED):
                    blocks |= 1 << (self.sessions + n)
        return state._replace(sessions=_with(state.sessions, me, number), blocks=_with(state.blocks, me, blocks))

    # --- who is who ---

    def _canonical(self, state: _State) -> _State:
        """The same for all states that differ only by who is who."""
        kinds = tuple(_kind(self._runs.locals[number]) for number in state.sessions)
        return min(self._called(state, names) for names in self._names(kinds, state.foreign))

    def _names(self, kinds: tuple[tuple[float, ...], ...], foreign: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """New names that put the sessions in the order of their kinds, and the foreign writers in that of theirs."""
        theirs = [(min(f, 0), f.bit_count() if f > 0 else 0) for f in foreign]
        for ours in _orders(kinds):
            for others in _orders(theirs):
                yield (*ours, *(self.sessions + other for other in others))

    def _called(self, state: _State, names: tuple[int, ...]) -> _State:
        sessions, blocks, foreign = [0] * self.sessions, [0] * self.sessions, [0] * self.foreign
        for me, number in enumerate(state.sessions):
            sessions[names[me]] = self._runs.rename(number, names)
            blocks[names[me]] = permuted(state.blocks[me], names)
        for n, prepared in enumerate(state.foreign):
            foreign[names[self.sessions + n] - self.sessions] = permuted(prepared, names)
        return state._replace(
            sessions=tuple(sessions),
            list=permuted(state.list, names),
            blocks=tuple(blocks),
            foreign=tuple(foreign),
            overrun=tuple(sorted(permuted(entries, names) for entries in state.overrun)),
        )

    # --- what must hold ---

    def _check_end(self, number: int, states: list[_State], parents: array[int]) -> bool:
        """Nothing is lost at an end; if something is, it was outside the window, and somebody says so."""
        state = states[number]
        ended = [self._runs.locals[at] for at in state.sessions]
        listed = max(state.list, 0)
        if not all(local.pushed for local in ended):
            raise Violation("a session failed" + self._told(number, states, parents))
        missing = any(not listed >> local.me & 1 for local in ended)
        if not missing and not any(local.seen & ~listed for local in ended):
            return False
        overrun = [local for local in ended if self.late or 2 * local.round_trip_s > PROMISE_S]
        if not overrun:
            raise Violation("lost inside the window" + self._told(number, states, parents))
        if not any(local.unsure for local in overrun):
            raise Violation("lost, and nobody says so" + self._told(number, states, parents))
        return missing

    def _told(self, number: int, states: list[_State], parents: array[int]) -> str:
        """The way to a state; who is who may change from line to line."""
        lines = []
        while number >= 0:
            state = states[number]
            ours = ", ".join(_shown(self._runs.locals[at]) for at in state.sessions)
            lines.append(f"list {_set(state.list)} | {ours} | foreign {state.foreign} | overrun {state.overrun}")
            number = parents[number]
        return "\nafter:\n  " + "\n  ".join(reversed(lines))


def _kind(local: Local) -> tuple[float, ...]:
    """What of a session does not depend on who is who, to tell most apart without trying all names."""
    sends = -1 if local.sends is None else local.sends.bit_count()
    return local.round_trip_s, local.done, local.waits, local.unsure, sends, local.seen.bit_count()


def _orders(kinds: tuple[tuple[float, ...], ...] | list[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
    """The ways to number things in the order of their kinds: position by thing."""
    groups = [
        list(group)
        for _, group in itertools.groupby(sorted(range(len(kinds)), key=lambda n: kinds[n]), key=lambda n: kinds[n])
    ]
    for order in itertools.product(*(itertools.permutations(group) for group in groups)):
        names = [0] * len(kinds)
        for position, thing in enumerate(itertools.chain(*order)):
            names[thing] = position
        yield tuple(names)


def _with(items: tuple[int, ...], position: int, item: int) -> tuple[int, ...]:
    return (*items[:position], item, *items[position + 1 :])


def _over(state: _State, name: int) -> _State:
    """A writer's write is not on its way any more."""
    return state._replace(blocks=tuple(block & ~(1 << name) for block in state.blocks))


def _check_all_end(count: int, ends: list[int], sources: array[int], targets: array[int]) -> None:
    """From every state an end can be reached."""
    before: list[list[int]] = [[] for _ in range(count)]
    for source, target in zip(sources, targets, strict=True):
        before[target].append(source)
    reached, todo = bytearray(count), list(ends)
    for end in ends:
        reached[end] = 1
    while todo:
        for source in before[todo.pop()]:
            if not reached[source]:
                reached[source] = 1
                todo.append(source)
    if not all(reached):
        raise Violation("no way to an end")


def _set(entries: int) -> str:
    return (
        "none" if entries < 0 else "{" + " ".join(str(n) for n in range(entries.bit_length()) if entries >> n & 1) + "}"
    )


def _shown(local: Local) -> str:
    at = "done" if local.done else "waits" if local.waits else "reads"
    at = at if local.sends is None else f"writes {_set(local.sends)}"
    return f"{local.me}: {at}, seen {_set(local.seen)}"
