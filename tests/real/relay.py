"""A relay on loopback between a client and a registry: passes every byte on, keeps the request lines."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Not anchored: after a body the next request line follows without a line break.
_REQUEST_LINE = re.compile(rb"((?:GET|HEAD|POST|PUT|PATCH|DELETE) /\S*) HTTP/1\.1\r\n")


class Relay(socketserver.ThreadingTCPServer):
    """Listens on a port of its own and connects to `target` once per client."""

    daemon_threads = True

    def __init__(self, target: tuple[str, int], on_sent: Callable[[int], None], delay_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = target
        self.delay_s = delay_s
        self._on_sent = on_sent
        self._lock = threading.Lock()
        self._streams: list[bytearray] = []
        self._sent = 0

    @property
    def address(self) -> str:
        """Host and port, as in a reference."""
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def requests(self) -> list[str]:
        """`METHOD /path?query` of every request so far, connection by connection."""
        with self._lock:
            return [line.decode() for stream in self._streams for line in _REQUEST_LINE.findall(stream)]

    @property
    def connections(self) -> int:
        """How many connections clients have made."""
        with self._lock:
            return len(self._streams)

    def new_stream(self) -> bytearray:
        """Where the bytes of one client's connection are kept."""
        stream = bytearray()
        with self._lock:
            self._streams.append(stream)
        return stream

    def note(self, stream: bytearray, data: bytes) -> None:
        """Keep what a client sent, before the registry sees it."""
        with self._lock:
            stream += data
            self._sent += len(data)
            sent = self._sent
        self._on_sent(sent)


class _Connection(socketserver.BaseRequestHandler):
    server: Relay
    request: socket.socket

    def handle(self) -> None:
        stream = self.server.new_stream()
        with suppress(OSError), socket.create_connection(self.server.target) as upstream:
            asked = threading.Event()

            def on_asked(data: bytes) -> None:
                self.server.note(stream, data)
                asked.set()

            def on_answered(data: bytes) -> None:
                if asked.is_set():  # its first piece
                    asked.clear()
                    time.sleep(self.server.delay_s)

            back = threading.Thread(target=_copy, args=(upstream, self.request, on_answered))
            back.start()
            _copy(self.request, upstream, on_asked)
            back.join()


def _copy(source: socket.socket, sink: socket.socket, note: Callable[[bytes], None]) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            note(data)
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def relay(
    target: tuple[str, int], on_sent: Callable[[int], None] = lambda total: None, delay_s: float = 0.0
) -> Iterator[Relay]:
    """A running relay to `target` that holds each answer back for `delay_s`.

    `on_sent` is told how many bytes clients sent so far, at each piece.
    """
    with Relay(target, on_sent, delay_s) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
