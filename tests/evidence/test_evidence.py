"""A host that is no registry: whatever it answers to everything, nothing is said to be there that is not."""

from __future__ import annotations

from typing import Final

import attrs
import pytest

from core import PATCHES, PLAIN, Play, say
from pushes import REPO, blob, blobs_push, described, image, index, stream, stream_push
from regproto import (
    Config,
    Digest,
    ListReferrers,
    PushOutcome,
    PushPlan,
    RegistryError,
    RemoteProtocolError,
    ResolveReference,
    Response,
)
from regproto._http.evidence import holds_blob, is_evidence
from regproto.testing import Auth, FakeRegistry, RegistryOptions, Reply
from regproto.testing.registry.http import Request

OTHER: Final = "sha256:" + "0" * 64
PAGE: Final = b"<!doctype html><title>Sign in</title>"
HTML: Final = ("Content-Type", "text/html; charset=utf-8")
BARE: Final = {"api_version": False, "docker_content_digest": False, "referrers_api": False, "tag_params": False}
"""An honest registry that sends none of the headers by which registries are known."""


def page(status: int, *headers: tuple[str, str], body: bytes = PAGE) -> Reply:
    return Reply(status, (*headers, ("Content-Length", str(len(body)))), body)


LIARS: Final = {
    "200 html": page(200, HTML),
    "200 json": page(200, ("Content-Type", "application/json"), body=b'{"status": "ok"}'),
    "200 empty": page(200, body=b""),
    "204": Reply(204),
    "302 to a page": page(302, HTML, ("Location", "/login")),
    "201": page(201, body=b""),
    "201 html": page(201, HTML),
    "201 with another digest": page(201, ("Docker-Content-Digest", OTHER), body=b""),
    "201 with another place": page(201, ("Location", f"/v2/{REPO}/blobs/{OTHER}"), body=b""),
    "202": page(202, body=b""),
    "404 html": page(404, HTML),
}


MIXED: Final = {
    "201 and 404": (page(404, HTML), page(201, body=b"")),
    "201 and 200 html": (page(200, HTML), page(201, body=b"")),
    "201 and 302 to a page": (page(302, HTML, ("Location", "/login")), page(201, body=b"")),
    "200 and 403": (page(403, HTML), page(200, HTML)),
    "204 and 404": (page(404, body=b""), Reply(204)),
}
"""What is answered to writing and to reading."""


class Liar(FakeRegistry):
    """It answers everything alike, or everything that is read; a page that it sends to is there."""

    def __init__(self, reply: Reply, written: Reply | None = None) -> None:
        super().__init__(RegistryOptions())
        self.reply, self.written = reply, written or reply

    def handle(self, request: Request, now: float = 0.0, fault: object = None) -> Reply:
        reply = self.reply if request.method in ("GET", "HEAD") else self.written
        if request.target == "/login":
            reply = page(200, HTML)
        return attrs.evolve(reply, body=b"") if request.method == "HEAD" else reply


ONE: Final = image(b"a layer")
SUBJECT: Final = image(b"the subject")
ATTACHED: Final = image(b"a layer", subject=described(SUBJECT.manifest))

PUSHES: Final = {
    "blob": blobs_push(blob(b"0123456789")),
    "blob, mounted": blobs_push(blob(b"0123456789", "team/base")),
    "image": ONE.push("1.0"),
    "image by digest": ONE.push(),
    "index": index(ONE, image(b"another")).push("1.0"),
    "manifest alone": ONE.bare("1.0"),
    "manifest by digest": ONE.bare(),
    "three tags": ONE.bare("1", "2", "3"),
    "attachment": ATTACHED.bare(),
    "stream": stream_push(stream(b"0123456789")),
    "what a tag is on": PushPlan(repository=REPO, lookups=[ResolveReference(reference="1.0")], reads_only=True),
    "a manifest": PushPlan(repository=REPO, lookups=[ResolveReference(reference=ONE.digest)], reads_only=True),
    "what is attached": PushPlan(repository=REPO, lookups=[ListReferrers(subject=ONE.digest)], reads_only=True),
}
CONFIGS: Final = {"": Config(), "PUT": PLAIN, "PATCH": PATCHES, "unlooked": Config(check_existing=False)}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("push", PUSHES)
@pytest.mark.parametrize("liar", LIARS)
def test_no_success_where_there_is_no_registry(liar: str, push: str, config: str) -> None:
    play = Play(config=CONFIGS[config], registry=Liar(LIARS[liar]))
    result = play.run(PUSHES[push])
    assert result.outcome is PushOutcome.FAILED
    assert not result.uploaded and not result.existing and not result.mounted and not result.found
    assert len(play.sends) <= 25
    said = str(result.error)
    assert "this does not look like a registry" in said and "check the host" in said
    assert isinstance(result.error, RegistryError if liar == "404 html" else RemoteProtocolError)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("push", PUSHES)
