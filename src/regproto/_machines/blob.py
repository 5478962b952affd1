"""The life of a blob: is it there, can it be mounted, does one POST do, or does it need an upload session?

It chooses the cheapest way that is still open, falls back when a registry refuses one, and looks (CONFIRMING, a HEAD)
before it repeats anything after an answer that was lost. A success without evidence is confirmed in the same way; where
the HEAD does not say enough, the blob's first byte is read (PROVING). Where it may be mounted from several
repositories, it waits until these were asked (AWAITING_SOURCES; `source_check.py` has the questions). While the same
content is on its way into a repository that it may be mounted from, it waits for that (WAITING). The upload session is
a machine of its own (`upload.py`): one blob may own several in turn.

Source: distribution-spec "Checking if content exists", "Single POST", "Mounting a blob from another repository".
"""

from __future__ import annotations

from typing import ClassVar, Final

import attrs

from regproto._http.headers import get, parse_length
from regproto._http.registry_errors import error_codes
from regproto._http.url import blob_url, resolve, uploads_url, with_query
from regproto._machines.base import (
    Details,
    Machine,
    Outcome,
    RegistryCapabilities,
    Request,
    State,
    Table,
    Verdict,
    members,
)
from regproto._machines.blob_requests import (
    CONTENT_CODES,
    FIRST_BYTE,
    OCTETS,
    SHORT_CUT_FAULTS_MAX,
    START_HEADERS,
    blob_body,
    look_verdict,
    proof_verdict,
)
from regproto._machines.verdicts import broken, claimed, refused
from regproto._model.config import Config
from regproto._model.digest import Digest
from regproto._model.errors import ContentError
from regproto._model.manifest import Descriptor
from regproto._model.messages import Response, Status
from regproto._model.plan import Blob, MountSource


class BlobState(State):
    """The states of a blob."""

    WAITING = "waiting"
    CHOOSING = "choosing"
    CHECKING = "checking"
    AWAITING_SOURCES = "awaiting sources"
    MOUNTING = "mounting"
    POSTING = "posting"
    CONFIRMING = "confirming"
    PROVING = "proving"
    UPLOADING = "uploading"
    PRESENT = "present"
    FAILED = "failed"
    DROPPED = "dropped"


_S: Final = members(BlobState)
_O: Final = members(Outcome)
_N: Final = members(Status)

