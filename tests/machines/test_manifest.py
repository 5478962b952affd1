"""The life of a manifest: looked for, put after what it names, tagged last; and put again when a registry forgot."""

from __future__ import annotations

import attrs
import pytest

from core import DONE_BUT_LOST, HANG, LOST, PASS, Play, always, content_of, done_but, header, refuse, say
from pushes import REPO, Image, blob, image, index
from regproto import (
    Config,
    Digest,
    ManifestInfo,
    PushOutcome,
    PushPlan,
    RegistryError,
    RemoteProtocolError,
    Status,
)
from regproto._model.manifest import DOCKER_MANIFEST, OCI_MANIFEST

MANIFESTS = f"https://registry.example/v2/{REPO}/manifests"
IMAGE = image(b"layer")
OTHER = Digest.of(b"something else")
TWO = index(image(b"a", b"shared", config=b"1"), image(b"b", b"shared", config=b"2"))


def there(play: Play, whole: Image) -> bool:
    """Whether everything of an image is in the registry."""
    blobs = {b.descriptor.digest for b in whole.all_blobs()}
    manifests = {m.descriptor.digest for m in whole.all_manifests()}
    return blobs <= play.registry.blobs(REPO) and manifests <= play.registry.manifests(REPO)


# --- looking ----------------------------------------------------------------------------------------------------


def test_looked_for_by_its_media_type_and_put_with_its_bytes() -> None:
    play = Play()
    result = play.run(IMAGE.push("1.0"))
    look, put = play.sent("HEAD tag")[0], play.sent("PUT tag")[0]
    assert look.url == put.url == f"{MANIFESTS}/1.0"
    assert header(look, "accept") == header(put, "content-type") == OCI_MANIFEST
    assert content_of(put) == IMAGE.manifest.content
    assert result.digest == IMAGE.digest and result.tags == ("1.0",) and result.repository == f"registry.example/{REPO}"
    assert there(play, IMAGE) and play.registry.tags(REPO) == {"1.0": IMAGE.digest}


def test_the_same_digest_there_is_nothing_to_do() -> None:
    play = Play()
    play.registry.put_manifest(REPO, IMAGE.manifest.content, "1.0")
    result = play.run(IMAGE.push("1.0"))
    assert play.names == ["HEAD tag"] and result.existing == (IMAGE.digest,)


def test_a_tag_on_something_else_is_moved() -> None:
    play = Play()
    play.registry.put_manifest(REPO, image(b"older").manifest.content, "1.0")
    assert play.run(IMAGE.push("1.0")).outcome is PushOutcome.PUSHED
    assert play.registry.tags(REPO) == {"1.0": IMAGE.digest}


def test_without_a_digest_header_a_tag_is_unknown() -> None:
    play = Play(docker_content_digest=False)
    play.registry.put_manifest(REPO, IMAGE.manifest.content, "1.0")
    play.run(IMAGE.push("1.0"))
    assert play.names[-1] == "PUT tag"


def test_without_a_digest_header_a_digest_is_there() -> None:
    play = Play(docker_content_digest=False)
    play.registry.put_manifest(REPO, IMAGE.manifest.content)
    assert play.run(IMAGE.push()).existing == (IMAGE.digest,)
    assert play.names == ["HEAD manifest"]


@pytest.mark.parametrize("status", [403, 404])
def test_absent(status: int) -> None:
    play = Play(missing_status=status)
    assert play.run(IMAGE.push()).outcome is PushOutcome.PUSHED
    assert play.names == ["HEAD manifest", "POST blob", "POST blob", "PUT manifest"]


def test_looking_is_given_up_and_the_push_goes_on() -> None:
    play = Play({"HEAD tag": always(say(502))})
    assert play.run(IMAGE.push("1.0")).outcome is PushOutcome.PUSHED
    assert play.names[:5] == ["HEAD tag"] * 5


def test_not_looked_for_where_that_is_off() -> None:
    play = Play(config=Config(check_existing=False))
    play.run(TWO.push("1.0"))
    assert not any(name.startswith("HEAD") for name in play.names) and there(play, TWO)


