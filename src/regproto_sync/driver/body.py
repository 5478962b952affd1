"""The bytes of a body that is content, on their way to the wire."""

from __future__ import annotations

import io
from typing import BinaryIO, Final, Self

from regproto import http1
from regproto._model.messages import BlobSlice, Body
from regproto_sync.driver.transport import Wire
from regproto_sync.sources.content import content_errors, content_of
from regproto_sync.sources.reading import read_some

READ_AHEAD_BYTES: Final = 256 * 1024
"""Read from a file at once where it can't be sent as it is: sixteen TLS records, little beside socket buffers."""


class BodyReader:
    """Puts a `BlobSlice`'s bytes on the wire, straight from the file where that is possible; no other body needs it.

    Every failure of the content's is a `ContentFailed`, every `OSError` the connection's.
    """

    def __init__(self, body: Body) -> None:
        self._slice = body if isinstance(body, BlobSlice) else None
        self._ahead = memoryview(b"")

    def __enter__(self) -> Self:
        if self._slice is not None:
            self._content = content_of(self._slice)
            with content_errors():
                self._stream: BinaryIO = self._content.open(self._slice.offset)
            self._file = self._stream if isinstance(self._stream, io.FileIO) else None
            self._position = self._file.tell() if self._file else 0
        return self

    def __exit__(self, *_: object) -> None:
        if self._slice is not None:
            self._stream.close()

    def check(self) -> None:
        """Raises `ContentFailed` if the content is no longer what it was."""
        with content_errors():
            self._content.check(self._stream)

    def write(self, wire: Wire, span: http1.Span) -> int:
        """Writes from the span's beginning; the number of bytes that were taken."""
        if self._file is not None and wire.can_sendfile:
            return self._send_file(wire, self._file, span)
        if not self._ahead:
            size = min(span.size, READ_AHEAD_BYTES)
            with content_errors():
                self._ahead = memoryview(read_some(self._stream, size))
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
            raise http1.ContentFailed(f"the content of {self._slice.digest} ends at or before byte {span.offset}")
