"""Several tags at once: one PUT by digest where the registry takes tags as parameters, one each elsewhere."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest

from core import CUT, DONE_BUT_LOST, HANG, LOST, NOT_SENT, PASS, PLAIN, Play, refuse, say
from pushes import REPO, blob, image
from regproto import Blob, Config, Digest, Manifest, PushOutcome, PushPlan, Status
from regproto.testing import RegistryOptions

IMAGE = image(b"layer")
TAGS = ("1", "2", "3")
PRESENT = dict.fromkeys(TAGS, IMAGE.digest)


def played(*pushes: PushPlan, **options: Any) -> Play:
    play = Play(**options)
    result = play.run(*pushes)
    assert result.outcome is PushOutcome.PUSHED, result.error
    return play


def about_manifests(play: Play) -> list[str]:
    return [name for name in play.names if "manifest" in name or "tag" in name]


def queries(play: Play) -> list[str]:
    return [urlsplit(send.url).query for send in play.sent("PUT tags")]


# --- a registry that takes tags as parameters ---------------------------------------------------------------------


def test_one_put_for_all_tags() -> None:
    play = played(IMAGE.push(*TAGS))
    assert about_manifests(play) == ["HEAD tag", "PUT tags"]
    assert queries(play) == ["tag=1&tag=2&tag=3"]
    assert play.registry.tags(REPO) == PRESENT
    told = [notice.subject for notice in play.told(Status.UPLOADED)]
    assert set(TAGS) <= set(told) and len(told) == len(set(told))


def test_two_tags_once_it_is_known() -> None:
    other = image(b"another")
    play = Play()
    play.run(IMAGE.push(*TAGS))
    play.sends.clear()
    play.run(other.push("4", "5"))
    assert about_manifests(play) == ["HEAD tag", "PUT tags"]
    play.sends.clear()
    play.run(image(b"third").push("6"))
    assert about_manifests(play) == ["HEAD tag", "PUT tag"]


def test_two_tags_are_no_reason_to_find_out() -> None:
    assert about_manifests(played(IMAGE.push("1", "2"))) == ["HEAD tag", "HEAD tag", "PUT tag", "PUT tag"]


def test_tags_that_are_there_are_only_looked_at() -> None:
    play = played(IMAGE.push(*TAGS))
    again = played(IMAGE.push(*TAGS), registry=play.registry)
    assert again.names == ["HEAD tag"] * 3
    more = played(IMAGE.push("1", "2", "4"), registry=play.registry)
    assert more.names.count("PUT tag") == 1 and set(more.registry.tags(REPO)) == {"1", "2", "3", "4"}


def test_more_tags_than_one_request_takes() -> None:
    tags = [str(n) for n in range(12)]
    play = played(IMAGE.push(*tags))
    assert queries(play) == ["&".join(f"tag={n}" for n in range(10))]
    assert play.names.count("PUT tag") == 2
    assert play.registry.tags(REPO) == dict.fromkeys(tags, IMAGE.digest)


def test_tags_that_the_registry_did_not_put_are_put_alone() -> None:
    there = {"OCI_Tag": "2, 1", "oci_tag": "5"}
    play = Play({"PUT tags": [say(201, **there)], "PUT tag": [PASS]})
    for item in IMAGE.blobs:
        play.registry.put_blob(REPO, item.source)  # type: ignore[arg-type]
    result = play.run(IMAGE.push(*TAGS))
    assert result.outcome is PushOutcome.PUSHED
    assert [urlsplit(s.url).path.rpartition("/")[2] for s in play.sent("PUT tag")] == ["3"]


def test_first_tag_not_among_those_that_were_put() -> None:
    play = Play({"PUT tags": [say(201, OCI_Tag="2")]})
    for item in IMAGE.blobs:
        play.registry.put_blob(REPO, item.source)  # type: ignore[arg-type]
    assert play.run(IMAGE.push(*TAGS)).outcome is PushOutcome.PUSHED
    assert sorted(urlsplit(s.url).path.rpartition("/")[2] for s in play.sent("PUT tag")) == ["1", "3"]


# --- a registry that does not --------------------------------------------------------------------------------------


def test_registry_that_lacks_it_is_not_asked_more_than_before() -> None:
    plain = Play(tag_params=False)
    plain.session._scheduler.capabilities.tag_params = False
    plain.run(IMAGE.push(*TAGS))
    play = played(IMAGE.push(*TAGS), tag_params=False)
    assert about_manifests(play) == ["HEAD tag", "PUT tags", *["PUT tag"] * 3]
    assert len(play.names) < len(plain.names)
    assert play.registry.tags(REPO) == PRESENT


def test_it_is_not_tried_twice() -> None:
    play = Play(tag_params=False)
    play.run(IMAGE.push(*TAGS))
    play.sends.clear()
    play.run(image(b"another").push("4", "5", "6"))
    assert about_manifests(play) == [*["HEAD tag"] * 3, *["PUT tag"] * 3]


@pytest.mark.parametrize("status", [400, 404, 405, 414, 431, 501])
def test_refused_for_its_parameters(status: int) -> None:
    play = Play({"PUT tags": [say(status)]})
    assert play.run(IMAGE.push(*TAGS)).outcome is PushOutcome.PUSHED
    assert about_manifests(play) == ["HEAD tag", "PUT tags", *["PUT tag"] * 3]
    assert play.session._scheduler.capabilities.tag_params is False


def test_refused_for_good() -> None:
    play = Play({"PUT tags": [refuse(403, "DENIED")], "PUT tag": [refuse(403, "DENIED")] * 3})
    result = play.run(IMAGE.push(*TAGS))
    assert result.outcome is PushOutcome.FAILED and "DENIED" in str(result.error)
    large = Play({"PUT tags": [say(413)]})
    result = large.run(IMAGE.push(*TAGS))
    assert "takes no manifest of" in str(result.error) and "PUT tag" not in large.names


@pytest.mark.parametrize("status", [400, 403, 409, 412])
def test_immutable_tags_with_this_manifest_are_a_success(status: int) -> None:
    play = played(IMAGE.push(*TAGS), immutable_tags=status)
    again = Play(registry=play.registry, config=Config(check_existing=False))
    result = again.run(IMAGE.push(*TAGS))
    assert result.outcome is PushOutcome.PUSHED
    other = Play(registry=play.registry)
    result = other.run(image(b"other").push(*TAGS))
    assert result.outcome is PushOutcome.FAILED
    assert play.registry.tags(REPO) == PRESENT


# --- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [LOST, CUT, say(503), DONE_BUT_LOST])
def test_after_a_lost_answer_each_tag_is_looked_at(fault: Any) -> None:
    play = Play({"PUT tags": [fault]})
    assert play.run(IMAGE.push(*TAGS)).outcome is PushOutcome.PUSHED
    assert play.registry.tags(REPO) == PRESENT
    after = about_manifests(play)[2:]
    assert after.count("HEAD tag") == 3
    assert after.count("PUT tag") == (0 if fault is DONE_BUT_LOST else 3)
    assert len(after) == after.count("HEAD tag") + after.count("PUT tag")


def test_not_sent_is_sent_again() -> None:
    play = Play({"PUT tags": [NOT_SENT]})
    assert play.run(IMAGE.push(*TAGS)).outcome is PushOutcome.PUSHED
    assert about_manifests(play) == ["HEAD tag", "PUT tags", "PUT tags"]


def test_blobs_that_are_not_there_after_all() -> None:
    missing = refuse(404, "MANIFEST_BLOB_UNKNOWN", detail={"digest": IMAGE.blobs[1].descriptor.digest})
    play = Play({"PUT tags": [missing]}, config=PLAIN)
    assert play.run(IMAGE.push(*TAGS)).outcome is PushOutcome.PUSHED
    assert play.names.count("PUT tags") == 2 and "PUT tag" not in play.names
    assert play.registry.tags(REPO) == PRESENT


def test_another_digest_is_refused() -> None:
    play = Play({"PUT tags": [say(201, Docker_Content_Digest=Digest.of(b"other"), OCI_Tag="1, 2, 3")]})
    result = play.run(IMAGE.push(*TAGS))
    assert result.outcome is PushOutcome.FAILED and "another digest" in str(result.error)


# --- several pushes ------------------------------------------------------------------------------------------------


def test_two_pushes_of_one_image_under_tags_of_their_own() -> None:
    play = Play()
    play.run(IMAGE.push("1", "2", "3"), IMAGE.push("1", "4", "5"))
    assert play.registry.tags(REPO) == dict.fromkeys("12345", IMAGE.digest)
    assert {result.outcome for result in play.results.values()} == {PushOutcome.PUSHED}
    assert queries(play) == ["tag=1&tag=2&tag=3"]
    play.run(IMAGE.push("1", "6", "7"))
    assert play.registry.tags(REPO) == dict.fromkeys("1234567", IMAGE.digest)


@pytest.mark.parametrize("at", ["HEAD tag", "PUT tags"])
def test_cancelled_push_leaves_its_other_tags(at: str) -> None:
    play = Play({at: [HANG]})
    first = play.submit(IMAGE.push("1", "2", "3"))
    second = play.submit(IMAGE.push("1"))
    play.settle()
    (held,) = play.held.values()
    play.session.cancel(first, 0.0)
    play.settle()
    play.answer(held, PASS)
    play.settle()
    assert play.results[second].outcome is PushOutcome.PUSHED
    if at == "HEAD tag":
        assert set(play.registry.tags(REPO)) == {"1"}


# --- other digests --------------------------------------------------------------------------------------------------


def sha512_push(*tags: str) -> PushPlan:
    content = IMAGE.manifest.content
    described = attrs.evolve(IMAGE.manifest.descriptor, digest=Digest.of(content, "sha512"))
    manifest = Manifest.of(content, described)
    return PushPlan(
        repository=REPO, blobs=IMAGE.blobs, manifests=[manifest], root=manifest.descriptor.digest, tags=tags
    )


def test_sha512_keeps_its_name_under_a_tag() -> None:
    play = played(sha512_push("1"))
    assert queries(play) == ["tag=1"]
    assert play.registry.tags(REPO) == {"1": Digest.of(IMAGE.manifest.content, "sha512")}
    elsewhere = played(sha512_push("1"), tag_params=False)
    assert elsewhere.registry.tags(REPO) == {"1": IMAGE.digest}


def test_blobs_alone_have_no_tags() -> None:
    one: Blob = blob(b"alone")
    assert "PUT tags" not in played(PushPlan(repository=REPO, blobs=[one])).names
    assert RegistryOptions().tag_params
