"""Bodies of unknown size, for drivers that have them, and what is made of them."""

from __future__ import annotations

import io
from typing import Final

import h11

from regproto._model.digest import Digest
from regproto._model.messages import (
    Failed,
    FailureKind,
    Manifests,
    NeedManifests,
    NoManifests,
    Response,
    Stream,
    StreamStatus,
)
from regproto.testing.driver_check.bench import Bench, ask, check, expect, failed, responded
from regproto.testing.driver_check.content import pattern
from regproto.testing.driver_check.peer import OK, Gone, Line, until_closed
from regproto.testing.driver_check.script import ScriptedSession, Until, answered

SIZE: Final = 700_000
PART: Final = 200_000


class _Requests:
    """A peer that takes whole requests, however their bodies are framed, and answers each."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []

    def __call__(self, line: Line) -> None:
        http = h11.Connection(h11.SERVER)
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(line.socket.recv(65_536))
            elif isinstance(event, h11.Request):
                self.headers.append({name.decode(): value.decode() for name, value in event.headers})
                self.bodies.append(b"")
            elif isinstance(event, h11.Data):
                self.bodies[-1] += event.data
            elif isinstance(event, h11.EndOfMessage):
                line.say(OK)
                http.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                http.send(h11.EndOfMessage())
                http.start_next_cycle()
            else:
                return


def _body(source: object, offset: int = 0, limit_bytes: int | None = None) -> Stream:
    return Stream(key="layer", source=source, offset=offset, limit_bytes=limit_bytes, keep_bytes=PART)


def _status(answer: Response | Failed) -> StreamStatus:
    expect(answer.stream is not None, "the answer does not say how the stream stands")
    assert answer.stream is not None
    return answer.stream


@check("streams", "a stream is sent as it is read, whole or in parts, and every answer tells how it stands")
def streams(bench: Bench) -> None:
    data = pattern(SIZE)
    whole = _Requests()
    with bench.peer(whole) as peer, bench.stream_source(lambda: io.BytesIO(data)) as source:
        answer = responded(bench.exchange(ask(1, peer.url, "PATCH", _body(source))))
    expect(whole.bodies == [data], "the stream did not arrive as it is")
    expect(whole.headers[0].get("transfer-encoding") == "chunked", f"it was not chunked: {whole.headers[0]}")
    status = _status(answer)
    expect((status.sent, status.size, status.digest) == (SIZE, SIZE, Digest.of(data)), f"it tells {status}")

    parts = _Requests()
    with bench.peer(parts) as peer, bench.stream_source(lambda: io.BytesIO(data)) as source:
        starts = range(0, SIZE, PART)
        sends = [ask(n, peer.url, "PATCH", _body(source, start, PART)) for n, start in enumerate(starts)]
        session = bench.run(*(step for send in sends for step in (send, answered(send.id))))
    expect(b"".join(parts.bodies) == data, "the parts of a stream did not arrive as they are")
    for number, start in enumerate(starts):
        size = min(PART, SIZE - start)
        head = parts.headers[number]
        framing = (head.get("content-length"), head.get("content-range"))
        expect(framing == (str(size), f"{start}-{start + size - 1}"), f"a part of a stream was framed {framing}")
        status = _status(responded(session.answers(number)[0]))
        expect(status.sent == start + size, f"{start + size} bytes were sent, but it tells {status}")


@check("stream fails", "a stream that can't be read, or not from there on, is Failed(CONTENT)")
def stream_fails(bench: Bench) -> None:
    class Broken:
        reads = 0

        def read(self, size: int, /) -> bytes:
            self.reads += 1
            if self.reads > 1:
                raise OSError("the pipe is broken")
            return pattern(size)

        def close(self) -> None:
            pass

    def handle(line: Line) -> None:
        try:
            line.head()
        except Gone:
            return
        line.rest()

    with bench.peer(handle) as peer:
        with bench.stream_source(Broken) as source:
            failed(bench.exchange(ask(1, peer.url, "PATCH", _body(source))), FailureKind.CONTENT)
        with bench.stream_source(lambda: io.BytesIO(pattern(SIZE))) as source:
            answer = bench.exchange(ask(1, peer.url, "PATCH", _body(source, offset=5)))
            failed(answer, FailureKind.CONTENT, nothing_written=True)


@check("no streams", "whoever has no streams refuses them, too: Failed(CONTENT), and NoManifests to NeedManifests")
def no_streams(bench: Bench) -> None:
    def broken() -> io.BytesIO:
        raise OSError("the pipe is broken")

    with bench.peer(until_closed) as peer, bench.stream_source(broken) as source:
        answer = bench.exchange(ask(1, peer.url, "PATCH", _body(source, limit_bytes=PART)))
        failed(answer, FailureKind.CONTENT, nothing_written=True)
    heard = Until("the answer to NeedManifests", _heard)
    session = bench.run(NeedManifests(id=5, push_id=0, draft=_Draft("no config"), streams=()), heard)
    refusal = session.inputs[0][1]
    refused = isinstance(refusal, NoManifests) and refusal.error
    expect(refused, f"the answer should be NoManifests with an error, but was {refusal!r}")


def _heard(session: ScriptedSession) -> bool:
    return any(isinstance(event, Manifests | NoManifests) for _, event in session.inputs)


class _Draft:
    """A draft that makes the rest of a plan, or fails."""

    def __init__(self, error: str = "") -> None:
        self.error = error

    def make(self, need: NeedManifests) -> Manifests:
        if self.error:
            raise OSError(self.error)
        return Manifests(id=need.id, root=None)


@check("drafts", "NeedManifests is answered with what the plan's draft makes of the streams, or with its error")
def drafts(bench: Bench) -> None:
    heard = Until("the answer to NeedManifests", _heard)
    session = bench.run(NeedManifests(id=5, push_id=0, draft=_Draft(), streams=()), heard)
    expect(session.inputs[0][1] == Manifests(id=5, root=None), f"it says {session.inputs[0][1]!r}")
    session = bench.run(NeedManifests(id=6, push_id=0, draft=_Draft("no config"), streams=()), heard)
    answer = session.inputs[0][1]
    expect(isinstance(answer, NoManifests) and "no config" in answer.error, f"it says {answer!r}")
