"""One `Send`, performed in a thread of its own: a connection, the body, the answer."""

from __future__ import annotations

import io
import ssl
import threading
from collections.abc import Callable
from typing import BinaryIO, Final, Self, TypeVar

import attrs

from regproto import http1
from regproto._errors import RemoteProtocolError
from regproto._messages import (
    BlobSlice,
    Body,
    Failed,
    FailureKind,
    Input,
    Phase,
    Progress,
    Response,
    Send,
    Written,
)
from regproto_sync._content import Content
from regproto_sync._threads import Crash
from regproto_sync._transport import (
    READ,
    WRITE,
    Aborted,
    ConnectFailed,
    Pool,
    Waiter,
    Wire,
    connect,
    is_address,
    reason,
    resolve,
)

READ_AHEAD_BYTES: Final = 256 * 1024
"""Read from a file at once where it can't be sent as it is: sixteen TLS records, little beside socket buffers."""


@attrs.frozen
class Means:
    """What all exchanges of a driver share."""

    pool: Pool
    tls: Callable[[], ssl.SSLContext]
    clock: Callable[[], float]


A = TypeVar("A")
R = TypeVar("R")


class ContentFailed(Exception):
    """The content can't be read, is short, or has changed."""


class ExchangeJob:
    """One `Send` on its way to its one answer."""

    def __init__(self, send: Send, means: Means, tell: Callable[[Input | Crash], None]) -> None:
        self.id = send.id
        self.tell = tell
        self._send = send
        self._means = means
        self._lock = threading.Lock()
        self._waiter: Waiter | None = None
        self._aborted = False
        self._resolving = False
        self._answered = False

    @property
    def is_stuck(self) -> bool:
        """True while a name is being resolved."""
        return self._resolving

    def abort(self) -> None:
        """Stops it, from another thread; the answer follows."""
        with self._lock:
            self._aborted = True
            if self._waiter is not None:
                self._waiter.stop()
            if not self._resolving or self._answered:
                return
            # The resolver can't be stopped. It holds no file and no socket, so nothing need wait for it.
            self._answered = True
        self.tell(self._failed(FailureKind.ABORTED, "aborted"))

    def work(self, waiter: Waiter) -> Response | Failed | None:
        """Performs it; None: `abort` has answered."""
        with self._lock:
            waiter.reset()
            if self._aborted:
                waiter.stop()
            self._waiter = waiter
        try:
            answer = self._perform(waiter)
        finally:
            with self._lock:
                self._waiter = None
        return None if self._answered else answer

    def _perform(self, waiter: Waiter) -> Response | Failed:
        try:
            waiter.check()
            if self._is_late():
                return self._failed(FailureKind.NOT_SENT, "too late")
            wire = self._connection(waiter)
            try:
                with _BodyReader(self._send.body) as body:
                    if self._is_late():
                        return self._failed(FailureKind.NOT_SENT, "too late once there was a connection")
                    return self._exchange(wire, body, waiter)
            finally:
                self._means.pool.give(wire)
        except Aborted:
            return self._failed(FailureKind.ABORTED, "aborted")
        except ConnectFailed as error:
            return self._failed(error.kind, error.detail)
        except ContentFailed as error:
            return self._failed(FailureKind.CONTENT, str(error))

    def _is_late(self) -> bool:
        return self._send.not_after is not None and self._means.clock() > self._send.not_after

    def _failed(self, kind: FailureKind, detail: str) -> Failed:
        return Failed(id=self.id, kind=kind, written=Written.NONE, detail=detail)

    def _connection(self, waiter: Waiter) -> Wire:
        try:
            origin = http1.Origin.of(self._send.url)
        except RemoteProtocolError as error:
            raise ConnectFailed(FailureKind.CONNECT, str(error)) from None
        wire = self._means.pool.take(origin)
        if wire is not None:
            return wire
        self.tell(Progress(id=self.id, phase=Phase.CONNECTING))
        with self._lock:
            waiter.check()
            self._resolving = not is_address(origin)
        try:
            addresses = resolve(origin)
        finally:
            with self._lock:
                self._resolving = False
        return connect(origin, addresses, waiter, self._means.tls)

    def _exchange(self, wire: Wire, body: _BodyReader, waiter: Waiter) -> Response | Failed:
        """Writes and reads as either is possible, until there is an outcome."""
        exchange = wire.http.start(self._send)
        ready = WRITE
        try:
            while exchange.outcome is None:
                if ready & READ:
                    _read(wire, exchange)
                if ready & WRITE:
                    _write(wire, exchange, body)
                if (progress := exchange.report(self._means.clock())) is not None:
                    self.tell(progress)
                if exchange.outcome is None:
                    wanted = (READ if exchange.wants_read else 0) | (WRITE if exchange.wants_write else 0)
                    ready = wire.wait(waiter, wanted)
        except Aborted:
            exchange.fail(FailureKind.ABORTED, "aborted")
        assert exchange.outcome is not None
        return exchange.outcome


