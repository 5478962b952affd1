"""The part of a driver's loop that is the same in every driver, without I/O; `regproto.http1` has the HTTP.

    run = Run(session, push_ids)
    while (output := run.poll(now())) is not None:
        match output:
            case Send() as send:
                run.tasks[send.id] = ...   # begin it; give its answer, and its Progress, to `run.tell`
            case Abort(id=number):
                ...                        # stop run.tasks[number]; its one answer is still owed
            case NeedCredentials() as need:
                run.tasks[need.id] = ...   # begin to `look_up`; give the answer to `run.tell`
            case Wait() as wait:
                ...                        # until `run.tell` was called, `wait_timeout_s(wait, now())` at most
    return run.results

`check_time`, `kind_of` and `unsent` are for what comes before an exchange's first byte, `Pool` for the time after its
last.
`ExchangeProgress` and `answer` are for drivers with an HTTP of their own: `regproto.http1` needs neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

import attrs

from regproto._body_reader import ContentFailed
from regproto._model.errors import RemoteProtocolError
from regproto._model.messages import (
    Abort,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Input,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    NoManifests,
    Output,
    Phase,
    Progress,
    PushResult,
    Response,
    Send,
    Stream,
    Wait,
    Written,
)

__all__ = [
    "ExchangeProgress",
    "Pool",
    "Run",
    "Session",
    "TooLate",
    "answer",
    "check_time",
    "is_late",
    "kind_of",
    "look_up",
    "wait_timeout_s",
    "unsent",
]

PROGRESS_INTERVAL_S: Final = 0.1
"""The contract's ten reports a second."""

Connection = TypeVar("Connection")
Task = TypeVar("Task")
Keychain: TypeAlias = Callable[[NeedCredentials], Credentials | NoCredentials]


class Session(Protocol):
    """The part of `regproto.Session` that a driver uses while it runs it."""

    def poll(self, now: float) -> Output: ...
    def receive(self, now: float, event: Input, /) -> None: ...


class Run(Generic[Task]):
    """Some pushes of one session, until all of them are over: for drivers that send no `Stream`, keep no `Save` and
    show no news.

    Attributes:
        results: of the pushes that are over, by id.
        tasks: for the driver: what it needs to stop the `Send` or lookup of this id. `tell` forgets what is answered.
    """

    def __init__(self, session: Session, push_ids: Iterable[int]) -> None:
        self.results: dict[int, PushResult] = {}
        self.tasks: dict[int, Task] = {}
        self._session = session
        self._unfinished = set(push_ids)

    def poll(self, now: float) -> Send | Abort | NeedCredentials | Wait | None:
        """The next thing to do; None: the pushes are over. An `Abort` is always of something in `tasks`."""
        while self._unfinished:
            match self._session.poll(now):
                case Abort(id=number) as abort:
                    if number in self.tasks:
                        return abort
                case Send() as send if is_late(send, now):
                    self.tell(now, unsent(send, FailureKind.NOT_SENT, "too late"))
                case Send(body=Stream()) as send:
                    self.tell(now, unsent(send, FailureKind.CONTENT, "this driver sends no streams"))
                case Send() | NeedCredentials() | Wait() as output:
                    return output
                case NeedManifests(id=number):
                    self.tell(now, NoManifests(id=number, error="this driver sends no streams"))
                case Finished(push_id=number, result=result):
                    self.results[number] = result
                    self._unfinished.discard(number)
        return None

    def tell(self, now: float, event: Input | None) -> None:
        """Give the session an answer or a `Progress`; None (no `Progress` is due) does nothing. An earlier `Wait` is
        void then."""
        if event is None:
            return
        if not isinstance(event, Progress):
            self.tasks.pop(event.id, None)
        self._session.receive(now, event)


class TooLate(Exception):
    """`Send.not_after` has passed: `Failed(FailureKind.NOT_SENT)`."""


class Pool(Generic[Connection]):
    """Connections that are idle, the last used first; not for several threads at once.

    It has no bound: there are never more than were in use at the same time, which the session bounds.
    """

    def __init__(self) -> None:
        self._idle: dict[Hashable, list[Connection]] = {}

    def take(self, origin: Hashable) -> Connection | None:
        """A connection to this origin, to be checked: the peer may have closed it, or sent something nobody asked
        for."""
        idle = self._idle.get(origin)
        return idle.pop() if idle else None

    def give(self, origin: Hashable, connection: Connection) -> None:
        """Keeps one that can carry another exchange."""
        self._idle.setdefault(origin, []).append(connection)

    def drain(self) -> list[Connection]:
        """All of them, to be closed."""
        idle = [connection for connections in self._idle.values() for connection in connections]
        self._idle.clear()
        return idle


