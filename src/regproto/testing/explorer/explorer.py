"""The explorer: every order of answers and faults of a push, with the invariants checked at every state.

A state is a session, a registry and what is in flight between them. From each, every request in flight may be
answered in every way that is asked for, and time may pass; states met before are not walked again. What went wrong
comes back with the path that led there.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

import attrs

from regproto._http.url import origin_of
from regproto._machines.base import Edge
from regproto._model.config import Config
from regproto._model.errors import RegprotoError
from regproto._model.messages import (
    Abort,
    BlobSlice,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Input,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    Notice,
    Phase,
    Progress,
    PushOutcome,
    PushResult,
    Response,
    Save,
    Send,
    Status,
    Stream,
    Wait,
    Written,
)
from regproto._model.plan import PushPlan
from regproto._session import Session
from regproto.testing.explorer.fork import Forker, fingerprint
from regproto.testing.registry.fake import FakeRegistry
from regproto.testing.registry.options import Fault, FaultKind, When
from regproto.testing.simulation import content_of, request_of, stream_status_of

BASE: Final = "http://registry.localhost"
FOREVER_S: Final = 1e9
"""Timeouts of an explored session, so that only retries and renewals make time pass."""
STATES_MAX: Final = 500_000
"""Where an exploration gives up; about 1 GB."""
REQUESTS_MAX: Final = 200
"""On one path: some five times what the longest takes where every answer is a fault. More is no end in sight."""
SECRET: Final = "s3cret-of-the-explorer"


class Violation(AssertionError):
    """An invariant does not hold; the message ends with the path that shows it."""


@attrs.frozen(kw_only=True)
class Answer:
    """One way a request may be answered."""

    name: str
    give: Callable[[Send, FakeRegistry], Response | Failed]
    """May change the registry."""
    applies: Callable[[Send], bool] = lambda send: True
    is_fault: bool = True
    """Counted against the number of faults on one path."""
    unproven: bool = False
    """Given only while nothing has shown that it is a registry that answers: after that it is believed."""
    disturbs: bool = False
    """Not counted, and yet a reason for a push to fail."""


def _handled(send: Send, registry: FakeRegistry) -> Response:
    reply = registry.handle(request_of(send))
    return Response(
        id=send.id, status=reply.status, headers=reply.headers, body=reply.content, stream=stream_status_of(send)
    )


def status(code: int, *headers: tuple[str, str], body: bytes = b"") -> Callable[[Send, FakeRegistry], Response]:
    """An answer made up on the way, before the registry saw the request."""
    return lambda send, registry: Response(
        id=send.id, status=code, headers=headers, body=body, stream=stream_status_of(send)
    )


def fails(
    kind: FailureKind, written: Written, done: bool = False, reused: bool = False
) -> Callable[[Send, FakeRegistry], Failed]:
    """No answer; `done`: only the answer was lost, the registry did the work."""

    def give(send: Send, registry: FakeRegistry) -> Failed:
        if done:
            _handled(send, registry)
        # What was not written whole was written to its last byte but one.
        size = len(content_of(send))
        told = stream_status_of(send, {Written.NONE: 0, Written.SOME: max(0, size - 1), Written.ALL: size}[written])
        return Failed(id=send.id, kind=kind, written=written, reused=reused, stream=told)

    return give


def _to_token_server(send: Send) -> bool:
    return send.url.startswith(BASE + "/token")


def _to_registry(send: Send) -> bool:
    return not _to_token_server(send)


def _with_body(send: Send) -> bool:
    return bool(send.body)


def _manifest_put(send: Send) -> bool:
    return send.method == "PUT" and "/manifests/" in send.url


def _starts(send: Send) -> bool:
    return send.method == "POST" and not send.body and _to_registry(send)


def _opens(send: Send) -> bool:
    return send.method in ("POST", "PATCH") and _to_registry(send)


def _commit(send: Send) -> bool:
    return "digest=" in send.url and not _manifest_put(send)


def _error(code: str) -> bytes:
    return f'{{"errors":[{{"code":"{code}"}}]}}'.encode()


def _with_slice(send: Send) -> bool:
    return isinstance(send.body, BlobSlice) and send.body.size > 1


def _half_sent(reused: bool) -> Callable[[Send, FakeRegistry], Failed]:
    """The connection is reset inside the body, of which the registry has half."""

    def give(send: Send, registry: FakeRegistry) -> Failed:
        _left(send, registry, "half done")
        return Failed(id=send.id, kind=FailureKind.CLOSED, written=Written.SOME, reused=reused)

    return give


def _truncated(send: Send, registry: FakeRegistry) -> Response:
    """More came than is read: the work is done, and its answer is cut."""
    whole = _handled(send, registry)
    return attrs.evolve(whole, body=whole.body[: len(whole.body) // 2], truncated=True)


_CHALLENGE: Final = ("WWW-Authenticate", f'Bearer realm="{BASE}/token",service="registry.localhost"')

ANSWERS: Final = {
    answer.name: answer
    for answer in (
        Answer(name="ok", give=_handled, is_fault=False),
        Answer(name="401", give=status(401, _CHALLENGE), applies=_to_registry),
        Answer(name="denied", give=status(401), applies=_to_token_server),
        Answer(name="403", give=status(403), applies=_to_registry),
        Answer(name="404", give=status(404)),
        Answer(name="412", give=status(412), applies=_manifest_put),
        Answer(name="413", give=status(413), applies=_with_body),
        Answer(name="416", give=status(416), applies=_to_registry),
        Answer(name="503", give=status(503)),
        Answer(name="400", give=status(400), applies=_to_registry),
        Answer(name="409", give=status(409), applies=_to_registry),
        Answer(name="429", give=status(429, ("Retry-After", "7"))),
        Answer(name="half sent", give=_half_sent(False), applies=_with_slice),
        Answer(name="truncated", give=_truncated),
        Answer(name="garbled", give=fails(FailureKind.PROTOCOL, Written.ALL)),
        Answer(name="unconnected", give=fails(FailureKind.CONNECT, Written.NONE)),
        Answer(name="reset", give=fails(FailureKind.CLOSED, Written.SOME)),
        Answer(name="stale connection", give=fails(FailureKind.CLOSED, Written.SOME, reused=True)),
        Answer(name="stale connection, unused", give=fails(FailureKind.CLOSED, Written.NONE, reused=True)),
        Answer(name="stale connection, half done", give=_half_sent(True), applies=_with_slice),
        Answer(name="stale connection, done", give=fails(FailureKind.CLOSED, Written.ALL, done=True, reused=True)),
        Answer(name="lost", give=fails(FailureKind.CLOSED, Written.ALL, done=True)),
        Answer(
            name="unreadable",
            give=fails(FailureKind.CONTENT, Written.SOME),
            applies=lambda s: isinstance(s.body, (BlobSlice, Stream)),
        ),
        Answer(name="not the protocol", give=status(202), applies=_opens),
        Answer(name="416 with a range", give=status(416, ("Range", "0-1")), applies=_to_registry),
        Answer(name="blob unknown", give=status(400, body=_error("MANIFEST_BLOB_UNKNOWN")), applies=_manifest_put),
        Answer(name="digest invalid", give=status(400, body=_error("DIGEST_INVALID")), applies=_commit),
        Answer(name="bad location", give=status(202, ("Location", "http://10.0.0.1/x")), applies=_opens),
        Answer(name="bad realm", give=status(401, ("WWW-Authenticate", 'Bearer realm="http://10.0.0.1/token"'))),
        Answer(name="bad redirect", give=status(307, ("Location", "http://10.0.0.1/x"))),
        Answer(name="other digest", give=status(200, ("Docker-Content-Digest", "sha256:" + "0" * 64))),
        Answer(name="200 html", give=status(200, ("Content-Type", "text/html"), body=b"<html>"), applies=_to_registry),
        Answer(name="201 of nobody", give=status(201), applies=_to_registry, unproven=True),
    )
}
"""The ways to answer, by name, for `explore(answers=...)`."""

OUT_OF_ORDER: Final = ("stale connection", *(f"stale connection, {how}" for how in ("unused", "half done", "done")))
"""A connection that had been used before closes: before the request, in it, or after it, and then before the answer or
after a part of it, which is the same to a session. For `explore(unlimited=...)`: it is nobody's fault, so it may happen
again and again."""


_AFTER_ABORT: Final = (
    ANSWERS["ok"],
    Answer(name="aborted", give=fails(FailureKind.ABORTED, Written.SOME), is_fault=False),
    Answer(name="aborted, done", give=fails(FailureKind.ABORTED, Written.ALL, done=True), is_fault=False),
)
"""The answer may still win the race; it may be cut short; it may be done over there, and nobody learns of it."""
HOUR_S: Final = 3_600.0


def _left(send: Send, registry: FakeRegistry, how: str) -> None:
    """What a request that was in flight when its process ended has done at the registry."""
    if how == "done":
        _handled(send, registry)
    elif how == "half done":
        cut = Fault(kind=FaultKind.DROP, when=When.IN_BODY, after_bytes=len(content_of(send)) // 2)
        registry.handle(request_of(send), fault=cut)


def _ways(send: Send) -> tuple[str, ...]:
    if send.method in ("GET", "HEAD"):
        return ("not there",)
    return ("not there", "half done", "done") if isinstance(send.body, BlobSlice) else ("not there", "done")


@attrs.frozen(kw_only=True)
class Exploration:
    """What was walked."""

    states: int
    transitions: int
    finished: dict[PushOutcome, int]
    """Ends, by how the push ended."""
    edges: frozenset[Edge]
    """Every (machine, state, outcome) that was taken."""
    requests_max: int
    """The most requests on a path."""
    checked: dict[str, int] = attrs.field(factory=dict)
    """How often each invariant was checked."""


@attrs.define(eq=False)
class _State:
    """One state, ready to be walked on from."""

    session: bytes
    registry: FakeRegistry
    sends: dict[int, Send]
    aborted: frozenset[int]
    wake: float
    now: float
    faults: int
    requests: int
    done: bool
    path: tuple[str, _State] | None
    saved: bytes = b""
    """What a later process would find."""
    crashed: bool = False
    orphans: int = 0
    """Upload sessions that were opened by a request whose answer nobody lived to see."""
    cancels: int = 0
    """Of the faults: how many were a `cancel`."""
    disturbed: bool = False
    """One of the `unlimited` answers came."""


@attrs.frozen
class _Step:
    """One way into a state."""

    before: _State
    name: str
    takes_time: bool


@attrs.define(kw_only=True)
class Explorer:
    """Walks every state of one plan against one registry.

    Args:
        pushes: submitted one after the other to one session. Each gets sources of its own.
        registry: where the walk starts; it is copied, not changed.
        answers: names out of `ANSWERS`, or answers of one's own.
        faults: at most so many faults on one path.
        unlimited: further answers, which do not count as faults: they may be given as often as anything is asked. After
            one a push need not succeed, but it has to end all the same.
        cancel: also cancel the first push at every state.
        crash: also end the process at every state, once on a path, with every request in flight done, half done or
            not; a new session goes on with the last `Save` and the same pushes.
        left_open: upload sessions that may be left open though nothing went wrong: a registry that denies having them.
        timeouts: the limits of `config` on connecting, answers and whole pushes hold; time that passes beyond one is a
            fault.
        hours: also let an hour pass at every state, a fault: tokens expire.
        config: of the session; its timeouts are made endless unless `timeouts`.
        keychain: what the credentials question is answered with.
        doomed: the push can't succeed, even without a fault.
    """

    pushes: Sequence[PushPlan]
    registry: FakeRegistry
    answers: Sequence[str | Answer] = ("ok", "401", "503", "reset", "denied")
    faults: int = 2
    unlimited: Sequence[str | Answer] = ()
    cancel: bool = False
    crash: bool = False
    left_open: int = 0
    timeouts: bool = False
    hours: bool = False
    config: Config = attrs.field(factory=lambda: Config(attempts=2))
    keychain: Credentials | NoCredentials | None = None
    doomed: bool = False
    _forker: Forker = attrs.field(factory=Forker, init=False)
    _edges: set[Edge] = attrs.field(factory=set, init=False)
    _finished: dict[PushOutcome, int] = attrs.field(factory=dict, init=False)
    _checked: Counter[str] = attrs.field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        self.pushes = tuple(_with_own_sources(push) for push in self.pushes)

    def explore(self) -> Exploration:
        """Walk it all.

        Raises:
            Violation: an invariant does not hold.
        """
        kinds = [ANSWERS[a] if isinstance(a, str) else a for a in self.answers]
        unlimited = [ANSWERS[a] if isinstance(a, str) else a for a in self.unlimited]
        kinds += [attrs.evolve(kind, is_fault=False, disturbs=True) for kind in unlimited]
        first = self._begin()
        seen: dict[Hashable, _State] = {self._key(first): first}
        leads_to: dict[int, list[_Step]] = {}
        todo, transitions, requests = deque([first]), 0, first.requests
        ends: list[_State] = []
        while todo:
            state = todo.pop()
            if state.done:
                ends.append(state)
                continue
            for name, following in self._following(state, kinds):
                transitions += 1
                following.path = (name, state)
                if following.requests > REQUESTS_MAX:
                    raise Violation(f"more than {REQUESTS_MAX} requests, and no end" + _told(following))
                requests = max(requests, following.requests)
                key = self._key(following)
                known = seen.get(key)
                if known is None:
                    known = seen[key] = following
                    todo.append(following)
                    if len(seen) > STATES_MAX:
                        raise Violation(f"more than {STATES_MAX} states" + _told(following))
                leads_to.setdefault(id(known), []).append(_Step(state, name, following.now > state.now))
        states = list(seen.values())
        self._check_no_rounds(states, leads_to, "without a pause")
        self._check_no_rounds(states, leads_to, "without a count")
        self._check_all_end(states, ends, leads_to)
        return Exploration(
            states=len(seen),
            transitions=transitions,
            finished=dict(self._finished),
            edges=frozenset(self._edges),
            requests_max=requests,
            checked=dict(self._checked),
        )

    # --- states ---

    def _begin(self) -> _State:
        return self._settled(self._session(0.0, b""), self.registry.copy(), {}, 0.0, 0, 0, None)

    def _session(self, now: float, hint: bytes) -> Session:
        config = self.config if self.timeouts else _patient(self.config)
        session = Session(BASE, config, now=now, hint=hint, save=self.crash, journal=True)
        for push in self.pushes:
            session.submit(push)
        return session

    def _key(self, state: _State) -> Hashable:
        session = self._forker.load(state.session)
        spent = state.faults, state.cancels, state.disturbed
        client = fingerprint(session, state.registry.normalised)
        if self.timeouts:
            client = client, _order_of_limits(session, state.registry.normalised)
        return client, state.registry.fingerprint(), spent, state.done, state.crashed, state.orphans

    def _following(self, state: _State, kinds: Iterable[Answer]) -> Iterable[tuple[str, _State]]:
        for number, send in state.sends.items():
            for kind in _AFTER_ABORT if number in state.aborted else kinds:
                if (kind.is_fault and state.faults >= self.faults) or not kind.applies(send):
                    continue
                session, registry = self._forker.load(state.session), state.registry.copy()
                if kind.unproven and session._scheduler.home.proven:
                    continue
                event = kind.give(send, registry)
                name = f"{send.method} {send.url.removeprefix(BASE)} -> {kind.name}"
                if kind.name == "ok":
                    self._check_handled(send, event, state)
                left = {n: s for n, s in state.sends.items() if n != number}
                before = attrs.evolve(state, disturbed=True) if kind.disturbs else state
                yield name, self._step(before, session, registry, left, event, kind.is_fault)
        yield from self._time_passes(state)
        if self.cancel and state.faults < self.faults:
            session = self._forker.load(state.session)
            session.cancel(1)
            before = attrs.evolve(state, cancels=state.cancels + 1)
            registry = state.registry.copy()
            following = self._settled(
                session, registry, state.sends, state.now, state.faults + 1, state.requests, before
            )
            yield "cancelled", following
        if self.crash and not state.crashed:
            yield from self._crashed(state)

    def _time_passes(self, state: _State) -> Iterable[tuple[str, _State]]:
        """Until the session wants to be asked again; beyond a limit that is a fault, since no answer came in time."""
        later = state
        while later.wake < FOREVER_S / 2:
            is_fault = _is_late(self._forker.load(later.session), later.wake)
            if is_fault and state.faults >= self.faults:
                break
            later = self._later(later, later.wake, is_fault)
            if self._key(later) != self._key(state):
                yield "time passes", later
                break
            # It woke for a deadline of something that is answered by now, and waits on.
            later.path = state.path
        if self.hours and state.faults < self.faults:
            yield "an hour passes", self._later(state, state.now + HOUR_S, True)

    def _crashed(self, state: _State) -> Iterable[tuple[str, _State]]:
        """The process ends, and another one goes on."""
        sends = tuple(state.sends.values())
        for ways in itertools.product(*map(_ways, sends)):
            registry = state.registry.copy()
            for send, how in zip(sends, ways, strict=True):
                _left(send, registry, how)
            told = (f"{send.method} {send.url.removeprefix(BASE)} {how}" for send, how in zip(sends, ways, strict=True))
            orphans = sum(
                _starts(send) and how == "done" for send, how in zip(sends, ways, strict=True)
            )  # the one thing that can't be known
            before = attrs.evolve(state, aborted=frozenset(), crashed=True, orphans=state.orphans + orphans)
            session = self._session(state.now, state.saved)
            yield (
                "crashed: " + "; ".join(told),
                self._settled(session, registry, {}, state.now, state.faults, state.requests, before),
            )

    def _later(self, state: _State, now: float, is_fault: bool) -> _State:
        session, registry = self._forker.load(state.session), state.registry.copy()
        return self._settled(session, registry, state.sends, now, state.faults + is_fault, state.requests, state)

    def _step(
        self,
        state: _State,
        session: Session,
        registry: FakeRegistry,
        left: dict[int, Send],
        event: Input,
        is_fault: bool,
    ) -> _State:
        session.receive(state.now, event)
        return self._settled(session, registry, left, state.now, state.faults + is_fault, state.requests, state)

    def _settled(
        self,
        session: Session,
        registry: FakeRegistry,
        sends: dict[int, Send],
        now: float,
        faults: int,
        requests: int,
        before: _State | None,
    ) -> _State:
        """Poll until there is nothing to do, and check what comes."""
        sends = dict(sends)
        aborted = before.aborted if before is not None else frozenset()
        saved = before.saved if before is not None else b""
        told: dict[int, Notice] = {}
        while True:
            match session.poll(now):
                case Send() as send:
                    # What nobody wants any more may still be waited for: its answer can open an upload session.
                    doomed = {
                        number
                        for number, exchange in session._scheduler.in_flight.items()
                        if exchange.machine.cancel_pending
                    }
                    self._check_send(send, sends, aborted | doomed, before)
                    sends[send.id] = send
                    requests += 1
                    self._move(send, session, now)
                case Abort(id=number):
                    self._check_abort(number, sends, aborted, before)
                    aborted |= {number}
                case NeedCredentials(id=number):
                    known = self.keychain
                    answer = attrs.evolve(known, id=number) if known is not None else NoCredentials(id=number)
                    session.receive(now, answer)
                case Save(data=data):
                    saved = data
                    if SECRET.encode() in data:
                        raise Violation("a secret is to be kept" + _told(before))
                case NeedManifests(draft=draft) as need:
                    assert callable(draft), "an explored draft is a function"
                    session.receive(now, draft(need))
                case Notice() as notice:
                    self._check_told(notice, told, before)
                case Finished() as end:
                    troubled = faults > 0 or (before is not None and before.disturbed)
                    self._check_finished(end, registry, sends, troubled, before)
                    self._check_last(end, told.get(end.push_id), saved, before)
                case Wait(until=until):
                    break
        self._edges.update(session.take_journal())
        done = not session._pushes.under_way and not sends
        cancels = before.cancels if before is not None else 0
        disturbed = before is not None and before.disturbed
        # Where checkpoints are kept, a cancelled push leaves its sessions to a later one.
        in_order = done and not disturbed and faults == (0 if self.crash else cancels)
        self._checked["something is in flight, waited for, or all is finished"] += 1
        self._check_sessions(session, registry, bool(faults or disturbed), in_order, before)
        if not done and not sends and until == math.inf:
            raise Violation("nothing in flight, nothing to wait for, and not finished" + _told(before))
        dumped = self._forker.dump(session)
        state = _State(dumped, registry, sends, aborted, until, now, faults, requests, done, None, saved)
        if before is not None:
            state.crashed, state.orphans, state.cancels = before.crashed, before.orphans, cancels
            state.disturbed = disturbed
        return state

    # --- invariants ---

    def _check_send(self, send: Send, sends: dict[int, Send], unwanted: frozenset[int], before: _State | None) -> None:
        self._checked["no secret shows in a request, a result or what is kept"] += 1
        self._checked["exchanges are within the limit"] += 1
        self._checked["one token request at a time"] += _to_token_server(send)
        self._checked["no content is being sent twice"] += bool(_content_name(send))
        if SECRET in repr(send):
            raise Violation("a secret shows in a repr" + _told(before))
        authorized = any(name == "Authorization" for name, _ in send.headers)
        self._checked["Authorization goes to its origin alone"] += authorized
        if authorized and origin_of(send.url) != origin_of(BASE):
            raise Violation(f"Authorization for {send.url}" + _told(before))
        if len(sends) >= self.config.max_exchanges:
            raise Violation("more exchanges in flight than allowed" + _told(before))
        if _to_token_server(send) and any(other.url == send.url for other in sends.values()):
            raise Violation("two requests for the same token in flight" + _told(before))
        name = _content_name(send)
        if name and any(_content_name(other) == name for other in sends.values() if other.id not in unwanted):
            raise Violation(f"{name} is being sent twice" + _told(before))

    def _check_sessions(
        self, session: Session, registry: FakeRegistry, troubled: bool, in_order: bool, before: _State | None
    ) -> None:
        repositories = {push.repository for push in self.pushes}
        left = sum(not upload.lost for name in repositories for upload in registry.sessions(name))
        self._checked["upload sessions are within twice the places"] += 1
        # Without a fault the registry knows the same; of what an answer was lost for, nobody does.
        here = len(session._scheduler.sessions) + session._scheduler.opening
        if max(here, left * (not troubled)) > 2 * self.config.max_exchanges:
            raise Violation("more upload sessions are open than twice the places" + _told(before))
        self._checked["no upload session is left open without a fault"] += in_order
        if in_order and left > self.left_open + (before.orphans if before is not None else 0):
            raise Violation("an upload session was left open" + _told(before))

    def _check_abort(self, number: int, sends: dict[int, Send], aborted: frozenset[int], before: _State | None) -> None:
        self._checked["an Abort is for a request in flight, and comes once"] += 1
        if number not in sends or number in aborted:
            raise Violation("an Abort for what is not in flight" + _told(before))

    def _check_handled(self, send: Send, event: Response | Failed, state: _State) -> None:
        self._checked["a manifest is put after what it names"] += _manifest_put(send)
        if _manifest_put(send) and isinstance(event, Response) and b"MANIFEST_BLOB_UNKNOWN" in event.body:
            raise Violation("a manifest was put before what it names was there" + _told(state))

    def _move(self, send: Send, session: Session, now: float) -> None:
        """All of a body is told to be sent, so that it counts until its try is taken back."""
        size = send.body.size if isinstance(send.body, BlobSlice) else 0
        if size:
            session.receive(now, Progress(id=send.id, phase=Phase.SENDING, bytes=size))

    def _check_told(self, notice: Notice, told: dict[int, Notice], before: _State | None) -> None:
        if notice.status is Status.PROGRESS:
            self._checked["progress is within what there is"] += 1
            if not 0 <= notice.sent_bytes <= notice.size_bytes:
                raise Violation(f"told of {notice.sent_bytes} of {notice.size_bytes} bytes" + _told(before))
            told[notice.push_id] = notice

    def _check_last(self, end: Finished, last: Notice | None, saved: bytes, before: _State | None) -> None:
        if end.result.outcome is not PushOutcome.PUSHED:
            return
        self._checked["what is pushed is told to the last byte, and nothing is kept"] += 1
        if len(self.pushes) == 1 and saved:
            raise Violation("pushed, and something is still kept" + _told(before))
        if last is not None and last.sent_bytes != last.size_bytes:
            raise Violation(f"pushed, but told of {last.sent_bytes} of {last.size_bytes} bytes" + _told(before))

    def _check_finished(
        self, end: Finished, registry: FakeRegistry, sends: dict[int, Send], troubled: bool, before: _State | None
    ) -> None:
        result, push = end.result, self.pushes[end.push_id - 1]
        self._finished[result.outcome] = self._finished.get(result.outcome, 0) + 1
        self._checked["no secret shows in a request, a result or what is kept"] += 1
        self._checked["a push is finished after its last exchange"] += len(self.pushes) == 1
        self._checked["without a fault it ends as it should"] += not troubled
        self._checked["what is said to be pushed is there"] += result.outcome is PushOutcome.PUSHED
        self._checked["a failure has a typed error, nothing else has one"] += 1
        if isinstance(result.error, RegprotoError) is not (result.outcome is PushOutcome.FAILED):
            raise Violation(f"{result.outcome.value} with the error {result.error!r}" + _told(before))
        self._checked["a push is finished after the last exchange that reads its content"] += 1
        if len(self.pushes) == 1 and sends:
            raise Violation("finished with an exchange in flight" + _told(before))
        sources = {id(blob.source) for blob in push.blobs} | {id(stream.source) for stream in push.streams}
        for send in sends.values():
            if isinstance(send.body, (BlobSlice, Stream)) and id(send.body.source) in sources:
                raise Violation(f"finished, and {send.method} {send.url} still reads its content" + _told(before))
        if SECRET in repr(result):
            raise Violation("a secret shows in a result" + _told(before))
        if not troubled and (result.outcome is PushOutcome.PUSHED) is self.doomed:
            raise Violation(f"{result.outcome.value} without a fault: {result.error}" + _told(before))
        if result.outcome is PushOutcome.PUSHED:
            missing = _missing(push, result, registry)
            if missing:
                raise Violation(f"told to be pushed, but {missing} is not there" + _told(before))

    def _check_no_rounds(self, states: Sequence[_State], leads_to: dict[int, list[_Step]], how: str) -> None:
        """Nothing leads back to a state that was left, whatever is answered: so nothing is repeated without an end.

        All that is counted is a part of a state, so what comes again has counted nothing. States that lead nowhere are
        taken away, then those that lead to these alone, and so on; what is left goes round.
        """
        patient = how == "without a count"
        ways = {id(state): 0 for state in states}
        for steps in leads_to.values():
            for step in steps:
                ways[id(step.before)] += patient or not step.takes_time
        left = {id(state): state for state in states}
        todo = [state for state in states if not ways[id(state)]]
        while todo:
            gone = todo.pop()
            del left[id(gone)]
            for step in leads_to.get(id(gone), ()):
                if patient or not step.takes_time:
                    ways[id(step.before)] -= 1
                    if not ways[id(step.before)]:
                        todo.append(step.before)
        self._checked[f"nothing is repeated {how}"] += len(states)
        if left:
            raise Violation(f"it goes round {how}" + _round(left, leads_to, patient))

    def _check_all_end(
        self, states: Iterable[_State], ends: Iterable[_State], leads_to: dict[int, list[_Step]]
    ) -> None:
        """From every state an end can be reached."""
        reached = {id(end) for end in ends}
        todo = list(ends)
        while todo:
            for step in leads_to.get(id(todo.pop()), ()):
                if id(step.before) not in reached:
                    reached.add(id(step.before))
                    todo.append(step.before)
        for state in states:
            self._checked["from here an end can be reached"] += 1
            if id(state) not in reached:
                raise Violation("no way to an end" + _told(state))


def _with_own_sources(push: PushPlan) -> PushPlan:
    """The same with copies of its content, so that it shows whose is read. (A single byte has no copy.)"""
    return attrs.evolve(
        push,
        blobs=[attrs.evolve(blob, source=_copy(blob.source)) for blob in push.blobs],
        streams=[attrs.evolve(stream, source=_copy(stream.source)) for stream in push.streams],
    )


def _copy(source: object) -> object:
    return bytes(bytearray(source)) if isinstance(source, bytes) else source


def _patient(config: Config) -> Config:
    """The same without limits in time."""
    return attrs.evolve(
        config,
        connect_timeout_s=FOREVER_S,
        response_timeout_s=FOREVER_S,
        idle_timeout_s=FOREVER_S,
        exchange_timeout_s=None,
        push_timeout_s=None,
        cleanup_timeout_s=FOREVER_S,
    )


def _limits(session: Session) -> list[float]:
    """When pushes that are under way have taken too long, or have had their time to give back what is open."""
    deadlines, under_way = session._pushes.deadlines, session._pushes.under_way
    running = [due for due, push_id in deadlines.running if push_id in under_way and not under_way[push_id].outcome]
    return running + [due for due, push_id in deadlines.ending if push_id in under_way]


def _is_late(session: Session, now: float) -> bool:
    """Whether something is over its limit by then."""
    exchanges = [e.deadline for e in session._scheduler.in_flight.values() if not e.aborted]
    return any(due <= now for due in exchanges + _limits(session))


def _order_of_limits(session: Session, normal: Callable[[str], str]) -> Hashable:
    """Which limit is met first, which next."""
    exchanges = session._scheduler.in_flight.values()
    order = {due: rank for rank, due in enumerate(sorted({e.deadline for e in exchanges} | set(_limits(session))))}
    return (
        tuple(sorted((e.ask.method, normal(e.url), order[e.deadline]) for e in exchanges)),
        tuple(order[due] for due in _limits(session)),
    )


def _content_name(send: Send) -> str:
    """The digest or key of the content in a request's body; "" if it has none."""
    match send.body:
        case BlobSlice(digest=digest):
            return digest
        case Stream(key=key):
            return f"stream {key}"
        case _:
            return ""


