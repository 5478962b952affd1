"""Running sessions with the blocking driver: threads, the keychain, interrupts, deadlines."""

from __future__ import annotations

import io
import math
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

import pytest

import wire
from driving import NEWS, exchange, failed, nobody, responded, run
from regproto._model.errors import LocalProtocolError
from regproto._model.messages import (
    Credentials,
    FailureKind,
    NeedCredentials,
    NoCredentials,
    Notice,
    Output,
    Phase,
    Wait,
    Written,
)
from regproto_sync.driver.driver import Driver
from regproto_sync.sources.content import BytesContent
from wire import OK, Line, Peer, ScriptedSession, answered, blob_slice, in_phase, send, serving

pytest_plugins = ["sync_fixtures"]
pytestmark = pytest.mark.usefixtures("nothing_leaks")

# --- the loop ---------------------------------------------------------------------------------------------------------


def keychain_answer(driver: Driver, keychain: Callable[[NeedCredentials], Any]) -> Any:
    need = NeedCredentials(id=5, registry="r", repository="a")
    session = run(driver, need, lambda session: bool(session.inputs), keychain=keychain)
    return session.inputs[0]


def test_the_keychain_is_asked_elsewhere(driver: Driver) -> None:
    names: list[str] = []

    def keychain(need: NeedCredentials) -> Credentials:
        names.append(threading.current_thread().name)
        return Credentials(id=need.id, username="u")

    assert keychain_answer(driver, keychain) == Credentials(id=5, username="u")
    assert names == ["regproto-exchange"]


def test_a_broken_keychain_is_told(driver: Driver) -> None:
    def keychain(need: NeedCredentials) -> Credentials:
        raise OSError(2, "No such file or directory", "docker-credential-x")

    error = "docker-credential-x: No such file or directory"
    assert keychain_answer(driver, keychain) == NoCredentials(id=5, error=error)


def test_a_slow_keychain_holds_up_nothing(driver: Driver) -> None:
    answer = threading.Event()

    def keychain(need: NeedCredentials) -> NoCredentials:
        assert answer.wait(wire.PATIENCE_S)
        return NoCredentials(id=need.id)

    with Peer(serving) as peer:
        need = NeedCredentials(id=5, registry="r", repository="a")
        run(driver, need, send(1, peer.url), answered(1), keychain=keychain)
        answering_thread = [t for t in threading.enumerate() if t.name == "regproto-exchange"]
        driver.close()
    answer.set()
    for thread in answering_thread:
        thread.join(wire.PATIENCE_S)


def test_the_session_has_one_thread_and_news_are_told(driver: Driver) -> None:
    news: list[Notice] = []
    session = run(driver, NEWS, NEWS, on_notice=news.append)
    assert news == [NEWS, NEWS]
    assert session.threads == {"regproto-session"}


def test_an_unknown_push_is_refused(driver: Driver) -> None:
    class Idle(ScriptedSession):
        def poll(self, now: float) -> Output:
            return Wait(until=math.inf)

    with pytest.raises(LocalProtocolError, match=r"push \[3\]"):
        driver.run(Idle(), [3], keychain=nobody)


def test_waits_end_by_themselves(driver: Driver) -> None:
    session = ScriptedSession(Wait(until=0.0), Wait(until=driver._context.clock() + 0.01))
    driver.run(session, [0], keychain=nobody)


def test_what_is_left_when_all_is_finished_is_stopped(driver: Driver) -> None:
    with Peer(lambda line: line.rest()) as peer:
        session = run_open(driver, send(1, peer.url), in_phase(1, Phase.WAITING))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.ALL)


def run_open(driver: Driver, *script: Output | wire.Condition, **options: Any) -> ScriptedSession:
    session = ScriptedSession(*script)
    driver.run(session, [0], keychain=nobody, **options)
    return session


def test_an_error_of_ours_is_raised_and_the_push_cancelled(driver: Driver) -> None:
    class Broken(BytesContent):
        def open(self, offset: int = 0) -> BinaryIO:
            class Stream(io.BytesIO):
                def close(self) -> None:
                    if not self.closed:
                        super().close()
                        raise ZeroDivisionError

            return Stream(self.data)

    with Peer(lambda line: line.rest()) as peer:
        what = send(1, peer.url, "PUT", blob_slice(Broken(b""), 10))
        session = ScriptedSession(what, answered(1))
        with pytest.raises(ZeroDivisionError):
            driver.run(session, [0], keychain=nobody)
        driver.close()
    assert session.cancelled == [0]
    failed(session.answers(1)[0], FailureKind.CLOSED, Written.SOME)


