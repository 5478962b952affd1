"""One session in simulated time, without a network: requests are answered by a `FakeRegistry` or by the caller.

    simulation = Simulation(Session("https://registry.example"), latency_s=0.05, bytes_per_s=1e6)
    result = simulation.run(plan)
    assert result.outcome is PushOutcome.PUSHED and simulation.now < 2.0

Time stands still while there is something to do, then jumps to whatever comes first: the next answer, or the time at
which the session wants to be polled again. Nothing here reads a clock or is random: the same calls give the same
results.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs

from regproto._model.digest import Digest
from regproto._model.messages import (
    Abort,
    BlobSlice,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Headers,
    Input,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    Notice,
    Output,
    Phase,
    Progress,
    PushResult,
    Response,
    Save,
    Send,
    Stream,
    StreamStatus,
    Wait,
    Written,
)
from regproto._model.plan import PushPlan
from regproto._session import Session
from regproto.testing.registry.fake import FakeRegistry
from regproto.testing.registry.http import Reply, Request, Wire
from regproto.testing.registry.options import Fault, When


@attrs.frozen
class Silence:
    """No answer until the caller gives one, or the session aborts the request."""


Answer: TypeAlias = Response | Failed | Fault | Silence | None
"""An event as it is, a fault that befalls the request at the registry, or (None) the registry's own answer."""

STEPS_MAX: Final = 1_000_000
"""Two polls for each of half a million requests: far over any push that comes to its end."""


class AnswerOrder(enum.Enum):
    """The request that is answered next, of those whose answer has come."""

    OLDEST = "oldest first"
    NEWEST = "newest first"
    AT_ONCE = "at once"
    """The oldest, before the session has said all that it wants."""
    SHUFFLED = "shuffled"
    """Any, by the seed; half of the time before the session has said all that it wants."""


class SimulationStuck(AssertionError):
    """The session waits for nothing, or comes to no end within the bound on steps."""


@attrs.define
class InFlight:
    """A request that was sent, and has an answer to come."""

    send: Send
    due_s: float
    """When the answer comes, in simulated seconds."""
    answer: Answer


