"""The checkpoint kept for after a crash: only what a registry can't be asked for.

It has the URLs of the open upload sessions, and little else. A session that no push of a process goes on with is
carried over as it is: it may be another process's. It is plain, versioned JSON without any credential in it; a Location
in it may be a secret of the registry's. Data from a disk is judged as if it came from the network, and an offset counts
for nothing before the registry has confirmed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Self, TypeAlias

import attrs

from regproto._http.origin_policy import check_origin, check_upload_url, is_led_back
from regproto._http.url import resolve
from regproto._machines.base import Outcome, RegistryCapabilities
from regproto._machines.upload import UploadMachine, UploadState
from regproto._model.digest import Digest
from regproto._model.errors import ContentError, RegprotoError
from regproto._model.manifest import Descriptor
from regproto._model.reference import check_repository

VERSION: Final = 1
UPLOADS_MAX: Final = 1_000
"""Upload sessions that are kept with nobody at work on them, and that are read from a checkpoint: the newest, thirty
times as many as are open at once by default."""
_SIZE_MAX: Final = 2**63 - 1
_USELESS: Final = "what was kept of an earlier push can't be used"

KeptKey: TypeAlias = tuple[str, Digest]
"""A repository and a blob in it."""


class _Untrusted(Exception):
    """A checkpoint, or an upload in it, can't be used; the text says why."""


@attrs.frozen(kw_only=True)
class Kept:
    """One upload session."""

    repository: str
    digest: Digest
    size: int
    """Of the blob, in bytes."""
    identity: str
    """`Blob.identity` of its content."""
    location: str = attrs.field(repr=False)
    offset: int
    """Bytes of it that the registry has acknowledged."""
    chunk_min_bytes: int = 0

    @property
    def key(self) -> KeptKey:
        """The repository and digest that it is an upload of."""
        return self.repository, self.digest

    @property
    def descriptor(self) -> Descriptor:
        """The blob, as far as it is known."""
        return Descriptor(media_type="application/octet-stream", digest=self.digest, size=self.size)

    @classmethod
    def of(cls, upload: UploadMachine) -> Self:
        """An upload session as it stands. (A stream's is not kept: its source can't be read again.)"""
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
    """The upload sessions to keep: those this session works on, and those that earlier processes left."""

    base: str
    active: bool = False
    """True: a changed checkpoint is handed out to be kept."""
    waiting: dict[KeptKey, Kept] = attrs.field(factory=dict)
    """Upload sessions that are open as far as is known, with nobody at work on them."""
    hinted: set[KeptKey] = attrs.field(factory=set)
    """The keys among those that an earlier process left and that were not reported yet."""
    open: dict[KeptKey, Kept] = attrs.field(factory=dict)
    cancelling: dict[str, Kept] = attrs.field(factory=dict)
    """Upload sessions that are being cancelled on request, by Location."""
    displaced: int = 0
    """Upload sessions whose place a newer one of the same blob took, until it is reported."""
    rejected: list[tuple[str, str]] = attrs.field(factory=list)
    """Entries that are not trusted or are forgotten (a digest or ""), and why; until they are reported."""
    _changed: bool = False
    _last: bytes = b""

    def load(self, hint: bytes, capabilities: RegistryCapabilities, trust: Callable[[str], bool] | None) -> None:
        """Read the checkpoint of an earlier session, as far as it can be trusted."""
        if not hint:
            return
        self._last, self._changed = hint, True
        try:
            uploads, capabilities.single_post = _read(hint, self.base)
        except ContentError as error:
            self.rejected.append(("", str(error)))
            return
        self.waiting = {kept.key: kept for kept in self._trusted(uploads, trust)}
        self.hinted = set(self.waiting)

    def _trusted(self, uploads: list[Kept], trust: Callable[[str], bool] | None) -> Iterator[Kept]:
        """The uploads whose URLs would be followed if the registry sent them; the others are noted in `rejected`."""
        if len(uploads) > UPLOADS_MAX:
            forgotten = len(uploads) - UPLOADS_MAX
            text = f"of the uploads that were kept the {forgotten} oldest are forgotten: {UPLOADS_MAX} are kept"
            self.rejected.append(("", text))
        for kept in uploads[-UPLOADS_MAX:]:
            try:
                # The same checks as for a Location from the network; a relative one was never kept.
                if resolve(f"{self.base}/", kept.location) != kept.location:
                    raise _Untrusted("the upload URL that was kept is not whole")
                check_origin(self.base, kept.location, trust)
                check_upload_url(self.base, kept.repository, kept.location, kept=True)
            except (_Untrusted, RegprotoError) as error:
                self.rejected.append((str(kept.digest), str(error)))
            else:
                yield kept

    def cancel(self, hint: bytes, trust: Callable[[str], bool] | None) -> list[Kept]:
        """The uploads of a hint to be cancelled: all that can be trusted and that no push goes on with.

        Raises:
            ContentError: the hint can't be used.
        """
        if not hint:
            return []
        uploads, _ = _read(hint, self.base)
        found = []
        for kept in self._trusted(uploads, trust):
            if kept.location in self.cancelling or kept.key in self.open:
                continue  # it is being cancelled, or a push goes on with it (and its Location may be another by now)
            ours = self.waiting.get(kept.key)
            found.append(kept)
            self.cancelling[kept.location] = kept
            self._changed = True
            if ours is not None and ours.location == kept.location:
                del self.waiting[kept.key]
                self.hinted.discard(kept.key)
        return found

    def cancelled(self, location: str, outcome: Outcome) -> None:
        """Note the end of a cancelling on request: the session is gone, or kept as before."""
        kept = self.cancelling.pop(location, None)
        if kept is None:
            return
        self._changed = True
        if outcome not in (Outcome.DELETED, Outcome.GONE) and kept.key not in self.open:
            self.waiting.setdefault(kept.key, kept)

    def claim(self, repository: str, digest: Digest) -> Kept | None:
        """Take the session to go on with for a blob, if there is one."""
        kept = self.waiting.pop((repository, digest), None)
        if kept is not None:
            self.hinted.discard(kept.key)
            self.open[kept.key] = kept
        return kept

    def leave(self, key: KeptKey) -> None:
        """Note that nobody is at work on a session any more, and that it is still open."""
        kept = self.open.pop(key, None)
        if kept is None:
            return
        self.waiting[key] = kept  # the last: `_note` has taken an older one out
        while len(self.waiting) > UPLOADS_MAX:
            oldest = next(iter(self.waiting))
            del self.waiting[oldest]
            self.hinted.discard(oldest)
            self._changed = True
            text = f"its upload is forgotten: {UPLOADS_MAX} others that were left are newer"
            self.rejected.append((str(oldest[1]), text))

    def drop(self, key: KeptKey) -> None:
        """Forget a session that is closed, or of no use."""
        if self.open.pop(key, None) is not None:
            self._changed = True

    def unclaimed(self) -> list[Kept]:
        """Take the uploads that an earlier session left, no push went on with, and nobody was single_posts of."""
        hinted, self.hinted = self.hinted, set()
        return [self.waiting[key] for key in sorted(hinted) if key in self.waiting]

    def follow(self, upload: UploadMachine, outcome: Outcome) -> bool:
        """Note the state of an upload session; True if it is over, and kept for a later process."""
        key = (upload.repository, upload.digest)
        if not self.active or not upload.keeps:
            if upload.owner is not None and upload.kept_at and upload.state in upload.ENDS:
                self.drop(key)
            return False
        match upload.state:
            case UploadState.STARTING:
                pass
            case UploadState.KEPT_OPEN:
                self._note(upload, key)
                self.leave(key)
            case UploadState.LOST if outcome is Outcome.GAVE_UP and upload.may_be_kept:
                self.leave(key)  # nobody said that it is gone
                return True
            case state if state in upload.ENDS or state in (UploadState.QUERYING_BEFORE_CANCEL, UploadState.CANCELLING):
                upload.keeps = False
                self.drop(key)
            case _:
                self._note(upload, key)
        return False

    def _note(self, upload: UploadMachine, key: KeptKey) -> None:
        kept = Kept.of(upload)
        if self.open.get(key) != kept:
            self.open[key] = kept
            self._changed = True
            # A session that was given up without a word of the registry's: of a blob the newest is kept.
            self.displaced += self.waiting.pop(key, None) is not None
            self.hinted.discard(key)

    def take(self, capabilities: RegistryCapabilities) -> bytes | None:
        """The data to be kept from now on, if it has changed."""
        if not self._changed or not self.active:
            return None
        self._changed = False
        # Where another origin leads us at the registry is not for a process that does not know whose word it was; at
        # its own it gets no authorization anyhow.
        known = (*self.waiting.values(), *self.cancelling.values(), *self.open.values())
        kept = [upload for upload in known if not is_led_back(self.base, upload.location)]
        data = b""
        if kept:
            data = _written(self.base, capabilities.single_post, kept)
        if data == self._last:
            return None
        self._last = data
        return data


