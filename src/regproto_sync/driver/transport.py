"""Sockets: connections, TLS, the keep-alive pool, and waiting that another thread can end. No HTTP, no policy.

Every socket is non-blocking, and every wait goes through a `Waiter`, so an `Abort` reaches an exchange wherever it
stands; name resolution alone can't be interrupted. There is no support for proxies.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from regproto import http1
from regproto._model.messages import FailureKind
from regproto.driving import ConnectFailed, reason

READ: Final = select.POLLIN
WRITE: Final = select.POLLOUT

RECEIVE_BYTES: Final = 64 * 1024
"""Read at once: most answers are smaller, and an error's body is at most this."""
IDLE_MAX: Final = 32
"""Idle connections kept per origin: what the core's default lets be in flight."""
ATTEMPT_DELAY_S: Final = 0.25
"""When the next address of a name is tried beside the last (RFC 8305, section 5)."""

Address = tuple[int, int, int, Any]
"""Family, type, protocol and socket address, as `getaddrinfo` gives them."""


class Aborted(Exception):
    """The core said `Abort` for what this thread is doing."""


class Waiter:
    """Waits for sockets, until they are ready or another thread says to stop. One per thread."""

    def __init__(self) -> None:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._stopped = False

    def reset(self) -> None:
        """Ready for something new: forgets an earlier `stop`."""
        self._stopped = False
        self._drain()

    def stop(self) -> None:
        """Ends the present wait and every further one. Called from any thread."""
        self._stopped = True
        self.nudge()

    def nudge(self) -> None:
        """Ends the present wait, or the next, as if its time had passed. Called from any thread."""
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            pass  # it is full, which wakes as well

    def _drain(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass

    def check(self) -> None:
        """Raises `Aborted` if there was a `stop`."""
        if self._stopped:
            raise Aborted

    def wait(self, interest: Mapping[int, int], timeout_s: float | None = None) -> dict[int, int]:
        """The descriptors that are ready, with their events; none after `timeout_s`. Raises `Aborted`."""
        self.check()
        poller = select.poll()
        poller.register(self._wake_read, READ)
        for descriptor, events in interest.items():
            poller.register(descriptor, events)
        ready = dict(poller.poll(None if timeout_s is None else timeout_s * 1000))
        self.check()
        if ready.pop(self._wake_read, None) is not None:
            self._drain()
            self.check()
        return ready

    def close(self) -> None:
        """Gives the descriptors back."""
        os.close(self._wake_read)
        os.close(self._wake_write)


class Wire:
    """A connection: the socket, and what HTTP knows of it."""

    def __init__(self, sock: socket.socket, origin: http1.Origin) -> None:
        self.origin = origin
        self.http = http1.Connection()
        self._socket = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None

    @property
    def can_sendfile(self) -> bool:
        """True if files can go out without passing through us."""
        return self._tls is None and hasattr(os, "sendfile")

    def wait(self, waiter: Waiter, events: int) -> int:
        """The events that are ready, errors and hang-ups showing as all that was asked for. Raises `Aborted`."""
        ready = 0
        while not ready:
            ready = self.wait_once(waiter, events)
        return ready

    def wait_once(self, waiter: Waiter, events: int, timeout_s: float | None = None) -> int:
        """Like `wait`, but 0 after `timeout_s`, or when the waiter was nudged."""
        if self._tls is not None and events & READ and self._tls.pending():
            waiter.check()
            return READ
        descriptor = self._socket.fileno()
        ready = waiter.wait({descriptor: events}, timeout_s).get(descriptor, 0)
        return (ready & events or events) if ready else 0

    def receive(self) -> bytes | None:
        """The bytes that have come; `b""`: closed in good order; None: nothing yet. Raises `OSError`."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def send(self, data: memoryview) -> int:
        """The number of bytes taken, maybe 0. Raises `OSError`."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def sendfile(self, descriptor: int, offset: int, size: int) -> int | None:
        """Like `send`, from a file; 0: the file has ended; None: nothing was taken."""
        try:
            return os.sendfile(self._socket.fileno(), descriptor, offset, size)
        except BlockingIOError:
            return None

    def is_quiet(self) -> bool:
        """True if an idle connection is still open, and nothing has come that nobody asked for."""
        try:
            return self.receive() is None
        except OSError:
            return False

    def close(self) -> None:
        """Closes the connection, whatever its state."""
        self._socket.close()


@attrs.define
class Pool:
    """Idle connections, the last used first, shared by all threads of a driver."""

    _idle: dict[http1.Origin, list[Wire]] = attrs.field(factory=dict, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def take(self, origin: http1.Origin) -> Wire | None:
        """A connection that is still good as far as can be seen, or None."""
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                wire = idle.pop()
            if wire.is_quiet():
                return wire
            wire.close()

    def give(self, wire: Wire) -> None:
        """Keeps a connection if it may carry another exchange and there is room; closes it otherwise."""
        with self._lock:
            if wire.http.reusable and not self._closed:
                idle = self._idle.setdefault(wire.origin, [])
                if len(idle) < IDLE_MAX:
                    idle.append(wire)
                    return
        wire.close()

    def close(self) -> None:
        """Closes what is idle, and from now on what is given."""
        with self._lock:
            self._closed = True
            wires = [wire for idle in self._idle.values() for wire in idle]
            self._idle.clear()
        for wire in wires:
            wire.close()


def is_address(origin: http1.Origin) -> bool:
    """True if there is no name to resolve."""
    try:
        ipaddress.ip_address(origin.host)
    except ValueError:
        return False
    return True


def resolve(origin: http1.Origin) -> list[Address]:
    """The addresses of an origin. Of a name, it blocks and can't be interrupted. Raises `ConnectFailed`."""
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(FailureKind.CONNECT, f"{origin.host}: {reason(error)}") from None
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def connect(origin: http1.Origin, addresses: list[Address], waiter: Waiter, tls: Callable[[], ssl.SSLContext]) -> Wire:
    """A new connection, TLS included. Raises `ConnectFailed` or `Aborted`."""
    sock = _connect_any(origin, addresses, waiter)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if origin.scheme == "https":
            sock = _handshake(sock, origin, waiter, tls())
    except BaseException:
        sock.close()
        raise
    return Wire(sock, origin)


def _connect_any(origin: http1.Origin, addresses: list[Address], waiter: Waiter) -> socket.socket:
    """Tries each address after the last has failed or kept us waiting; the first to connect wins."""
    untried, trying, errors = deque(addresses), dict[int, socket.socket](), list[str]()

    def note(error: int) -> None:
        errors.append(os.strerror(error))

    try:
        while untried or trying:
            if untried:
                family, kind, protocol, address = untried.popleft()
                try:
                    sock = socket.socket(family, kind, protocol)
                except OSError as error:
                    note(error.errno or 0)
                    continue
                trying[sock.fileno()] = sock
                sock.setblocking(False)
                started = sock.connect_ex(address)
                if started not in (0, errno.EINPROGRESS):
                    note(started)
                    trying.pop(sock.fileno()).close()
                    continue
            interest = dict.fromkeys(trying, WRITE)
            for descriptor in waiter.wait(interest, ATTEMPT_DELAY_S if untried else None):
                sock = trying.pop(descriptor)
                failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not failed:
                    return sock
                note(failed)
                sock.close()
    finally:
        for sock in trying.values():
            sock.close()
    tried = ", ".join(dict.fromkeys(errors)) or "no address"
    raise ConnectFailed(FailureKind.CONNECT, f"{origin.host} port {origin.port}: {tried}")


def _handshake(sock: socket.socket, origin: http1.Origin, waiter: Waiter, context: ssl.SSLContext) -> ssl.SSLSocket:
    """TLS on a connected socket, which is closed if that fails."""
    where = f"{origin.host} port {origin.port}"
    try:
        # An end of the stream without TLS's own goodbye could be a body cut short, so it must not look like an end.
        tls = context.wrap_socket(
            sock, server_hostname=origin.host, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
    except (OSError, ValueError) as error:
        raise ConnectFailed(FailureKind.TLS, f"{where}: {reason(error)}") from None
    try:
        while True:
            try:
                tls.do_handshake()
                return tls
            except ssl.SSLWantReadError:
                waiter.wait({tls.fileno(): READ})
            except ssl.SSLWantWriteError:
                waiter.wait({tls.fileno(): WRITE})
    except BaseException as error:
        tls.close()
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            raise ConnectFailed(FailureKind.TLS, f"{where}: {reason(error)}") from None
        if isinstance(error, OSError):
            detail = f"{where}: closed during the TLS handshake ({reason(error)})"
            raise ConnectFailed(FailureKind.CONNECT, detail) from None
        raise
