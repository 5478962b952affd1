"""The life of a stream: a blob that is sent while it is produced, and whose digest is known at its end.

There is nothing to look for and nothing to mount, so its life is that of its upload session. What it adds is a bound:
the driver keeps only the last bytes that it has sent, so a session can go on from the registry's offset only if that is
still kept, and a new session can take the place of a lost one only while everything is. The driver hashes the bytes and
reports the digest in a `StreamStatus`. Two machines: the stream, and its upload session, which has the states and the
table of any upload (`upload.py`) with a body of unknown size.

Source: distribution-spec "Pushing a blob in chunks" (the PATCH without a range is what registries call streaming).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final

import attrs

from regproto._http.headers import get, parse_range
from regproto._http.url import resolve
from regproto._machines.base import Details, Machine, Outcome, RegistryCapabilities, Request, State, Table, Verdict
from regproto._machines.blob_requests import OCTETS
from regproto._machines.upload import CHUNK_FLOOR_BYTES, UploadMachine, UploadState
from regproto._machines.verdicts import broken
from regproto._model.config import MIB, Config
from regproto._model.digest import Digest
from regproto._model.errors import ContentError, RegistryError, RegprotoError, TransportError
from regproto._model.manifest import Descriptor
from regproto._model.messages import Notice, Response, Status, Stream, StreamStatus
from regproto._model.plan import StreamBlob


class StreamState(State):
    """The states of a stream."""

    UPLOADING = "uploading"
    PRESENT = "present"
    FAILED = "failed"
    DROPPED = "dropped"


_S = StreamState
_O = Outcome

TABLE: Final[Table] = {
    _S.UPLOADING: {
        _O.UPLOADED: _S.PRESENT,
        _O.SESSION_LOST: _S.UPLOADING,
        _O.FAILED: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.PRESENT: {},
    _S.FAILED: {},
    _S.DROPPED: {},
}

RANGE_MAX_BYTES: Final = 64 * MIB
"""A range is held in memory, so a registry whose smallest chunk is larger gets no stream. The largest seen: 10 MiB."""
_WANTS_LENGTH: Final = frozenset({411, 501})
"""Statuses with which servers refuse a chunked body."""
_NOTHING: Final = StreamStatus(sent=0, kept=0)


def unreplayable_error(what: str, status: StreamStatus, cause: RegprotoError | None = None) -> RegprotoError:
    """The error for a stream that would have to be sent again from an offset that is kept no more."""
    kept_bytes = status.sent - status.kept
    text = f"{what} can't be sent again, of its first {status.sent} bytes only the last {kept_bytes} are kept"
    hint = "; spool it to a file first, so that it can be"
    text = f"{cause}; {text}{hint}" if cause is not None else f"{text}{hint}"
    if isinstance(cause, RegistryError):
        return RegistryError(text, status=cause.status, errors=cause.errors)
    return TransportError(text)


@attrs.define(kw_only=True, eq=False, repr=False)
class StreamMachine(Machine):
    """One stream of one push."""

    NAME: ClassVar[str] = "stream"
    TABLE: ClassVar[Table] = TABLE
    ASKS: ClassVar[frozenset[State]] = frozenset()
    ENDS: ClassVar[frozenset[State]] = frozenset({_S.PRESENT, _S.FAILED, _S.DROPPED})

    state: State = _S.UPLOADING
    stream: StreamBlob
    work: Any
    """The push (`push_state.PushState`) it is of."""
    stream_status: StreamStatus = _NOTHING
    """The driver's newest status of it."""
    chunk_bytes: int | None = None
    """The size of a body that an earlier session learned to be small enough; None: the registry wanted no length."""
    sessions_lost: int = 0
    rejections: int = 0
    upload: Machine | None = None
    """The session at work for this, while UPLOADING."""
    sent_bytes: int = 0
    """In the present try."""
    known_bytes: int = 0
    """Its known size when its push was last counted."""

    @property
    def size(self) -> int:
        """Its size in bytes as far as it is known: grows until the end was read."""
        if self.stream_status.digest is not None:
            return self.stream_status.size
        return max(self.known_bytes, self.sent_bytes, self.stream_status.sent)

    @property
    def may_restart(self) -> bool:
        """All that was sent can be sent again."""
        return not self.stream_status.kept

    @property
    def descriptor(self) -> Descriptor:
        """The blob's descriptor, once the stream's end was read."""
        assert self.stream_status.digest is not None
        return Descriptor(
            media_type=self.stream.media_type, digest=self.stream_status.digest, size=self.stream_status.size
        )

    def describe(self) -> str:
        return f"stream {self.stream.key}"

    def news(self, status: Status, sent_bytes: int = 0, text: str = "") -> Notice:
        """News of it, with its size as far as it is known."""
        return Notice(
            status=status,
            subject=self.stream.key,
            media_type=self.stream.media_type,
            sent_bytes=sent_bytes,
            size_bytes=self.size,
            text=text,
        )


