"""Answers: their forms and limits, and what is none."""

from __future__ import annotations

import contextlib
import gzip
import threading
from typing import Final

from regproto._model.messages import FailureKind, Phase, Response
from regproto.testing.driver_check.bench import LIMIT_BYTES, Bench, ask, check, expect, failed, responded
from regproto.testing.driver_check.peer import OK, Gone, Line, answering, serving
from regproto.testing.driver_check.script import answered, in_phase, tell

_ENDLESS_BYTES: Final = 4 * 1024 * 1024
"""So much of an endless answer a peer says at most; no driver may take all of it in."""


@check("answers", "an answer may have a length, be chunked or end with the connection, and come byte by byte")
def answers(bench: Bench) -> None:
    forms = {
        "a length": OK,
        "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nok",
        "an end with the connection": b"HTTP/1.1 200 OK\r\n\r\nok",
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nX: y\r\n\r\n",
    }
    for data in forms.values():
        with bench.peer(answering(data)) as peer:
            responded(bench.exchange(ask(1, peer.url)))

        def trickling(line: Line, data: bytes = data) -> None:
            line.head()
            line.trickle(data)

        with bench.peer(trickling) as peer:
            responded(bench.exchange(ask(1, peer.url)))


@check("interim answers", "1xx answers are swallowed")
def interim(bench: Bench) -> None:
    before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    with bench.peer(answering(before + OK)) as peer:
        responded(bench.exchange(ask(1, peer.url)))

    def one_by_one(line: Line) -> None:
        line.head()
        line.trickle(before + OK)

    with bench.peer(one_by_one) as peer:
        responded(bench.exchange(ask(1, peer.url)))


