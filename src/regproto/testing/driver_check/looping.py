"""The loop around the session: what is said is done, one thing does not wait for another, nothing is left behind."""

from __future__ import annotations

import math
import threading
from typing import Final

from regproto._model.messages import (
    Abort,
    Credentials,
    Finished,
    NeedCredentials,
    NoCredentials,
    Notice,
    Phase,
    Status,
    Wait,
)
from regproto.testing.driver_check.bench import Bench, ask, blob_slice, check, expect, responded
from regproto.testing.driver_check.content import OddSource, pattern
from regproto.testing.driver_check.peer import OK, Line, serving, until_closed
from regproto.testing.driver_check.script import RESULT, ScriptedSession, Until, answered, in_phase, tell

_NAP_S: Final = 0.3
_POLLS_MAX: Final = 30
"""In a nap. A driver is free to look now and then, but not to spin."""
_RUNS: Final = 6
_RATE: Final = 10.0
"""Reports a second (the contract's rule 4)."""


def _need(id: int) -> NeedCredentials:
    return NeedCredentials(id=id, registry="registry.example", repository="team/app")


@check("results", "it runs until all its pushes are finished, heeds what others do, and drops what it has no use for")
def results(bench: Bench) -> None:
    other = Finished(push_id=7, result=RESULT)
    news = Notice(status=Status.UPLOADING, subject="sha256:0")
    with bench.peer(serving) as peer:
        steps = (Finished(push_id=0, result=RESULT), other, news, ask(1, peer.url), answered(1), news)
        session = bench.run(*steps, push_ids=(0, 1))
        responded(session.answers(1)[0])
        # An Abort for what was never sent, or long ago, may be on its way when its answer is.
        bench.run(Abort(id=99))


@check("waits", "it wakes by itself when a Wait is over, whether or not something is in flight, and does not spin")
def waits(bench: Bench) -> None:
    over = [math.inf]
    polls: list[int] = []

    def nap(now: float) -> Wait:
        over[0] = now + _NAP_S
        return Wait(until=over[0])

    def rested(session: ScriptedSession) -> bool:
        polls.append(session.polls)
        return session.now >= over[0]

    with bench.peer(until_closed) as peer:
        for steps in ((nap,), (ask(1, peer.url), in_phase(1, Phase.WAITING), nap)):
            polls.clear()
            until = Until("the end of a Wait", rested, look_again_s=_NAP_S)
            bench.run(*steps, until)
            expect(polls[-1] - polls[0] < _POLLS_MAX, f"it polled {polls[-1] - polls[0]} times during a Wait")
    bench.run(Wait(until=-math.inf), Wait(until=0.0))
    with bench.peer(serving) as peer:
        session = bench.run(ask(1, peer.url), Until("an answer", lambda s: bool(s.answers(1)), look_again_s=math.inf))
        responded(session.answers(1)[0])


@check("credentials", "NeedCredentials is answered by the keychain, and with its words if that is broken")
def credentials(bench: Bench) -> None:
    given = Credentials(id=5, username="user", password="word")
    asked: list[NeedCredentials] = []

    def keychain(need: NeedCredentials) -> Credentials:
        asked.append(need)
        return given

    def heard(session: ScriptedSession) -> bool:
        return any(isinstance(event, Credentials | NoCredentials) for _, event in session.inputs)

    told = Until("the keychain's answer", heard)
    session = bench.run(_need(5), told, keychain=keychain)
    expect(asked == [_need(5)], f"the keychain was asked {asked}")
    expect([event for _, event in session.inputs] == [given], "it did not pass on what the keychain said")

    def broken(need: NeedCredentials) -> Credentials:
        raise OSError("the helper is broken")

    session = bench.run(_need(6), told, keychain=broken)
    answer = session.inputs[0][1]
    expect(isinstance(answer, NoCredentials) and "the helper is broken" in answer.error, f"it says {answer!r}")


