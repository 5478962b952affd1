"""The content of a blob (`Blob.source`) for the bundled drivers: a file, a part of one, bytes, or any other `Content`.

What is on disk can change between the moment it was digested and the moment it is sent. So a `FileContent` remembers
the file's size, mtime and inode, and drivers look again when they open it, before the last bytes go out, and after.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol, runtime_checkable

import attrs

from regproto._body_reader import ContentFailed
from regproto._model.digest import Digest
from regproto._model.manifest import Descriptor
from regproto._model.messages import BlobSlice
from regproto.driving import reason
from regproto_sync.sources.reading import read_some

HASHED_BYTES: Final = 256 * 1024
"""Read at a time to be digested: fits a processor's cache."""


class ContentChanged(OSError):
    """The content is not what it was when it was described."""


@runtime_checkable
class Content(Protocol):
    """Where a driver reads a blob from. Its methods are called from a thread of the driver's, and may block."""

    def open(self, offset: int = 0) -> BinaryIO:
        """A stream of the bytes from `offset` on, which the driver closes.

        It may go on after the content's end: as many bytes as the blob's descriptor says are read, and no more. Of an
        `io.FileIO` the driver may send the file itself (sendfile) from where it stands. Raises `OSError` if the
        content can't be read.
        """
        ...

    def check(self, stream: BinaryIO) -> None:
        """Raises `ContentChanged` if `stream` no longer is what was described."""
        ...


@runtime_checkable
class ContentSource(Content, Protocol):
    """Content that knows what it is: what an embedder pushes from wherever it keeps it."""

    def describe(self) -> Descriptor:
        """Its media type, digest and size; the same at every call."""
        ...


@attrs.frozen
class BytesContent:
    """Content that is in memory."""

    data: bytes = attrs.field(repr=False)

    def open(self, offset: int = 0) -> BinaryIO:
        """A stream of the bytes from `offset` on."""
        stream = io.BytesIO(self.data)
        stream.seek(offset)
        return stream

    def check(self, stream: BinaryIO) -> None:
        """Bytes do not change."""


@attrs.frozen
class FileContent:
    """Content that is a file, and what the file looked like when it was described."""

    path: Path
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileContent:
        """The file as it is now. Raises `OSError` if there is none, or it is no regular file."""
        return cls.described(path, os.stat(path))

    @classmethod
    def described(cls, path: str | os.PathLike[str], status: os.stat_result) -> FileContent:
        """The file that had this status. Raises `OSError` if that is no regular file's."""
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        return cls(Path(path), status.st_size, status.st_mtime_ns, status.st_ino)

    @property
    def identity(self) -> str:
        """Another one if the file has changed: its size, mtime and inode."""
        return f"{self.size}-{self.mtime_ns}-{self.inode}"

    def open(self, offset: int = 0) -> BinaryIO:
        """The file, standing at `offset`. Raises `ContentChanged` if it is not the one described."""
        stream = io.FileIO(self.path, opener=_open_at_once)
        try:
            self.check(stream)
            stream.seek(offset)
        except BaseException:
            stream.close()
            raise
        return stream

    def check(self, stream: BinaryIO) -> None:
        """Raises `ContentChanged` if the open file has another size, mtime or inode than described."""
        status = os.fstat(stream.fileno())
        if (status.st_size, status.st_mtime_ns, status.st_ino) != (self.size, self.mtime_ns, self.inode):
            raise ContentChanged(f"{self.path} has changed since it was read for the push")


@attrs.frozen
class SliceContent:
    """Content that is a part of other content, as a member of an archive is."""

    whole: Content
    offset: int
    size: int

    @property
    def identity(self) -> str:
        """Another one if the whole has changed; empty if that has none."""
        whole = getattr(self.whole, "identity", "")
        return f"{whole}-{self.offset}-{self.size}" if whole else ""

    def open(self, offset: int = 0) -> BinaryIO:
        """The whole, standing at `offset` of the part."""
        return self.whole.open(self.offset + offset)

    def check(self, stream: BinaryIO) -> None:
        """Raises `ContentChanged` if the whole has changed."""
        self.whole.check(stream)


def content_of(body: BlobSlice) -> Content:
    """The content that a body is read from. Raises `ContentFailed` if it is none that can be read."""
    if not isinstance(body.source, Content):
        raise ContentFailed(f"there is no content at hand for {body.digest}")
    return body.source


@contextmanager
def content_errors() -> Iterator[None]:
    """Makes `ContentFailed` of what is raised in a block that reads content, apart from errors of the connection."""
    try:
        yield
    except ContentFailed:
        raise
    except Exception as error:
        raise ContentFailed(reason(error)) from error


def digest_of(content: Content, size: int, algorithm: str = "sha256") -> Digest:
    """The digest of the first `size` bytes. Raises `OSError` if they can't be read, are too few, or have changed."""
    hashed, left = hashlib.new(algorithm), size
    with content.open() as stream:
        while left:
            piece = read_some(stream, min(left, HASHED_BYTES))
            if not piece:
                raise ContentChanged(f"ends {left} bytes too early")
            hashed.update(piece)
            left -= len(piece)
        content.check(stream)
    return Digest(f"{algorithm}:{hashed.hexdigest()}")


def _open_at_once(path: str, flags: int) -> int:
    """Opens without waiting for a writer, should a pipe stand there by now."""
    return os.open(path, flags | os.O_NONBLOCK)
