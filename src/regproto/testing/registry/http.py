"""What goes into a fake registry and what comes out: requests, replies, refusals."""

from __future__ import annotations

import enum
import json
import re
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from regproto._model.digest import Digest
from regproto._model.errors import InvalidReferenceError
from regproto._model.messages import Headers, redacted


@attrs.frozen
class Content:
    """A reply's body that stands in storage."""

    digest: str
    offset: int
    size: int


ReplyBody: TypeAlias = bytes | Content


class Wire(enum.Enum):
    """What becomes of a reply on its way; everything but WHOLE is a fault for the server to enact."""

    WHOLE = "whole"
    CLOSED = "closed"
    """The connection is closed without an answer."""
    TRUNCATED = "truncated"
    """The connection is closed after `Reply.sent_bytes` of the body, or inside the head if there is no
    body."""
    GARBAGE = "garbage"
    """The body is sent raw, then the connection is closed."""
    SILENT = "silent"
    """Nothing is sent and the connection stays open."""


@attrs.frozen
class Reply:
    """An answer. `status` is 0 where there is none (see `wire`)."""

    status: int
    headers: Headers = attrs.field(default=(), repr=redacted)
    body: ReplyBody = b""
    wire: Wire = Wire.WHOLE
    sent_bytes: int = 0

    def header(self, name: str) -> str | None:
        """The first header of this name, in any letter case."""
        return find_header(self.headers, name)

    @property
    def content(self) -> bytes:
        """The body's bytes, for a reply of `FakeRegistry.handle`, which has them at hand."""
        assert isinstance(self.body, bytes)
        return self.body

    @property
    def codes(self) -> tuple[str, ...]:
        """The error codes in the body."""
        try:
            return tuple(error["code"] for error in json.loads(self.content)["errors"])
        except (ValueError, KeyError, TypeError):
            return ()


@attrs.frozen
class RequestHead:
    """A request without its body."""

    method: str
    target: str = attrs.field(repr=lambda target: repr(target.partition("?")[0]))
    """Path and query, as in the request line."""
    headers: Headers = attrs.field(default=(), repr=redacted)
    scheme: str = "http"

    def header(self, name: str) -> str | None:
        """The first header of this name, in any letter case."""
        return find_header(self.headers, name)

    @property
    def origin(self) -> str:
        """Scheme and host as the client sees them."""
        return f"{self.scheme}://{self.header('host') or 'registry.example'}"

    @property
    def path(self) -> str:
        """The decoded path."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, list[str]]:
        """The decoded query."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)


@attrs.frozen
class Request(RequestHead):
    """A request with its body."""

    body: bytes = attrs.field(default=b"", repr=lambda body: f"<{len(body)} bytes>", kw_only=True)

    @classmethod
    def to(cls, method: str, url: str, headers: Headers = (), body: bytes = b"") -> Request:
        """A request to a whole URL; Host is taken from it."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(method, target, (("Host", parts.netloc), *headers), parts.scheme, body=body)


def find_header(headers: Headers, name: str) -> str | None:
    """The first header of this name, in any letter case."""
    name = name.lower()
    return next((value for key, value in headers if key.lower() == name), None)


class Refused(Exception):
    """Raised inside the registry: the request is answered with this error."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def refusal(status: int, code: str, message: str, detail: object = None, headers: Headers = ()) -> Reply:
    """An error in the spec's format (distribution-spec, "Error Codes")."""
    error: dict[str, object] = {"code": code, "message": message}
    if detail is not None:
        error["detail"] = detail
    body = json.dumps({"errors": [error]}).encode()
    return Reply(status, (*headers, ("Content-Type", "application/json")), body)


def refused(status: int, code: str, message: str, detail: object = None, headers: Headers = ()) -> Refused:
    """`refusal`, to be raised."""
    return Refused(refusal(status, code, message, detail, headers))


def json_reply(value: object, media_type: str = "application/json", headers: Headers = ()) -> Reply:
    """A 200 with a JSON body."""
    return Reply(200, (*headers, ("Content-Type", media_type)), json.dumps(value).encode())


_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")


def is_repository(name: str) -> bool:
    """Whether `name` follows the spec's grammar ("Pulling manifests")."""
    return len(name) <= 255 and _REPOSITORY.fullmatch(name) is not None


def parse_digest(text: str) -> Digest:
    """A digest from a request; refused with DIGEST_INVALID."""
    try:
        return Digest(text)
    except InvalidReferenceError as error:
        raise refused(400, "DIGEST_INVALID", str(error)) from None
