"""One HTTP/1.1 exchange, for drivers: bytes in, bytes out, and what became of it. Pure; the syntax is h11's.

A driver keeps one `Connection` beside each TCP or TLS connection, starts an `Exchange` on it for a `Send`, and
moves bytes both ways at the same time:

    exchange = connection.start(send)

    while (piece := exchange.piece()) is not None:   # writing
        count = ...                                  # write bytes, or a Span of the body's content
        exchange.sent(count)                         # what the connection took; the rest is offered again

    while exchange.wants_read:                       # reading, meanwhile
        exchange.receive(await read())               # b"": the peer has closed its side

    session.receive(now, exchange.outcome)

Two tasks, or one loop that waits for either direction, do equally well. What else there is to know:

- The answer may come before the body is sent. When `wants_read` turns False and `wants_write` is still True, little
  of the body is left: end the writing; then there is an `outcome`, and the connection can be used again. When
  `wants_write` is False, nothing more is worth writing: stop a write that is blocked.
- `outcome` is set once and never changes; from then on `piece` gives None and every call is harmless.
- When writing fails, call `write_failed` and go on reading: an answer may be there. When reading fails, the content
  is broken or the core said `Abort`, call `fail`. An answer that is whole already stays the outcome.
- Afterwards `connection.reusable` says if the connection may carry another exchange; if not, close it.
- `SliceReader` reads the content of a body that is a `BlobSlice`, in the order in which its Spans come.
- `report` says when a `Progress` is due. `Phase.CONNECTING` comes before there is an exchange: the driver tells it.
- Of a body that is a `Stream` there is never a Span. Where `wants_data` is True, give what the source has to `feed`
  (`b""`: it has ended), and there is a piece again; while the source has nothing, `piece` gives None. Where the stream
  has a limit, read so much ahead and tell `start` how much it is. `stream_sent` is for the answer's `StreamStatus`.
"""

from __future__ import annotations

import math
import re
from typing import Final, cast

import attrs
import h11

from regproto import driving
from regproto._body_reader import ContentFailed, SliceReader
from regproto._http.url import origin_of
from regproto._model.errors import printable
from regproto._model.messages import (
    BlobSlice,
    Failed,
    FailureKind,
    Phase,
    Progress,
    Response,
    Send,
    Stream,
    Written,
    body_size,
)

__all__ = ["Connection", "ContentFailed", "Exchange", "Origin", "SliceReader", "Span", "head_of"]

EARLY_REST_MAX_BYTES: Final = 64 * 1024
"""A body with no more left than this is finished after an early answer: cheaper than a new TLS connection."""
PIECE_BYTES: Final = 1024 * 1024
"""Bytes offered at once: over the send buffers of common systems; bounds what a driver reads ahead."""
PROGRESS_INTERVAL_S: Final = driving.PROGRESS_INTERVAL_S
LINE_MAX_BYTES: Final = 1024 * 1024
"""h11's bound on what it buffers, for chunk headers and trailers. Heads have their own, lower one in the Send."""
DETAIL_MAX: Final = 200
"""Characters of h11's words: enough to recognise another protocol's greeting."""

_LAST_CHUNK: Final = b"0\r\n\r\n"
_USER_AGENT: Final = "regproto"
_ALWAYS_WITH_LENGTH: Final = frozenset({"POST", "PUT", "PATCH"})
_AUTHORITY_END: Final = re.compile("[/?]")


@attrs.frozen
class Origin:
    """The origin of a connection: the key of a pool."""

    scheme: str
    host: str
    """A name or an address, in lower case, without brackets."""
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an absolute http or https URL. Raises `RemoteProtocolError` if it is not one."""
        scheme, _, rest = origin_of(url).partition("://")
        host, _, port = rest.rpartition(":")
        return cls(scheme, host.strip("[]"), int(port))


@attrs.frozen
class Span:
    """The next bytes of a body that is a `BlobSlice`: read them from its content and write them."""

    offset: int
    """Where they stand in the blob."""
    size: int
    last: bool
    """True if the body ends with them: if the content has changed meanwhile, don't write them."""

    def __len__(self) -> int:
        return self.size


