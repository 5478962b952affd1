"""A scenario against the core alone: no HTTP, no sockets, in simulated time, answered in several orders."""

from __future__ import annotations

import math
import random
from collections import deque
from typing import Final

import attrs

from conformance._answers import NEVER_SENT, Answer
from conformance._names import Names
from conformance._plan import Draft, build
from conformance._played import Outcome, differences, refusal_difference
from conformance._player import Played, Player
from conformance._scenario import Scenario
from conformance._switches import make_config
from regproto import (
    Abort,
    BlobSlice,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Headers,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    Notice,
    Phase,
    Progress,
    PushPlan,
    PushResult,
    Response,
    Save,
    Send,
    Session,
    Wait,
    Written,
)
from regproto.testing import Reply, Request, Wire
from regproto.testing.explorer.bodies import content_of, request_of, told_of

ORDERS: Final = ("oldest first", "newest first", "at once", "shuffled 1", "shuffled 2", "shuffled 3")
"""Which of the requests in flight is answered next, and how soon: what a scenario says holds in every order."""
STEPS_MAX: Final = 50_000


class Stuck(Exception):
    """The core waits for nothing."""


@attrs.define
class _Flying:
    send: Send
    exchange: Played


def play(scenario: Scenario, order: str = ORDERS[0]) -> Outcome:
    """Plays it once. Raises `Stuck`."""
    return _Core(scenario, order).play()


def check(scenario: Scenario) -> list[str]:
    """Plays it in every order; what is not as it says."""
    names = scenario.names()
    if scenario.refused is not None:
        return refusal_difference(scenario, names)
    for order in ORDERS:
        try:
            found = differences(scenario, play(scenario, order), names)
        except Stuck as stuck:
            found = [str(stuck)]
        if found:
            return found if order == ORDERS[0] else [f"(answers {order})", *found]
    return []


class _Core:
    def __init__(self, scenario: Scenario, order: str) -> None:
        self.scenario = scenario
        self.names: Names = scenario.names()
        self.player = Player(scenario, self.names)
        self.now = 0.0
        self.saved = b""
        self.killed = False
        self.session = self._session()
        self.order = order
        self.random = random.Random(order)
        self.pushes: list[PushPlan] = []
        self.flying: deque[_Flying] = deque()
        self.silent: dict[int, Send] = {}
        self.aborted: set[int] = set()
        self.notices: list[Notice] = []
        self.open: dict[int, int] = {}
        """The pushes under way: their place in the scenario by their id."""
        self.results: dict[int, PushResult] = {}
        self.waiting = deque(enumerate(scenario.plans))

    def _session(self) -> Session:
        config, save = make_config(self.scenario.config, self.names), self.scenario.killed_at is not None
        return Session(self.names.registry, config, seed=1, now=self.now, hint=self.saved, save=save)

    def play(self) -> Outcome:
        pushes = [build(plan, self.scenario.contents, self.names, bytes, bytes) for plan in self.scenario.plans]
        self.pushes = pushes
        self._begin(pushes)
        for _ in range(STEPS_MAX):
            if not self._step() and not self.open:
                if not self.waiting:
                    return Outcome(
                        seen=self.player.seen,
                        pushes=pushes,
                        results=[self.results[n] for n in range(len(pushes))],
                        player=self.player,
                        # Told is what is polled: where answers come first, later news replaces earlier.
                        notices=self.notices if self.order.endswith("first") else None,
                        waited_s=self.now,
                    )
                self._begin(pushes)
        raise Stuck(f"it does not end within {STEPS_MAX} steps")

    def _begin(self, pushes: list[PushPlan]) -> None:
        """Submit the next push, and those that go beside it."""
        while self.waiting:
            number, plan = self.waiting[0]
            if plan.after and self.open:
                return
            self.waiting.popleft()
            self.open[self.session.submit(pushes[number])] = number

    def _step(self) -> bool:
        """One poll, or one answer; False if there is nothing to do."""
        if self.flying and self._is_impatient():
            self._answer(self._next())
            return True
        match self.session.poll(self.now):
            case Send() as send:
                self._sent(send)
            case Abort(id=number):
                self.aborted.add(number)
                if number in self.silent:
                    self._give_up(number)
            case NeedCredentials(id=number):
                self._keychain(number)
            case NeedManifests() as need:
                assert isinstance(need.draft, Draft)
                self.session.receive(self.now, need.draft.make(need))
            case Save(data=data):
                self.saved = data
            case Notice() as notice:
                self.notices.append(notice)
            case Finished(push_id=number, result=result):
                self.results[self.open.pop(number)] = result
            case Wait(until=until):
                return self._wait(until)
        return True

    def _wait(self, until: float) -> bool:
        if self.flying:
            self._answer(self._next())
        elif not self.open:
            return False
        elif until == math.inf:
            raise Stuck("the core waits, and nothing is in flight")
        else:
            self.now = max(self.now, until)
        return True

    def _sent(self, send: Send) -> None:
        size = len(content_of(send))
        framing: Headers = _framing(send) if send.method in ("POST", "PUT", "PATCH") else ()
        head = Request.to(send.method, send.url, (*send.headers, *framing))
        exchange = self.player.open(head, self.now)
        assert isinstance(exchange, Played)
        if size:
            self.session.receive(self.now, Progress(id=send.id, phase=Phase.SENDING, bytes=size))
        self.session.receive(self.now, Progress(id=send.id, phase=Phase.WAITING, bytes=size))
        self.flying.append(_Flying(send, exchange))
        cancel_at = self.scenario.cancel_at
        if cancel_at is not None and cancel_at.fits(exchange.seen, self.names):
            for push_id in self.open:
                self.session.cancel(push_id, self.now)
        killed_at = self.scenario.killed_at
        if killed_at is not None and not self.killed and killed_at.fits(exchange.seen, self.names):
            self._kill(send, exchange)

    def _kill(self, send: Send, exchange: Played) -> None:
        """The process ends: this request has done what the script says, others nothing. Another process goes on."""
        self.killed = True
        exchange.feed(_read(send) or b"")
        exchange.finish()
        for other in self.flying:
            if other.exchange is not exchange:
                other.exchange.interrupt()
        self.flying.clear()
        self.silent.clear()
        self.session = self._session()
        self.open = {self.session.submit(self.pushes[number]): number for number in self.open.values()}

    def _is_impatient(self) -> bool:
        """Whether an answer comes before the core has said all it wants."""
        return self.order == "at once" or (self.order.startswith("shuffled") and self.random.random() < 0.5)

    def _next(self) -> _Flying:
        if self.order == "newest first":
            return self.flying.pop()
        if self.order.startswith("shuffled"):
            self.flying.rotate(self.random.randrange(len(self.flying)))
        return self.flying.popleft()

    def _answer(self, flying: _Flying) -> None:
        send, exchange = flying.send, flying.exchange
        number = send.id
        body = _read(send)
        if body is None:
            exchange.interrupt()
            failed = Failed(id=number, kind=FailureKind.CONTENT, written=Written.SOME, detail="it is short")
            self.session.receive(self.now, failed)
            return
        answer: Answer | None = exchange.answer
        if answer is not None and answer.kind in NEVER_SENT:
            exchange.interrupt()
            self.session.receive(self.now, _never_sent(send, answer))
            return
        exchange.feed(body)
        reply = self.player.with_content(exchange.finish())
        if reply.wire is Wire.SILENT:
            self.silent[number] = send
            if number in self.aborted:
                self._give_up(number)
            return
        received = _received(send, reply, answer.cut if answer is not None else None)
        if isinstance(received, Failed) and answer is not None:
            received = attrs.evolve(received, reused=answer.reused)
        self.session.receive(self.now, received)

    def _give_up(self, number: int) -> None:
        told = told_of(self.silent.pop(number))
        failed = Failed(id=number, kind=FailureKind.ABORTED, written=Written.ALL, stream=told)
        self.session.receive(self.now, failed)

    def _keychain(self, number: int) -> None:
        keychain = self.scenario.keychain
        if keychain is None or "error" in keychain:
            self.session.receive(self.now, NoCredentials(id=number, error=(keychain or {}).get("error", "")))
        else:
            self.session.receive(self.now, Credentials(id=number, **keychain))


