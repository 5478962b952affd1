"""The blocking driver: it moves a session forward until its pushes are finished.

A session is polled and told things in one thread only, which does nothing else. Each `Send` is performed in a thread
of its own, and each look into the keychain too; what they find comes back through one queue. The thread that called
`run` merely waits: an interrupt finds it there, and never in the middle of the core.
"""

from __future__ import annotations

import math
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol, Self, TypeAlias

import attrs

from regproto._model.errors import LocalProtocolError
from regproto._model.messages import (
    Abort,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Input,
    Manifests,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    NoManifests,
    Notice,
    Output,
    PushResult,
    Response,
    Save,
    Send,
    Wait,
    Written,
)
from regproto.driving import answer_of, reason, unsent
from regproto_sync.driver.exchange import ExchangeContext, ExchangeJob
from regproto_sync.driver.threads import Crash, Workers
from regproto_sync.driver.transport import Pool, Waiter
from regproto_sync.sources.draft import make
from regproto_sync.state.checkpoint_files import CheckpointStore

INTERRUPT_POLL_S: Final = 0.5
"""A signal that comes in the instant before a wait begins does not end it: it is noticed this much later."""
RELEASE_S: Final = 5.0
"""After an interrupt and its grace: how long a file read that hangs may keep `run` from returning."""

Keychain: TypeAlias = Callable[[NeedCredentials], Credentials | NoCredentials]


class Session(Protocol):
    """The part of `regproto.Session` that the driver uses."""

    def poll(self, now: float) -> Output: ...
    def receive(self, now: float, event: Input, /) -> None: ...
    def cancel(self, push_id: int, now: float) -> None: ...


