"""Bodies: they arrive as they are or not at all, and an answer may come before their end."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from regproto._model.messages import Failed, FailureKind, Phase, Written
from regproto.testing.driver_check.bench import Bench, ask, blob_slice, check, expect, failed, responded
from regproto.testing.driver_check.content import FileSource, OddSource, pattern
from regproto.testing.driver_check.peer import OK, Gone, Handler, Line, serving
from regproto.testing.driver_check.script import Until, answered, in_phase, tell

BIG: Final = 24 * 1024 * 1024
"""More than the buffers of a connection over loopback hold (Linux: at most 4 MB to send and 6 MB to receive), twice."""
SMALL: Final = 300_000


@contextmanager
def _file(data: bytes) -> Iterator[FileSource]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "layer")
        path.write_bytes(data)
        yield FileSource(path)


def _taking(size: int, got: list[bytes]) -> Handler:
    def handle(line: Line) -> None:
        line.head()
        got.append(line.body(size))
        line.say(OK)
        got.append(line.rest())

    return handle


def _arrives(bench: Bench, source: object, data: bytes, offset: int, size: int, *, tls: bool) -> None:
    got: list[bytes] = []
    with bench.peer(_taking(size, got), tls=tls) as peer:
        send = ask(1, peer.url, "PUT", blob_slice(source, size, offset))
        responded(bench.exchange(send, tls=bench.trust() if tls else None))
    expect(got == [data[offset : offset + size], b""], f"{size} bytes from {offset} on did not arrive as they are")


@check("slices", "of a slice's content just its bytes arrive, whatever it is read from, with TLS too")
def slices(bench: Bench) -> None:
    data = pattern(3_000_000)
    ranges = ((0, len(data)), (1, len(data) - 2), (len(data) - 1, 1), (5, 0))
    with _file(data) as file:
        for tls in (False, True):
            for offset, size in ranges:
                _arrives(bench, file, data, offset, size, tls=tls)
            odd = OddSource(data)
            _arrives(bench, odd, data, 70_001, 2_000_000, tls=tls)
            expect(odd.opened and not odd.open_streams, "it did not close the content's stream")


@check("small bodies", "a body of bytes arrives as it is")
def small_bodies(bench: Bench) -> None:
    data = pattern(SMALL)
    got: list[bytes] = []
    with bench.peer(_taking(len(data), got)) as peer:
        responded(bench.exchange(ask(1, peer.url, "PUT", data)))
    expect(got == [data, b""], "the body did not arrive as it is")


@check("slow content", "content that is slow to read holds up nothing else")
def slow_content(bench: Bench) -> None:
    other = threading.Event()
    in_time: list[bool] = []
    slow = OddSource(pattern(SMALL), before_read=lambda _: in_time.append(other.wait(bench.wait_timeout_s / 2)))
    got: list[bytes] = []
    with bench.peer(_taking(SMALL, got)) as peer, bench.peer(serving) as quick:
        send = ask(1, peer.url, "PUT", blob_slice(slow, SMALL))
        session = bench.run(send, ask(2, quick.url), answered(2), tell(other), answered(1))
    responded(session.answers(1)[0])
    expect(all(in_time), "nothing else went on while the content was slow")


def _refused_content(bench: Bench, source: object, size: int, detail: str) -> None:
    got: list[bytes] = []

    def handle(line: Line) -> None:
        with contextlib.suppress(Gone):
            line.head()
        got.append(line.some_body(size))
        if len(got[0]) == size:
            line.say(OK)

    with bench.peer(handle) as peer:
        answer = bench.exchange(ask(1, peer.url, "PUT", blob_slice(source, size)))
    told = isinstance(answer, Failed) and answer.kind is FailureKind.CONTENT
    expect(told, f"{detail}, but it says {answer!r} instead of Failed(CONTENT)")
    body = got[0] if got else b""
    expect(len(body) < size, f"{detail}, and yet a whole body was sent")
    if isinstance(source, OddSource):
        expect(not source.open_streams, "it did not close the content's stream")
        expect(source.data.startswith(body), "what was sent is not the content: it was padded")


@check("content short", "content that ends too early is Failed(CONTENT): the connection is closed, nothing is padded")
def content_short(bench: Bench) -> None:
    for missing in (1, 200_000):
        source = OddSource(pattern(SMALL - missing))
        _refused_content(bench, source, SMALL, f"the content is {missing} bytes too short")
    _refused_content(bench, OddSource(b""), SMALL, "there is no content")


@check("content fails", "content that can't be opened or read is Failed(CONTENT), at whatever byte")
def content_fails(bench: Bench) -> None:
    for where in (0, 1, SMALL - 1):
        _refused_content(bench, OddSource(pattern(SMALL), fails_at=where), SMALL, f"byte {where} can't be read")
    _refused_content(bench, FileSource(Path("/nonexistent/regproto")), SMALL, "the file is not there")
    _refused_content(bench, object(), SMALL, "the source is nothing that could be read")


@check("content changes", "content that has changed by its end is Failed(CONTENT), and its last bytes are not sent")
def content_changes(bench: Bench) -> None:
    source = OddSource(pattern(SMALL))

    def change(position: int) -> None:
        source.changed = source.changed or position > 0

    source.before_read = change
    _refused_content(bench, source, SMALL, "the content has changed")


@check("early answer", "an answer that comes while the body is being sent ends the exchange, whoever stops reading")
def early_answer(bench: Bench) -> None:
    done = threading.Event()
    rest: list[bytes] = []

    def handle(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        done.wait(bench.wait_timeout_s)
        rest.append(line.rest())

    for tls in (False, True):
        done.clear()
        with bench.peer(handle, serving, tls=tls) as peer:
            body = blob_slice(OddSource(bytes(BIG)), BIG)
            send = ask(1, peer.url, "PUT", body)
            trust = bench.trust() if tls else None
            session = bench.run(send, answered(1), tell(done), ask(2, peer.url), answered(2), tls=trust)
            done.set()
        responded(session.answers(1)[0], 403, b"no")
        responded(session.answers(2)[0])
        expect(len(rest.pop()) < BIG, "it sent the whole body all the same")


@check("early answer, small rest", "after an early answer the connection is used again only if the body was finished")
def early_small(bench: Bench) -> None:
    size, step = 60_000, 10_000
    reading, said = threading.Event(), threading.Event()

    def handle(line: Line) -> None:
        line.head()
        reading.wait(bench.wait_timeout_s)
        line.say(OK)
        said.set()
        line.body(size)
        serving(line)

    def wait(position: int) -> None:
        if position:
            reading.set()
            said.wait(bench.wait_timeout_s)

    source = OddSource(pattern(size), step_bytes=step, before_read=wait)
    with bench.peer(handle, serving, may_fail=True) as peer:
        send = ask(1, peer.url, "PUT", blob_slice(source, size))
        session = bench.run(send, answered(1), ask(2, peer.url), answered(2))
    responded(session.answers(1)[0])
    responded(session.answers(2)[0])


@check("answer after a write error", "when a body can't be written, an answer that came before is found")
def after_write_error(bench: Bench) -> None:
    reading, closed = threading.Event(), threading.Event()

    def wait(position: int) -> None:
        if position:
            reading.set()
            closed.wait(bench.wait_timeout_s)

    def handle(line: Line) -> None:
        line.head()
        reading.wait(bench.wait_timeout_s)
        line.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        line.reset()
        closed.set()

    # The content's rest comes when the connection is gone: whoever writes it meets an error, and the answer is there.
    for _ in range(3):
        reading.clear()
        closed.clear()
        source = OddSource(pattern(SMALL), before_read=wait)
        with bench.peer(handle) as peer:
            responded(bench.exchange(ask(1, peer.url, "PUT", blob_slice(source, SMALL))), 413, b"")


@check("cut in a body", "a connection that is reset in the middle of a body is Failed(CLOSED)")
def cut_in_body(bench: Bench) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.body(1000)
        line.reset()

    with bench.peer(handle) as peer:
        source = OddSource(bytes(BIG))
        answer = bench.exchange(ask(1, peer.url, "PUT", blob_slice(source, BIG)))
    failed(answer, FailureKind.CLOSED)
    expect(not source.open_streams, "it did not close the content's stream")


@check("written", "a failure tells whether all of the request was handed to the connection, or some")
def written(bench: Bench) -> None:
    with bench.peer(lambda line: (line.head(), line.body(SMALL))) as peer:
        answer = bench.exchange(ask(1, peer.url, "PUT", bytes(SMALL)))
    failure = failed(answer, FailureKind.CLOSED)
    expect(failure.written is Written.ALL, f"all was written, but it says {failure.written.name}")

    cut = threading.Event()

    def handle(line: Line) -> None:
        line.head()
        cut.wait(bench.wait_timeout_s)
        line.reset()

    with bench.peer(handle) as peer:
        send = ask(1, peer.url, "PUT", blob_slice(OddSource(bytes(BIG)), BIG))
        session = bench.run(send, in_phase(1, Phase.SENDING), tell(cut), answered(1))
    failure = failed(session.answers(1)[0], FailureKind.CLOSED)
    expect(failure.written is Written.SOME, f"some was written, but it says {failure.written.name}")


@check("progress of a body", "while a body moves, Progress tells how much of it was written, and at its end all")
def progress(bench: Bench) -> None:
    moved, enough = threading.Event(), threading.Event()

    def handle(line: Line) -> None:
        line.head()
        left = BIG
        while left:
            if not moved.is_set():
                enough.wait(0.005)
            left -= len(line.body(min(left, 65_536)))
        enough.wait(bench.wait_timeout_s)
        line.say(OK)

    two = Until(
        "a second Progress that tells of more bytes sent",
        lambda s: len({p.bytes for p in s.progress(1, Phase.SENDING)} - {0}) > 1 or bool(s.answers(1)),
    )
    with bench.peer(handle) as peer:
        send = ask(1, peer.url, "PUT", blob_slice(OddSource(bytes(BIG)), BIG))
        session = bench.run(send, two, tell(moved), in_phase(1, Phase.WAITING), tell(enough), answered(1))
    responded(session.answers(1)[0])
    counts = [p.bytes for p in session.progress(1) if p.phase in (Phase.SENDING, Phase.WAITING)]
    expect(counts == sorted(counts), f"the bytes sent went backwards: {counts}")
    expect(counts[-1] == BIG, f"{BIG} bytes were sent, but it told of {counts[-1]}")
