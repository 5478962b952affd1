"""A session that says what it is told to, and records what it hears. It is as strict as the real one."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import attrs

from regproto._model.errors import LocalProtocolError
from regproto._model.messages import (
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Input,
    Manifests,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    NoManifests,
    Output,
    Phase,
    Progress,
    PushOutcome,
    PushResult,
    Response,
    Send,
    Wait,
)
from regproto._model.plan import PushPlan

RESULT: Final = PushResult(outcome=PushOutcome.PUSHED, repository="registry.example/team/app", digest=None)
LOOK_AGAIN_S: Final = 0.01
"""How soon the script looks again for what a peer does: each look costs the driver one wake-up."""


@attrs.frozen
class Until:
    """A step that holds the script up until something is so."""

    what: str
    """In words, for whoever reads why a check failed."""
    holds: Callable[[ScriptedSession], bool]
    look_again_s: float = math.inf
    """How long until it may hold although the session was told nothing."""


Step: TypeAlias = Output | Until | Callable[[float], Output]
"""A thing to say, now or given the driver's clock; or what to wait for before."""


class ScriptedSession:
    """Says one output after the other, waits at each `Until`, and then finishes its pushes.

    Attributes:
        inputs: all it was told, with the `now` of each.
        cancelled: the pushes that were cancelled.
        broken: what the driver did that no driver may.
        stuck: the step it waited for in vain; empty if there was none.
        finished: the pushes it said are finished.
        polls: how often it was asked.
        now: the driver's clock when it last called.
    """

    def __init__(self, steps: Iterable[Step], push_ids: Iterable[int], wait_timeout_s: float) -> None:
        self.inputs: list[tuple[float, Input]] = []
        self.cancelled: list[int] = []
        self.broken: list[str] = []
        self.stuck = ""
        self.finished: set[int] = set()
        self.polls = 0
        self.now = -math.inf
        self._steps = list(steps)
        self._to_finish = list(push_ids)
        self._patience_s = wait_timeout_s
        self._deadline = math.inf
        self._sends: dict[int, Send] = {}
        self._needs: set[int] = set()
        self._owner = threading.Lock()

    # --- for the driver ---

    def submit(self, push: PushPlan, /) -> int:
        """Nothing is ever submitted to it."""
        raise self._misuse("submit: run is given the pushes, it makes none")

    def cancel(self, push_id: int, now: float | None = None) -> None:
        """Is recorded."""
        with self._owned():
            self.cancelled.append(push_id)

    def poll(self, now: float) -> Output:
        """The next thing to do."""
        with self._owned():
            self.polls += 1
            self.now = now
            if self._deadline == math.inf:
                self._deadline = now + self._patience_s
            said = self._next(now)
        if isinstance(said, Send):
            self._sends[said.id] = said
        elif isinstance(said, NeedCredentials | NeedManifests):
            self._needs.add(said.id)
        elif isinstance(said, Finished):
            self.finished.add(said.push_id)
            if said.push_id in self._to_finish:
                self._to_finish.remove(said.push_id)
        return said

    def receive(self, now: float, event: Input, /) -> None:
        """Records what came of an output, if it may come."""
        with self._owned():
            self.now = now
            match event:
                case Response() | Failed():
                    self._refuse_answer(event)
                    self._sends.pop(event.id)
                case Progress():
                    if event.id not in self._sends:
                        raise self._misuse(f"Progress of {event.id}, which is not in flight")
                case Credentials() | NoCredentials() | Manifests() | NoManifests():
                    if event.id not in self._needs:
                        raise self._misuse(f"an answer to {event.id}, which nobody asked for or which was given")
                    self._needs.remove(event.id)
                case _:
                    raise self._misuse(f"receive was given {event!r}")
            self.inputs.append((now, event))

    def _next(self, now: float) -> Output:
        while self._steps:
            step = self._steps[0]
            if isinstance(step, Until):
                if not step.holds(self):
                    if now < self._deadline:
                        return Wait(until=min(self._deadline, now + step.look_again_s))
                    self.stuck = step.what
                    break
                del self._steps[0]
                continue
            del self._steps[0]
            return step(now) if callable(step) else step
        self._steps.clear()
        if self._to_finish:
            return Finished(push_id=self._to_finish[0], result=RESULT)
        return Wait(until=math.inf)

    def _refuse_answer(self, event: Response | Failed) -> None:
        send = self._sends.get(event.id)
        if send is None:
            raise self._misuse(f"an answer to {event.id}, which is not in flight or was answered before")
        if isinstance(event, Response) and not 200 <= event.status <= 999:
            raise self._misuse(f"a Response with the status {event.status}, which is not a final one")
        if isinstance(event, Failed) and event.kind is FailureKind.CONTENT and isinstance(send.body, bytes):
            raise self._misuse("Failed(CONTENT) of a body that is bytes")

    def _misuse(self, text: str) -> LocalProtocolError:
        self.broken.append(text)
        return LocalProtocolError(text)

    def _owned(self) -> _Owned:
        return _Owned(self._owner, self.broken)

    # --- for the check ---

    @property
    def owed(self) -> list[int]:
        """The Sends that were never answered."""
        return sorted(self._sends)

    def answers(self, id: int) -> list[Response | Failed]:
        """The answers to a Send: there should be one."""
        return [event for _, event in self.inputs if isinstance(event, Response | Failed) and event.id == id]

    def progress(self, id: int, phase: Phase | None = None) -> list[Progress]:
        """The reports of an exchange."""
        told = (event for _, event in self.inputs if isinstance(event, Progress) and event.id == id)
        return [event for event in told if phase is None or event.phase is phase]


@attrs.frozen
class _Owned:
    """Held while a call is in the session; notices a second one at the same time."""

    _lock: threading.Lock
    _broken: list[str]

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._broken.append("two threads are in the session at once")
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


# --- steps ------------------------------------------------------------------------------------------------------


def answered(*ids: int) -> Until:
    """Until these were answered."""
    return Until(f"the answer to {', '.join(map(str, ids))}", lambda s: all(s.answers(id) for id in ids))


def in_phase(id: int, phase: Phase) -> Until:
    """Until this exchange has reported that phase (or was answered: then it never will)."""
    return Until(f"Progress of {id}: {phase.value}", lambda s: bool(s.progress(id, phase) or s.answers(id)))


def happens(what: str, event: threading.Event) -> Until:
    """Until something has happened elsewhere."""
    return Until(what, lambda _: event.is_set(), look_again_s=LOOK_AGAIN_S)


def tell(event: threading.Event) -> Until:
    """Lets a peer go on; the script does not wait."""

    def holds(_: ScriptedSession) -> bool:
        event.set()
        return True

    return Until("nothing", holds)
