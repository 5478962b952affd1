"""One HTTP/1.1 connection to a fake registry: bodies in pieces, early answers, faults enacted.

The registry's state is touched under the server's lock; bytes move without it.
"""

from __future__ import annotations

import contextlib
import http
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import h11

from regproto.testing import Content, FakeRegistry, Reply, RequestHead, Wire

PIECE_BYTES: Final = 256 * 1024
"""Read or written at a time: large enough that calls cost little, small enough for all connections to hold one."""
DRAIN_MAX: Final = 256 * 1024
"""Of a body that nobody wants, as much is read to keep its connection; Go's HTTP server does the same."""
LINGER_S: Final = 2.0
"""How long what still comes is thrown away after an early answer, so that a reset does not overtake the answer."""
HEAD_MAX_BYTES: Final = 64 * 1024
"""Of a request: room for a long Authorization and a signed Location."""
_STATUSES: Final = frozenset(map(int, http.HTTPStatus))


class Connection:
    """One connection: requests one after the other until either side has enough."""

    def __init__(
        self,
        sock: socket.socket,
        registry: FakeRegistry,
        lock: threading.Lock,
        scheme: str,
        clock: Callable[[], float],
        delay: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._registry = registry
        self._lock = lock
        self._scheme = scheme
        self._clock = clock
        self._delay = delay
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX_BYTES)

    def _next(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            if self._http.they_are_waiting_for_100_continue:
                self._sock.sendall(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            self._http.receive_data(self._sock.recv(PIECE_BYTES))

    def serve_one(self) -> bool:
        """One request and its answer; False if the connection is to be closed."""
        try:
            event = self._next()
        except h11.RemoteProtocolError as error:
            with contextlib.suppress(h11.LocalProtocolError):
                self._send_head(error.error_status_hint, (("Connection", "close"), ("Content-Length", "0")))
            return False
        if not isinstance(event, h11.Request):
            return False
        headers = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers)
        head = RequestHead(event.method.decode("latin-1"), event.target.decode("latin-1"), headers, self._scheme)
        outcome = self._take_body(head)
        if outcome is None:
            return False
        reply, whole = outcome
        self._delay()
        if not self._answer(head, reply, whole):
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def _take_body(self, head: RequestHead) -> tuple[Reply, bool] | None:
        """The answer, and whether the whole body was read; None if the client went away."""
        with self._lock:
            exchange = self._registry.open(head, self._clock())
        whole = cut = False
        try:
            while exchange.reply is None and not whole:
                match self._next():
                    case h11.Data(data=data):
                        exchange.feed(data)
                    case h11.EndOfMessage():
                        whole = True
                    case _:
                        raise ConnectionError
        except (OSError, h11.RemoteProtocolError):
            cut = True
        with self._lock:
            if cut:
                exchange.interrupt()
                return None
            return exchange.finish(), whole

    def _answer(self, head: RequestHead, reply: Reply, whole: bool) -> bool:
        """Send an answer, or enact what befalls it; False if the connection is to be closed."""
        match reply.wire:
            case Wire.CLOSED:
                return False
            case Wire.SILENT:
                self._sock.settimeout(None)
                while self._sock.recv(PIECE_BYTES):
                    pass
                return False
            case Wire.GARBAGE:
                self._sock.sendall(reply.content)
                return False
            case Wire.TRUNCATED:
                self._send_truncated(reply)
                return False
            case Wire.WHOLE:
                pass
        keep = whole or self._is_short(head)
        headers = reply.headers if keep else (*reply.headers, ("Connection", "close"))
        self._send_head(reply.status, headers, reply.body if isinstance(reply.body, bytes) else b"")
        if isinstance(reply.body, Content) and not self._send_content(reply.body):
            return False
        self._sock.sendall(self._http.send(h11.EndOfMessage()) or b"")
        if not whole:
            self._drain(keep)
        return keep

    def _is_short(self, head: RequestHead) -> bool:
        """True if the rest of a body is worth reading for its connection's sake."""
        if self._http.they_are_waiting_for_100_continue or head.header("transfer-encoding"):
            return False
        return int(head.header("content-length") or 0) <= DRAIN_MAX

    def _send_head(self, status: int, headers: tuple[tuple[str, str], ...], body: bytes = b"") -> None:
        phrase = http.HTTPStatus(status).phrase if status in _STATUSES else ""
        encoded = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers]
        event = h11.Response(status_code=status, headers=encoded, reason=phrase.encode())
        data = self._http.send(event) or b""
        if body:
            data += self._http.send(h11.Data(data=body)) or b""
        self._sock.sendall(data)

    def _send_content(self, content: Content) -> bool:
        offset, end = content.offset, content.offset + content.size
        while offset < end:
            try:
                data = self._registry.storage.read(content.digest, offset, min(PIECE_BYTES, end - offset))
            except KeyError:
                data = b""
            if not data:  # deleted meanwhile
                return False
            self._sock.sendall(self._http.send(h11.Data(data=data)) or b"")
            offset += len(data)
        return True

    def _send_truncated(self, reply: Reply) -> None:
        encoded = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in reply.headers]
        head = self._http.send(h11.Response(status_code=reply.status, headers=encoded)) or b""
        body = reply.body
        if isinstance(body, Content):
            body = self._registry.storage.read(body.digest, body.offset, min(body.size, reply.sent_bytes))
        self._sock.sendall(head + body[: reply.sent_bytes] if body else head[: len(head) // 2])

    def _drain(self, keep: bool) -> None:
        """Read what is left of a body: for the next request, or until the client has seen the answer."""
        if keep:
            with contextlib.suppress(h11.RemoteProtocolError):
                while isinstance(self._next(), h11.Data):
                    pass
            return
        self._sock.shutdown(socket.SHUT_WR)
        self._sock.settimeout(LINGER_S)
        until = time.monotonic() + LINGER_S
        while self._sock.recv(PIECE_BYTES) and time.monotonic() < until:
            pass