@pytest.mark.parametrize("liar", MIXED)
def test_no_success_where_writing_and_reading_differ(liar: str, push: str, config: str) -> None:
    play = Play(config=CONFIGS[config], registry=Liar(*MIXED[liar]))
    result = play.run(PUSHES[push])
    assert result.outcome is PushOutcome.FAILED
    assert "this does not look like a registry" in str(result.error)
    assert len(play.sends) <= 45 and play.now < 60


def test_a_kept_upload_is_not_gone_on_with_where_there_is_no_registry() -> None:
    whole = blobs_push(blob(bytes(1_000)))
    play = Play(config=PATCHES, save=True)
    play.submit(whole)
    play.until("PATCH")
    for liar, reply in LIARS.items():
        later = Play(config=PATCHES, registry=Liar(reply), hint=play.saves[-1], save=True)
        result = later.run(whole)
        assert result.outcome is PushOutcome.FAILED, liar
        assert "this does not look like a registry" in str(result.error), liar
        assert len(later.sends) <= 40, liar


def test_a_kept_upload_is_gone_on_with_at_a_bare_registry() -> None:
    whole = blobs_push(blob(bytes(1_000)))
    play = Play(config=PATCHES, save=True, **BARE)
    play.submit(whole)
    play.until("PATCH")
    later = Play(config=PATCHES, registry=play.registry, hint=play.saves[-1], save=True)
    assert later.run(whole).uploaded == (whole.blobs[0].descriptor.digest,)
    # Its 202 was the earlier process's: nothing has shown a registry to this one.
    assert later.names == ["HEAD blob", "GET session", "PATCH", "PUT commit", "HEAD blob"]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("push", PUSHES)
@pytest.mark.parametrize("auth", [Auth.NONE, Auth.BASIC])
def test_a_bare_registry_is_believed(push: str, config: str, auth: Auth) -> None:
    """It is asked for what it says it has taken."""
    options = {**BARE, "auth": auth, "users": {"me": "pw"}, "sparse_indexes": True}
    play = Play(config=CONFIGS[config], keychain={"username": "me", "password": "pw"}, **options)
    for content in (b"{}", b"a layer", b"another"):
        if push not in ("image", "index", "blob"):
            play.registry.put_blob(REPO, content)
    for whole in (SUBJECT, ONE):
        if whole is SUBJECT or PUSHES[push].lookups:
            play.registry.put_manifest(REPO, whole.manifest.content, "1.0" if whole is ONE else "")
    play.registry.put_blob("team/base", b"0123456789")
    result = play.run(PUSHES[push])
    assert result.outcome is PushOutcome.PUSHED, result.error
    plan, blobs = PUSHES[push], play.registry.blobs(REPO)
    assert {b.descriptor.digest for b in plan.blobs} <= blobs
    assert {m.descriptor.digest for m in plan.manifests} <= play.registry.manifests(REPO)
    assert dict.fromkeys(plan.tags, result.digest).items() <= play.registry.tags(REPO).items()
    assert len(result.found) == len(plan.lookups)


# --- what shows a registry --------------------------------------------------------------------------------------

UPLOADS: Final = f"https://registry.example/v2/{REPO}/blobs/uploads/"
DIGEST: Final = Digest.of(b"0123456789")
POST: Final = f"{UPLOADS}?digest={DIGEST}"
BLOB: Final = f"https://registry.example/v2/{REPO}/blobs/{DIGEST}"
TAG: Final = f"https://registry.example/v2/{REPO}/manifests/1.0"


def answer(status: int, body: bytes = b"", **headers: str) -> Response:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Response(id=1, status=status, headers=named, body=body)


