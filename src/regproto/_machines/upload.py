"""The life of an upload session: opened, filled, committed, or cancelled.

After every answer that was lost it asks before it goes on: the registry's own offset (QUERYING_STATUS, a GET) while
filling, the digest (CHECKING_BLOB, a HEAD, and PROVING, a GET of the first byte where that does not say enough) once a
commit was sent. Its end is part of its life: a session that is no longer needed (CLOSING) is left open for a later
process (KEPT_OPEN), or deleted at its newest Location (CANCELLING), after a query for that where it may have changed
(QUERYING_BEFORE_CANCEL). A session that an earlier process left begins with a query.

Source: distribution-spec "POST then PUT", "Pushing a blob in chunks", "Cancel a blob upload".
"""

from __future__ import annotations

from typing import ClassVar, Final

import attrs

from regproto._http.headers import get, parse_length, parse_range
from regproto._http.origin_policy import is_led_back
from regproto._http.registry_errors import error_codes, refusal
from regproto._http.url import blob_url, resolve, shown, uploads_url, with_query
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
    FIRST_BYTE,
    OCTETS,
    START_HEADERS,
    blob_body,
    content_refused,
    look_verdict,
    proof_verdict,
)
from regproto._machines.verdicts import broken, claimed, refused
from regproto._model.config import TRANSIENT, Config
from regproto._model.digest import Digest
from regproto._model.errors import RegistryError, RemoteProtocolError
from regproto._model.messages import Response
from regproto._model.plan import Blob


class UploadState(State):
    """The states of an upload session."""

    STARTING = "starting"
    PLANNING = "planning"
    PATCHING = "patching"
    PUTTING = "putting"
    COMMITTING = "committing"
    QUERYING_STATUS = "querying status"
    CHECKING_BLOB = "checking blob"
    PROVING = "proving"
    CLOSING = "closing"
    QUERYING_BEFORE_CANCEL = "querying before cancel"
    CANCELLING = "cancelling"
    DONE = "done"
    LOST = "lost"
    ABANDONED = "abandoned"
    KEPT_OPEN = "kept open"


_S: Final = members(UploadState)
_O: Final = members(Outcome)

