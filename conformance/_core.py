"""A scenario against the core alone: no HTTP, no sockets, in simulated time, answered in several orders."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from conformance._answers import NEVER_SENT, Answer
from conformance._names import Names
from conformance._plan import build
from conformance._played import Outcome, differences, refusal_difference
from conformance._player import Played, Player
from conformance._scenario import Scenario
from conformance._switches import make_config
from regproto import (
    BlobSlice,
    Credentials,
    Failed,
    FailureKind,
    Headers,
    NeedCredentials,
    NoCredentials,
    PushResult,
    Response,
    Send,
    Session,
    Written,
)
from regproto.testing import AnswerOrder, Request, Simulation, SimulationStuck
from regproto.testing.simulation import Answer as Begun
from regproto.testing.simulation import InFlight, content_of, is_short, received, request_of, stream_status_of

ORDERS: Final = ("oldest first", "newest first", "at once", "shuffled 1", "shuffled 2", "shuffled 3")
"""Which of the requests in flight is answered next, and how soon: what a scenario says holds in every order."""
STEPS_MAX: Final = 50_000


def play(scenario: Scenario, order: str = ORDERS[0]) -> Outcome:
    """Plays it once. Raises `SimulationStuck`."""
    return _Core(scenario, order).play()


def check(scenario: Scenario) -> list[str]:
    """Plays it in every order; what is not as it says."""
    names = scenario.names()
    if scenario.refused is not None:
        return refusal_difference(scenario, names)
    for order in ORDERS:
        try:
            found = differences(scenario, play(scenario, order), names)
        except SimulationStuck as stuck:
            found = [str(stuck)]
        if found:
            return found if order == ORDERS[0] else [f"(answers {order})", *found]
    return []


class _Core(Simulation):
    def __init__(self, scenario: Scenario, order: str) -> None:
        self.scenario = scenario
        self.names: Names = scenario.names()
        self.player = Player(scenario, self.names)
        self.exchanges: dict[int, Played] = {}
        self.killed = False
        self.pushes = [build(plan, scenario.contents, self.names, bytes, bytes) for plan in scenario.plans]
        self.waiting = deque(enumerate(scenario.plans))
        self.numbers: dict[int, int] = {}
        """The place of each push in the scenario, by its id in this session."""
        self.ended: dict[int, PushResult] = {}
        """Those that ended in this session or an earlier one, by their place."""
        answered = AnswerOrder(order.partition(" ")[0] if order.startswith("shuffled") else order)
        super().__init__(self._session(), self.player, order=answered, seed=order, steps_max=STEPS_MAX)

    def _session(self, saved: bytes = b"", now: float = 0.0) -> Session:
        config, save = make_config(self.scenario.config, self.names), self.scenario.killed_at is not None
        return Session(self.names.registry, config, seed=1, now=now, hint=saved, save=save)

    def play(self) -> Outcome:
        while self.waiting:
            self._begin_pushes()
            while not self.step():
                pass
        self._keep_results()
        return Outcome(
            seen=self.player.seen,
            pushes=self.pushes,
            results=[self.ended[number] for number in range(len(self.pushes))],
            player=self.player,
            # Told is what is polled: where answers come first, later news replaces earlier.
            notices=self.notices if self.order in (AnswerOrder.OLDEST, AnswerOrder.NEWEST) else None,
            waited_s=self.now,
        )

    def _begin_pushes(self) -> None:
        """Submit the next push, and those that go beside it."""
        while self.waiting:
            number, plan = self.waiting[0]
            if plan.after and self.open:
                return
            self.waiting.popleft()
            self.numbers[self.submit(self.pushes[number])] = number

    def _keep_results(self) -> None:
        self.ended |= {self.numbers[push_id]: result for push_id, result in self.results.items()}

    def perform(self, send: Send) -> None:
        super().perform(send)
        seen = self.exchanges[send.id].seen
        cancel_at, killed_at = self.scenario.cancel_at, self.scenario.killed_at
        if cancel_at is not None and self.open and cancel_at.fits(seen, self.names):
            self.cancel()
        if killed_at is not None and not self.killed and killed_at.fits(seen, self.names):
            self._kill(send)

    def _kill(self, send: Send) -> None:
        """The process ends: this request has done what the script says, others nothing. Another process goes on."""
        self.killed = True
        for flight in self.in_flight:
            if flight.send is not send:
                self.exchanges[flight.send.id].interrupt()
        exchange = self.exchanges[send.id]
        exchange.feed(b"" if is_short(send) else content_of(send))
        exchange.finish()
        self._keep_results()
        numbers = [self.numbers[push_id] for push_id in sorted(self.open)]
        self.restart(self._session(self.saves[-1] if self.saves else b"", self.now))
        self.numbers = {self.submit(self.pushes[number]): number for number in numbers}

    def begin(self, send: Send) -> Begun:
        framing: Headers = _framing(send) if send.method in ("POST", "PUT", "PATCH") else ()
        head = Request.to(send.method, send.url, (*send.headers, *framing))
        exchange = self.player.open(head, self.now)
        assert isinstance(exchange, Played)
        self.exchanges[send.id] = exchange
        return None

    def finish(self, flight: InFlight) -> Response | Failed | None:
        send, exchange = flight.send, self.exchanges[flight.send.id]
        answer: Answer | None = exchange.answer
        never_sent = answer is not None and answer.kind in NEVER_SENT
        if is_short(send) or never_sent:
            exchange.interrupt()
        if is_short(send):
            return Failed(id=send.id, kind=FailureKind.CONTENT, written=Written.SOME, detail="it is short")
        if answer is not None and never_sent:
            return _never_sent(send, answer)
        exchange.feed(content_of(send))
        event = received(
            send, self.player.with_content(exchange.finish()), answer.fault(self.names) if answer is not None else None
        )
        return attrs.evolve(event, reused=answer.reused) if isinstance(event, Failed) and answer is not None else event

    def answer_credentials(self, need: NeedCredentials) -> Credentials | NoCredentials:
        keychain = self.scenario.keychain
        if keychain is None or "error" in keychain:
            return NoCredentials(id=need.id, error=(keychain or {}).get("error", ""))
        return Credentials(id=need.id, **keychain)


def _never_sent(send: Send, answer: Answer) -> Failed:
    """A request that never got to the registry."""
    tls = answer.kind == "tls_failed"
    return Failed(
        id=send.id,
        kind=FailureKind.TLS if tls else FailureKind.CONNECT,
        written=Written.NONE,
        detail="certificate verify failed: self-signed certificate" if tls else "connection refused",
        stream=stream_status_of(send, 0),
    )


def _framing(send: Send) -> Headers:
    """The headers a driver adds."""
    headers = request_of(send).headers[len(send.headers) + 1 :]
    chunked = any(name == "Transfer-Encoding" for name, _ in headers)
    size = send.body.size if isinstance(send.body, BlobSlice) else len(content_of(send))
    return headers if chunked else (*headers, ("Content-Length", str(size)))