def _missing(push: PushPlan, result: PushResult, registry: FakeRegistry) -> str:
    """The first thing of a plan that the registry does not have; "" if all is there."""
    blobs, manifests = registry.blobs(push.repository), registry.manifests(push.repository)
    for blob in push.blobs:
        if blob.descriptor.digest not in blobs:
            return str(blob.descriptor.digest)
    for manifest in push.manifests:
        if manifest.descriptor.digest not in manifests:
            return str(manifest.descriptor.digest)
    there = {s.key for s in result.streamed if s.descriptor.digest in blobs}
    for stream in push.streams:
        if stream.key not in there:
            return f"stream {stream.key}"
    if push.draft is not None and result.digest not in manifests:
        return "what was made of the streams"
    tags = registry.tags(push.repository)
    return next((tag for tag in push.tags if tags.get(tag) != result.digest), "") or _unlisted(push, registry)


def _unlisted(push: PushPlan, registry: FakeRegistry) -> str:
    """The first attachment that is not in its subject's list."""
    for subject, manifests in push.subjects.items():
        listed = registry.referrers(push.repository, subject)
        for manifest in manifests:
            if manifest.descriptor.digest not in listed:
                return f"{manifest.descriptor.digest} in the list of {subject}"
    return ""


def _told(state: _State | None) -> str:
    steps: list[str] = []
    while state is not None and state.path is not None:
        name, state = state.path
        steps.append(name)
    return "\nafter:\n  " + "\n  ".join(reversed(steps))


def _round(left: dict[int, _State], leads_to: dict[int, list[_Step]], patient: bool) -> str:
    """The path to a round among these states, each of which leads to another of them, and the round itself."""
    onward: dict[int, tuple[str, _State]] = {}
    for state in left.values():
        for step in leads_to.get(id(state), ()):
            if id(step.before) in left and (patient or not step.takes_time):
                onward.setdefault(id(step.before), (step.name, state))
    state, met = next(iter(left.values())), set[int]()
    while id(state) not in met:
        met.add(id(state))
        state = onward[id(state)][1]
    told, first, names = _told(state), state, list[str]()
    while not names or state is not first:
        name, state = onward[id(state)]
        names.append(name)
    return told + "\nand then again and again:\n  " + "\n  ".join(names)


def explore(push: PushPlan, registry: FakeRegistry | None = None, **options: object) -> Exploration:
    """`Explorer(pushes=[push], registry=registry, **options).explore()`."""
    return Explorer(pushes=[push], registry=registry or FakeRegistry(), **options).explore()  # type: ignore[arg-type]
