"""A fake registry's storage on disk, from which a later process goes on, open upload sessions included.

    <folder>/blobs/<algorithm>/<hex>    blobs and manifests
    <folder>/uploads/<session id>       what came so far
    <folder>/journal.jsonl              one record a line, [key, record or null]; the last of a key counts

The journal is compacted when it is opened. It is flushed, not synced: it outlives the process, not a power
cut.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from regproto._model.errors import LocalProtocolError
from regproto.testing.registry.storage import RecordKey, hash_pieces

_PIECE: Final = 1024 * 1024
"""Bytes read at a time to hash an upload that an earlier process began: large enough that calls cost
nothing."""


class DiskStorage:
    """A `regproto.testing.Storage` in one folder, made if it is not there. Close it to let another process
    have the folder.

    Raises:
        LocalProtocolError: another process has the folder.
        OSError: the folder can't be made, read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uploads = folder / "uploads"
        self._uploads.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            self._records = dict(_read_journal(folder / "journal.jsonl"))
            fresh = folder / "journal.tmp"
            fresh.write_text("".join(map(_line, self._records, self._records.values())))
            os.replace(fresh, folder / "journal.jsonl")
            self._journal = (folder / "journal.jsonl").open("a", encoding="utf-8")
        except BaseException:
            os.close(self._lock)
            raise
        self._running: dict[str, tuple[str, hashlib._Hash]] = {}
        for left in self._uploads.iterdir():
            if ("session", left.name) not in self._records:
                left.unlink()

    def close(self) -> None:
        """Let go of the folder."""
        self._journal.close()
        os.close(self._lock)

    def _path(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self._folder / "blobs" / algorithm / encoded

    def size(self, digest: str) -> int:
        """Bytes of stored content."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            raise KeyError(digest) from None

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """Some of the stored content."""
        try:
            with self._path(digest).open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError:
            raise KeyError(digest) from None

    def put(self, digest: str, content: bytes) -> None:
        """Store content."""
        fresh = self._uploads / "put.tmp"
        fresh.write_bytes(content)
        self._place(fresh, digest)

    def _place(self, file: Path, digest: str) -> None:
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, path)

    def remove(self, digest: str) -> None:
        """Forget content."""
        self._path(digest).unlink(missing_ok=True)

    def begin(self, upload: str, algorithm: str) -> None:
        """Open an upload."""
        (self._uploads / upload).write_bytes(b"")
        self._running[upload] = (algorithm, hashlib.new(algorithm))

    def append(self, upload: str, data: bytes) -> None:
        """Add to an upload, hashing on the way."""
        with (self._uploads / upload).open("ab") as file:
            file.write(data)
        if upload in self._running:
            self._running[upload][1].update(data)

    def length(self, upload: str) -> int:
        """Bytes in an upload."""
        try:
            return (self._uploads / upload).stat().st_size
        except FileNotFoundError:
            raise KeyError(upload) from None

    def digest(self, upload: str, algorithm: str) -> str:
        """The digest of an upload; it is read again if an earlier process began it, or under another
        algorithm."""
        expected, running = self._running.get(upload, ("", None))
        if running is not None and expected == algorithm:
            return f"{algorithm}:{running.hexdigest()}"
        return hash_pieces(_pieces(self._uploads / upload), algorithm)

    def commit(self, upload: str, digest: str) -> None:
        """Turn an upload into content."""
        self._place(self._uploads / upload, digest)
        self._running.pop(upload, None)

    def discard(self, upload: str) -> None:
        """Forget an upload."""
        (self._uploads / upload).unlink(missing_ok=True)
        self._running.pop(upload, None)

    def keep(self, key: RecordKey, record: Mapping[str, Any] | None) -> None:
        """Keep a record."""
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = record
        self._journal.write(_line(key, record))
        self._journal.flush()

    def records(self) -> Mapping[RecordKey, Mapping[str, Any]]:
        """Everything that is kept."""
        return self._records


def _line(key: RecordKey, record: Mapping[str, Any] | None) -> str:
    return json.dumps([key, record], separators=(",", ":")) + "\n"


def _read_journal(path: Path) -> dict[RecordKey, Mapping[str, Any]]:
    records: dict[RecordKey, Mapping[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else ():
        if not line.endswith("\n"):  # the process ended inside its last write
            break
        key, record = json.loads(line)
        if record is None:
            records.pop(tuple(key), None)
        else:
            records[tuple(key)] = record
    return records


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _lock(folder: Path) -> int:
    """An open descriptor that keeps other processes out of the folder; it goes with the process."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LocalProtocolError(f"{folder} is in use by another registry") from None
    return descriptor