@attrs.define(kw_only=True, eq=False, repr=False)
class StreamUpload(UploadMachine):
    """One upload session of one stream: the states and the table of any upload, with a body whose end is not known.

    The stream goes in one chunked PATCH. After a fault, or where the registry, or a proxy before it, wants a length or
    takes only so much, it goes in ranges, each as large as what the driver keeps.
    """

    stream: StreamBlob
    keep_bytes: int
    stream_status: StreamStatus = _NOTHING
    reach: int = 0
    """The largest offset in the stream that any body has reached."""

    @property
    def digest(self) -> Digest:
        assert self.stream_status.digest is not None
        return self.stream_status.digest

    @property
    def algorithm(self) -> str:
        return self.stream.algorithm

    @property
    def size(self) -> int:
        assert self.stream_status.digest is not None
        return self.stream_status.size

    @property
    def most(self) -> int:
        return self.reach

    @property
    def body_bytes(self) -> int:
        return self._share() if self.state is UploadState.PATCHING else 0

    def describe(self) -> str:
        return f"upload of stream {self.stream.key}"

    def note_stream(self, status: StreamStatus) -> None:
        """Note the driver's status of the stream after an exchange."""
        self.stream_status = status
        self.sent = self.reach = max(self.reach, status.sent)

    def decide(self, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        if self.state is UploadState.CLOSING:
            return UploadMachine.decide(self, capabilities, config)
        if self.stream_status.digest is not None and self.offset >= self.stream_status.size:
            return Outcome.COMMIT
        if self.offset < self.stream_status.kept:
            self.error = unreplayable_error(self.describe(), self.stream_status, self.error)
            return Outcome.CONTENT
        # What begins in the middle needs a Content-Range (go-containerregistry's registry refuses it without).
        if self.chunk_bytes is None and (
            self.offset or config.chunk_bytes is not None or capabilities.chunked is False
        ):
            self.chunk_bytes = config.chunk_bytes or self.keep_bytes
        if self.chunk_bytes is not None and self.chunk_min_bytes > RANGE_MAX_BYTES:
            self.error = ContentError(
                f"{self.describe()}: the registry takes no chunk under {self.chunk_min_bytes} bytes, which is more "
                "than can be kept of a stream; spool it to a file first"
            )
            return Outcome.CONTENT
        return Outcome.PATCH

    def _limit(self) -> int | None:
        return None if self.chunk_bytes is None else max(min(self.chunk_bytes, self.keep_bytes), self.chunk_min_bytes)

    def _is_step(self, offset: int) -> bool:
        at_end = self.stream_status.digest is not None and offset >= self.stream_status.size
        return at_end or UploadMachine._is_step(self, offset)

    def _whole(self) -> float:
        return self._limit() or math.inf

    def _share(self) -> int:
        return max(self.keep_bytes, self._limit() or 0)

    def _patch(self) -> Request:
        body = Stream(
            key=self.stream.key,
            source=self.stream.source,
            offset=self.offset,
            limit_bytes=self._limit(),
            keep_bytes=self._share(),
            algorithm=self.stream.algorithm,
        )
        return Request("PATCH", self.location, OCTETS, body)

    def _classify_patch(self, response: Response, url: str) -> Verdict:
        status = response.status
        if status in (200, 201, 202, 204):
            location = get(response.headers, "location")
            if not location:
                return broken(self.describe(), "PATCH", url, f"answered {status} without a Location to go on at")
            offset = self.stream_status.sent
            known = parse_range(get(response.headers, "range"))
            if known is not None and not known.ambiguous and self.offset < known.offset < offset:
                offset = known.offset
            if offset <= self.offset and self.stream_status.digest is None:
                return Outcome.OUT_OF_ORDER, None  # answered before anything was sent, which leads nowhere
            if self.small_step and not self._is_step(offset):
                return self._little_progress(response, "PATCH", url, offset)
            return Outcome.ACCEPTED, Details(location=resolve(url, location), offset=offset)
        if self.chunk_bytes is None and status in (413, *_WANTS_LENGTH):
            chunked = False if status in _WANTS_LENGTH else None
            return Outcome.TOO_LARGE, Details(chunked=chunked, chunk_bytes=self.keep_bytes)
        if status == 413 and self.chunk_bytes is not None and self._may_halve():
            return Outcome.TOO_LARGE, Details(chunk_bytes=max(CHUNK_FLOOR_BYTES, self.chunk_bytes // 2))
        return self._classify_common(response, "PATCH", url)

    def _may_halve(self) -> bool:
        return self.chunk_bytes is not None and self.chunk_bytes > max(CHUNK_FLOOR_BYTES, self.chunk_min_bytes)