TABLE: Final[Table] = {
    _S.STARTING: {
        _O.STARTED: _S.PLANNING,
        _O.CHALLENGED: _S.STARTING,
        _O.NOT_SENT: _S.STARTING,
        _O.LOST: _S.STARTING,
        _O.UNAVAILABLE: _S.STARTING,
        _O.GAVE_UP: _S.ABANDONED,
        _O.REFUSED: _S.ABANDONED,
        _O.DENIED: _S.ABANDONED,
        _O.BROKEN: _S.ABANDONED,
        _O.CANCEL: _S.ABANDONED,
    },
    _S.PLANNING: {
        _O.PATCH: _S.PATCHING,
        _O.PUT: _S.PUTTING,
        _O.COMMIT: _S.COMMITTING,
        _O.CONTENT: _S.CANCELLING,
    },
    _S.PATCHING: {
        _O.ACCEPTED: _S.PLANNING,
        _O.OFFSET_KNOWN: _S.PLANNING,
        _O.TOO_LARGE: _S.QUERYING_STATUS,
        _O.OUT_OF_ORDER: _S.QUERYING_STATUS,
        _O.UNSURE: _S.QUERYING_STATUS,
        _O.CHALLENGED: _S.QUERYING_STATUS,
        _O.NOT_SENT: _S.PATCHING,
        _O.LOST: _S.QUERYING_STATUS,
        _O.UNAVAILABLE: _S.QUERYING_STATUS,
        _O.GONE: _S.LOST,
        _O.RETRIES_EXHAUSTED: _S.LOST,
        _O.GAVE_UP: _S.CLOSING,
        _O.REFUSED: _S.CANCELLING,
        _O.DENIED: _S.CLOSING,
        _O.BROKEN: _S.CANCELLING,
        _O.CONTENT: _S.QUERYING_BEFORE_CANCEL,
        _O.CANCEL: _S.CLOSING,
    },
    _S.PUTTING: {
        _O.CREATED: _S.DONE,
        _O.INCONCLUSIVE: _S.CHECKING_BLOB,
        _O.OFFSET_KNOWN: _S.PLANNING,
        _O.TOO_LARGE: _S.QUERYING_STATUS,
        _O.OUT_OF_ORDER: _S.QUERYING_STATUS,
        _O.CHALLENGED: _S.QUERYING_STATUS,
        _O.NOT_SENT: _S.PUTTING,
        _O.LOST: _S.CHECKING_BLOB,
        _O.UNAVAILABLE: _S.CHECKING_BLOB,
        _O.GONE: _S.CHECKING_BLOB,
        _O.REJECTED: _S.LOST,
        _O.RETRIES_EXHAUSTED: _S.LOST,
        _O.GAVE_UP: _S.CLOSING,
        _O.REFUSED: _S.CANCELLING,
        _O.DENIED: _S.CLOSING,
        _O.BROKEN: _S.CANCELLING,
        _O.CONTENT: _S.QUERYING_BEFORE_CANCEL,
        _O.CANCEL: _S.CLOSING,
    },
    _S.COMMITTING: {
        _O.CREATED: _S.DONE,
        _O.INCONCLUSIVE: _S.CHECKING_BLOB,
        _O.OUT_OF_ORDER: _S.QUERYING_STATUS,
        _O.CHALLENGED: _S.COMMITTING,
        _O.NOT_SENT: _S.COMMITTING,
        _O.LOST: _S.CHECKING_BLOB,
        _O.UNAVAILABLE: _S.CHECKING_BLOB,
        _O.GONE: _S.CHECKING_BLOB,
        _O.REJECTED: _S.LOST,
        _O.RETRIES_EXHAUSTED: _S.LOST,
        _O.GAVE_UP: _S.CLOSING,
        _O.REFUSED: _S.CANCELLING,
        _O.DENIED: _S.CLOSING,
        _O.BROKEN: _S.CANCELLING,
        _O.CANCEL: _S.CLOSING,
    },
    _S.QUERYING_STATUS: {
        _O.OFFSET_KNOWN: _S.PLANNING,
        _O.NO_OFFSET: _S.PLANNING,
        _O.GONE: _S.LOST,
        _O.UNSURE: _S.CHECKING_BLOB,
        _O.CHALLENGED: _S.QUERYING_STATUS,
        _O.NOT_SENT: _S.QUERYING_STATUS,
        _O.LOST: _S.QUERYING_STATUS,
        _O.UNAVAILABLE: _S.QUERYING_STATUS,
        _O.GAVE_UP: _S.LOST,
        _O.REFUSED: _S.ABANDONED,
        _O.DENIED: _S.CLOSING,
        _O.BROKEN: _S.ABANDONED,
        _O.CANCEL: _S.CLOSING,
    },
    _S.CHECKING_BLOB: {
        _O.PRESENT: _S.DONE,
        _O.INCONCLUSIVE: _S.PROVING,
        _O.NOT_YET: _S.QUERYING_STATUS,
        _O.UNSURE: _S.CHECKING_BLOB,
        _O.GONE: _S.LOST,
        _O.CHALLENGED: _S.CHECKING_BLOB,
        _O.NOT_SENT: _S.CHECKING_BLOB,
        _O.LOST: _S.CHECKING_BLOB,
        _O.UNAVAILABLE: _S.CHECKING_BLOB,
        _O.GAVE_UP: _S.QUERYING_STATUS,
        _O.REFUSED: _S.QUERYING_BEFORE_CANCEL,
        _O.DENIED: _S.CLOSING,
        _O.BROKEN: _S.QUERYING_BEFORE_CANCEL,
        _O.CANCEL: _S.CLOSING,
    },
    _S.PROVING: {
        _O.PRESENT: _S.DONE,
        _O.NOT_YET: _S.QUERYING_STATUS,
        _O.UNSURE: _S.CHECKING_BLOB,
        _O.GONE: _S.LOST,
        _O.CHALLENGED: _S.PROVING,
        _O.NOT_SENT: _S.PROVING,
        _O.LOST: _S.PROVING,
        _O.UNAVAILABLE: _S.PROVING,
        _O.GAVE_UP: _S.QUERYING_STATUS,
        _O.REFUSED: _S.QUERYING_BEFORE_CANCEL,
        _O.DENIED: _S.CLOSING,
        _O.BROKEN: _S.QUERYING_BEFORE_CANCEL,
        _O.CANCEL: _S.CLOSING,
    },
    _S.CLOSING: {_O.KEEP: _S.KEPT_OPEN, _O.LOOK: _S.QUERYING_BEFORE_CANCEL, _O.DISCARD: _S.CANCELLING},
    _S.QUERYING_BEFORE_CANCEL: {
        _O.OFFSET_KNOWN: _S.CANCELLING,
        _O.NO_OFFSET: _S.CANCELLING,
        _O.GONE: _S.ABANDONED,
        _O.CHALLENGED: _S.QUERYING_BEFORE_CANCEL,
        _O.NOT_SENT: _S.QUERYING_BEFORE_CANCEL,
        _O.LOST: _S.QUERYING_BEFORE_CANCEL,
        _O.GAVE_UP: _S.ABANDONED,
        _O.REFUSED: _S.ABANDONED,
        _O.DENIED: _S.ABANDONED,
        _O.BROKEN: _S.ABANDONED,
    },
    _S.CANCELLING: {
        _O.DELETED: _S.ABANDONED,
        _O.LOOK: _S.QUERYING_BEFORE_CANCEL,
        _O.UNSURE: _S.QUERYING_BEFORE_CANCEL,
        _O.CHALLENGED: _S.CANCELLING,
        _O.NOT_SENT: _S.CANCELLING,
        _O.LOST: _S.CANCELLING,
        _O.GAVE_UP: _S.ABANDONED,
        _O.REFUSED: _S.ABANDONED,
        _O.BROKEN: _S.ABANDONED,
        _O.DENIED: _S.ABANDONED,
    },
    _S.DONE: {},
    _S.LOST: {},
    _S.ABANDONED: {},
    _S.KEPT_OPEN: {},
}

