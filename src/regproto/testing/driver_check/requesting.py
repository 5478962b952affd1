"""Requests: they go out as they were asked for, and at once."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from typing import Final

from regproto._model.messages import FailureKind, Send
from regproto.testing.driver_check.bench import Bench, ask, check, expect, failed, responded
from regproto.testing.driver_check.peer import OK, Gone, Line, serving
from regproto.testing.driver_check.script import LOOK_AGAIN_S, Until, answered, happens, tell
from regproto.testing.driver_check.tls import serving as serving_tls

_SOON_S: Final = 0.1
"""Until `not_after`, where a check lets it pass: it must be begun in time, and is waited for."""
_FRAMING: Final = frozenset({"host", "content-length", "connection", "user-agent"})
"""Headers that a driver may add to those of a Send."""


@check("request line", "the URL's path and query go out byte for byte, and the method as it is")
def request_line(bench: Bench) -> None:
    targets = [
        "/v2/a/b/blobs/uploads/x?_state=a%2Bb+c%7e%7E==&digest=sha256:0a&x='(!*)'",
        "/v2//a/./b/../c;d=e,f@g:h$&!%2F%2e%C3%A9",
        "/?a=b?c/d&e",
        "/v2/",
    ]
    heads: list[str] = []

    def handle(line: Line) -> None:
        with contextlib.suppress(Gone, ConnectionError):
            while True:
                heads.append(line.head())
                line.say(OK)

    with bench.peer(handle) as peer:
        for number, target in enumerate(targets):
            responded(bench.exchange(ask(number, peer.url + target)))
        responded(bench.exchange(ask(9, peer.url + "/x#fragment", "OPTIONS")))
        responded(bench.exchange(ask(10, f"{peer.url}?a=b", "DELETE")))
    for wanted in (*(f"GET {target}" for target in targets), "OPTIONS /x", "DELETE /?a=b"):
        got = heads.pop(0).partition("\r\n")[0]
        expect(got == f"{wanted} HTTP/1.1", f"it asked {got!r} instead of '{wanted} HTTP/1.1'")


@check("request headers", "all headers of a Send go out, once; nothing is added but Host and what frames the request")
def request_headers(bench: Bench) -> None:
    heads: list[str] = []

    def handle(line: Line) -> None:
        with contextlib.suppress(Gone, ConnectionError):
            while True:
                heads.append(line.head())
                line.body(4)
                line.say(OK)

    own = (
        ("Accept", "application/vnd.oci.image.manifest.v1+json"),
        ("Authorization", "Bearer a.b-c=="),
        ("User-Agent", "regproto/test"),
        ("X-Twice", "1"),
        ("X-Twice", "2, 3"),
        ("content-type", "application/octet-stream"),
    )
    with bench.peer(handle) as peer:
        responded(bench.exchange(ask(1, peer.url, "PUT", b"body", headers=own)))
        responded(bench.exchange(ask(2, peer.url, "PUT", b"body")))
    fields = [_fields(head) for head in heads]
    for name, value in own:
        expect((name.lower(), value) in fields[0], f"it did not send {name}: {value}")
    for sent, wanted in ((fields[0], own), (fields[1], ())):
        given = [(name.lower(), value) for name, value in wanted]
        added = [field for field in sent if field not in given or given.remove(field)]  # type: ignore[func-returns-value]
        names = [name for name, _ in added]
        expect(set(names) <= _FRAMING, f"it added {added}")
        expect(len(set(names)) == len(names), f"it added twice: {added}")
        expect(("host", peer.url.partition("://")[2]) in added, f"Host is wrong or missing: {added}")
        expect(("content-length", "4") in added, f"Content-Length is wrong or missing: {added}")


@check("content length", "POST, PUT and PATCH always have a Content-Length, 0 too")
def content_length(bench: Bench) -> None:
    heads: list[str] = []

    def handle(line: Line) -> None:
        with contextlib.suppress(Gone, ConnectionError):
            while True:
                heads.append(line.head())
                line.say(OK)

    methods = ("POST", "PUT", "PATCH", "GET", "DELETE")
    with bench.peer(handle) as peer:
        for number, method in enumerate(methods):
            responded(bench.exchange(ask(number, peer.url, method)))
    for method, head in zip(methods, heads, strict=True):
        lengths = [value for name, value in _fields(head) if name == "content-length"]
        wanted = [["0"]] if method.startswith("P") else [[], ["0"]]
        expect(lengths in wanted, f"a {method} without a body has {lengths or 'no'} Content-Length")


@check("a hundred at once", "every Send is begun at once: none waits for another")
def hundred(bench: Bench) -> None:
    everyone = threading.Barrier(100)

    def handle(line: Line) -> None:
        line.head()
        everyone.wait(bench.wait_timeout_s)
        line.say(OK)

    with bench.peer(handle, may_fail=True) as peer:
        session = bench.run(*(ask(n, peer.url) for n in range(100)), answered(*range(100)))
    for n in range(100):
        responded(session.answers(n)[0])


@check("not after", "what would begin after `not_after` is not sent: Failed(NOT_SENT)")
def not_after(bench: Bench) -> None:
    with bench.peer(serving) as peer:
        session = bench.run(lambda now: ask(1, peer.url, not_after=now - 1), answered(1))
        failed(session.answers(1)[0], FailureKind.NOT_SENT, nothing_written=True)
        expect(peer.connections == 0, "it was too late, and yet it connected")
        session = bench.run(lambda now: ask(2, peer.url, not_after=now + 1000), answered(2))
        responded(session.answers(2)[0])


@check("not after, connecting", "when `not_after` passes while a connection is made, nothing is sent either")
def not_after_connecting(bench: Bench) -> None:
    begun, late = threading.Event(), threading.Event()
    heads: list[str] = []
    deadline = [math.inf]

    def handle(line: Line) -> None:
        line.socket.recv(1, socket.MSG_PEEK)
        begun.set()
        late.wait(bench.wait_timeout_s)
        with contextlib.suppress(OSError), serving_tls().wrap_socket(line.socket, server_side=True) as wrapped:
            tls_line = Line(wrapped)
            with contextlib.suppress(Gone):
                heads.append(tls_line.head())
                tls_line.say(OK)

    def send(now: float) -> Send:
        deadline[0] = now + _SOON_S
        return ask(1, f"https://localhost:{peer.port}", not_after=deadline[0])

    passes = Until("not_after to pass", lambda s: s.now > deadline[0], look_again_s=LOOK_AGAIN_S)
    with bench.peer(handle) as peer:
        began = happens("the handshake to begin", begun)
        session = bench.run(send, began, passes, tell(late), answered(1), tls=bench.trust())
    failed(session.answers(1)[0], FailureKind.NOT_SENT, nothing_written=True)
    expect(not heads, "it was too late once there was a connection, and yet it sent the request")


def _fields(head: str) -> list[tuple[str, str]]:
    lines = (line.partition(":") for line in head.split("\r\n")[1:])
    return [(name.lower(), value.strip()) for name, _, value in lines]