def test_an_error_of_on_notice_cancels_and_is_raised(driver: Driver) -> None:
    def on_notice(_: Notice) -> None:
        raise ZeroDivisionError

    session = ScriptedSession(NEWS, lambda session: bool(session.cancelled), NEWS)
    with pytest.raises(ZeroDivisionError):
        driver.run(session, [0], keychain=nobody, on_notice=on_notice)
    assert session.cancelled == [0]


def interrupt(_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_cancels_and_goes_on_until_it_is_finished(driver: Driver) -> None:
    def cancelled(session: ScriptedSession) -> bool:
        return bool(session.cancelled)

    with Peer(serving) as peer:
        session = ScriptedSession(NEWS, cancelled, send(1, peer.url, "DELETE"), answered(1))
        with pytest.raises(KeyboardInterrupt):
            driver.run(session, [0], keychain=nobody, on_notice=interrupt)
        driver.close()
    assert responded(session.answers(1)[0]).status == 200


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_ends_after_its_grace_or_a_second_one(driver: Driver, again: bool) -> None:
    never = threading.Event()

    def cancelled(session: ScriptedSession) -> bool:
        return bool(session.cancelled)

    with Peer(lambda line: line.rest()) as peer:
        more: list[Output] = [NEWS] if again else []
        waiting = in_phase(1, Phase.WAITING)
        session = ScriptedSession(send(1, peer.url), waiting, NEWS, cancelled, *more, lambda _: never.is_set())
        with pytest.raises(KeyboardInterrupt):
            driver.run(session, [0], keychain=nobody, on_notice=interrupt, cancel_grace_s=1000 if again else 0.01)
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.ALL)


def test_a_closed_driver_keeps_no_connection(driver: Driver) -> None:
    with Peer(serving) as peer:
        driver.close()
        responded(exchange(driver, send(1, peer.url)))
        driver._workers.close()


# --- deadlines and numbers --------------------------------------------------------------------------------------------


def test_not_after() -> None:
    now = [10.0]
    with Peer(serving) as peer, Driver(clock=lambda: now[0]) as driver:
        failed(exchange(driver, send(1, peer.url, not_after=9.0)), FailureKind.NOT_SENT, Written.NONE)
        assert peer.connections == 0
        responded(exchange(driver, send(2, peer.url, not_after=10.0)))
        driver.close()


def test_not_after_passes_while_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    now, resolve = [10.0], socket.getaddrinfo

    def slow(*args: Any, **kwargs: Any) -> object:
        now[0] = 11.0
        return resolve(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with Peer(serving) as peer, Driver(clock=lambda: now[0]) as driver:
        failed(exchange(driver, send(1, peer.url, not_after=10.5)), FailureKind.NOT_SENT, Written.NONE)
        responded(exchange(driver, send(2, peer.url)))
        assert peer.connections == 1
        driver.close()


def test_a_hundred_at_once(driver: Driver) -> None:
    everyone = threading.Barrier(100)

    def handle(line: Line) -> None:
        line.head()
        everyone.wait(wire.PATIENCE_S)
        line.say(OK)

    with Peer(handle) as peer:
        session = run(driver, *(send(n, peer.url) for n in range(100)), answered(*range(100)))
        assert all(responded(session.answers(n)[0]).status == 200 for n in range(100))


def test_threads_are_used_again(driver: Driver) -> None:
    with Peer(serving) as peer:
        for n in range(20):
            responded(exchange(driver, send(n, peer.url)))
        assert len([t for t in threading.enumerate() if t.name == "regproto-exchange"]) == 1
        driver.close()


def test_phases_are_told_once(driver: Driver) -> None:
    with Peer(serving) as peer:
        first = run(driver, send(1, peer.url), answered(1))
        second = run(driver, send(2, peer.url), answered(2))
        driver.close()
    assert first.phases(1) == [Phase.CONNECTING, Phase.WAITING]
    assert second.phases(2) == [Phase.WAITING]


def test_runs_share_a_driver(driver: Driver) -> None:
    both = threading.Barrier(2)

    def handle(line: Line) -> None:
        line.head()
        both.wait(wire.PATIENCE_S)
        line.say(OK)
        serving(line)

    with Peer(handle) as peer:
        runs = [threading.Thread(target=run, args=(driver, send(1, peer.url), answered(1))) for _ in range(2)]
        for thread in runs:
            thread.start()
        for thread in runs:
            thread.join(wire.PATIENCE_S)
        run(driver, send(1, peer.url), answered(1))
        assert peer.connections == 2
        driver.close()
