"""One `Send`, performed in a task of its own: a connection, the body, the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Final

import attrs
import trio

from regproto import http1
from regproto._model.errors import RemoteProtocolError
from regproto._model.messages import BlobSlice, Failed, FailureKind, Phase, Progress, Response, Send, Stream
from regproto.driving import ConnectFailed, is_late, unsent
from regproto_sync.sources.content import content_errors, content_of
from regproto_sync.sources.reading import read_some
from regproto_sync.sources.stream import StreamReader, stream_reader
from regproto_trio.driver.transport import CONNECTION_ERRORS, Pool, TlsContext, Wire, connect, reason

READ_BYTES: Final = 256 * 1024
"""Read from content at once: what a thread hop costs is little beside it, and 32 of them are little in memory."""


@attrs.frozen
class ExchangeContext:
    """The connections, TLS, clock and threads that all exchanges of a driver share."""

    pool: Pool
    tls: TlsContext
    clock: Callable[[], float]
    threads: trio.CapacityLimiter


class ExchangeTask:
    """One `Send` on its way to its one answer."""

    def __init__(self, send: Send, context: ExchangeContext, tell: Callable[[Progress], None]) -> None:
        self._send = send
        self._context = context
        self._tell = tell
        self._scope = trio.CancelScope()
        self._http: http1.Exchange | None = None
        self._reader: StreamReader | None = None
        self._more = trio.Event()

    @property
    def name(self) -> str:
        """For instruments: what is asked of whom."""
        host = self._send.url.partition("://")[2].partition("/")[0]
        return f"regproto {self._send.method} {host}"

    def abort(self) -> None:
        """Stops it; `perform` returns the answer."""
        self._scope.cancel()

    async def perform(self) -> Response | Failed:
        """The answer, once files and socket are released. Only `abort` ends it early."""
        failed: Failed | None = None
        with self._scope:
            try:
                failed = await self._try()
            except ConnectFailed as error:
                failed = unsent(self._send, error.kind, error.detail)
            except http1.ContentFailed as error:
                failed = unsent(self._send, FailureKind.CONTENT, str(error))
        if failed is not None:
            return failed
        if self._http is None:
            return unsent(self._send, FailureKind.ABORTED, "aborted")
        self._http.fail(FailureKind.ABORTED, "aborted")  # unless it has an outcome
        assert self._http.outcome is not None
        if self._reader is not None:
            return attrs.evolve(self._http.outcome, stream=self._reader.stream_status(self._http.stream_sent))
        return self._http.outcome

    async def _try(self) -> Failed | None:
        """The failure that keeps the exchange from beginning; None: it began, and knows how it ended."""
        if is_late(self._send, self._context.clock()):
            return unsent(self._send, FailureKind.NOT_SENT, "too late")
        if isinstance(self._send.body, Stream):
            return await self._try_stream(self._send.body)
        wire = await self._connection()
        body = _BodyReader(self._send.body, self._context.threads) if isinstance(self._send.body, BlobSlice) else None
        try:
            if body is not None:
                # Before anything is written: content that can't be read costs no connection.
                await body.read_on()
            if is_late(self._send, self._context.clock()):
                return unsent(self._send, FailureKind.NOT_SENT, "too late once there was a connection")
            self._http = wire.http.start(self._send)
            await self._exchange(wire, self._http, body)
            return None
        finally:
            if body is not None:
                body.close()
            self._context.pool.give(wire)

    async def _try_stream(self, body: Stream) -> Failed | None:
        """The same for a stream, which is read in a thread of its own."""
        token = trio.lowlevel.current_trio_token()
        with stream_reader(body, lambda: token.run_sync_soon(self._more_came)) as reader:
            self._reader = reader
            size = None
            if body.limit_bytes is not None:
                self._tell(Progress(id=self._send.id, phase=Phase.READING))
                while (size := reader.limited_size()) is None:
                    await self._wait_for_more()
            wire = await self._connection()
            try:
                if is_late(self._send, self._context.clock()):
                    return unsent(self._send, FailureKind.NOT_SENT, "too late once there was a connection")
                self._http = wire.http.start(self._send, size)
                await self._exchange(wire, self._http, None)
                return None
            finally:
                self._context.pool.give(wire)

    def _more_came(self) -> None:
        self._more.set()

    async def _wait_for_more(self) -> None:
        await self._more.wait()
        self._more = trio.Event()

    async def _feed(self, exchange: http1.Exchange) -> None:
        """Gives the exchange what the stream's source has; waits for it, or until nothing is wanted any more."""
        assert self._reader is not None
        while exchange.wants_data:
            data = self._reader.take()
            if data is not None:
                exchange.feed(data)
                return
            with trio.move_on_after(http1.PROGRESS_INTERVAL_S):
                await self._wait_for_more()
                continue
            self._report(exchange)
            await self._wait_for_more()

    async def _connection(self) -> Wire:
        try:
            origin = http1.Origin.of(self._send.url)
        except RemoteProtocolError as error:
            raise ConnectFailed(FailureKind.CONNECT, str(error)) from None
        wire = self._context.pool.take(origin)
        if wire is not None:
            return wire
        self._tell(Progress(id=self._send.id, phase=Phase.CONNECTING))
        return await connect(origin, self._context.tls)

    async def _exchange(self, wire: Wire, exchange: http1.Exchange, body: _BodyReader | None) -> None:
        """Writes in one task and reads in this one, until there is an outcome."""
        self._report(exchange)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, wire, exchange, body, nursery.cancel_scope, name=f"{self.name} (writing)")
            await self._read(wire, exchange)

    async def _read(self, wire: Wire, exchange: http1.Exchange) -> None:
        while exchange.wants_read:
            try:
                data = await wire.receive()
            except CONNECTION_ERRORS as error:
                exchange.fail(FailureKind.CLOSED, reason(error))
            else:
                exchange.receive(bytes(data))
            if not exchange.wants_write:
                wire.stop_writing()
                self._more_came()  # so that nobody waits for a source in vain
            self._report(exchange)

    @trio.lowlevel.enable_ki_protection
    async def _write(
        self, wire: Wire, exchange: http1.Exchange, body: _BodyReader | None, whole: trio.CancelScope
    ) -> None:
        try:
            while exchange.wants_write:
                if body is not None and not body.ahead:
                    await body.read_on()
                if exchange.wants_data:
                    await self._feed(exchange)
                piece = exchange.piece()
                if isinstance(piece, http1.Span):
                    assert body is not None
                    body.ahead = body.ahead[await self._put(wire, exchange, body.ahead) :]
                elif piece is not None:
                    await self._put(wire, exchange, piece)
                self._report(exchange)
        except http1.ContentFailed as error:
            exchange.fail(FailureKind.CONTENT, str(error))
            whole.cancel()
        except CONNECTION_ERRORS as error:
            exchange.sent(0)
            if exchange.wants_write:
                exchange.write_failed(reason(error))

    async def _put(self, wire: Wire, exchange: http1.Exchange, data: memoryview) -> int:
        count = await wire.send(data)
        exchange.sent(count)
        return count

    def _report(self, exchange: http1.Exchange) -> None:
        if (progress := exchange.report(self._context.clock())) is not None:
            self._tell(progress)


