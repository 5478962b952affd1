"""Connections on trio's streams: TCP, TLS and the keep-alive pool. No HTTP, no policy, and no support for proxies."""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from regproto import driving, http1
from regproto._model.messages import FailureKind
from regproto.driving import ConnectFailed

RECEIVE_BYTES: Final = 64 * 1024
"""Read at once: most answers are smaller, and an error's body is at most this."""
TLS_BYTES: Final = 64 * 1024
"""Given to TLS at once, four of its records. It takes all or nothing, and so small a piece is a sign of life often
enough on the slowest line."""
IDLE_MAX: Final = 32
"""Idle connections kept per origin: what the core's default lets be in flight."""

CONNECTION_ERRORS: Final = (OSError, trio.BrokenResourceError)
"""Raised by a connection that is broken."""

TlsContext = Callable[[], Awaitable[ssl.SSLContext]]


class _Tcp(trio.abc.Stream):
    """A TCP stream whose writing may fail or be stopped without an end to its reading.

    `trio.SSLStream` is done for once a write of its was cancelled or failed. The answer may still be on its way then,
    so here such a write seems to succeed, and `write_error` tells.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self.write_error: Exception | None = None
        self._stream = stream
        self._writing: trio.CancelScope | None = None

    async def send_some(self, data: bytes | memoryview) -> int:
        """The number of bytes taken; once writing has ended: all."""
        count = len(data)
        if self.write_error is not None:
            await trio.lowlevel.checkpoint()
            return count
        with trio.CancelScope() as self._writing:
            try:
                count = await self.socket.send(data)
            except OSError as error:
                self.write_error = error
        # An answer may come before a write that is done is told to be.
        if self._writing.cancelled_caught or (self._writing.cancel_called and count < len(data)):
            self.write_error = trio.BrokenResourceError("the writing was stopped")
        self._writing = None
        return count

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[await self.send_some(rest) :]

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def stop_writing(self) -> None:
        """Ends the write that is blocked, if there is one, and all writing with it."""
        if self._writing is not None:
            self._writing.cancel()


class Wire:
    """A connection: the streams, and what HTTP knows of it. One task may write while another reads."""

    def __init__(self, origin: http1.Origin, stream: trio.SocketStream) -> None:
        self.origin = origin
        self.http = http1.Connection()
        self._tcp = _Tcp(stream)
        self._tls: trio.SSLStream[_Tcp] | None = None

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """The handshake. Raises `ConnectFailed`."""
        host = self.origin.host
        try:
            # Not `https_compatible`: an end without TLS's own goodbye could be a body cut short.
            self._tls = trio.SSLStream(self._tcp, context, server_hostname=host, https_compatible=False)
            await self._tls.do_handshake()
        except (ValueError, *CONNECTION_ERRORS) as error:
            where, cause = f"{host} port {self.origin.port}", error.__cause__ or error
            if isinstance(cause, ssl.SSLError | ValueError) and not isinstance(cause, ssl.SSLEOFError):
                raise ConnectFailed(FailureKind.TLS, f"{where}: {reason(cause)}") from None
            detail = f"{where}: closed during the TLS handshake ({reason(cause)})"
            raise ConnectFailed(FailureKind.CONNECT, detail) from None

    async def send(self, data: memoryview) -> int:
        """The number of bytes taken, at least one. Raises `CONNECTION_ERRORS`, also after `stop_writing`."""
        if self._tls is None:
            count = await self._tcp.send_some(data)
        else:
            data = data[:TLS_BYTES]
            await self._tls.send_all(data)
            count = len(data)
        if self._tcp.write_error is not None:
            raise self._tcp.write_error
        return count

    def stop_writing(self) -> None:
        """Ends a `send` that is blocked; the connection can still be read, but never be used again."""
        self._tcp.stop_writing()

    async def receive(self) -> bytes | bytearray:
        """The bytes that have come; empty: closed in good order. Raises `CONNECTION_ERRORS`."""
        return await (self._tls or self._tcp).receive_some(RECEIVE_BYTES)

    @property
    def is_quiet(self) -> bool:
        """True if an idle connection is still open, and nothing has come that nobody asked for."""
        return not self._tcp.socket.is_readable() and not (self._tls and self._tls.pending())

    def close(self) -> None:
        """Closes the connection at once, whatever its state."""
        self._tcp.socket.close()


@attrs.define
class Pool:
    """Idle connections, the last used first."""

    _idle: dict[http1.Origin, list[Wire]] = attrs.field(factory=dict, init=False)

    def take(self, origin: http1.Origin) -> Wire | None:
        """A connection that is still good as far as can be seen, or None."""
        idle = self._idle.get(origin, [])
        while idle:
            wire = idle.pop()
            if wire.is_quiet:
                return wire
            wire.close()
        return None

    def give(self, wire: Wire) -> None:
        """Keeps a connection if it may carry another exchange and there is room; closes it otherwise."""
        idle = self._idle.setdefault(wire.origin, [])
        if wire.http.reusable and len(idle) < IDLE_MAX:
            idle.append(wire)
        else:
            wire.close()

    def close(self) -> None:
        """Closes what is idle."""
        for idle in self._idle.values():
            for wire in idle:
                wire.close()
        self._idle.clear()


async def connect(origin: http1.Origin, tls: TlsContext) -> Wire:
    """A new connection, TLS included. Raises `ConnectFailed`."""
    try:
        stream = await trio.open_tcp_stream(origin.host, origin.port)
    except (OSError, UnicodeError, RuntimeError) as error:  # RuntimeError: no thread to resolve a name in
        detail = f"{origin.host} port {origin.port}: {reason(error)}"
        raise ConnectFailed(FailureKind.CONNECT, detail) from None
    wire = Wire(origin, stream)
    if origin.scheme == "https":
        try:
            await wire.start_tls(await tls())
        except BaseException:
            wire.close()
            raise
    return wire


def reason(error: BaseException) -> str:
    """`driving.reason`, also of errors that trio has wrapped."""
    match error:
        case OSError(__cause__=ExceptionGroup() as group):  # of connecting: one error for each address
            tried = (os.strerror(e.errno) if isinstance(e, OSError) and e.errno else str(e) for e in group.exceptions)
            return ", ".join(dict.fromkeys(tried))
        case trio.BrokenResourceError(__cause__=BaseException() as cause):
            return reason(cause)
    return driving.reason(error)