def _read(send: Send) -> bytes | None:
    """A request's body; None if it can't be read in full."""
    body = content_of(send)
    short = isinstance(send.body, BlobSlice) and len(body) < send.body.size
    return None if short else body


def _never_sent(send: Send, answer: Answer) -> Failed:
    """A request that never got to the registry."""
    told = told_of(send, 0)
    if answer.kind == "tls_failed":
        detail = "certificate verify failed: self-signed certificate"
        return Failed(id=send.id, kind=FailureKind.TLS, written=Written.NONE, detail=detail, stream=told)
    detail = "connection refused"
    return Failed(id=send.id, kind=FailureKind.CONNECT, written=Written.NONE, detail=detail, stream=told)


def _framing(send: Send) -> Headers:
    """The headers a driver adds."""
    headers = request_of(send).headers[len(send.headers) + 1 :]
    chunked = any(name == "Transfer-Encoding" for name, _ in headers)
    size = send.body.size if isinstance(send.body, BlobSlice) else len(content_of(send))
    return headers if chunked else (*headers, ("Content-Length", str(size)))


def _received(send: Send, reply: Reply, cut: int | None) -> Response | Failed:
    """An answer as a driver would give it."""
    head_bytes = sum(len(name) + len(value) + 4 for name, value in reply.headers)
    if reply.wire is Wire.GARBAGE or head_bytes > send.max_head_bytes:
        return Failed(id=send.id, kind=FailureKind.PROTOCOL, written=Written.ALL, stream=told_of(send))
    if reply.wire is not Wire.WHOLE:
        written = Written.ALL if cut is None else Written.SOME
        return Failed(id=send.id, kind=FailureKind.CLOSED, written=written, stream=told_of(send, cut))
    body = b"" if send.method == "HEAD" else reply.content
    return Response(
        id=send.id,
        status=reply.status,
        headers=reply.headers,
        body=body[: send.max_body_bytes],
        truncated=len(body) > send.max_body_bytes,
        stream=told_of(send),
    )
