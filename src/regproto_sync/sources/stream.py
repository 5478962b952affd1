"""A stream on its way: read once, on a thread of its own, compressed and hashed there, and kept for a while.

What is read ahead is bounded, and so is what is kept of what was sent: memory stays flat however long the stream is.
The same object serves every driver: an exchange `attach`es to it, takes bytes, and is told when there are more.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Self

from regproto._body_reader import ContentFailed
from regproto._model.digest import Digest
from regproto._model.errors import ContentError, printable
from regproto._model.messages import Stream, StreamStatus
from regproto_sync.sources.compress import (
    BLOCK_BYTES,
    CompressionUnavailable,
    Unpacker,
    check_compression,
    compression_of,
    compressor,
)
from regproto_sync.sources.content import content_errors
from regproto_sync.sources.reading import Source, is_measured, read_into
from regproto_sync.sources.tar import TarCheck

AHEAD_BYTES: Final = 1024 * 1024
"""Read before the connection takes it: some blocks, so that neither side waits for the other's next."""
PIECE_MIN_BYTES: Final = 64 * 1024
"""Pieces smaller than this, which good compression makes, are gathered before they go on."""
RELEASE_S: Final = 0.5
"""How long `close` waits for a source that is being read; one that hangs (a terminal) is left to its own."""


NOT_EMPTY: Final = "anything"
"""Asks of a source only that it is not empty."""


class TarLayer:
    """A layer that comes in pieces: is it a tar, and all of it, and what is its diff_id?

    Args:
        packed: the compression that it is to have: `none`, `gzip` or `zstd`.

    Raises:
        CompressionUnavailable: zstd is not installed.
    """

    def __init__(self, packed: str) -> None:
        self._packed = packed
        self._unpacker = Unpacker(packed)
        self._tar = TarCheck()
        self._begins_as = ""
        """How its first bytes look to be compressed; empty: there are none yet."""
        self.hash = hashlib.sha256()
        """Of the plain tar."""

    def feed(self, block: memoryview) -> None:
        """Takes note of the next bytes, the first time of 6 at least if there are so many. Raises `ContentError`."""
        if not self._begins_as and block:
            self._begins_as = compression_of(block)
            if self._packed not in ("none", self._begins_as):
                raise ContentError(f"is not {self._packed}, as its media type says")
        with self._refusing():
            for piece in self._unpacker.feed(block):
                self.hash.update(piece)
                self._tar.feed(piece)

    def end(self, measured: bool) -> None:
        """Raises `ContentError` unless it was all of a tar; `measured`: see `TarCheck.end`."""
        with self._refusing():
            if self._begins_as:
                self._unpacker.end()
            self._tar.end(measured)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except ContentError as error:
            # Only now: what begins as a compressed file does may yet be a plain tar.
            if not self._tar.headers and self._begins_as not in ("", "none", self._packed):
                raise ContentError(f"is {self._begins_as} already: expected a plain tar") from error
            raise


def look_at(source: Source, packed: str) -> None:
    """Reads the beginning of a source that is to be a layer. Raises `ContentError` if it is none, and `OSError`."""
    layer, block = TarLayer(packed), memoryview(bytearray(BLOCK_BYTES))
    size = _fill(source, block)
    layer.feed(block[:size])
    if size < BLOCK_BYTES:
        layer.end(is_measured(source))


