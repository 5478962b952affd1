"""Nothing that a peer, a file or an argument holds reaches a terminal as it is.

What makes terminals obey (and what hides or reorders text) is planted in every field of every input, and everything
that is told is searched: errors, notices and warnings of the core; all that the command prints.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import pytest

from core import BASE, Play
from pushes import REPO, blob, described, image, index, stream, stream_push
from regproto import (
    Config,
    Failed,
    FailureKind,
    ListReferrers,
    Notice,
    Push,
    PushOutcome,
    PushResult,
    PushTimeout,
    RegistryError,
    RegistryErrorDetail,
    RegprotoError,
    Resolve,
    Response,
    Send,
    Status,
    Written,
)
from regproto._content import OCI_INDEX
from regproto._errors import escaped
from regproto._referrers_list import fallback_tag
from regproto.testing import Auth
from regproto.testing._bodies import told_of

LINE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\x7f\u202e\u2066\u2028"
"""Puts text into the clipboard, clears the screen, colours (in one byte); deletes; turns text around; ends lines."""
PLANTED = f"{LINE}\r\n\x00\udc9b"
"""And what no header can carry."""


def is_clean(text: str) -> bool:
    """Whether it may be printed, line by line."""
    return all(line.isprintable() for line in text.split("\n"))


# --- errors and notices are made so -----------------------------------------------------------------------------


def every_error() -> Iterator[type[RegprotoError]]:
    waiting: list[type[RegprotoError]] = [RegprotoError]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += found.__subclasses__()


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.__name__)
def test_an_error_is_one_printable_line(kind: type[RegprotoError]) -> None:
    more: dict[str, Any] = {RegistryError: {"status": 400}, PushTimeout: {"timeout_s": 1.0}}.get(kind, {})
    error = kind(f"it says {PLANTED}", **more)
    assert str(error) == f"it says {escaped(PLANTED)}" and str(error).isprintable()
    assert repr(error).isprintable()
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(same), str(same), same.args) == (kind, str(error), error.args)


def test_an_error_made_of_an_error_is_too() -> None:
    assert str(RegprotoError(ValueError(PLANTED), 7)).isprintable()
    assert str(RegprotoError()) == ""


def test_a_registrys_own_words_are_too() -> None:
    detail = RegistryErrorDetail(PLANTED, PLANTED, PLANTED)
    assert attrs.astuple(detail) == (escaped(PLANTED),) * 3


def test_a_notice_is_too() -> None:
    notice = Notice(status=Status.WARNING, subject=PLANTED, media_type=PLANTED, text=PLANTED)
    assert (notice.subject, notice.media_type, notice.text) == (escaped(PLANTED),) * 3


def test_what_is_escaped_stays_as_it_is() -> None:
    assert escaped(escaped(PLANTED)) == escaped(PLANTED)
    assert escaped("plain, größer, 日本 😀 \\ '") == "plain, größer, 日本 😀 \\ '"


# --- the core: every answer, every field ------------------------------------------------------------------------

IMAGE = image(b"the subject")
ATTACHED = image(b"attached", subject=described(IMAGE.manifest), annotations={"a": "b"})
CONFIG = Config(small_blob_bytes=0, attempts=2)


@attrs.frozen
class Case:
    """Something that is asked of a registry."""

    push: Callable[[], Push]
    options: dict[str, Any] = attrs.field(factory=dict)
    config: Config = CONFIG

    def play(self) -> Play:
        user = {"users": {"me": "secret"}, "anonymous_tokens": False}
        keychain = {"username": "me", "password": "secret"}
        options = {"auth": Auth.BEARER, **user, "sparse_indexes": True, **self.options}
        play = Play(config=self.config, keychain=keychain, **options)
        play.registry.put_manifest(REPO, IMAGE.manifest.content, "1.0")
        play.registry.put_manifest(REPO, ATTACHED.manifest.content)
        listed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described(ATTACHED.manifest)]}
        play.registry.put_manifest(REPO, json.dumps(listed).encode(), fallback_tag(IMAGE.digest))
        play.registry.put_blob("team/base", b"layer")
        return play


def _another() -> Push:
    other = image(b"o", subject=described(IMAGE.manifest), annotations={"n": "2"})
    return other.push()


CASES = {
    "mount and upload": Case(lambda: image(blob(b"layer", "team/base"), b"second").push("2.0", "3.0")),
    "single post": Case(lambda: image(b"layer").push("2.0"), config=Config(attempts=2)),
    "patches": Case(
        lambda: image(b"layer").push("2.0"),
        config=Config(small_blob_bytes=0, resumable_above_bytes=0, chunk_bytes=3, attempts=2),
    ),
    "index": Case(lambda: index(image(b"layer")).push("2.0")),
    "stream": Case(lambda: stream_push(stream(b"stream"))),
    "attach by the API": Case(_another, {"referrers_api": True}),
    "attach by tag": Case(_another, {"referrers_api": False}),
    "tag": Case(lambda: Push(repository=REPO, lookups=(Resolve(reference="1.0", content=True),))),
    "resolve": Case(
        lambda: Push(repository=REPO, lookups=(Resolve(reference="1.0"),)), {"docker_content_digest": False}
    ),
    "list by the API": Case(
        lambda: Push(repository=REPO, lookups=(ListReferrers(subject=IMAGE.digest),)), {"referrers_api": True}
    ),
    "list by tag": Case(
        lambda: Push(repository=REPO, lookups=(ListReferrers(subject=IMAGE.digest),)), {"referrers_api": False}
    ),
}

Change = Callable[[Response], Response | Failed]
URL = f"{BASE}/v2/{PLANTED}"
HEADERS = {
    "Content-Type": [PLANTED, f"application/{PLANTED}+json"],
    "Location": [PLANTED, URL, f"https://{PLANTED}/", f"https://u:{PLANTED}@registry.example/"],
    "Docker-Content-Digest": [PLANTED, f"sha256:{PLANTED}"],
    "Docker-Distribution-Api-Version": [PLANTED],
    "Warning": [f'299 - "{PLANTED}"', f'299 {PLANTED} "careful"'],
    "Link": [f'<{URL}>; rel="next"', f'<{PLANTED}>; rel="next"'],
    "Range": [PLANTED, f"0-{PLANTED}"],
    "OCI-Tag": [PLANTED],
    "OCI-Subject": [PLANTED],
    "OCI-Filters-Applied": [PLANTED],
    "OCI-Chunk-Min-Length": [PLANTED],
    "ETag": [f'"{PLANTED}"'],
    "Retry-After": [PLANTED],
    "Date": [PLANTED],
}
CHALLENGES = [
    f'Bearer realm="{URL}",service="s"',
    f'Bearer realm="{PLANTED}"',
    f'Bearer realm="{BASE}/token",service="{PLANTED}",scope="repository:{PLANTED}:pull",error="insufficient_scope"',
    f'Basic realm="{PLANTED}"',
    PLANTED,
]


def _with(name: str, value: str, status: int | None = None) -> Change:
    def change(answer: Response) -> Response:
        headers = tuple((n, v) for n, v in answer.headers if n.lower() != name.lower())
        return attrs.evolve(answer, status=status or answer.status, headers=(*headers, (name, value)))

    return change


def _said(status: int | None, body: bytes, media_type: str = "application/json") -> Change:
    def change(answer: Response) -> Response:
        headers = (("Content-Type", media_type),) if status else answer.headers
        return attrs.evolve(answer, status=status or answer.status, headers=headers, body=body)

    return change


def _in_json(value: Any) -> Any:
    """The value, with what is planted at the end of every string in it, keys too."""
    if isinstance(value, str):
        return value + PLANTED
    if isinstance(value, list):
        return [_in_json(item) for item in value]
    return {k: _in_json(v) for k, v in value.items()} | {PLANTED: PLANTED} if isinstance(value, dict) else value


def _one_by_one(value: Any) -> Iterator[Any]:
    """The value, each time with one string in it replaced."""
    if isinstance(value, str):
        yield PLANTED
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        for changed in _one_by_one(inner):
            same = copy.copy(value)
            same[key] = changed
            yield same


def _body_changes(body: bytes) -> Iterator[bytes]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if isinstance(value, dict):
        yield json.dumps(_in_json(value), ensure_ascii=False).encode("utf-8", "surrogatepass")
        for changed in (_in_json(value), *_one_by_one(value)):
            yield json.dumps(changed).encode()
    yield PLANTED.encode("utf-8", "surrogatepass")
    yield json.dumps(PLANTED).encode()


def changes(answer: Response) -> Iterator[Change]:
    """What may be done to an answer."""
    for name, values in HEADERS.items():
        for value in values:
            yield _with(name, value)
    for status in (301, 307, 202):
        yield _with("Location", URL, status)
    yield _with("Range", f"0-{PLANTED}", 416)
    for challenge in CHALLENGES:
        yield _with("WWW-Authenticate", challenge, 401)
    error = {"code": PLANTED, "message": PLANTED, "detail": {PLANTED: [PLANTED]}}
    unknown = {"code": "MANIFEST_BLOB_UNKNOWN", "message": PLANTED, "detail": {"digest": PLANTED}}
    for status in (400, 403, 404, 500):
        yield _said(status, json.dumps({"errors": [error, unknown]}).encode())
        yield _said(status, f"<html>{PLANTED}</html>".encode("utf-8", "surrogatepass"), "text/html")
    yield _said(200, f"<html>{PLANTED}</html>".encode("utf-8", "surrogatepass"), "text/html")
    for body in _body_changes(answer.body):
        yield _said(None, body)
    for kind in (FailureKind.CLOSED, FailureKind.PROTOCOL, FailureKind.TLS, FailureKind.CONNECT):
        yield lambda answer, kind=kind: Failed(id=answer.id, kind=kind, written=Written.ALL, detail=PLANTED)


class Planting(Play):
    """Changes the answer to one request."""

    at = -1
    change: Change | None = None
    answered: list[Response]

    def _registry_answers(self, send: Send, answer: Any) -> Response | Failed:
        event = super()._registry_answers(send, answer)
        assert isinstance(event, Response)
        self.answered.append(event)
        if len(self.answered) - 1 != self.at or self.change is None:
            return event
        changed = self.change(event)
        return attrs.evolve(changed, stream=told_of(send)) if isinstance(changed, Failed) else changed


def _played(case: Case, at: int = -1, change: Change | None = None) -> tuple[Planting, PushResult]:
    play = case.play()
    play.__class__ = Planting
    assert isinstance(play, Planting)
    play.at, play.change, play.answered = at, change, []
    return play, play.run(case.push())


def _texts(play: Play, result: PushResult) -> Iterable[str]:
    for notice in play.notices:
        yield from (notice.subject, notice.text, notice.media_type, repr(notice))
    yield repr(result)
    yield from result.warnings
    if (error := result.error) is not None:
        yield from (str(error), repr(error))
        if isinstance(error, RegistryError):
            yield from (text for entry in error.errors for text in attrs.astuple(entry))
    yield from (repr(send) for send in play.sends)
    yield from (repr(answer) for answer in play.answered) if isinstance(play, Planting) else ()
    yield repr(play.session)


@pytest.mark.parametrize("name", CASES)
def test_no_answer_plants_anything_in_what_the_core_tells(name: str) -> None:
    case = CASES[name]
    honest, result = _played(case)
    assert result.outcome is PushOutcome.PUSHED, result
    told = 0
    for at, answer in enumerate(honest.answered):
        for change in changes(answer):
            play, result = _played(case, at, change)
            texts = list(_texts(play, result))
            assert all(text.isprintable() for text in texts), (at, [t for t in texts if not t.isprintable()])
            told += any(escaped(PLANTED)[:10] in text for text in texts)
    assert told, "nothing that was planted was told at all"
