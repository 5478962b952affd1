"""A relay on loopback that understands HTTP, and does to a request what networks and registries under stress do.

Each request that comes in has a number, counted over all connections; a fault befalls the numbers it is told. It stands
before any registry, so the same faults befall the fake and the real ones, whoever is the client.
"""

from __future__ import annotations

import enum
import http.client
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import attrs
import h11

PIECE_BYTES = 64 * 1024
SILENCE_S = 20.0
RETRY_AFTER_S = 1
IDLE_S = 60.0
GARBAGE = b"\x16\x03\x01 this is no HTTP \x00\xff\r\n\r\n" * 3
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection"})


class Kind(enum.Enum):
    """One transient fault."""

    STATUS_500 = "500"
    STATUS_502 = "502"
    STATUS_503 = "503"
    STATUS_429 = "429, Retry-After"
    STATUS_408 = "408"
    STATUS_401 = "one 401"
    RESET_BEFORE = "reset before"
    RESET_IN_BODY = "reset in the body"
    LOST = "answer lost"
    TRUNCATED = "truncated answer"
    GARBAGE = "not HTTP"
    SILENCE = "silence"

    @property
    def status(self) -> int:
        """The status that is answered; 0 for what is no answer."""
        return int(self.name.removeprefix("STATUS_")) if self.name.startswith("STATUS_") else 0


class Closing(enum.Enum):
    """A kept connection is closed in good order, and nothing is done: no fault that passes, where it is every time."""

    UNANSWERED = "closed before any of the answer"
    IN_THE_ANSWER = "closed after a part of the answer"


@attrs.frozen
class Seen:
    """A request as it came in."""

    number: int
    method: str
    target: str
    at: float
    fault: Kind | Closing | None

    @property
    def to_token_server(self) -> bool:
        return self.target.partition("?")[0] == "/token"


Plan = Callable[[int, str, str], Kind | Closing | None]
"""What befalls a request, given its number, method and target."""


class FaultyRelay(socketserver.ThreadingTCPServer):
    """Listens on a port of its own and asks `target` in the client's stead."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, target: tuple[str, int], plan: Plan, silence_s: float = SILENCE_S) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = target
        self.plan = plan
        self.silence_s = silence_s
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Host and port, as in a reference."""
        return f"127.0.0.1:{self.server_address[1]}"

    def note(self, method: str, target: str) -> Kind | Closing | None:
        """A request has come in: what is to befall it."""
        with self._lock:
            number = len(self.seen) + 1
            fault = self.plan(number, method, target)
            self.seen.append(Seen(number, method, target, time.monotonic(), fault))
        return fault


class _Gone(Exception):
    """The connection is over."""


