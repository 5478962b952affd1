"""Where a request's body goes: nowhere, into memory, or into an upload session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs

from regproto.testing.registry.http import Reply, refusal
from regproto.testing.registry.state import Call


class Sink(Protocol):
    """Where a request's body goes, and what is done at its end.

    `feed` touches nothing but the request's own upload, so a server may call it without its lock.
    """

    def feed(self, data: bytes) -> Reply | None:
        """Take in a piece of the body. A reply ends the request early."""
        ...

    def finish(self) -> Reply:
        """The body is complete: do the work. May raise `Refused`."""
        ...

    def interrupt(self) -> None:
        """The body was cut."""
        ...


@attrs.frozen
class Then:
    """A sink for work that needs no body."""

    work: Callable[[], Reply]

    def feed(self, data: bytes) -> Reply | None:
        """The body is ignored."""
        return None

    def finish(self) -> Reply:
        """Do the work."""
        return self.work()

    def interrupt(self) -> None:
        """Nothing was done."""


@attrs.define
class Collect:
    """A sink that keeps a small body for the work on it."""

    limit: int
    work: Callable[[bytes], Reply]
    _pieces: list[bytes] = attrs.field(factory=list)
    _size: int = 0

    def feed(self, data: bytes) -> Reply | None:
        """Keep it, up to the limit."""
        self._size += len(data)
        if self._size > self.limit:
            return refusal(413, "SIZE_INVALID", f"at most {self.limit} bytes are accepted")
        self._pieces.append(bytes(data))
        return None

    def finish(self) -> Reply:
        """Do the work."""
        return self.work(b"".join(self._pieces))

    def interrupt(self) -> None:
        """Nothing was done."""


@attrs.define
class Piece:
    """A sink that appends to an upload session. The session is busy until the piece ends."""

    call: Call
    session_id: str
    work: Callable[[], Reply]
    resumable: bool = True
    """False: nobody knows the session, so it ends with its first piece."""
    _received: int = 0

    def __attrs_post_init__(self) -> None:
        self.call.state.change_session(self.session_id, busy=True)

    def feed(self, data: bytes) -> Reply | None:
        """Append it."""
        if data:
            self.call.state.storage.append(self.session_id, data)
            self._received += len(data)
        return None

    def finish(self) -> Reply:
        """The piece is whole: count it, then do the work."""
        self._count(short=0 < self._received < self.call.options.chunk_min_bytes)
        return self.work()

    def interrupt(self) -> None:
        """Keep what came, or lose the session, as the registry does."""
        if not self.resumable:
            self.call.state.close_session(self.session_id)
        elif not self._received:
            self.call.state.change_session(self.session_id, busy=False)
        elif self.call.options.lost_sessions:
            self.call.state.change_session(self.session_id, busy=False, lost=True)
        else:
            version = self.call.state.sessions[self.session_id].version
            self._count(short=False, version=version + 1)

    def _count(self, **changes: int) -> None:
        before = self.call.state.sessions[self.session_id].offset
        changes |= {"offset": before + self._received, "previous": before}
        self.call.state.change_session(self.session_id, busy=False, **changes)