class Connection:
    """The HTTP state of one TCP or TLS connection, which carries one exchange after the other."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=LINE_MAX_BYTES)
        self._exchange: Exchange | None = None

    @property
    def reusable(self) -> bool:
        """True if another exchange may start: none did yet, or the last is done in both directions."""
        if self._exchange is None:
            return True
        if not isinstance(self._exchange.outcome, Response) or self._h11.trailing_data != (b"", False):
            return False
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def start(self, send: Send, stream_bytes: int | None = None) -> Exchange:
        """The exchange that performs `send`. Only while `reusable`.

        Args:
            send: what to perform.
            stream_bytes: of a body that is a `Stream` with a limit: how many bytes it is, now that they are read.
        """
        assert self.reusable, "this connection can't carry another exchange (see `reusable`): make a new one"
        limited = isinstance(send.body, Stream) and send.body.limit_bytes is not None
        assert limited == (stream_bytes is not None)
        reused = self._exchange is not None
        if reused:
            self._h11.start_next_cycle()
        self._exchange = Exchange(send, self._h11, reused, stream_bytes)
        return self._exchange


class Exchange:
    """One request and its answer. The module's text says how to drive it.

    Attributes:
        outcome: the answer owed to the core, once there is one.
    """

    def __init__(
        self, send: Send, h11_connection: h11.Connection, reused: bool, stream_bytes: int | None = None
    ) -> None:
        self.outcome: Response | Failed | None = None
        self._send = send
        self._h11 = h11_connection
        self._reused = reused
        self._writing = True
        self._sent = 0
        self._offered = 0
        self._most_offered = 0
        self._write_error = ""
        self._head: h11.Response | None = None
        self._head_room = send.max_head_bytes
        self._received = 0
        self._receiving = False
        self._body = bytearray()
        self._answer: Response | None = None
        self._reported: tuple[Phase, int, float] | None = None
        try:
            head = self._h11.send(_request(send, stream_bytes))
        except (h11.LocalProtocolError, UnicodeError):
            # Without h11's words: they quote the header, which may be Authorization.
            head = b""
            self.fail(FailureKind.PROTOCOL, "the URL or a header has characters that HTTP/1.1 can't carry")
        self._head_size = len(head)
        self._first = head + send.body if isinstance(send.body, bytes) else head
        self._feed: _Feed | None = None
        self._size = len(head)
        if isinstance(send.body, Stream):
            self._feed = _Feed(send.body.offset, stream_bytes)
        else:
            self._size += body_size(send.body)

    # --- writing ---

    @property
    def wants_write(self) -> bool:
        """True while more of the request is to be written, or what was offered is not yet known to be."""
        unfed = self._feed is not None and not self._feed.ended
        return self.outcome is None and self._writing and (unfed or self._sent < self._size)

    @property
    def wants_data(self) -> bool:
        """True if there is nothing to write before `feed` has been given more of the stream."""
        return self.wants_write and self._sent == self._size

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes of the stream, of a length that suits a write; `b""`: it has ended. Only if `wants_data`.

        Of a stream whose length was given to `start`, give just so much; its end need not be given.
        """
        feed = self._feed
        assert feed is not None and self._sent == self._size
        framed = (self._h11.send(h11.Data(data=cast(bytes, data))) or b"") if data else b""
        chunked = feed.left is None
        feed.take(len(framed) - len(data), data)
        self._first = framed + _LAST_CHUNK if chunked and feed.ended else framed
        feed.begun = self._size
        self._size += len(self._first)

    def piece(self, limit: int = PIECE_BYTES) -> memoryview | Span | None:
        """The next bytes to write, at most `limit`; None: there are none now.

        All of it counts as handed to the connection until `sent` tells otherwise.
        """
        if not self.wants_write:
            return None
        piece: memoryview | Span
        if self._feed is not None:
            if self.wants_data:
                return None
            at = self._sent - self._feed.begun
            piece = memoryview(self._first)[at : at + limit]
        elif self._sent < len(self._first):
            piece = memoryview(self._first)[self._sent : self._sent + limit]
        else:
            assert isinstance(self._send.body, BlobSlice)
            size = min(limit, self._size - self._sent)
            offset = self._send.body.offset + self._sent - len(self._first)
            piece = Span(offset, size, last=self._sent + size == self._size)
        self._offered = self._sent + len(piece)
        self._most_offered = max(self._most_offered, self._offered)
        return piece

    def sent(self, count: int) -> None:
        """The connection took `count` bytes (0 too) of the last piece."""
        before = self._body_sent
        self._sent += count
        self._offered = self._sent
        if self.outcome is not None:
            return
        if self._feed is None and self._body_sent > before:
            # h11 only counts the body: any object with a length passes through it.
            passed = cast(bytes, Span(0, self._body_sent - before, last=False))
            self._h11.send_with_data_passthrough(h11.Data(data=passed))
        if count and self._sent == self._size and (self._feed is None or self._feed.ended):
            self._h11.send(h11.EndOfMessage())
        self._settle()

    def write_failed(self, detail: str) -> None:
        """The connection takes no more. Go on reading: what the registry said before may be there."""
        self._writing = False
        self._write_error = detail
        self._settle()

    # --- reading ---

    @property
    def wants_read(self) -> bool:
        """True until the answer is whole."""
        return self.outcome is None and self._answer is None

    def receive(self, data: bytes) -> None:
        """Bytes from the connection; `b""`: the peer has closed its side in good order."""
        if self._offered == 0:
            # A server's farewell to an idle connection (408, say) is no answer to what it has not seen.
            self.fail(FailureKind.CLOSED, "the peer closed or spoke before the request")
        if data:
            self._received += len(data)
            self._receiving = True
        else:
            self._writing = False
        try:
            if self._head is None and data:
                data = self._receive_head(data)
                if not data:
                    return
            self._h11.receive_data(data)
            self._read_events()
        except h11.RemoteProtocolError as error:
            if data:
                self.fail(FailureKind.PROTOCOL, _words(error))
            else:
                self.fail(FailureKind.CLOSED, f"the connection was closed {self._where()}")
        finally:
            self._settle()

    def fail(self, kind: FailureKind, detail: str) -> None:
        """End the exchange here, unless the answer is whole; the connection is to be closed."""
        self._writing = False
        if self.wants_read:
            detail = f"{detail} (after: {self._write_error})" if self._write_error else detail
            self.outcome = Failed(id=self._send.id, kind=kind, written=self.written, reused=self._reused, detail=detail)
        self._settle()

    # --- how it stands ---

    @property
    def written(self) -> Written:
        """How much of the request was handed to the connection."""
        if self._offered == 0:
            return Written.NONE
        if self._feed is not None and not self._feed.ended:
            return Written.SOME
        return Written.ALL if self._offered == self._size else Written.SOME

    @property
    def phase(self) -> Phase:
        """The phase the exchange is in; receiving wins over sending."""
        if self._receiving:
            return Phase.RECEIVING
        if self.wants_data and self._offered:
            return Phase.READING
        return Phase.SENDING if self.wants_write else Phase.WAITING

    def report(self, now: float) -> Progress | None:
        """The `Progress` that is due at `now`: a new phase, or movement 0.1 s or more after the last one.

        A stream's source that runs dry is reported as slowly as movement, since it may do so many times a second: look
        again `PROGRESS_INTERVAL_S` after it did.
        """
        if self.outcome is not None:
            return None
        phase, moved = self.phase, self._sent + self._received
        if self._reported is not None:
            last_phase, last_moved, last = self._reported
            if phase is last_phase and moved == last_moved:
                return None
            soon = phase is last_phase or phase is Phase.READING
            if soon and now - last < PROGRESS_INTERVAL_S:
                return None
        self._reported = (phase, moved, now)
        count = len(self._body) if phase is Phase.RECEIVING else self._body_sent
        return Progress(id=self._send.id, phase=phase, bytes=count)

    @property
    def stream_sent(self) -> int:
        """The offset in the stream after the last byte that was given to the connection; after a failure, that may have
        been given (a write that fails does not say how far it got)."""
        feed = self._feed
        assert feed is not None
        return feed.reached(self._most_offered if isinstance(self.outcome, Failed) else self._sent)

    @property
    def _body_sent(self) -> int:
        if self._feed is not None:
            return self._feed.reached(self._sent) - self._feed.first
        return max(0, self._sent - self._head_size)

    @property
    def _rest(self) -> float:
        """How much is not written yet."""
        if self._feed is not None and not self._feed.ended:
            return math.inf
        return self._size - self._offered

    def _where(self) -> str:
        if self._head is not None:
            return "in the middle of the answer's body"
        return "in the middle of the answer's head" if self._receiving else "before any answer"

    def _receive_head(self, data: bytes) -> bytes:
        """Feeds what may belong to a head (1xx ones count with the final one); returns what is not fed yet."""
        room = self._head_room
        self._head_room -= min(room, len(data))
        if room:
            self._h11.receive_data(data[:room])
            self._read_events()
        if len(data) > room and self._head is None:
            limit = self._send.max_head_bytes
            self.fail(FailureKind.PROTOCOL, f"the answer's head is longer than {limit} bytes")
            return b""
        return data[room:]

    def _read_events(self) -> None:
        while self.wants_read:
            event = self._h11.next_event()
            match event:
                case h11.InformationalResponse():
                    self._receiving = False
                case h11.Response():
                    self._head = event
                    if self._rest > EARLY_REST_MAX_BYTES:
                        self._writing = False
                case h11.Data():
                    room = self._send.max_body_bytes - len(self._body)
                    self._body += event.data[:room]
                    if len(event.data) > room:
                        self._complete(truncated=True)
                case h11.EndOfMessage():
                    self._complete(truncated=False)
                case _:
                    return

    def _complete(self, *, truncated: bool) -> None:
        assert self._head is not None
        headers = self._head.headers
        self._answer = Response(
            id=self._send.id,
            status=self._head.status_code,
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in headers),
            body=bytes(self._body),
            truncated=truncated,
        )
        if truncated or self._h11.their_state is not h11.DONE:
            # The connection can't be kept, so there is no point in the body's rest.
            self._writing = False

    def _settle(self) -> None:
        """Lets the answer out once it is whole and there is no more to write."""
        if self.outcome is None and self._answer is not None and not self.wants_write:
            self.outcome = self._answer