TABLE: Final[Table] = {
    _S.WAITING: {_O.READY: _S.CHOOSING, _O.CANCEL: _S.DROPPED},
    _S.CHOOSING: {
        _O.FOLLOW: _S.WAITING,
        _O.LOOK: _S.CHECKING,
        _O.CHECK: _S.AWAITING_SOURCES,
        _O.MOUNT: _S.MOUNTING,
        _O.POST: _S.POSTING,
        _O.UPLOAD: _S.UPLOADING,
        _O.CONTENT: _S.FAILED,
    },
    _S.CHECKING: {
        _O.PRESENT: _S.PRESENT,
        _O.ABSENT: _S.CHOOSING,
        _O.CHALLENGED: _S.CHECKING,
        _O.NOT_SENT: _S.CHECKING,
        _O.LOST: _S.CHECKING,
        _O.UNAVAILABLE: _S.CHECKING,
        _O.GAVE_UP: _S.FAILED,
        _O.RETRIES_EXHAUSTED: _S.CHOOSING,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.AWAITING_SOURCES: {_O.READY: _S.CHOOSING, _O.CANCEL: _S.DROPPED},
    _S.MOUNTING: {
        _O.CREATED: _S.PRESENT,
        _O.INCONCLUSIVE: _S.CONFIRMING,
        _O.STARTED: _S.CHOOSING,
        _O.REJECTED: _S.CHOOSING,
        _O.CHALLENGED: _S.MOUNTING,
        _O.NOT_SENT: _S.MOUNTING,
        _O.LOST: _S.MOUNTING,
        _O.UNAVAILABLE: _S.MOUNTING,
        _O.GAVE_UP: _S.CHOOSING,
        _O.RETRIES_EXHAUSTED: _S.CHOOSING,
        _O.REFUSED: _S.CHOOSING,
        _O.DENIED: _S.CHOOSING,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.POSTING: {
        _O.CREATED: _S.PRESENT,
        _O.INCONCLUSIVE: _S.CONFIRMING,
        _O.STARTED: _S.UPLOADING,
        _O.REJECTED: _S.CHOOSING,
        _O.CHALLENGED: _S.POSTING,
        _O.NOT_SENT: _S.POSTING,
        _O.LOST: _S.CONFIRMING,
        _O.UNAVAILABLE: _S.CONFIRMING,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CONTENT: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.CONFIRMING: {
        _O.PRESENT: _S.PRESENT,
        _O.ABSENT: _S.CHOOSING,
        _O.INCONCLUSIVE: _S.PROVING,
        _O.CHALLENGED: _S.CONFIRMING,
        _O.NOT_SENT: _S.CONFIRMING,
        _O.LOST: _S.CONFIRMING,
        _O.UNAVAILABLE: _S.CONFIRMING,
        _O.GAVE_UP: _S.FAILED,
        _O.RETRIES_EXHAUSTED: _S.CHOOSING,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.PROVING: {
        _O.PRESENT: _S.PRESENT,
        _O.ABSENT: _S.CHOOSING,
        _O.CHALLENGED: _S.PROVING,
        _O.NOT_SENT: _S.PROVING,
        _O.LOST: _S.PROVING,
        _O.UNAVAILABLE: _S.PROVING,
        _O.GAVE_UP: _S.FAILED,
        _O.RETRIES_EXHAUSTED: _S.CHOOSING,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.UPLOADING: {
        _O.UPLOADED: _S.PRESENT,
        _O.SESSION_LOST: _S.CHOOSING,
        _O.FAILED: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.PRESENT: {_O.CANCEL: _S.DROPPED},
    _S.FAILED: {},
    _S.DROPPED: {},
}

SINGLE_POST_REFUSALS: Final = frozenset({400, 404, 405, 411, 413, 416, 501})
"""Statuses with which registries that do not know the single POST were seen to answer it."""

_TAKES_POST: Final = Details(single_post=True)


@attrs.define(kw_only=True, eq=False, repr=False)
class BlobMachine(Machine):
    """One blob in one repository."""

    NAME: ClassVar[str] = "blob"
    TABLE: ClassVar[Table] = TABLE
    ASKS: ClassVar[frozenset[State]] = frozenset({_S.CHECKING, _S.MOUNTING, _S.POSTING, _S.CONFIRMING, _S.PROVING})
    DECIDES: ClassVar[frozenset[State]] = frozenset({_S.CHOOSING})
    ENDS: ClassVar[frozenset[State]] = frozenset({_S.PRESENT, _S.FAILED, _S.DROPPED})

    state: State = _S.CHOOSING
    blob: Blob
    digest: Digest = attrs.field(init=False)
    size: int = attrs.field(init=False)
    """Bytes."""
    candidates: tuple[MountSource | None, ...] = ()
    """Mount sources not tried yet; None asks for a mount without naming one."""
    checks: bool = attrs.field(init=False)
    """Several of its sources can be asked whether they have it, and are, before it is mounted."""
    cleared: frozenset[str] = frozenset()
    """Of those, the ones that were asked and not ruled out."""
    looked: bool = False
    may_post: bool = True
    location: str = ""
    """An upload session from a refused mount or POST, or an earlier process; handed on to the upload, or cancelled."""
    kept_offset: int | None = None
    """The part of the blob in an earlier process's session; None: the session at `location` is not an earlier one's."""
    mounted_from: str = ""
    how: Status = Status.EXISTING
    """How it came to be there, once it is."""
    chunk_min_bytes: int = 0
    """The smallest chunk of the session at `location`."""
    chunk_bytes: int | None = None
    """The size of a body that an earlier session learned to be small enough."""
    sessions_lost: int = 0
    rejections: int = 0
    """How often what was sent was refused as not matching the digest."""
    upload: Machine | None = None
    """The session at work for this, while UPLOADING."""

    def __attrs_post_init__(self) -> None:
        self.digest, self.size = self.blob.descriptor.digest, self.blob.descriptor.size
        named = self.candidates[1:] and [s for s in self.candidates if s is not None and not s.foreign]
        self.checks = len(named) > 1

    @property
    def body_bytes(self) -> int:
        return self.size if self.state is _S.POSTING else 0

    @property
    def mount_source(self) -> str:
        source = self.candidates[0] if self.state is _S.MOUNTING else None
        return source.repository if source is not None and not source.foreign else ""

    @property
    def holds_session(self) -> bool:
        return bool(self.location) and self.kept_offset is None

    def may_open(self, capabilities: RegistryCapabilities) -> bool:
        # Not known yet: whether a single POST is taken. Then its body is small, too.
        return self.state is _S.MOUNTING or (self.state is _S.POSTING and not capabilities.single_post)

    @property
    def has_content(self) -> bool:
        """False if the blob can only be found or mounted."""
        return self.blob.source is not None or self.blob.has_content

    @property
    def reference(self) -> str:
        """The digest."""
        return self.digest

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor in the plan."""
        return self.blob.descriptor

    def describe(self) -> str:
        return f"blob {self.digest}"

    def max_faults(self, config: Config) -> int:
        return min(SHORT_CUT_FAULTS_MAX, config.attempts - 1) if self.state is _S.MOUNTING else config.attempts - 1

    def decide(self, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        takes_post = capabilities.single_post
        if not self.looked:
            small = self.size <= config.small_blob_bytes and takes_post is not False
            # An empty blob costs nothing to send; with a mount source at hand the HEAD may save the mount's session.
            if not small or self.candidates or not self.has_content:
                return _O.LOOK
        if self.candidates:
            return _O.CHECK if self._is_to_be_checked(self.candidates[0]) else _O.MOUNT
        if not self.has_content:
            self.error = ContentError(
                f"{self.describe()} is not in the repository, and there is no content to push it from"
            )
            return _O.CONTENT
        likely = takes_post or (takes_post is None and self.size <= config.small_blob_bytes)
        if likely and self.may_post and not self.location and self.size <= config.resumable_above_bytes:
            return _O.POST
        return _O.UPLOAD

    def _is_to_be_checked(self, source: MountSource | None) -> bool:
        return self.checks and source is not None and not source.foreign and source.repository not in self.cleared

    def request(self) -> Request:
        if self.state is _S.MOUNTING:
            return self._mount()
        if self.state is _S.POSTING:
            url = f"{uploads_url(self.base, self.repository)}?digest={self.digest}"
            return Request("POST", url, OCTETS, blob_body(self.blob, 0, self.size))
        url = blob_url(self.base, self.repository, self.digest)
        return Request("GET", url, FIRST_BYTE) if self.state is _S.PROVING else Request("HEAD", url)

    def _mount(self) -> Request:
        source = self.candidates[0]
        url = with_query(uploads_url(self.base, self.repository), "mount", self.digest)
        if source is None:
            return Request("POST", url, START_HEADERS)
        url = with_query(url, "from", source.repository)
        if source.registry:
            url = with_query(url, "origin", source.registry)
        return Request("POST", url, START_HEADERS)

    def classify(self, response: Response, url: str, proven: bool) -> Verdict:
        if self.state is _S.MOUNTING:
            return self._classify_mount(response, url, proven)
        if self.state is _S.POSTING:
            return self._classify_post(response, url, proven)
        if self.state is _S.PROVING:
            return proof_verdict(self, response, url, self.digest, self.size)
        verdict = look_verdict(self, response, url, self.digest, self.size)
        # Before anything was sent, to send it is as cheap as to find out.
        return (_O.ABSENT, None) if verdict[0] is _O.INCONCLUSIVE and self.state is _S.CHECKING else verdict

    def _classify_mount(self, response: Response, url: str, proven: bool) -> Verdict:
        if response.status == 201:
            return claimed(self, "POST", url, response, self.digest, proven)
        if response.status == 202 and (location := get(response.headers, "location")):
            return _O.STARTED, Details(location=resolve(url, location), chunk_min_bytes=_chunk_min(response))
        outcome, _ = refused(self.describe(), "POST", url, response)
        if outcome is _O.UNAVAILABLE:
            return outcome, None
        # What is about this source leaves the next one to be tried; anything else is about mounting as such.
        return (_O.REJECTED if response.status in (202, 401, 403, 404) else _O.RETRIES_EXHAUSTED), None

    def _classify_post(self, response: Response, url: str, proven: bool) -> Verdict:
        status = response.status
        if status == 201:
            verdict = claimed(self, "POST", url, response, self.digest, proven)
            return (_O.CREATED, _TAKES_POST) if verdict[0] is _O.CREATED else verdict
        if status == 202:
            location = get(response.headers, "location")
            if not location:
                return broken(self.describe(), "POST", url, "answered 202 without a Location for the upload session")
            return _O.STARTED, Details(
                location=resolve(url, location), chunk_min_bytes=_chunk_min(response), single_post=False
            )
        if status in SINGLE_POST_REFUSALS:
            # A digest that is refused says nothing about the way it was sent; nor does one body that is too large.
            about_content = status in (413, 416) or error_codes(response) & CONTENT_CODES
            return _O.REJECTED, Details(single_post=None if about_content else False)
        return refused(self.describe(), "POST", url, response)

    def update(self, outcome: Outcome, details: Details | None) -> None:
        Machine.update(self, outcome, details)
        state = self.state
        if state is _S.WAITING or state is _S.CHOOSING:
            return
        if state is _S.AWAITING_SOURCES:
            if details is not None:
                self.candidates, self.cleared = details.sources, details.cleared
            return
        if state is _S.MOUNTING:
            self._update_mount(outcome)
        elif state is _S.POSTING:
            self.how, self.mounted_from = _N.UPLOADED, ""  # if it is there after this, by whatever answer
            if outcome not in (_O.CREATED, _O.CHALLENGED, _O.NOT_SENT):
                self.may_post = False
                self.looked = True
        elif state is _S.UPLOADING:
            self.how, self.mounted_from = _N.UPLOADED, ""
        else:
            self.looked = True
        if details is not None and details.location:
            self.location, self.kept_offset = details.location, None
            self.chunk_min_bytes = details.chunk_min_bytes

    def _update_mount(self, outcome: Outcome) -> None:
        if outcome in (_O.CREATED, _O.INCONCLUSIVE):
            source = self.candidates[0]
            self.mounted_from = source.repository if source else "another repository"
            self.how = _N.MOUNTED
        if outcome in (_O.INCONCLUSIVE, _O.STARTED, _O.REJECTED, _O.REFUSED, _O.DENIED):
            self.candidates = self.candidates[1:]
            if outcome is _O.STARTED and self.checks and self.has_content:
                # The session is of use, so it is given up only for a source that is likely to have it.
                self.candidates = tuple(s for s in self.candidates if s is not None and s.repository in self.cleared)
        elif outcome in (_O.GAVE_UP, _O.RETRIES_EXHAUSTED):
            self.candidates = ()


def _chunk_min(response: Response) -> int:
    return parse_length(get(response.headers, "oci-chunk-min-length")) or 0
