"""A driver on asyncio's own streams, in a page: `regproto.http1` has the HTTP, the core everything else.

    python -m regproto.testing check-driver examples.asyncio_driver:run_session \\
        --lacks "TLS cut" --lacks "streams" --lacks "stream fails" --lacks "drafts"

What it lacks: asyncio takes any end of a TLS stream for a good one. It sends no bodies that are a `Stream`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import regproto as r
from regproto import http1

PIECE_BYTES = 256 * 1024
"""Read from content and written at once."""


class Loop:
    """Runs one session: the part that has nothing to do with HTTP."""

    def __init__(self, session: Any, keychain: Any, tls: ssl.SSLContext | None) -> None:
        self.session, self.keychain, self.tls = session, keychain, tls
        self.tasks: dict[int, asyncio.Task[Any]] = {}
        self.news = asyncio.Event()
        self.mistakes: list[BaseException] = []
        self.threads = ThreadPoolExecutor(1_000)  # more than the core asks for at once: nothing queues

    async def run(self, push_ids: Iterable[int]) -> dict[int, r.PushResult]:
        results: dict[int, r.PushResult] = {}
        waiting = set(push_ids)
        try:
            while waiting:
                if self.mistakes:
                    raise self.mistakes[0]
                match self.session.poll(time.monotonic()):
                    case r.Send() as send:
                        self.begin(send.id, self.perform(send))
                    case r.Abort(id=number) if number in self.tasks:
                        self.tasks[number].cancel()
                    case r.NeedCredentials() as need:
                        self.begin(need.id, self.look_up(need))
                    case r.NeedContent(id=number):
                        self.tell(r.NoContent(id=number, error="this driver sends no streams"))
                    case r.Finished(push_id=number, result=result):
                        results[number] = result
                        waiting.discard(number)
                    case r.Wait(until=until):
                        await self.wait(until)
            return results
        finally:
            for task in (tasks := list(self.tasks.values())):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()
            self.threads.shutdown()

    async def wait(self, until: float) -> None:
        patience = None if until == math.inf else max(0.0, until - time.monotonic())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.news.wait(), patience)
        self.news.clear()

    def tell(self, event: Any) -> None:
        self.session.receive(time.monotonic(), event)
        self.news.set()

    def begin(self, number: int, work: Any) -> None:
        def over(task: asyncio.Task[Any]) -> None:
            del self.tasks[number]
            if not task.cancelled() and (error := task.exception()) is not None:
                self.mistakes.append(error)  # of ours: `run` raises it
                self.news.set()
                return
            # A task that is cancelled before it began to run has done nothing.
            self.tell(failed(number, r.FailureKind.ABORTED, "aborted") if task.cancelled() else task.result())

        self.tasks[number] = asyncio.create_task(work)
        self.tasks[number].add_done_callback(over)

    async def look_up(self, need: r.NeedCredentials) -> Any:
        try:
            return await self.in_thread(self.keychain, need)
        except Exception as error:
            return r.NoCredentials(id=need.id, error=str(error))

    async def in_thread(self, call: Any, *arguments: Any) -> Any:
        """Waits for a call that blocks; also when cancelled, for it may have a file."""
        work = asyncio.get_running_loop().run_in_executor(self.threads, call, *arguments)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    async def perform(self, send: r.Send) -> r.Response | r.Failed:
        """The one answer to a Send. Cancelled by an Abort."""
        raise NotImplementedError

    async def close(self) -> None:
        """Closes what is kept between exchanges."""
        raise NotImplementedError


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.http, self.reader, self.writer = http1.Connection(), reader, writer
        if writer.get_extra_info("ssl_object") is None:
            writer.transport.set_write_buffer_limits(0)  # so that `drain` returns when the system has all of it
        self.ears: asyncio.Task[bytes] | None = None

    def rest(self) -> None:
        """It is idle: whatever comes now nobody asked for."""
        self.ears = asyncio.create_task(self.reader.read(1))

    async def is_quiet(self) -> bool:
        """It was idle: True if nothing came, not even its end."""
        if self.ears is None or self.ears.done():
            return False
        self.ears.cancel()
        await asyncio.gather(self.ears, return_exceptions=True)
        return self.ears.cancelled()

    async def close(self) -> None:
        await self.is_quiet()
        self.writer.transport.abort()
        with contextlib.suppress(Exception):
            await self.writer.wait_closed()


class Driver(Loop):
    """Exchanges on asyncio's streams."""

    def __init__(self, session: Any, keychain: Any, tls: ssl.SSLContext | None) -> None:
        super().__init__(session, keychain, tls)
        self.idle: dict[http1.Origin, list[Wire]] = {}

    async def close(self) -> None:
        for wire in (wire for idle in self.idle.values() for wire in idle):
            await wire.close()

    async def perform(self, send: r.Send) -> r.Response | r.Failed:
        if isinstance(send.body, r.Stream):
            return failed(send.id, r.FailureKind.CONTENT, "this driver sends no streams")
        wire: Wire | None = None
        try:
            if late(send):
                return failed(send.id, r.FailureKind.NOT_SENT, "too late")
            wire = await self.connection(send)
            if late(send):
                return failed(send.id, r.FailureKind.NOT_SENT, "too late once there was a connection")
            return await self.exchange(send, wire)
        except ssl.SSLError as error:
            return failed(send.id, r.FailureKind.TLS, str(error))
        except (OSError, UnicodeError, r.RemoteProtocolError) as error:
            return failed(send.id, r.FailureKind.CONNECT, str(error))
        finally:
            if wire is not None and wire.http.reusable:
                wire.rest()
                self.idle.setdefault(http1.Origin.of(send.url), []).append(wire)
            elif wire is not None:
                await wire.close()

    async def connection(self, send: r.Send) -> Wire:
        origin = http1.Origin.of(send.url)
        while idle := self.idle.get(origin):
            wire = idle.pop()
            if await wire.is_quiet():
                return wire
            await wire.close()
        self.tell(r.Progress(id=send.id, phase=r.Phase.CONNECTING))
        tls = (self.tls or ssl.create_default_context()) if origin.scheme == "https" else None
        return Wire(*await asyncio.open_connection(origin.host, origin.port, ssl=tls))

    async def exchange(self, send: r.Send, wire: Wire) -> r.Response | r.Failed:
        exchange = wire.http.start(send)
        writing = asyncio.create_task(self.write(send, wire, exchange))
        try:
            self.report(exchange)
            while exchange.wants_read:
                try:
                    exchange.receive(await wire.reader.read(65_536))
                except OSError as error:
                    exchange.fail(r.FailureKind.CLOSED, str(error))
                self.report(exchange)
            if exchange.wants_write:  # little is left after an early answer
                await writing
        except asyncio.CancelledError:
            exchange.fail(r.FailureKind.ABORTED, "aborted")
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        assert exchange.outcome is not None
        return exchange.outcome

    async def write(self, send: r.Send, wire: Wire, exchange: http1.Exchange) -> None:
        content = http1.SliceReader(send.body) if isinstance(send.body, r.BlobSlice) else None
        try:
            while (piece := exchange.piece(PIECE_BYTES)) is not None:
                data: bytes | memoryview
                if isinstance(piece, http1.Span):
                    assert content is not None
                    data = await self.in_thread(content.read, piece.size)
                else:
                    data = piece
                wire.writer.write(data)
                await wire.writer.drain()
                exchange.sent(len(data))
                self.report(exchange)
        except http1.ContentFailed as error:
            exchange.fail(r.FailureKind.CONTENT, str(error))
            wire.writer.transport.abort()  # ends the reading, too
        except OSError as error:
            exchange.write_failed(str(error))
        finally:
            if content is not None:
                content.close()

    def report(self, exchange: http1.Exchange) -> None:
        if (progress := exchange.report(time.monotonic())) is not None:
            self.tell(progress)


def late(send: r.Send) -> bool:
    return send.not_after is not None and time.monotonic() > send.not_after


def failed(number: int, kind: r.FailureKind, detail: str) -> r.Failed:
    """A failure before anything was written."""
    return r.Failed(id=number, kind=kind, written=r.Written.NONE, detail=detail)


def run_session(
    session: Any, push_ids: Iterable[int], *, keychain: Any, tls: ssl.SSLContext | None = None
) -> dict[int, r.PushResult]:
    async def run() -> dict[int, r.PushResult]:
        return await Driver(session, keychain, tls).run(push_ids)

    return asyncio.run(run())
