"""What registries differ in, as switches, and what may go wrong on the way, as faults at a position.

The defaults are a registry that does everything the distribution-spec says. Each switch names the registry it
was seen at.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from regproto._model.manifest import MANIFEST_MAX_BYTES

ALL_ACTIONS: Final = frozenset({"pull", "push", "delete"})


class Auth(enum.Enum):
    """How a request proves who it is from."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    """Tokens, handed out by the same registry at `/token`."""


class Etag(enum.Enum):
    """What a registry makes of conditional requests on manifests."""

    NONE = "none"
    SENT = "sent"
    """ETag is sent, If-Match on a PUT is ignored (the distribution registry)."""
    ENFORCED = "enforced"
    """A PUT whose If-Match or If-None-Match does not hold is answered 412."""


class LocationStyle(enum.Enum):
    """How an upload session's Location is written."""

    PATH = "path"
    """`/v2/...`"""
    ABSOLUTE = "absolute"
    """`http://host/v2/...`"""
    RELATIVE = "relative"
    """Relative to the request's own URL."""
    OTHER_HOST = "other host"
    """Absolute, at `RegistryOptions.upload_host`. Like a signed storage URL it needs no Authorization and
    refuses one."""
    MISSING = "missing"
    """None at all: the registry breaks the protocol."""


class FaultKind(enum.Enum):
    """What is done in place of an answer."""

    STATUS = "status"
    """Answer with `Fault.status`, `headers` and `body` instead."""
    DROP = "drop"
    """Close the connection."""
    TRUNCATE = "truncate"
    """Do the work, then close the connection after `Fault.after_bytes` of the answer's body (inside its head
    if it has none); `Fault.when` is always AFTER."""
    GARBAGE = "garbage"
    """Send `Fault.body` raw, as no HTTP at all, and close."""
    SILENCE = "silence"
    """Never answer; the connection stays open."""


class When(enum.Enum):
    """How far a request gets before its fault."""

    BEFORE = "before"
    """It has no effect. Its body is not taken in, except before a STATUS where refusals are not early."""
    IN_BODY = "in body"
    """`Fault.after_bytes` of its body were taken in."""
    AFTER = "after"
    """The work is done; only the answer is lost."""


@attrs.frozen(kw_only=True)
class Fault:
    """A fault at a position: from the `at`-th request on that matches `method` and `path`, `count` times."""

    kind: FaultKind
    when: When = When.BEFORE
    method: str = ""
    """Empty: any method."""
    path: str = ""
    """A regular expression searched for in the request's target; empty: any."""
    at: int = 1
    count: int = 1
    after_bytes: int = 0
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()
    """A 401 gets the registry's own challenge if there is none among them."""
    body: bytes = b""

    @property
    def position(self) -> When:
        """How far the request gets."""
        return When.AFTER if self.kind is FaultKind.TRUNCATE else self.when


def _names(value: Iterable[str]) -> frozenset[str]:
    return frozenset(value)


@attrs.frozen(kw_only=True)
class Grant:
    """What a user may do in some repositories."""

    user: str = "*"
    """A user's name; empty: who is anonymous; `*`: everybody."""
    repository: str = "*"
    """A name, or a prefix that ends with `*`."""
    actions: frozenset[str] = attrs.field(default=ALL_ACTIONS, converter=_names)
    """Of `pull`, `push` and `delete`."""


