"""The two ends of a driver, scripted: a session that says what it is told to, and peers on raw sockets."""

from __future__ import annotations

import math
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

import attrs

from regproto._model.digest import Digest
from regproto._model.messages import (
    Abort,
    BlobSlice,
    Body,
    Failed,
    Finished,
    Input,
    Output,
    Phase,
    Progress,
    PushOutcome,
    PushResult,
    Response,
    Send,
    Wait,
)
from regproto.testing.driver_check.peer import full_backlog as full_backlog
from regproto.testing.driver_check.peer import refused_url as refused_url

PATIENCE_S = 20.0
"""How long anything here may take before the test has failed; nothing waits this long when all is well."""

RESULT = PushResult(outcome=PushOutcome.PUSHED, repository="r/x", digest=None)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def send(id: int, url: str, method: str = "GET", body: Body = b"", **changes: Any) -> Send:
    """A `Send` with limits of 10 kB."""
    plain = Send(id=id, method=method, url=url, headers=(), body=body, max_head_bytes=10_000, max_body_bytes=10_000)
    return attrs.evolve(plain, **changes)


def blob_slice(source: object, size: int, offset: int = 0) -> BlobSlice:
    """A slice of some blob."""
    return BlobSlice(source=source, digest=Digest.of(b""), offset=offset, size=size)


# --- the session ------------------------------------------------------------------------------------------------

Condition = Callable[["ScriptedSession"], bool]


class ScriptedSession:
    """Says one output after the other, and waits at each condition until it holds. Push 0 finishes at the end."""

    def __init__(self, *script: Output | Condition) -> None:
        self.inputs: list[Input] = []
        self.cancelled: list[int] = []
        self.threads: set[str] = set()
        self._script = list(script)
        self._finished = False

    def poll(self, now: float) -> Output:
        self.threads.add(threading.current_thread().name)
        if not self._script:
            if self._finished:
                return Wait(until=math.inf)
            self._finished = True
            return Finished(push_id=0, result=RESULT)
        step = self._script[0]
        if not isinstance(step, Output):
            if not step(self):
                return Wait(until=now + PATIENCE_S)
            self._script.pop(0)
            return self.poll(now)
        self._script.pop(0)
        return step

    def receive(self, now: float, what: Input, /) -> None:
        self.threads.add(threading.current_thread().name)
        self.inputs.append(what)

    def cancel(self, push_id: int, now: float) -> None:
        self.cancelled.append(push_id)

    def answers(self, id: int) -> list[Response | Failed]:
        """All the answers to one Send: there should be one."""
        return [i for i in self.inputs if isinstance(i, Response | Failed) and i.id == id]

    def phases(self, id: int) -> list[Phase]:
        """The phases one exchange has reported."""
        return [i.phase for i in self.inputs if isinstance(i, Progress) and i.id == id]


def answered(*ids: int) -> Condition:
    """Until these were answered."""
    return lambda session: all(session.answers(id) for id in ids)


def in_phase(id: int, phase: Phase) -> Condition:
    """Until this exchange has reported that phase."""
    return lambda session: phase in session.phases(id)


def event(is_set: threading.Event) -> Condition:
    """Waits for a peer, whatever the session is told."""

    def wait(_: ScriptedSession) -> bool:
        assert is_set.wait(PATIENCE_S)
        return True

    return wait


def aborted(what: Send, *until: Condition) -> tuple[Output | Condition, ...]:
    """A script that aborts a Send once the conditions hold, and takes its answer."""
    return (what, *until, Abort(id=what.id), answered(what.id))


# --- peers ------------------------------------------------------------------------------------------------------


class Line:
    """A peer's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._read = b""

    def head(self) -> str:
        """The next request's head."""
        while b"\r\n\r\n" not in self._read:
            data = self.socket.recv(65536)
            assert data, f"closed in a head: {self._read!r}"
            self._read += data
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        return head.decode()

    def body(self, size: int) -> bytes:
        """So many bytes of a body."""
        parts, missing = [self._read[:size]], size - len(self._read)
        self._read = self._read[size:]
        while missing > 0:
            data = self.socket.recv(min(missing, 1 << 20))
            assert data, f"closed {missing} bytes before the end of a body"
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def rest(self) -> bytes:
        """All that comes until the other side closes or resets the connection."""
        parts = [self._read]
        try:
            while data := self.socket.recv(1 << 20):
                parts.append(data)
        except (ConnectionError, ssl.SSLError):
            pass
        return b"".join(parts)

    def say(self, data: bytes) -> None:
        """Sends an answer, or a part of one."""
        self.socket.sendall(data)

    def reset(self) -> None:
        """Closes the connection with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


Handler = Callable[[Line], object]


class Peer:
    """Listens on loopback; the n-th connection is handled by the n-th handler (the last: by all further ones)."""

    def __init__(self, *handlers: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.errors: list[BaseException] = []
        self.connections = 0
        self._handlers = handlers
        self._tls = tls
        self._listener = socket.create_server((host, 0), backlog=200)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{'localhost' if tls else host}:{self.port}"
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            handler = self._handlers[min(self.connections, len(self._handlers) - 1)]
            self.connections += 1
            thread = threading.Thread(target=self._handle, args=(handler, sock), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _handle(self, handler: Handler, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        try:
            with sock if self._tls is None else self._tls.wrap_socket(sock, server_side=True) as wrapped:
                handler(Line(wrapped))
        except BaseException as error:
            self.errors.append(error)

    def join(self) -> None:
        """Waits for the handlers of all connections so far, and raises what went wrong in them."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a handler hangs"
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(PATIENCE_S)
        try:
            if kind is None:
                self.join()
        finally:
            for sock in self._open:
                sock.close()


def answering(*answers: bytes) -> Handler:
    """One request without a body after the other, each given the next answer; then the connection is closed."""

    def handle(line: Line) -> None:
        for answer in answers:
            line.head()
            line.say(answer)

    return handle


def serving(line: Line) -> None:
    """Answers every request without a body, until the other side closes."""
    while True:
        try:
            line.head()
        except (AssertionError, ConnectionError):
            return
        line.say(OK)


def one_by_one(data: bytes) -> Iterable[bytes]:
    """The bytes of `data`."""
    return (data[i : i + 1] for i in range(len(data)))