@attrs.define
class _Feed:
    """The part of a stream that was fed. `_first` of its exchange holds the newest piece as it is on the wire."""

    first: int
    """Where in the stream the body begins."""
    left: int | None
    """How many bytes are to come, if that is known."""
    ended: bool = False
    begun: int = 0
    """Where the newest piece begins, in bytes of the request."""
    _frame: int = 0
    """Bytes of the newest piece that are not the stream's and stand before it (with two more behind)."""
    _size: int = 0
    _fed: int = 0

    def __attrs_post_init__(self) -> None:
        self.ended = self.left == 0

    def take(self, frame: int, data: bytes | memoryview) -> None:
        """Note a piece."""
        self._fed += len(data)
        self._size = len(data)
        self._frame = max(0, frame - 2)
        if self.left is not None:
            self.left -= len(data)
            assert self.left >= 0 and (data or not self.left)
        self.ended = self.left == 0 or not data

    def reached(self, offset: int) -> int:
        """The offset in the stream that is reached at this offset in the request."""
        inside = min(max(offset - self.begun - self._frame, 0), self._size)
        return self.first + self._fed - self._size + inside


def _framing(send: Send, stream_bytes: int | None) -> list[tuple[str, str]]:
    """The headers that say how long the body is."""
    body = send.body
    if not isinstance(body, Stream):
        size = body_size(body)
        return [("Content-Length", str(size))] if size or send.method in _ALWAYS_WITH_LENGTH else []
    if stream_bytes is None:
        return [("Transfer-Encoding", "chunked")]
    length = [("Content-Length", str(stream_bytes))]
    if not stream_bytes:
        return length
    return [*length, ("Content-Range", f"{body.offset}-{body.offset + stream_bytes - 1}")]


def head_of(send: Send) -> tuple[str, list[tuple[str, str]]]:
    """The target and all headers of a request whose body is no `Stream`, for a driver with an HTTP of its own.

    Nothing is to be added: `Host`, `Content-Length` and `User-Agent` are there.
    """
    request = _request(send, None)
    return request.target.decode(), [(name.decode(), value.decode()) for name, value in request.headers]


def _request(send: Send, stream_bytes: int | None) -> h11.Request:
    rest = send.url.partition("://")[2].partition("#")[0]
    authority = _AUTHORITY_END.split(rest, 1)[0]
    target = rest[len(authority) :]
    headers = [("Host", authority), *send.headers, *_framing(send, stream_bytes)]
    if not any(name.lower() == "user-agent" for name, _ in send.headers):
        headers.append(("User-Agent", _USER_AGENT))
    return h11.Request(method=send.method, target=target if target[:1] == "/" else f"/{target}", headers=headers)


def _words(error: Exception) -> str:
    """h11's words, without the header line they may quote: it could hold a token."""
    text = str(error)
    return printable(text.partition(":")[0] if "header" in text else text, DETAIL_MAX)