@pytest.mark.parametrize(("name", "status"), [("HEAD manifest", 200), ("PUT manifest", 201)])
def test_another_digest_in_an_answer(name: str, status: int) -> None:
    play = Play({name: [say(status, Docker_Content_Digest=OTHER)]})
    result = play.run(IMAGE.push())
    assert isinstance(result.error, RemoteProtocolError) and OTHER in str(result.error)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_accepted(status: int) -> None:
    play = Play(manifest_status=status)
    assert play.run(IMAGE.push("1.0")).outcome is PushOutcome.PUSHED


# --- order ------------------------------------------------------------------------------------------------------


def test_an_index_after_its_children_and_they_after_their_blobs() -> None:
    play = Play()
    result = play.run(TWO.push("1.0"))
    assert play.names[-3:] == ["PUT manifest", "PUT manifest", "PUT tag"]
    assert {send.url.rpartition("/")[2] for send in play.sent("PUT manifest")} == {c.digest for c in TWO.children}
    assert len(play.sent("POST blob")) == 5, "the shared layer goes once"
    assert len(result.uploaded) == 8 and there(play, TWO)


def test_children_that_are_there_are_skipped_with_all_they_name() -> None:
    play = Play()
    first, second = TWO.children
    play.run(first.push())
    play.sends.clear()
    fresh = Play(registry=play.registry)
    result = fresh.run(TWO.push("1.0"))
    assert first.digest in result.existing
    assert len(fresh.sent("PUT manifest")) == 1 and len(fresh.sent("POST blob")) == 3


def test_nested_indexes_and_children_of_other_media_types() -> None:
    odd = blob(b"odd", media_type="application/vnd.example.thing")
    whole = index(index(image(b"deep")), blobs=(odd,))
    play = Play()
    assert play.run(whole.push("1.0")).outcome is PushOutcome.PUSHED
    assert there(play, whole)


def test_tags_come_last_one_put_each() -> None:
    play = Play(tag_params=False)
    play.run(TWO.push("1", "2", "3"))
    assert play.names[-4:] == ["PUT tags", *["PUT tag"] * 3]
    assert play.registry.tags(REPO) == dict.fromkeys(("1", "2", "3"), TWO.digest)


def test_one_tag_there_and_one_to_add() -> None:
    play = Play()
    play.run(IMAGE.push("1"))
    fresh = Play(registry=play.registry)
    assert fresh.run(IMAGE.push("1", "2")).outcome is PushOutcome.PUSHED
    assert fresh.names.count("PUT tag") == 1 and "POST blob" not in fresh.names
    assert set(play.registry.tags(REPO)) == {"1", "2"}


def test_the_manifest_alone() -> None:
    play = Play()
    for item in IMAGE.blobs:
        assert isinstance(item.source, bytes)
        play.registry.put_blob(REPO, item.source)
    assert play.run(IMAGE.bare("1.0")).uploaded == (IMAGE.digest,)
    assert play.names == ["HEAD tag", "PUT tag"]


def test_a_sparse_index() -> None:
    first, second = TWO.children
    push = PushPlan(
        repository=REPO,
        blobs=first.blobs,
        manifests=(TWO.manifest, first.manifest),
        root=TWO.digest,
        tags=("1.0",),
        omitted={second.digest},
        skipped=(second.manifest.descriptor,),
    )
    play = Play(sparse_indexes=True)
    result = play.run(push)
    assert result.outcome is PushOutcome.PUSHED and result.skipped == (second.manifest.descriptor,)
    assert second.digest not in play.registry.manifests(REPO)


def test_manifests_beside_the_root() -> None:
    beside = image(b"beside")
    push = PushPlan(
        repository=REPO,
        blobs=(*IMAGE.blobs, *beside.blobs[1:], blob(b"alone")),
        manifests=(IMAGE.manifest, beside.manifest),
        root=IMAGE.digest,
        tags=("1.0",),
    )
    play = Play()
    assert play.run(push).outcome is PushOutcome.PUSHED
    assert there(play, IMAGE) and there(play, beside) and Digest.of(b"alone") in play.registry.blobs(REPO)