class _BodyReader:
    """Reads a `BlobSlice`'s content, a piece at a time, in threads.

    Attributes:
        ahead: what is read but not taken by the connection yet.
    """

    def __init__(self, body: BlobSlice, threads: trio.CapacityLimiter) -> None:
        self.ahead = memoryview(b"")
        self._slice = body
        self._threads = threads
        self._left = body.size
        self._stream: BinaryIO | None = None

    async def read_on(self) -> None:
        """Fills `ahead`. A read that was begun is waited for, so that no thread has the file when it is closed."""
        with content_errors():
            self.ahead = memoryview(await trio.to_thread.run_sync(self._read, limiter=self._threads))

    def close(self) -> None:
        """Closes what was opened."""
        if self._stream is not None:
            self._stream.close()

    def _read(self) -> bytes:
        source = content_of(self._slice)
        if self._stream is None:
            self._stream = source.open(self._slice.offset)
        data = read_some(self._stream, min(self._left, READ_BYTES)) if self._left else b""
        if not data and self._left:
            raise http1.ContentFailed(f"the content of {self._slice.digest} ends {self._left} bytes too early")
        self._left -= len(data)
        if not self._left:
            # All of it is read, and its last bytes are not written: a change up to now spoils nothing.
            source.check(self._stream)
        return data
