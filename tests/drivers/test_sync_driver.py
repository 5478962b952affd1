"""The blocking driver, held to its contract over real sockets: connections, answers, Abort."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

import wire
from driving import BIG, exchange, failed, responded, run
from regproto._model.messages import Abort, Failed, FailureKind, Phase, Written
from regproto_sync.driver.driver import Driver
from regproto_sync.sources.content import FileContent
from wire import OK, Line, Peer, ScriptedSession, answered, answering, blob_slice, in_phase, send, serving

pytest_plugins = ["sync_fixtures"]
pytestmark = pytest.mark.usefixtures("nothing_leaks")

# --- keep-alive -------------------------------------------------------------------------------------------------------


def test_one_connection_serves_one_exchange_after_the_other(driver: Driver) -> None:
    with Peer(serving) as peer:
        for n in range(5):
            assert responded(exchange(driver, send(n, peer.url))).body == b"ok"
        assert peer.connections == 1
        driver.close()


@pytest.mark.parametrize("last", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"])
def test_a_connection_that_ends_is_not_used_again(driver: Driver, last: bytes) -> None:
    with Peer(answering(last), serving) as peer:
        for n in range(2):
            responded(exchange(driver, send(n, peer.url)))
        assert peer.connections == 2
        driver.close()


def test_a_pooled_connection_closed_by_the_peer_is_not_an_error(driver: Driver) -> None:
    with Peer(answering(OK), serving) as peer:
        responded(exchange(driver, send(1, peer.url)))
        peer.join()
        responded(exchange(driver, send(2, peer.url)))
        assert peer.connections == 2
        driver.close()


def test_a_pooled_connection_that_spoke_unasked_is_discarded(driver: Driver) -> None:
    spoken = threading.Event()

    def handle(line: Line) -> None:
        answering(OK)(line)
        line.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        spoken.set()
        assert line.rest() == b""

    with Peer(handle, serving) as peer:
        responded(exchange(driver, send(1, peer.url)))
        assert spoken.wait(wire.PATIENCE_S)
        assert responded(exchange(driver, send(2, peer.url))).status == 200
        driver.close()


def test_a_connection_lost_under_a_request_is_told_as_a_reused_one(driver: Driver) -> None:
    def handle(line: Line) -> None:
        answering(OK)(line)
        line.head()

    with Peer(handle) as peer:
        responded(exchange(driver, send(1, peer.url)))
        failure = failed(exchange(driver, send(2, peer.url)), FailureKind.CLOSED, Written.ALL)
        assert failure.reused


def test_idle_connections_are_bounded(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regproto_sync.driver.transport.IDLE_MAX", 2)
    everyone = threading.Barrier(4)
    kept = []

    def handle(line: Line) -> None:
        line.head()
        everyone.wait(wire.PATIENCE_S)
        line.say(OK)
        kept.append(line.rest())

    with Peer(handle) as peer:
        run(driver, *(send(n, peer.url) for n in range(4)), answered(*range(4)))
        assert len(driver._context.pool._idle) == 1
        assert [len(idle) for idle in driver._context.pool._idle.values()] == [2]
        driver.close()


# --- answers of all kinds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire_bytes",
    [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    ],
    ids=["length", "1xx", "http/1.0", "end of stream", "chunked"],
)
@pytest.mark.parametrize("trickling", [False, True])
def test_answers(driver: Driver, wire_bytes: bytes, trickling: bool) -> None:
    def handle(line: Line) -> None:
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.head()
        for part in wire.one_by_one(wire_bytes) if trickling else [wire_bytes]:
            line.say(part)

    with Peer(handle) as peer:
        answer = responded(exchange(driver, send(1, peer.url)))
        assert (answer.status, answer.body, answer.truncated) == (200, b"ok", False)


@pytest.mark.parametrize(
    ("wire_bytes", "kind"),
    [
        (b"", FailureKind.CLOSED),
        (b"HTTP/1.1 20", FailureKind.CLOSED),
        (OK[:-1], FailureKind.CLOSED),
        (b"\x15\x03\x01 no HTTP", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", FailureKind.PROTOCOL),
    ],
    ids=["nothing", "half a head", "half a body", "garbage", "long head"],
)
def test_what_is_no_answer(driver: Driver, wire_bytes: bytes, kind: FailureKind) -> None:
    with Peer(answering(wire_bytes)) as peer:
        failure = failed(exchange(driver, send(1, peer.url)), kind, Written.ALL)
        assert failure.detail and not failure.reused


@pytest.mark.parametrize("wire_bytes", [b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\n\r\nok"])
def test_a_reset_in_the_middle_of_an_answer(driver: Driver, wire_bytes: bytes) -> None:
    seen = threading.Event()

    def received(session: ScriptedSession) -> bool:
        if in_phase(1, Phase.RECEIVING)(session):
            seen.set()
        return bool(session.answers(1))

    def handle(line: Line) -> None:
        line.head()
        line.say(wire_bytes)
        assert seen.wait(wire.PATIENCE_S)
        line.reset()

    with Peer(handle) as peer:
        session = run(driver, send(1, peer.url), received)
        failure = failed(session.answers(1)[0], FailureKind.CLOSED, Written.ALL)
        assert failure.detail == "Connection reset by peer"


def test_of_a_body_over_the_limit_the_beginning_is_given(driver: Driver) -> None:
    closed = threading.Event()

    def handle(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_001)
        line.rest()
        closed.set()

    with Peer(handle) as peer:
        answer = responded(exchange(driver, send(1, peer.url)))
        assert (answer.body, answer.truncated) == (b"x" * 10_000, True)
        assert closed.wait(wire.PATIENCE_S)


# --- Abort ------------------------------------------------------------------------------------------------------------


def test_abort_while_resolving(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> list[Any]:
        asked.set()
        go_on.wait(wire.PATIENCE_S)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    what = send(1, "http://slow.example/")
    session = run(driver, *wire.aborted(what, wire.event(asked)))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.NONE)
    [stuck] = [t for t in threading.enumerate() if t.name == "regproto-exchange"]
    driver.close()
    go_on.set()
    stuck.join(wire.PATIENCE_S)
    assert len(session.answers(1)) == 1


def test_abort_while_connecting(driver: Driver) -> None:
    with wire.full_backlog() as url:
        session = run(driver, *wire.aborted(send(1, url), in_phase(1, Phase.CONNECTING)))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.NONE)


def test_abort_in_the_handshake(tls_driver: Driver) -> None:
    hello = threading.Event()

    def handle(line: Line) -> None:
        line.body(1)
        hello.set()
        line.rest()

    with Peer(handle) as peer:
        what = send(1, f"https://localhost:{peer.port}/")
        session = run(tls_driver, *wire.aborted(what, wire.event(hello)))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.NONE)


@pytest.mark.parametrize("tls", [False, True])
def test_abort_of_sending_to_a_peer_that_does_not_read(request: pytest.FixtureRequest, layer: Path, tls: bool) -> None:
    driver = request.getfixturevalue("tls_driver" if tls else "driver")
    os.truncate(layer, 3 * BIG)
    done = threading.Event()

    def handle(line: Line) -> None:
        line.head()
        assert done.wait(wire.PATIENCE_S)
        assert len(line.rest()) < 3 * BIG

    with Peer(handle, tls=request.getfixturevalue("server_tls") if tls else None) as peer:
        what = send(1, peer.url, "PUT", blob_slice(FileContent.of(layer), 3 * BIG))
        session = run(driver, *wire.aborted(what, in_phase(1, Phase.SENDING)))
        done.set()
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.SOME)


def test_abort_while_waiting(driver: Driver) -> None:
    with Peer(lambda line: line.rest()) as peer:
        session = run(driver, *wire.aborted(send(1, peer.url), in_phase(1, Phase.WAITING)))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.ALL)


def test_abort_while_receiving(driver: Driver) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.say(OK[:-1])
        assert line.rest() == b""

    with Peer(handle) as peer:
        session = run(driver, *wire.aborted(send(1, peer.url), in_phase(1, Phase.RECEIVING)))
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.ALL)


def test_abort_at_once(driver: Driver) -> None:
    with Peer(lambda line: line.rest()) as peer:
        for n in range(20):
            session = run(driver, *wire.aborted(send(n, peer.url)))
            assert [a.kind for a in session.answers(n) if isinstance(a, Failed)] == [FailureKind.ABORTED]


def test_abort_after_the_answer_changes_nothing(driver: Driver) -> None:
    with Peer(serving) as peer:
        script = send(1, peer.url), answered(1), Abort(id=1), send(2, peer.url), answered(2)
        session = run(driver, *script)
        assert responded(session.answers(1)[0]) and responded(session.answers(2)[0])
        assert peer.connections == 1
        driver.close()


# --- connecting -------------------------------------------------------------------------------------------------------


def test_refused(driver: Driver) -> None:
    failure = failed(exchange(driver, send(1, wire.refused_url())), FailureKind.CONNECT, Written.NONE)
    assert "Connection refused" in failure.detail


def test_an_unknown_name(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    failure = failed(exchange(driver, send(1, "http://no.example/")), FailureKind.CONNECT, Written.NONE)
    assert failure.detail == "no.example: Name or service not known"


def test_what_is_no_url(driver: Driver) -> None:
    failed(exchange(driver, send(1, "ftp://r.example/")), FailureKind.CONNECT, Written.NONE)


@pytest.mark.parametrize("first", ["refused", "silent", "no such family"])
def test_the_next_address_of_a_name_is_tried(driver: Driver, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    with Peer(serving) as peer, wire.full_backlog() as silent:
        bad = wire.refused_url() if first == "refused" else silent
        family = 9999 if first == "no such family" else socket.AF_INET
        addresses = [
            (family, socket.SOCK_STREAM, 0, "", ("127.0.0.1", int(bad.rpartition(":")[2]))),
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", peer.port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        responded(exchange(driver, send(1, "http://two.example/")))
        driver.close()


def test_tls(tls_driver: Driver, server_tls: ssl.SSLContext) -> None:
    with Peer(serving, tls=server_tls) as peer:
        for n in range(3):
            assert responded(exchange(tls_driver, send(n, peer.url))).body == b"ok"
        assert peer.connections == 1
        tls_driver.close()


def test_an_answer_larger_than_a_tls_record(tls_driver: Driver, server_tls: ssl.SSLContext) -> None:
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    with Peer(answering(big), tls=server_tls) as peer:
        what = send(1, peer.url, max_body_bytes=300_000)
        assert responded(exchange(tls_driver, what)).body == b"x" * 300_000
        tls_driver.close()


def test_an_untrusted_certificate(driver: Driver, server_tls: ssl.SSLContext) -> None:
    with Peer(lambda line: line.rest(), tls=server_tls) as peer:
        failure = failed(exchange(driver, send(1, peer.url)), FailureKind.TLS, Written.NONE)
        assert "certificate verify failed: " in failure.detail
        with pytest.raises(ssl.SSLError):
            peer.join()
        peer.errors.clear()


def test_a_certificate_for_another_name(tls_driver: Driver, server_tls: ssl.SSLContext) -> None:
    with Peer(lambda line: line.rest(), tls=server_tls) as peer:
        failure = failed(exchange(tls_driver, send(1, f"https://127.0.0.1:{peer.port}")), FailureKind.TLS, Written.NONE)
        assert "IP address mismatch" in failure.detail
        with pytest.raises(ssl.SSLError):
            peer.join()
        peer.errors.clear()


def test_plain_http_where_tls_was_meant(tls_driver: Driver) -> None:
    def handle(line: Line) -> None:
        line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        line.rest()

    with Peer(handle) as peer:
        failed(exchange(tls_driver, send(1, f"https://localhost:{peer.port}")), FailureKind.TLS, Written.NONE)


def test_closed_in_the_handshake(tls_driver: Driver) -> None:
    with Peer(lambda line: line.body(1)) as peer:
        failure = failed(
            exchange(tls_driver, send(1, f"https://localhost:{peer.port}")), FailureKind.CONNECT, Written.NONE
        )
        assert "handshake" in failure.detail


def test_a_tls_stream_that_ends_without_goodbye_ends_no_body(tls_driver: Driver, server_tls: ssl.SSLContext) -> None:
    with Peer(answering(b"HTTP/1.1 200 OK\r\n\r\nok"), tls=server_tls) as peer:
        failed(exchange(tls_driver, send(1, peer.url)), FailureKind.CLOSED, Written.ALL)


def test_out_of_descriptors(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", none_left)
    failure = failed(exchange(driver, send(1, wire.refused_url())), FailureKind.CONNECT, Written.NONE)
    assert failure.detail == "Too many open files"
