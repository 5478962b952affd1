"""The trio driver, held to its contract over real sockets: connections, bodies, answers, Abort."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import wire
from driving import BIG, failed, responded
from regproto._messages import Abort, FailureKind, NeedCredentials, NoCredentials, Phase, Written
from regproto_sync._content import FileContent
from trio_driving import Ends, exchange, peer_has, run
from wire import OK, Line, Peer, aborted, answered, answering, blob_slice, in_phase, send, serving

pytest_plugins = ["trio_fixtures"]
pytestmark = pytest.mark.usefixtures("nothing_is_left")


def one_by_one(url: str, count: int) -> tuple[Any, ...]:
    """A script of so many requests, each after the answer to the one before."""
    return tuple(step for n in range(count) for step in (send(n, url), answered(n)))


# --- connections ------------------------------------------------------------------------------------------------------


def test_one_connection_serves_one_exchange_after_the_other(ends: Ends) -> None:
    with Peer(serving, tls=ends.server) as peer:
        session = run(*one_by_one(peer.url, 5), tls=ends.client)
        assert [responded(session.answers(n)[0]).body for n in range(5)] == [b"ok"] * 5
        assert peer.connections == 1
    assert session.phases(0) == [Phase.CONNECTING, Phase.SENDING, Phase.WAITING]
    assert session.phases(4) == [Phase.SENDING, Phase.WAITING]


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
def test_an_idle_connection_that_ended_or_spoke_is_not_used_again(farewell: bytes) -> None:
    gone = threading.Event()

    def handle(line: Line) -> None:
        answering(OK)(line)
        line.say(farewell)
        line.socket.shutdown(socket.SHUT_WR)
        gone.set()
        assert line.rest() == b""

    with Peer(handle, serving) as peer:
        session = run(send(1, peer.url), answered(1), peer_has(gone), send(2, peer.url), answered(2))
        assert responded(session.answers(2)[0]).status == 200
        assert peer.connections == 2


def test_a_connection_lost_under_a_request_is_told_as_a_reused_one(ends: Ends) -> None:
    def handle(line: Line) -> None:
        answering(OK)(line)
        line.head()

    with Peer(handle, tls=ends.server) as peer:
        session = run(*one_by_one(peer.url, 2), tls=ends.client)
    assert failed(session.answers(1)[0], FailureKind.CLOSED, Written.ALL).reused


def test_idle_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regproto_trio._transport.IDLE_MAX", 2)
    everyone, closed = threading.Barrier(4), list[int]()

    def handle(line: Line) -> None:
        line.head()
        everyone.wait(wire.PATIENCE_S)
        line.say(OK)
        serving(line)
        closed.append(1)

    with Peer(handle) as peer:
        first, later = [send(n, peer.url) for n in range(4)], [send(n, peer.url) for n in (4, 5)]
        run(*first, answered(*range(4)), lambda _: len(closed) == 2, *later, answered(4, 5))
        assert peer.connections == 4


def test_a_hundred_at_once() -> None:
    everyone = threading.Barrier(100)

    def handle(line: Line) -> None:
        line.head()
        everyone.wait(wire.PATIENCE_S)
        line.say(OK)

    with Peer(handle) as peer:
        session = run(*(send(n, peer.url) for n in range(100)), answered(*range(100)))
    assert all(responded(session.answers(n)[0]).status == 200 for n in range(100))


def test_refused() -> None:
    url = wire.refused_url()
    failure = failed(exchange(send(1, url)), FailureKind.CONNECT, Written.NONE)
    assert failure.detail == f"127.0.0.1 port {url.rpartition(':')[2]}: Connection refused"


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("trio.socket.getaddrinfo", unknown)
    monkeypatch.setattr("trio._highlevel_open_tcp_stream.getaddrinfo", unknown)
    failure = failed(exchange(send(1, "http://no.example/")), FailureKind.CONNECT, Written.NONE)
    assert failure.detail == "no.example port 80: Name or service not known"


@pytest.mark.parametrize("url", ["ftp://r.example/", f"http://{'a' * 64}.example/"])
def test_what_leads_nowhere(url: str) -> None:
    failed(exchange(send(1, url)), FailureKind.CONNECT, Written.NONE)


def test_not_after() -> None:
    now = [10.0]

    def late(_: wire.ScriptedSession) -> bool:
        now[0] = 20.0
        return True

    with Peer(serving) as peer:
        script = (send(1, peer.url, not_after=10.0), answered(1), late, send(2, peer.url, not_after=19.0), answered(2))
        session = run(*script, clock=lambda: now[0])
        assert responded(session.answers(1)[0])
        failed(session.answers(2)[0], FailureKind.NOT_SENT, Written.NONE)
        assert peer.connections == 1


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "trusted"), [("localhost", False), ("127.0.0.1", True)])
def test_a_certificate_that_is_not_good(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, host: str, trusted: bool
) -> None:
    with Peer(lambda line: line.rest(), tls=server_tls) as peer:
        answer = exchange(send(1, f"https://{host}:{peer.port}"), tls=client_tls if trusted else None)
        failure = failed(answer, FailureKind.TLS, Written.NONE)
        assert failure.detail.startswith(f"{host} port {peer.port}: certificate verify failed: ")
        with pytest.raises(ssl.SSLError):
            peer.join()
        peer.errors.clear()


def test_plain_http_where_tls_was_meant(client_tls: ssl.SSLContext) -> None:
    def handle(line: Line) -> None:
        line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        line.rest()

    with Peer(handle) as peer:
        answer = exchange(send(1, f"https://localhost:{peer.port}"), tls=client_tls)
    failed(answer, FailureKind.TLS, Written.NONE)


@pytest.mark.parametrize("how", [lambda line: line.body(1), lambda line: line.reset()], ids=["closed", "reset"])
def test_ended_in_the_handshake(client_tls: ssl.SSLContext, how: Callable[[Line], object]) -> None:
    with Peer(how) as peer:
        answer = exchange(send(1, f"https://localhost:{peer.port}"), tls=client_tls)
    assert "handshake" in failed(answer, FailureKind.CONNECT, Written.NONE).detail


def test_a_tls_stream_that_ends_without_goodbye_ends_no_body(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with Peer(answering(b"HTTP/1.1 200 OK\r\n\r\nok"), tls=server_tls) as peer:
        failed(exchange(send(1, peer.url), tls=client_tls), FailureKind.CLOSED, Written.ALL)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trickling", [False, True])
def test_an_answer_in_whatever_pieces(trickling: bool) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + chunked

    def handle(line: Line) -> None:
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.head()
        for part in wire.one_by_one(data) if trickling else [data]:
            line.say(part)

    with Peer(handle) as peer:
        answer = responded(exchange(send(1, peer.url)))
    assert (answer.status, answer.body, answer.truncated) == (200, b"ok", False)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", FailureKind.CLOSED),
        (OK[:-1], FailureKind.CLOSED),
        (b"\x15\x03\x01 no HTTP", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", FailureKind.PROTOCOL),
    ],
    ids=["nothing", "half a body", "garbage", "long head"],
)
def test_what_is_no_answer(data: bytes, kind: FailureKind) -> None:
    with Peer(answering(data)) as peer:
        assert failed(exchange(send(1, peer.url)), kind, Written.ALL).detail


def test_of_a_body_over_the_limit_the_beginning_is_given(ends: Ends) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_001)
        line.rest()

    with Peer(handle, tls=ends.server) as peer:
        answer = responded(exchange(send(1, peer.url), tls=ends.client))
    assert (answer.body, answer.truncated) == (b"x" * 10_000, True)


# --- Abort ------------------------------------------------------------------------------------------------------------


def test_abort_while_resolving(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    async def silent(*_: object, **__: object) -> None:
        asked.set()
        await trio.sleep_forever()

    monkeypatch.setattr("trio._highlevel_open_tcp_stream.getaddrinfo", silent)
    session = run(*aborted(send(1, "http://slow.example/"), peer_has(asked)))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.NONE)


def test_abort_while_connecting() -> None:
    with wire.full_backlog() as url:
        session = run(*aborted(send(1, url), in_phase(1, Phase.CONNECTING)))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.NONE)


def test_abort_in_the_handshake(client_tls: ssl.SSLContext) -> None:
    hello = threading.Event()

    def handle(line: Line) -> None:
        line.body(1)
        hello.set()
        line.rest()

    with Peer(handle) as peer:
        session = run(*aborted(send(1, f"https://localhost:{peer.port}/"), peer_has(hello)), tls=client_tls)
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.NONE)


def test_abort_of_sending_to_a_peer_that_does_not_read(ends: Ends, layer: Path) -> None:
    os.truncate(layer, 3 * BIG)
    done = threading.Event()

    def handle(line: Line) -> None:
        line.head()
        assert done.wait(wire.PATIENCE_S)
        assert len(line.rest()) < 3 * BIG

    with Peer(handle, tls=ends.server) as peer:
        what = send(1, peer.url, "PUT", blob_slice(FileContent.of(layer), 3 * BIG))
        session = run(*aborted(what, in_phase(1, Phase.SENDING)), tls=ends.client)
        done.set()
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.SOME)


@pytest.mark.parametrize("said", [b"", OK[:-1]], ids=["waiting", "receiving"])
def test_abort_after_sending(said: bytes) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.say(said)
        assert line.rest() == b""

    with Peer(handle) as peer:
        phase = Phase.RECEIVING if said else Phase.WAITING
        session = run(*aborted(send(1, peer.url), in_phase(1, phase)))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.ALL)


def test_abort_at_once_and_too_late() -> None:
    with Peer(serving) as peer:
        session = run(*aborted(send(1, peer.url)), send(2, peer.url), answered(2), Abort(id=2))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.NONE)
    responded(session.answers(2)[0])


def test_what_is_left_when_all_is_finished_is_stopped() -> None:
    with Peer(lambda line: line.rest()) as peer:
        session = run(send(1, peer.url), in_phase(1, Phase.WAITING))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.ALL)


# --- the keychain -----------------------------------------------------------------------------------------------------


def test_the_keychain_is_asked_in_a_thread_and_abandoned_when_it_is_too_slow() -> None:
    names: list[str] = []
    answer, answers = threading.Event(), []

    def keychain(need: NeedCredentials) -> NoCredentials:
        names.append(threading.current_thread().name)
        if need.id == 1:
            raise OSError(2, "No such file or directory", "docker-credential-x")
        assert answer.wait(wire.PATIENCE_S)
        answers.append(need.id)
        return NoCredentials(id=need.id)

    def need(id: int) -> NeedCredentials:
        return NeedCredentials(id=id, registry="r", repository="a")

    session = run(need(1), lambda session: bool(session.inputs), need(2), lambda _: len(names) == 2, keychain=keychain)
    error = "docker-credential-x: No such file or directory"
    assert session.inputs == [NoCredentials(id=1, error=error), NoCredentials(id=2, error="the keychain was too slow")]
    assert threading.main_thread().name not in names
    [stuck] = [t for t in threading.enumerate() if t.name == names[1]]
    assert names[1].endswith("regproto keychain r")
    answer.set()
    while stuck.name == names[1]:  # trio keeps the thread, under another name
        stuck.join(0.001)
    assert answers == [2]