_AT_REGISTRY: Final = frozenset({_S.STARTING, _S.CHECKING_BLOB, _S.PROVING})
"""States whose requests do not go to the session's Location."""
_CLOSING_STATES: Final = frozenset({_S.CLOSING, _S.QUERYING_BEFORE_CANCEL, _S.CANCELLING})
_BODIES: Final = frozenset({_S.PATCHING, _S.PUTTING})

CHUNK_FLOOR_BYTES: Final = 64 * 1024
"""A chunk refused as too large is halved down to this; a proxy that refuses less lets no upload through at all."""
RANGE_SAFE_BYTES: Final = 4 * 1024 * 1024
"""The smallest limit a public registry was found to have for a PATCH with a Content-Range (GHCR, which answers 416)."""
STEP_MIN_BYTES: Final = CHUNK_FLOOR_BYTES
"""A smaller step of the offset is no progress, unless it is the whole body: else a registry that takes one byte at a
time could have 10 GB asked for in 10 billion requests."""
_SESSION_CODES: Final = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})
CANCELS_MAX: Final = 4
"""Tries to cancel a session whose Location turns out stale. The last two come after a wait, together some seconds: as
long as a registry may need to notice that a request was cut."""
UNPROVEN_COMMITS_MAX: Final = 4
"""Commits answered with a success that proves nothing, before the blob has to be there. After each the blob is looked
for several times."""
COMMIT_LOOKS_MAX: Final = 4
"""How often a blob is looked for whose session has gone after a commit: a registry may still be finalising it."""


def _denies(details: Details | None) -> bool:
    """Whether a registry says that there is no such upload session."""
    error = details.error if details is not None else None
    return isinstance(error, RegistryError) and (error.status in (404, 410) or bool(error.codes & _SESSION_CODES))


