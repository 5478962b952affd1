"""Verdicts that all machines share: refusals, broken answers, wrong digests, missing answers, claims."""

from __future__ import annotations

from typing import Final

from regproto._http.evidence import names, names_another
from regproto._http.headers import get
from regproto._http.registry_errors import refusal
from regproto._http.url import shown
from regproto._machines.base import Details, Machine, Outcome, Verdict, members
from regproto._model.config import TRANSIENT
from regproto._model.digest import Digest
from regproto._model.errors import (
    RemoteProtocolError,
    printable,
)
from regproto._model.messages import Failed, FailureKind, Response, Written

_O: Final = members(Outcome)


def refused(what: str, method: str, url: str, response: Response, hint: str = "") -> Verdict:
    """The verdict for a refusal without a meaning of its own: another try if it is transient, else for good."""
    error = refusal(what, method, url, response, hint)
    return (_O.UNAVAILABLE if response.status in TRANSIENT else _O.REFUSED), Details(error=error)


def broken(what: str, method: str, url: str, text: str) -> Verdict:
    """The verdict for an answer against the protocol."""
    return _O.BROKEN, Details(error=RemoteProtocolError(f"{what}: {method} {shown(url)}: {text}"))


def wrong_digest(machine: Machine, method: str, url: str, response: Response, digest: Digest) -> Verdict | None:
    """The verdict for an answer that names another digest than ours; None if it names ours, or none that compares."""
    named = get(response.headers, "docker-content-digest")
    if named and named != digest and named.partition(":")[0] == digest.algorithm:
        text = f"the registry answered with another digest, {printable(named, 150)!r}"
        return broken(machine.describe(), method, url, text)
    return None


def failure(failed: Failed) -> Outcome:
    """The outcome of a missing answer, before any machine looks at it."""
    if failed.kind is FailureKind.CONTENT:
        return _O.CONTENT
    if failed.kind in (FailureKind.CONNECT, FailureKind.TLS, FailureKind.NOT_SENT) or failed.written is Written.NONE:
        return _O.NOT_SENT
    return _O.LOST


def claimed(machine: Machine, method: str, url: str, response: Response, digest: Digest, proven: bool) -> Verdict:
    """The verdict for a success that is to confirm that what was sent is there.

    Args:
        machine: whose request it was.
        method: the request's, as is `url`.
        url: where it was sent.
        response: a 2xx.
        digest: what was sent.
        proven: a registry answers there.
    """
    wrong = wrong_digest(machine, method, url, response, digest)
    if wrong is not None:
        return wrong
    location = get(response.headers, "location") or ""
    if not names(response, digest) and names_another(machine.base, machine.repository, url, location, digest):
        text = f"the registry says that it has put something else, at {printable(location.partition('?')[0], 150)!r}"
        return broken(machine.describe(), method, url, text)
    return (_O.CREATED if response.status == 201 and proven else _O.INCONCLUSIVE), None
