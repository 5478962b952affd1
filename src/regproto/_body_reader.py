"""Reading the bytes of a body from the content that the plan gave: the same in every driver."""

from __future__ import annotations

from typing import Any, Final

from regproto._model.errors import printable
from regproto._model.messages import Body, Stream, body_size

DETAIL_MAX: Final = 200
"""Characters of an error's words."""


class ContentFailed(Exception):
    """The content can't be read, is short, or has changed: close the connection, `Failed(FailureKind.CONTENT)`."""


class SliceReader:
    """Reads the body of a `Send` from its content, in order and once.

    The content, `BlobSlice.source`, has `open(offset)`, which gives a binary stream, and `check(stream)`, which raises
    if the content is no longer what was described. All of it may block, and what it raises becomes `ContentFailed`.
    A body of bytes is read like any other.

    Raises:
        ContentFailed: the body is a `Stream`, which it can't read.
    """

    def __init__(self, body: Body) -> None:
        if isinstance(body, Stream):
            raise ContentFailed("this driver sends no streams")
        self._body = body
        self._left = body_size(body)
        self._stream: Any = None

    def read(self, limit: int) -> bytes:
        """The next bytes, at most `limit`; `b""` after the last. The last are given only if the content is unchanged.

        Raises:
            ContentFailed: see there. Nothing more is to be sent.
        """
        if isinstance(self._body, bytes):
            begin = len(self._body) - self._left
            self._left -= min(limit, self._left)
            return self._body[begin : begin + limit]
        source: Any = self._body.source
        try:
            if self._stream is None:
                self._stream = source.open(self._body.offset)
            wanted = min(limit, self._left)
            data: bytes = self._stream.read(wanted) if wanted else b""
            if not isinstance(data, bytes | bytearray | memoryview):  # None: a stream that does not block
                raise ValueError(f"its stream gives {type(data).__name__}, not bytes")
            if len(data) > wanted:
                raise ValueError(f"its stream gives {len(data)} bytes where {wanted} were asked for")
            self._left -= len(data)
            if not self._left:
                source.check(self._stream)
        except Exception as error:
            raise ContentFailed(printable(f"{self._body.digest}: {error}", DETAIL_MAX)) from error
        if self._left and not data:
            raise ContentFailed(f"the content of {self._body.digest} ends {self._left} bytes too early")
        return data

    def close(self) -> None:
        """Closes what was opened."""
        if self._stream is not None:
            self._stream.close()