def is_late(send: Send, now: float) -> bool:
    """True if the request may not be begun any more. `Run.poll` checks this at the time of the poll."""
    return send.not_after is not None and now > send.not_after


def check_time(send: Send, now: float) -> None:
    """Check that the request may still be sent: to be called once there is a connection, before the first byte.

    Raises:
        TooLate: see there.
    """
    if is_late(send, now):
        raise TooLate("too late once there was a connection")


def unsent(send: Send, kind: FailureKind, detail: object) -> Failed:
    """The answer to a `Send` of which nothing was written; `detail` is words, or an error."""
    return Failed(id=send.id, kind=kind, written=Written.NONE, detail=str(detail) or type(detail).__name__)


def kind_of(
    error: BaseException, *, tls: type[BaseException] | tuple[()] = (), aborted: type[BaseException] | tuple[()] = ()
) -> FailureKind:
    """The kind of failure for an error that came before anything was written. Any other is raised again.

    Args:
        error: what was raised while there was no connection yet, or no content.
        tls: what the driver's library raises for a handshake that fails.
        aborted: what the driver raises to stop an exchange.
    """
    if isinstance(error, aborted):
        return FailureKind.ABORTED
    if isinstance(error, tls):
        return FailureKind.TLS
    match error:
        case TooLate():
            return FailureKind.NOT_SENT
        case ContentFailed():
            return FailureKind.CONTENT
        case OSError() | UnicodeError() | RemoteProtocolError():  # a name that is none; a URL that is none
            return FailureKind.CONNECT
    raise error


def answer_of(need: NeedCredentials, returned: object) -> Credentials | NoCredentials:
    """The answer that a keychain returned, or that it returned none. A wrong one is not shown: it may hold a secret."""
    if isinstance(returned, (Credentials, NoCredentials)) and returned.id == need.id:
        return returned
    kind = type(returned).__name__
    return NoCredentials(
        id=need.id, error=f"the keychain returned {kind}, not Credentials or NoCredentials with its id"
    )


def look_up(keychain: Keychain, need: NeedCredentials) -> Credentials | NoCredentials:
    """The keychain's answer, also where it raises. It may block for minutes."""
    try:
        return answer_of(need, keychain(need))
    except Exception as error:
        return NoCredentials(id=need.id, error=str(error) or type(error).__name__)


def wait_timeout_s(wait: Wait, now: float) -> float | None:
    """How long to wait for something to tell; None: for ever."""
    return None if wait.until == math.inf else max(0.0, wait.until - now)


class ExchangeProgress:
    """How far one exchange has come, for its `Progress` and its `Failed`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._written = Written.NONE
        self._fresh = False
        self._phase: Phase | None = None
        self._count = 0
        self._reported_at = -math.inf

    def reach(self, now: float, phase: Phase, more: int = 0) -> Progress | None:
        """The report that is due when this phase begins, or when `more` bytes of the body have moved in it.

        SENDING is to be said before the first byte is written, WAITING after the last.
        """
        if phase is Phase.CONNECTING:
            self._fresh = True
        elif phase is Phase.SENDING and self._written is Written.NONE:
            self._written = Written.SOME
        elif phase is Phase.WAITING:
            self._written = Written.ALL
        begins = phase is not self._phase
        self._count = more + (0 if begins and phase is not Phase.WAITING else self._count)
        if not begins and now - self._reported_at < PROGRESS_INTERVAL_S:
            return None
        self._phase, self._reported_at = phase, now
        return Progress(id=self._send.id, phase=phase, bytes=self._count)

    def failed(self, kind: FailureKind, detail: object) -> Failed:
        """The answer, if it ends here."""
        reused = self._written is not Written.NONE and not self._fresh
        return attrs.evolve(unsent(self._send, kind, detail), written=self._written, reused=reused)


def answer(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | bytearray) -> Response:
    """The answer from its raw headers and as much of its body as came: a byte more than is asked for is enough."""
    return Response(
        id=send.id,
        status=status,
        headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in headers),
        body=bytes(body[: send.max_body_bytes]),
        truncated=len(body) > send.max_body_bytes,
    )
