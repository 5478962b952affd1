"""What is kept for after a crash: only what a registry can't be asked for.

That is where its open upload sessions are, and little else. It is plain, versioned JSON without any credential in it;
a Location in it may be a secret of the registry's. What comes back from a disk is judged as if it came from the
network, and an offset counts for nothing before the registry has confirmed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, Self, TypeAlias

import attrs

from regproto._content import Digest
from regproto._errors import RegprotoError
from regproto._machine import Knowledge, Outcome
from regproto._reference import check_repository
from regproto._upload import UploadMachine, UploadState
from regproto._url import NamedElsewhere, check_origin, check_upload_url, resolve

VERSION: Final = 1
UPLOADS_MAX: Final = 1_000
"""Upload sessions with nobody at work on them that are kept, and of all that are kept those that are read back: the
newest, thirty times what is open at once by default."""
_SIZE_MAX: Final = 2**63 - 1

KeptKey: TypeAlias = tuple[str, Digest]
"""A repository and a blob in it."""


class _Untrusted(Exception):
    """What was kept can't be used; says why."""


@attrs.frozen(kw_only=True)
class Kept:
    """One upload session."""

    repository: str
    digest: Digest
    size: int
    """Of the blob, in bytes."""
    identity: str
    """`Blob.identity` of the content that is in it."""
    location: str = attrs.field(repr=False)
    offset: int
    """Bytes of it that the registry has acknowledged."""
    chunk_min_bytes: int = 0

    @property
    def key(self) -> KeptKey:
        """What it is an upload of."""
        return self.repository, self.digest

    @classmethod
    def of(cls, upload: UploadMachine) -> Self:
        """An upload session as it stands. (That of a stream is not kept: what it was made from is gone.)"""
        assert upload.blob is not None
        return cls(
            repository=upload.repository,
            digest=upload.digest,
            size=upload.size,
            identity=upload.blob.identity,
            location=upload.location,
            offset=upload.offset,
            chunk_min_bytes=upload.chunk_min_bytes,
        )


