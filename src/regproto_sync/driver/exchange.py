"""One `Send`, performed in a thread of its own: a connection, the body, the answer."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable

import attrs

from regproto import http1
from regproto._model.errors import RemoteProtocolError
from regproto._model.messages import Failed, FailureKind, Input, Phase, Progress, Response, Send, Stream
from regproto.driving import ConnectFailed, is_late, reason, unsent
from regproto_sync.driver.body import BodyReader
from regproto_sync.driver.threads import Crash
from regproto_sync.driver.transport import (
    READ,
    WRITE,
    Aborted,
    Pool,
    Waiter,
    Wire,
    connect,
    is_address,
    resolve,
)
from regproto_sync.sources.stream import StreamReader, stream_reader


@attrs.frozen
class ExchangeContext:
    """The connections, TLS and clock that all exchanges of a driver share."""

    pool: Pool
    tls: Callable[[], ssl.SSLContext]
    clock: Callable[[], float]


class ExchangeJob:
    """One `Send` on its way to its one answer."""

    def __init__(self, send: Send, context: ExchangeContext, tell: Callable[[Input | Crash], None]) -> None:
        self.id = send.id
        self.tell = tell
        self._send = send
        self._context = context
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
        self.tell(unsent(self._send, FailureKind.ABORTED, "aborted"))

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
            if is_late(self._send, self._context.clock()):
                return unsent(self._send, FailureKind.NOT_SENT, "too late")
            if isinstance(self._send.body, Stream):
                return self._perform_stream(self._send.body, waiter)
            wire = self._connection(waiter)
            try:
                with BodyReader(self._send.body) as body:
                    if is_late(self._send, self._context.clock()):
                        return unsent(self._send, FailureKind.NOT_SENT, "too late once there was a connection")
                    return self._exchange(wire, body, waiter)
            finally:
                self._context.pool.give(wire)
        except Aborted:
            return unsent(self._send, FailureKind.ABORTED, "aborted")
        except ConnectFailed as error:
            return unsent(self._send, error.kind, error.detail)
        except http1.ContentFailed as error:
            return unsent(self._send, FailureKind.CONTENT, str(error))

    def _perform_stream(self, body: Stream, waiter: Waiter) -> Response | Failed:
        with stream_reader(body, waiter.nudge) as reader:
            size = None
            if body.limit_bytes is not None:
                self.tell(Progress(id=self.id, phase=Phase.READING))
                while (size := reader.limited_size()) is None:
                    waiter.wait({})
            wire = self._connection(waiter)
            try:
                if is_late(self._send, self._context.clock()):
                    return unsent(self._send, FailureKind.NOT_SENT, "too late once there was a connection")
                exchange = wire.http.start(self._send, size)
                self._send_stream(wire, exchange, reader, waiter)
            finally:
                self._context.pool.give(wire)
            assert exchange.outcome is not None
            return attrs.evolve(exchange.outcome, stream=reader.stream_status(exchange.stream_sent))

    def _send_stream(self, wire: Wire, exchange: http1.Exchange, reader: StreamReader, waiter: Waiter) -> None:
        """Writes what there is of the stream, and reads, until there is an outcome."""
        ready, dry = WRITE, False
        try:
            while exchange.outcome is None:
                if ready & READ:
                    _read(wire, exchange)
                starved = False
                if exchange.wants_data:
                    data = reader.take()
                    starved = data is None
                    if data is not None:
                        exchange.feed(data)
                        ready |= WRITE
                if ready & WRITE and not starved:
                    _write(wire, exchange)
                if (progress := exchange.report(self._context.clock())) is not None:
                    self.tell(progress)
                if exchange.outcome is None:
                    # That the source is dry is reported a little later, once; then there is nothing to look after.
                    reported = starved and dry
                    ready = self._wait_for_stream(wire, exchange, waiter, starved, reported)
                dry = starved
        except Aborted:
            exchange.fail(FailureKind.ABORTED, "aborted")
        except http1.ContentFailed as error:
            exchange.fail(FailureKind.CONTENT, str(error))

    @staticmethod
    def _wait_for_stream(wire: Wire, exchange: http1.Exchange, waiter: Waiter, starved: bool, reported: bool) -> int:
        """The events that are ready now; the waiter is nudged when a source that was dry no longer is."""
        wanted = READ if exchange.wants_read else 0
        if starved:
            return wire.wait_once(waiter, wanted, None if reported else http1.PROGRESS_INTERVAL_S)
        if exchange.wants_data:
            return wire.wait_once(waiter, wanted, 0.0)
        return wire.wait_once(waiter, wanted | (WRITE if exchange.wants_write else 0))

    def _connection(self, waiter: Waiter) -> Wire:
        try:
            origin = http1.Origin.of(self._send.url)
        except RemoteProtocolError as error:
            raise ConnectFailed(FailureKind.CONNECT, str(error)) from None
        wire = self._context.pool.take(origin)
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
        return connect(origin, addresses, waiter, self._context.tls)

    def _exchange(self, wire: Wire, body: BodyReader, waiter: Waiter) -> Response | Failed:
        """Writes and reads as either is possible, until there is an outcome."""
        exchange = wire.http.start(self._send)
        ready = WRITE
        try:
            while exchange.outcome is None:
                if ready & READ:
                    _read(wire, exchange)
                if ready & WRITE:
                    _write(wire, exchange, body)
                if (progress := exchange.report(self._context.clock())) is not None:
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


def _write(wire: Wire, exchange: http1.Exchange, body: BodyReader | None = None) -> None:
    piece = exchange.piece()
    if piece is None:
        return
    try:
        if isinstance(piece, http1.Span):
            assert body is not None
            count = body.write(wire, piece)
            exchange.sent(count)
            if piece.last and count == piece.size:
                body.check()
        else:
            exchange.sent(wire.send(piece))
    except http1.ContentFailed as error:
        exchange.sent(0)
        exchange.fail(FailureKind.CONTENT, str(error))
    except OSError as error:
        exchange.sent(0)
        exchange.write_failed(reason(error))
