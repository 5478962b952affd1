"""Streams through both drivers, over loopback HTTP: framing, sources that are slow or break, ends that come early."""

from __future__ import annotations

import gzip
import io
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import attrs
import pytest

import regproto_sync
import regproto_trio
from driving import nobody
from pushes import REPO, image_of_streams
from regproto import (
    Config,
    ContentError,
    Digest,
    Failed,
    FailureKind,
    Manifests,
    NeedManifests,
    NoManifests,
    Phase,
    Progress,
    PushOutcome,
    PushPlan,
    PushResult,
    RegistryError,
    Response,
    Send,
    Session,
    Stream,
    StreamBlob,
    StreamStatus,
)
from regproto._model.messages import Input
from regproto.testing import FakeRegistry, Fault, FaultKind, RegistryOptions, When
from regproto_sync import BytesContent, Server, StreamContent
from wire import OK, PATIENCE_S, Line, Peer, ScriptedSession, aborted, answered, in_phase, send

Run = Callable[..., dict[int, PushResult]]
CONTENT = random.Random(1).randbytes(3_000_000)
QUICK = Config(backoff_base_s=0.01)


@pytest.fixture(params=["sync", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    return regproto_sync.run_session if request.param == "sync" else regproto_trio.run_session


@pytest.fixture(autouse=True)
def no_reader_stays() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("regproto-stream"):
            thread.join(PATIENCE_S)  # its source has ended by now
            assert not thread.is_alive()


def of_bytes(content: bytes = CONTENT, **how: Any) -> StreamContent:
    return StreamContent(lambda: io.BytesIO(content), **how)


def blob_of(content: StreamContent, key: str = "layer-0") -> StreamBlob:
    return StreamBlob(key=key, media_type="application/vnd.oci.image.layer.v1.tar", source=content)


@attrs.frozen
class _Image:
    """A draft: the image whose layers are the streams."""

    def make(self, need: NeedManifests) -> Manifests:
        made = image_of_streams(need)
        return attrs.evolve(
            made,
            blobs=tuple(attrs.evolve(b, source=BytesContent(b.source)) for b in made.blobs),  # type: ignore[arg-type]
        )


def push(
    run: Run,
    *contents: StreamContent,
    config: Config = QUICK,
    draft: object = None,
    registry: FakeRegistry | None = None,
    session_type: type[Session] = Session,
    **options: Any,
) -> tuple[PushResult, FakeRegistry]:
    """Pushes these streams, and the image made of them if there is a draft."""
    registry = registry or FakeRegistry(RegistryOptions(log_max=100, **options))
    plan = PushPlan(
        repository=REPO,
        streams=[blob_of(c, f"layer-{n}") for n, c in enumerate(contents)],
        draft=draft,
        tags=("1.0",) if draft is not None else (),
    )
    with Server(registry) as server:
        session = session_type(server.url, config, now=time.monotonic())
        push_id = session.submit(plan)
        try:
            result = run(session, [push_id], keychain=nobody)[push_id]
        finally:
            for content in contents:
                content.close()
    return result, registry


def requests(registry: FakeRegistry, method: str) -> int:
    return sum(entry[0] == method for entry in registry.log)


# --- against a registry -------------------------------------------------------------------------------------


def test_an_image_of_two_streams(run: Run) -> None:
    tar = b"tar " * 300_000
    compressed = of_bytes(tar, compression="gzip", level=1)
    result, registry = push(run, of_bytes(), compressed, draft=_Image())
    assert result.outcome is PushOutcome.PUSHED, result.error
    first, second = (s.descriptor for s in result.streamed)
    assert registry.content(first.digest) == CONTENT and first.size == len(CONTENT)
    assert gzip.decompress(registry.content(second.digest)) == tar
    assert compressed.diff_id == Digest.of(tar) and second.digest != compressed.diff_id
    assert registry.tags(REPO) == {"1.0": result.digest}
    assert requests(registry, "PATCH") == 2


def test_an_empty_stream(run: Run) -> None:
    result, _ = push(run, of_bytes(b""))
    assert result.outcome is PushOutcome.PUSHED and result.streamed[0].descriptor.digest == Digest.of(b"")


@pytest.mark.parametrize("size", [0, 1, 1_000_000, 1_000_001, 2_999_999])
def test_ranges_for_a_registry_that_wants_a_length(run: Run, size: int) -> None:
    config = attrs.evolve(QUICK, stream_buffer_bytes=1_000_000)
    registry = FakeRegistry(RegistryOptions(log_max=100, length_required=True, early_refusals=True))

    refused = threading.Event()

    class Listening(Session):
        def receive(self, now: float, event: Input) -> None:
            if isinstance(event, Response) and event.status == 411:
                refused.set()
            super().receive(now, event)

    class UntilRefused(io.BytesIO):
        """More than is kept fits into a socket's buffers: half of that is sent until the refusal is there."""

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 500_000:
                refused.wait(PATIENCE_S)
            return super().read(size)

    content = StreamContent(lambda: UntilRefused(CONTENT[:size]))
    result, registry = push(run, content, config=config, registry=registry, session_type=Listening)
    assert result.outcome is PushOutcome.PUSHED, result.error
    assert registry.content(result.streamed[0].descriptor.digest) == CONTENT[:size]
    # Of an empty stream the digest may be known by the time of the refusal: then nothing is left to be sent.
    assert requests(registry, "PATCH") - 1 in ({0, 1} if size == 0 else {-(-size // 1_000_000)})


def cut(after: int, count: int = 1) -> dict[str, Any]:
    fault = Fault(kind=FaultKind.DROP, when=When.IN_BODY, method="PATCH", after_bytes=after, count=count)
    return {"faults": (fault,)}


def test_it_goes_on_where_the_registry_has_it(run: Run) -> None:
    result, registry = push(run, of_bytes(), **cut(1_500_000))
    assert result.outcome is PushOutcome.PUSHED, result.error
    assert registry.content(result.streamed[0].descriptor.digest) == CONTENT
    assert requests(registry, "GET") == 1 and requests(registry, "PATCH") == 2


def test_a_range_is_sent_again(run: Run) -> None:
    config = attrs.evolve(QUICK, chunk_bytes=700_000, stream_buffer_bytes=700_000)
    result, registry = push(run, of_bytes(), config=config, **cut(300_000, count=3))
    assert result.outcome is PushOutcome.PUSHED, result.error
    assert registry.content(result.streamed[0].descriptor.digest) == CONTENT


def test_what_is_kept_no_more(run: Run) -> None:
    options = cut(1_500_000) | {"lost_sessions": True}
    result, registry = push(run, of_bytes(), config=attrs.evolve(QUICK, stream_buffer_bytes=100_000), **options)
    assert isinstance(result.error, RegistryError) and "can't be sent again" in str(result.error)
    assert registry.blobs(REPO) == frozenset()


def test_a_stream_is_sent_once(run: Run) -> None:
    content = of_bytes()
    assert push(run, content)[0].outcome is PushOutcome.PUSHED
    result, registry = push(run, content)
    assert isinstance(result.error, ContentError) and not registry.sessions(REPO)


class Breaking(io.BytesIO):
    """A source that breaks after some bytes."""

    def readinto(self, buffer: Any, /) -> int:
        if self.tell() > 500_000:
            raise OSError(5, "Input/output error")
        return super().readinto(buffer)


@pytest.mark.parametrize("config", [QUICK, attrs.evolve(QUICK, chunk_bytes=2_000_000)], ids=["chunked", "range"])
def test_a_source_that_breaks(run: Run, config: Config) -> None:
    result, registry = push(run, StreamContent(lambda: Breaking(CONTENT)), config=config)
    assert isinstance(result.error, ContentError) and "layer-0: Input/output error" in str(result.error)
    assert registry.blobs(REPO) == frozenset()


def test_a_source_that_is_not_there(run: Run) -> None:
    result, _ = push(run, StreamContent(lambda: io.FileIO("/nowhere")))
    assert isinstance(result.error, ContentError) and "No such file" in str(result.error)


def test_what_is_compressed_already_is_not_compressed_again(run: Run) -> None:
    result, _ = push(run, of_bytes(gzip.compress(b"x"), compression="gzip"))
    assert "is gzip already" in str(result.error)


def test_a_draft_that_fails(run: Run) -> None:
    class Failing:
        def make(self, need: NeedManifests) -> Manifests:
            raise ValueError("no idea")

    assert "no idea" in str(push(run, of_bytes(b"x"), draft=Failing())[0].error)
    assert "nothing at hand to make" in str(push(run, of_bytes(b"x"), draft="?")[0].error)


def test_nothing_at_hand(run: Run) -> None:
    registry = FakeRegistry()
    with Server(registry) as server:
        session = Session(server.url, QUICK, now=time.monotonic())
        push_id = session.submit(PushPlan(repository=REPO, streams=[blob_of("?")]))  # type: ignore[arg-type]
        result = run(session, [push_id], keychain=nobody)[push_id]
    assert "nothing at hand to read the stream layer-0 from" in str(result.error)


# --- against a peer -----------------------------------------------------------------------------------------


def patch(url: str, content: StreamContent, **body: Any) -> Send:
    """A PATCH of a stream."""
    stream = Stream(**({"key": "s", "source": content, "offset": 0, "keep_bytes": 1_000_000} | body))
    return send(1, url, "PATCH", stream)


def exchange(run: Run, what: Send, *script: Any) -> tuple[Response | Failed, ScriptedSession]:
    session = ScriptedSession(*(script or (what, answered(what.id))))
    run(session, [0], keychain=nobody)
    assert isinstance(what.body, Stream) and isinstance(what.body.source, StreamContent)
    what.body.source.close()
    [answer] = session.answers(what.id)
    return answer, session


class Piped:
    """A source that has what it was given."""

    def __init__(self) -> None:
        self._out, self.into = os.pipe()
        self.content = StreamContent(lambda: os.fdopen(self._out, "rb", buffering=0))

    def give(self, data: bytes) -> None:
        os.write(self.into, data)

    def end(self) -> None:
        os.close(self.into)


def chunks(line: Line) -> bytes:
    """A chunked body, to its end."""
    whole = b""
    while True:
        size = b""
        while not size.endswith(b"\r\n"):
            size += line.body(1)
        whole += line.body(int(size, 16))
        assert line.body(2) == b"\r\n"
        if not int(size, 16):
            return whole


def test_one_chunked_body(run: Run) -> None:
    heads, got = [], []

    def handle(line: Line) -> None:
        heads.append(line.head())
        got.append(chunks(line))
        line.say(OK)

    with Peer(handle) as peer:
        answer, _ = exchange(run, patch(peer.url, of_bytes(CONTENT[:600_000])))
    assert got == [CONTENT[:600_000]]
    assert "Transfer-Encoding: chunked" in heads[0] and "content-length" not in heads[0].lower()
    assert isinstance(answer, Response) and answer.stream is not None
    # What was sent more than a megabyte ago may have been let go of: nothing was.
    assert answer.stream == StreamStatus(sent=600_000, kept=0, digest=Digest.of(CONTENT[:600_000]), size=600_000)


def test_one_range(run: Run) -> None:
    heads, got = [], []

    def handle(line: Line) -> None:
        for _ in range(2):
            heads.append(line.head())
            got.append(line.body(400_000 if not got else 100_000))
            line.say(OK)

    content = of_bytes(CONTENT[:500_000])
    with Peer(handle) as peer:
        first = patch(peer.url, content, limit_bytes=400_000)
        second = attrs.evolve(patch(peer.url, content, limit_bytes=400_000, offset=400_000), id=2)
        session = ScriptedSession(first, answered(1), second, answered(2))
        run(session, [0], keychain=nobody)
        content.close()
    assert b"".join(got) == CONTENT[:500_000]
    assert "Content-Range: 0-399999\r\n" in heads[0] and "Content-Length: 400000\r\n" in heads[0]
    assert "Content-Range: 400000-499999\r\n" in heads[1] and "Content-Length: 100000\r\n" in heads[1]
    [one], [two] = session.answers(1), session.answers(2)
    assert one.stream is not None and one.stream.sent == 400_000
    assert two.stream is not None and (two.stream.sent, two.stream.size) == (500_000, 500_000)


def test_a_slow_source_is_told_of_and_waited_for(run: Run) -> None:
    piped = Piped()

    def handle(line: Line) -> None:
        line.head()
        assert chunks(line) == b"late"
        line.say(OK)

    def goes_on(session: ScriptedSession) -> bool:
        if in_phase(1, Phase.READING)(session):
            piped.give(b"late")
            piped.end()
            return True
        return False

    with Peer(handle) as peer:
        what = patch(peer.url, piped.content)
        answer, session = exchange(run, what, what, goes_on, answered(1))
    assert isinstance(answer, Response)
    phases = session.phases(1)
    assert phases.count(Phase.READING) == 1
    assert phases.index(Phase.CONNECTING) < phases.index(Phase.READING)


@pytest.mark.parametrize("limit", [None, 100])
def test_an_abort_while_the_source_has_nothing(run: Run, limit: int | None) -> None:
    piped = Piped()
    with Peer(Line.rest) as peer:
        what = patch(peer.url, piped.content, limit_bytes=limit)
        answer, _ = exchange(run, what, *aborted(what, in_phase(1, Phase.READING)))
    piped.end()
    assert isinstance(answer, Failed) and answer.kind is FailureKind.ABORTED


def test_an_answer_while_the_source_has_nothing(run: Run) -> None:
    piped = Piped()

    def handle(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\n\r\n")
        line.rest()

    with Peer(handle) as peer:
        answer, _ = exchange(run, patch(peer.url, piped.content))
    piped.end()
    assert isinstance(answer, Response) and answer.status == 411
    assert answer.stream == StreamStatus(sent=0, kept=0)


def test_an_answer_before_the_end_ends_the_connection(run: Run) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.body(10)
        line.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        line.rest()

    content = of_bytes()
    with Peer(handle) as peer:
        answer, _ = exchange(run, patch(peer.url, content))
        assert isinstance(answer, Response) and answer.status == 403
        assert answer.stream is not None and answer.stream.kept <= answer.stream.sent


def test_a_connection_that_breaks(run: Run) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.body(100_000)
        line.reset()

    with Peer(handle) as peer:
        answer, _ = exchange(run, patch(peer.url, of_bytes()))
    assert isinstance(answer, Failed) and answer.kind is FailureKind.CLOSED
    assert answer.stream is not None and 99_000 <= answer.stream.sent <= len(CONTENT)
    assert answer.stream.kept <= answer.stream.sent


def test_progress_counts_the_streams_own_bytes(run: Run) -> None:
    def handle(line: Line) -> None:
        line.head()
        chunks(line)
        line.say(OK)

    with Peer(handle) as peer:
        _, session = exchange(run, patch(peer.url, of_bytes()))
    counted = [i.bytes for i in session.inputs if isinstance(i, Progress) and i.phase is Phase.WAITING]
    assert counted == [len(CONTENT)]


def test_a_draft_is_made_elsewhere(run: Run) -> None:
    names: list[str] = []

    class Draft:
        def make(self, need: NeedManifests) -> Manifests:
            names.append(threading.current_thread().name)
            return Manifests(id=need.id, root=None)

    need = NeedManifests(id=7, push_id=0, draft=Draft(), streams=())
    session = ScriptedSession(need, lambda s: bool(s.inputs))
    run(session, [0], keychain=nobody)
    assert session.inputs == [Manifests(id=7, root=None)]
    assert names[0] != threading.current_thread().name
    session = ScriptedSession(attrs.evolve(need, draft=None), lambda s: bool(s.inputs))
    run(session, [0], keychain=nobody)
    assert isinstance(session.inputs[0], NoManifests)


# --- the reader ---------------------------------------------------------------------------------------------


class OneByOne:
    """A source without `readinto`, which gives little at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = io.BytesIO(data), step

    def read(self, size: int) -> bytes:
        return self._data.read(min(size, self._step))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_same_bytes_however_the_source_gives_them(compression: str) -> None:
    from regproto_sync.sources.stream import CompressedStream

    text = b"".join(b"%d lines of text\n" % n for n in range(60_000))

    def made(source: object) -> bytes:
        stream: BinaryIO = source  # type: ignore[assignment]
        return b"".join(CompressedStream(stream, compression, 6 if compression == "gzip" else None))

    assert made(io.BytesIO(text)) == made(OneByOne(text, 777)) == made(OneByOne(text, 100_000))


def test_memory_is_bounded_when_nobody_takes() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def readinto(self, buffer: Any, /) -> int:
            self.taken += len(buffer)
            return len(buffer)

    source = Endless()
    woken = threading.Event()
    content = StreamContent(lambda: source)  # type: ignore[arg-type,return-value]
    reader = content.attach(Stream(key="s", source=content, offset=0, keep_bytes=1), woken.set)
    piece = None
    while piece is None:
        assert woken.wait(20)
        piece = reader.take()
    reader.close()
    content.close()
    assert source.taken < 4_000_000
