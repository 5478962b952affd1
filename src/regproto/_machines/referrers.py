"""The life of a subject's referrers list: kept by the registry, or by clients in a tag, where no update may be lost.

A registry is asked for its referrers API (QUERYING_API): one that has it keeps the list itself, and only attachments it
did not confirm are looked for there. Elsewhere the list is an index under a tag that every client reads (READING),
changes and writes (WRITING), and a write takes away whatever was written since its read. So this reads, merges and
writes within a bounded window W (`Config.referrers_window_s`, as `Send.not_after`), and looks again when every write
that was prepared before ours was seen has landed: W + D after it, D (`Config.referrers_settle_s`) being how long a
write may take to have its effect.

Two rules make that enough, and each is needed. What is written is the union of all entries ever seen, not only one's
own: a look may see us thanks to somebody whose write is about to be overwritten. And it is over only when a look shows
everything in a list that is the same as at the look before or as written (quiet). An entry of others that vanished is
put back if its manifest is still there (CHECKING); a 404 means that it was deleted on purpose.

Where the read alone takes longer than W no write would ever be in time. What others rely on is the sum: a write takes
effect within W + D of its read. So after late tries the window is widened as far as the sum allows, and beyond it
where nothing less will do, which `unsure` says.

`If-Match` and `If-None-Match: *` go with every write. Many registries ignore them, so a write that was accepted proves
nothing until one was refused (412) because the list had changed.

Source: distribution-spec "Referrers Tag Schema", "Listing Referrers"; docs/referrers.md for what is guaranteed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import attrs

from regproto._http.referrers_list import (
    ACCEPT_ANY,
    ACCEPT_INDEX,
    Listing,
    fallback_tag,
    is_complete,
    is_digest,
    merged,
    read_listing,
)
from regproto._http.url import manifest_url, referrers_url
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
from regproto._machines.referrers_answers import api_verdict, check_verdict, list_verdict, put_verdict
from regproto._model.config import Config
from regproto._model.digest import Digest
from regproto._model.errors import ContentError, RegprotoError, TransportError
from regproto._model.manifest import MANIFEST_MAX_BYTES, OCI_INDEX
from regproto._model.messages import Response
from regproto._model.referrers import Guarantee


class ReferrersState(State):
    """The states of a subject's list."""

    CHOOSING = "choosing"
    QUERYING_API = "querying api"
    READING = "reading"
    CHECKING = "checking"
    WRITING = "writing"
    LISTED = "listed"
    FAILED = "failed"
    DROPPED = "dropped"


_S: Final = members(ReferrersState)
_O: Final = members(Outcome)