class CompressedStream:
    """Blocks of a source, compressed, and the digests of both sides.

    Args:
        source: is read to its end.
        compression: of what comes out.
        level: of the compression.
        algorithm: of the digest of what comes out.
        packed: what the source has to be: a tar with this compression, or `NOT_EMPTY`; None: anything.
        begun: called when its beginning is read, and is what it has to be.
    """

    def __init__(
        self,
        source: Source,
        compression: str = "none",
        level: int | None = None,
        algorithm: str = "sha256",
        packed: str | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._begun = begun
        self._layer = None if packed in (None, NOT_EMPTY) else TarLayer(packed)
        self._may_be_empty = packed != NOT_EMPTY
        self._algorithm = algorithm
        self._compression = compression
        self._compressor = compressor(compression, check_compression(compression, level))
        self._plain = self._layer.hash if self._layer is not None else hashlib.sha256()
        same = compression == "none" and algorithm == "sha256" and packed in (None, "none", NOT_EMPTY)
        self._hash = self._plain if same else hashlib.new(algorithm)
        self.size = 0

    @property
    def digest(self) -> Digest:
        """Of what came out so far."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    @property
    def diff_id(self) -> Digest:
        """Of what went in so far, before any compression."""
        return Digest(f"sha256:{self._plain.hexdigest()}")

    def __iter__(self) -> Iterator[bytes]:
        """Non-empty pieces, to the end."""
        gathered: list[bytes] = []
        gathered_bytes = 0
        for block in self._blocks():
            piece = self._compressor.compress(block)
            gathered.append(piece)
            gathered_bytes += len(piece)
            if gathered_bytes >= PIECE_MIN_BYTES:
                yield self._pass(b"".join(gathered))
                gathered, gathered_bytes = [], 0
        if last := b"".join((*gathered, self._compressor.flush())):
            yield self._pass(last)

    def _pass(self, piece: bytes) -> bytes:
        self.size += len(piece)
        if self._hash is not self._plain:
            self._hash.update(piece)
        return piece

    def _blocks(self) -> Iterator[memoryview]:
        """The source in blocks of one size, whatever it gives at a time."""
        first = True
        while True:
            room = memoryview(bytearray(BLOCK_BYTES))
            block = room[: _fill(self._source, room)]
            if self._layer is not None:
                self._layer.feed(block)
                if len(block) < BLOCK_BYTES:  # before the last bytes go on: what is cut short is never whole elsewhere
                    self._layer.end(is_measured(self._source))
            else:
                if first:
                    self._check_first(block)
                self._plain.update(block)
            if first:
                self._begun()
            first = False
            if block:
                yield block
            if len(block) < BLOCK_BYTES:
                return

    def _check_first(self, block: memoryview) -> None:
        if not block and not self._may_be_empty:
            raise ContentError("is empty")
        found = compression_of(block) if self._compression != "none" else "none"
        if found in ("gzip", "zstd"):
            raise ContentError(f"is {found} already: what is to be compressed must be plain")


def _fill(source: Source, room: memoryview) -> int:
    """Reads until `room` is full or the source ends; the number of bytes."""
    size = 0
    while size < len(room) and (count := read_into(source, room[size:])):
        size += count
    return size


class StreamContent:
    """The content of a stream (`StreamBlob.source`) for the bundled drivers. It can be sent once.

    Args:
        open_source: gives the source, which is read to its end and closed, on a thread of ours.
        compression: `none`, `gzip` or `zstd`.
        level: of the compression; None: its usual one.
        packed: what the source has to be: a tar with this compression, all of it, or `NOT_EMPTY`; None: anything.

    Raises:
        LocalProtocolError: there is no such compression or level.
        CompressionUnavailable: zstd is not installed.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        compression: str = "none",
        level: int | None = None,
        *,
        packed: str | None = None,
    ) -> None:
        compressor(compression, check_compression(compression, level))  # so that mistakes show before anything is sent
        if packed not in (None, NOT_EMPTY):
            Unpacker(packed)
        self.compression = compression
        self.packed = packed
        self._open = open_source
        self._level = level
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pieces: deque[bytes] = deque()
        self._kept = 0
        """The offset of the first piece that is kept."""
        self._read = 0
        self._target = 0
        """Up to where it is read ahead."""
        self._compressed: CompressedStream | None = None
        self.looked = False
        """The beginning is known to be what it has to be."""
        self._error: str | None = None
        self._ended = False
        self._closed = False
        self._wake: Callable[[], None] | None = None

    @property
    def diff_id(self) -> Digest:
        """The digest before compression. Only once the stream has ended."""
        assert self._ended and self._compressed is not None
        return self._compressed.diff_id

    def attach(self, body: Stream, wake: Callable[[], None]) -> StreamReader:
        """Begin to send from `body.offset` on.

        Args:
            body: what is to be sent.
            wake: called in any thread when there may be more to take, and never after `StreamReader.close`. It must not
                block.

        Raises:
            ContentFailed: it is kept no more, or can't be read.
        """
        with self._changed:
            if self._closed:
                raise ContentFailed("the stream is closed")
            if not self._kept <= body.offset <= self._read:
                raise ContentFailed(f"byte {body.offset} of the stream is not at hand: it is kept from {self._kept} on")
            self._start(body.key, body.algorithm)
            self._wake = wake
        return StreamReader(self, body)

    def begin(self, key: str, algorithm: str) -> None:
        """Begin to read, before it is known where to send it: the `StreamBlob`'s key and algorithm."""
        with self._changed:
            self._start(key, algorithm)

    def failure(self, timeout_s: float) -> str | None:
        """The fault of the beginning, once that is read; None: it has none, or is not there in so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.looked or self._closed or self._error is not None, timeout_s)
            return self._error

    def _start(self, key: str, algorithm: str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(algorithm,), name=f"regproto-stream {key}", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Ends the reading, and lets go of what is kept."""
        with self._changed:
            self._closed = True
            self._pieces.clear()
            self._wake = None
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(RELEASE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread that reads ---

    def _run(self, algorithm: str) -> None:
        try:
            with contextlib.closing(self._open()) as source:
                self._compressed = compressed = CompressedStream(
                    source, self.compression, self._level, algorithm, self.packed, self._begin
                )
                for piece in compressed:
                    if not self._put(piece):
                        return
        except (ContentError, CompressionUnavailable) as error:
            self._end(str(error))
        except Exception as error:
            text = error.strerror if isinstance(error, OSError) else None
            self._end(printable(text or str(error) or type(error).__name__, 300))
        else:
            self._end(None)

    def _begin(self) -> None:
        with self._changed:
            self.looked = True
            self._changed.notify_all()

    def _put(self, piece: bytes) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._read < self._target)
            if self._closed:
                return False
            self._pieces.append(piece)
            self._read += len(piece)
            if self._wake is not None:
                self._wake()
        return True

    def _end(self, error: str | None) -> None:
        with self._changed:
            self._error = error
            self._ended = error is None
            self._changed.notify_all()
            if self._wake is not None:
                self._wake()


