"""Registries of raw bytes: what listens on loopback while a driver is checked, and does what a handler says."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self, TypeAlias

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_BACKLOG: Final = 200
"""Connections that may wait to be accepted: twice what the largest check opens at once."""


class Gone(Exception):
    """The driver closed a connection that the peer still wanted something from."""


class Line:
    """A peer's end of one connection.

    Attributes:
        waits_for: what it does or did last, in words.
        heads: how many requests began.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.waits_for = "bytes"
        self.heads = 0
        self._read = b""

    def head(self) -> str:
        """The next request's head."""
        self.waits_for = f"the head of request {self.heads + 1} on this connection"
        while b"\r\n\r\n" not in self._read:
            data = self.socket.recv(65536)
            if not data:
                raise Gone(f"the connection was closed in a request's head: {self._read!r}")
            self._read += data
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        self.heads += 1
        return head.decode("latin-1")

    def body(self, size: int) -> bytes:
        """So many bytes of a body."""
        body = self.some_body(size)
        if len(body) < size:
            raise Gone(f"the connection was closed {size - len(body)} bytes before the end of a body")
        return body

    def some_body(self, size: int) -> bytes:
        """So many bytes of a body, or what there is until the driver closes the connection."""
        self.waits_for = f"{size} bytes of a body"
        parts, missing = [self._read[:size]], size - len(self._read)
        self._read = self._read[size:]
        try:
            while missing > 0 and (data := self.socket.recv(min(missing, 1 << 20))):
                parts.append(data)
                missing -= len(data)
        except (ConnectionError, ssl.SSLError):
            pass
        return b"".join(parts)

    def rest(self) -> bytes:
        """All that comes until the driver closes or resets the connection."""
        self.waits_for = "the driver to close the connection"
        parts, self._read = [self._read], b""
        try:
            while data := self.socket.recv(1 << 20):
                parts.append(data)
        except (ConnectionError, ssl.SSLError):
            pass
        return b"".join(parts)

    def say(self, data: bytes) -> None:
        """Sends an answer, or a part of one."""
        self.waits_for = "the driver to read what it says"
        self.socket.sendall(data)

    def trickle(self, data: bytes) -> None:
        """Sends it byte by byte."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(data)):
            self.say(data[number : number + 1])

    def reset(self) -> None:
        """Closes the connection with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


Handler: TypeAlias = Callable[[Line], object]


class Peer:
    """Listens on loopback; the n-th connection is handled by the n-th handler (the last: by all further ones)."""

    def __init__(self, *handlers: Handler, tls: ssl.SSLContext | None = None, wait_timeout_s: float) -> None:
        self.errors: list[BaseException] = []
        self.connections = 0
        self._handlers = handlers
        self._tls = tls
        self._patience_s = wait_timeout_s
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"https://localhost:{self.port}" if tls else f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._lines: list[Line] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="peer", daemon=True)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            handler = self._handlers[min(self.connections, len(self._handlers) - 1)]
            self.connections += 1
            thread = threading.Thread(target=self._handle, args=(handler, sock), name="peer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _handle(self, handler: Handler, sock: socket.socket) -> None:
        try:
            sock.settimeout(self._patience_s)  # it may be closed already, if the check has failed
            with sock if self._tls is None else self._tls.wrap_socket(sock, server_side=True) as wrapped:
                self._open.append(wrapped)
                self._lines.append(line := Line(wrapped))
                try:
                    handler(line)
                except TimeoutError:
                    raise TimeoutError(f"it waited in vain for {line.waits_for}") from None
        except BaseException as error:
            self.errors.append(error)

    def sight(self) -> str:
        """Everything it saw, in words; empty: nothing."""
        lines = self._lines[-2:]
        last = "; ".join(f"requests: {line.heads}, then it waited for {line.waits_for}" for line in lines)
        return f"connections: {self.connections} ({last or 'no TLS'})" if self.connections else ""

    def join(self) -> None:
        """Waits for the handlers of all connections so far, twice as long as they wait themselves."""
        for thread in self._threads:
            thread.join(2 * self._patience_s)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(self._patience_s)
        if failed is None:
            self.join()
        for sock in list(self._open):
            # What a handler still reads from ends for it, too.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
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
    """Answers every request without a body, until the driver closes."""
    with contextlib.suppress(Gone, ConnectionError):
        while True:
            line.head()
            line.say(OK)


def until_closed(line: Line) -> None:
    """Says nothing, until the driver closes."""
    line.rest()


@contextmanager
def full_backlog() -> Iterator[str]:
    """The URL of a port where connecting takes for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        held: list[socket.socket] = []
        try:
            while True:
                sock = socket.socket()
                held.append(sock)
                sock.settimeout(0.1)
                try:
                    sock.connect(listener.getsockname())
                except TimeoutError:
                    break
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for sock in held:
                sock.close()


def refused_url() -> str:
    """The URL of a port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"
