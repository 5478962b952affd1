"""Questions: what a reference is on, and what is attached to a manifest."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from core import LOST, PASS, Play, Say, always, header, refuse, say
from pushes import REPO, described, image
from regproto import (
    ContentError,
    Descriptor,
    Digest,
    InvalidReferenceError,
    ListReferrers,
    PushOutcome,
    PushPlan,
    Referrers,
    RegistryError,
    RemoteProtocolError,
    ResolveReference,
)
from regproto._http.referrers_list import fallback_tag, next_link
from regproto._machines.query import PAGES_MAX
from regproto._model.manifest import OCI_INDEX, OCI_MANIFEST
from regproto.testing import Auth

IMAGE = image(b"layer")
TAG = fallback_tag(IMAGE.digest)
SBOMS = [image(b"x", subject=described(IMAGE.manifest), artifactType=f"application/{n % 2}") for n in range(1)]
SBOMS += [
    image(b"x", config=b"{ }" * n, subject=described(IMAGE.manifest), artifactType=f"application/{n % 2}")
    for n in range(1, 5)
]


def asked(*lookups: ResolveReference | ListReferrers, **more: Any) -> PushPlan:
    """A push of questions alone."""
    return PushPlan(repository=REPO, lookups=lookups, **more)


def play(script: Any = None, *, tagged: bool = False, **options: Any) -> Play:
    """A registry with an image and what is attached to it."""
    made = Play(script, **options)
    made.registry.put_manifest(REPO, IMAGE.manifest.content, "1.0")
    for sbom in SBOMS:
        made.registry.put_manifest(REPO, sbom.manifest.content)
    if tagged:
        entries = [{**described(s.manifest), "artifactType": s.manifest.info.artifact_type} for s in SBOMS]
        raw = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        made.registry.put_manifest(REPO, json.dumps(raw).encode(), TAG)
    return made


# --- references -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["1.0", str(IMAGE.digest)])
def test_a_head_says_what_a_reference_is_on(reference: str) -> None:
    made = play()
    result = made.run(asked(ResolveReference(reference=reference)))
    assert result.outcome is PushOutcome.PUSHED and result.found == (IMAGE.manifest.descriptor,)
    assert [send.method for send in made.sends] == ["HEAD"]


def test_without_a_digest_in_the_head_the_manifest_is_read() -> None:
    made = play(docker_content_digest=False)
    result = made.run(asked(ResolveReference(reference="1.0")))
    assert result.found == (IMAGE.manifest.descriptor,)
    assert [send.method for send in made.sends] == ["HEAD", "GET"]
    assert "*/*" in (header(made.sends[0], "accept") or "")


@pytest.mark.parametrize(
    "answer",
    [
        say(405),
        say(200, Docker_Content_Digest="nonsense", Content_Type=OCI_MANIFEST, Content_Length="7"),
        say(200, Docker_Content_Digest=IMAGE.digest, Content_Type=OCI_MANIFEST),
        say(200, Docker_Content_Digest=IMAGE.digest, Content_Length="7"),
        say(200, Docker_Content_Digest=IMAGE.digest, Content_Type=OCI_MANIFEST, Content_Length="-7"),
    ],
)
def test_a_head_that_says_too_little(answer: Say) -> None:
    made = play({"HEAD tag": [answer]})
    assert made.run(asked(ResolveReference(reference="1.0"))).found == (IMAGE.manifest.descriptor,)


@pytest.mark.parametrize("reference", ["1.0", str(IMAGE.digest)])
def test_a_manifest_is_read_where_it_is_asked_for(reference: str) -> None:
    made = play()
    (found,) = made.run(asked(ResolveReference(reference=reference, content=True))).found
    assert isinstance(found, Descriptor)
    assert found == attrs.evolve(IMAGE.manifest.descriptor, data=IMAGE.manifest.content)
    assert [send.method for send in made.sends] == ["GET"]


@pytest.mark.parametrize("reference", ["2.0", "sha256:" + "0" * 64])
def test_nothing_there(reference: str) -> None:
    result = play().run(asked(ResolveReference(reference=reference)))
    assert isinstance(result.error, RegistryError) and "nothing of this name" in str(result.error)
    assert result.found == ()


def test_faults_are_met_by_asking_again() -> None:
    made = play({"HEAD tag": [LOST, say(503), PASS]})
    assert made.run(asked(ResolveReference(reference="1.0"))).found == (IMAGE.manifest.descriptor,)
    assert isinstance(
        play({"HEAD tag": always(say(503))}).run(asked(ResolveReference(reference="1.0"))).error, RegistryError
    )


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", say(200, Docker_Content_Digest="sha256:" + "0" * 64)),
        ("GET", say(200, b"{}")),
        ("GET", Say(200, (), b"{}", truncated=True)),
        ("GET", say(200, IMAGE.manifest.content + b" ", Content_Type=OCI_MANIFEST)),
    ],
)
def test_what_is_not_what_was_asked_for(method: str, answer: Say) -> None:
    made = play({"HEAD manifest": [say(405)], f"{method} manifest": [answer]})
    result = made.run(asked(ResolveReference(reference=str(IMAGE.digest))))
    assert isinstance(result.error, RemoteProtocolError)


@pytest.mark.parametrize("body", [b"no JSON", b'{"schemaVersion":2,"mediaType":"a/b"}'])
def test_a_tag_on_something_unknown(body: bytes) -> None:
    made = play({"HEAD tag": [say(405)], "GET tag": [say(200, body, Content_Type="text/plain")]})
    assert isinstance(made.run(asked(ResolveReference(reference="1.0"))).error, RemoteProtocolError)


@pytest.mark.parametrize("reference", ["", "a b", "sha256:x", "../x"])
def test_malformed_references_are_refused_at_once(reference: str) -> None:
    with pytest.raises(InvalidReferenceError):
        asked(ResolveReference(reference=reference))


@pytest.mark.parametrize("artifact_type", ["\udcff/x", "a b/c", "x"])
def test_an_artifact_type_that_is_none(artifact_type: str) -> None:
    with pytest.raises(ContentError, match="not a media type"):
        asked(ListReferrers(subject=IMAGE.digest, artifact_type=artifact_type))


# --- referrers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [0, 1, 2])
def test_all_pages_of_the_api(pages: int) -> None:
    made = play(referrers_page=pages)
    (found,) = made.run(asked(ListReferrers(subject=IMAGE.digest))).found
    assert isinstance(found, Referrers) and found.tag == ""
    assert [d.digest for d in found.entries] == sorted(s.digest for s in SBOMS)
    assert len(made.sends) == (1 if not pages else -(-5 // pages))


@pytest.mark.parametrize("filters", [True, False])
@pytest.mark.parametrize("tagged", [True, False])
def test_by_type_whoever_filters(filters: bool, tagged: bool) -> None:
    made = play(referrers_filter=filters, referrers_api=not tagged, tagged=tagged)
    (found,) = made.run(asked(ListReferrers(subject=IMAGE.digest, artifact_type="application/1"))).found
    assert isinstance(found, Referrers) and found.tag == (TAG if tagged else "")
    assert {d.digest for d in found.entries} == {s.digest for n, s in enumerate(SBOMS) if n % 2}
    assert made.sends[0].url.endswith("?artifactType=application/1")


def test_nothing_attached() -> None:
    for api in (True, False):
        made = Play(referrers_api=api)
        (found,) = made.run(asked(ListReferrers(subject=IMAGE.digest))).found
        assert isinstance(found, Referrers) and found.entries == ()


def test_the_api_is_asked_for_once_per_registry() -> None:
    made = play(referrers_api=False, tagged=True)
    made.run(asked(ListReferrers(subject=IMAGE.digest)))
    made.run(asked(ListReferrers(subject=IMAGE.digest)))
    assert made.names == ["GET referrers", "GET tag", "GET tag"]


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "NAME_INVALID"])
def test_a_missing_repository_says_nothing_about_the_api(code: str) -> None:
    made = play({"GET referrers": [refuse(404, code)]})
    lookup = ListReferrers(subject=IMAGE.digest)
    (none,) = made.run(asked(lookup)).found
    assert isinstance(none, Referrers) and none.entries == ()
    (found,) = made.run(asked(lookup)).found
    assert isinstance(found, Referrers) and len(found.entries) == len(SBOMS) and not found.tag


def test_a_tag_on_something_else_is_no_list() -> None:
    made = play(referrers_api=False)
    made.registry.put_manifest(REPO, IMAGE.manifest.content, TAG)
    result = made.run(asked(ListReferrers(subject=IMAGE.digest)))
    assert isinstance(result.error, RemoteProtocolError) and "not a referrers list" in str(result.error)


@pytest.mark.parametrize("name", ["GET referrers", "GET tag"])
def test_refused(name: str) -> None:
    made = play({name: [say(403)]}, referrers_api=name != "GET tag")
    assert isinstance(made.run(asked(ListReferrers(subject=IMAGE.digest))).error, RegistryError)


def test_a_page_that_is_none_and_pages_without_end() -> None:
    made = play({"GET referrers": [say(200, b"{}", Content_Type=OCI_INDEX)]})
    assert isinstance(made.run(asked(ListReferrers(subject=IMAGE.digest))).error, RemoteProtocolError)
    page = say(200, b'{"schemaVersion":2,"manifests":[]}', Content_Type=OCI_INDEX, Link='<?last=1>; rel="next"')
    made = play({"GET referrers": always(page)})
    result = made.run(asked(ListReferrers(subject=IMAGE.digest)))
    assert isinstance(result.error, RemoteProtocolError) and len(made.sends) == PAGES_MAX


def test_entries_of_others_that_are_malformed_hide_nothing() -> None:
    good = {**described(SBOMS[0].manifest), "artifactType": "a/b"}
    raw = {"schemaVersion": 2, "manifests": [{"digest": "md5:1"}, good]}
    made = play({"GET referrers": [say(200, json.dumps(raw).encode(), Content_Type=OCI_INDEX)]})
    (found,) = made.run(asked(ListReferrers(subject=IMAGE.digest))).found
    assert isinstance(found, Referrers) and [d.digest for d in found.entries] == [SBOMS[0].digest]


@pytest.mark.parametrize(
    ("values", "url"),
    [
        (['</v2/x?last=a>; rel="next"'], "/v2/x?last=a"),
        (["<a>; rel=prev, <b>; title=x; rel=next"], "b"),
        (['<a>; rel="prev"', '<b>; REL="first next"'], "b"),
        (['<a>; rel="nextish"'], ""),
        (["a; rel=next"], ""),
        (["<a>"], ""),
        ([], ""),
        (["<" + "a" * 9000 + ">; rel=next"], ""),
    ],
)
def test_links(values: list[str], url: str) -> None:
    assert next_link(tuple(("Link", value) for value in values)) == url


# --- who is asked -----------------------------------------------------------------------------------------------


def scopes(made: Play) -> list[str]:
    """What tokens were asked for."""
    return [send.url.partition("scope=")[2] for send in made.sent("GET token")]


def test_questions_alone_ask_for_no_right_to_push() -> None:
    made = play(auth=Auth.BEARER)
    made.run(asked(ResolveReference(reference="1.0"), reads_only=True))
    assert scopes(made) == [f"repository:{REPO}:pull"]
    made.run(SBOMS[0].push())
    assert scopes(made) == [f"repository:{REPO}:pull", f"repository:{REPO}:pull,push"]
    made.run(asked(ResolveReference(reference="1.0"), reads_only=True))
    assert len(scopes(made)) == 2


def test_one_token_where_a_push_follows() -> None:
    made = play(auth=Auth.BEARER)
    made.run(asked(ResolveReference(reference="1.0")))
    made.run(SBOMS[0].push())
    assert scopes(made) == [f"repository:{REPO}:pull,push"]


def test_basic_credentials_cover_both() -> None:
    made = play(auth=Auth.BASIC, users={"me": "secret"}, keychain={"username": "me", "password": "secret"})
    made.run(asked(ResolveReference(reference="1.0"), reads_only=True))
    assert made.run(SBOMS[0].push()).outcome is PushOutcome.PUSHED


def test_several_questions_are_answered_in_their_order() -> None:
    made = play()
    first, second = ResolveReference(reference=str(SBOMS[0].digest)), ResolveReference(reference="1.0")
    result = made.run(asked(first, ListReferrers(subject=IMAGE.digest), second))
    assert [type(f).__name__ for f in result.found] == ["Descriptor", "Referrers", "Descriptor"]
    assert result.found[2] == IMAGE.manifest.descriptor


def test_one_that_fails_ends_them_all() -> None:
    made = play()
    result = made.run(asked(ResolveReference(reference="none"), ListReferrers(subject=Digest.of(b"x"))))
    assert result.outcome is PushOutcome.FAILED


def test_cancelled() -> None:
    made = play()
    made.submit(asked(ListReferrers(subject=IMAGE.digest)))
    made.until("GET referrers")
    made.session.cancel(1)
    while not made.step():
        pass
    assert made.results[1].outcome is PushOutcome.CANCELLED
