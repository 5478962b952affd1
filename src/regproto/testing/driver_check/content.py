"""The content of bodies while a driver is checked: a file, and content that does what it should not.

Both have what docs/drivers.md asks of a `Blob.source`: `open(offset)` gives a binary stream, `check(stream)` raises if
the content has changed.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

import attrs

STEP_BYTES: Final = 100_000
"""Given by one read at most: an embedder's own stream need not give all that it is asked for."""


def pattern(size: int) -> bytes:
    """So many bytes, none of them where it could be taken for another a little further on."""
    unit = b"".join(number.to_bytes(4) for number in range(65_537))
    return (unit * (size // len(unit) + 1))[:size]


@attrs.frozen
class FileSource:
    """Content that is a file."""

    path: Path

    def open(self, offset: int = 0) -> BinaryIO:
        """The file itself, unbuffered."""
        stream = io.FileIO(self.path)
        stream.seek(offset)
        return stream

    def check(self, stream: BinaryIO) -> None:
        """It does not change."""


@attrs.define
class OddSource:
    """Content that is no file: it may be slow, break or change.

    Attributes:
        before_read: called before each read, with the number of bytes that were read up to there.
        step_bytes: given by one read at most.
        fails_at: reading raises there.
        changed: `check` raises.
        open_streams: how many are open.
        opened: how many there were.
    """

    data: bytes = attrs.field(repr=False)
    before_read: Callable[[int], object] = lambda _: None
    step_bytes: int = STEP_BYTES
    fails_at: int | None = None
    changed: bool = False
    open_streams: int = 0
    opened: int = 0

    def open(self, offset: int = 0) -> BinaryIO:
        """A stream that gives a little at a time."""
        self.opened += 1
        self.open_streams += 1
        return _OddStream(self, offset)

    def check(self, stream: BinaryIO) -> None:
        """Raises if it has changed."""
        if self.changed:
            raise OSError("the content has changed")


class _OddStream(io.BytesIO):
    def __init__(self, source: OddSource, offset: int) -> None:
        super().__init__(source.data)
        self.seek(offset)
        self._source = source
        self._start = offset

    def read(self, size: int | None = -1, /) -> bytes:
        position = self.tell() - self._start
        self._source.before_read(position)
        wanted = self._source.step_bytes if size is None or size < 0 else min(size, self._source.step_bytes)
        if self._source.fails_at is not None:
            wanted = min(wanted, self._source.fails_at - position)
            if wanted <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(wanted)

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.open_streams -= 1
        super().close()
