"""Abort, at every stage of an exchange."""

from __future__ import annotations

import threading
from typing import Final

from regproto._model.messages import Abort, Failed, FailureKind, Phase, Send, Written
from regproto.testing.driver_check.bench import Bench, CheckFailed, ask, blob_slice, check, expect, responded
from regproto.testing.driver_check.content import OddSource
from regproto.testing.driver_check.peer import OK, Handler, Line, full_backlog, serving, until_closed
from regproto.testing.driver_check.script import ScriptedSession, Step, Until, answered, happens, in_phase, tell
from regproto.testing.driver_check.sending import BIG

_AT_ONCE: Final = 20


def _aborted(session: ScriptedSession, id: int, *written: Written) -> None:
    answer = session.answers(id)[0]
    if not isinstance(answer, Failed) or answer.kind is not FailureKind.ABORTED:
        raise CheckFailed(f"it was aborted, but it says {answer!r} instead of Failed(ABORTED)")
    expect(answer.written in written, f"it says {answer.written.name} was written, instead of {written[-1].name}")


def _abort(bench: Bench, send: Send, *until: Step, tls: bool = False) -> ScriptedSession:
    steps = (send, *until, Abort(id=send.id), answered(send.id))
    return bench.run(*steps, tls=bench.trust() if tls else None)


@check("abort, connecting", "an exchange that is aborted while it connects is Failed(ABORTED)")
def connecting(bench: Bench) -> None:
    with full_backlog() as url:
        session = _abort(bench, ask(1, url), in_phase(1, Phase.CONNECTING))
    _aborted(session, 1, Written.NONE)


@check("abort, in the handshake", "an exchange that is aborted in the handshake of TLS is Failed(ABORTED)")
def handshake(bench: Bench) -> None:
    hello = threading.Event()

    def handle(line: Line) -> None:
        line.body(1)
        hello.set()
        line.rest()

    with bench.peer(handle) as peer:
        send = ask(1, f"https://localhost:{peer.port}")
        session = _abort(bench, send, happens("the handshake to begin", hello), tls=True)
    _aborted(session, 1, Written.NONE)


@check("abort, sending", "an abort ends the sending to a peer that does not read, and the reading of content")
def sending(bench: Bench) -> None:
    begun, done = threading.Event(), threading.Event()

    def handle(line: Line) -> None:
        line.head()
        begun.set()
        done.wait(bench.wait_timeout_s)
        line.rest()

    for tls in (False, True):
        begun.clear()
        done.clear()
        source = OddSource(bytes(BIG))
        left_open: list[int] = []

        def note(_: ScriptedSession, source: OddSource = source, left_open: list[int] = left_open) -> bool:
            left_open.append(source.open_streams)
            return True

        with bench.peer(handle, tls=tls) as peer:
            send = ask(1, peer.url, "PUT", blob_slice(source, BIG))
            steps = (
                send,
                in_phase(1, Phase.SENDING),
                happens("the request", begun),
                Abort(id=1),
                answered(1),
                Until("nothing", note),
            )
            session = bench.run(*steps, tls=bench.trust() if tls else None)
            done.set()
        _aborted(session, 1, Written.SOME)
        expect(left_open == [0], "it answered before it had closed the content's stream")


@check("abort, waiting", "what is aborted while it waits for its answer is closed, and then Failed(ABORTED)")
def waiting(bench: Bench) -> None:
    _released(bench, until_closed, Phase.WAITING)


@check("abort, receiving", "what is aborted in the middle of its answer is closed, and then Failed(ABORTED)")
def receiving(bench: Bench) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.say(OK[:-1])
        line.rest()

    _released(bench, handle, Phase.RECEIVING)


def _released(bench: Bench, handler: Handler, phase: Phase) -> None:
    closed = threading.Event()

    def handle(line: Line) -> None:
        handler(line)
        closed.set()

    with bench.peer(handle) as peer:
        steps = (ask(1, peer.url), in_phase(1, phase), Abort(id=1), answered(1))
        session = bench.run(*steps, happens("the connection of what was aborted to be closed", closed))
    _aborted(session, 1, Written.SOME, Written.ALL)


@check("abort, at once", "an abort right after its Send, before anything was done, is Failed(ABORTED) too")
def at_once(bench: Bench) -> None:
    with bench.peer(until_closed) as peer:
        ids = range(_AT_ONCE)
        steps = [step for n in ids for step in (ask(n, peer.url), Abort(id=n))]
        session = bench.run(*steps, answered(*ids))
    for id in ids:
        _aborted(session, id, *Written)


@check("abort, too late", "what is aborted after its answer is left as it is: nothing is said twice, nothing is lost")
def too_late(bench: Bench) -> None:
    with bench.peer(serving) as peer:
        session = bench.run(ask(1, peer.url), answered(1), Abort(id=1), ask(2, peer.url), answered(2))
        for id in (1, 2):
            responded(session.answers(id)[0])
        both = bench.run(ask(3, peer.url), ask(4, peer.url), answered(3), Abort(id=3), answered(4))
    responded(both.answers(4)[0])


@check("abort of one", "an abort touches no other exchange")
def one_of_many(bench: Bench) -> None:
    go_on = threading.Event()

    def handle(line: Line) -> None:
        line.head()
        go_on.wait(bench.wait_timeout_s)
        line.say(OK)

    with bench.peer(until_closed) as stuck, bench.peer(handle, may_fail=True) as peer:
        ids = range(2, 12)
        sends = (ask(1, stuck.url), *(ask(n, peer.url) for n in ids))
        session = bench.run(*sends, in_phase(1, Phase.WAITING), Abort(id=1), answered(1), tell(go_on), answered(*ids))
    _aborted(session, 1, Written.SOME, Written.ALL)
    for id in ids:
        responded(session.answers(id)[0])