@attrs.define(kw_only=True, eq=False, repr=False)
class UploadMachine(Machine):
    """One upload session of one blob. (`stream.py` has that of a stream.)"""

    NAME: ClassVar[str] = "upload"
    TABLE: ClassVar[Table] = TABLE
    ASKS: ClassVar[frozenset[State]] = frozenset(
        {
            _S.STARTING,
            _S.PATCHING,
            _S.PUTTING,
            _S.COMMITTING,
            _S.QUERYING_STATUS,
            _S.CHECKING_BLOB,
            _S.PROVING,
            _S.QUERYING_BEFORE_CANCEL,
            _S.CANCELLING,
        }
    )
    DECIDES: ClassVar[frozenset[State]] = frozenset({_S.PLANNING, _S.CLOSING})
    EXHAUSTED_AFTER: ClassVar[frozenset[Outcome]] = frozenset({_O.OUT_OF_ORDER, _O.UNSURE})
    ENDS: ClassVar[frozenset[State]] = frozenset({_S.DONE, _S.LOST, _S.ABANDONED, _S.KEPT_OPEN})

    state: State = _S.STARTING
    blob: Blob | None = None
    """None: the upload is of a stream."""
    owner: Machine | None = None
    """The blob or stream this uploads for, until that has the outcome."""
    location: str = ""
    offset: int = 0
    """The number of bytes the registry has, as far as it said so."""
    sent: int = 0
    """The end of the last body handed out."""
    best: int = -1
    chunk_bytes: int | None = None
    chunk_min_bytes: int = 0
    resumed: bool = False
    """The offset was queried: the rest is sent by ranges."""
    unanswered: int = 0
    """Commits that were sent whole and not answered: the registry may have the blob, or may still be finalising it."""
    gone: bool = False
    """The registry does not know the session after a commit: the blob is there, or coming, or lost."""
    gone_undenied: bool = False
    """The session was given up as gone after an answer that does not say so: it may be open."""
    looks: int = 0
    no_offset_answers: int = 0
    unproven_commits: int = 0
    """Commits that were answered with a success that proves nothing."""
    cancels_sent: int = 0
    keeps: bool = False
    """When it is no longer needed it is left open for a later process, with its content."""
    unverified: bool = False
    """An earlier process left it, and it is not confirmed yet: a refusal costs us the session and no more."""
    kept_at: str = ""
    """Its Location when an earlier process kept it; "" for a session that this one has opened."""
    stalls: int = 0
    """Ranges refused in a row that begin at `offset`."""
    location_uncertain: bool = False
    """The registry may have given a newer Location, in an answer that was lost."""
    mark: int = 0
    """The offset at the last progress."""
    small_step: bool = False
    """An answer since then has moved the offset by less than a step; the next such counts as a fault."""

    @property
    def holds_session(self) -> bool:
        return bool(self.location) and not self.kept_at and self.state not in self.ENDS

    @property
    def cancels_upload(self) -> bool:
        return not self.kept_at and self.state in (_S.QUERYING_BEFORE_CANCEL, _S.CANCELLING)

    def may_open(self, capabilities: RegistryCapabilities) -> bool:
        return self.state is _S.STARTING

    @property
    def may_be_kept(self) -> bool:
        """Whether a later process can go on with it."""
        return self.keeps and not is_led_back(self.base, self.location)

    @property
    def digest(self) -> Digest:
        """The blob's digest."""
        assert self.blob is not None
        return self.blob.descriptor.digest

    @property
    def algorithm(self) -> str:
        """The digest's algorithm, known before the digest is."""
        return self.digest.algorithm

    @property
    def size(self) -> int:
        """The blob's size in bytes."""
        assert self.blob is not None
        return self.blob.descriptor.size

    @property
    def most(self) -> int:
        """The most bytes the registry can have."""
        return self.size

    @property
    def url_base(self) -> str:
        return self.base if self.state in _AT_REGISTRY else self.location

    @property
    def body_bytes(self) -> int:
        if self.state is _S.PATCHING:
            return self._piece()
        return self.size if self.state is _S.PUTTING else 0

    def describe(self) -> str:
        return f"upload of blob {self.digest}"

    def max_faults(self, config: Config) -> int:
        if self.state is _S.CANCELLING and self.cancels_sent > 1:
            return CANCELS_MAX - 2
        return 0 if self.state in (_S.QUERYING_BEFORE_CANCEL, _S.CANCELLING) else config.attempts - 1

    def decide(self, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        if self.state is _S.CLOSING:
            if self.may_be_kept and self.sent:
                return _O.KEEP
            return _O.LOOK if self.location_uncertain or self.unverified else _O.DISCARD
        if self.chunk_bytes is None:
            self.chunk_bytes = config.chunk_bytes
        if self.offset >= self.size:
            return _O.COMMIT
        if self.offset or self.resumed or self.chunk_bytes or self.size > config.resumable_above_bytes:
            return _O.PATCH
        return _O.PUT

    def _piece(self) -> int:
        rest = self.size - self.offset
        if self.chunk_bytes is None:
            return rest
        return min(rest, max(self.chunk_bytes, self.chunk_min_bytes))

    def request(self) -> Request:
        match self.state:
            case _S.STARTING:
                url = uploads_url(self.base, self.repository)
                if self.algorithm != "sha256":
                    url = with_query(url, "digest-algorithm", self.algorithm)
                return Request("POST", url, START_HEADERS)
            case _S.PATCHING:
                return self._patch()
            case _S.PUTTING:
                assert self.blob is not None
                url = with_query(self.location, "digest", self.digest)
                return Request("PUT", url, OCTETS, blob_body(self.blob, 0, self.size), end=self.size)
            case _S.COMMITTING:
                return Request("PUT", with_query(self.location, "digest", self.digest), OCTETS)
            case _S.CHECKING_BLOB:
                return Request("HEAD", blob_url(self.base, self.repository, self.digest))
            case _S.PROVING:
                return Request("GET", blob_url(self.base, self.repository, self.digest), FIRST_BYTE)
            case _S.CANCELLING:
                return Request("DELETE", self.location)
            case _:
                return Request("GET", self.location)

    def _patch(self) -> Request:
        assert self.blob is not None
        piece = self._piece()
        end = self.offset + piece
        headers = OCTETS
        # The whole blob in one PATCH needs no range (and some registries take none then); a part does.
        if piece < self.size:
            headers = (*OCTETS, ("Content-Range", f"{self.offset}-{end - 1}"))
        return Request("PATCH", self.location, headers, blob_body(self.blob, self.offset, piece), end=end)

    def note_sent(self, request: Request) -> None:
        if request.end is not None:
            self.sent = request.end
        self.cancels_sent += request.method == "DELETE"

    def classify(self, response: Response, url: str, proven: bool) -> Verdict:
        match self.state:
            case _S.STARTING:
                return self._classify_start(response, url)
            case _S.PATCHING:
                return self._gone_if_unverified(self._classify_patch(response, url))
            case _S.PUTTING | _S.COMMITTING:
                return self._gone_if_unverified(self._classify_put(response, url, proven))
            case _S.CHECKING_BLOB:
                return self._not_yet(look_verdict(self, response, url, self.digest, self.size))
            case _S.PROVING:
                return self._not_yet(proof_verdict(self, response, url, self.digest, self.size))
            case _S.CANCELLING:
                if 200 <= response.status < 300 or response.status in (404, 410):
                    return _O.DELETED, None
                if response.status != 416 or self.cancels_sent >= CANCELS_MAX:
                    return _O.REFUSED, Details(error=refusal(self.describe(), "DELETE", url, response))
                # Stale once is as it may be. Stale again: what was cut is still being worked on over there.
                return (_O.LOOK if self.cancels_sent < 2 else _O.UNSURE), None
            case _:
                verdict = self._classify_status(response, url)
                if (
                    self.state is _S.QUERYING_BEFORE_CANCEL
                    and self.unverified
                    and verdict[0] in (_O.NO_OFFSET, _O.GONE)
                ):
                    return self._classify_unverified(response, url)
                return verdict

    def _classify_unverified(self, response: Response, url: str) -> Verdict:
        """The verdict for a kept session that the registry is not known to have: it is never deleted for that alone."""
        if response.status in (404, 410) or error_codes(response) & _SESSION_CODES:
            return _O.GONE, None
        return broken(
            self.describe(), "GET", url, f"answered {response.status}, which tells of no upload session there"
        )

    def _not_yet(self, verdict: Verdict) -> Verdict:
        """The verdict for an answer about the blob after a commit: a blob that is not there may still come."""
        if verdict[0] is not _O.ABSENT:
            return verdict
        if not self.gone:
            return _O.NOT_YET, None
        return (_O.UNSURE if self._may_be_finalising() else _O.GONE), None

    def _gone_if_unverified(self, verdict: Verdict) -> Verdict:
        """The verdict with a refusal of an earlier process's session as GONE: it is not deleted, for it may be
        something else."""
        if self.unverified and verdict[0] in (_O.REFUSED, _O.BROKEN):
            return _O.GONE, verdict[1]
        return verdict

    def _classify_start(self, response: Response, url: str) -> Verdict:
        if response.status == 202:
            location = get(response.headers, "location")
            if not location:
                return broken(self.describe(), "POST", url, "answered 202 without a Location for the upload session")
            minimum = parse_length(get(response.headers, "oci-chunk-min-length")) or 0
            return _O.STARTED, Details(location=resolve(url, location), chunk_min_bytes=minimum)
        if 200 <= response.status < 300:
            return broken(self.describe(), "POST", url, f"answered {response.status} where 202 opens an upload session")
        return refused(self.describe(), "POST", url, response)

    def _classify_patch(self, response: Response, url: str) -> Verdict:
        status = response.status
        if status in (200, 201, 202, 204):
            location = get(response.headers, "location")
            if not location:
                return broken(self.describe(), "PATCH", url, f"answered {status} without a Location to go on at")
            known = parse_range(get(response.headers, "range"))
            offset = self.sent
            # A Range short of what was sent is the truth, unless it stands still (ECR repeats a stale one):
            # then our own
            # count is kept, and the digest decides.
            if known is not None and not known.ambiguous and self.offset < known.offset < self.sent:
                offset = known.offset
            if self.small_step and not self._is_step(offset):
                return self._little_progress(response, "PATCH", url, offset)
            return _O.ACCEPTED, Details(location=resolve(url, location), offset=offset)
        if status == 413 and self._may_halve():
            return self._halved()
        return self._classify_common(response, "PATCH", url)

    def _classify_put(self, response: Response, url: str, proven: bool) -> Verdict:
        status = response.status
        if 200 <= status < 300:
            verdict: Verdict = _O.INCONCLUSIVE, None
            if status == 201:
                verdict = claimed(self, "PUT", url, response, self.digest, proven)
            if verdict[0] is _O.INCONCLUSIVE and self.unproven_commits >= UNPROVEN_COMMITS_MAX:
                said = f"answered {status} to each commit, and the blob is not there"
                return broken(self.describe(), "PUT", url, said)
            return verdict
        if status == 413 and self.state is _S.PUTTING and self._may_halve():
            return self._halved()
        return content_refused(self.describe(), "PUT", url, response) or self._classify_common(response, "PUT", url)

    def _classify_common(self, response: Response, method: str, url: str) -> Verdict:
        if response.status == 404:
            _, details = refused(
                self.describe(),
                method,
                url,
                response,
                "the registry does not know the upload session any more",
            )
            # Again: nothing says whether the blob is there, and asking of the session only leads back here.
            return (_O.RETRIES_EXHAUSTED if self.gone else _O.GONE), details
        if response.status == 416:
            known = parse_range(get(response.headers, "range"))
            if known is not None and known.ambiguous and not self.offset and self.stalls:
                return _O.OFFSET_KNOWN, Details(offset=1)  # "0-0", and it was not none
            # A Range that brings nothing new says that it is not the offset that is wrong: then it is the Location.
            if (
                known is None
                or known.ambiguous
                or not self.best < known.offset <= self.most
                or known.offset == self.offset
            ):
                return self._stalled(response, method, url)
            if self.state is _S.COMMITTING:  # of a session that an earlier process left, without a status so far
                return self._stalled(response, method, url)
            if self.small_step and not self._is_step(known.offset):
                return self._little_progress(response, method, url, known.offset)
            location = get(response.headers, "location")
            return _O.OFFSET_KNOWN, Details(offset=known.offset, location=resolve(url, location) if location else "")
        return refused(self.describe(), method, url, response)

    def _stalled(self, response: Response, method: str, url: str) -> Verdict:
        """The verdict for a 416 without a usable offset."""
        if self.state is not _S.PATCHING or not self.stalls:
            return _O.OUT_OF_ORDER, None
        # It was asked since, so the range begins where the registry is. Another request may still be writing (of a
        # process that was killed, say), so wait once; then it may be the range's size.
        if self.stalls == 2 and self.sent - self.offset > max(RANGE_SAFE_BYTES, self.chunk_min_bytes):
            return _O.TOO_LARGE, Details(chunk_bytes=RANGE_SAFE_BYTES)
        hint = "another process may be writing to this upload session"
        return _O.UNSURE, refused(self.describe(), method, url, response, hint)[1]

    def _is_step(self, offset: int) -> bool:
        """Whether an offset is progress."""
        return offset - self.mark >= STEP_MIN_BYTES or offset - self.offset >= self._whole()

    def _whole(self) -> float:
        """The size of a body that is sent as large as it may be."""
        return self._piece()

    def _little_progress(self, response: Response, method: str, url: str, offset: int) -> Verdict:
        """The verdict for a second body in a row of which hardly anything was taken: wait, and ask."""
        text = f"{self.describe()}: {method} {shown(url)} was answered {response.status}"
        text += f", and has brought the upload no further than byte {offset} of {self.most}"
        return _O.UNAVAILABLE, Details(error=RemoteProtocolError(text))

    def _classify_status(self, response: Response, url: str) -> Verdict:
        status = response.status
        if 200 <= status < 300:
            location = get(response.headers, "location")
            details = Details(location=resolve(url, location) if location else "")
            known = parse_range(get(response.headers, "range"))
            if known is None or known.offset > self.sent:  # more than we ever sent: it is not about our upload
                return (_O.GONE, None) if self.no_offset_answers else (_O.NO_OFFSET, details)
            # "0-0" is one byte or none (distribution sends it for an empty session): none, and a refusal tells if not.
            return _O.OFFSET_KNOWN, attrs.evolve(details, offset=0 if known.ambiguous else known.offset)
        if status in TRANSIENT:
            return refused(self.describe(), "GET", url, response)
        if status == 404 and self._may_be_finalising():
            return _O.UNSURE, None
        codes = error_codes(response) & _SESSION_CODES
        if self.offset and not self.no_offset_answers and not codes:
            return _O.NO_OFFSET, None  # public ECR has no status; our own count may be right
        hint = "the registry does not know the upload session any more"
        if "BLOB_UPLOAD_INVALID" in codes:
            hint = "this registry loses an upload session whose request is cut in the middle"  # distribution 2.8
        return _O.GONE, refused(self.describe(), "GET", url, response, hint)[1]

    def _may_be_finalising(self) -> bool:
        """Whether a registry that knows neither the blob nor its session may still be finalising it."""
        return bool(self.unanswered) and self.looks < COMMIT_LOOKS_MAX

    def _may_halve(self) -> bool:
        return min(self.sent - self.offset, self.chunk_bytes or self.size) > max(
            CHUNK_FLOOR_BYTES, self.chunk_min_bytes
        )

    def _halved(self) -> Verdict:
        return _O.TOO_LARGE, Details(chunk_bytes=max(CHUNK_FLOOR_BYTES, (self.sent - self.offset) // 2))

    def is_progress(self, outcome: Outcome, details: Details | None) -> bool:
        # Cancelling a session is another task, from which no way leads back. (`_keep` has the progress of bodies.)
        cancels = self.state not in _CLOSING_STATES and self.TABLE[self.state].get(outcome) in _CLOSING_STATES
        return cancels or outcome is _O.STARTED

    def reset_faults(self) -> None:
        Machine.reset_faults(self)
        self.mark, self.small_step = max(self.best, 0), False

    def update(self, outcome: Outcome, details: Details | None) -> None:
        if self.state is _S.PATCHING:
            self._count_stalls(outcome)
        if self.is_progress(outcome, details):
            self.reset_faults()
        if outcome in (_O.CANCEL, _O.GAVE_UP, _O.DENIED):
            self.location_uncertain = self.state in (_S.QUERYING_STATUS, _S.CHECKING_BLOB, _S.PROVING)
        match outcome:
            case _O.UNSURE if self.state is not _S.PATCHING:
                self.looks += 1
                self.gone = True
            case _O.GONE:
                self.gone = True
                asked = self.state in (_S.QUERYING_STATUS, _S.QUERYING_BEFORE_CANCEL)
                self.gone_undenied = asked and not self.unverified and not _denies(details)
            case _O.INCONCLUSIVE if self.state in (_S.PUTTING, _S.COMMITTING):
                self.unproven_commits += 1
            case _O.NO_OFFSET:
                self.no_offset_answers += 1
                self.resumed = True
            case _O.OFFSET_KNOWN:
                self.resumed, self.unverified = True, False
                if details is None or details.offset != self.offset:
                    self.stalls = 0
            case _O.ACCEPTED:
                self.unverified = False
            case _O.CONTENT:
                self.content_failed = True
            case _O.LOST | _O.UNAVAILABLE if self.state in (_S.PUTTING, _S.COMMITTING):
                self.unanswered += not (details is not None and details.cut)
        if details is not None:
            self._keep(details)

    def _count_stalls(self, outcome: Outcome) -> None:
        if outcome in (_O.OUT_OF_ORDER, _O.UNSURE):
            self.stalls += 1
        elif outcome is not _O.TOO_LARGE:
            self.stalls = 0

    def _keep(self, details: Details) -> None:
        if details.error is not None:
            self.error = details.error
        if details.location:
            self.location = details.location
        if details.chunk_bytes:
            self.chunk_bytes = details.chunk_bytes
        if details.chunk_min_bytes:
            self.chunk_min_bytes = details.chunk_min_bytes
        if details.offset is not None:
            if details.offset > self.best:
                self.best = details.offset
                if self._is_step(details.offset):
                    self.reset_faults()
                elif self.state in _BODIES:
                    self.small_step = True
            self.offset = details.offset