@contextlib.contextmanager
def stream_reader(body: Stream, wake: Callable[[], None]) -> Iterator[StreamReader]:
    """A reader of what is to be sent, closed at the end; see `StreamContent.attach`. Raises `ContentFailed`."""
    if not isinstance(body.source, StreamContent):
        raise ContentFailed(f"there is nothing at hand to read the stream {body.key} from")
    with content_errors():
        reader = body.source.attach(body, wake)
    try:
        yield reader
    finally:
        reader.close()


class StreamReader:
    """One body of a stream on its way. Used by one thread (or task) at a time."""

    def __init__(self, content: StreamContent, body: Stream) -> None:
        self._content = content
        self._body = body
        self._position = body.offset
        self._left = body.limit_bytes
        self._want()

    def _want(self) -> None:
        content, limit = self._content, self._left
        ahead = AHEAD_BYTES if limit is None else limit + 1  # one more tells whether the stream ends there
        with content._changed:
            if self._position + ahead > content._target:
                content._target = self._position + ahead
                content._changed.notify_all()

    def limited_size(self) -> int | None:
        """Of a body with a limit: its size, once all of it is at hand; None: not yet.

        Raises:
            ContentFailed: the source can't be read.
        """
        content = self._content
        assert self._left is not None
        with content._changed:
            at_hand = content._read - self._position
            if at_hand > self._left or content._ended:
                self._left = min(at_hand, self._left)
                return self._left
            self._refuse()
        return None

    def take(self) -> bytes | memoryview | None:
        """The next piece; empty: the stream has ended; None: there is nothing yet. What was taken before is sent.

        Raises:
            ContentFailed: the source can't be read.
        """
        content = self._content
        with content._changed:
            self._drop()
            piece = self._find()
            if piece is None and not content._ended:
                self._refuse()
                return None
        if piece is None:
            return b""
        if self._left is not None:
            piece = piece[: self._left]
            self._left -= len(piece)
        self._position += len(piece)
        if self._left is None:
            self._want()
        return piece

    def stream_status(self, sent: int) -> StreamStatus:
        """How the stream stands, once so much of it was sent."""
        content = self._content
        with content._changed:
            if not content._ended or content._compressed is None:
                return StreamStatus(sent=sent, kept=content._kept)
            return StreamStatus(
                sent=sent, kept=content._kept, digest=content._compressed.digest, size=content._compressed.size
            )

    def close(self) -> None:
        """Detaches it: nobody is woken any more."""
        with self._content._changed:
            self._content._wake = None

    def _refuse(self) -> None:
        if self._content._error is not None:
            raise ContentFailed(f"stream {self._body.key}: {self._content._error}")
        if self._content._closed:
            raise ContentFailed("the stream is closed")

    def _drop(self) -> None:
        """Let go of pieces of which nothing is to be kept."""
        content = self._content
        while content._pieces and content._kept + len(content._pieces[0]) <= self._position - self._body.keep_bytes:
            content._kept += len(content._pieces.popleft())

    def _find(self) -> memoryview | None:
        """The bytes at the position, up to the end of a piece; None: there are none yet."""
        content = self._content
        end = content._read
        for piece in reversed(content._pieces):  # nearly always the last few
            start = end - len(piece)
            if start <= self._position < end:
                return memoryview(piece)[self._position - start :]
            if end <= self._position:
                return None
            end = start
        return None