EVIDENCE: Final = [
    ("GET", TAG, answer(500, Docker_Distribution_Api_Version="registry/2.0")),
    ("PUT", TAG, answer(201, oci_subject=OTHER)),
    ("HEAD", BLOB, answer(200, Docker_Content_Digest=DIGEST)),
    ("HEAD", TAG, answer(200, Docker_Content_Digest=OTHER)),
    ("POST", POST, answer(201, Docker_Content_Digest=DIGEST)),
    ("POST", POST, answer(202, Location="/up/1")),
    ("POST", UPLOADS, answer(202, Location="/up/1")),
    ("HEAD", BLOB, answer(401, WWW_Authenticate='Bearer realm="https://auth.example/"')),
    ("GET", TAG, answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')),
]
NONE: Final = [
    ("POST", UPLOADS, answer(201, Location="/up/1")),
    ("POST", UPLOADS, answer(202)),
    ("PATCH", f"{UPLOADS}1", answer(202, Location="/up/1")),
    ("POST", UPLOADS, answer(201, Docker_Content_Digest=OTHER)),
    ("POST", POST, answer(201, Docker_Content_Digest=OTHER)),
    ("HEAD", BLOB, answer(200, Docker_Content_Digest=OTHER)),
    ("HEAD", BLOB, answer(200, Docker_Content_Digest="")),
    ("HEAD", BLOB, answer(200, Docker_Content_Digest="registry")),
    ("HEAD", TAG, answer(201, Docker_Content_Digest=OTHER)),
    ("HEAD", BLOB, answer(401, WWW_Authenticate='Basic realm="the wireless"')),
    ("GET", TAG, answer(200, b'{"errors":[{"code":"NOT_FOUND"}]}')),
    ("GET", TAG, answer(404, b'{"errors":[{"code":"not found"}]}')),
    ("GET", TAG, answer(404, b'{"errors":[{"message":"not found"}]}')),
    ("GET", TAG, answer(404, b'{"error":"not found"}')),
    ("GET", TAG, answer(404, b"<html>")),
]


@pytest.mark.parametrize(("method", "url", "response"), EVIDENCE)
def test_evidence(method: str, url: str, response: Response) -> None:
    assert is_evidence(method, url, response)


@pytest.mark.parametrize(("method", "url", "response"), NONE)
def test_no_evidence(method: str, url: str, response: Response) -> None:
    assert not is_evidence(method, url, response)


def test_the_first_byte_of_a_blob() -> None:
    def held(status: int, size: int = 10, body: bytes = b"", **headers: str) -> bool:
        return holds_blob(answer(status, body, **headers), DIGEST, size)

    assert held(206, Content_Range="bytes 0-0/10") and held(200, body=b"0123456789")
    assert held(200, Content_Length="10") and held(200, Docker_Content_Digest=DIGEST)
    assert not held(206, Content_Range="bytes 0-0/11") and not held(206, Content_Range="bytes 0-0/*")
    assert not held(206) and not held(206, Content_Range="x") and not held(200, body=b"0123456780")
    assert not held(200, Content_Length="10", Content_Type="text/html") and not held(416, Content_Range="bytes */10")
    assert not held(204) and not held(201, Content_Length="10") and not held(302)
    nothing = Digest.of(b"")
    assert holds_blob(answer(416, Content_Range="bytes */0"), nothing, 0)
    assert holds_blob(answer(200, Content_Length="0"), nothing, 0)
    assert not holds_blob(answer(204), nothing, 0) and not holds_blob(answer(416), nothing, 0)


def test_an_error_where_nothing_shows_a_registry() -> None:
    """A refusal to a person, or trouble, says no more than it says; anything else is told to look strange."""
    for status, strange in ((403, True), (404, True), (405, True), (401, False), (503, False), (429, False)):
        play = Play(config=Config(attempts=1), registry=Liar(page(status, HTML)))
        error = play.run(PUSHES["blob"]).error
        assert ("does not look like a registry" in str(error)) is strange, status
        assert isinstance(error, RegistryError) and error.status == status


def test_an_error_of_a_registry_says_nothing_of_it() -> None:
    play = Play(config=PLAIN)
    play.on({"POST start": [say(404)]})
    assert "does not look like" not in str(play.run(PUSHES["blob"]).error)
