"""Connections: keep-alive and its end, what can't be reached, TLS."""

from __future__ import annotations

import threading

from regproto._model.messages import FailureKind
from regproto.testing.driver_check.bench import Bench, ask, check, expect, failed, responded
from regproto.testing.driver_check.peer import OK, Line, answering, refused_url, serving
from regproto.testing.driver_check.script import answered, happens, tell


@check("keep-alive", "a connection carries one exchange after the other")
def keep_alive(bench: Bench) -> None:
    with bench.peer(serving) as peer:
        session = bench.run(*(step for n in range(5) for step in (ask(n, peer.url), answered(n))))
    for n in range(5):
        responded(session.answers(n)[0])
    expect(peer.connections == 1, f"five exchanges, one after the other, took {peer.connections} connections")


@check("end of keep-alive", "a connection that its peer ends is not used again")
def end_of_keep_alive(bench: Bench) -> None:
    last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    for end in (last, b"HTTP/1.0 200 OK\r\n\r\nok"):
        with bench.peer(answering(end), serving) as peer:
            session = bench.run(ask(1, peer.url), answered(1), ask(2, peer.url), answered(2))
        responded(session.answers(1)[0])
        responded(session.answers(2)[0])


@check("idle connection closed", "that an idle connection was closed by the peer is no error: a new one is made")
def idle_closed(bench: Bench) -> None:
    closed = threading.Event()

    def handle(line: Line) -> None:
        answering(OK)(line)
        line.socket.close()
        closed.set()

    with bench.peer(handle, serving) as peer:
        over = happens("the peer to close", closed)
        session = bench.run(ask(1, peer.url), answered(1), over, ask(2, peer.url), answered(2))
    responded(session.answers(2)[0])


@check("idle connection that spoke", "what comes on an idle connection is no answer to the next request")
def idle_spoke(bench: Bench) -> None:
    idle, spoken = threading.Event(), threading.Event()

    def handle(line: Line) -> None:
        answering(OK)(line)
        idle.wait(bench.wait_timeout_s)
        line.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        spoken.set()
        line.rest()

    with bench.peer(handle, serving) as peer:
        over = happens("the peer to speak", spoken)
        session = bench.run(ask(1, peer.url), answered(1), tell(idle), over, ask(2, peer.url), answered(2))
    responded(session.answers(2)[0])


@check("reused", "a connection that is lost under a request is told as a reused one, if it was")
def reused(bench: Bench) -> None:
    def handle(line: Line) -> None:
        answering(OK)(line)
        line.head()

    with bench.peer(handle) as peer:
        session = bench.run(ask(1, peer.url), answered(1), ask(2, peer.url), answered(2))
    expect(failed(session.answers(2)[0], FailureKind.CLOSED).reused, "the connection was a reused one: it says no")
    with bench.peer(lambda line: line.head()) as peer:
        failure = failed(bench.exchange(ask(1, peer.url)), FailureKind.CLOSED)
    expect(not failure.reused, "the connection was a new one: it says it was reused")


@check("refused", "where nobody listens is Failed(CONNECT)")
def refused(bench: Bench) -> None:
    failed(bench.exchange(ask(1, refused_url())), FailureKind.CONNECT, nothing_written=True)


@check("TLS", "https is TLS, with the context that was given; keep-alive as without")
def tls(bench: Bench) -> None:
    with bench.peer(serving, tls=True) as peer:
        steps = (step for n in range(3) for step in (ask(n, peer.url), answered(n)))
        session = bench.run(*steps, tls=bench.trust())
    for n in range(3):
        responded(session.answers(n)[0])
    expect(peer.connections == 1, f"three exchanges, one after the other, took {peer.connections} connections")


@check("TLS failure", "a certificate that is not trusted or of another name, or a peer without TLS, is Failed(TLS)")
def tls_failure(bench: Bench) -> None:
    with bench.peer(serving, tls=True, may_fail=True) as peer:
        failed(bench.exchange(ask(1, peer.url)), FailureKind.TLS, nothing_written=True)
        other_name = f"https://127.0.0.1:{peer.port}"
        failed(bench.exchange(ask(1, other_name), tls=bench.trust()), FailureKind.TLS, nothing_written=True)

    def plain(line: Line) -> None:
        line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        line.rest()

    with bench.peer(plain) as peer:
        url = f"https://localhost:{peer.port}"
        failed(bench.exchange(ask(1, url), tls=bench.trust()), FailureKind.TLS, nothing_written=True)


@check("closed in the handshake", "a connection that is closed or reset before TLS is up is Failed(CONNECT)")
def closed_in_handshake(bench: Bench) -> None:
    def close(line: Line) -> None:
        line.socket.recv(1 << 16)

    def reset(line: Line) -> None:
        line.body(1)
        line.reset()

    for end in (close, reset):
        with bench.peer(end) as peer:
            answer = bench.exchange(ask(1, f"https://localhost:{peer.port}"), tls=bench.trust())
            failed(answer, FailureKind.CONNECT, nothing_written=True)