def merge_kept(*hints: bytes) -> bytes:
    """Join the checkpoints of several processes that pushed to one registry.

    For one blob in one repository the upload with the most acknowledged bytes is taken; the others are not kept any
    more, and the registry deletes them after a while.

    Args:
        hints: the data of the newest `Save` of each; empty ones are left out.

    Returns:
        The hint for whoever goes on with them. Empty: nothing was kept.

    Raises:
        ContentError: one of them can't be used, or they are about different registries.
    """
    base: str | None = None
    single_posts: set[bool | None] = set()
    found: dict[KeptKey, Kept] = {}
    for hint in filter(None, hints):
        content = _parsed(hint)
        base = base if base is not None else content["registry"]
        uploads, single_post = _read(hint, base)
        single_posts.add(single_post)
        for kept in uploads:
            other = found.pop(kept.key, kept)
            found[kept.key] = other if other.offset > kept.offset else kept
    if base is None or not found:
        return b""
    single_posts.discard(None)
    return _written(base, single_posts.pop() if len(single_posts) == 1 else None, found.values())


def _written(base: str, single_post: bool | None, uploads: Iterable[Kept]) -> bytes:
    content = {
        "version": VERSION,
        "registry": base,
        "single_post": single_post,
        "uploads": [attrs.asdict(upload) for upload in uploads],
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _read(hint: bytes, base: str) -> tuple[list[Kept], bool | None]:
    """The uploads in a hint about the registry at `base`, and whether it takes single POSTs.

    Raises:
        ContentError: it can't be used.
    """
    content = _parsed(hint)
    try:
        if content["registry"] != base:
            raise _Untrusted("it is about another registry")
        uploads = [_upload(entry) for entry in _typed(content, "uploads", list)]
    except (_Untrusted, RegprotoError) as error:
        raise ContentError(f"{_USELESS}: {error}") from None
    single_post = content.get("single_post")
    return uploads, single_post if isinstance(single_post, bool) else None


def _parsed(hint: bytes) -> dict[str, Any]:
    """A hint's fields. Raises `ContentError` if they are not of this version, or about no registry."""
    try:
        content = _parse(hint)
        _typed(content, "registry", str)
    except _Untrusted as error:
        raise ContentError(f"{_USELESS}: {error}") from None
    return content


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
    """One upload of a hint. Raises `_Untrusted`, or `InvalidReferenceError` for a malformed repository or digest."""
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
