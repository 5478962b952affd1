"""Drivers that are wrong in one way each, to see that the checks find it: the blocking driver with a part replaced.

Most stand between the driver and its session, and change what passes there.
"""

from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import attrs
import pytest

from regproto import http1
from regproto._model.messages import (
    Abort,
    BlobSlice,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Input,
    Manifests,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    NoManifests,
    Output,
    Phase,
    Progress,
    Response,
    Send,
    Stream,
    Wait,
    Written,
)
from regproto.testing import RunSession
from regproto_sync import run_session
from regproto_sync.driver import body as _body
from regproto_sync.driver import driver as _driver
from regproto_sync.driver.transport import Pool, Wire

Make = Callable[[pytest.MonkeyPatch], RunSession]
"""Makes a driver; what it patches is put back after the test."""


class Broken(NamedTuple):
    """A driver that is wrong, and what the check has to say of it."""

    make: Make
    detail: str
    """A regular expression."""


# --- kinds of wrong ---------------------------------------------------------------------------------------------------


class Between:
    """Stands between a driver and its session."""

    def __init__(self, session: Any, keychain: Any) -> None:
        self.session = session
        self.keychain = keychain

    def poll(self, now: float) -> Output:
        output: Output = self.session.poll(now)
        return output

    def receive(self, now: float, event: Input, /) -> None:
        self.session.receive(now, event)

    def cancel(self, push_id: int, now: float) -> None:
        self.session.cancel(push_id, now)


def between(kind: type[Between]) -> Make:
    def run(session: Any, push_ids: Iterable[int], *, keychain: Any, tls: ssl.SSLContext | None = None) -> Any:
        return run_session(kind(session, keychain), push_ids, keychain=keychain, tls=tls)

    return lambda _: run


def patched(*changes: tuple[Any, str, Any]) -> Make:
    """Parts are replaced."""

    def make(monkeypatch: pytest.MonkeyPatch) -> RunSession:
        for target, name, value in changes:
            monkeypatch.setattr(target, name, value)
        return run_session

    return make


def telling(kind: type[Any], change: Callable[[Any], Input | None]) -> Make:
    """It tells something otherwise than it is, or (None) not at all."""

    class Telling(Between):
        def receive(self, now: float, event: Input, /) -> None:
            told = change(event) if isinstance(event, kind) else event
            if told is not None:
                super().receive(now, told)

    return between(Telling)


def hearing(kind: type[Any], change: Callable[[Any], Output | None]) -> Make:
    """It takes something for what it is not, or (None) leaves it out."""

    class Hearing(Between):
        def poll(self, now: float) -> Output:
            while isinstance(output := super().poll(now), kind):
                heard = change(output)
                if heard is not None:
                    return heard
            return output

    return between(Hearing)


def other(**changes: Any) -> Callable[[Any], Any]:
    """The same with some fields changed."""
    return lambda message: attrs.evolve(message, **changes)


def kind(kind: FailureKind) -> Make:
    return telling(Failed, other(kind=kind))


def running(run: RunSession) -> Make:
    return lambda _: run


# --- the loop ---------------------------------------------------------------------------------------------------------


def first_push_alone(session: Any, push_ids: Iterable[int], **more: Any) -> Any:
    return run_session(session, list(push_ids)[:1], **more)


def one_more_thread(session: Any, push_ids: Iterable[int], **more: Any) -> Any:
    threading.Thread(target=threading.Event().wait, args=(5.0,), daemon=True).start()
    return run_session(session, push_ids, **more)


class AsksKeychainItself(Between):
    def poll(self, now: float) -> Output:
        output = super().poll(now)
        if isinstance(output, NeedCredentials):
            self.receive(now, self.keychain(output))
            return self.poll(now)
        return output


class SilentAtTheEnd(Between):
    """Tells nothing any more once all is finished."""

    finished = False

    def poll(self, now: float) -> Output:
        output = super().poll(now)
        self.finished = self.finished or isinstance(output, Finished)
        return output

    def receive(self, now: float, event: Input, /) -> None:
        if not self.finished:
            super().receive(now, event)