# --- refusals ---------------------------------------------------------------------------------------------------


def test_413_is_reported_as_what_it_is() -> None:
    play = Play({"PUT tag": [say(413)]})
    result = play.run(IMAGE.push("1.0"))
    assert isinstance(result.error, RegistryError) and result.error.status == 413
    assert f"no manifest of {len(IMAGE.manifest.content)} bytes" in str(result.error)


@pytest.mark.parametrize("status", [400, 403, 409, 412])
def test_an_immutable_tag_with_our_digest_is_a_success(status: int) -> None:
    play = Play({"HEAD tag": [say(404)]}, immutable_tags=status)
    play.registry.put_manifest(REPO, IMAGE.manifest.content, "1.0")
    for item in IMAGE.blobs:
        assert isinstance(item.source, bytes)
        play.registry.put_blob(REPO, item.source)
    assert play.run(IMAGE.push("1.0")).outcome is PushOutcome.PUSHED
    assert play.names[-2:] == ["PUT tag", "HEAD tag"]


@pytest.mark.parametrize("status", [400, 403, 409, 412])
def test_an_immutable_tag_on_something_else_is_refused_in_the_puts_words(status: int) -> None:
    play = Play(immutable_tags=status)
    play.registry.put_manifest(REPO, image(b"older").manifest.content, "1.0")
    result = play.run(IMAGE.push("1.0"))
    assert isinstance(result.error, RegistryError) and result.error.status == status
    assert "PUT" in str(result.error) and "tag 1.0" in str(result.error)
    assert play.told(Status.FAILED)[-1].subject == "1.0"


def test_a_tag_is_looked_at_again_before_it_is_put_again() -> None:
    # The second answer is lost too, and this time somebody else's push has come between.
    play = Play({"PUT tag": [LOST, DONE_BUT_LOST], "HEAD tag": [PASS, PASS, say(200, Docker_Content_Digest=OTHER)]})
    assert play.run(IMAGE.push("1.0")).outcome is PushOutcome.PUSHED
    assert play.names[3:] == ["PUT tag", "HEAD tag", "PUT tag", "HEAD tag", "PUT tag"]


def test_confirming_a_tag_is_bounded() -> None:
    play = Play({"PUT tag": [done_but(500)], "HEAD tag": [PASS, *[say(503)] * 9]})
    result = play.run(IMAGE.push("1.0"))
    assert isinstance(result.error, RegistryError) and result.error.status == 503
    assert play.names.count("HEAD tag") == 5


# --- a registry that forgot -------------------------------------------------------------------------------------

LAYER = IMAGE.blobs[1].descriptor.digest
FOUND = {f"HEAD blob {b.descriptor.digest}": [say(200, Docker_Content_Digest=b.descriptor.digest)] for b in IMAGE.blobs}
SMALL = Config(small_blob_bytes=0)


@pytest.mark.parametrize(
    "detail",
    [{"digest": LAYER}, {"Digest": LAYER}, str(LAYER)],
    ids=["digest", "Digest", "text"],
)
@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"])
def test_what_is_named_is_pushed_anew(detail: object, code: str) -> None:
    play = Play(FOUND | {"PUT tag": [refuse(400, code, detail=detail)]}, config=SMALL)
    play.registry.put_blob(REPO, b"{}")
    assert play.run(IMAGE.push("1.0")).outcome is PushOutcome.PUSHED
    assert there(play, IMAGE)
    assert [send.url.rpartition("digest=")[2] for send in play.sent("PUT blob")] == [LAYER]


@pytest.mark.parametrize("detail", [None, {"digest": "no digest"}, {"digest": OTHER}, 7, ["x"]])
def test_where_nothing_is_named_all_of_it_is(detail: object) -> None:
    play = Play(FOUND | {"PUT tag": [refuse(404, "MANIFEST_BLOB_UNKNOWN", detail=detail)]}, config=SMALL)
    assert play.run(IMAGE.push("1.0")).outcome is PushOutcome.PUSHED
    assert there(play, IMAGE) and play.names.count("PUT blob") == 2


