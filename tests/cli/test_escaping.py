"""Nothing that a peer, a file or an argument holds reaches a terminal as it is.

What makes terminals obey (and what hides or reorders text) is planted in every field of every input, and everything
that is told is searched: errors, notices and warnings of the core; all that the command prints.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from rich.console import Console

import regproto_sync
from archives import DockerSave, hard_link, layout_tar, link, plain_layer, special, tar_bytes
from core import BASE, Play
from images import image_layout
from pushes import REPO, blob, described, image, index, stream, stream_push
from regproto import (
    Config,
    Digest,
    Failed,
    FailureKind,
    ListReferrers,
    Notice,
    PushOutcome,
    PushPlan,
    PushResult,
    PushTimeoutError,
    RegistryError,
    RegistryErrorDetail,
    RegprotoError,
    ResolveReference,
    Response,
    Status,
    Written,
)
from regproto._http.referrers_list import fallback_tag
from regproto._model.errors import escaped
from regproto._model.manifest import OCI_INDEX
from regproto.testing import Auth, FakeRegistry, RegistryOptions, Reply, RequestHead
from regproto.testing.simulation import InFlight, stream_status_of
from regproto_sync import Server
from regproto_sync.cli import output as _output
from regproto_sync.cli.live import LiveView
from regproto_sync.cli.main import main

LINE = "\x1b[2J\x9b31m\x7f\u202e\u2066\u2028\x1b]52;c;ZXZpbA==\x07"
"""Clears the screen, colours (in one byte), deletes, turns text around, ends lines, puts text into the clipboard."""
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
    more: dict[str, Any] = {RegistryError: {"status": 400}, PushTimeoutError: {"timeout_s": 1.0}}.get(kind, {})
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

    push: Callable[[], PushPlan]
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


def _another() -> PushPlan:
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
    "tag": Case(lambda: PushPlan(repository=REPO, lookups=(ResolveReference(reference="1.0", content=True),))),
    "resolve": Case(
        lambda: PushPlan(repository=REPO, lookups=(ResolveReference(reference="1.0"),)),
        {"docker_content_digest": False},
    ),
    "list by the API": Case(
        lambda: PushPlan(repository=REPO, lookups=(ListReferrers(subject=IMAGE.digest),)), {"referrers_api": True}
    ),
    "list by tag": Case(
        lambda: PushPlan(repository=REPO, lookups=(ListReferrers(subject=IMAGE.digest),)), {"referrers_api": False}
    ),
}

Change = Callable[[Response], Response | Failed]
URL = f"{BASE}/v2/{PLANTED}"
HEADERS = {
    "Content-Type": [PLANTED, f"application/json{PLANTED}", f"application/{PLANTED}+json"],
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
    for status in (403, 404):
        yield _said(status, json.dumps({"errors": [error, unknown]}).encode())
        yield _said(status, f"<html>{PLANTED}</html>".encode("utf-8", "surrogatepass"), "text/html")
    yield _said(200, f"<html>{PLANTED}</html>".encode("utf-8", "surrogatepass"), "text/html")
    for body in _body_changes(answer.body):
        yield _said(None, body)
    for kind in (FailureKind.PROTOCOL, FailureKind.CONNECT):
        yield lambda answer, kind=kind: Failed(id=answer.id, kind=kind, written=Written.ALL, detail=PLANTED)


class Planting(Play):
    """Changes the answer to one request."""

    at = -1
    change: Change | None = None
    answered: list[Response]

    def finish(self, flight: InFlight) -> Response | Failed | None:
        send, event = flight.send, super().finish(flight)
        assert isinstance(event, Response)
        self.answered.append(event)
        if len(self.answered) - 1 != self.at or self.change is None:
            return event
        changed = self.change(event)
        return attrs.evolve(changed, stream=stream_status_of(send)) if isinstance(changed, Failed) else changed


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


# --- what the command prints ------------------------------------------------------------------------------------

NAMED = PLANTED.replace("\x00", "").replace("/", "")
"""In a file's name."""
IN_HEADER = LINE.encode().decode("latin-1").strip()
"""In a header, as it comes from the wire."""


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the command in this process; all that it printed, which must be clean."""

    def told(*arguments: str | os.PathLike[str], stdin: str = "") -> str:
        capfd.readouterr()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8", "surrogatepass"))))
        try:
            main([os.fspath(argument) for argument in arguments])
        except SystemExit as end:
            assert end.code in (0, 2)
        out, err = capfd.readouterr()
        assert is_clean(out) and is_clean(err), [line for line in (out + err).splitlines() if not line.isprintable()]
        return out + err

    return told


class Hostile:
    """A registry whose every answer is changed."""

    def __init__(self, fake: FakeRegistry, change: Callable[[RequestHead, Reply], Reply]) -> None:
        self.fake, self.change, self.storage = fake, change, fake.storage

    def open(self, head: RequestHead, now: float) -> Any:
        exchange = self.fake.open(head, now)
        finish = exchange.finish

        def finished() -> Reply:
            return self.change(head, finish())

        exchange.finish = finished  # type: ignore[method-assign]
        return exchange


def _header_reply(name: str, value: str) -> Callable[[RequestHead, Reply], Reply]:
    def change(head: RequestHead, reply: Reply) -> Reply:
        kept = tuple((n, v) for n, v in reply.headers if n.lower() != name.lower())
        return attrs.evolve(reply, headers=(*kept, (name, value)))

    return change


def _error_reply(status: int, body: bytes, media_type: str, **headers: str) -> Callable[[RequestHead, Reply], Reply]:
    def change(head: RequestHead, reply: Reply) -> Reply:
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        shown = b"" if head.method == "HEAD" else body
        return Reply(status, (("Content-Type", media_type), ("Content-Length", str(len(shown))), *named), shown)

    return change


def _planted_body(head: RequestHead, reply: Reply) -> Reply:
    """What is read has it in every string; digests stay, so that as much as possible is taken."""
    if not isinstance(reply.body, bytes) or head.method == "HEAD" or not reply.body.startswith(b"{"):
        return reply
    value = json.loads(reply.body)
    for entry in value.get("manifests") or ():
        entry["annotations"] = {PLANTED: PLANTED}
    body = json.dumps({**value, "annotations": {PLANTED: PLANTED}}).encode()
    kept = tuple((n, v) for n, v in reply.headers if n.lower() not in ("content-length", "docker-content-digest"))
    return attrs.evolve(reply, headers=(*kept, ("Content-Length", str(len(body)))), body=body)


WORDS = {"code": PLANTED, "message": PLANTED, "detail": PLANTED}
ERRORS = json.dumps({"errors": [WORDS, {**WORDS, "code": "UNKNOWN"}]}).encode()
HTML = f"<html>{LINE}\r\n</html>".encode()
REPLIES: dict[str, Callable[[RequestHead, Reply], Reply]] = {
    "nothing": lambda head, reply: reply,
    "content type": _header_reply("Content-Type", IN_HEADER),
    "content type of a manifest": _header_reply("Content-Type", f"application/json{IN_HEADER}"),
    "location": _header_reply("Location", f"/v2/{IN_HEADER}"),
    "digest": _header_reply("Docker-Content-Digest", f"sha256:{IN_HEADER}"),
    "warning": _header_reply("Warning", f'299 - "{IN_HEADER}"'),
    "link": _header_reply("Link", f'</v2/{IN_HEADER}>; rel="next"'),
    "range": _header_reply("Range", f"0-{IN_HEADER}"),
    "tag": _header_reply("OCI-Tag", IN_HEADER),
    "bodies": _planted_body,
    "refused": _error_reply(400, ERRORS, "application/json"),
    "forbidden": _error_reply(403, ERRORS, "application/json"),
    "html": _error_reply(200, HTML, "text/html"),
    "html 404": _error_reply(404, HTML, "text/html"),
    "redirect": _error_reply(307, b"", "text/html", Location=f"/{IN_HEADER}"),
    "realm": _error_reply(401, b"", "text/html", WWW_Authenticate=f'Bearer realm="https://{IN_HEADER}/"'),
    "scheme": _error_reply(401, ERRORS, "text/html", WWW_Authenticate=IN_HEADER),
}


@pytest.mark.parametrize("referrers_api", [True, False])
@pytest.mark.parametrize("name", REPLIES)
def test_no_answer_plants_anything_on_a_terminal(
    tmp_path: Path, told: Callable[..., str], name: str, referrers_api: bool
) -> None:
    layout = image_layout(tmp_path / "layout")
    file = tmp_path / "file"
    file.write_bytes(b"content")
    fake = FakeRegistry(RegistryOptions(referrers_api=referrers_api, sparse_indexes=True))
    for part in IMAGE.blobs:
        assert isinstance(part.source, bytes)
        fake.put_blob("a/b", part.source)
    fake.put_manifest("a/b", IMAGE.manifest.content, "1.0")
    fake.put_manifest("a/b", ATTACHED.manifest.content)
    entry = {**described(ATTACHED.manifest), "artifactType": "a/b", "annotations": {PLANTED: PLANTED}}
    listed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    fake.put_manifest("a/b", json.dumps(listed).encode(), fallback_tag(IMAGE.digest))
    (tmp_path / "manifest.json").write_bytes(IMAGE.manifest.content)
    with Server(Hostile(fake, REPLIES[name])) as server:  # type: ignore[arg-type]
        there = f"127.0.0.1:{server.port}/a/b"
        for arguments in (
            ("push", layout, f"{there}:2.0"),
            ("tag", f"{there}:1.0", "3.0"),
            ("attach", f"{there}:1.0", file, "--no-look-again"),
            ("referrers", f"{there}:1.0"),
            ("push-artifact", f"{there}:4.0", file, "--driver", "trio"),
            ("push-layer", file, there),
            ("put-manifest", tmp_path / "manifest.json", f"{there}:5.0"),
        ):
            for how in ((), ("--json",)):
                for line in told(*arguments, "--timeout", "2", *how).splitlines():
                    assert not how or not line.startswith("{") or json.loads(line)


# --- files, names and arguments ---------------------------------------------------------------------------------

NOWHERE = "127.0.0.1:1/a/b:1.0"
"""Nothing listens there; what is planted is found before anything is sent, or else it is told of that."""


@pytest.fixture
def registry() -> Iterator[str]:
    with Server(FakeRegistry(RegistryOptions())) as server:
        yield f"127.0.0.1:{server.port}/a/b"


def _layouts(tmp_path: Path) -> Iterator[Path]:
    """Layouts with something planted in one string."""
    for file in ("index.json", "oci-layout", "manifest"):
        whole = image_layout(tmp_path / "whole", name="1.0")
        path = whole / file
        if file == "manifest":
            [entry] = json.loads((whole / "index.json").read_text())["manifests"]
            path = whole / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")
        value = json.loads(path.read_text())
        for changed in (_in_json(value), *_one_by_one(value)):
            data = json.dumps(changed).encode()
            if file == "manifest":
                path.unlink()
                digest = Digest.of(data)
                path = whole / "blobs" / "sha256" / digest.hex
                named = {**entry, "digest": digest, "size": len(data)}
                (whole / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
            path.write_bytes(data)
            yield whole
        shutil.rmtree(whole)


def test_a_layout(tmp_path: Path, told: Callable[..., str], registry: str) -> None:
    shown = ""
    for layout in _layouts(tmp_path):
        for how in ((), ("--json",)):
            shown += told("push", layout, f"{registry}:1.0", *how)
        shown += told("push", f"{layout}:{NAMED}", f"{registry}:1.0")
        archive = layout_tar(layout, tmp_path / "layout.tar")
        shown += told("push", archive, f"{registry}:1.0")
    assert escaped(LINE) in shown


def _saved(tmp_path: Path) -> Iterator[Path]:
    """docker-save archives with something planted."""
    path = tmp_path / "saved.tar"
    save = DockerSave()
    save.image([plain_layer(1), plain_layer(2)], "a/b:1.0")
    save.image([plain_layer(3)], "a/b:2.0")
    for changed in (_in_json(save.entries), *_one_by_one(save.entries)):
        yield attrs.evolve(save, entries=changed).write(path)
    one = DockerSave()
    one.image([plain_layer(1)], "a/b:1.0")
    [entry] = one.entries
    config, [layer] = entry["Config"], entry["Layers"]
    for value in _one_by_one(json.loads(one.members[config])):
        yield attrs.evolve(one, members={**one.members, config: json.dumps(value).encode()}).write(path)
    name = f"{LINE}\r\n"
    for old in (config, layer):
        renamed = json.loads(json.dumps(one.entries).replace(old, "NEW").replace("NEW", json.dumps(name)[1:-1]))
        members = {(name if key == old else key): value for key, value in one.members.items()}
        yield attrs.evolve(one, entries=renamed, members=members).write(path)
        yield attrs.evolve(one, entries=renamed, members={**members, name: b"not what it was"}).write(path)
        without = {key: value for key, value in members.items() if key != name}
        for made in (link, hard_link):
            for target in (name, f"../{name}", f"/{name}", f"{name}/../../x"):
                yield attrs.evolve(one, entries=renamed, members=without, links=[made(name, target)]).write(path)
        yield attrs.evolve(one, entries=renamed, members=without, links=[special(name, b"6")]).write(path)
        path.write_bytes(
            tar_bytes([*members.items(), (name, b"twice"), ("manifest.json", json.dumps(renamed).encode())])
        )
        yield path
    for bad in (f"../{name}", f"/{name}"):
        yield attrs.evolve(one, members={**one.members, bad: b""}).write(path)
    data = one.write(path).read_bytes()
    path.write_bytes(data.replace(b"0000644\0", b"\x1b[2J\x07\x9b1\0"))
    yield path


def test_what_docker_save_writes(tmp_path: Path, told: Callable[..., str], registry: str) -> None:
    shown = ""
    for archive in _saved(tmp_path):
        for source in (archive, f"docker-archive:{archive}:a/b:1.0", f"{archive}:{NAMED}"):
            shown += told("push", source, f"{registry}:1.0")
    assert escaped(LINE) in shown


def test_file_names(tmp_path: Path, told: Callable[..., str], registry: str) -> None:
    folder = tmp_path / NAMED
    folder.mkdir()
    image_layout(folder / "layout")
    whole = layout_tar(folder / "layout", folder / "layout.tar")
    cut = folder / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:700])
    text = folder / NAMED
    text.write_bytes(b"text")
    unreadable = folder / "unreadable"
    unreadable.mkdir()
    (folder / "out").mkdir()
    (folder / "out" / "link").symlink_to(f"../../{NAMED}")
    shown = ""
    for source in (
        folder,
        folder / "layout",
        whole,
        cut,
        text,
        folder / "missing",
        f"oci:{text}",
        f"oci-archive:{text}",
    ):
        shown += told("push", source, f"{registry}:1.0")
        shown += told("push-artifact", f"{registry}:1.0", source)
        shown += told("push-artifact", f"{registry}:1.0", f"{source}:{NAMED}/{NAMED}")
        shown += told("push-layer", source, registry)
        shown += told("push-layer", source, registry, "--compression", "gzip")
        shown += told("push-image", f"{registry}:1.0", source, "--config", source)
        shown += told("put-manifest", source, f"{registry}:1.0")
        shown += told("attach", f"{registry}:1.0", source)
    shown += told("push-artifact", f"{registry}:1.0", text, text)
    shown += told("push-artifact", f"{registry}:1.0", folder / "out")
    assert escaped(NAMED) in shown


ARGUMENTS = [
    ("push", "SOURCE", PLANTED),
    ("push", "SOURCE", f"127.0.0.1:1/{PLANTED}"),
    ("push", "SOURCE", f"127.0.0.1:1/a:{PLANTED}"),
    ("push", "SOURCE", f"127.0.0.1:1/a@{PLANTED}"),
    ("push", "SOURCE", f"127.0.0.1:1/a@sha256:{PLANTED}"),
    ("push", "SOURCE", f"{PLANTED}.example/a"),
    ("push", "SOURCE", f"https://{PLANTED}/a"),
    ("push", "SOURCE", NOWHERE, "--tag", PLANTED),
    ("push", "SOURCE", NOWHERE, "--mount-from", PLANTED),
    ("push", "SOURCE", NOWHERE, f"--{PLANTED}"),
    ("push", "SOURCE", NOWHERE, f"--plain-http={PLANTED}"),
    ("push", "SOURCE", NOWHERE, "--jobs", PLANTED),
    ("push", "SOURCE", NOWHERE, "--timeout", PLANTED),
    ("push", "SOURCE", NOWHERE, "--driver", PLANTED),
    ("push", "SOURCE", NOWHERE, "--compression", PLANTED),
    ("push", "SOURCE", NOWHERE, "--compression", "gzip", "--level", PLANTED),
    ("push", PLANTED, NOWHERE),
    ("push", f"oci:{PLANTED}", NOWHERE),
    ("tag", NOWHERE, PLANTED),
    ("tag", PLANTED, "1"),
    ("attach", NOWHERE, "SOURCE", "--artifact-type", PLANTED),
    ("attach", NOWHERE, "SOURCE", "--media-type", PLANTED),
    ("attach", NOWHERE, "SOURCE", "--annotation", PLANTED),
    ("attach", NOWHERE, "SOURCE", "--annotation", f"{PLANTED}={PLANTED}"),
    ("referrers", NOWHERE, "--artifact-type", PLANTED),
    ("push-artifact", NOWHERE, f"{PLANTED}:{PLANTED}", "--artifact-type", PLANTED),
    ("push-layer", f"-:{PLANTED}", NOWHERE),
    ("put-manifest", PLANTED, NOWHERE),
    ("push-image", NOWHERE, PLANTED, "--config", PLANTED),
    ("serve", "--port", PLANTED),
    ("serve", "--host", PLANTED),
    ("serve", "--dir", f"/proc/{PLANTED}"),
    (PLANTED,),
    (f"--{PLANTED}",),
]


@pytest.mark.parametrize(
    "arguments",
    ARGUMENTS,
    ids=lambda arguments: (
        " ".join(arguments[:3]).encode("ascii", "replace").decode().translate(dict.fromkeys(range(32), "?"))
    ),
)
def test_arguments(tmp_path: Path, told: Callable[..., str], arguments: tuple[str, ...]) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"not an archive")
    shown = told(*(argument.replace("SOURCE", str(source)).replace("\0", "") for argument in arguments))
    assert shown


# --- credentials and what is kept -------------------------------------------------------------------------------


@pytest.fixture
def locked() -> Iterator[str]:
    """A registry that wants a user."""
    with Server(FakeRegistry(RegistryOptions(auth=Auth.BASIC, users={"me": "secret"}))) as server:
        yield f"127.0.0.1:{server.port}"


def test_docker_s_configuration(
    tmp_path: Path, told: Callable[..., str], locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = image_layout(tmp_path / "layout")
    path = tmp_path / NAMED
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
    auth = base64.b64encode(b"me:wrong").decode()
    entry = {"auth": auth, "identitytoken": "", "registrytoken": ""}
    config = {"auths": {locked: entry}, "credHelpers": {locked: "x"}, "credsStore": "x"}
    plain = {"auths": {locked: {"username": "me", "password": "wrong", "auth": ""}}}
    values = [PLANTED, [PLANTED], config, {"auths": {locked: PLANTED}}, {"credHelpers": PLANTED}]
    values += [{"credHelpers": {locked: [PLANTED]}}, {"auths": {locked: {"auth": [PLANTED]}}}]
    shown = ""
    for value in [*values, *_one_by_one(config), *_one_by_one(plain)]:
        for content in (json.dumps(value), json.dumps(value)[:-1] + PLANTED):
            path.write_bytes(content.encode("utf-8", "surrogatepass"))
            for driver in ("sync", "trio"):
                shown += told("push", layout, f"{locked}/a/b:1.0", "--driver", driver)
    assert escaped(NAMED)[:20] in shown and "characters that can't be sent" in shown
    assert "wrong" not in shown


@pytest.mark.parametrize(
    "script",
    ["cat planted; exit 1", "cat planted >&2; exit 1", "cat planted", "cat answer", "cat planted >&2; cat answer"],
)
def test_a_credential_helper(
    tmp_path: Path, told: Callable[..., str], locked: str, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    layout = image_layout(tmp_path / "layout")
    (tmp_path / "planted").write_bytes(PLANTED.encode("utf-8", "surrogatepass"))
    (tmp_path / "answer").write_text(
        json.dumps({"ServerURL": PLANTED, "Username": PLANTED, "Secret": f"s3cret{PLANTED}"})
    )
    helper = tmp_path / "docker-credential-planted"
    helper.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"credsStore": "planted"}))
    shown = told("push", layout, f"{locked}/a/b:1.0")
    assert "regproto: " in shown and "s3cret" not in shown


def test_what_is_kept() -> None:
    kept = {
        "version": 1,
        "registry": BASE,
        "single_post": None,
        "uploads": [
            {
                "repository": REPO,
                "digest": str(IMAGE.digest),
                "size": 10,
                "identity": "",
                "location": f"{BASE}/v2/{REPO}/blobs/uploads/1",
                "offset": 3,
                "chunk_min_bytes": 0,
            }
        ],
    }
    for value in (_in_json(kept), *_one_by_one(kept)):
        for data in (
            json.dumps(value).encode(),
            json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        ):
            play = Play(config=CONFIG, hint=data, save=True)
            result = play.run(image(b"layer").push("1.0"))
            assert all(text.isprintable() for text in _texts(play, result))


def test_a_state_that_cannot_be_kept(
    tmp_path: Path, told: Callable[..., str], registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NAMED).write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / NAMED))
    shown = told("push", image_layout(tmp_path / "layout"), f"{registry}:1.0", "--resume")
    assert escaped(NAMED)[:20] in shown


# --- the wall behind it -----------------------------------------------------------------------------------------


def test_the_command_prints_in_two_places_only() -> None:
    """Each escapes what it is given, whoever forgot to."""
    sources = Path(regproto_sync.__file__).parent
    texts = {
        path.name: path.read_text()
        for path in (*sources.rglob("*.py"), *(sources.parent / "regproto_trio").rglob("*.py"))
    }
    prints = re.compile(r"\bprint\(|\bstd(?:out|err)\.write|\blogging\b|warnings\.warn")
    assert {name for name, text in texts.items() if prints.search(text)} == {"output.py", "live.py"}


def test_lines_are_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    output = _output.Output(json=False, quiet=False)
    _output.say(PLANTED)
    output.show(PLANTED)
    output.emit("notice", {"text": PLANTED})
    out, err = capfd.readouterr()
    assert err == f"{escaped(PLANTED)}\n" and is_clean(out)
    first, second = out.splitlines()
    assert first == escaped(PLANTED) and json.loads(second)["text"] == PLANTED


def test_what_standard_output_can_not_show_is_escaped() -> None:
    show = "Output(json=False, quiet=False).show('gr\\u00f6\\u00dfer \\U0001f600')"
    code = f"from regproto_sync.cli.output import Output; {show}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True
    )
    assert done.stdout == b"gr\\xf6\\xdfer \\U0001f600\n" and not done.stderr


def test_the_live_view_is_escaped() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=300, height=20)
    view = LiveView(console, clock=lambda: 0.0)
    for status in Status:
        for subject in (PLANTED, "sha256:" + "a" * 64):
            notice = Notice(status=status, subject=subject, size_bytes=5)
            for field in ("subject", "text"):
                object.__setattr__(notice, field, PLANTED)
            if subject is not PLANTED:
                object.__setattr__(notice, "subject", subject)
            view.notice(notice)
    console.print(view.render())
    # Colours are rich's own, and off here; all that is left is ours.
    assert is_clean(file.getvalue()) and escaped(LINE)[:8] in file.getvalue()
