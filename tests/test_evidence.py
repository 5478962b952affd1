"""A host that is no registry: whatever it answers to everything, nothing is said to be there that is not."""

from __future__ import annotations

from typing import Final

import attrs
import pytest

from core import PATCHES, PLAIN, Play
from pushes import REPO, blob, blobs_push, described, image, index, stream, stream_push
from regproto import (
    Config,
    ListReferrers,
    Push,
    PushOutcome,
    RegistryError,
    RemoteProtocolError,
    Resolve,
)
from regproto.testing import Auth, FakeRegistry, RegistryOptions, Reply
from regproto.testing._registry_wire import Request

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


class Liar(FakeRegistry):
    """It answers everything alike; a page that it sends to is there."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(RegistryOptions())
        self.reply = reply

    def handle(self, request: Request, now: float = 0.0, fault: object = None) -> Reply:
        reply = page(200, HTML) if request.target == "/login" else self.reply
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
    "what a tag is on": Push(repository=REPO, lookups=[Resolve(reference="1.0")], reads_only=True),
    "a manifest": Push(repository=REPO, lookups=[Resolve(reference=ONE.digest)], reads_only=True),
    "what is attached": Push(repository=REPO, lookups=[ListReferrers(subject=ONE.digest)], reads_only=True),
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
