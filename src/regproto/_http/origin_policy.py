"""Origins and upload URLs that a registry may not lead us to.

The rules against requests that a registry forges through us, and against our authorization reaching what is no upload.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from regproto._http.url import _ENDPOINT, _PARTS, NamedElsewhere, _site_of, _without_dots, shown
from regproto._model.errors import RemoteProtocolError

_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

_LOOPBACK_NAMES: Final = frozenset(
    {"localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback"}
)
"""Names of the machine itself in common systems' hosts files."""


def check_origin(base: str, url: str, trust: Callable[[str], bool] | None) -> None:
    """Check that a registry at `base` may send us to `url` (a Location, a redirect, a token realm).

    On another host, what only this machine or its network can reach is refused, so that a registry can't use us to
    reach it: address literals that are not global, in any spelling, and `localhost` names. (What other names resolve
    to is not known here.) Every other origin but the registry's own (scheme, host and port) is `trust`'s to decide;
    without that it is fine.

    Raises:
        RemoteProtocolError: refused, and why.
    """
    own = base_scheme, base_host, _ = _site_of(base)
    site = scheme, host, port = _site_of(url)
    if (base_scheme, scheme) == ("https", "http"):
        raise RemoteProtocolError(f"{base_host} sends us from https to plain http, at {shown(url)!r}")
    if site == own:
        return
    if host != base_host and _is_internal(host):
        raise RemoteProtocolError(
            f"{base_host} sends us to {shown(url)!r}, an address of a private network or this machine"
        )
    if trust is not None and not trust(f"{scheme}://{host}:{port}"):
        raise RemoteProtocolError(f"{base_host} sends us to {shown(url)!r}, an origin that is not trusted")


def _is_internal(host: str) -> bool:
    host = host.strip("[]").rstrip(".")
    if host in _LOOPBACK_NAMES or host.endswith(".localhost"):
        return True
    if ":" not in host and not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return not host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # 2130706433, 0x7f.1, 0177.0.0.1: resolvers take these for addresses, and nobody honest writes them.
        return True
    if isinstance(address, ipaddress.IPv6Address):
        if address.sixtofour is not None or address.is_site_local:
            return True
        address = address.ipv4_mapped or address
    return address.is_multicast or address.is_reserved or not address.is_global


def is_led_back(base: str, url: str) -> bool:
    """Whether another origin has named a URL at the registry's own: whose word it was has to be remembered with it."""
    return isinstance(url, NamedElsewhere) and _site_of(url) == _site_of(base)


def check_upload_url(base: str, repository: str, url: str, *, kept: bool = False) -> None:
    """Check that a whole, resolved URL can be an upload session of a repository: anything else of the registry we would
    write to, and delete, with our authorization. At other origins it can be anything.

    A path counts for whatever any server on the way may make of it: escapes and dots are taken as what they stand
    for, until there are none.

    Args:
        base: the registry's.
        repository: whose upload it is to be.
        url: where we are led.
        kept: it comes from elsewhere than the registry: then nothing else below /v2/ is taken, known or not.

    Raises:
        RemoteProtocolError: it can't be one.
    """
    if _site_of(url) != _site_of(base):
        return
    parts = _PARTS.match(url)
    assert parts is not None, "the expression matches every string"
    path, before = parts["path"], ""
    while path != before:
        before = path
        path = _without_dots(re.sub(r"[/\\]+", "/", unquote(path)))
    path = f"{path}/"
    if not path.lower().startswith("/v2/"):
        return
    blobs = f"/v2/{repository}/blobs"
    # Some registries write "upload", and nothing else can be there.
    known = path.startswith((f"{blobs}/uploads/", f"{blobs}/upload/"))
    if (kept and not known) or _ENDPOINT.search(path[len(blobs) :] if known else path):
        raise RemoteProtocolError(f"{shown(url)!r} is not an upload URL of {repository}")
