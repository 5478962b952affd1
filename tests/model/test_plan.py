"""The plan of a push: walked from a root through the caller, or made by hand; checked when it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from core import PLAIN, Play
from pushes import LAYER, REPO, Image, blob, described, image, index
from regproto import (
    Blob,
    ContentError,
    Descriptor,
    Digest,
    InvalidReferenceError,
    Manifest,
    ManifestInfo,
    MountSource,
    PushOutcome,
    PushPlan,
    plan_push,
)
from regproto._model.manifest import MANIFEST_MAX_DEPTH, OCI_MANIFEST

FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
CONTENT = b"0123456789"
TWO = index(image(b"a", b"shared", config=b"1"), image(b"b", b"shared", config=b"2"))


def plan(whole: Image, *, without: tuple[Digest, ...] = (), **options: Any) -> PushPlan:
    """The plan of an image whose source lacks some of it."""
    manifests = {m.descriptor.digest: m.content for m in whole.all_manifests()}
    blobs = {b.descriptor.digest: b.source for b in whole.all_blobs()}

    def having(held: dict[Digest, Any]) -> Callable[[Descriptor], Any]:
        return lambda d: None if d.digest in without else held.get(d.digest)

    return plan_push(
        REPO,
        whole.manifest.descriptor,
        read_manifest=having(manifests),
        find_content=having(blobs),
        **options,
    )


def test_everything_below_the_root_once() -> None:
    push = plan(TWO, tags=("1.0", "2.0", "1.0"))
    assert push.tags == ("1.0", "2.0") and push.root == TWO.digest
    assert {m.descriptor.digest for m in push.manifests} == {m.descriptor.digest for m in TWO.all_manifests()}
    assert {b.descriptor.digest for b in push.blobs} == {b.descriptor.digest for b in TWO.all_blobs()}
    assert len(push.blobs) == 5 and all(b.source is not None for b in push.blobs)
    assert Play().run(push).outcome is PushOutcome.PUSHED


def test_nested_indexes_and_one_child_twice() -> None:
    push = plan(index(index(TWO), TWO.children[0]))
    assert len(push.manifests) == 5


def test_nested_too_deep() -> None:
    whole = image(b"a")
    for _ in range(MANIFEST_MAX_DEPTH):
        whole = index(whole)
    with pytest.raises(ContentError, match="nested over 16 deep"):
        plan(whole)


@pytest.mark.parametrize("missing", [TWO.digest, TWO.children[0].digest, TWO.all_blobs()[0].descriptor.digest])
def test_what_is_not_in_the_source(missing: Digest) -> None:
    with pytest.raises(ContentError, match=f"{missing}.* not in the source"):
        plan(TWO, without=(missing,))


def test_a_sparse_index_leaves_out_what_is_not_there() -> None:
    gone = TWO.children[1].digest
    push = plan(TWO, without=(gone,), sparse=True)
    assert push.omitted == {gone} and [d.digest for d in push.skipped] == [gone] and len(push.manifests) == 2
    with pytest.raises(ContentError, match="not in the source"):
        plan(TWO, without=(TWO.digest,), sparse=True)


def test_a_child_of_an_odd_media_type_is_a_blob() -> None:
    odd = blob(b"odd", media_type="application/vnd.example.thing")
    whole = index(image(b"a"), blobs=(odd,))
    assert odd.descriptor.digest in {b.descriptor.digest for b in plan(whole).blobs}
    with pytest.raises(ContentError, match="not in the source"):
        plan(whole, without=(odd.descriptor.digest,))


def test_non_distributable_layers_are_skipped_unless_allowed() -> None:
    foreign = blob(CONTENT, media_type=FOREIGN)
    whole = image(foreign, b"own")
    push = plan(whole, without=(foreign.descriptor.digest,))
    assert [d.digest for d in push.skipped] == [foreign.descriptor.digest] == list(push.omitted)
    play = Play({"PUT manifest": [], "PUT tag": []})
    result = play.run(push)
    assert result.skipped == push.skipped and foreign.descriptor.digest not in play.registry.blobs(REPO)
    allowed = plan(whole, nondistributable=True)
    assert not allowed.skipped and len(allowed.blobs) == 3


def test_a_layer_skipped_in_one_image_and_sent_in_another() -> None:
    foreign, own = blob(CONTENT, media_type=FOREIGN), blob(CONTENT, media_type=LAYER)
    push = plan(index(image(foreign, config=b"1"), image(own, config=b"2")))
    assert not push.omitted and not push.skipped


def test_two_sizes_of_one_digest() -> None:
    liar = attrs.evolve(blob(CONTENT).descriptor, size=11)
    whole = image(blob(CONTENT), Blob(descriptor=liar, source=CONTENT))
    with pytest.raises(ContentError, match="two sizes"):
        plan(whole)


def test_what_can_be_mounted_needs_no_content() -> None:
    sources = (MountSource(repository="base/one"),)
    whole = image(CONTENT)
    push = plan(whole, without=(whole.blobs[1].descriptor.digest,), mount_from=sources)
    assert all(b.mount_from == sources for b in push.blobs)
    play = Play(config=PLAIN)
    play.registry.put_blob("base/one", CONTENT)
    assert play.run(push).mounted == (Digest.of(CONTENT),)


def test_a_manifest_embedded_in_its_descriptor() -> None:
    whole = image(CONTENT)
    root = attrs.evolve(whole.manifest.descriptor, data=whole.manifest.content)
    push = plan_push(REPO, root, read_manifest=lambda _: None, find_content=lambda _: CONTENT)
    assert push.root == whole.digest


@pytest.mark.parametrize(
    ("read", "says"),
    [(b"{}", "bytes long"), (image(b"b").manifest.content, "does not match its digest")],
)
def test_a_manifest_that_is_another(read: bytes, says: str) -> None:
    root = image(b"a").manifest.descriptor
    with pytest.raises(ContentError, match=says):
        plan_push(REPO, root, read_manifest=lambda _: read, find_content=lambda _: b"")


# --- by hand ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repository", ["", "Team/App", "../etc", "a//b", "a" * 256])
def test_a_repository_that_is_none(repository: str) -> None:
    with pytest.raises(InvalidReferenceError):
        PushPlan(repository=repository)
    with pytest.raises(InvalidReferenceError):
        MountSource(repository=repository)


def test_a_tag_that_is_none() -> None:
    with pytest.raises(InvalidReferenceError):
        image(b"a").push(".hidden")


def test_tags_need_a_root() -> None:
    with pytest.raises(ContentError, match="tags need a root"):
        PushPlan(repository=REPO, tags=("1.0",))


def test_the_root_is_in_the_plan() -> None:
    with pytest.raises(ContentError, match="root manifest .* not in the plan"):
        PushPlan(repository=REPO, root=Digest.of(b""))


def test_everything_named_is_in_the_plan() -> None:
    whole = image(CONTENT)
    with pytest.raises(ContentError, match="names .*, which is not in the plan"):
        PushPlan(repository=REPO, manifests=(whole.manifest,), blobs=whole.blobs[:1])


def circle(*digests: Digest) -> tuple[Manifest, ...]:
    """Manifests with made-up digests, each naming the next."""
    descriptors = [Descriptor(media_type=OCI_MANIFEST, digest=digest, size=1) for digest in digests]
    named = [*descriptors[1:], descriptors[0]]
    return tuple(
        Manifest(descriptor=one, content=b"", info=ManifestInfo(media_type=OCI_MANIFEST, manifests=(other,)))
        for one, other in zip(descriptors, named, strict=True)
    )


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_manifest_that_names_itself(length: int) -> None:
    digests = [Digest.of(bytes([n])) for n in range(length)]
    with pytest.raises(ContentError, match="names itself"):
        PushPlan(repository=REPO, manifests=circle(*digests))


def test_shared_children_are_no_circle() -> None:
    child = TWO.children[0]
    both = index(child, index(child))
    assert both.push("1.0").root == both.digest and described(both.manifest)
