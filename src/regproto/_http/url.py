"""URLs: the registry's endpoints, where a Location leads, and whether we may follow it there.

A Location is the registry's, down to the byte: upload state and signatures live in its query. So URLs are cut
with RFC 3986's own expression and put together from the same pieces; nothing here decodes or re-encodes.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Final
from urllib.parse import quote, unquote

from regproto._model.digest import Digest
from regproto._model.errors import LocalProtocolError, RemoteProtocolError, printable

LOCATION_MAX: Final = 8 * 1024
"""Characters of a URL we follow: what common servers take as a request line; signed ones have some 2 kB."""
_SHOWN_MAX: Final = 300
"""Characters of a URL in an error: host and longest repository name."""
_ORIGINS_CACHED: Final = 256
"""A push meets a handful of origins; the bound is for a registry that invents them."""

# RFC 3986, appendix B, without the fragment.
_PARTS: Final = re.compile(
    r"(?:(?P<scheme>[^:/?#]+):)?(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?P<query>\?[^#]*)?"
)
_ROOT: Final = re.compile(r"[^:/?#]+://[^/?#]*")
_SITE: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{0,5}))?",
    re.IGNORECASE | re.ASCII,  # else a long s and the Kelvin sign count as letters
)
_ENDPOINT: Final = re.compile(r"/(?:manifests|blobs|tags|referrers)/", re.IGNORECASE)
"""The first segment of the distribution-spec's paths below /v2/<name>. A second one behind that of an upload means that
the first is part of a repository's name, as in `team/app/blobs/uploads/x`."""
_VISIBLE_ASCII: Final = re.compile(r"[!-~]+")
_USERINFO: Final = re.compile(r"^((?:[^:/?#@]+:)?//)?[^/?#]*@")


class NamedElsewhere(str):
    """A URL that another origin than the registry's own named: a request to it gets none of our authorization, even if
    it leads to the registry."""

    __slots__ = ()


# --- origins ------------------------------------------------------------------------------------------------


def origin_of(url: str) -> str:
    """The origin `scheme://host:port` of an absolute URL: lower case, the default port filled in.

    Raises:
        RemoteProtocolError: not http or https, no host, userinfo, or a host or port that is malformed.
    """
    scheme, host, port = _site_of(url)
    return f"{scheme}://{host}:{port}"


def _site_of(url: str) -> tuple[str, str, int]:
    root = _ROOT.match(url)
    return _site(root[0] if root else url)


@functools.lru_cache(maxsize=_ORIGINS_CACHED)
def _site(root: str) -> tuple[str, str, int]:
    """Scheme, host and port of `scheme://host[:port]`."""
    match = _SITE.fullmatch(root)
    if match is None:
        why = "has a user name or password in it" if "@" in root else "is not http(s)://host[:port]"
        raise RemoteProtocolError(f"{shown(root)!r} {why}")
    scheme, host = match["scheme"].lower(), match["host"].lower()
    port = int(match["port"]) if match["port"] else (443 if scheme == "https" else 80)
    if not 1 <= port <= 65535:
        raise RemoteProtocolError(f"{shown(root)!r} has a port outside 1 to 65535")
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            raise RemoteProtocolError(f"{shown(root)!r} has no IPv6 address in its brackets") from None
    return scheme, host, port


def base_url(text: str) -> str:
    """The base URL of a registry as an embedder gives it, in lower case and without a trailing slash.

    Raises:
        LocalProtocolError: it is not `http(s)://host[:port]`, or has a path, a query or userinfo.
    """
    root = text.removesuffix("/")
    try:
        _site(root)
    except RemoteProtocolError:
        raise LocalProtocolError(
            f"{shown(text)!r} is not a registry's URL: expected https://host[:port], no user, path or query"
        ) from None
    return root.lower().removesuffix(":")


# --- Locations ----------------------------------------------------------------------------------------------


def resolve(request_url: str, location: str) -> str:
    """The URL that a Location (or realm) in the answer to a request for `request_url` names (RFC 3986, section 5.2).

    Path and query stay as they are, but for `.` and `..` segments of the path; a fragment is dropped. The
    origin is well formed but not judged: see `check_origin`.

    Raises:
        RemoteProtocolError: empty, too long, not visible ASCII, with userinfo, neither http nor https, or
            from https to http.
    """
    if not _VISIBLE_ASCII.fullmatch(location):
        raise RemoteProtocolError(
            f"the registry sends us to {shown(location)!r}, which is empty, or has spaces, control characters or "
            "characters outside ASCII"
        )
    base, to = _PARTS.match(request_url), _PARTS.match(location)
    assert base is not None and to is not None, "the expression matches every string"
    scheme, authority, path, query = to["scheme"], to["authority"], to["path"], to["query"]
    if scheme is None and authority is None:
        authority = base["authority"]
        if not path:
            path, query = base["path"], base["query"] if query is None else query
        elif not path.startswith("/"):
            path = base["path"][: base["path"].rfind("/") + 1] + path
    scheme = (scheme or base["scheme"]).lower()
    root = f"{scheme}://{authority or ''}"
    _site(root)
    if (base["scheme"].lower(), scheme) == ("https", "http"):
        raise RemoteProtocolError(f"the registry sends us from https to plain http, at {shown(location)!r}")
    url = f"{root}{_without_dots(path)}{query or ''}"
    if len(url) > LOCATION_MAX:
        raise RemoteProtocolError(
            f"the registry sends us to {shown(location)!r}, which is longer than {LOCATION_MAX} characters"
        )
    return url


def _without_dots(path: str) -> str:
    """An absolute path without `.` and `..` segments (RFC 3986, section 5.2.4); empty segments stay."""
    path = path if path.startswith("/") else f"/{path}"
    if "/." not in path:
        return path
    segments = path.split("/")[1:]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def with_query(url: str, key: str, value: str) -> str:
    """`url` with `key=value` in its query: in the place of the first `key` there, else at the end.

    The rest of the query is not touched. `:` and `/` stay readable, as in the spec's own examples.
    """
    root, _, query = url.partition("?")
    pair = f"{key}={quote(value, safe=':/')}"
    kept: list[str] = []
    for parameter in query.split("&") if query else ():
        if unquote(parameter.partition("=")[0]) != key:
            kept.append(parameter)
        elif pair not in kept:
            kept.append(pair)
    if pair not in kept:
        kept.append(pair)
    return f"{root}?{'&'.join(kept)}"


# --- endpoints (distribution-spec, "Endpoints") -------------------------------------------------------------


def blob_url(base: str, repository: str, digest: Digest) -> str:
    """The URL of a blob."""
    return f"{base}/v2/{repository}/blobs/{digest}"


def uploads_url(base: str, repository: str) -> str:
    """The URL that starts an upload session."""
    return f"{base}/v2/{repository}/blobs/uploads/"


def manifest_url(base: str, repository: str, reference: str) -> str:
    """The URL of a manifest, by tag or digest."""
    return f"{base}/v2/{repository}/manifests/{reference}"


def referrers_url(base: str, repository: str, digest: Digest) -> str:
    """The URL of a manifest's referrers list."""
    return f"{base}/v2/{repository}/referrers/{digest}"


def shown(url: str) -> str:
    """`url` for an error: without query, fragment and userinfo, which may be secret; printable, bounded."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    return printable(_USERINFO.sub(r"\1", bare), _SHOWN_MAX)