class Driver:
    """Performs what sessions ask for, with blocking calls, threads and the system's own TLS.

    It keeps connections between runs; `close` it, or use it as a context manager. Several threads may call `run` at the
    same time, each with a session of its own. There is no support for proxies.

    Args:
        tls: for https; None: the system's trust store and default settings.
        clock: the `now` of every session run here.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._tls = tls
        self._tls_lock = threading.Lock()
        self._context = ExchangeContext(pool=Pool(), tls=self._tls_context, clock=clock)
        self._workers = Workers()

    def run(
        self,
        session: Session,
        push_ids: Iterable[int],
        *,
        keychain: Keychain,
        on_notice: Callable[[Notice], None] | None = None,
        keeper: CheckpointStore | None = None,
        cancel_grace_s: float = 10.0,
    ) -> dict[int, PushResult]:
        """Moves `session` forward until all these pushes are finished.

        An exception (KeyboardInterrupt, or one of `on_notice`) cancels them. They may then give back their upload
        sessions for at most `cancel_grace_s`, before everything is stopped and the exception raised again; a second
        interrupt stops it at once.

        Args:
            session: nobody else may use it meanwhile.
            push_ids: as `submit` gave them.
            keychain: asked for credentials, in a thread of its own; it may be slow. Its exceptions become the text of
                a `NoCredentials`.
            on_notice: told the news, in one other thread, which waits for it.
            keeper: given what a session that was made with `save=True` wants kept, in that same thread.
            cancel_grace_s: see above.

        Returns:
            The results of these pushes, and of others of the session that were finished meanwhile.

        Raises:
            LocalProtocolError: one of `push_ids` is not in flight in this session.
        """
        loop = _Loop(
            session, frozenset(push_ids), self._context, self._workers, keychain, on_notice, keeper, cancel_grace_s
        )
        thread = threading.Thread(target=loop.run, name="regproto-session", daemon=True)
        interrupts: list[BaseException] = []
        left_s, stops = math.inf, 0
        while left_s > 0:
            try:
                if not interrupts and thread.ident is None:
                    thread.start()
                while stops < len(interrupts):
                    stops += 1
                    loop.tell(_Stop())
                if loop.done.wait(INTERRUPT_POLL_S):
                    break
                left_s -= INTERRUPT_POLL_S
            except BaseException as error:
                interrupts.append(error)
                # A thread that could not be started is not waited for.
                left_s = cancel_grace_s + RELEASE_S if thread.ident is not None else 0.0
        if interrupts:
            loop.tell(_Stop())
            raise interrupts[0]
        if loop.error is not None:
            raise loop.error
        return loop.results

    def close(self) -> None:
        """Closes all connections and ends all threads. Not while something runs."""
        self._context.pool.close()
        self._workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tls_context(self) -> ssl.SSLContext:
        # Made when first needed: reading the system's certificates takes tens of milliseconds.
        with self._tls_lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
            return self._tls


def run_session(
    session: Session, push_ids: Iterable[int], *, keychain: Keychain, tls: ssl.SSLContext | None = None
) -> dict[int, PushResult]:
    """`Driver.run` with a driver of its own, closed at the end: the form that `regproto.testing.check_driver` takes."""
    with Driver(tls=tls) as driver:
        return driver.run(session, push_ids, keychain=keychain)


@attrs.frozen
class _Stop:
    """Told to a loop: cancel, or when it does that already, give up."""


class _Stopped(Exception):
    """A loop was told `_Stop`."""


@attrs.frozen
class _KeychainJob:
    """A look into the keychain. It is never waited for: a helper program may take minutes."""

    need: NeedCredentials
    keychain: Keychain
    tell: Callable[[Input | Crash], None]

    is_stuck = True

    @property
    def id(self) -> int:
        return self.need.id

    def work(self, waiter: Waiter) -> Credentials | NoCredentials:
        try:
            return answer_of(self.need, self.keychain(self.need))
        except Exception as error:
            return NoCredentials(id=self.id, error=reason(error))


@attrs.frozen
class _DraftJob:
    """The making of a manifest. It is never waited for."""

    need: NeedManifests
    tell: Callable[[Input | Crash], None]

    is_stuck = True

    @property
    def id(self) -> int:
        return self.need.id

    def work(self, waiter: Waiter) -> Manifests | NoManifests:
        return make(self.need)


class _Loop:
    """One `run`: the only thread that touches the session."""

    def __init__(
        self,
        session: Session,
        push_ids: frozenset[int],
        context: ExchangeContext,
        workers: Workers,
        keychain: Keychain,
        on_notice: Callable[[Notice], None] | None,
        checkpoint_store: CheckpointStore | None,
        grace_s: float,
    ) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.results: dict[int, PushResult] = {}
        self._session = session
        self._waiting = set(push_ids)
        self._context = context
        self._clock = context.clock
        self._workers = workers
        self._keychain = keychain
        self._on_notice = on_notice
        self._checkpoint_store = checkpoint_store
        self._grace_s = grace_s
        self._inbox: queue.SimpleQueue[Input | Crash | _Stop] = queue.SimpleQueue()
        self._exchanges: dict[int, ExchangeJob] = {}
        self._lookups: dict[int, Input] = {}
        """By id, the answer to one that is not over when all else is."""

    def tell(self, event: Input | Crash | _Stop) -> None:
        """Wakes the loop with news. Called from any thread."""
        self._inbox.put(event)

    def run(self) -> None:
        """Until all pushes are finished, then releases what is left; `error` and `results` say how it went."""
        try:
            try:
                self._serve(math.inf)
            except _Stopped:
                self._cancel()
            except BaseException as error:
                self.error = error
                self._on_notice = self._checkpoint_store = None
                self._cancel()
            finally:
                self._release()
        except _Stopped:
            pass
        except BaseException as error:
            self.error = self.error or error
        finally:
            self.done.set()

    def _serve(self, deadline: float) -> None:
        while self._waiting and self._clock() < deadline:
            match self._session.poll(self._clock()):
                case Send() as send:
                    self._start(send)
                case Abort(id=exchange_id):
                    if (exchange := self._exchanges.get(exchange_id)) is not None:
                        exchange.abort()
                case NeedCredentials() as need:
                    self._lookups[need.id] = NoCredentials(id=need.id, error="the keychain was too slow")
                    self._workers.start(_KeychainJob(need, self._keychain, self.tell))
                case Save(data=data):
                    if self._checkpoint_store is not None:
                        self._checkpoint_store.save(data)
                case NeedManifests() as draft:
                    self._lookups[draft.id] = NoManifests(id=draft.id, error="the driver was closed")
                    self._workers.start(_DraftJob(draft, self.tell))
                case Notice() as notice:
                    if self._on_notice is not None:
                        self._on_notice(notice)
                case Finished(push_id=push_id, result=result):
                    self.results[push_id] = result
                    self._waiting.discard(push_id)
                case Wait(until=until):
                    self._wait(until, deadline)

    def _start(self, send: Send) -> None:
        exchange = ExchangeJob(send, self._context, self.tell)
        try:
            self._workers.start(exchange)
        except (OSError, RuntimeError) as error:
            # Out of descriptors or threads, which may pass.
            self._session.receive(self._clock(), unsent(send, FailureKind.CONNECT, reason(error)))
        else:
            self._exchanges[send.id] = exchange

    def _wait(self, until: float, deadline: float) -> None:
        """Waits for news, and takes all there is."""
        if until == math.inf and not self._exchanges and not self._lookups and self._inbox.empty():
            raise LocalProtocolError(f"not in flight in this session: push {sorted(self._waiting)}")
        timeout_s = min(until, deadline) - self._clock()
        try:
            self._take(self._inbox.get(timeout=None if timeout_s == math.inf else max(0.0, timeout_s)))
            while True:
                self._take(self._inbox.get_nowait())
        except queue.Empty:
            pass

    def _take(self, event: Input | Crash | _Stop) -> None:
        match event:
            case _Stop():
                raise _Stopped
            case Crash(id=job_id, error=error):
                if self._exchanges.pop(job_id, None) is not None:
                    lost = Failed(id=job_id, kind=FailureKind.CLOSED, written=Written.SOME, detail=repr(error))
                    self._session.receive(self._clock(), lost)
                raise error
            case Response() | Failed():
                del self._exchanges[event.id]
            case Credentials() | NoCredentials() | Manifests() | NoManifests():
                del self._lookups[event.id]
        self._session.receive(self._clock(), event)

    def _cancel(self) -> None:
        """Cancels what is not finished, and lets it end in good order for a while."""
        for push_id in self._waiting:
            self._session.cancel(push_id, self._clock())
        self._serve(self._clock() + self._grace_s)

    def _release(self) -> None:
        """Stops the exchanges that are left, and gives the session the answers it is owed."""
        for exchange in self._exchanges.values():
            exchange.abort()
        owed: list[Response | Failed] = []
        while len(owed) < len(self._exchanges):
            match self._inbox.get():
                case (Response() | Failed()) as answer:
                    owed.append(answer)
                case Crash(id=job_id):
                    self._exchanges.pop(job_id, None)
        self._exchanges.clear()
        for event in (*owed, *self._lookups.values()):
            self._session.receive(self._clock(), event)