def second_check_hangs(session: Any, push_ids: Iterable[int], **more: Any) -> Any:
    """The first check, `results`, runs it twice."""
    runs.append(session)
    if len(runs) > 2:
        threading.Event().wait()
    return run_session(session, push_ids, **more)


runs: list[Any] = []


def one_result_more(session: Any, push_ids: Iterable[int], **more: Any) -> Any:
    return {**run_session(session, push_ids, **more), 999: None}


class Repeats(Between):
    def receive(self, now: float, event: Input, /) -> None:
        if isinstance(event, Progress):
            for _ in range(9):
                super().receive(now, event)
        super().receive(now, event)


def spinning() -> Make:
    class Spinning(Between):
        def poll(self, now: float) -> Output:
            output = super().poll(now)
            return Wait(until=now) if isinstance(output, Wait) else output

    return between(Spinning)


class Queues(Between):
    """Has ten exchanges at a time at most."""

    def __init__(self, session: Any, keychain: Any) -> None:
        super().__init__(session, keychain)
        self.queue: list[Output] = []
        self.busy: set[int] = set()

    def poll(self, now: float) -> Output:
        output = self.queue.pop() if self.queue and len(self.busy) < 10 else super().poll(now)
        if isinstance(output, Send):
            if len(self.busy) >= 10:
                self.queue.append(output)
                return Wait(until=now)
            self.busy.add(output.id)
        return output

    def receive(self, now: float, event: Input, /) -> None:
        if isinstance(event, Response | Failed):
            self.busy.discard(event.id)
        super().receive(now, event)


# --- connections ------------------------------------------------------------------------------------------------------


def take_any(pool: Pool, origin: http1.Origin) -> Wire | None:
    idle = pool._idle.get(origin)
    return idle.pop() if idle else None


def start_anyhow(connection: http1.Connection, send: Send) -> http1.Exchange:
    if connection._exchange is not None:
        connection.__init__()  # type: ignore[misc]
    connection._exchange = http1.Exchange(send, connection._h11, reused=True)
    return connection._exchange


KEEPS_ANYTHING = (
    (http1.Connection, "reusable", property(lambda _: True)),
    (http1.Connection, "start", start_anyhow),
    (Wire, "is_quiet", lambda _: True),
)


def without_tls_argument(session: Any, push_ids: Iterable[int], *, keychain: Any, tls: Any = None) -> Any:
    return run_session(session, push_ids, keychain=keychain)


def gullible(session: Any, push_ids: Iterable[int], *, keychain: Any, tls: Any = None) -> Any:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return run_session(session, push_ids, keychain=keychain, tls=context)


receive_some = Wire.receive


def receive_without_goodbye(wire: Wire) -> bytes | None:
    try:
        return receive_some(wire)
    except ssl.SSLEOFError:
        return b""


# --- bodies -----------------------------------------------------------------------------------------------------------


def sliced(**changes: Any) -> Make:
    def change(send: Send) -> Send:
        return attrs.evolve(send, body=attrs.evolve(send.body, **changes)) if isinstance(send.body, BlobSlice) else send

    return hearing(Send, change)


def whole(body: BlobSlice) -> bytes:
    """All of the body, zeros in place of what is missing."""
    with body.source.open(body.offset) as stream:  # type: ignore[attr-defined]
        data = b""
        while len(data) < body.size and (piece := stream.read(body.size - len(data))):
            data += piece
    return data.ljust(body.size, b"\0")


def raises(need: NeedManifests) -> Output:
    raise TypeError("no draft")


def stream_whole(send: Send) -> Send:
    return attrs.evolve(send, body=attrs.evolve(send.body, limit_bytes=None)) if isinstance(send.body, Stream) else send


def read_beforehand(send: Send) -> Send:
    return attrs.evolve(send, body=whole(send.body)) if isinstance(send.body, BlobSlice) else send