@attrs.define(kw_only=True, eq=False, repr=False)
class Checkpoint:
    """The upload sessions of a session and of the one it goes on for, and whether they were handed out to be kept."""

    base: str
    active: bool = False
    """What changes is to be kept."""
    waiting: dict[KeptKey, Kept] = attrs.field(factory=dict)
    """Open at the registry, as far as is known, with nobody at work on them."""
    hinted: set[KeptKey] = attrs.field(factory=set)
    """Of those: which an earlier process left."""
    open: dict[KeptKey, Kept] = attrs.field(factory=dict)
    complaints: list[tuple[str, str]] = attrs.field(factory=list)
    """What was not trusted (a digest or ""), and why."""
    _changed: bool = False
    _last: bytes = b""

    def load(self, hint: bytes, knowledge: Knowledge, trust: Callable[[str], bool] | None) -> None:
        """Take in what an earlier session gave to be kept, as far as it can be trusted."""
        if not hint:
            return
        self._last, self._changed = hint, True
        try:
            content = _parse(hint)
            if content.get("registry") != self.base:
                raise _Untrusted("it is about another registry")
            uploads = [_upload(entry) for entry in _typed(content, "uploads", list)[-UPLOADS_MAX:]]
            single_post = content.get("single_post")
            knowledge.single_post = single_post if isinstance(single_post, bool) else None
        except (_Untrusted, RegprotoError) as error:
            self.complaints.append(("", f"what was kept of an earlier push can't be used: {error}"))
            return
        for kept in uploads:
            try:
                # The same checks as for a Location from the network; a relative one was never kept.
                if resolve(f"{self.base}/", kept.location) != kept.location:
                    raise _Untrusted("the upload URL that was kept is not whole")
                check_origin(self.base, kept.location, trust)
                check_upload_url(self.base, kept.repository, kept.location, kept=True)
            except (_Untrusted, RegprotoError) as error:
                self.complaints.append((str(kept.digest), str(error)))
            else:
                self.waiting[kept.key] = kept
        self.hinted = set(self.waiting)

    def claim(self, repository: str, digest: Digest) -> Kept | None:
        """The session to go on with for a blob, if there is one. It is being worked on from now on."""
        kept = self.waiting.pop((repository, digest), None)
        if kept is not None:
            self.hinted.discard(kept.key)
            self.open[kept.key] = kept
        return kept

    def leave(self, key: KeptKey) -> None:
        """Nobody is at work on it any more, but it is still open."""
        kept = self.open.pop(key, None)
        if kept is None:
            return
        self.waiting[key] = kept  # the last: `_note` has taken an older one out
        while len(self.waiting) > UPLOADS_MAX:
            oldest = next(iter(self.waiting))
            del self.waiting[oldest]
            self.hinted.discard(oldest)
            self._changed = True

    def drop(self, key: KeptKey) -> None:
        """It is closed, or of no use."""
        if self.open.pop(key, None) is not None:
            self._changed = True

    def unclaimed(self) -> Iterator[Kept]:
        """Take out what an earlier session left that nobody wants."""
        for key in sorted(self.hinted):
            self.hinted.discard(key)
            self._changed = True
            if (kept := self.waiting.pop(key, None)) is not None:
                yield kept

    def follow(self, upload: UploadMachine, outcome: Outcome) -> None:
        """Take note of what became of an upload session."""
        if not self.active or not upload.keeps:
            return
        key = (upload.repository, upload.digest)
        match upload.state:
            case UploadState.STARTING:
                pass
            case UploadState.LEFT:
                self._note(upload, key)
                self.leave(key)
            case UploadState.LOST if outcome is Outcome.GAVE_UP:
                self.leave(key)  # nobody said that it is gone
            case state if state in upload.ENDS or state in (UploadState.SETTLING, UploadState.DISCARDING):
                upload.keeps = False
                self.drop(key)
            case _:
                self._note(upload, key)

    def _note(self, upload: UploadMachine, key: KeptKey) -> None:
        kept = Kept.of(upload)
        if self.open.get(key) != kept:
            self.open[key] = kept
            self._changed = True
            self.waiting.pop(key, None)  # this one takes its place
            self.hinted.discard(key)

    def take(self, knowledge: Knowledge) -> bytes | None:
        """What is to be kept from now on, if that has changed."""
        if not self._changed or not self.active:
            return None
        self._changed = False
        # Where another origin leads us at the registry is not for a process that does not know whose word it was.
        known = (*self.waiting.values(), *self.open.values())
        kept = [upload for upload in known if not isinstance(upload.location, NamedElsewhere)]
        data = b""
        if kept:
            content = {
                "version": VERSION,
                "registry": self.base,
                "single_post": knowledge.single_post,
                "uploads": [attrs.asdict(upload) for upload in kept],
            }
            data = json.dumps(content, separators=(",", ":")).encode()
        if data == self._last:
            return None
        self._last = data
        return data


def _parse(hint: bytes) -> dict[str, Any]:
    try:
        content = json.loads(hint)
    except (ValueError, RecursionError):
        raise _Untrusted("it is not JSON") from None
    if not isinstance(content, dict):
        raise _Untrusted("it is not a JSON object")
    if content.get("version") != VERSION:
        raise _Untrusted("it was written by another version")
    return content


def _typed(content: dict[str, Any], name: str, kind: type) -> Any:
    value = content.get(name)
    if type(value) is not kind:
        raise _Untrusted(f"{name} is not of type {kind.__name__}")
    return value


def _number(content: dict[str, Any], name: str) -> int:
    value: int = _typed(content, name, int)
    if not 0 <= value <= _SIZE_MAX:
        raise _Untrusted(f"{name} is out of range")
    return value


def _upload(entry: object) -> Kept:
    """Raises `_Untrusted`, or `InvalidReference` for a repository or digest that is none."""
    if not isinstance(entry, dict):
        raise _Untrusted("an upload is not a JSON object")
    size, offset = _number(entry, "size"), _number(entry, "offset")
    if offset > size:
        raise _Untrusted("more was acknowledged than there is")
    return Kept(
        repository=check_repository(_typed(entry, "repository", str)),
        digest=Digest(_typed(entry, "digest", str)),
        size=size,
        identity=_typed(entry, "identity", str),
        location=_typed(entry, "location", str),
        offset=offset,
        chunk_min_bytes=_number(entry, "chunk_min_bytes"),
    )
