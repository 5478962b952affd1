"""Evidence that a host is a registry, and that content is there.

A status alone proves nothing: a sign-in page, a captive portal or a WebDAV host answers 200 or 201 to everything. An
origin is proven once an answer of it carries what only registries send; until then a success is a claim, and is asked
after. Content is there when an answer names its digest, or knows its size, or is the content itself. What shows
neither is unknown: never an error, and taken as absent, since to push again costs no more than a push.

Source: distribution-spec "Pulling manifests", "Pulling blobs", "Error codes"; RFC 9110 section 14.4 for Content-Range.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from regproto._http.headers import get, parse_challenges, parse_length
from regproto._http.registry_errors import registry_errors
from regproto._http.url import origin_of, resolve
from regproto._model.config import TRANSIENT
from regproto._model.digest import Digest
from regproto._model.errors import RegistryError, RegprotoError, RemoteProtocolError
from regproto._model.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from regproto._model.messages import Response

NO_REGISTRY: Final = (
    "this does not look like a registry: check the host and the name; a proxy or a sign-in page may be answering"
)
_CODE: Final = re.compile("[A-Z_]+")  # distribution-spec, "Error codes"
_DIGEST: Final = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}")  # image-spec, "Digests"
_RANGE_OF: Final = re.compile(r"bytes (?:0-0|\*)/([0-9]{1,19})", re.IGNORECASE)
_PAGE_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
_SAID_BY_PROXIES: Final = TRANSIENT | {401}
"""Statuses that a proxy may answer: no sign that there is no registry behind it."""


# --- the host -----------------------------------------------------------------------------------------------


def is_evidence(method: str, url: str, response: Response) -> bool:
    """Whether this answer to a request for `url` comes from a registry.

    A digest is evidence if it is the one that was asked about, or what was found under a tag. Any other may be one that
    comes with every answer.
    """
    status, headers = response.status, response.headers
    for name, value in headers:
        name = name.lower()
        if name == "docker-distribution-api-version" or name.startswith("oci-"):
            return True
        if name == "docker-content-digest" and _DIGEST.fullmatch(value):
            found = status == 200 and method in ("GET", "HEAD") and not _DIGEST.search(url)
            if found or value in url:
                return True
    if status == 202:
        return method == "POST" and url.partition("?")[0].endswith("/blobs/uploads/") and bool(get(headers, "location"))
    if status == 401 and any(challenge.scheme == "bearer" for challenge in parse_challenges(headers)):
        return True
    return status >= 400 and any(_CODE.fullmatch(error.code) for error in registry_errors(response))


def unlike_a_registry(error: RegprotoError, status: int) -> RegprotoError:
    """The error for an answer of this status, where nothing of that origin was ever a registry's."""
    if status in _SAID_BY_PROXIES or not isinstance(error, (RegistryError, RemoteProtocolError)):
        return error
    text = f"{error}; {NO_REGISTRY}"
    if isinstance(error, RegistryError) and status >= 400:
        return RegistryError(text, status=error.status, errors=error.errors)
    return RemoteProtocolError(text)


# --- the content --------------------------------------------------------------------------------------------


def names(response: Response, digest: Digest) -> bool:
    """Whether an answer names this digest as that of the content it is about."""
    return get(response.headers, "docker-content-digest") == digest


def _media_type(response: Response) -> str:
    return (get(response.headers, "content-type") or "").partition(";")[0].strip().lower()


def _is_as_long(response: Response, size: int) -> bool:
    """Whether an answer says that its content has this size; a size of 0 is no evidence."""
    return parse_length(get(response.headers, "content-length")) == size


def shows_blob(response: Response, digest: Digest, size: int) -> bool:
    """Whether a 200 to a HEAD of a blob says that it is there. (A redirect ends at storage that knows no digest.)"""
    return names(response, digest) or (_is_as_long(response, size) and _media_type(response) not in _PAGE_TYPES)


def shows_manifest(response: Response, manifest: Descriptor) -> bool:
    """Whether a 200 to a HEAD of a manifest by its digest says that it is there."""
    if names(response, manifest.digest):
        return True
    types = MANIFEST_TYPES | INDEX_TYPES | {manifest.media_type}
    return _is_as_long(response, manifest.size) and _media_type(response) in types


def holds_blob(response: Response, digest: Digest, size: int) -> bool:
    """Whether an answer to a GET of a blob's first byte says that it is there.

    A server that knows no ranges sends the whole: it is the blob if its digest is. So is an empty one, which has no
    first byte (416).
    """
    status = response.status
    if status == 200:
        return shows_blob(response, digest, size) or holds(response, digest)
    size_match = _RANGE_OF.fullmatch((get(response.headers, "content-range") or "").strip())
    whole = size_match is not None and int(size_match[1]) == size
    return whole and status == (206 if size else 416)


def holds(response: Response, digest: Digest) -> bool:
    """Whether a 200 to a GET is the content itself."""
    return response.status == 200 and not response.truncated and Digest.of(response.body, digest.algorithm) == digest


def names_another(base: str, repository: str, url: str, location: str, digest: Digest) -> bool:
    """Whether a Location says that something else was put: only one at this registry's own blobs or manifests can.

    Storage URLs, upload sessions and tags are as they may be.

    Args:
        base: the registry's URL.
        repository: the one that was put to.
        url: the request's.
        location: as it came; garbage says nothing.
        digest: what was put.
    """
    if not location or digest in location:
        return False
    try:
        whole = resolve(url, location)
        if origin_of(whole) != origin_of(base):
            return False
        prefix = f"{base}/v2/{repository}/"
        path = unquote(whole.partition("?")[0])
        kind, _, last = path[len(prefix) :].partition("/") if path.startswith(prefix) else ("", "", "")
        return kind in ("blobs", "manifests") and Digest(last).algorithm == digest.algorithm and last != digest
    except RegprotoError:
        return False
