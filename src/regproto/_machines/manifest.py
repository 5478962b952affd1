"""The life of a manifest under one reference: there already, or put once everything it stands on is there.

One machine is one (manifest, reference): a child of an index has its digest as reference, a root one machine for
each of its tags. They share a node, so what the manifest names is pushed once. A PUT by digest can be repeated; a
PUT by tag cannot be told from somebody else's, so after a lost answer, or a refusal that an immutable tag explains,
the tag is looked at first (CONFIRMING).

A success that does not say what was put, where nothing has shown that a registry answers, is a claim: the manifest is
looked at (CHECKING_PUT), read if need be (PROVING), and put again for as long as it is not there.

Several tags may share one PUT by digest (`?tag=a&tag=b`, PUTTING_WITH_TAGS): the first tag's machine has the others. A
registry that can do this answers with the tags it put (`OCI-Tag`); any other has put the manifest by digest, and
then each tag is put alone (TAGGING). Where the registry lacks what it was found to have (MISSING), that is pushed
again, once.

Source: distribution-spec "Pushing Manifests", end-7b for tags as parameters; oras-go issue 1212 for manifests refused
after their blobs were found.
"""

from __future__ import annotations

from typing import ClassVar, Final

import attrs

from regproto._http.evidence import holds, names, shows_manifest
from regproto._http.headers import get, get_all
from regproto._http.registry_errors import UNKNOWN_CODES, error_codes, missing_digests, refusal
from regproto._http.url import manifest_url
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
from regproto._machines.verdicts import broken, claimed, refused, wrong_digest
from regproto._model.config import TRANSIENT, Config
from regproto._model.digest import Digest
from regproto._model.manifest import MANIFEST_MAX_BYTES, Descriptor
from regproto._model.messages import Response, Status
from regproto._model.plan import Manifest, PushPlan


class ManifestState(State):
    """The states of a manifest under one reference."""

    CHECKING = "checking"
    WAITING = "waiting"
    READY = "ready"
    PUTTING = "putting"
    TAGGING = "tagging"
    PUTTING_WITH_TAGS = "putting with tags"
    CONFIRMING = "confirming"
    CHECKING_PUT = "checking put"
    PROVING = "proving"
    PRESENT = "present"
    FAILED = "failed"
    DROPPED = "dropped"


_S: Final = members(ManifestState)
_O: Final = members(Outcome)