def _read(wire: Wire, exchange: http1.Exchange) -> None:
    try:
        data = wire.receive()
    except OSError as error:
        exchange.fail(FailureKind.CLOSED, reason(error))
    else:
        if data is not None:
            exchange.receive(data)


def _write(wire: Wire, exchange: http1.Exchange, body: _BodyReader) -> None:
    piece = exchange.piece()
    if piece is None:
        return
    try:
        if isinstance(piece, http1.Span):
            count = body.write(wire, piece)
            exchange.sent(count)
            if piece.last and count == piece.size:
                body.check()
        else:
            exchange.sent(wire.send(piece))
    except ContentFailed as error:
        exchange.sent(0)
        exchange.fail(FailureKind.CONTENT, str(error))
    except OSError as error:
        exchange.sent(0)
        exchange.write_failed(reason(error))


class _BodyReader:
    """Puts a `BlobSlice`'s bytes on the wire, straight from the file where that is possible; no other body needs it.

    Every failure of the content's is a `ContentFailed`, every `OSError` the connection's.
    """

    def __init__(self, body: Body) -> None:
        self._slice = body if isinstance(body, BlobSlice) else None
        self._ahead = memoryview(b"")

    def __enter__(self) -> Self:
        if self._slice is not None:
            source = self._slice.source
            if not isinstance(source, Content):
                raise ContentFailed(f"there is no content at hand for {self._slice.digest}")
            self._content = source
            self._stream: BinaryIO = _of_content(source.open, self._slice.offset)
            self._file = self._stream if isinstance(self._stream, io.FileIO) else None
            self._position = self._file.tell() if self._file else 0
        return self

    def __exit__(self, *_: object) -> None:
        if self._slice is not None:
            self._stream.close()

    def check(self) -> None:
        """Raises `ContentFailed` if the content is no longer what it was."""
        _of_content(self._content.check, self._stream)

    def write(self, wire: Wire, span: http1.Span) -> int:
        """Writes from the span's beginning; the number of bytes that were taken."""
        if self._file is not None and wire.can_sendfile:
            return self._send_file(wire, self._file, span)
        if not self._ahead:
            self._ahead = memoryview(_of_content(self._stream.read, min(span.size, READ_AHEAD_BYTES)) or b"")
            self._refuse_end(len(self._ahead), span)
        if span.last and len(self._ahead) == span.size:
            self.check()
        count = wire.send(self._ahead)
        self._ahead = self._ahead[count:]
        return count

    def _send_file(self, wire: Wire, file: io.FileIO, span: http1.Span) -> int:
        if span.last:
            self.check()
        try:
            count = wire.sendfile(file.fileno(), self._position, span.size)
        except (ConnectionError, TimeoutError):
            raise
        except OSError:
            # A file system that can't do this, or the content's failure: reading will tell.
            file.seek(self._position)
            self._file = None
            return 0
        if count is None:
            return 0
        self._refuse_end(count, span)
        self._position += count
        return count

    def _refuse_end(self, count: int, span: http1.Span) -> None:
        if count == 0:
            assert self._slice is not None
            raise ContentFailed(f"the content of {self._slice.digest} ends at or before byte {span.offset}")


def _of_content(call: Callable[[A], R], argument: A) -> R:
    """What a content's method returns, its failures told apart from the connection's."""
    try:
        return call(argument)
    except Exception as error:
        raise ContentFailed(reason(error)) from error
