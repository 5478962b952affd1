"""Errors made of refusals and of missing answers, with what to do about them; the registry's own errors as data.

Source: distribution-spec "Error codes".
"""

from __future__ import annotations

import json
from typing import Final

from regproto._http.url import shown
from regproto._model.digest import Digest
from regproto._model.errors import (
    ContentError,
    InvalidReferenceError,
    RegistryError,
    RegistryErrorDetail,
    RegprotoError,
    RemoteProtocolError,
    TransportError,
    printable,
)
from regproto._model.messages import Failed, FailureKind, Response

ERRORS_SHOWN_MAX: Final = 5
"""Of a registry's list of errors; a person reads the first."""

_HINTS: Final = {
    "DENIED": "check that this account may push to the repository",
    "UNAUTHORIZED": "log in to the registry, or give a user name and a password",
    "NAME_UNKNOWN": "the repository may have to be created first, or its name is wrong",
    "NAME_INVALID": "the registry does not take this repository name",
    "DIGEST_INVALID": "the content sent does not match its digest: check the source",
    "SIZE_INVALID": "the content sent does not match its size: check the source",
    "TOOMANYREQUESTS": "the registry limits requests: try again later, or with fewer at once",
    "TAG_INVALID": "the registry does not take this tag",
    "UNSUPPORTED": "the registry does not support this operation",
}
_STATUS_HINTS: Final = {
    401: _HINTS["UNAUTHORIZED"],
    403: _HINTS["DENIED"],
    404: _HINTS["NAME_UNKNOWN"],
    413: "the registry or a proxy before it refuses bodies of this size",
}


def registry_errors(response: Response) -> tuple[RegistryErrorDetail, ...]:
    """The registry's own errors, bounded and printable; () if the body is not of the spec's form."""
    try:
        entries = json.loads(response.body)["errors"]
        return tuple(
            RegistryErrorDetail(
                printable(str(e.get("code", "")), 100),
                printable(str(e.get("message", "")), 500),
                printable(json.dumps(e["detail"]), 500) if e.get("detail") else "",
            )
            for e in entries[:ERRORS_SHOWN_MAX]
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def error_codes(response: Response) -> frozenset[str]:
    """The registry's error codes, upper case."""
    return frozenset(e.code.upper() for e in registry_errors(response))


def _in_words(error: RegistryErrorDetail) -> str:
    text = f"{error.code}: {error.message}".rstrip(": ")
    # The code for everything else says nothing: what happened (a full disk) stands in the detail alone.
    return f"{text}, {error.detail[:400]}" if error.code.upper() == "UNKNOWN" and error.detail else text


def refusal(what: str, method: str, url: str, response: Response, hint: str = "") -> RegistryError:
    """The error for an answer that is a refusal: operation, method, URL, status, the registry's words, what to do."""
    errors = registry_errors(response)
    said = "; ".join(_in_words(e) for e in errors)
    if not said:
        said = printable(response.body[:300].decode("utf-8", "replace").strip(), 300)
    if response.status != 413:  # its own meaning is exact; the code for it, SIZE_INVALID, has another as well
        hint = hint or next((_HINTS[e.code.upper()] for e in errors if e.code.upper() in _HINTS), "")
    hint = hint or _STATUS_HINTS.get(response.status, "")
    text = f"{what}: {method} {shown(url)} was answered {response.status}"
    text += f" ({said})" if said else ""
    text += f"; {hint}" if hint else ""
    return RegistryError(text, status=response.status, errors=errors)


_FAILURES: Final = {
    FailureKind.CONNECT: "could not be reached",
    FailureKind.TLS: "the TLS connection failed",
    FailureKind.CLOSED: "the connection ended before the answer was whole",
    FailureKind.PROTOCOL: "what came back is not an HTTP answer within the limits",
    FailureKind.NOT_SENT: "was not sent in time",
    FailureKind.ABORTED: "gave no answer in time",
}


_FAILURE_HINTS: Final = {
    FailureKind.CONNECT: "; check the registry's name and port, and that it is up",
    FailureKind.TLS: "; check its certificate and this machine's trust, or use plain http if it serves that",
}


def failure_error(what: str, method: str, url: str, failed: Failed, timeout: str = "") -> RegprotoError:
    """The error for a missing answer that nobody will ask for again."""
    detail = printable(timeout or failed.detail, 300)
    if failed.kind is FailureKind.CONTENT:
        return ContentError(f"{what}: the content can't be sent: {detail or 'it is short, unreadable or has changed'}")
    text = f"{what}: {method} {shown(url)} {_FAILURES[failed.kind]}"
    text += f" ({detail})" if detail else ""
    text += _FAILURE_HINTS.get(failed.kind, "")
    if failed.kind is FailureKind.PROTOCOL:
        return RemoteProtocolError(text)
    return TransportError(text)


UNKNOWN_CODES: Final = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})
"""How registries say that something a manifest names is not there."""
_MISSING_MAX: Final = 1_000
"""Digests read from one MANIFEST_BLOB_UNKNOWN answer; more than any manifest's layers in the wild."""


def missing_digests(response: Response) -> tuple[Digest, ...]:
    """The digests in the details of MANIFEST_BLOB_UNKNOWN errors; registries write them in several forms."""
    found: list[Digest] = []
    try:
        for entry in json.loads(response.body)["errors"][:_MISSING_MAX]:
            detail = entry.get("detail")
            text = detail.get("digest", detail.get("Digest")) if isinstance(detail, dict) else detail
            if isinstance(text, str):
                found.append(Digest(text))
    except (InvalidReferenceError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
    return tuple(found)