TABLE: Final[Table] = {
    _S.CHECKING: {
        _O.PRESENT: _S.PRESENT,
        _O.ABSENT: _S.WAITING,
        _O.CHALLENGED: _S.CHECKING,
        _O.NOT_SENT: _S.CHECKING,
        _O.LOST: _S.CHECKING,
        _O.UNAVAILABLE: _S.CHECKING,
        _O.GAVE_UP: _S.FAILED,
        _O.RETRIES_EXHAUSTED: _S.WAITING,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.WAITING: {_O.READY: _S.READY, _O.CANCEL: _S.DROPPED},
    _S.READY: {_O.PUT: _S.PUTTING, _O.TAG: _S.TAGGING, _O.SHARE: _S.PUTTING_WITH_TAGS},
    _S.PUTTING: {
        _O.CREATED: _S.PRESENT,
        _O.INCONCLUSIVE: _S.CHECKING_PUT,
        _O.MISSING: _S.WAITING,
        _O.CHALLENGED: _S.PUTTING,
        _O.NOT_SENT: _S.PUTTING,
        _O.LOST: _S.PUTTING,
        _O.UNAVAILABLE: _S.PUTTING,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.TAGGING: {
        _O.CREATED: _S.PRESENT,
        _O.INCONCLUSIVE: _S.CHECKING_PUT,
        _O.MISSING: _S.WAITING,
        _O.REJECTED: _S.CONFIRMING,
        _O.CHALLENGED: _S.TAGGING,
        _O.NOT_SENT: _S.TAGGING,
        _O.LOST: _S.CONFIRMING,
        _O.UNAVAILABLE: _S.CONFIRMING,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.PUTTING_WITH_TAGS: {
        _O.CREATED: _S.PRESENT,
        _O.MISSING: _S.WAITING,
        _O.REJECTED: _S.TAGGING,
        _O.CHALLENGED: _S.PUTTING_WITH_TAGS,
        _O.NOT_SENT: _S.PUTTING_WITH_TAGS,
        _O.LOST: _S.CONFIRMING,
        _O.UNAVAILABLE: _S.CONFIRMING,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.CONFIRMING: {
        _O.PRESENT: _S.PRESENT,
        _O.ABSENT: _S.TAGGING,
        _O.REJECTED: _S.FAILED,
        _O.CHALLENGED: _S.CONFIRMING,
        _O.NOT_SENT: _S.CONFIRMING,
        _O.LOST: _S.CONFIRMING,
        _O.UNAVAILABLE: _S.CONFIRMING,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.CHECKING_PUT: {
        _O.PRESENT: _S.PRESENT,
        _O.INCONCLUSIVE: _S.PROVING,
        _O.UNSURE: _S.READY,
        _O.CHALLENGED: _S.CHECKING_PUT,
        _O.NOT_SENT: _S.CHECKING_PUT,
        _O.LOST: _S.CHECKING_PUT,
        _O.UNAVAILABLE: _S.CHECKING_PUT,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.PROVING: {
        _O.PRESENT: _S.PRESENT,
        _O.UNSURE: _S.READY,
        _O.CHALLENGED: _S.PROVING,
        _O.NOT_SENT: _S.PROVING,
        _O.LOST: _S.PROVING,
        _O.UNAVAILABLE: _S.PROVING,
        _O.GAVE_UP: _S.FAILED,
        _O.REFUSED: _S.FAILED,
        _O.DENIED: _S.FAILED,
        _O.BROKEN: _S.FAILED,
        _O.CANCEL: _S.DROPPED,
    },
    _S.PRESENT: {_O.CANCEL: _S.DROPPED},
    _S.FAILED: {},
    _S.DROPPED: {},
}

_PUTS: Final = frozenset({_S.PUTTING, _S.TAGGING, _S.PUTTING_WITH_TAGS})
_TAG_REFUSALS: Final = frozenset({400, 403, 409, 412})
"""Statuses with which registries refuse to move an immutable tag."""
_SHARING_REFUSALS: Final = frozenset({400, 404, 405, 414, 431, 501})
"""Statuses with which registries may refuse tags as parameters, or so many of them."""
TAGS_MAX: Final = 10
"""Tags in one request: what a registry that takes tags as parameters should at least take (distribution-spec)."""


@attrs.define(kw_only=True, eq=False, repr=False)
class ManifestMachine(Machine):
    """One manifest under one reference."""

    NAME: ClassVar[str] = "manifest"
    TABLE: ClassVar[Table] = TABLE
    ASKS: ClassVar[frozenset[State]] = frozenset(
        {_S.CHECKING, _S.PUTTING, _S.TAGGING, _S.PUTTING_WITH_TAGS, _S.CONFIRMING, _S.CHECKING_PUT, _S.PROVING}
    )
    DECIDES: ClassVar[frozenset[State]] = frozenset({_S.READY})
    ENDS: ClassVar[frozenset[State]] = frozenset({_S.PRESENT, _S.FAILED, _S.DROPPED})

    state: State = _S.CHECKING
    manifest: Manifest
    tag: str = ""
    """Empty: by digest."""
    share: bool = False
    """Put by digest, with this tag as a parameter, where the registry can do that."""
    also: tuple[str, ...] = ()
    """Further tags of the same push, to be put with the same request."""
    repushed: bool = False
    """The content that the registry did not have was pushed again, once."""
    may_appear: bool = False
    """The registry had acknowledged that content before, so it may yet appear."""
    how: Status = Status.EXISTING
    """How it came to be there, once it is."""
    refused: bool = False
    """The tag was refused in a way that an immutable tag would explain."""
    subject_handled: bool = False
    """The registry said that it put this into its subject's list itself (OCI-Subject)."""

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return self.manifest.descriptor.digest

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor in the plan."""
        return self.manifest.descriptor

    @property
    def reference(self) -> str:
        """The tag, or the digest."""
        return self.tag or self.digest

    @property
    def body_bytes(self) -> int:
        return len(self.manifest.content) if self.state in _PUTS else 0

    def describe(self) -> str:
        return f"tag {self.tag}" if self.tag else f"manifest {self.digest}"

    def request(self) -> Request:
        if self.state is _S.PUTTING_WITH_TAGS:
            tags = "&".join(f"tag={tag}" for tag in (self.tag, *self.also))
            url = f"{manifest_url(self.base, self.repository, self.digest)}?{tags}"
        else:
            url = manifest_url(self.base, self.repository, self.reference)
        media_type = self.manifest.descriptor.media_type
        if self.state in _PUTS:
            return Request("PUT", url, (("Content-Type", media_type),), self.manifest.content)
        if self.state is _S.PROVING:
            return Request("GET", url, (("Accept", media_type),), b"", MANIFEST_MAX_BYTES)
        return Request("HEAD", url, (("Accept", media_type),))

    def classify(self, response: Response, url: str, proven: bool) -> Verdict:
        if self.state is _S.PUTTING_WITH_TAGS:
            return self._classify_shared(response, url, proven)
        if self.state in _PUTS:
            return self._classify_put(response, url, proven)
        if self.state is _S.PROVING:
            return self._classify_content(response, url, proven)
        return self._classify_look(response, url)

    def _classify_look(self, response: Response, url: str) -> Verdict:
        status = response.status
        wrong = None
        if status == 200:
            if names(response, self.digest) or (not self.tag and shows_manifest(response, self.descriptor)):
                return _O.PRESENT, None
            wrong = wrong_digest(self, "HEAD", url, response, self.digest)
            if wrong is not None and not self.tag:
                return wrong
        elif status == 401 or status in TRANSIENT:
            return refused(self.describe(), "HEAD", url, response)
        if self.state is _S.CHECKING_PUT:
            return self._not_put("HEAD", url) if status == 404 or wrong is not None else (_O.INCONCLUSIVE, None)
        # After a refusal that an immutable tag would explain, a tag that is not ours means: refused, in the
        # PUT's words.
        if self.state is _S.CONFIRMING and self.refused:
            return _O.REJECTED, None
        return _O.ABSENT, None

    def _not_put(self, method: str, url: str) -> Verdict:
        """The verdict for a manifest that is not there after its PUT: it may come, or be put by the next try."""
        text = "said to have put it, the registry has not got it"
        return _O.UNSURE, broken(self.describe(), method, url, text)[1]

    def _classify_content(self, response: Response, url: str, proven: bool) -> Verdict:
        status = response.status
        if not self.tag and status == 200 and (wrong := wrong_digest(self, "GET", url, response, self.digest)):
            return wrong
        if holds(response, self.digest):
            return _O.PRESENT, None
        if status == 401 or status in TRANSIENT:
            return refused(self.describe(), "GET", url, response)
        if status < 400 and not proven:
            return broken(self.describe(), "GET", url, f"answered {status}, and what came is not what was put")
        return self._not_put("GET", url)

    def _classify_put(self, response: Response, url: str, proven: bool) -> Verdict:
        status = response.status
        if 200 <= status < 300:
            outcome, details = claimed(self, "PUT", url, response, self.digest, proven)
            if outcome is _O.BROKEN:
                return outcome, details
            if names(response, self.digest):
                outcome = _O.CREATED
            return outcome, self._subject_details(response)
        if 400 <= status < 500 and (self.may_appear or not self.repushed) and error_codes(response) & UNKNOWN_CODES:
            if self.repushed:
                return _O.UNAVAILABLE, Details(error=refusal(self.describe(), "PUT", url, response))
            return _O.MISSING, Details(missing=missing_digests(response))
        outcome, details = refused(self.describe(), "PUT", url, response)
        if self.tag and status in _TAG_REFUSALS:
            return _O.REJECTED, details
        if status == 413:
            hint = f"the registry takes no manifest of {len(self.manifest.content)} bytes"
            return _O.REFUSED, Details(error=refusal(self.describe(), "PUT", url, response, hint))
        return outcome, details

    def _subject_details(self, response: Response) -> Details | None:
        subject = self.manifest.info.subject
        handled = subject is not None and get(response.headers, "oci-subject") == subject.digest
        return Details(subject_handled=True) if handled else None

    def _classify_shared(self, response: Response, url: str, proven: bool) -> Verdict:
        outcome, details = self._classify_put(response, url, proven)
        if outcome in (_O.CREATED, _O.INCONCLUSIVE):
            tags = _tags_put(response)
            details = attrs.evolve(details or Details(), tags=tags, tag_params=bool(tags))
            return (_O.CREATED if self.tag in tags else _O.REJECTED), details
        if outcome in (_O.REFUSED, _O.REJECTED) and response.status not in (401, 413):
            # The plain way will tell whether it was about the tags as parameters, or about this tag, or at all.
            return _O.REJECTED, Details(tag_params=False) if response.status in _SHARING_REFUSALS else None
        return outcome, details

    def decide(self, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        if self.share and capabilities.tag_params is not False:
            return _O.SHARE
        return _O.TAG if self.tag else _O.PUT

    def update(self, outcome: Outcome, details: Details | None) -> None:
        if self.state is _S.CONFIRMING and outcome is _O.REJECTED:
            return  # the error stays the PUT's
        Machine.update(self, outcome, details)
        if outcome is _O.CREATED or (outcome is _O.PRESENT and self.state is not _S.CHECKING):
            self.how = Status.UPLOADED
        if details is not None and details.subject_handled:
            self.subject_handled = True
        if outcome is _O.MISSING:
            self.repushed = True
        elif self.state is _S.TAGGING:
            self.refused = outcome is _O.REJECTED


def _tags_put(response: Response) -> tuple[str, ...]:
    """The tags a registry says it put: a list, in one header or several."""
    listed = ",".join(get_all(response.headers, "oci-tag"))
    return tuple(tag.strip() for tag in listed.split(",") if tag.strip())


def together(plan: PushPlan, capabilities: RegistryCapabilities) -> tuple[str, ...]:
    """The tags of a plan that one PUT by digest is to set; none: each is put alone.

    Where it is not known whether the registry can do this, it is tried with three tags or more: alone they take a HEAD
    and a PUT each, six requests; together one HEAD, the PUT, and where that put no tag three PUTs more, without a look
    (the manifest was not there a moment ago under the first of them). So even a registry that lacks it is not asked
    more than before. With two tags it would be asked as much, and it would take one round trip more.

    A manifest named by another digest than sha256 keeps that name under a tag in this way alone.
    """
    if plan.root is None or capabilities.tag_params is False:
        return ()
    least = 1 if plan.root.algorithm != "sha256" else 2 if capabilities.tag_params else 3
    return plan.tags[:TAGS_MAX] if len(plan.tags) >= least else ()
