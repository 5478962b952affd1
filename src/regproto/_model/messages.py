"""The messages between the core and a driver.

`Session.poll` returns one `Output`; a driver answers with `Session.receive(now, Input)`.
docs/design.md has the contract as a numbered list.
"""

from __future__ import annotations

import enum
import re
from typing import TypeAlias

import attrs

from regproto._model.digest import Digest
from regproto._model.errors import RegprotoError, escaped
from regproto._model.manifest import Descriptor
from regproto._model.plan import Blob, Manifest, StreamedBlob
from regproto._model.referrers import QueryResult, ReferrersUpdate

Headers: TypeAlias = tuple[tuple[str, str], ...]

_SECRET_HEADERS = frozenset({"authorization", "cookie", "set-cookie", "proxy-authorization"})
_URL_HEADERS = frozenset({"location", "content-location", "link"})
_QUERY = re.compile(r"\?[^>]*")
"""Upload state and signatures; in a Link it ends with the URL's bracket."""


def redacted(headers: Headers) -> str:
    """A printable form of headers, with the value of every header that carries a secret replaced, and the query of
    every URL that may be one."""
    return repr(tuple((n, _shown(n.lower(), v)) for n, v in headers))


def _shown(name: str, value: str) -> str:
    if name in _SECRET_HEADERS:
        return "<redacted>"
    return _QUERY.sub("?<redacted>", value) if name in _URL_HEADERS else value


def _short(body: object) -> str:
    return f"<{len(body)} bytes>" if isinstance(body, bytes) else repr(body)


# --- bodies -----------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class BlobSlice:
    """A body that the driver reads from the push's own content: `size` bytes from `offset` on.

    It can be sent any number of times. If fewer bytes are there, or they can't be read, the driver closes the
    exchange and answers `Failed(kind=FailureKind.CONTENT)`: it never pads.
    """

    source: object = attrs.field(repr=False)
    """`Blob.source` of the plan; the core hands it on and never looks inside."""
    digest: Digest
    """The digest of the whole blob, not of the slice."""
    offset: int
    size: int


@attrs.frozen(kw_only=True)
class Stream:
    """A body of unknown size: what is left of a stream from `offset` on, hashed by the driver while it is sent.

    The driver reads the source once, from its beginning to its end, as fast as the bytes are taken, and keeps the last
    `keep_bytes` that it has sent: only those can be sent again. Every answer to such a `Send` says in `stream` how
    things stand. From an `offset` that it keeps no more, the driver sends nothing: `Failed(kind=FailureKind.CONTENT)`,
    as when the source can't be read.
    """

    key: str
    """The stream's name in the plan."""
    source: object = attrs.field(repr=False)
    """`StreamBlob.source` of the plan; the core hands it on and never looks inside."""
    offset: int
    """Where in the stream the body begins."""
    limit_bytes: int | None = None
    """None: up to the stream's end, chunked (`Transfer-Encoding`). Else so many bytes at most: they are read before the
    request begins, so that its length is known (`regproto.http1` adds `Content-Length` and `Content-Range`)."""
    keep_bytes: int
    algorithm: str = "sha256"
    """Of the digest that is owed at the end."""


Body: TypeAlias = bytes | BlobSlice | Stream


def body_size(body: bytes | BlobSlice) -> int:
    """The number of bytes of a body."""
    return len(body) if isinstance(body, bytes) else body.size


# --- outputs: the core to the driver --------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Send:
    """Perform this exchange now, then answer `Response` or `Failed` with the same id, exactly once.

    `headers` lack `Host`, `Content-Length` and `Connection`: framing is the driver's (`regproto.http1` adds them).
    A `Content-Length` is always sent with POST, PUT and PATCH, 0 included.
    """

    id: int
    method: str
    url: str = attrs.field(repr=lambda url: repr(url.partition("?")[0]))
    headers: Headers = attrs.field(repr=redacted)
    body: Body = attrs.field(default=b"", repr=_short)
    max_head_bytes: int
    """A response head longer than this is answered `Failed(kind=FailureKind.PROTOCOL)`."""
    max_body_bytes: int
    """Of a longer response body the first `max_body_bytes` are given, with `truncated=True`."""
    not_after: float | None = None
    """Begun later than this (the driver's `now`), the request is not sent: `Failed(kind=FailureKind.NOT_SENT)`."""


@attrs.frozen(kw_only=True)
class Abort:
    """Stop the exchange with this id. Its one answer is still owed: the `Response` if that won the race, else
    `Failed(kind=FailureKind.ABORTED)` once its file and socket are released."""

    id: int


@attrs.frozen(kw_only=True)
class NeedCredentials:
    """Look in the keychain for this registry and answer `Credentials` or `NoCredentials` with the same id."""

    id: int
    registry: str
    """Host, and port if there is one, as in a reference."""
    repository: str
    """The repository that is pushed to, for keychains that match by path prefix."""


