"""A driver on httpx, to show what can't be had from a client that was not made for this.

    python -m regproto.testing check-driver examples.httpx_driver:run_session \\
        --lacks "early answer" --lacks "answer after a write error" --lacks "TLS cut" \\
        --lacks "abort, in the handshake" --lacks "streams" --lacks "stream fails" --lacks "drafts"

What it lacks: httpx does not read while it writes, so an answer that comes before the body's end is seen after it, if
ever; it takes any end of a TLS stream for a good one; and cancelled in a TLS handshake it leaves the socket open for a
while. It sends no bodies that are a `Stream`.

httpx's client has a policy of its own (redirects, cookies, decoding), so only its transport is used; `trace` tells how
far an exchange has come. The loop is that of `asyncio_driver`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx

import regproto as r
from examples.asyncio_driver import Loop, failed, late
from regproto import http1

PIECE_BYTES = 64 * 1024


class TooLate(Exception):
    """`not_after` has passed while a connection was made."""


class Exchange(httpx.AsyncByteStream):
    """One exchange: the body that httpx reads, and what is known of how far it came."""

    def __init__(self, loop: Loop, send: r.Send) -> None:
        self.loop, self.send = loop, send
        self.written, self.reused = r.Written.NONE, True
        self.phase: r.Phase | None = None
        self.bytes, self.reported = 0, 0.0

    async def trace(self, event: str, info: Any) -> None:
        """Told by httpx of each thing it begins and ends."""
        match event:
            case "connection.connect_tcp.started":
                self.reused = False
                self.report(r.Phase.CONNECTING)
            case "http11.send_request_headers.started":
                if late(self.send):
                    raise TooLate
                self.written = r.Written.SOME
                self.report(r.Phase.SENDING)
            case "http11.send_request_body.complete":
                self.written = r.Written.ALL
                self.report(r.Phase.WAITING, self.bytes)
            case "http11.receive_response_headers.complete":
                self.report(r.Phase.RECEIVING)

    def report(self, phase: r.Phase, count: int = 0) -> None:
        now, self.bytes = time.monotonic(), count
        if phase is not self.phase or now - self.reported >= http1.PROGRESS_INTERVAL_S:
            self.phase, self.reported = phase, now
            self.loop.tell(r.Progress(id=self.send.id, phase=phase, bytes=count))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self.send.body
        if isinstance(body, bytes):
            yield body
            self.bytes = len(body)
            return
        assert isinstance(body, r.BlobSlice)
        content, sent = http1.SliceReader(body), 0
        try:
            while data := await self.loop.in_thread(content.read, PIECE_BYTES):
                yield data
                sent += len(data)
                self.report(r.Phase.SENDING, sent)
        finally:
            content.close()

    def failed(self, kind: r.FailureKind, error: BaseException) -> r.Failed:
        detail = str(error) or type(error).__name__
        reused = self.reused and self.written is not r.Written.NONE
        return r.Failed(id=self.send.id, kind=kind, written=self.written, reused=reused, detail=detail)


class Driver(Loop):
    """Exchanges by httpx's transport."""

    def __init__(self, session: Any, keychain: Any, tls: ssl.SSLContext | None) -> None:
        super().__init__(session, keychain, tls)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        verify = tls or ssl.create_default_context()
        self.transport = httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits)

    async def close(self) -> None:
        await self.transport.aclose()

    async def perform(self, send: r.Send) -> r.Response | r.Failed:
        if isinstance(send.body, r.Stream):
            return failed(send.id, r.FailureKind.CONTENT, "this driver sends no streams")
        if late(send):
            return failed(send.id, r.FailureKind.NOT_SENT, "too late")
        exchange = Exchange(self, send)
        try:
            return await self.exchange(send, exchange)
        except asyncio.CancelledError as error:
            return exchange.failed(r.FailureKind.ABORTED, error)
        except TooLate as error:
            return exchange.failed(r.FailureKind.NOT_SENT, error)
        except http1.ContentFailed as error:
            return exchange.failed(r.FailureKind.CONTENT, error)
        except (httpx.ConnectError, httpx.ConnectTimeout, r.RemoteProtocolError) as error:
            return exchange.failed(r.FailureKind.TLS if is_tls(error) else r.FailureKind.CONNECT, error)
        except httpx.ProtocolError as error:
            closed = "disconnected" in str(error) or "closed connection" in str(error)
            return exchange.failed(r.FailureKind.CLOSED if closed else r.FailureKind.PROTOCOL, error)
        except (httpx.TransportError, OSError) as error:
            return exchange.failed(r.FailureKind.CLOSED, error)

    async def exchange(self, send: r.Send, exchange: Exchange) -> r.Response | r.Failed:
        origin = http1.Origin.of(send.url)
        target, headers = http1.head_of(send)
        # The URL says where to connect to; the target goes out as it is.
        url = httpx.URL(scheme=origin.scheme, host=origin.host, port=origin.port)
        more = {"target": target.encode(), "trace": exchange.trace}
        request = httpx.Request(send.method, url, headers=headers, stream=exchange, extensions=more)
        answer = await self.transport.handle_async_request(request)
        body = bytearray()
        try:
            head = answer.headers.raw
            if sum(len(name) + len(value) + 4 for name, value in head) > send.max_head_bytes:
                return exchange.failed(r.FailureKind.PROTOCOL, ValueError("the answer's head is too long"))
            async for data in answer.stream:  # type: ignore[union-attr]
                body += data
                exchange.report(r.Phase.RECEIVING, len(body))
                if len(body) > send.max_body_bytes:
                    break
        finally:
            await answer.stream.aclose()  # type: ignore[union-attr]
        return r.Response(
            id=send.id,
            status=answer.status_code,
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in head),
            body=bytes(body[: send.max_body_bytes]),
            truncated=len(body) > send.max_body_bytes,
        )


def is_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None and not isinstance(error, ssl.SSLEOFError)


def run_session(
    session: Any, push_ids: Iterable[int], *, keychain: Any, tls: ssl.SSLContext | None = None
) -> dict[int, r.PushResult]:
    async def run() -> dict[int, r.PushResult]:
        return await Driver(session, keychain, tls).run(push_ids)

    return asyncio.run(run())