@check("answers without a body", "an answer to HEAD, a 204 and a 304 have no body, whatever their headers say")
def without_body(bench: Bench) -> None:
    def handle(line: Line) -> None:
        with contextlib.suppress(Gone, ConnectionError):
            while True:
                method = line.head().partition(" ")[0]
                status = {"HEAD": b"200 OK", "DELETE": b"204 No Content"}.get(method, b"304 Not Modified")
                length = b"" if method == "DELETE" else b"Content-Length: 5000\r\n"
                line.say(b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n")

    methods = {"HEAD": 200, "DELETE": 204, "GET": 304}
    with bench.peer(handle) as peer:
        steps = (step for n, m in enumerate(methods) for step in (ask(n, peer.url, m), answered(n)))
        session = bench.run(*steps)
    for number, status in enumerate(methods.values()):
        responded(session.answers(number)[0], status, b"")
    expect(peer.connections == 1, "a connection can be kept after an answer without a body")


@check("headers", "the answer's headers are given as they came: in order, repeated ones too, in any encoding")
def headers(bench: Bench) -> None:
    sent = [
        ("WWW-Authenticate", 'Bearer realm="https://auth.example/token",service="a"'),
        ("warning", '299 - "one"'),
        ("WWW-Authenticate", "Basic realm=x"),
        ("Warning", '299 - "two, three"'),
        ("Location", "/v2/x/blobs/uploads/1?_state=a%2Bb+c==&x=\xe9"),
        ("Set-Cookie", "a=b"),
        ("Set-Cookie", "c=d"),
        ("X-Empty", ""),
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in sent).encode("latin-1")
    with bench.peer(answering(b"HTTP/1.1 401 No\r\n" + head + b"Content-Length: 2\r\n\r\nok")) as peer:
        answer = responded(bench.exchange(ask(1, peer.url)), 401)
    names = {name.lower() for name, _ in sent}
    told = [(name.lower(), value) for name, value in answer.headers if name.lower() in names]
    wanted = [(name.lower(), value) for name, value in sent]
    expect(told == wanted, f"the headers were {wanted}, but it gives {told}")


@check("content encoding", "a body is given as it came: nothing is decoded")
def content_encoding(bench: Bench) -> None:
    packed = gzip.compress(b"ok", mtime=0)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    with bench.peer(answering(head.encode() + packed)) as peer:
        responded(bench.exchange(ask(1, peer.url)), 200, packed)


@check("body limit", "of a body over the limit the beginning is given, truncated, and the rest is not taken in")
def body_limit(bench: Bench) -> None:
    def endless(head: bytes, piece: bytes) -> None:
        def handle(line: Line) -> None:
            line.head()
            with contextlib.suppress(ConnectionError):
                line.say(head)
                for _ in range(_ENDLESS_BYTES // 1000):
                    line.say(piece)

        with bench.peer(handle) as peer:
            answer = responded(bench.exchange(ask(1, peer.url)), 200, b"x" * LIMIT_BYTES)
        expect(answer.truncated, "the body went on, but it does not say that it is truncated")

    endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000)
    endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    endless(f"HTTP/1.1 200 OK\r\nContent-Length: {_ENDLESS_BYTES}\r\n\r\n".encode(), b"x" * 1000)
    exact = f"HTTP/1.1 200 OK\r\nContent-Length: {LIMIT_BYTES}\r\n\r\n".encode() + b"x" * LIMIT_BYTES
    with bench.peer(answering(exact)) as peer:
        answer = responded(bench.exchange(ask(1, peer.url)), 200, b"x" * LIMIT_BYTES)
    expect(not answer.truncated, "the body was as long as the limit, but it says that it was longer")


@check("head limit", "a head over the limit is Failed(PROTOCOL), and the rest is not taken in")
def head_limit(bench: Bench) -> None:
    def endless(line: Line) -> None:
        line.head()
        with contextlib.suppress(ConnectionError):
            line.say(b"HTTP/1.1 200 OK\r\n")
            for number in range(_ENDLESS_BYTES // 1000):
                line.say(b"X-%d: " % number + b"x" * 1000 + b"\r\n")
            raise Gone("it took in a head of megabytes")

    with bench.peer(endless) as peer:
        failed(bench.exchange(ask(1, peer.url)), FailureKind.PROTOCOL)
    for size, fits in ((LIMIT_BYTES + 500, False), (LIMIT_BYTES - 500, True)):
        padding = b"X: " + b"x" * (size - len(OK)) + b"\r\n"
        with bench.peer(answering(b"HTTP/1.1 200 OK\r\n" + padding + b"Content-Length: 2\r\n\r\nok")) as peer:
            answer = bench.exchange(ask(1, peer.url))
        if fits:
            responded(answer)
        else:
            failed(answer, FailureKind.PROTOCOL)


@check("cut answers", "an answer that ends too early, or that never begins, is Failed(CLOSED)")
def cut(bench: Bench) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok"
    for data in (b"", b"HTTP/1.1 20", OK[:-1], chunked):
        with bench.peer(answering(data)) as peer:
            failed(bench.exchange(ask(1, peer.url)), FailureKind.CLOSED)
    receiving = threading.Event()

    def handle(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 200 OK\r\n\r\nok")
        receiving.wait(bench.wait_timeout_s)
        line.reset()

    with bench.peer(handle) as peer:
        session = bench.run(ask(1, peer.url), in_phase(1, Phase.RECEIVING), tell(receiving), answered(1))
    failed(session.answers(1)[0], FailureKind.CLOSED)


@check("no HTTP", "what is no HTTP/1.1 is Failed(PROTOCOL)")
def no_http(bench: Bench) -> None:
    for data in (
        b"\x15\x03\x01\x00\x02\x02\x28 no HTTP\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
    ):
        with bench.peer(answering(data)) as peer:
            failed(bench.exchange(ask(1, peer.url)), FailureKind.PROTOCOL)


@check("TLS cut", "the end of a TLS stream without its goodbye is not the end of a body: Failed(CLOSED)")
def tls_cut(bench: Bench) -> None:
    with bench.peer(answering(b"HTTP/1.1 200 OK\r\n\r\nok"), tls=True) as peer:
        failed(bench.exchange(ask(1, peer.url), tls=bench.trust()), FailureKind.CLOSED)


@check("statuses", "every final status is an answer: nothing is followed, tried again or authorized")
def statuses(bench: Bench) -> None:
    with bench.peer(serving) as elsewhere:
        extra = {
            302: f"Location: {elsewhere.url}/\r\n",
            308: f"Location: {elsewhere.url}/\r\n",
            401: 'WWW-Authenticate: Basic realm="x"\r\n',
            407: 'Proxy-Authenticate: Basic realm="x"\r\n',
            408: "",
            417: "",
            421: "",
            425: "",
            429: "Retry-After: 0\r\n",
            503: "Retry-After: 0\r\n",
            999: "",
        }
        for status, lines in extra.items():
            head = f"HTTP/1.1 {status} x\r\n{lines}Content-Length: 2\r\n\r\n".encode()
            with bench.peer(answering(head + b"ok"), serving) as peer:
                responded(bench.exchange(ask(1, peer.url)), status)
            expect(peer.connections == 1, f"after a {status} it made another request")
        expect(elsewhere.connections == 0, "it followed a redirect")


@check("no memory", "nothing of one answer shows in the next request: no cookies, no Authorization")
def no_memory(bench: Bench) -> None:
    heads: list[str] = []

    def handle(line: Line) -> None:
        with contextlib.suppress(Gone, ConnectionError):
            while True:
                heads.append(line.head())
                line.say(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\nok")

    secret = (("Authorization", "Basic c2VjcmV0"),)
    with bench.peer(handle) as peer:
        session = bench.run(ask(1, peer.url, headers=secret), answered(1), ask(2, peer.url), answered(2))
    expect(isinstance(session.answers(2)[0], Response), "there was an answer")
    for word in ("cookie:", "authorization:"):
        expect(word not in heads[-1].lower(), f"it added a header that nobody asked for: {word}")