TABLE: Final[Table] = {
    _S.CHOOSING: {
        _O.ASK: _S.QUERYING_API,
        _O.LOOK: _S.READING,
        _O.CHECK: _S.CHECKING,
        _O.PUT: _S.WRITING,
        _O.SETTLED: _S.LISTED,
        _O.GAVE_UP: _S.FAILED,
    },
    _S.QUERYING_API: {
        _O.LIST_READ: _S.CHOOSING,
        _O.REJECTED: _S.CHOOSING,
        _O.UNSURE: _S.QUERYING_API,
        _O.CHALLENGED: _S.QUERYING_API,
        _O.NOT_SENT: _S.QUERYING_API,
        _O.LOST: _S.QUERYING_API,
        _O.UNAVAILABLE: _S.QUERYING_API,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.READING: {
        _O.LIST_READ: _S.CHOOSING,
        _O.ABSENT: _S.CHOOSING,
        _O.CHALLENGED: _S.READING,
        _O.NOT_SENT: _S.READING,
        _O.LOST: _S.READING,
        _O.UNAVAILABLE: _S.READING,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.CHECKING: {
        _O.PRESENT: _S.CHOOSING,
        _O.ABSENT: _S.CHOOSING,
        _O.CHALLENGED: _S.CHECKING,
        _O.NOT_SENT: _S.CHECKING,
        _O.LOST: _S.CHECKING,
        _O.UNAVAILABLE: _S.CHECKING,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.WRITING: {
        _O.CREATED: _S.CHOOSING,
        _O.INCONCLUSIVE: _S.CHOOSING,
        _O.REJECTED: _S.CHOOSING,
        _O.MISSING: _S.CHOOSING,
        _O.CHALLENGED: _S.WRITING,
        _O.NOT_SENT: _S.CHOOSING,
        _O.LOST: _S.CHOOSING,
        _O.UNAVAILABLE: _S.CHOOSING,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.LISTED: {},
    _S.FAILED: {},
    _S.DROPPED: {},
}

SETTLE_MAX_S: Final = 24.0
"""The longest time a write of a slow registry is given: the default doubled four times, below the idle limit."""
LATE_TRIES: Final = 2
"""Writes in a row that came too late before the window is widened: one may have met a stall, here or there."""
_SPREAD_DOUBLINGS: Final = 4
"""How often the wait after a race is doubled: 20 writers of 50 ms each fit into the 8 s it may be by then."""


@attrs.define(kw_only=True, eq=False, repr=False)
class ReferrersMachine(Machine):
    """The list of one subject."""

    NAME: ClassVar[str] = "referrers"
    TABLE: ClassVar[Table] = TABLE
    ASKS: ClassVar[frozenset[State]] = frozenset({_S.QUERYING_API, _S.READING, _S.CHECKING, _S.WRITING})
    DECIDES: ClassVar[frozenset[State]] = frozenset({_S.CHOOSING})
    ENDS: ClassVar[frozenset[State]] = frozenset({_S.LISTED, _S.FAILED, _S.DROPPED})

    state: State = _S.CHOOSING
    subject: Digest
    window_s: float
    settle_s: float
    """How long a write may take; longer once one took longer, for a registry that is slow is slow again."""
    promise_s: float = attrs.field(init=False)
    """W + D: the longest time from a read to the effect of its write that others count on. They don't know what
    `settle_s` becomes later."""
    open_s: float = attrs.field(init=False)
    """How long after its read was sent the next write may begin."""
    fits: bool = True
    """With `open_s` a write can still take effect within `promise_s`."""
    late: int = 0
    """Writes in a row that came too late, not counting those that had to wait for a connection. Once there are enough
    to widen the window, it stays so."""
    connecting: bool = False
    """A connection had to be made for the last read."""
    prepare_s: float = 0.0
    """The longest time from sending a read to when its write could have begun, of the writes that came too late."""
    write_s: float = 0.0
    """The longest time a write took."""
    wanted: dict[str, Mapping[str, Any]] = attrs.field(factory=dict)
    """The entries of our pushes, by digest."""
    sure: set[str] = attrs.field(factory=set)
    """The entries that are in the registry's own list, as it said (OCI-Subject) or showed."""
    seen: dict[str, Mapping[str, Any]] = attrs.field(factory=dict)
    """Every entry that was ever in the list, and ours."""
    placed: set[str] = attrs.field(factory=set)
    """Digests that were in the list at some time: one that vanishes shows a race."""
    alive: set[str] = attrs.field(factory=set)
    """Entries of others whose manifest was found there since the last write."""
    gone: set[str] = attrs.field(factory=set)
    """Entries of others whose manifest is not there any more."""
    suspects: tuple[str, ...] = ()
    """Entries for which the registry refused the list: it may have no such manifest."""
    checking: str = ""
    listing: Listing | None = None
    """The list as it was last read or written; None: it has to be read before anything else."""
    fresh: bool = False
    """It was read, and nothing was done since."""
    written: bytes = b""
    bare: bool = False
    """The last write went without a condition."""
    refused_at: str | None = None
    """The list's digest when a conditional write of it was refused with 412."""
    refusals: int = 0
    """412s in a row for a list that had not changed."""
    last_quiet_identity: str | None = None
    """The list's digest the last time that it had everything."""
    last_quiet_at: float = 0.0
    """When that was known."""
    read_at: float = 0.0
    """When the last read was begun: the earliest moment whose list it can show."""
    waited: bool = False
    """The jitter after this race has been waited out."""
    pause_s: float = 0.0
    """How long the next read is to wait..."""
    spread_s: float = 0.0
    """...and the most jitter on top, which the session draws."""
    pausing: bool = False
    """It waits for that, and not for a fault to pass."""
    page_url: str = ""
    pages: int = 0
    api_known: bool = False
    writes: int = 0
    failed_writes: int = 0
    """Writes in a row that could not be sent, without an answer, or with one that may pass."""
    write_fault: RegprotoError | None = None
    """Why the last write came to nothing, unless others were the cause."""
    looks: int = 0
    races: int = 0
    unsure: bool = False
    guarantee: Guarantee | None = None
    """Once it is LISTED."""

    @promise_s.default
    def _promised(self) -> float:
        return self.window_s + self.settle_s

    @open_s.default
    def _open_at_first(self) -> float:
        return self.window_s

    @property
    def effect_s(self) -> float:
        """The expected time of a slow registry's next write: twice the longest so far, or a little more than a read."""
        return min(2.0 * self.write_s if self.write_s else 1.2 * self.prepare_s, SETTLE_MAX_S)

    @property
    def rest_s(self) -> float:
        """The time after which every write that was prepared before a list was known has taken effect."""
        rest_s = self.window_s + self.settle_s
        return rest_s if self.fits else max(rest_s, self.open_s + self.effect_s)  # others may be as slow as we are

    @property
    def tag(self) -> str:
        """The tag that has the list where there is no API."""
        return fallback_tag(self.subject)

    @property
    def url_base(self) -> str:
        return self.page_url or self.base

    def describe(self) -> str:
        return f"referrers of {self.subject}"

    def max_faults(self, config: Config) -> int:
        return config.referrers_attempts if self.state is _S.WRITING else config.attempts - 1

    def add_entry(self, entry: Mapping[str, Any], sure: bool) -> None:
        """Add an entry of ours; `sure`: the registry said that it lists it itself."""
        digest = entry["digest"]
        self.wanted[digest] = self.seen[digest] = entry
        self.gone.discard(digest)
        self.writes = 0  # to write this is not to be overwritten by others
        if sure:
            self.sure.add(digest)

    # --- decisions ---

    def decide(self, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        if capabilities.referrers_api is not False:
            self.api_known = capabilities.referrers_api is True
            if not self.api_known or self._unconfirmed():
                return Outcome.ASK
            return self._settle(Guarantee.API)
        self.page_url = ""
        if not config.referrers_fallback:
            return self._settle(Guarantee.UNLISTED)
        for digest in self.suspects:
            if digest not in self.alive and digest not in self.gone:
                return self._check(digest)
        if self.suspects and self.gone.isdisjoint(self.suspects):
            return Outcome.GAVE_UP  # it has them all: the refusal is about something else
        self.suspects = ()
        if self.listing is None:
            return Outcome.LOOK
        missing = self._missing(self.listing)
        if missing:
            return self._decide_write(self.listing, missing, config)
        return self._decide_rest(self.listing, capabilities, config)

    def _decide_write(self, listing: Listing, missing: list[str], config: Config) -> Outcome:
        """Choose the next step to a write of the list, which lacks something: first what makes the write safe."""
        self.last_quiet_identity = None
        hopeless = self.refusals > 1 or self.failed_writes >= config.attempts
        if self.writes >= config.referrers_attempts or hopeless:
            if self.write_fault is not None:
                self.error = self.write_fault
            elif not hopeless:
                text = f"{self.describe()}: {missing[0]} is still not in {self.tag} after {self.writes} writes"
                self.error = TransportError(f"{text}: others keep overwriting the list; try again later")
            return Outcome.GAVE_UP
        for digest in missing:
            if digest not in self.wanted and digest not in self.alive:
                return self._check(digest)
        if not self.waited and any(d in self.placed and d not in listing.entries for d in missing):
            self.waited = True
            self.races += 1
            return self._read_again(spread_s=self._spread_s())
        if not self.fresh:
            return self._read_again()
        self._open_window(config)
        self.written = self._merged(listing)
        if len(self.written) > MANIFEST_MAX_BYTES:
            self.error = ContentError(f"{self.describe()}: {self.tag} would have over {MANIFEST_MAX_BYTES} bytes")
            return Outcome.GAVE_UP
        return Outcome.PUT

    def _open_window(self, config: Config) -> None:
        """Widen the window if nothing else will do."""
        if self.prepare_s and self.failed_writes + 1 >= config.attempts:
            self.late = LATE_TRIES  # the last try, however it came to that
        if self.late < LATE_TRIES:
            return
        wide_s, fitting_s = max(self.window_s, 1.5 * self.prepare_s), self.promise_s - self.effect_s
        self.fits = fitting_s >= max(self.window_s, self.prepare_s)
        self.open_s = min(wide_s, fitting_s) if self.fits else wide_s

    def _decide_rest(self, listing: Listing, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        """Choose the next step for a list that has everything: will it stay so?"""
        if capabilities.conditional_put and not self.bare:
            return self._settle(Guarantee.CONDITIONAL)
        if not config.referrers_look_again:
            return self._settle(Guarantee.WRITTEN)
        rest_s = self.rest_s
        if self.last_quiet_identity == listing.identity and self.read_at >= self.last_quiet_at + rest_s:
            return self._settle(Guarantee.VERIFIED)
        if self.looks > config.referrers_attempts:
            return self._settle(Guarantee.CONTENDED)
        self.looks += 1
        self.waited = False
        self.last_quiet_identity, self.last_quiet_at = listing.identity, self.answered_at
        return self._read_again(pause_s=rest_s)

    def _settle(self, guarantee: Guarantee) -> Outcome:
        self.guarantee = guarantee
        return Outcome.SETTLED

    def _check(self, digest: str) -> Outcome:
        self.checking = digest
        self.fresh = False  # the list may change while we ask
        return Outcome.CHECK

    def _read_again(self, pause_s: float = 0.0, spread_s: float = 0.0) -> Outcome:
        self.listing = None
        self.pause_s, self.spread_s = pause_s, spread_s
        return Outcome.LOOK

    def _spread_s(self) -> float:
        return self.window_s * 2.0 ** min(self.races, _SPREAD_DOUBLINGS)

    def _unconfirmed(self) -> bool:
        return not self.wanted.keys() <= self.sure

    def _missing(self, listing: Listing) -> list[str]:
        """The entries that the list lacks, or has only in part."""
        entries = listing.entries
        return [
            digest
            for digest, ours in self.seen.items()
            if digest not in self.gone
            and (digest not in entries or (digest in self.wanted and not is_complete(entries[digest], ours)))
        ]

    def _merged(self, listing: Listing) -> bytes:
        return merged(listing, [self.seen[d] for d in self._missing(listing)], frozenset(self.gone))

    # --- requests ---

    def request(self) -> Request:
        base, repository = self.base, self.repository
        if self.state is _S.QUERYING_API:
            url = self.page_url or referrers_url(base, repository, self.subject)
            return Request("GET", url, ACCEPT_INDEX, b"", MANIFEST_MAX_BYTES)
        if self.state is _S.CHECKING:
            return Request("HEAD", manifest_url(base, repository, self.checking), ACCEPT_ANY)
        url = manifest_url(base, repository, self.tag)
        if self.state is _S.READING:
            return Request("GET", url, ACCEPT_ANY, b"", MANIFEST_MAX_BYTES)
        listing = self.listing
        assert listing is not None
        # What was wanted since the decision to write goes along, if it fits.
        whole = self._merged(listing)
        written = whole if len(whole) <= MANIFEST_MAX_BYTES else self.written
        headers = [("Content-Type", OCI_INDEX)]
        if not listing.identity:
            headers.append(("If-None-Match", "*"))
        elif listing.validator:
            headers.append(("If-Match", listing.validator))
        not_after = self.read_at + self.open_s
        deadline_s = self.settle_s if self.fits else max(self.settle_s, self.effect_s)
        return Request("PUT", url, tuple(headers), written, not_after=not_after, deadline_s=deadline_s)

    def note_sent(self, request: Request) -> None:
        if self.state is _S.WRITING:
            assert isinstance(request.body, bytes)
            self.written, self.bare = request.body, len(request.headers) == 1

    # --- answers ---

    def classify(self, response: Response, url: str, proven: bool) -> Verdict:
        what = self.describe()
        if self.state is _S.QUERYING_API:
            unsure = self.wanted.keys() - self.sure
            return api_verdict(what, response, url, unsure, self.api_known, self.pages)
        if self.state is _S.READING:
            return list_verdict(what, response, url, self.refused_at)
        if self.state is _S.CHECKING:
            return check_verdict(what, response, url)
        others = tuple(digest for digest in self.seen if digest not in self.wanted)
        return put_verdict(self, response, url, self.written, self.bare, others, proven)

    def is_progress(self, outcome: Outcome, details: Details | None) -> bool:
        if self.state is _S.QUERYING_API and details is not None and details.location:
            return False  # one more page brings nothing forward
        if self.state is _S.READING and self.failed_writes:
            return False  # nor does what is read again because a write of it failed
        return Machine.is_progress(self, outcome, details)

    def update(self, outcome: Outcome, details: Details | None) -> None:
        Machine.update(self, outcome, details)
        if self.state is _S.QUERYING_API:
            self._update_page(outcome, details)
        elif self.state is _S.READING:
            self.pausing = False
            if details is not None and details.listing is not None:
                self._update_list(details.listing)
        elif self.state is _S.CHECKING:
            if outcome is _O.PRESENT:
                self.alive.add(self.checking)
            elif outcome is _O.ABSENT:
                self.gone.add(self.checking)
        elif self.state is _S.WRITING and outcome is not _O.CHALLENGED:
            self._update_write(outcome, details)

    def _update_page(self, outcome: Outcome, details: Details | None) -> None:
        if outcome is _O.LIST_READ and details is not None and details.listing is not None:
            self.sure |= self.wanted.keys() & details.listing.entries.keys()
            self.page_url = details.location
            self.pages += 1
        elif outcome is _O.UNSURE:
            self.page_url, self.pages = "", 0

    def _update_list(self, listing: Listing) -> None:
        self.listing, self.fresh = listing, True
        self.read_at, self.connecting = self.begun_at, self.connected
        if self.refused_at is not None:
            self.refusals = self.refusals + 1 if self.refused_at == listing.identity else 0
            self.refused_at = None
        self._note(listing)
        if not self._missing(listing):
            self.failed_writes = 0

    def _note(self, listing: Listing) -> None:
        self.placed |= listing.entries.keys()
        for digest, entry in listing.entries.items():
            if digest not in self.wanted and digest not in self.gone and is_digest(digest):
                self.seen[digest] = entry

    def _update_write(self, outcome: Outcome, details: Details | None) -> None:
        self.writes += 1
        fault = outcome in (_O.NOT_SENT, _O.UNAVAILABLE, _O.LOST, _O.INCONCLUSIVE)
        self.write_fault = details.error if fault and details is not None else None
        before, self.listing = self.listing, None
        if outcome is not _O.NOT_SENT:
            self.write_s = max(self.write_s, self.answered_at - self.begun_at)
        if outcome is _O.CREATED:
            listing = read_listing(Response(id=0, status=200, body=self.written))
            self.listing, self.fresh = listing, False
            in_time = min(self.begun_at + self.settle_s, self.read_at + self.promise_s)
            self.unsure |= not self.fits or self.answered_at > in_time
            self.refusals = self.failed_writes = 0
            if self.late < LATE_TRIES:
                self.late, self.prepare_s = 0, 0.0
            self.alive.clear()
            self._note(listing)
        elif outcome is _O.INCONCLUSIVE:
            # The next look tells; only a write that it does not show was none, and is not repeated at once.
            self.unsure |= self.answered_at > self.begun_at + self.settle_s
            self.spread_s = self._spread_s() if self.failed_writes else 0.0
            self.failed_writes += 1
        elif outcome is _O.REJECTED:
            assert before is not None
            self.refused_at = before.identity
            self.races += 1
            self.spread_s = self._spread_s()
        elif outcome is _O.MISSING and details is not None:
            self.suspects = details.missing
            self.alive.difference_update(details.missing)
        elif outcome in (_O.UNAVAILABLE, _O.LOST):
            self.failed_writes += 1
            self.unsure |= details is None or not details.cut
            if self.answered_at >= self.begun_at + self.settle_s:
                self.settle_s = min(2 * self.settle_s, SETTLE_MAX_S)
        elif outcome is _O.NOT_SENT:
            self.failed_writes += 1
            if details is not None and details.late:
                self._update_late(kept=not (self.connecting or self.connected))

    def _update_late(self, kept: bool) -> None:
        """Note a write that came too late; `kept`: on a kept connection, so that the next may come too late as well."""
        if kept:
            if not self.late:
                self.prepare_s = 0.0
            self.late += 1
        if kept or not self.late:
            self.prepare_s = min(max(self.prepare_s, self.answered_at - self.read_at), SETTLE_MAX_S)
