"""The trio driver: it moves a session forward while any number of tasks push through it.

One task polls the session; each `Send` is performed in a task of its own, and each look into the keychain too. All of
them belong to the nursery of `drive`, and trio runs one at a time, so nothing needs a lock.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol, TypeAlias, assert_never

import attrs
import trio

from regproto._model.messages import (
    Abort,
    Credentials,
    Finished,
    Input,
    Manifests,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    NoManifests,
    Notice,
    Output,
    PushOutcome,
    PushResult,
    Save,
    Send,
    Wait,
)
from regproto._model.plan import PushPlan
from regproto.driving import answer_of
from regproto_sync.sources.draft import make
from regproto_sync.state.checkpoint_files import CheckpointStore
from regproto_trio.driver.exchange import ExchangeContext, ExchangeTask
from regproto_trio.driver.transport import Pool, reason

Keychain: TypeAlias = Callable[[NeedCredentials], Credentials | NoCredentials]


class Session(Protocol):
    """The part of `regproto.Session` that the driver uses."""

    def submit(self, push: PushPlan, /) -> int: ...
    def poll(self, now: float) -> Output: ...
    def receive(self, now: float, event: Input, /) -> None: ...
    def cancel(self, push_id: int, now: float) -> None: ...


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def drive(
    session: Session,
    *,
    keychain: Keychain,
    tls: ssl.SSLContext | None = None,
    on_notice: Callable[[Notice], None] | None = None,
    keeper: CheckpointStore | None = None,
    clock: Callable[[], float] = trio.current_time,
    cancel_grace_s: float = 10.0,
) -> AsyncIterator[Driver]:
    """Moves `session` forward for as long as the block runs; tasks in it push through the `Driver` it gives.

        async with drive(session, keychain=keychain) as driver:
            result = await driver.push(plan)

    Connections are kept from one push to the next. When the block ends, so does everything: an exception of its passes
    through as it is, never in a group.

    Args:
        session: nobody else may use it meanwhile.
        keychain: asked for credentials, in a thread; it may be slow, and is abandoned if its answer is no longer
            wanted. Its exceptions become the text of a `NoCredentials`.
        tls: for https; None: the system's trust store and default settings.
        on_notice: told the news, in trio's thread, so it must not block. An exception of its ends the block.
        keeper: given what a session that was made with `save=True` wants kept, in a thread. An exception of its ends
            the block.
        clock: the `now` of the session.
        cancel_grace_s: how long pushes that are cancelled may take to give back their upload sessions.
    """
    driver = Driver(session, keychain, tls, on_notice, keeper, clock, cancel_grace_s)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver._run, nursery.cancel_scope, name="regproto session")
            try:
                yield driver
            except BaseException as error:
                failure = error
            finally:
                driver._close()
    except BaseException as error:
        # The nursery's own: at most a cancellation that came while it waited for its end.
        failure = _first(error) if failure is None else failure
    if driver._error is not None:
        raise driver._error
    if failure is not None:
        raise failure


def run_session(
    session: Session, push_ids: Iterable[int], *, keychain: Keychain, tls: ssl.SSLContext | None = None
) -> dict[int, PushResult]:
    """Runs a session until these pushes are over, in a `trio.run`; what `testing.check_driver` checks."""

    async def run() -> dict[int, PushResult]:
        results: dict[int, PushResult] = {}

        async def finish(push_id: int) -> None:
            results[push_id] = await driver.finish(push_id)

        async with drive(session, keychain=keychain, tls=tls) as driver:
            async with trio.open_nursery() as nursery:
                for push_id in push_ids:
                    nursery.start_soon(finish, push_id)
        return results

    return trio.run(run)


@attrs.define(eq=False)
class _Waiting:
    """A task that waits for its push."""

    over: trio.Event = attrs.field(factory=trio.Event)
    result: PushResult | None = None


class Driver:
    """Shares one session among tasks. Made by `drive`."""

    def __init__(
        self,
        session: Session,
        keychain: Keychain,
        tls: ssl.SSLContext | None,
        on_notice: Callable[[Notice], None] | None,
        checkpoint_store: CheckpointStore | None,
        clock: Callable[[], float],
        grace_s: float,
    ) -> None:
        self._session = session
        self._keychain = keychain
        self._tls = tls
        self._tls_lock = trio.Lock()
        self._on_notice = on_notice
        self._checkpoint_store = checkpoint_store
        self._clock = clock
        self._grace_s = grace_s
        # The core bounds what is in flight, so nothing may ever queue for a thread.
        self._threads = trio.CapacityLimiter(math.inf)
        self._context = ExchangeContext(Pool(), self._tls_context, clock, self._threads)
        self._pushes: dict[int, _Waiting] = {}
        self._finished: dict[int, PushResult] = {}  # of pushes that nobody waited for yet
        self._exchanges: dict[int, ExchangeTask] = {}
        self._news = trio.Event()
        self._closing = False
        self._deadline = math.inf
        self._error: BaseException | None = None

    @trio.lowlevel.enable_ki_protection
    async def push(self, plan: PushPlan) -> PushResult:
        """Performs a push beside those of other tasks, and returns when everything is there.

        Cancelled (or interrupted), it lets the session give back what the push has open at the registry, for at most
        the grace of `drive`, before it raises.

        Raises:
            RegprotoError: the push failed; other pushes go on.
            trio.ClosedResourceError: the block of `drive` has ended, before this or meanwhile.
        """
        if self._closing:
            raise trio.ClosedResourceError("the driver is closed")
        result = await self.finish(self._session.submit(plan))
        if result.outcome is PushOutcome.CANCELLED:
            raise trio.ClosedResourceError("the driver was closed before the push was over")
        if result.error is not None:
            raise result.error
        return result

    @trio.lowlevel.enable_ki_protection
    async def finish(self, push_id: int) -> PushResult:
        """Waits for the end of a push that was submitted to the session, and returns how it ended.

        Once for each push. Cancelled, it does what `push` does.

        Raises:
            trio.ClosedResourceError: the block of `drive` has ended, before this or meanwhile.
        """
        if self._closing:
            raise trio.ClosedResourceError("the driver is closed")
        if push_id in self._finished:
            await trio.lowlevel.checkpoint()
            return self._finished.pop(push_id)
        waiting = self._pushes[push_id] = _Waiting()
        self._news.set()
        try:
            await waiting.over.wait()
        except BaseException:
            self._session.cancel(push_id, self._clock())
            self._news.set()
            with trio.CancelScope(deadline=trio.current_time() + self._grace_s, shield=True):
                await waiting.over.wait()
            raise
        finally:
            self._pushes.pop(push_id, None)
        if self._error is not None:
            raise self._error
        if waiting.result is None:
            raise trio.ClosedResourceError("the driver was closed before the push was over")
        return waiting.result

    # --- the session ---

    @trio.lowlevel.enable_ki_protection
    async def _run(self, block: trio.CancelScope) -> None:
        """Until `_close`, and the end or the grace of all pushes. Ends the block if anything fails."""
        try:
            # Shielded: what ends a push is its own task, which needs us to give its upload sessions back.
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    await self._serve(nursery)
                    for exchange in self._exchanges.values():
                        exchange.abort()
                    # What is left are exchanges, whose answers the session is owed, and lookups.
                    while self._exchanges:
                        await self._wait(math.inf)
                    nursery.cancel_scope.cancel()
        except BaseException as error:
            self._error = self._error or _first(error)
        self._closing = True
        self._context.pool.close()
        for waiting in self._pushes.values():
            waiting.over.set()
        if self._error is not None:
            block.cancel()

    async def _serve(self, nursery: trio.Nursery) -> None:
        while (self._pushes or not self._closing) and trio.current_time() < self._deadline:
            match self._session.poll(self._clock()):
                case Send() as send:
                    exchange = ExchangeTask(send, self._context, self._tell)
                    self._exchanges[send.id] = exchange
                    nursery.start_soon(self._perform, send.id, exchange, name=exchange.name)
                case Abort(id=exchange_id):
                    if (aborted := self._exchanges.get(exchange_id)) is not None:
                        aborted.abort()
                case NeedCredentials() as need:
                    nursery.start_soon(self._look_up, need, name=f"regproto keychain {need.registry}")
                case Save(data=data):
                    await self._keep(data)
                case NeedManifests() as draft:
                    nursery.start_soon(self._make, draft, name="regproto draft")
                case Notice() as notice:
                    self._show(notice)
                    # There may be thousands in a row, and others want to run.
                    await trio.lowlevel.checkpoint()
                case Finished(push_id=push_id, result=result):
                    waiting = self._pushes.pop(push_id, None)
                    if waiting is None:
                        self._finished[push_id] = result
                    else:
                        waiting.result = result
                        waiting.over.set()
                case Wait(until=until):
                    await self._wait(min(until - self._clock(), self._deadline - trio.current_time()))
                case unknown:
                    assert_never(unknown)

    async def _wait(self, timeout_s: float) -> None:
        with trio.move_on_after(max(0.0, timeout_s)):
            await self._news.wait()
        self._news = trio.Event()

    def _tell(self, event: Input) -> None:
        self._session.receive(self._clock(), event)
        self._news.set()

    def _show(self, notice: Notice) -> None:
        if self._on_notice is None:
            return
        try:
            self._on_notice(notice)
        except BaseException as error:
            self._error = error
            self._on_notice = None
            self._close()

    async def _keep(self, data: bytes) -> None:
        if self._checkpoint_store is None:
            return
        try:
            await trio.to_thread.run_sync(self._checkpoint_store.save, data, limiter=self._threads)
        except BaseException as error:
            self._error = error
            self._checkpoint_store = None
            self._close()

    def _close(self) -> None:
        """No further pushes; those under way are cancelled and given their grace."""
        if self._closing:
            return
        self._closing = True
        self._deadline = trio.current_time() + self._grace_s
        for push_id in self._pushes:
            self._session.cancel(push_id, self._clock())
        self._news.set()

    # --- tasks: protected each, for a KeyboardInterrupt is raised in whatever runs, and only whoever waits may have it

    @trio.lowlevel.enable_ki_protection
    async def _perform(self, exchange_id: int, exchange: ExchangeTask) -> None:
        answer = await exchange.perform()
        del self._exchanges[exchange_id]
        self._tell(answer)

    @trio.lowlevel.enable_ki_protection
    async def _look_up(self, need: NeedCredentials) -> None:
        answer: Credentials | NoCredentials = NoCredentials(id=need.id, error="the keychain was too slow")
        try:
            answer = answer_of(
                need,
                await trio.to_thread.run_sync(self._keychain, need, abandon_on_cancel=True, limiter=self._threads),
            )
        except Exception as error:
            answer = NoCredentials(id=need.id, error=reason(error))
        finally:
            self._tell(answer)

    async def _make(self, need: NeedManifests) -> None:
        answer: Manifests | NoManifests = NoManifests(id=need.id, error="the driver was closed")
        try:
            answer = await trio.to_thread.run_sync(make, need, abandon_on_cancel=True, limiter=self._threads)
        finally:
            self._tell(answer)

    async def _tls_context(self) -> ssl.SSLContext:
        # Made when first needed, and in a thread: reading the system's certificates takes tens of milliseconds.
        async with self._tls_lock:
            if self._tls is None:
                self._tls = await trio.to_thread.run_sync(ssl.create_default_context, limiter=self._threads)
            return self._tls


def _first(error: BaseException) -> BaseException:
    """The first error in a nursery's group that is not a mere cancellation."""
    while isinstance(error, BaseExceptionGroup):
        error = next((e for e in error.exceptions if not isinstance(e, trio.Cancelled)), error.exceptions[0])
    return error
