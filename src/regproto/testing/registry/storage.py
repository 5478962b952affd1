"""Where a fake registry's bytes live: a small protocol, and the one in memory.

Bytes only move here; which repository has what is the registry's state, of which a storage that outlives the
process keeps records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

RecordKey: TypeAlias = tuple[str, ...]


class Storage(Protocol):
    """Content by digest, and the growing bodies of upload sessions.

    `append` and `read` may be called from several threads at once, for different uploads; everything else by
    one at a time.
    """

    def size(self, digest: str) -> int:
        """Bytes of stored content. Raises `KeyError` if it is not there."""
        ...

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """`size` bytes of stored content from `offset` on. Raises `KeyError` if it is not there."""
        ...

    def put(self, digest: str, content: bytes) -> None:
        """Store content whose digest is known to be right."""
        ...

    def remove(self, digest: str) -> None:
        """Forget content, if it is there."""
        ...

    def begin(self, upload: str, algorithm: str) -> None:
        """Open an empty upload that is expected to be committed under `algorithm`."""
        ...

    def append(self, upload: str, data: bytes) -> None:
        """Add to an upload."""
        ...

    def length(self, upload: str) -> int:
        """Bytes in an upload. Raises `KeyError` if it is not there."""
        ...

    def digest(self, upload: str, algorithm: str) -> str:
        """The digest of what an upload holds."""
        ...

    def commit(self, upload: str, digest: str) -> None:
        """Turn an upload into content; the upload is gone."""
        ...

    def discard(self, upload: str) -> None:
        """Forget an upload."""
        ...

    def keep(self, key: RecordKey, record: Mapping[str, Any] | None) -> None:
        """Keep a record of plain JSON data for `records` after a restart; None forgets it."""
        ...

    def records(self) -> Mapping[RecordKey, Mapping[str, Any]]:
        """What an earlier life kept."""
        ...


class _Upload:
    __slots__ = ("algorithm", "pieces", "running", "length")

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.pieces: list[bytes] = []
        self.running = hashlib.new(algorithm)
        self.length = 0

    def copy(self) -> _Upload:
        twin = _Upload.__new__(_Upload)
        twin.algorithm, twin.length = self.algorithm, self.length
        twin.pieces, twin.running = self.pieces.copy(), self.running.copy()
        return twin


class MemoryStorage:
    """A `Storage` in memory. It keeps no records: it has no second life."""

    def __init__(self) -> None:
        self._content: dict[str, bytes] = {}
        self._uploads: dict[str, _Upload] = {}

    def copy(self) -> MemoryStorage:
        """An independent twin that shares the bytes themselves."""
        twin = MemoryStorage()
        twin._content = self._content.copy()
        twin._uploads = {name: upload.copy() for name, upload in self._uploads.items()}
        return twin

    def size(self, digest: str) -> int:
        """Bytes of stored content."""
        return len(self._content[digest])

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """Some of the stored content."""
        return self._content[digest][offset : offset + size]

    def put(self, digest: str, content: bytes) -> None:
        """Store content."""
        self._content[digest] = content

    def remove(self, digest: str) -> None:
        """Forget content."""
        self._content.pop(digest, None)

    def begin(self, upload: str, algorithm: str) -> None:
        """Open an upload."""
        self._uploads[upload] = _Upload(algorithm)

    def append(self, upload: str, data: bytes) -> None:
        """Add to an upload."""
        entry = self._uploads[upload]
        entry.pieces.append(bytes(data))
        entry.running.update(data)
        entry.length += len(data)

    def length(self, upload: str) -> int:
        """Bytes in an upload."""
        return self._uploads[upload].length

    def digest(self, upload: str, algorithm: str) -> str:
        """The digest of an upload."""
        entry = self._uploads[upload]
        if algorithm == entry.algorithm:
            return f"{algorithm}:{entry.running.hexdigest()}"
        return hash_pieces(iter(entry.pieces), algorithm)

    def commit(self, upload: str, digest: str) -> None:
        """Turn an upload into content."""
        self._content[digest] = b"".join(self._uploads.pop(upload).pieces)

    def discard(self, upload: str) -> None:
        """Forget an upload."""
        self._uploads.pop(upload, None)

    def keep(self, key: RecordKey, record: Mapping[str, Any] | None) -> None:
        """Nothing to do."""

    def records(self) -> Mapping[RecordKey, Mapping[str, Any]]:
        """None."""
        return {}


def hash_pieces(pieces: Iterator[bytes], algorithm: str) -> str:
    """The digest, `algorithm:hex`, of bytes that come in pieces."""
    running = hashlib.new(algorithm)
    for piece in pieces:
        running.update(piece)
    return f"{algorithm}:{running.hexdigest()}"
