"""Verdicts for answers about a subject's list: of the referrers API, the tag, a listed manifest, a write.

Source: distribution-spec "Listing Referrers", "Unavailable Referrers API", "Referrers Tag Schema".
"""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Final

from regproto._http.evidence import names
from regproto._http.referrers_list import ABSENT, NO_API, PAGES_MAX, is_index, read_listing
from regproto._http.registry_errors import UNKNOWN_CODES, error_codes, missing_digests, refusal
from regproto._http.url import resolve, shown
from regproto._machines.base import Details, Machine, Outcome, Verdict, members
from regproto._machines.verdicts import broken, claimed, refused
from regproto._model.config import TRANSIENT
from regproto._model.digest import Digest
from regproto._model.errors import ContentError, RemoteProtocolError
from regproto._model.messages import Response

_O: Final = members(Outcome)


def api_verdict(what: str, response: Response, url: str, wanted: Set[str], api_known: bool, pages: int) -> Verdict:
    """The verdict for an answer of the referrers API.

    Args:
        what: the machine in words.
        response: the answer.
        url: the request's.
        wanted: digests that have to be in the list, on this page or on a later one.
        api_known: the registry was seen to have the API.
        pages: read before this one.
    """
    status = response.status
    if (status in NO_API or (status == 200 and not is_index(response))) and not api_known:
        # Even with NAME_UNKNOWN: a manifest was put there just now, so it is not the repository that is missing.
        return _O.REJECTED, Details(referrers_api=False)
    if status != 200:
        return refused(what, "GET", url, response)
    try:
        page = read_listing(response)
    except ContentError as error:
        return broken(what, "GET", url, f"the referrers API sent no list: {error}")
    missing = wanted - page.entries.keys()
    location = resolve(url, page.next_url) if page.next_url and missing else ""
    if location and pages >= PAGES_MAX:
        return broken(what, "GET", url, f"the list has more than {PAGES_MAX} pages")
    if missing and not location:
        text = f"{what}: the registry has {min(missing)} and does not list it in its referrers API"
        return _O.UNSURE, Details(referrers_api=True, error=RemoteProtocolError(text))
    return _O.LIST_READ, Details(referrers_api=True, listing=page, location=location)


def list_verdict(what: str, response: Response, url: str, refused_at: str | None) -> Verdict:
    """The verdict for an answer to a read of the tag; `refused_at` is the list's digest when a write was refused."""
    status = response.status
    if status not in (200, 404):
        return refused(what, "GET", url, response)
    outcome, listing = _O.ABSENT, ABSENT
    if status == 200:
        try:
            outcome, listing = _O.LIST_READ, read_listing(response)
        except ContentError as error:
            text = f"{what}: GET {shown(url)}: the tag is not a referrers list and is left alone: {error}"
            return _O.REFUSED, Details(error=RemoteProtocolError(text))
    # A 412 while the list had not changed is about something else: immutable tags are refused so.
    changed = refused_at is not None and refused_at != listing.identity
    return outcome, Details(listing=listing, conditional_put=True if changed else None)


def check_verdict(what: str, response: Response, url: str) -> Verdict:
    """The verdict for an answer to a HEAD of a vanished entry's manifest: is it still there?"""
    if response.status == 404:
        return _O.ABSENT, None
    if response.status == 401 or response.status in TRANSIENT:
        return refused(what, "HEAD", url, response)
    return _O.PRESENT, None  # only a 404 says that somebody deleted it


def put_verdict(
    machine: Machine,
    response: Response,
    url: str,
    written: bytes,
    bare: bool,
    others: Collection[str],
    proven: bool,
) -> Verdict:
    """The verdict for an answer to a write of the list.

    Args:
        machine: whose write it was.
        response: the answer.
        url: the request's.
        written: the list.
        bare: it went without a condition.
        others: the digests of entries that are not ours.
        proven: a registry answers there.
    """
    status, what = response.status, machine.describe()
    if 200 <= status < 300:
        digest = Digest.of(written)
        verdict = claimed(machine, "PUT", url, response, digest, proven)
        if verdict[0] is not _O.INCONCLUSIVE:
            return verdict
        if names(response, digest):
            return _O.CREATED, None
        return _O.INCONCLUSIVE, broken(what, "PUT", url, f"answered {status}, and the list is not what was put")[1]
    if status == 412 and not bare:
        return _O.REJECTED, Details(error=refusal(what, "PUT", url, response))
    if 400 <= status < 500 and error_codes(response) & UNKNOWN_CODES:
        named = missing_digests(response) or others
        suspects = tuple(Digest(digest) for digest in named if digest in others)
        if suspects:
            return _O.MISSING, Details(missing=suspects, error=refusal(what, "PUT", url, response))
    return refused(what, "PUT", url, response)
