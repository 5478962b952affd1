"""What passes between the core and a driver.

`Session.poll` returns one `Output`; a driver answers with `Session.receive(now, Input)`.
docs/design.md has the contract as a numbered list.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs

from regproto._attachments import Found, Listed
from regproto._content import Descriptor, Digest
from regproto._errors import RegprotoError

Headers: TypeAlias = tuple[tuple[str, str], ...]

_SECRET_HEADERS = frozenset({"authorization", "cookie", "set-cookie", "proxy-authorization"})


def redacted(headers: Headers) -> str:
    """A printable form of headers, with the value of every header that carries a secret replaced."""
    shown = tuple((n, "<redacted>" if n.lower() in _SECRET_HEADERS else v) for n, v in headers)
    return repr(shown)


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
    """What the plan gave as `Blob.source`; the core hands it on and never looks inside."""
    digest: Digest
    """The digest of the whole blob, not of the slice."""
    offset: int
    size: int


Body: TypeAlias = bytes | BlobSlice


def body_size(body: Body) -> int:
    """The number of bytes a body puts on the wire."""
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
    """Keep this in place of what was kept before, so that it outlives the process, and only then poll again.

    Comes only from a session that was made with `save=True`. Given to a later one as `hint`, with the same pushes, it
    lets their uploads go on. Upload URLs stand in it, which may be secrets of the registry's: keep it private.
    """

    data: bytes = attrs.field(repr=_short)
    """Empty: there is nothing to keep any more."""


class Status(enum.Enum):
    """What is told of one digest, tag or request in a `Notice`."""

    UPLOADING = "uploading"
    EXISTING = "existing"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"
    SKIPPED = "skipped"
    """Not sent on purpose: a non-distributable layer, or an absent child of a sparse index."""
    FAILED = "failed"
    RETRYING = "retrying"
    RESTARTED = "restarted"
    """What was sent of this blob is lost; it starts from zero in a new upload session."""
    RESUMED = "resumed"
    """An earlier process's upload of this blob goes on; the registry has `sent_bytes` of it."""
    NOT_RESUMED = "not resumed"
    """What an earlier process left is of no use, `text` says why; the push does without."""
    WARNING = "warning"
    """The registry's own words from a `Warning: 299` header, once per text."""


@attrs.frozen(kw_only=True)
class Notice:
    """News that nobody has to act on. Later news of the same subject replaces earlier news not yet polled."""

    status: Status
    subject: str
    """The digest or tag this is about; the registry's host where it is about neither."""
    media_type: str = ""
    sent_bytes: int = 0
    size_bytes: int = 0
    text: str = ""
    """For people: the reason of a retry, a warning's text, the repository mounted from."""
    delay_s: float = 0.0
    """For `Status.RETRYING`: how long until the next try."""


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
    """What was found there, in the order it became known."""
    mounted: tuple[Digest, ...] = ()
    uploaded: tuple[Digest, ...] = ()
    skipped: tuple[Descriptor, ...] = ()
    """Non-distributable layers and absent children that were left out on purpose."""
    listed: tuple[Listed, ...] = ()
    """For each subject of the push's manifests: what became of the list of its attachments."""
    found: tuple[Found, ...] = ()
    """What was asked for (`Push.lookups`), in that order."""
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


Output: TypeAlias = Send | Abort | NeedCredentials | Save | Notice | Finished | Wait


# --- inputs: the driver to the core ---------------------------------------------------------------------------


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


class FailureKind(enum.Enum):
    """What happened instead of an answer. Facts, not judgement."""

    CONNECT = "connect"
    """No connection: the name is unknown, the connection was refused or timed out."""
    TLS = "tls"
    """The TLS handshake failed (certificate, protocol)."""
    CLOSED = "closed"
    """The connection ended or was reset before the answer was whole."""
    PROTOCOL = "protocol"
    """What came is not HTTP/1.1, or its head is over the limit."""
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


class Phase(enum.Enum):
    """What an exchange is doing."""

    CONNECTING = "connecting"
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


Input: TypeAlias = Response | Failed | Progress | Credentials | NoCredentials
