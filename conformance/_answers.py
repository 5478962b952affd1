"""What the registry answers where a scenario says so; everywhere else a fake registry does, by its switches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from conformance._fields import Fields, Invalid, as_count, as_flag, as_text, list_of
from conformance._names import Names
from conformance._requests import Pattern
from regproto import Headers
from regproto.testing import Fault, FaultKind, When

_KINDS: Final = ("status", "registry", "lost", "silence", "garbage", "truncated", "not_sent", "tls_failed")
NEVER_SENT: Final = ("not_sent", "tls_failed")
PAD_MAX: Final = 4 * 1024 * 1024
"""Bytes an answer may be padded with: well over every limit of the core on heads and on bodies it reads."""


@attrs.frozen(kw_only=True)
class Answer:
    """One answer, or what comes instead."""

    kind: str
    """`status`: this one. `registry`: the registry's own, with changes. `lost`: none. `silence`: none, and the
    connection stays. `garbage`: no HTTP. `truncated`: cut. `not_sent`: the request never got there.
    `tls_failed`: because of the certificate."""
    status: int = 0
    headers: Mapping[str, str] = attrs.field(factory=dict)
    without: tuple[str, ...] = ()
    body: bytes = b""
    done: bool = False
    """The registry does the work all the same."""
    cut: int | None = None
    """So many bytes of the request's body are taken in, then comes the answer (or none)."""
    reused: bool = False
    """With `lost`: the connection had carried an earlier exchange."""
    pad_head: int = 0
    pad_body: int = 0

    @property
    def breaks_the_connection(self) -> bool:
        """Whether there is no whole answer."""
        return self.kind not in ("status", "registry") or self.cut is not None

    def fault(self, names: Names) -> Fault | None:
        """The same as a fault of the fake registry; None where that answers itself."""
        when = When.IN_BODY if self.cut is not None else When.AFTER if self.done else When.BEFORE
        body = names.fill(self.body.decode()).encode() + b" " * self.pad_body
        match self.kind:
            case "status":
                headers = self.more_headers(names)
                return Fault(
                    kind=FaultKind.STATUS,
                    when=when,
                    status=self.status,
                    headers=headers,
                    body=body,
                    after_bytes=self.cut or 0,
                )
            case "lost":
                return Fault(kind=FaultKind.DROP, when=when, after_bytes=self.cut or 0)
            case "silence":
                return Fault(kind=FaultKind.SILENCE, when=when)
            case "garbage":
                return Fault(kind=FaultKind.GARBAGE, when=when, body=body)
            case "truncated":
                return Fault(kind=FaultKind.TRUNCATE, after_bytes=self.status)
            case _:
                return None

    def more_headers(self, names: Names) -> Headers:
        """The headers this brings."""
        pad = (("X-Pad", "x" * self.pad_head),) if self.pad_head else ()
        return (*((name, names.fill(value)) for name, value in self.headers.items()), *pad)


@attrs.frozen(kw_only=True)
class Scripted:
    """The answers to one kind of request, in turn; after them the fake registry's own."""

    to: Pattern
    answers: tuple[Answer, ...]
    always: Answer | None


def read_scripted(raw: object, where: str) -> Scripted:
    """An entry of `answers`. Raises `Invalid`."""
    fields = Fields(raw, where)
    to = Pattern.read(fields.take("to", as_text), f"{where}.to")
    answers = fields.many("answers", _answer)
    always = fields.maybe("always", _answer)
    fields.end()
    if not answers and always is None:
        raise Invalid(f"{where} has no answers")
    if to.body is not None:
        raise Invalid(f"{where}.to: what is answered can't depend on the body")
    return Scripted(to=to, answers=answers, always=always)


def _answer(raw: object, where: str) -> Answer:
    fields = Fields(raw, where)
    kinds = [kind for kind in _KINDS if kind in fields]
    if len(kinds) != 1:
        raise Invalid(f"{where} must have exactly one of {', '.join(_KINDS)}")
    kind = kinds[0]
    status, body = 0, b""
    if kind in ("status", "truncated"):
        status = fields.take(kind, as_count)
    elif kind == "garbage":
        body = fields.take("garbage", as_text).encode()
    elif not fields.take(kind, as_flag):
        raise Invalid(f"{where}.{kind} can only be true")
    if kind == "status":
        body = _body(fields)
    speaks = kind in ("status", "registry")
    answer = Answer(
        kind=kind,
        status=status,
        body=body,
        headers=fields.mapping("headers", as_text) if speaks else {},
        without=fields.many("without", as_text) if kind == "registry" else (),
        pad_head=fields.take("pad_head", _padding, 0) if speaks else 0,
        pad_body=fields.take("pad_body", _padding, 0) if kind == "status" else 0,
        done=fields.take("done", as_flag, False)
        if kind not in ("registry", "truncated", "not_sent", "tls_failed")
        else False,
        cut=fields.maybe("cut", as_count) if kind in ("status", "lost") else None,
        reused=fields.take("reused", as_flag, False) if kind == "lost" else False,
    )
    fields.end()
    if answer.done and answer.cut is not None:
        raise Invalid(f"{where}: what was cut can't be done")
    return answer


def _padding(raw: object, where: str) -> int:
    size = as_count(raw, where)
    if size > PAD_MAX:
        raise Invalid(f"{where}: at most {PAD_MAX}")
    return size


def _body(fields: Fields) -> bytes:
    """`errors` in the spec's form (`"CODE"`, or whole entries), any `json`, or plain `text`."""
    given = [key for key in ("errors", "json", "text") if key in fields]
    if len(given) > 1:
        raise Invalid(f"{fields.where} has more than one body")
    if "errors" in fields:
        errors = fields.take("errors", list_of(_error))
        return json.dumps({"errors": errors}).encode()
    if "json" in fields:
        return json.dumps(fields.take("json", lambda raw, _: raw)).encode()
    return fields.take("text", as_text, "").encode()


def _error(raw: object, where: str) -> dict[str, Any]:
    if isinstance(raw, str):
        return {"code": raw, "message": ""}
    fields = Fields(raw, where)
    entry: dict[str, Any] = {"code": fields.take("code", as_text), "message": fields.take("message", as_text, "")}
    if "detail" in fields:
        entry["detail"] = fields.take("detail", lambda value, _: value)
    fields.end()
    return entry
