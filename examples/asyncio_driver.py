"""A driver on asyncio's own streams, in a page: `regproto.http1` has the HTTP, the core everything else.

    python -m regproto.testing check-driver examples.asyncio_driver:run_session \\
        --lacks "TLS cut" --lacks "streams" --lacks "stream fails" --lacks "drafts"

What it lacks: asyncio takes any end of a TLS stream for a good one. It sends no bodies that are a `Stream`.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

import regproto as r
from regproto import driving, http1


class Wire(NamedTuple):
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: http1.Connection

    async def is_quiet(self) -> bool:
        """True if nothing came while it was idle, not even its end."""
        try:
            async with asyncio.timeout(0):
                await self.reader.read(1)
        except OSError:  # a TimeoutError, if all is well
            return self.reader.exception() is None and not self.reader.at_eof()
        return False

    async def close(self) -> None:
        self.writer.transport.abort()
        with suppress(Exception, asyncio.CancelledError):  # an Abort comes too late now
            await self.writer.wait_closed()


class Driver:
    """Runs one session. `perform` and `aclose` have the network, the rest is for any transport."""

    def __init__(self, session: Any, push_ids: Iterable[int], keychain: Any, tls: ssl.SSLContext | None) -> None:
        self.todo, self.news = driving.Run[asyncio.Task[None]](session, push_ids), asyncio.Event()
        self.keychain, self.tls = keychain, tls or ssl.create_default_context()
        self.pool = driving.Pool[Wire]()

    async def run(self) -> dict[int, r.PushResult]:
        loop, tasks = asyncio.get_running_loop(), self.todo.tasks
        loop.set_default_executor(ThreadPoolExecutor(1_000))  # more than the core asks for at once: nothing queues
        async with aclosing(self), asyncio.TaskGroup() as group:
            while (output := self.todo.poll(time.monotonic())) is not None:
                match output:
                    case r.Send() | r.NeedCredentials():
                        tasks[output.id] = group.create_task(self.answer(output))
                    case r.Abort():
                        loop.call_soon(tasks[output.id].cancel)  # later: what has not begun would never answer
                    case r.Wait():
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self.news.wait(), driving.wait_timeout_s(output, time.monotonic()))
                        self.news.clear()
            for task in tasks.values():
                task.cancel()
        return self.todo.results

    def tell(self, event: r.Input | None) -> None:
        self.todo.tell(time.monotonic(), event)
        self.news.set()

    async def answer(self, output: r.Send | r.NeedCredentials) -> None:
        if isinstance(output, r.Send):
            self.tell(await self.perform(output))
        else:
            self.tell(await in_thread(driving.look_up, self.keychain, output))

    async def aclose(self) -> None:
        for wire in self.pool.drain():
            await wire.close()

    async def perform(self, send: r.Send) -> r.Response | r.Failed:
        """The one answer to a Send. Cancelled by an Abort."""
        try:
            wire = await self.connection(send, origin := http1.Origin.of(send.url))
            try:
                driving.check_time(send, time.monotonic())
                return await self.exchange(send, wire)
            finally:
                if wire.http.reusable:
                    self.pool.give(origin, wire)
                else:
                    await wire.close()
        except (asyncio.CancelledError, Exception) as error:
            kind = driving.kind_of(error, tls=ssl.SSLError, aborted=asyncio.CancelledError)
            return driving.unsent(send, kind, error)

    async def connection(self, send: r.Send, origin: http1.Origin) -> Wire:
        while (idle := self.pool.take(origin)) is not None:
            if await idle.is_quiet():
                return idle
            await idle.close()
        self.tell(r.Progress(id=send.id, phase=r.Phase.CONNECTING))
        tls = self.tls if origin.scheme == "https" else None
        reader, writer = await asyncio.open_connection(origin.host, origin.port, ssl=tls)
        if tls is None:
            writer.transport.set_write_buffer_limits(0)  # so that `drain` returns when the system has all of it
        return Wire(reader, writer, http1.Connection())

    async def exchange(self, send: r.Send, wire: Wire) -> r.Response | r.Failed:
        exchange = wire.http.start(send)
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self.write(send, exchange, wire.writer))
                while exchange.wants_read:
                    self.tell(exchange.report(time.monotonic()))
                    exchange.receive(await wire.reader.read(65_536))
                if not exchange.wants_write:  # else little is left after an early answer
                    writing.cancel()
        except* http1.ContentFailed as error:
            exchange.fail(r.FailureKind.CONTENT, str(error.exceptions[0]))
        except* OSError as error:
            exchange.fail(r.FailureKind.CLOSED, str(error.exceptions[0]))
        except* asyncio.CancelledError:
            exchange.fail(r.FailureKind.ABORTED, "aborted")
        assert exchange.outcome is not None
        return exchange.outcome

    async def write(self, send: r.Send, exchange: http1.Exchange, writer: asyncio.StreamWriter) -> None:
        content = http1.SliceReader(send.body)
        try:
            while (piece := exchange.piece(256 * 1024)) is not None:
                data = await in_thread(content.read, len(piece)) if isinstance(piece, http1.Span) else piece
                writer.write(data)
                await writer.drain()
                exchange.sent(len(data))
                self.tell(exchange.report(time.monotonic()))
        except OSError as error:
            exchange.write_failed(str(error))
        finally:
            content.close()


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    """Waits for a call that blocks; also when cancelled, for it may have a file."""
    work = asyncio.create_task(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(work)
    finally:
        await asyncio.gather(work, return_exceptions=True)


def run_session(
    session: Any, push_ids: Iterable[int], *, keychain: Any, tls: ssl.SSLContext | None = None
) -> dict[int, r.PushResult]:
    return asyncio.run(Driver(session, push_ids, keychain, tls).run())
