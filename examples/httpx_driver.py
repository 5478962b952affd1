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

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, closing
from typing import Any

import httpx

import regproto as r
from examples import asyncio_driver
from regproto import driving, http1

PHASES = {
    "connection.connect_tcp.started": r.Phase.CONNECTING,
    "http11.send_request_headers.started": r.Phase.SENDING,
    "http11.send_request_body.complete": r.Phase.WAITING,
    "http11.receive_response_headers.complete": r.Phase.RECEIVING,
}


class Exchange(httpx.AsyncByteStream):
    """One exchange: the body that httpx reads, and how far it came."""

    def __init__(self, send: r.Send, tell: Callable[[r.Input | None], None]) -> None:
        self.send, self.tell = send, tell
        self.content, self.progress = http1.SliceReader(send.body), driving.ExchangeProgress(send)

    def reach(self, phase: r.Phase, more: int = 0) -> None:
        self.tell(self.progress.reach(time.monotonic(), phase, more))

    async def trace(self, event: str, info: Any) -> None:
        """Told by httpx of each thing it begins and ends."""
        if (phase := PHASES.get(event)) is r.Phase.SENDING:
            driving.check_time(self.send, time.monotonic())
        if phase is not None:
            self.reach(phase)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await asyncio_driver.in_thread(self.content.read, 64 * 1024):
            yield data
            self.reach(r.Phase.SENDING, len(data))


class Driver(asyncio_driver.Driver):
    """Exchanges by httpx's transport."""

    def __init__(self, session: Any, push_ids: Iterable[int], keychain: Any, tls: ssl.SSLContext | None) -> None:
        super().__init__(session, push_ids, keychain, tls)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        self.transport = httpx.AsyncHTTPTransport(verify=self.tls, trust_env=False, limits=limits)

    async def aclose(self) -> None:
        await self.transport.aclose()

    async def perform(self, send: r.Send) -> r.Response | r.Failed:
        exchange = Exchange(send, self.tell)
        try:
            with closing(exchange.content):
                return await self.ask(send, exchange)
        except (asyncio.CancelledError, Exception) as error:
            return exchange.progress.failed(kind_of(error), error)

    async def ask(self, send: r.Send, exchange: Exchange) -> r.Response:
        origin = http1.Origin.of(send.url)
        target, headers = http1.head_of(send)
        # The URL says where to connect to; the target goes out as it is.
        url = httpx.URL(scheme=origin.scheme, host=origin.host, port=origin.port)
        more = {"target": target.encode(), "trace": exchange.trace}
        request = httpx.Request(send.method, url, headers=headers, stream=exchange, extensions=more)
        answer, body = await self.transport.handle_async_request(request), bytearray()
        async with aclosing(answer.stream):  # type: ignore[type-var]
            if sum(len(name) + len(value) + 4 for name, value in answer.headers.raw) > send.max_head_bytes:
                raise httpx.RemoteProtocolError("the answer's head is too long")
            async for data in answer.stream:  # type: ignore[union-attr]
                body += data
                exchange.reach(r.Phase.RECEIVING, len(data))
                if len(body) > send.max_body_bytes:
                    break
        return driving.answer(send, answer.status_code, answer.headers.raw, body)


def kind_of(error: BaseException) -> r.FailureKind:
    match error:
        case httpx.ConnectError() if is_tls(error):
            return r.FailureKind.TLS
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return r.FailureKind.CONNECT
        case httpx.ProtocolError() if not re.search("disconnected|closed connection", str(error)):
            return r.FailureKind.PROTOCOL
        case httpx.TransportError() | OSError():
            return r.FailureKind.CLOSED
    return driving.kind_of(error, aborted=asyncio.CancelledError)


def is_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None and not isinstance(error, ssl.SSLEOFError)


def run_session(
    session: Any, push_ids: Iterable[int], *, keychain: Any, tls: ssl.SSLContext | None = None
) -> dict[int, r.PushResult]:
    return asyncio.run(Driver(session, push_ids, keychain, tls).run())
