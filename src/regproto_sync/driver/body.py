"""Where the bytes of a body come from: its content, or a stream."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Self, TypeVar

from regproto import http1
from regproto._model.messages import BlobSlice, Body, Stream
from regproto_sync.driver.transport import Wire, reason
from regproto_sync.sources.content import Content
from regproto_sync.sources.reading import read_some
from regproto_sync.sources.stream import StreamContent, StreamReader

READ_AHEAD_BYTES: Final = 256 * 1024
"""Read from a file at once where it can't be sent as it is: sixteen TLS records, little beside socket buffers."""

A = TypeVar("A")
R = TypeVar("R")


class ContentFailed(Exception):
    """The content can't be read, is short, or has changed."""


@contextlib.contextmanager
def attached(body: Stream, wake: Callable[[], None]) -> Iterator[StreamReader]:
    """What a stream's bytes are taken from. Raises `ContentFailed`."""
    if not isinstance(body.source, StreamContent):
        raise ContentFailed(f"there is nothing at hand to read the stream {body.key} from")
    reader = of_content(lambda source: source.attach(body, wake), body.source)
    try:
        yield reader
    finally:
        reader.close()


class BodyReader:
    """Puts a `BlobSlice`'s bytes on the wire, straight from the file where that is possible; no other body needs it.

    Every failure of the content's is a `ContentFailed`, every `OSError` the connection's.
    """

    def __init__(self, body: Body) -> None:
        self._slice = body if isinstance(body, BlobSlice) else None
        self._ahead = memoryview(b"")

    def __enter__(self) -> Self:
        if self._slice is not None:
            source = self._slice.source
            if not isinstance(source, Content):
                raise ContentFailed(f"there is no content at hand for {self._slice.digest}")
            self._content = source
            self._stream: BinaryIO = of_content(source.open, self._slice.offset)
            self._file = self._stream if isinstance(self._stream, io.FileIO) else None
            self._position = self._file.tell() if self._file else 0
        return self

    def __exit__(self, *_: object) -> None:
        if self._slice is not None:
            self._stream.close()

    def check(self) -> None:
        """Raises `ContentFailed` if the content is no longer what it was."""
        of_content(self._content.check, self._stream)

    def write(self, wire: Wire, span: http1.Span) -> int:
        """Writes from the span's beginning; the number of bytes that were taken."""
        if self._file is not None and wire.can_sendfile:
            return self._send_file(wire, self._file, span)
        if not self._ahead:
            size = min(span.size, READ_AHEAD_BYTES)
            self._ahead = memoryview(of_content(lambda stream: read_some(stream, size), self._stream))
            self._refuse_end(len(self._ahead), span)
        if span.last and len(self._ahead) == span.size:
            self.check()
        count = wire.send(self._ahead)
        self._ahead = self._ahead[count:]
        return count

    def _send_file(self, wire: Wire, file: io.FileIO, span: http1.Span) -> int:
        if span.last:
            self.check()
        try:
            count = wire.sendfile(file.fileno(), self._position, span.size)
        except (ConnectionError, TimeoutError):
            raise
        except OSError:
            # A file system that can't do this, or the content's failure: reading will tell.
            file.seek(self._position)
            self._file = None
            return 0
        if count is None:
            return 0
        self._refuse_end(count, span)
        self._position += count
        return count

    def _refuse_end(self, count: int, span: http1.Span) -> None:
        if count == 0:
            assert self._slice is not None
            raise ContentFailed(f"the content of {self._slice.digest} ends at or before byte {span.offset}")


def of_content(call: Callable[[A], R], argument: A) -> R:
    """What a content's method returns, its failures told apart from the connection's."""
    try:
        return call(argument)
    except Exception as error:
        raise ContentFailed(reason(error)) from error
