"""Bodies through the blocking driver: files, content that breaks, and answers that come before the end."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

import wire
from driving import BIG, exchange, failed, responded
from regproto._model.messages import Failed, FailureKind, Written
from regproto_sync.driver.driver import Driver
from regproto_sync.sources.content import BytesContent, ContentChanged, FileContent
from wire import OK, Line, Peer, blob_slice, send, serving

pytest_plugins = ["sync_fixtures"]
pytestmark = pytest.mark.usefixtures("nothing_leaks")

# --- bodies -----------------------------------------------------------------------------------------------------------


class Odd:
    """An embedder's own content: no file, and read in small steps."""

    def __init__(self, data: bytes, fails: Exception | None = None) -> None:
        self.data = data
        self.fails = fails
        self.closed = 0

    def open(self, offset: int = 0) -> BinaryIO:
        owner = self

        class Stream(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(min(size or 0, 100_000))
                if not data and owner.fails:
                    raise owner.fails
                return data

            def close(self) -> None:
                owner.closed += 1
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
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(("offset", "size"), [(0, BIG), (1, BIG - 2), (BIG - 1, 1), (5, 0)])
def test_slices_arrive_as_they_are(
    request: pytest.FixtureRequest, layer: Path, source: str, tls: bool, offset: int, size: int
) -> None:
    driver = request.getfixturevalue("tls_driver" if tls else "driver")
    got: list[bytes] = []
    with Peer(taking(size, got), tls=request.getfixturevalue("server_tls") if tls else None) as peer:
        body = blob_slice(SOURCES[source](layer), size, offset)
        assert responded(exchange(driver, send(1, peer.url, "PUT", body))).status == 200
        driver.close()
    assert got == [layer.read_bytes()[offset : offset + size]]


def test_files_that_cannot_be_sent_as_they_are_are_read(
    driver: Driver, layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sendfile, calls = os.sendfile, []

    def sometimes(*args: int) -> int:
        calls.append(args)
        if len(calls) > 1:
            raise OSError(22, "Invalid argument")
        return sendfile(args[0], args[1], args[2], 1000)

    monkeypatch.setattr(os, "sendfile", sometimes)
    got: list[bytes] = []
    with Peer(taking(BIG, got)) as peer:
        responded(exchange(driver, send(1, peer.url, "PUT", blob_slice(FileContent.of(layer), BIG))))
        driver.close()
    assert got == [layer.read_bytes()] and len(calls) == 2


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("change", ["truncate", "append", "touch"])
def test_a_file_that_changes_midway_is_never_sent_to_its_end(
    request: pytest.FixtureRequest, layer: Path, change: str, tls: bool
) -> None:
    driver = request.getfixturevalue("tls_driver" if tls else "driver")
    content = FileContent.of(layer)
    rest: list[bytes] = []
    os.truncate(layer, 3 * BIG)
    os.utime(layer, ns=(content.mtime_ns, content.mtime_ns))
    content = FileContent.of(layer)

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

    with Peer(handle, tls=request.getfixturevalue("server_tls") if tls else None) as peer:
        answer = exchange(driver, send(1, peer.url, "PUT", blob_slice(content, 3 * BIG)))
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


def piped(path: Path) -> object:
    content = FileContent.of(path)
    path.unlink()
    os.mkfifo(path)
    return content


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        (short, "ends at or before byte 10"),
        (gone, "No such file"),
        (replaced, "has changed"),
        (piped, "has changed"),
        (lambda _: BytesContent(b"short"), "ends at or before byte 5"),
        (lambda _: Odd(b"some", OSError(5, "Input/output error")), "Input/output error"),
        (lambda _: Odd(b"some", ValueError("bad archive")), "bad archive"),
        (lambda _: None, "no content at hand"),
        (lambda path: path, "no content at hand"),
    ],
    ids=["short", "gone", "replaced", "piped", "short bytes", "unreadable", "bad", "none", "path"],
)
def test_content_that_is_not_there(driver: Driver, layer: Path, source: Callable[[Path], object], detail: str) -> None:
    content = source(layer)
    with Peer(lambda line: line.rest()) as peer:
        answer = exchange(driver, send(1, peer.url, "PUT", blob_slice(content, 1000)))
        assert isinstance(answer, Failed) and answer.kind is FailureKind.CONTENT
        assert detail in answer.detail
        driver.close()
    if isinstance(content, Odd):
        assert content.closed


def test_a_connection_that_saw_nothing_of_broken_content_is_kept(driver: Driver) -> None:
    with Peer(serving) as peer:
        failed(exchange(driver, send(1, peer.url, "PUT", blob_slice(None, 5))), FailureKind.CONTENT, Written.NONE)
        responded(exchange(driver, send(2, peer.url)))
        assert peer.connections == 1
        driver.close()


def test_content_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        FileContent.of(tmp_path)
    with pytest.raises(FileNotFoundError):
        FileContent.of(tmp_path / "none")


def test_an_open_file_is_checked(layer: Path) -> None:
    content = FileContent.of(layer)
    with content.open(5) as stream:
        assert stream.tell() == 5
        content.check(stream)
        os.utime(layer, ns=(1, 1))
        with pytest.raises(ContentChanged):
            content.check(stream)
    with pytest.raises(ContentChanged):
        content.open()


# --- answers before the body is sent ----------------------------------------------------------------------------------


def test_a_small_rest_is_finished(driver: Driver) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.say(OK)
        assert line.body(64 * 1024) == b"x" * 64 * 1024
        serving(line)

    with Peer(handle) as peer:
        body = blob_slice(BytesContent(b"x" * 64 * 1024), 64 * 1024)
        responded(exchange(driver, send(1, peer.url, "PUT", body)))
        responded(exchange(driver, send(2, peer.url)))
        assert peer.connections == 1
        driver.close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_large_rest_is_not(request: pytest.FixtureRequest, layer: Path, tls: bool) -> None:
    driver = request.getfixturevalue("tls_driver" if tls else "driver")
    os.truncate(layer, 3 * BIG)
    rest: list[bytes] = []
    done = threading.Event()

    def handle(line: Line) -> None:
        line.head()
        line.say(OK)
        assert done.wait(wire.PATIENCE_S)
        rest.append(line.rest())

    with Peer(handle, serving, tls=request.getfixturevalue("server_tls") if tls else None) as peer:
        what = send(1, peer.url, "PUT", blob_slice(FileContent.of(layer), 3 * BIG))
        responded(exchange(driver, what))
        done.set()
        responded(exchange(driver, send(2, peer.url)))
        driver.close()
    assert len(rest[0]) < 3 * BIG


def test_the_answer_is_found_after_a_write_error(driver: Driver, layer: Path) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        # Closing with most of the body unread resets the connection.

    with Peer(handle) as peer:
        for n in range(20):
            what = send(n, peer.url, "PUT", blob_slice(FileContent.of(layer), BIG))
            assert responded(exchange(driver, what)).status == 413


def test_a_connection_cut_in_a_body(driver: Driver, layer: Path) -> None:
    def handle(line: Line) -> None:
        line.head()
        line.body(1000)
        line.reset()

    with Peer(handle) as peer:
        what = send(1, peer.url, "PUT", blob_slice(FileContent.of(layer), BIG))
        failed(exchange(driver, what), FailureKind.CLOSED, Written.SOME)