def _pairs(value: Mapping[str, str] | tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(value.items()) if isinstance(value, Mapping) else tuple(value)


@attrs.frozen(kw_only=True)
class RegistryOptions:
    """The switches of a `FakeRegistry`."""

    # uploads
    single_post: int = 201
    """201: a POST with `digest=` and the body is an upload; 202: its body is ignored and a session opened;
    any other status is the refusal."""
    mount: bool = True
    """Off: every mount is answered with a fresh session (202)."""
    anonymous_mount: int = 202
    """A mount without `from`: 201 looks in every repository, 202 opens a session, 400 refuses (some Quay
    versions)."""
    chunk_min_bytes: int = 0
    """Announced as OCI-Chunk-Min-Length; a chunk after a shorter one is refused."""
    patch_status: int = 202
    commit_status: int = 201
    commit_location: bool = True
    """Off: a committed blob is answered without a Location."""
    location_style: LocationStyle = LocationStyle.PATH
    location_query: bool = True
    """Locations carry a `_state` that changes with each of them; a request without the newest is refused."""
    upload_host: str = "uploads.example"
    stale_status: bool = True
    """The status of a session (GET) may be asked with an older `_state` (distribution v3)."""
    range_on_416: bool = True
    """Off: a 416 has no Range, the client has to ask (distribution v3)."""
    upload_status: bool = True
    """Off: GET on a session is always 404 (public ECR)."""
    stale_range: bool = False
    """Range in answers is the one before the latest piece (ECR)."""
    ranged_max_bytes: int = 0
    """Larger bodies with a Content-Range are refused with 416 and no Range (GHCR: 4 MiB); 0: no limit."""
    lost_sessions: bool = False
    """A session whose body was cut is lost: 404 BLOB_UPLOAD_INVALID from then on (distribution 2.8)."""
    create_repositories: bool = True
    """Off: pushing to a repository that does not exist is 404 NAME_UNKNOWN (ECR)."""

    # manifests, tags, referrers
    manifest_status: int = 201
    manifest_max_bytes: int = MANIFEST_MAX_BYTES
    sparse_indexes: bool = False
    """An index is accepted without its children."""
    tag_params: bool = True
    """PUT by digest takes `tag=` parameters and answers OCI-Tag."""
    immutable_tags: int = 0
    """The status a PUT on an existing tag is refused with, also with the same manifest; 0: tags move."""
    digest_tags: bool = False
    """A tag `sha256-<hex>` that is not there leads to the manifest with that digest (GitLab)."""
    etag: Etag = Etag.SENT
    referrers_api: bool = True
    referrers_page: int = 0
    """Entries in one answer of the referrers API; 0: all."""
    referrers_filter: bool = True
    oci_subject: bool | None = None
    """Whether OCI-Subject is sent; None: where the referrers API is served (ECR: sent without serving it)."""
    tags_page: int = 0
    """Tags in one answer at most; 0: all."""

    # answers in general
    docker_content_digest: bool = True
    api_version: bool = True
    """Off: answers lack Docker-Distribution-Api-Version (cuelabs' ocimem, and whoever serves the endpoints alone)."""
    missing_status: int = 404
    """For a blob or manifest that is not there; Artifactory says 403."""
    deletes: bool = True
    """Off: deleting blobs, manifests and tags is 405."""
    early_refusals: bool = False
    """What can be refused by the request's head is answered before the body is read."""
    max_body_bytes: int = 0
    """Larger request bodies are refused with 413, as a proxy does; 0: no limit."""
    length_required: bool = False
    """A chunked request body is refused with 411, as some proxies do."""
    warnings: tuple[str, ...] = ()
    """Texts of the `Warning: 299` header on every answer."""

    # who may do what
    auth: Auth = Auth.NONE
    users: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs, repr=False)
    """Passwords by user name."""
    identity_tokens: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs, repr=False)
    """User names by refresh token."""
    grants: tuple[Grant, ...] = (Grant(),)
    anonymous_tokens: bool = True
    """Off: a token is given to users only."""
    realm: str = ""
    """The token endpoint's URL; empty: `/token` on the host that was asked."""
    service: str = "registry.example"
    expires_in: int | None = 300
    """A token's life in seconds; None: 60, without saying so."""
    token_field: str = "token"
    """`token`, `access_token`, or both with a space between."""
    token_post: int = 200
    """Any other status is the answer to an OAuth2 POST at the token endpoint (GCR: 404)."""
    first_scope_only: bool = False
    """The token endpoint looks at the first scope alone."""
    ungranted: int = 0
    """The status a token request for more than is granted is refused with; 0: the token has less than was
    asked for."""
    token_key: bytes = attrs.field(default=b"fake registry", repr=False)

    faults: tuple[Fault, ...] = attrs.field(default=(), converter=tuple)
    log_max: int = 0
    """Requests that `FakeRegistry.log` remembers, the newest."""