class Simulation:
    """A driver for one session in simulated time.

    Subclasses may replace `begin`, `finish`, `answer_credentials` and `answer_abort`.

    Args:
        session: what is played; `Session(..., save=True)` has its checkpoints kept in `saves`.
        registry: answers what `answer` does not; by default an empty one. A request takes effect there when its answer
            comes.
        answer: called with each request as it is sent. Returns the answer (with the request's id), `Silence()`, a
            `Fault` that befalls it at the registry, or None: the registry's own answer.
        keychain: answers questions for credentials; by default there are none.
        order: the request that is answered next.
        seed: of `AnswerOrder.SHUFFLED`.
        latency_s: from the end of a request to its answer, in seconds.
        bytes_per_s: of the line, which bodies take one after the other.
        progress: False tells the session of no progress, so that a request without an answer counts as not connected.
        steps_max: how often the session is polled at most.

    Attributes:
        now: simulated seconds.
        sends: every request, in order.
        in_flight: those with an answer to come, the oldest first.
        held: those that nobody answers until the caller does (`receive`) or the session aborts them, by id.
        aborted: the ids of the requests that the session wanted aborted.
        asked: every question for credentials.
        needs: every question for manifests; a draft that is a function is called for its answer, any other is left to
            the caller.
        notices: all news.
        saves: the data of every `Save`.
        open: ids of the pushes that are not finished.
        results: of those that are, by id.
    """

    def __init__(
        self,
        session: Session,
        registry: FakeRegistry | None = None,
        *,
        answer: Callable[[Send], Answer] | None = None,
        keychain: Callable[[NeedCredentials], Credentials | NoCredentials] | None = None,
        order: AnswerOrder = AnswerOrder.OLDEST,
        seed: int | str = 0,
        latency_s: float = 0.0,
        bytes_per_s: float = math.inf,
        progress: bool = True,
        steps_max: int = STEPS_MAX,
    ) -> None:
        self.session = session
        self.registry = FakeRegistry() if registry is None else registry
        self.order = order
        self.now = 0.0
        self.sends: list[Send] = []
        self.in_flight: list[InFlight] = []
        self.held: dict[int, Send] = {}
        self.aborted: list[int] = []
        self.asked: list[NeedCredentials] = []
        self.needs: list[NeedManifests] = []
        self.notices: list[Notice] = []
        self.saves: list[bytes] = []
        self.open: set[int] = set()
        self.results: dict[int, PushResult] = {}
        self._answer, self._keychain = answer, keychain
        self._random = random.Random(seed)
        self._latency_s, self._bytes_per_s, self._progress = latency_s, bytes_per_s, progress
        self._line_free_s = 0.0
        self._polls_left = steps_max

    # --- the loop ---

    def run(self, *plans: PushPlan) -> PushResult:
        """Submit these, and go on until every push is finished and all news is told.

        Returns:
            The result of the newest push; `results` has all of them.

        Raises:
            SimulationStuck: a push comes to no end.
        """
        self.submit(*plans)
        while not self.step():
            pass
        return self.results[max(self.results)]

    def submit(self, *plans: PushPlan) -> int:
        """Begin these pushes; the id of the newest."""
        for plan in plans:
            self.open.add(self.session.submit(plan))
        return max(self.open)

    def cancel(self, *push_ids: int) -> None:
        """Cancel these pushes, by default all that are open; the steps after it give back what they opened."""
        for push_id in push_ids or sorted(self.open):
            self.session.cancel(push_id, self.now)

    def restart(self, session: Session) -> None:
        """Let the process end, with all that is in flight unanswered, and another begin at the present time.

        `open` and `results` begin anew, for so do the ids of pushes.
        """
        self.session = session
        for forgotten in (self.in_flight, self.held, self.open, self.results):
            forgotten.clear()

    def step(self) -> bool:
        """Poll the session once, and let an answer come or time go by where it has nothing to do.

        Returns:
            True when every push is finished, nothing is in flight and there is no more news.

        Raises:
            SimulationStuck: the session waits for nothing, or was polled too often.
        """
        if self._is_impatient() and self.answer_next():
            return False
        output = self.poll()
        if not isinstance(output, Wait) or self.answer_next():
            return False
        answer_s = min((flight.due_s for flight in self.in_flight), default=math.inf)
        if not self.open and answer_s == math.inf:
            return True
        if min(answer_s, output.until) == math.inf:
            waiting = ", ".join(f"{send.method} {send.url}" for send in self.held.values())
            raise SimulationStuck(f"the session waits for nothing; without an answer: {waiting or 'none'}")
        self.now = max(self.now, min(answer_s, output.until))
        self.answer_next()
        return False

    def settle(self) -> float:
        """Poll and answer, without time going by, until there is nothing to do but to wait; the time to wait until."""
        while True:
            if isinstance(output := self.poll(), Wait) and not self.answer_next():
                return output.until

    def poll(self) -> Output:
        """Poll the session once, and do what it asks for; the output.

        Raises:
            SimulationStuck: it was polled too often.
        """
        self._polls_left -= 1
        if self._polls_left < 0:
            raise SimulationStuck("the session comes to no end within the bound on steps")
        output = self.session.poll(self.now)
        match output:
            case Send():
                self.perform(output)
            case Abort(id=number):
                self._abort(number)
            case NeedCredentials():
                self.asked.append(output)
                if (known := self.answer_credentials(output)) is not None:
                    self.receive(known)
            case NeedManifests(draft=draft):
                self.needs.append(output)
                if callable(draft):
                    self.receive(draft(output))
            case Save(data=data):
                self.saves.append(data)
            case Notice():
                self.notices.append(output)
            case Finished(push_id=push_id, result=result):
                self.open.remove(push_id)
                self.results[push_id] = result
        return output

    def receive(self, event: Input) -> None:
        """Give the session an event at the present time, such as the answer to a request that is held.

        Raises:
            LocalProtocolError: it is no answer to what was asked.
        """
        if isinstance(event, Response | Failed):
            self.held.pop(event.id, None)
        self.session.receive(self.now, event)

    def answer_next(self) -> bool:
        """Answer one request whose answer has come, in the order that was asked for; False if there is none."""
        due = [number for number, flight in enumerate(self.in_flight) if flight.due_s <= self.now]
        if not due:
            return False
        place = 0 if self.order is not AnswerOrder.NEWEST else -1
        if self.order is AnswerOrder.SHUFFLED:
            place = self._random.randrange(len(due))
        self.complete(self.in_flight.pop(due[place]))
        return True

    def complete(self, flight: InFlight) -> None:
        """Give the session the answer to a request; one that comes to nothing is held."""
        event = self.finish(flight)
        if event is not None:
            self.receive(event)
            return
        self.held[flight.send.id] = flight.send
        if flight.send.id in self.aborted:
            self.answer_abort(flight.send)

    def _is_impatient(self) -> bool:
        """Whether an answer comes before the session has said all it wants."""
        if not self.in_flight or self.order is not AnswerOrder.SHUFFLED:
            return self.order is AnswerOrder.AT_ONCE
        return self._random.random() < 0.5

    def perform(self, send: Send) -> None:
        """Begin a request, and have its answer come in its time."""
        self.sends.append(send)
        size = len(content_of(send))
        answer = self.begin(send)
        if self._progress:
            for phase in (Phase.SENDING, Phase.WAITING) if size else (Phase.WAITING,):
                self.receive(Progress(id=send.id, phase=phase, bytes=size))
        if isinstance(answer, Silence):
            self.held[send.id] = send
            return
        sent_s = self.now
        if size:
            sent_s = self._line_free_s = max(self._line_free_s, self.now) + size / self._bytes_per_s
        self.in_flight.append(InFlight(send, sent_s + self._latency_s, answer))

    def _abort(self, number: int) -> None:
        """An answer that has come wins over the abort; any other request never gets to the registry."""
        self.aborted.append(number)
        for flight in self.in_flight:
            if flight.send.id == number and flight.due_s > self.now:
                self.in_flight.remove(flight)
                self.held[number] = flight.send
                break
        if number in self.held:
            self.answer_abort(self.held[number])

    # --- answers ---

    def begin(self, send: Send) -> Answer:
        """Begin a request as it is sent."""
        if send.not_after is not None and self.now > send.not_after:
            return Failed(id=send.id, kind=FailureKind.NOT_SENT, written=Written.NONE, stream=stream_status_of(send, 0))
        return self._answer(send) if self._answer is not None else None

    def finish(self, flight: InFlight) -> Response | Failed | None:
        """The answer to a request; None: there is none."""
        send, answer = flight.send, flight.answer
        if isinstance(answer, Response | Failed):
            return answer
        if isinstance(answer, Silence):
            return None
        if is_short(send):
            return Failed(id=send.id, kind=FailureKind.CONTENT, written=Written.SOME, detail="it is short")
        return received(send, self.registry.handle(request_of(send), self.now, answer), answer)

    def answer_credentials(self, need: NeedCredentials) -> Credentials | NoCredentials | None:
        """The answer to a question for credentials; None: the caller gives it later."""
        return NoCredentials(id=need.id) if self._keychain is None else self._keychain(need)

    def answer_abort(self, send: Send) -> None:
        """Answer a request that is held and was aborted."""
        self.receive(Failed(id=send.id, kind=FailureKind.ABORTED, written=Written.ALL, stream=stream_status_of(send)))