@attrs.frozen(kw_only=True)
class Save:
    """Keep this in place of the data kept before, so that it outlives the process, and only then poll again.

    Comes only from a session that was made with `save=True`. Given to a later one as `hint`, with the same pushes, it
    lets their uploads go on. Upload URLs stand in it, which may be secrets of the registry's: keep it private.
    """

    data: bytes = attrs.field(repr=_short)
    """Empty: there is nothing to keep any more."""


@attrs.frozen(kw_only=True)
class NeedManifests:
    """Make the config and manifest that name the streams of a push, which are there with their digests known, and
    answer `Manifests` or `NoManifests` with the same id."""

    id: int
    push_id: int
    draft: object = attrs.field(repr=False)
    """`PushPlan.draft`."""
    streams: tuple[StreamedBlob, ...]
    """In the order of `PushPlan.streams`."""


class Status(enum.Enum):
    """The news of one digest, tag, request or push in a `Notice`."""

    UPLOADING = "uploading"
    EXISTING = "existing"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"
    SKIPPED = "skipped"
    """Not sent on purpose: a non-distributable layer, or an absent child of a sparse index."""
    FAILED = "failed"
    RETRYING = "retrying"
    RESTARTED = "restarted"
    """The bytes sent of this blob are lost; it starts from zero in a new upload session."""
    RESUMED = "resumed"
    """An earlier process's upload of this blob goes on; the registry has `sent_bytes` of it."""
    NOT_RESUMED = "not resumed"
    """An earlier process's upload does not go on, and `text` says why: it is of no use, or no part of what is pushed
    (then it stays kept)."""
    LEFT_OPEN = "left open"
    """A push that is over could not cancel all upload sessions that it opened; `text` says how many stay open."""
    WARNING = "warning"
    """The registry's own words from a `Warning: 299` header, once per text."""
    PROGRESS = "progress"
    """How far a whole push is."""


@attrs.frozen(kw_only=True)
class Notice:
    """News that nobody has to act on. Later news of the same subject replaces earlier news not yet polled, unless
    that is of an upload that was resumed or restarted. Its texts are printable lines, as an error's are."""

    status: Status
    subject: str = attrs.field(converter=escaped)
    """The digest or tag this is about, a stream's key, or for `Status.PROGRESS` the push's repository; the registry's
    host where it is about none of these."""
    media_type: str = attrs.field(default="", converter=escaped)
    sent_bytes: int = 0
    """Of the present try: less than before when a try was taken back. For `Status.PROGRESS` of the whole push: all that
    is there, found, mounted or sent, and the part of what is being sent; each digest once."""
    size_bytes: int = 0
    """For `Status.PROGRESS` of everything the push brings: layers, configs and manifests. Of a stream what is known of
    it, so it grows until the stream has ended, and the push's total with it."""
    text: str = attrs.field(default="", converter=escaped)
    """For people: the reason of a retry, a warning's text, the repository mounted from, an uploaded stream's digest,
    why a push has failed."""
    delay_s: float = 0.0
    """For `Status.RETRYING`: how long until the next try."""
    push_id: int = 0
    """For `Status.PROGRESS`: which push. Reported at most ten times a second, and for the last time right before its
    `Finished`."""
    error: RegprotoError | None = None
    """For the last `Status.PROGRESS` of a push that has failed."""


class PushOutcome(enum.Enum):
    """How a push ended."""

    PUSHED = "pushed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@attrs.frozen(kw_only=True)
class PushResult:
    """How a push ended, and what it took."""

    outcome: PushOutcome
    repository: str
    """`host/name`, without tag or digest."""
    digest: Digest | None
    """The root manifest's digest; None for a push of blobs alone."""
    tags: tuple[str, ...] = ()
    """The tags that were asked for."""
    error: RegprotoError | None = None
    """The first fatal error; None unless `outcome` is FAILED."""
    existing: tuple[Digest, ...] = ()
    """The digests that were there already, in the order this became known."""
    mounted: tuple[Digest, ...] = ()
    uploaded: tuple[Digest, ...] = ()
    skipped: tuple[Descriptor, ...] = ()
    """Non-distributable layers and absent children that were left out on purpose."""
    listed: tuple[ReferrersUpdate, ...] = ()
    """For each subject of the push's manifests: what became of the list of its attachments."""
    found: tuple[QueryResult, ...] = ()
    """The answers to `PushPlan.lookups`, in that order."""
    streamed: tuple[StreamedBlob, ...] = ()
    """The streams that are there, in the order of `PushPlan.streams`."""
    left_open: int = 0
    """Upload sessions that stay open at the registry, or may, although they are of no use: those that it refused or had
    no time to cancel, and those it was asked to open without an answer. Registries delete them after a while, many
    after a week. (What is kept for a later process is not among them.)"""
    warnings: tuple[str, ...] = ()
    """Texts of the registry's `Warning: 299` headers."""
    requests: int = 0
    """Requests sent by the session while this push was in flight (token requests and retries included)."""
    sent_bytes: int = 0
    """Body bytes in the answered requests of those."""