@check("slow keychain", "a keychain that is slow holds up nothing else")
def slow_keychain(bench: Bench) -> None:
    other = threading.Event()
    in_time: list[bool] = []

    def keychain(need: NeedCredentials) -> NoCredentials:
        in_time.append(other.wait(bench.wait_timeout_s / 2))
        return NoCredentials(id=need.id)

    heard = Until("the keychain's answer", lambda s: any(isinstance(event, NoCredentials) for _, event in s.inputs))
    with bench.peer(serving) as peer:
        bench.run(_need(5), ask(1, peer.url), answered(1), tell(other), heard, keychain=keychain)
    expect(in_time == [True], "nothing else went on while the keychain was slow")


@check("progress", "Progress tells each phase: connecting, sending, waiting, receiving, and the bytes that came")
def progress(bench: Bench) -> None:
    sending, waiting, receiving, more = (threading.Event() for _ in range(4))
    size = 3_000_000

    def handle(line: Line) -> None:
        line.head()
        sending.wait(bench.wait_timeout_s)
        line.body(size)
        waiting.wait(bench.wait_timeout_s)
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nx")
        left = 8_000
        while left and not more.is_set():
            receiving.wait(0.005)
            line.say(b"x")
            left -= 1
        line.say(b"x" * (left + 999))

    moved = Until(
        "a second Progress that tells of more bytes received",
        lambda s: len({p.bytes for p in s.progress(1, Phase.RECEIVING)} - {0}) > 1 or bool(s.answers(1)),
    )
    with bench.peer(handle) as peer:
        send = ask(1, peer.url, "PUT", blob_slice(OddSource(pattern(size)), size))
        script = (send, in_phase(1, Phase.SENDING), tell(sending), in_phase(1, Phase.WAITING), tell(waiting))
        session = bench.run(*script, in_phase(1, Phase.RECEIVING), moved, tell(more), answered(1))
    responded(session.answers(1)[0], 200, b"x" * 9000)
    phases = list(dict.fromkeys(p.phase for p in session.progress(1)))
    expect(
        phases == [phase for phase in Phase if phase is not Phase.READING],
        f"it told of {', '.join(p.value for p in phases)}",
    )


@check("progress rate", "while bytes move, Progress comes at most ten times a second beside changes of phase")
def progress_rate(bench: Bench) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        gap = threading.Event()
        for _ in range(100):
            line.say(b"x")
            gap.wait(0.002)

    with bench.peer(handle) as peer:
        session = bench.run(ask(1, peer.url), answered(1))
    times = [now for now, event in session.inputs]
    told = len(session.progress(1))
    allowed = (times[-1] - times[0]) * _RATE + len(Phase) + 2
    expect(told <= allowed, f"it told {told} times in {times[-1] - times[0]:.2f} s")


@check("threads", "however often it runs, no thread is left behind")
def threads(bench: Bench) -> None:
    size = 300_000

    def handle(line: Line) -> None:
        line.head()
        line.body(size)
        line.say(OK)
        line.rest()

    def once() -> int:
        with bench.peer(handle) as peer:
            with bench.peer(until_closed) as stuck:
                body = blob_slice(OddSource(pattern(size)), size)
                steps = (ask(1, stuck.url), in_phase(1, Phase.WAITING), ask(2, peer.url, "PUT", body), _need(5))
                session = bench.run(*steps, answered(2), Abort(id=1), answered(1))
        responded(session.answers(2)[0])
        return threading.active_count()

    # An event loop may keep some threads for later; it may not need more each time.
    counts = [once() for _ in range(_RUNS)]
    expect(counts[-1] - counts[0] < _RUNS - 1, f"after each run there were more threads: {counts}")


@check("what is left", "exchanges that are still going on when all is finished are stopped, and answered")
def left(bench: Bench) -> None:
    with bench.peer(until_closed) as peer:
        session = bench.run(ask(1, peer.url), in_phase(1, Phase.WAITING))
    expect(not session.owed, "it did not tell the session what became of an exchange that it stopped at the end")