# --- requests and answers as a driver makes them ---


def content_of(send: Send) -> bytes:
    """A request's body, whose source is bytes in memory; shorter than its slice where the source is."""
    body = send.body
    if isinstance(body, bytes):
        return body
    assert isinstance(body.source, bytes), "its source is to be bytes"
    if isinstance(body, BlobSlice):
        return body.source[body.offset : body.offset + body.size]
    return body.source[body.offset :][: body.limit_bytes]


def is_short(send: Send) -> bool:
    """Whether a request's body can't be read in full."""
    return isinstance(send.body, BlobSlice) and len(content_of(send)) < send.body.size


def stream_status_of(send: Send, sent: int | None = None) -> StreamStatus | None:
    """How the stream stands after so many bytes of this body (by default all) were sent; None for other bodies.

    The driver this stands for reads no further ahead than one byte, which is how it finds the end.
    """
    body = send.body
    if not isinstance(body, Stream):
        return None
    assert isinstance(body.source, bytes)
    after = body.offset + (len(content_of(send)) if sent is None else sent)
    ended = after >= len(body.source)
    return StreamStatus(
        sent=after,
        kept=max(0, after - body.keep_bytes),
        digest=Digest.of(body.source, body.algorithm) if ended else None,
        size=len(body.source) if ended else 0,
    )


def request_of(send: Send) -> Request:
    """The request, framed as `regproto.http1` does it where that matters to a registry (Content-Length aside)."""
    content = content_of(send)
    framing: Headers = ()
    body = send.body
    if isinstance(body, Stream):
        if body.limit_bytes is None:
            framing = (("Transfer-Encoding", "chunked"),)
        elif content:
            framing = (("Content-Range", f"{body.offset}-{body.offset + len(content) - 1}"),)
    return Request.to(send.method, send.url, (*send.headers, *framing), content)


def received(send: Send, reply: Reply, fault: Fault | None = None) -> Response | Failed | None:
    """A registry's reply as a driver reports it; None for silence.

    Args:
        send: the request.
        reply: its body as bytes.
        fault: what befell the request at the registry: one inside the body says how much of that was written.
    """
    head_bytes = sum(len(name) + len(value) + 4 for name, value in reply.headers)
    if reply.wire is Wire.SILENT:
        return None
    if reply.wire is Wire.GARBAGE or head_bytes > send.max_head_bytes:
        return Failed(id=send.id, kind=FailureKind.PROTOCOL, written=Written.ALL, stream=stream_status_of(send))
    if reply.wire is not Wire.WHOLE:
        cut = fault.after_bytes if fault is not None and fault.position is When.IN_BODY else None
        written = Written.ALL if cut is None else Written.SOME
        sent = cut if cut is None else min(cut, len(content_of(send)))
        return Failed(id=send.id, kind=FailureKind.CLOSED, written=written, stream=stream_status_of(send, sent))
    body = b"" if send.method == "HEAD" else reply.content
    return Response(
        id=send.id,
        status=reply.status,
        headers=reply.headers,
        body=body[: send.max_body_bytes],
        truncated=len(body) > send.max_body_bytes,
        stream=stream_status_of(send),
    )