def test_only_once() -> None:
    play = Play({"PUT tag": always(refuse(400, "MANIFEST_BLOB_UNKNOWN", detail={"digest": LAYER}))})
    result = play.run(IMAGE.push("1.0"))
    assert isinstance(result.error, RegistryError) and result.error.codes == {"MANIFEST_BLOB_UNKNOWN"}
    assert play.names.count("PUT tag") == 2


def test_what_was_taken_a_moment_ago_is_given_time() -> None:
    # distribution 2.8 can't see a blob for an instant while somebody else pushes the same one.
    play = Play({"PUT tag": [refuse(400, "MANIFEST_BLOB_UNKNOWN", detail={"digest": LAYER})]})
    assert play.run(IMAGE.push("1.0")).outcome is PushOutcome.PUSHED
    assert play.names == ["HEAD tag", "POST blob", "POST blob", "PUT tag", "POST blob", "PUT tag"]
    assert play.now >= 1.0


def test_what_was_taken_a_moment_ago_may_take_several_tries_by_digest() -> None:
    unseen = refuse(400, "MANIFEST_BLOB_UNKNOWN", detail={"digest": LAYER})
    play = Play({"PUT manifest": [unseen] * 3})
    assert play.run(IMAGE.push()).outcome is PushOutcome.PUSHED
    assert play.names.count("PUT manifest") == 4 and play.names.count("POST blob") == 3
    play = Play({"PUT manifest": always(unseen)})
    result = play.run(IMAGE.push())
    assert isinstance(result.error, RegistryError) and result.error.codes == {"MANIFEST_BLOB_UNKNOWN"}


def test_children_of_an_index_are_put_anew() -> None:
    missing = TWO.children[0].digest
    play = Play({"PUT tag": [refuse(404, "MANIFEST_BLOB_UNKNOWN", detail={"digest": missing})]})
    assert play.run(TWO.push("1.0")).outcome is PushOutcome.PUSHED
    assert [send.url.rpartition("/")[2] for send in play.sent("PUT manifest")].count(missing) == 2


def test_what_another_push_left_is_pushed_anew() -> None:
    play = Play({"PUT tag": [HANG, refuse(404, "MANIFEST_BLOB_UNKNOWN")]})
    play.submit(IMAGE.push("1.0"))  # under way until its tag is put, so that its blobs may be relied on
    play.settle()
    play.sends.clear()
    changed = image(b"layer", annotations={"a": "b"})
    number = play.submit(changed.push("2.0"))
    play.settle()
    assert play.results[number].outcome is PushOutcome.PUSHED
    assert play.names == ["HEAD tag", "PUT tag", "POST blob", "POST blob", "PUT tag"]


def test_what_is_absent_on_purpose_is_not_pushed_anew() -> None:
    play = Play({"PUT tag": [refuse(404, "MANIFEST_BLOB_UNKNOWN"), PASS]})
    result = play.run(IMAGE.bare("1.0"))
    assert isinstance(result.error, RegistryError)
    assert play.names.count("PUT tag") == 2 and "POST blob" not in play.names


def test_a_shared_layer_missing_from_two_manifests() -> None:
    missing = refuse(404, "MANIFEST_BLOB_UNKNOWN", detail={"digest": Digest.of(b"shared")})
    play = Play({"PUT manifest": [missing, missing]})
    assert play.run(TWO.push("1.0")).outcome is PushOutcome.PUSHED
    assert there(play, TWO)


def test_the_descriptors_media_type_is_what_is_sent() -> None:
    # The descriptor's own type wins over what the manifest says of itself.
    bare = attrs.evolve(IMAGE.manifest.descriptor, media_type=DOCKER_MANIFEST)
    manifest = attrs.evolve(IMAGE.manifest, descriptor=bare, info=ManifestInfo(media_type=DOCKER_MANIFEST))
    play = Play({"PUT manifest": [say(201)]})
    play.run(PushPlan(repository=REPO, manifests=(manifest,), root=bare.digest))
    assert header(play.sends[-1], "content-type") == DOCKER_MANIFEST