class _Connection(socketserver.BaseRequestHandler):
    server: FaultyRelay
    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(IDLE_S)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=256 * 1024)
        with suppress(OSError, _Gone, h11.ProtocolError):
            while self._one():
                self._http.start_next_cycle()

    def _next(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self.request.sendall(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            self._http.receive_data(self.request.recv(PIECE_BYTES))
        return event

    def _body(self, at_most: float = float("inf")) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while size < at_most and isinstance(event := self._next(), h11.Data):
            pieces.append(bytes(event.data))
            size += len(pieces[-1])
        return b"".join(pieces)

    def _one(self) -> bool:
        head = self._next()
        if not isinstance(head, h11.Request):
            return False
        method, target = head.method.decode(), head.target.decode()
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in head.headers]
        fault = self.server.note(method, target)
        match fault:
            case Kind.RESET_BEFORE:
                self._reset()
            case Kind.RESET_IN_BODY:
                self._cut(method, target, headers)
            case Kind.SILENCE:
                self._body()
                self._silence()
            case Kind.GARBAGE:
                self._body()
                self.request.sendall(GARBAGE)
                return False
            case Closing():
                self._body()
                self.request.sendall(b"HTTP/1.1 201 Cre" if fault is Closing.IN_THE_ANSWER else b"")
                return False
        body = self._body()
        if fault is not None and fault.status:
            extra = [("Retry-After", str(RETRY_AFTER_S))] if fault is Kind.STATUS_429 else []
            extra += [("WWW-Authenticate", self._challenge(headers))] if fault is Kind.STATUS_401 else []
            said = b"" if method == "HEAD" else b"on purpose"
            status, headers = fault.status, [*extra, ("Content-Length", str(len(said)))]
        else:
            status, headers, said = self._forward(method, target, headers, body)
        if fault is Kind.LOST:
            return False
        return self._answer(status, headers, said, truncated=fault is Kind.TRUNCATED)

    # --- the answer ---

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, truncated: bool) -> bool:
        event = h11.Response(status_code=status, headers=[(n.encode(), v.encode("latin-1")) for n, v in headers])
        head = self._http.send(event) or b""
        if truncated:
            self.request.sendall(head + body[: len(body) // 2] if body else head[: len(head) // 2])
            return False
        data = self._http.send(h11.Data(data=body)) if body else b""
        self.request.sendall(head + (data or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def _reset(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()
        raise _Gone

    def _silence(self) -> None:
        """Until the time is over or the client goes."""
        until = time.monotonic() + self.server.silence_s
        self.request.settimeout(0.05)
        while time.monotonic() < until and not self.server.closing.is_set():
            with suppress(TimeoutError):
                if not self.request.recv(PIECE_BYTES):
                    break
        raise _Gone

    # --- the registry ---

    def _challenge(self, headers: list[tuple[str, str]]) -> str:
        """What the registry would say; one that lets everybody in asks for a password that it does not read."""
        host = [(n, v) for n, v in headers if n.lower() == "host"]
        _, answered, _ = self._forward("GET", "/v2/", host, b"")
        return next((v for n, v in answered if n.lower() == "www-authenticate"), 'Basic realm="relay"')

    def _upstream(self, method: str, target: str, headers: list[tuple[str, str]]) -> http.client.HTTPConnection:
        upstream = http.client.HTTPConnection(*self.server.target, timeout=IDLE_S)
        upstream.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP and name.lower() != "expect":
                upstream.putheader(name, value)
        return upstream

    def _forward(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        if any(n.lower() == "transfer-encoding" for n, _ in headers):
            headers = [*headers, ("Content-Length", str(len(body)))]
        upstream = self._upstream(method, target, headers)
        try:
            # A registry may answer early and close; its answer counts, not our broken pipe.
            with suppress(BrokenPipeError, ConnectionResetError):
                upstream.endheaders(body)
            response = upstream.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException):
            raise _Gone from None
        finally:
            upstream.close()
        kept = [(n, v) for n, v in response.getheaders() if n.lower() not in _HOP_BY_HOP]
        if not any(n.lower() == "content-length" for n, _ in kept) and response.status != 204:
            kept.append(("Content-Length", str(len(said))))
        return response.status, kept, said

    def _cut(self, method: str, target: str, headers: list[tuple[str, str]]) -> None:
        """Half of the body reaches the registry, then both connections are reset."""
        size = next((int(v) for n, v in headers if n.lower() == "content-length"), 0)
        if size > 1:
            half = self._body(size // 2)
            with suppress(OSError, http.client.HTTPException):
                upstream = self._upstream(method, target, headers)
                upstream.endheaders()
                upstream.send(half[: size // 2])
                upstream.close()
        self._reset()


def nothing(number: int, method: str, target: str) -> Kind | None:
    """The plan in which nothing goes wrong."""
    return None


def at(position: int, kind: Kind) -> Plan:
    """One fault, at one request."""
    return lambda number, method, target: kind if number == position else None


@contextmanager
def faulty_relay(target: tuple[str, int], plan: Plan = nothing, silence_s: float = SILENCE_S) -> Iterator[FaultyRelay]:
    """A running relay to `target`."""
    with FaultyRelay(target, plan, silence_s) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
