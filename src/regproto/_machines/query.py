"""The life of a question about a repository: the manifest a tag points to, or the attachments of a manifest.

It changes nothing, so every fault is met by asking again. A HEAD (CHECKING) describes the manifest, as far as the
registry answers it in full; else the manifest is read (FETCHING). Attachments are asked of the referrers API, page
after page (QUERYING_API), or read from the tag that stands in for it (READING).

Source: distribution-spec "Pulling manifests", "Listing Referrers", "Unavailable Referrers API".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import attrs

from regproto._http.headers import get
from regproto._http.referrers_list import (
    ABSENT,
    ACCEPT_ANY,
    ACCEPT_INDEX,
    NO_API,
    PAGES_MAX,
    Listing,
    fallback_tag,
    is_index,
    read_listing,
)
from regproto._http.registry_errors import error_codes, refusal
from regproto._http.url import manifest_url, referrers_url, resolve, shown, with_query
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
from regproto._machines.verdicts import broken, refused, wrong_digest
from regproto._model.config import Config
from regproto._model.digest import Digest
from regproto._model.errors import ContentError, InvalidReferenceError, RemoteProtocolError
from regproto._model.manifest import MANIFEST_MAX_BYTES, Descriptor, check_media_type, parse_manifest
from regproto._model.messages import Response
from regproto._model.referrers import ListReferrers, QueryResult, Referrers, ResolveReference


class QueryState(State):
    """The states of a question."""

    CHOOSING = "choosing"
    CHECKING = "checking"
    FETCHING = "fetching"
    QUERYING_API = "querying api"
    READING = "reading"
    FOUND = "found"
    FAILED = "failed"
    DROPPED = "dropped"


_S: Final = members(QueryState)
_O: Final = members(Outcome)

_FAULTS: Final = {
    _O.GAVE_UP: _S.FAILED,
    _O.REFUSED: _S.FAILED,
    _O.DENIED: _S.FAILED,
    _O.BROKEN: _S.FAILED,
    _O.CANCEL: _S.DROPPED,
}


def _asking(state: QueryState, ways: Mapping[Outcome, State]) -> dict[Outcome, State]:
    """A row of a state that asks: any fault is met by asking again."""
    again = dict.fromkeys((_O.CHALLENGED, _O.NOT_SENT, _O.LOST, _O.UNAVAILABLE), state)
    return {**ways, **again, **_FAULTS}


TABLE: Final[Table] = {
    _S.CHOOSING: {
        _O.LOOK: _S.CHECKING,
        _O.FETCH: _S.FETCHING,
        _O.ASK: _S.QUERYING_API,
        _O.TAG: _S.READING,
        _O.SETTLED: _S.FOUND,
    },
    _S.CHECKING: _asking(_S.CHECKING, {_O.PRESENT: _S.CHOOSING, _O.INCONCLUSIVE: _S.CHOOSING}),
    _S.FETCHING: _asking(_S.FETCHING, {_O.PRESENT: _S.CHOOSING}),
    _S.QUERYING_API: _asking(_S.QUERYING_API, {_O.LIST_READ: _S.CHOOSING, _O.REJECTED: _S.CHOOSING}),
    _S.READING: _asking(_S.READING, {_O.LIST_READ: _S.CHOOSING}),
    _S.FOUND: {},
    _S.FAILED: {},
    _S.DROPPED: {},
}

_NAME_CODES: Final = frozenset({"NAME_UNKNOWN", "NAME_INVALID"})
ENTRIES_MAX: Final = 100_000
"""Entries of one list that are kept: a thousand pages of a hundred."""


@attrs.define(kw_only=True, eq=False, repr=False)
class QueryMachine(Machine):
    """One question."""

    NAME: ClassVar[str] = "lookup"
    TABLE: ClassVar[Table] = TABLE
    ASKS: ClassVar[frozenset[State]] = frozenset({_S.CHECKING, _S.FETCHING, _S.QUERYING_API, _S.READING})
    DECIDES: ClassVar[frozenset[State]] = frozenset({_S.CHOOSING})
    ENDS: ClassVar[frozenset[State]] = frozenset({_S.FOUND, _S.FAILED, _S.DROPPED})

    state: State = _S.CHOOSING
    lookup: ResolveReference | ListReferrers
    looked: bool = False
    """A HEAD did not say enough."""
    page_url: str = ""
    pages: int = 0
    entries: dict[str, Descriptor] = attrs.field(factory=dict)
    by_tag: bool = False
    found: QueryResult | None = None

    @property
    def url_base(self) -> str:
        return self.page_url or self.base

    @property
    def tag(self) -> str:
        """The reference asked for, or the tag of a subject's list; tests and the explorer identify the question by
        it."""
        return self.lookup.reference if isinstance(self.lookup, ResolveReference) else fallback_tag(self.lookup.subject)

    def describe(self) -> str:
        lookup = self.lookup
        if isinstance(lookup, ListReferrers):
            return f"referrers of {lookup.subject}"
        return f"{'manifest' if ':' in lookup.reference else 'tag'} {lookup.reference}"

    def decide(self, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        if self.found is not None:
            return Outcome.SETTLED
        if isinstance(self.lookup, ResolveReference):
            return Outcome.FETCH if self.looked or self.lookup.content else Outcome.LOOK
        if capabilities.referrers_api is False:
            self.by_tag, self.page_url = True, ""
        return Outcome.TAG if self.by_tag else Outcome.ASK

    def request(self) -> Request:
        base, repository, lookup = self.base, self.repository, self.lookup
        if isinstance(lookup, ListReferrers):
            if self.state is _S.READING:
                return Request("GET", manifest_url(base, repository, self.tag), ACCEPT_ANY, b"", MANIFEST_MAX_BYTES)
            url = self.page_url
            if not url:
                url = referrers_url(base, repository, lookup.subject)
                if lookup.artifact_type:
                    url = with_query(url, "artifactType", lookup.artifact_type)
            return Request("GET", url, ACCEPT_INDEX, b"", MANIFEST_MAX_BYTES)
        url = manifest_url(base, repository, lookup.reference)
        if self.state is _S.CHECKING:
            return Request("HEAD", url, ACCEPT_ANY)
        return Request("GET", url, ACCEPT_ANY, b"", MANIFEST_MAX_BYTES)

    # --- answers ---

    def classify(self, response: Response, url: str, proven: bool) -> Verdict:
        if self.state is _S.QUERYING_API:
            return self._classify_page(response, url)
        if self.state is _S.READING:
            return self._classify_tag(response, url, proven)
        method = "HEAD" if self.state is _S.CHECKING else "GET"
        if response.status == 405 and method == "HEAD":
            return Outcome.INCONCLUSIVE, None
        if response.status == 404:
            hint = "there is nothing of this name in the repository"
            return Outcome.REFUSED, Details(error=refusal(self.describe(), method, url, response, hint))
        if response.status != 200:
            return refused(self.describe(), method, url, response)
        reference = self.tag
        if ":" in reference and (wrong := wrong_digest(self, method, url, response, Digest(reference))):
            return wrong
        return self._classify_head(response, proven) if method == "HEAD" else self._classify_get(response, url)

    def _classify_head(self, response: Response, proven: bool) -> Verdict:
        """The verdict for a HEAD: digest, size and type are enough; asked by digest, a registry need not repeat
        that."""
        asked = self.tag if ":" in self.tag and proven else ""
        named = get(response.headers, "docker-content-digest") or asked
        length = get(response.headers, "content-length") or ""
        media_type = (get(response.headers, "content-type") or "").partition(";")[0].strip()
        try:
            descriptor = Descriptor(
                media_type=check_media_type(media_type, "HEAD"),
                digest=Digest(named),
                size=int(length) if length.isascii() and length.isdigit() and len(length) < 16 else 0,
            )
        except (ContentError, InvalidReferenceError):
            return Outcome.INCONCLUSIVE, None
        return (Outcome.PRESENT, Details(found=descriptor)) if descriptor.size else (Outcome.INCONCLUSIVE, None)

    def _classify_get(self, response: Response, url: str) -> Verdict:
        named, asked = get(response.headers, "docker-content-digest") or "", self.tag
        wanted = asked if ":" in asked else named
        algorithm = wanted.partition(":")[0] if wanted.startswith(("sha256:", "sha512:")) else "sha256"
        digest = Digest.of(response.body, algorithm)
        if response.truncated:
            return broken(self.describe(), "GET", url, f"the manifest has over {MANIFEST_MAX_BYTES} bytes")
        if wanted and digest != wanted:
            return broken(self.describe(), "GET", url, "what came does not match its digest")
        media_type = (get(response.headers, "content-type") or "").partition(";")[0].strip()
        try:
            info = parse_manifest(response.body, media_type if "json" in media_type else "", "what came")
        except ContentError as error:
            return broken(self.describe(), "GET", url, str(error))
        assert isinstance(self.lookup, ResolveReference)
        data = response.body if self.lookup.content else None
        found = Descriptor(media_type=info.media_type, digest=digest, size=len(response.body), data=data)
        return Outcome.PRESENT, Details(found=found)

    def _classify_page(self, response: Response, url: str) -> Verdict:
        status = response.status
        if (status in NO_API or (status == 200 and not is_index(response))) and not self.pages:
            # Of a repository that is not there this says nothing about the registry.
            about_name = not error_codes(response).isdisjoint(_NAME_CODES)
            return Outcome.REJECTED, Details(referrers_api=None if about_name else False)
        if status != 200:
            return refused(self.describe(), "GET", url, response)
        try:
            page = read_listing(response)
        except ContentError as error:
            return broken(self.describe(), "GET", url, f"the referrers API sent no list: {error}")
        location = resolve(url, page.next_url) if page.next_url else ""
        if location and (self.pages + 1 >= PAGES_MAX or len(self.entries) >= ENTRIES_MAX):
            return broken(self.describe(), "GET", url, f"the list goes on after {self.pages + 1} pages")
        return Outcome.LIST_READ, Details(referrers_api=True, listing=page, location=location)

    def _classify_tag(self, response: Response, url: str, proven: bool) -> Verdict:
        if response.status == 404 and proven:  # anything at all answers 404
            return Outcome.LIST_READ, Details(listing=ABSENT)
        if response.status != 200:
            return refused(self.describe(), "GET", url, response)
        try:
            return Outcome.LIST_READ, Details(listing=read_listing(response))
        except ContentError as error:
            text = f"{self.describe()}: GET {shown(url)}: the tag is not a referrers list: {error}"
            return Outcome.REFUSED, Details(error=RemoteProtocolError(text))

    def is_progress(self, outcome: Outcome, details: Details | None) -> bool:
        if outcome is _O.LIST_READ and details is not None and details.location and details.listing is not None:
            return not details.listing.entries.keys() <= self.entries.keys()  # a page that has something new
        return Machine.is_progress(self, outcome, details)

    def update(self, outcome: Outcome, details: Details | None) -> None:
        Machine.update(self, outcome, details)
        if outcome is _O.INCONCLUSIVE:
            self.looked = True
        elif outcome is _O.REJECTED:
            self.by_tag = True
        elif outcome is _O.PRESENT and details is not None:
            self.found = details.found
        elif outcome is _O.LIST_READ and details is not None and details.listing is not None:
            self._update_list(details.listing, details.location)

    def _update_list(self, listing: Listing, next_url: str) -> None:
        lookup = self.lookup
        assert isinstance(lookup, ListReferrers)
        self.pages += 1
        self.page_url = next_url
        for descriptor in listing.descriptors():
            if not lookup.artifact_type or descriptor.artifact_type == lookup.artifact_type:
                self.entries.setdefault(descriptor.digest, descriptor)
        if not next_url:
            entries = tuple(self.entries[digest] for digest in sorted(self.entries))
            self.found = Referrers(subject=lookup.subject, entries=entries, tag=self.tag if self.by_tag else "")
