"""Bodies through the trio driver: content of all kinds, content that breaks, and answers that come before the end."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

import wire
from driving import BIG, failed, responded
from regproto._messages import Failed, FailureKind, Phase, Written
from regproto_sync._content import BytesContent, FileContent
from trio_driving import Ends, exchange, peer_has, run
from wire import OK, Line, Peer, aborted, answered, blob_slice, in_phase, send, serving

pytest_plugins = ["trio_fixtures"]
pytestmark = pytest.mark.usefixtures("nothing_is_left")


class Odd:
    """An embedder's own content: no file, read in small steps, and broken where it ends if `fails` says how."""

    def __init__(self, data: bytes, fails: Exception | None = None, at_end: Callable[[], object] = bool) -> None:
        self.data = data
        self.fails = fails
        self.at_end = at_end
        self.open_streams = 0
        self.threads: set[str] = set()

    def open(self, offset: int = 0) -> BinaryIO:
        owner = self
        owner.open_streams += 1

        class Stream(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                owner.threads.add(threading.current_thread().name)
                data = super().read(min(size or 0, 100_000))
                if not data:
                    owner.at_end()
                    if owner.fails:
                        raise owner.fails
                return data

            def close(self) -> None:
                owner.open_streams -= 1
                super().close()

        return Stream(self.data[offset:])

    def check(self, stream: BinaryIO) -> None:
        pass


def taking(size: int, got: list[bytes]) -> wire.Handler:
    def handle(line: Line) -> None:
        line.head()
        got.append(line.body(size))
        line.say(OK)
        assert line.rest() == b""

    return handle


SOURCES: dict[str, Callable[[Path], object]] = {
    "file": FileContent.of,
    "bytes": lambda path: BytesContent(path.read_bytes()),
    "own": lambda path: Odd(path.read_bytes()),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("offset", "size"), [(0, BIG), (1, BIG - 2), (BIG - 1, 1), (5, 0)])
def test_slices_arrive_as_they_are(layer: Path, ends: Ends, source: str, offset: int, size: int) -> None:
    got: list[bytes] = []
    with Peer(taking(size, got), tls=ends.server) as peer:
        body = blob_slice(SOURCES[source](layer), size, offset)
        assert responded(exchange(send(1, peer.url, "PUT", body), tls=ends.client)).status == 200
    assert got == [layer.read_bytes()[offset : offset + size]]


def test_bytes_go_along(ends: Ends) -> None:
    body, got = os.urandom(4_000_000), list[bytes]()
    with Peer(taking(len(body), got), tls=ends.server) as peer:
        responded(exchange(send(1, peer.url, "PUT", body), tls=ends.client))
    assert got == [body]


def test_content_is_read_in_threads() -> None:
    content, got = Odd(b"x" * 250_000), list[bytes]()
    with Peer(taking(250_000, got)) as peer:
        responded(exchange(send(1, peer.url, "PUT", blob_slice(content, 250_000))))
    assert content.threads and all("regproto PUT 127.0.0.1" in name for name in content.threads)


@pytest.mark.parametrize("change", ["truncate", "append", "touch"])
def test_a_file_that_changes_midway_is_never_sent_to_its_end(layer: Path, ends: Ends, change: str) -> None:
    os.truncate(layer, 3 * BIG)
    content, rest = FileContent.of(layer), list[bytes]()

    def handle(line: Line) -> None:
        line.head()
        line.body(1)
        match change:
            case "truncate":
                os.truncate(layer, 2 * BIG)
            case "append":
                os.truncate(layer, 4 * BIG)
            case _:
                os.utime(layer, ns=(1, 1))
        rest.append(line.rest())

    with Peer(handle, tls=ends.server) as peer:
        answer = exchange(send(1, peer.url, "PUT", blob_slice(content, 3 * BIG)), tls=ends.client)
        failed(answer, FailureKind.CONTENT, Written.SOME)
    assert len(rest[0]) < 3 * BIG - 1


def short(path: Path) -> object:
    os.truncate(path, 10)
    return FileContent.of(path)


def gone(path: Path) -> object:
    content = FileContent.of(path)
    path.unlink()
    return content


def replaced(path: Path) -> object:
    content = FileContent.of(path)
    path.rename(path.with_name("old"))
    path.write_bytes(path.with_name("old").read_bytes())
    os.utime(path, ns=(content.mtime_ns, content.mtime_ns))
    return content


@pytest.mark.parametrize(
    ("source", "detail", "written"),
    [
        (short, "ends 990 bytes too early", Written.SOME),
        (gone, "No such file", Written.NONE),
        (replaced, "has changed", Written.NONE),
        (lambda _: Odd(b"", OSError(5, "Input/output error")), "Input/output error", Written.NONE),
        (lambda _: Odd(b"some", ValueError("bad archive")), "bad archive", Written.SOME),
        (lambda _: None, "no content at hand", Written.NONE),
        (lambda path: path, "no content at hand", Written.NONE),
    ],
    ids=["short", "gone", "replaced", "unreadable", "bad", "none", "path"],
)
def test_content_that_is_not_there(
    layer: Path, source: Callable[[Path], object], detail: str, written: Written
) -> None:
    content = source(layer)
    with Peer(lambda line: line.rest(), serving) as peer:
        script = send(1, peer.url, "PUT", blob_slice(content, 1000)), answered(1)
        answer = run(*script).answers(1)[0]
    assert detail in failed(answer, FailureKind.CONTENT, written).detail
    assert not isinstance(content, Odd) or content.open_streams == 0


def test_a_connection_that_saw_nothing_of_broken_content_is_kept() -> None:
    with Peer(serving) as peer:
        broken = send(1, peer.url, "PUT", blob_slice(None, 5))
        session = run(broken, answered(1), send(2, peer.url), answered(2))
        failed(session.answers(1)[0], FailureKind.CONTENT, Written.NONE)
        assert peer.connections == 1


def test_abort_while_content_is_read_waits_for_the_read() -> None:
    reading, go_on = threading.Event(), threading.Event()

    def at_end() -> None:
        reading.set()
        assert go_on.wait(wire.PATIENCE_S)

    def release(session: wire.ScriptedSession) -> bool:
        assert not session.answers(1) and content.open_streams == 1
        go_on.set()
        return True

    content = Odd(b"some", at_end=at_end)
    with Peer(lambda line: line.rest()) as peer:
        what = send(1, peer.url, "PUT", blob_slice(content, 1000))
        script = aborted(what, peer_has(reading))
        session = run(*script[:-1], release, script[-1])
    failed(session.answers(1)[0], FailureKind.ABORTED, Written.SOME)
    assert content.open_streams == 0


# --- answers before the body is sent ----------------------------------------------------------------------------------


def test_a_small_rest_is_finished(ends: Ends) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.say(OK)
        assert line.body(64 * 1024) == b"x" * 64 * 1024
        serving(line)

    with Peer(handle, tls=ends.server) as peer:
        body = blob_slice(BytesContent(b"x" * 64 * 1024), 64 * 1024)
        session = run(send(1, peer.url, "PUT", body), answered(1), send(2, peer.url), answered(2), tls=ends.client)
        assert all(responded(session.answers(n)[0]) for n in (1, 2))
        assert peer.connections == 1


def test_a_large_rest_is_not_and_the_answer_is_read_to_its_end(layer: Path, ends: Ends) -> None:
    os.truncate(layer, 3 * BIG)
    seen, done, rest = threading.Event(), threading.Event(), list[bytes]()

    def head_seen(session: wire.ScriptedSession) -> bool:
        if in_phase(1, Phase.RECEIVING)(session):
            seen.set()
        return seen.is_set()

    def handle(line: Line) -> None:
        line.head()
        line.say(OK[:-1])
        assert seen.wait(wire.PATIENCE_S)
        line.say(OK[-1:])
        assert done.wait(wire.PATIENCE_S)
        rest.append(line.rest())

    with Peer(handle, serving, tls=ends.server) as peer:
        what = send(1, peer.url, "PUT", blob_slice(FileContent.of(layer), 3 * BIG))
        session = run(what, head_seen, answered(1), send(2, peer.url), answered(2), tls=ends.client)
        done.set()
        assert responded(session.answers(1)[0]).body == b"ok"
        assert peer.connections == 2
    assert len(rest[0]) < 3 * BIG


def test_the_answer_is_found_after_a_write_error(layer: Path, ends: Ends) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        # Closing with most of the body unread resets the connection.

    with Peer(handle, tls=ends.server) as peer:
        for n in range(10):
            what = send(n, peer.url, "PUT", blob_slice(FileContent.of(layer), BIG))
            assert responded(exchange(what, tls=ends.client)).status == 413


def test_a_connection_cut_in_a_body(layer: Path, ends: Ends) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.body(1000)
        line.reset()

    with Peer(handle, tls=ends.server) as peer:
        what = send(1, peer.url, "PUT", blob_slice(FileContent.of(layer), BIG))
        answer = exchange(what, tls=ends.client)
    assert isinstance(answer, Failed) and (answer.kind, answer.written) == (FailureKind.CLOSED, Written.SOME)
