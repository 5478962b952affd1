"""Where the command keeps what a crash would lose: a private file for each source and reference.

    $XDG_STATE_HOME/regproto/<hash of source and reference>.json    (by default ~/.local/state/regproto)
    $XDG_STATE_HOME/regproto/<hash of source and reference>.lock    held while such a push runs

Upload URLs stand in it, and whoever has one may be able to write to that upload; so nobody but the user may read it. It
is replaced as a whole and synced, so that a power cut leaves the old or the new, and it goes when nothing is left to
go on with. A file is of one source alone, so what a push that is done did not go on with (the source has changed) is
nobody's any more, and given back: a file does not grow from push to push.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from regproto import Notice, Reference, Status

STATE_MAX_BYTES: Final = 16 * 1024 * 1024
"""Read back at most: a thousand uploads with the longest Locations there may be."""
_LOCK_TRIES: Final = 10
"""A lock file may be removed by its last owner in the moment it is opened here."""


@runtime_checkable
class CheckpointStore(Protocol):
    """Where a driver puts what a session wants kept (`regproto.Save`)."""

    def save(self, data: bytes) -> None:
        """Keeps this in place of what was kept before; nothing if it is empty.

        Returns when it would outlive the process. Called one at a time, from a thread that may block. An exception
        ends the push.
        """
        ...


class StateFile:
    """The file of one source and reference, locked until `close`: a `CheckpointStore` that says what it can't keep.

    Attributes:
        checkpoint: what an earlier push left.
        kept: what stands in it now, or would.
    """

    def __init__(self, folder: Path, name: str, lock: int, tell: Callable[[str], None]) -> None:
        self.checkpoint = self.kept = b""
        self._folder = folder
        self._path = folder / f"{name}.json"
        self._fresh = folder / f"{name}.tmp"
        self._lock_path = folder / f"{name}.lock"
        self._lock = lock
        self._tell = tell
        self._said = False
        try:
            self.checkpoint = self.kept = _read(self._path)
        except FileNotFoundError:
            pass
        except OSError as error:
            tell(f"what was kept of an earlier push can't be read: {_reason(error)}")

    def save(self, data: bytes) -> None:
        """Replaces the file, or removes it. Failures are told once; the push goes on, and a crash would cost more."""
        self.kept = data
        try:
            if data:
                _write(self._fresh, data)
                os.replace(self._fresh, self._path)
            else:
                self._path.unlink(missing_ok=True)
            _sync_folder(self._folder)
        except OSError as error:
            if not self._said:
                self._said = True
                self._tell(f"the state of this push can't be kept: {_reason(error)}")

    def close(self) -> None:
        """Lets another push have it. Nothing is left in the folder if there is nothing to go on with."""
        with contextlib.suppress(OSError):
            self._fresh.unlink(missing_ok=True)
            if not self._path.exists():
                self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)


def state_folder(environment: Mapping[str, str], home: Path) -> Path:
    """The user's state directory for this program (XDG Base Directory Specification); relative values do not count."""
    named = environment.get("XDG_STATE_HOME", "")
    return (Path(named) if os.path.isabs(named) else home / ".local" / "state") / "regproto"


def open_push_state(source: str, reference: Reference, on_notice: Callable[[Notice], None] | None) -> StateFile | None:
    """`open_state` in this process's user's folder, its words told as news."""

    def tell(text: str) -> None:
        if on_notice is not None:
            on_notice(Notice(status=Status.NOT_RESUMED, subject=reference.registry, text=text))

    folder = state_folder(os.environ, Path(os.path.expanduser("~")))
    return open_state(folder, source, str(reference), tell)


def open_state(folder: Path, source: str, reference: str, tell: Callable[[str], None]) -> StateFile | None:
    """The state of pushing `source` to `reference`; None if another push has it or it can't be had, which is told.

    Args:
        folder: see `state_folder`; made if it is not there.
        source: what it is known by.
        reference: whole, with the registry's host.
        tell: told in words what can't be kept or used.
    """
    name = hashlib.sha256(f"{source}\0{reference}".encode("utf-8", "surrogateescape")).hexdigest()
    try:
        _make_private(folder)
        lock = _take_lock(folder / f"{name}.lock")
    except OSError as error:
        tell(f"{folder}: the state of this push can't be kept: {_reason(error)}")
        return None
    if lock is None:
        tell("another push of this source to this reference is under way; this one does not resume")
        return None
    return StateFile(folder, name, lock, tell)


def _make_private(folder: Path) -> None:
    """The folder, which nobody else may look into. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = os.stat(folder)
    if status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "belongs to another user")
    if status.st_mode & 0o077:
        os.chmod(folder, 0o700)


def _take_lock(path: Path) -> int | None:
    """An open descriptor that holds the lock and goes with the process; None if another process has it."""
    for _ in range(_LOCK_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if not _lock(descriptor):
                os.close(descriptor)
                return None
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass  # its owner removed it: what we have locked is nobody's any more
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> bytes:
    """The file, if nobody else can have written it. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise OSError(errno.EPERM, "not private to this user")
        return file.read(STATE_MAX_BYTES)


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