@attrs.frozen(kw_only=True)
class Finished:
    """The push is over: no exchange of its is in flight any more. The session lives on."""

    push_id: int
    result: PushResult


@attrs.frozen(kw_only=True)
class Wait:
    """Nothing to do before `until` (the driver's clock; `math.inf`: until something is received).

    A statement, not a lease: it is void after any `receive`, `submit` or `cancel`.
    """

    until: float


Output: TypeAlias = Send | Abort | NeedCredentials | NeedManifests | Save | Notice | Finished | Wait


# --- inputs: the driver to the core ---------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class StreamStatus:
    """The state of a stream: on every answer to a `Send` whose body is a `Stream`."""

    sent: int
    """The offset in the stream after the last byte of it that the exchange gave to the connection (its body's `offset`,
    if none was)."""
    kept: int
    """Bytes from this offset on can be sent again."""
    digest: Digest | None = None
    """Of the whole stream, once its end was read (which may be before all of it was sent); None: not yet."""
    size: int = 0
    """Of the whole stream in bytes, if `digest` is known."""


@attrs.frozen(kw_only=True)
class Response:
    """The final answer to a `Send` (1xx never reaches the core)."""

    id: int
    status: int
    headers: Headers = attrs.field(default=(), repr=redacted)
    """In the order they came; names in any letter case."""
    body: bytes = attrs.field(default=b"", repr=_short)
    truncated: bool = False
    """True if the body went on after `Send.max_body_bytes`."""
    stream: StreamStatus | None = None
    """If the request's body was a `Stream`: how that stands. None for every other body."""


class FailureKind(enum.Enum):
    """The event in place of an answer. Facts, not judgement."""

    CONNECT = "connect"
    """No connection: the name is unknown, the connection was refused or timed out."""
    TLS = "tls"
    """The TLS handshake failed (certificate, protocol)."""
    CLOSED = "closed"
    """The connection ended or was reset before the answer was whole."""
    PROTOCOL = "protocol"
    """The answer is not HTTP/1.1, or its head is over the limit."""
    CONTENT = "content"
    """The body couldn't be read, is short, or has changed since it was described."""
    NOT_SENT = "not_sent"
    """`Send.not_after` had passed; nothing was written."""
    ABORTED = "aborted"
    """The answer to an `Abort` that won the race."""


class Written(enum.Enum):
    """How much of the request had been handed to the connection when it failed."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


@attrs.frozen(kw_only=True)
class Failed:
    """There was no answer to this `Send`."""

    id: int
    kind: FailureKind
    written: Written
    reused: bool = False
    """True if the connection had carried an earlier exchange."""
    detail: str = ""
    """The driver's own error in words, without secrets."""
    stream: StreamStatus | None = None
    """If the request's body was a `Stream`: how that stands. May be None where nothing was written."""


class Phase(enum.Enum):
    """The phase of an exchange."""

    CONNECTING = "connecting"
    READING = "reading"
    """The source of a stream has nothing to send yet. It may take its time."""
    SENDING = "sending"
    WAITING = "waiting"
    """The request is written; nothing of the answer has come."""
    RECEIVING = "receiving"


@attrs.frozen(kw_only=True)
class Progress:
    """A sign of life of an exchange: on each change of phase, and on movement at most ten times a second."""

    id: int
    phase: Phase
    bytes: int = 0
    """Body bytes written (SENDING, WAITING) or read (RECEIVING) so far."""


@attrs.frozen(kw_only=True)
class Credentials:
    """The answer to `NeedCredentials`: a user and password, or an identity token, or a registry token."""

    id: int
    username: str = ""
    password: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)
    """An OAuth2 refresh token, to be exchanged at the realm."""
    registry_token: str = attrs.field(default="", repr=False)
    """A bearer token to be used as it is."""


@attrs.frozen(kw_only=True)
class NoCredentials:
    """The answer to `NeedCredentials` when the keychain has nothing (go on anonymously) or failed (`error`)."""

    id: int
    error: str = ""
    """Not empty: the keychain itself is broken (a helper failed); pushes that need it end with this text."""


@attrs.frozen(kw_only=True)
class Manifests:
    """The answer to `NeedManifests`: the rest of that push's plan. It is checked like a plan, together with what is
    there already; where it does not fit the push fails."""

    id: int
    root: Digest | None
    """The manifest that the push's tags are put on."""
    manifests: tuple[Manifest, ...] = ()
    blobs: tuple[Blob, ...] = ()
    """The config, and whatever else the manifests name that is neither a stream nor in the plan."""


@attrs.frozen(kw_only=True)
class NoManifests:
    """The answer to `NeedManifests` when nothing can be made of the streams: the push fails."""

    id: int
    error: str


Input: TypeAlias = Response | Failed | Progress | Credentials | NoCredentials | Manifests | NoManifests
