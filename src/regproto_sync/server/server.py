"""A fake registry over real HTTP/1.1, with a thread for each connection."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from regproto.testing import FakeRegistry, RegistryOptions
from regproto_sync.server.connection import Connection
from regproto_sync.server.disk import DiskStorage

CONNECTIONS_MAX: Final = 128
"""Connections at a time, each a thread; four clients with the core's own limit of 32. More wait to be accepted."""
IDLE_TIMEOUT_S: Final = 60.0
"""A connection on which nothing moves for so long is closed."""


class Server:
    """Serves a registry until it is closed; also a context manager.

    Args:
        registry: asked by the server alone while it runs, except under `lock`.
        host: an address of this machine.
        port: 0 takes a free one.
        tls: a server-side context; None serves plain HTTP.
        latency_s: waited before each answer, as a slow line would.
        clock: seconds, for the life of tokens.

    Raises:
        OSError: the address is taken or not this machine's.
    """

    def __init__(
        self,
        registry: FakeRegistry,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        *,
        latency_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.registry = registry
        self.lock = threading.Lock()
        self.accepted = 0
        """Connections accepted so far."""
        self._tls = tls
        self._scheme = "https" if tls else "http"
        self._latency_s = latency_s
        self._clock = clock
        self._closing = threading.Event()
        self._slots = threading.Semaphore(CONNECTIONS_MAX)
        self._connections: dict[threading.Thread, socket.socket] = {}
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=CONNECTIONS_MAX)
        self.port: int = self._listener.getsockname()[1]
        self._host = f"[{host}]" if ":" in host else host
        self._acceptor = threading.Thread(target=self._accept, name="registry", daemon=True)

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{self._scheme}://{self._host}:{self.port}"

    def start(self) -> None:
        """Begin to accept connections."""
        self._acceptor.start()

    def close(self) -> None:
        """Close every connection and wait for its thread."""
        self._closing.set()
        self._slots.release()
        with contextlib.suppress(OSError):  # wakes the acceptor, which then sees that this is the end
            socket.create_connection(self._listener.getsockname()[:2], timeout=1).close()
        if self._acceptor.ident is not None:
            self._acceptor.join()
        self._listener.close()
        for thread, sock in tuple(self._connections.items()):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            self._slots.acquire()
            try:
                sock, _ = self._listener.accept()
            except OSError:  # a client that gave up before it was accepted, or too many open files
                self._slots.release()
                if self._closing.wait(0.05):
                    return
                continue
            if self._closing.is_set():
                sock.close()
                return
            self.accepted += 1
            try:
                sock.settimeout(IDLE_TIMEOUT_S)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            except OSError:  # it is gone already
                sock.close()
                self._slots.release()
                continue
            thread = threading.Thread(target=self._serve, args=(sock,), name="connection", daemon=True)
            self._connections[thread] = sock
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError), sock:
                if isinstance(sock, ssl.SSLSocket):
                    sock.do_handshake()
                connection = Connection(sock, self.registry, self.lock, self._scheme, self._clock, self._delay)
                while connection.serve_one():
                    pass
        finally:
            self._connections.pop(threading.current_thread(), None)
            self._slots.release()

    def _delay(self) -> None:
        if self._latency_s:
            self._closing.wait(self._latency_s)


def serve(
    host: str,
    port: int,
    storage_dir: Path | None,
    options: RegistryOptions | None,
    ready: Callable[[str], None],
) -> None:
    """Serve a registry until SIGINT or SIGTERM; to be called from the main thread.

    Args:
        host: an address of this machine.
        port: 0 takes a free one.
        storage_dir: where everything is kept for the next time; None: in memory.
        options: the registry's switches; None: the defaults.
        ready: called with the URL once connections are accepted.

    Raises:
        OSError: the address is taken, or the folder can't be used.
        LocalProtocolError: another registry has the folder.
    """
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    storage = DiskStorage(storage_dir) if storage_dir is not None else None
    try:
        with Server(FakeRegistry(options, storage), host, port) as server:
            ready(server.url)
            stop.wait()
    except KeyboardInterrupt:
        pass
    finally:
        if storage is not None:
            storage.close()
        signal.signal(signal.SIGTERM, before)