def writes_first(exchange: http1.Exchange) -> bool:
    return exchange.outcome is None and exchange._answer is None and not exchange.wants_write


def fails_at_once(exchange: http1.Exchange, detail: str) -> None:
    exchange.fail(FailureKind.CLOSED, detail)


# --- answers ----------------------------------------------------------------------------------------------------------

receive_all = http1.Exchange.receive


def head_in_one_piece(exchange: http1.Exchange, data: bytes) -> None:
    if exchange._head is None and b"\r\n\r\n" not in data:
        exchange.fail(FailureKind.PROTOCOL, "no head")
    receive_all(exchange, data)


def interim_is_final(exchange: http1.Exchange, data: bytes) -> None:
    if data.startswith(b"HTTP/1.1 1"):
        exchange.outcome = Response(id=exchange._send.id, status=int(data[9:12]))
    receive_all(exchange, data)


def decoded(answer: Response) -> Response:
    packed = ("Content-Encoding", "gzip") in answer.headers or ("content-encoding", "gzip") in answer.headers
    return attrs.evolve(answer, body=gzip.decompress(answer.body)) if packed else answer


class SendsAgain(Between):
    """Has a policy of its own: sends again what got such an answer."""

    statuses: tuple[int, ...] = ()
    redirects = False

    def __init__(self, session: Any, keychain: Any) -> None:
        super().__init__(session, keychain)
        self.sent: dict[int, Send] = {}
        self.again: list[Send] = []

    def poll(self, now: float) -> Output:
        output = self.again.pop() if self.again else super().poll(now)
        if isinstance(output, Send):
            self.sent[output.id] = output
        return output

    def receive(self, now: float, event: Input, /) -> None:
        if isinstance(event, Response) and event.status in self.statuses:
            send = self.sent[event.id]
            where = dict(event.headers).get("location", send.url) if self.redirects else send.url
            self.again.append(attrs.evolve(send, url=where))
        else:
            super().receive(now, event)


class Follows(SendsAgain):
    statuses = (302, 308)
    redirects = True


class Retries(SendsAgain):
    statuses = (503,)


class Remembers(Between):
    def __init__(self, session: Any, keychain: Any) -> None:
        super().__init__(session, keychain)
        self.headers: tuple[tuple[str, str], ...] = ()

    def poll(self, now: float) -> Output:
        output = super().poll(now)
        if isinstance(output, Send):
            output = attrs.evolve(output, headers=(*output.headers, *self.headers))
            self.headers = output.headers
        return output


class KeepsCookies(Remembers):
    def receive(self, now: float, event: Input, /) -> None:
        if isinstance(event, Response):
            self.headers = tuple(("Cookie", v) for n, v in event.headers if n.lower() == "set-cookie")
        super().receive(now, event)


# --- Abort ------------------------------------------------------------------------------------------------------------


class AnswersAtOnce(Between):
    """Answers an Abort by itself; the exchange goes on."""

    def __init__(self, session: Any, keychain: Any) -> None:
        super().__init__(session, keychain)
        self.gone: set[int] = set()

    def poll(self, now: float) -> Output:
        output = super().poll(now)
        if isinstance(output, Abort):
            self.gone.add(output.id)
            failed = Failed(id=output.id, kind=FailureKind.ABORTED, written=Written.SOME)
            self.session.receive(now, failed)
            return self.poll(now)
        return output

    def receive(self, now: float, event: Input, /) -> None:
        if event.id not in self.gone:
            super().receive(now, event)


class AbortsAll(Between):
    def __init__(self, session: Any, keychain: Any) -> None:
        super().__init__(session, keychain)
        self.ids: set[int] = set()
        self.aborting: list[Output] = []

    def poll(self, now: float) -> Output:
        output = self.aborting.pop() if self.aborting else super().poll(now)
        if isinstance(output, Send):
            self.ids.add(output.id)
        elif isinstance(output, Abort) and self.ids:
            self.aborting = [Abort(id=id) for id in self.ids]
            self.ids = set()
        return output


DEAF = hearing(Abort, lambda _: None)

# --- all of them ------------------------------------------------------------------------------------------------------

BROKEN: dict[str, list[Broken]] = {
    "results": [
        Broken(running(first_push_alone), r"no result for \[1\]"),
        Broken(running(one_result_more), r"a result for \[999\], which was not finished"),
        Broken(hearing(Finished, lambda finished: other(push_id=0)(finished)), "does not return|it raised"),
    ],
    "waits": [
        Broken(spinning(), "times during a Wait"),
        Broken(hearing(Wait, lambda wait: Wait(until=wait.until + 1000)), "does not return"),
    ],
    "credentials": [
        Broken(telling(Credentials, lambda answer: NoCredentials(id=answer.id)), "did not pass on"),
        Broken(telling(NoCredentials, other(error="")), "it says NoCredentials"),
        Broken(hearing(NeedCredentials, lambda _: None), "waits in vain for the keychain's answer"),
    ],
    "slow keychain": [Broken(between(AsksKeychainItself), "nothing else went on|does not return")],
    "progress": [
        Broken(telling(Progress, lambda _: None), "waits in vain for Progress of 1: sending"),
        Broken(telling(Progress, lambda p: None if p.phase is Phase.CONNECTING else p), "it told of sending, waiting"),
        Broken(telling(Progress, lambda p: None if p.phase is Phase.RECEIVING else p), "Progress of 1: receiving"),
        Broken(telling(Progress, other(bytes=1)), "more bytes received"),
    ],
    "progress rate": [Broken(between(Repeats), "it told [0-9]+ times")],
    "threads": [Broken(running(one_more_thread), "after each run there were more threads")],
    "what is left": [
        Broken(patched((_driver._Loop, "_release", lambda _: None)), "does not return|left open|in vain|did not tell"),
        Broken(between(SilentAtTheEnd), "did not tell the session what became of an exchange"),
    ],
    "keep-alive": [Broken(patched((Pool, "take", lambda pool, origin: None)), "took 5 connections")],
    "end of keep-alive": [Broken(patched(*KEEPS_ANYTHING), "Failed")],
    "idle connection closed": [Broken(patched((Pool, "take", take_any)), "Failed")],
    "idle connection that spoke": [Broken(patched((Pool, "take", take_any)), "status should be 200, but was 408")],
    "reused": [
        Broken(telling(Failed, other(reused=False)), "it says no"),
        Broken(telling(Failed, other(reused=True)), "it says it was reused"),
    ],
    "refused": [
        Broken(kind(FailureKind.CLOSED), "should be CONNECT, but was CLOSED"),
        Broken(telling(Failed, other(written=Written.SOME)), "should be NONE, but was SOME"),
        Broken(
            telling(Failed, lambda failed: Response(id=failed.id, status=502)),
            r"should be Failed\(CONNECT\), but was Resp",
        ),
    ],
    "TLS": [
        Broken(hearing(Send, lambda s: attrs.evolve(s, url=s.url.replace("https", "http"))), "Failed"),
        Broken(running(without_tls_argument), "Failed"),
    ],
    "TLS failure": [
        Broken(running(gullible), r"should be Failed\(TLS\), but was Response"),
        Broken(kind(FailureKind.CONNECT), "should be TLS, but was CONNECT"),
    ],
    "closed in the handshake": [
        Broken(kind(FailureKind.CLOSED), "should be CONNECT, but was CLOSED"),
        Broken(kind(FailureKind.TLS), "should be CONNECT, but was TLS"),
    ],
    "request line": [
        Broken(hearing(Send, lambda s: attrs.evolve(s, url=s.url.replace("%7e", "~"))), "it asked .GET /v2/a/b"),
        Broken(hearing(Send, lambda s: attrs.evolve(s, url=s.url.replace("/b/..", ""))), "it asked 'GET /v2//a"),
    ],
    "request headers": [
        Broken(hearing(Send, lambda s: attrs.evolve(s, headers=(*s.headers, ("Accept-Encoding", "gzip")))), "it added"),
        Broken(hearing(Send, lambda s: attrs.evolve(s, headers=tuple(dict(s.headers).items()))), "not send X-Twice: 1"),
        Broken(hearing(Send, lambda s: attrs.evolve(s, headers=(*s.headers, *s.headers))), "it added"),
    ],
    "content length": [Broken(patched((http1, "_ALWAYS_WITH_LENGTH", frozenset())), "a POST without a body has no")],
    "a hundred at once": [Broken(between(Queues), "the answer|Failed")],
    "not after": [Broken(hearing(Send, other(not_after=None)), r"should be Failed\(NOT_SENT\)")],
    "not after, connecting": [Broken(hearing(Send, other(not_after=None)), r"should be Failed\(NOT_SENT\)")],
    "slices": [Broken(sliced(offset=1), "did not arrive as they are|Failed")],
    "small bodies": [Broken(hearing(Send, lambda s: attrs.evolve(s, body=s.body[::-1])), "did not arrive as it is")],
    "slow content": [Broken(hearing(Send, read_beforehand), "nothing else went on|does not return|in vain")],
    "content short": [
        Broken(hearing(Send, read_beforehand), "too short, but it says"),
        Broken(telling(Failed, lambda f: Response(id=f.id, status=200)), "too short, but it says Response"),
        Broken(kind(FailureKind.CLOSED), "too short, but it says Failed"),
    ],
    "content fails": [
        Broken(kind(FailureKind.CLOSED), "byte 0 can't be read, but it says Failed"),
        Broken(hearing(Send, read_beforehand), "it raised OSError"),
    ],
    "content changes": [Broken(patched((_body.BodyReader, "check", lambda *_: None)), "has changed, but")],
    "early answer": [
        Broken(patched((http1.Exchange, "wants_read", property(writes_first))), "in vain for the answer to 1"),
    ],
    "early answer, small rest": [
        Broken(patched(*KEEPS_ANYTHING, (http1, "EARLY_REST_MAX_BYTES", -1)), "Failed|in vain|seen by the peer"),
    ],
    "answer after a write error": [Broken(patched((http1.Exchange, "write_failed", fails_at_once)), "Failed")],
    "cut in a body": [
        Broken(kind(FailureKind.CONTENT), "should be CLOSED"),
        Broken(telling(Failed, other(written=Written.NONE)), "should not be NONE"),
    ],
    "written": [
        Broken(telling(Failed, other(written=Written.SOME)), "all was written, but it says SOME"),
        Broken(telling(Failed, other(written=Written.ALL)), "some was written, but it says ALL"),
    ],
    "progress of a body": [
        Broken(telling(Progress, other(bytes=1)), "more bytes sent"),
        Broken(telling(Progress, lambda p: attrs.evolve(p, bytes=p.bytes // 2)), "but it told of"),
        Broken(telling(Progress, lambda p: attrs.evolve(p, bytes=(1 << 30) - p.bytes)), "went backwards"),
    ],
    "answers": [Broken(patched((http1.Exchange, "receive", head_in_one_piece)), "no head")],
    "interim answers": [Broken(patched((http1.Exchange, "receive", interim_is_final)), "which is not a final one")],
    "answers without a body": [
        Broken(hearing(Send, lambda s: attrs.evolve(s, method="GET")), "status should be 200, but was 304"),
        Broken(patched((Pool, "take", lambda pool, origin: None)), "can be kept"),
    ],
    "headers": [
        Broken(telling(Response, lambda r: attrs.evolve(r, headers=tuple(dict(r.headers).items()))), "but it gives"),
        Broken(telling(Response, lambda r: attrs.evolve(r, headers=tuple(sorted(r.headers)))), "but it gives"),
    ],
    "content encoding": [Broken(telling(Response, decoded), "but was b'ok'")],
    "body limit": [
        Broken(hearing(Send, other(max_body_bytes=1 << 30)), "the answer's body should be|Failed"),
        Broken(telling(Response, other(truncated=False)), "does not say that it is truncated"),
        Broken(telling(Response, other(truncated=True)), "but it says that it was longer"),
    ],
    "head limit": [
        Broken(hearing(Send, other(max_head_bytes=1 << 30)), r"should be Failed\(PROTOCOL\)|head of megabytes|CLOSED"),
        Broken(hearing(Send, other(max_head_bytes=1000)), r"should be Response\(200\), but"),
    ],
    "cut answers": [
        Broken(kind(FailureKind.PROTOCOL), "should be CLOSED"),
        Broken(telling(Failed, lambda f: Response(id=f.id, status=200)), r"should be Failed\(CLOSED\), but"),
    ],
    "no HTTP": [Broken(kind(FailureKind.CLOSED), "should be PROTOCOL")],
    "TLS cut": [Broken(patched((Wire, "receive", receive_without_goodbye)), r"should be Failed\(CLOSED\)")],
    "statuses": [
        Broken(between(Retries), "status should be 503, but|after a 503 it made another request"),
        Broken(between(Follows), "status should be 302, but|it followed a redirect"),
    ],
    "no memory": [
        Broken(between(Remembers), "authorization:"),
        Broken(between(KeepsCookies), "cookie:"),
    ],
    "abort, connecting": [
        Broken(DEAF, "in vain for the (answer to 1|connection)"),
        Broken(kind(FailureKind.CONNECT), "ABORTED"),
    ],
    "abort, in the handshake": [
        Broken(DEAF, "in vain for the (answer to 1|connection)"),
        Broken(kind(FailureKind.TLS), "ABORTED"),
    ],
    "streams": [
        Broken(telling(Response, other(stream=None)), "does not say how the stream stands"),
        Broken(telling(Response, lambda r: attrs.evolve(r, stream=attrs.evolve(r.stream, sent=1))), "it tells|but it"),
        Broken(hearing(Send, stream_whole), "a part of a stream|did not arrive"),
    ],
    "stream fails": [
        Broken(kind(FailureKind.CLOSED), "should be CONTENT"),
        Broken(telling(Failed, other(written=Written.SOME)), "should be NONE, but was SOME"),
    ],
    "no streams": [
        Broken(hearing(NeedManifests, raises), r"it raised TypeError\('no draft'\) at .*broken_drivers.py:\d+"),
        Broken(telling(NoManifests, other(error="")), "should be NoManifests with an error"),
        Broken(kind(FailureKind.CLOSED), "should be CONTENT, but was CLOSED"),
    ],
    "drafts": [
        Broken(telling(Manifests, lambda made: NoManifests(id=made.id, error="no")), "it says NoManifests"),
        Broken(telling(NoManifests, other(error="")), "it says NoManifests"),
    ],
    "abort, sending": [
        Broken(DEAF, "in vain for the (answer to 1|connection)"),
        Broken(between(AnswersAtOnce), "before it had closed the content's stream"),
        Broken(telling(Failed, other(written=Written.NONE)), "it says NONE was written"),
    ],
    "abort, waiting": [
        Broken(DEAF, "in vain for the (answer to 1|connection)"),
        Broken(between(AnswersAtOnce), "in vain for the connection"),
    ],
    "abort, receiving": [
        Broken(DEAF, "in vain for the (answer to 1|connection)"),
        Broken(between(AnswersAtOnce), "in vain for the connection"),
        Broken(kind(FailureKind.CLOSED), "ABORTED"),
    ],
    "abort, at once": [Broken(DEAF, "in vain for the answer to 0")],
    "abort, too late": [Broken(between(AnswersAtOnce), "an answer to 1, which is not in flight")],
    "abort of one": [Broken(between(AbortsAll), "ABORTED")],
}
"""For each check, drivers that it must find fault with."""
