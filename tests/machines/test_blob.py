"""The life of a blob: found, mounted, sent in one POST, or uploaded; each digest once."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import attrs
import pytest

from core import (
    DONE_BUT_LOST,
    HANG,
    LOST,
    PASS,
    PLAIN,
    Answer,
    Play,
    always,
    cut_after,
    done_but,
    header,
    refuse,
    say,
)
from pushes import REPO, blob, blobs_push, image
from regproto import (
    BlobSlice,
    Config,
    ContentError,
    Digest,
    MountSource,
    PushOutcome,
    RegistryError,
    RemoteProtocolError,
    Status,
)
from regproto.testing import Auth, Grant

CONTENT = b"0123456789"
DIGEST = Digest.of(CONTENT)
OTHER = Digest.of(b"something else")


def test_there_already() -> None:
    play = Play(config=PLAIN)
    play.registry.put_blob(REPO, CONTENT)
    result = play.run(blobs_push(blob(CONTENT)))
    assert play.names == ["HEAD blob"]
    assert play.sends[0].url == f"https://registry.example/v2/{REPO}/blobs/{DIGEST}"
    assert (result.existing, result.uploaded, result.digest) == ((DIGEST,), (), None)
    assert play.told(Status.EXISTING)[0].subject == DIGEST


def test_a_small_one_goes_in_a_single_post() -> None:
    play = Play()
    result = play.run(blobs_push(blob(CONTENT)))
    (post,) = play.sends
    assert (post.method, post.url) == ("POST", f"https://registry.example/v2/{REPO}/blobs/uploads/?digest={DIGEST}")
    assert header(post, "content-type") == "application/octet-stream"
    assert post.body == BlobSlice(source=CONTENT, digest=DIGEST, offset=0, size=10)
    assert (result.uploaded, result.sent_bytes, result.requests) == ((DIGEST,), 10, 1)


def test_a_larger_one_may_go_in_a_single_post_once_a_small_one_did() -> None:
    large = bytes(3_000)
    play = Play(config=Config(small_blob_bytes=100))
    play.run(blobs_push(blob(large), blob(b"first")))
    assert play.names == ["POST blob", "HEAD blob", "POST blob"]


def test_one_that_should_be_resumable_does_not() -> None:
    play = Play(config=Config(small_blob_bytes=100, resumable_above_bytes=1_000))
    play.run(blobs_push(blob(b"first")), blobs_push(blob(bytes(3_000))))
    assert play.names == ["POST blob", "HEAD blob", "POST start", "PATCH", "PUT commit"]


def test_a_202_ignores_the_body_and_is_remembered() -> None:
    play = Play(single_post=202)
    play.run(blobs_push(blob(CONTENT)))
    assert play.names == ["POST blob", "PUT blob"]
    play.run(blobs_push(blob(b"another")))
    assert play.names[2:] == ["HEAD blob", "POST start", "PUT blob"]


@pytest.mark.parametrize("status", [400, 404, 405, 411, 501])
def test_a_refused_single_post_goes_the_plain_way_and_is_remembered(status: int) -> None:
    play = Play(single_post=status)
    assert play.run(blobs_push(blob(CONTENT))).uploaded == (DIGEST,)
    assert play.names == ["POST blob", "POST start", "PUT blob"]
    play.run(blobs_push(blob(b"another")))
    assert play.names[3:] == ["HEAD blob", "POST start", "PUT blob"]


def test_a_413_is_about_this_body_alone() -> None:
    play = Play({"POST blob": [say(413)]})
    play.run(blobs_push(blob(CONTENT)), blobs_push(blob(b"another")))
    assert play.names.count("POST blob") == 2


def test_a_digest_refused_twice_is_the_contents_fault() -> None:
    wrong = attrs.evolve(blob(CONTENT), source=b"9876543210")
    play = Play()
    result = play.run(blobs_push(wrong))
    assert isinstance(result.error, RegistryError) and result.error.codes == {"DIGEST_INVALID"}
    assert "check the source" in str(result.error)
    assert play.names.count("PUT blob") == 2
    assert not play.registry.blobs(REPO) and not play.registry.sessions(REPO)


@pytest.mark.parametrize("status", [403, 409])
def test_a_single_post_refused_for_good(status: int) -> None:
    play = Play({"POST blob": [refuse(status, "DENIED", "no")]})
    result = play.run(blobs_push(blob(CONTENT)))
    assert isinstance(result.error, RegistryError) and result.error.status == status
    assert "DENIED: no" in str(result.error) and play.names == ["POST blob"]


def test_a_single_post_cut_in_its_body() -> None:
    play = Play({"POST blob": [cut_after(4)]})
    assert play.run(blobs_push(blob(CONTENT))).uploaded == (DIGEST,)
    assert play.names == ["POST blob", "HEAD blob", "POST start", "PUT blob"]


def test_a_lost_single_post_that_did_it() -> None:
    play = Play({"POST blob": [DONE_BUT_LOST]})
    assert play.run(blobs_push(blob(CONTENT))).uploaded == (DIGEST,)
    assert play.names == ["POST blob", "HEAD blob"]


def test_looking_after_a_lost_post_is_bounded_too() -> None:
    play = Play({"POST blob": [LOST], "HEAD blob": always(say(502))})
    assert play.run(blobs_push(blob(CONTENT))).outcome is PushOutcome.PUSHED
    assert play.names == ["POST blob", *["HEAD blob"] * 4, "POST start", "PUT blob"]


@pytest.mark.parametrize(
    ("name", "config"), [("HEAD blob", PLAIN), ("POST blob", Config()), ("PUT blob", PLAIN)], ids=str
)
def test_another_digest_in_an_answer(name: str, config: Config) -> None:
    status = 200 if name == "HEAD blob" else 201
    play = Play({name: [say(status, Docker_Content_Digest=OTHER)]}, config=config)
    result = play.run(blobs_push(blob(CONTENT)))
    assert isinstance(result.error, RemoteProtocolError) and OTHER in str(result.error)


def test_a_digest_of_another_algorithm_says_nothing() -> None:
    told = say(200, Docker_Content_Digest="sha512:" + "0" * 128, Content_Length=str(len(CONTENT)))
    play = Play({"HEAD blob": [told]}, config=PLAIN)
    assert play.run(blobs_push(blob(CONTENT))).existing == (DIGEST,)


def test_403_for_what_is_missing() -> None:
    play = Play(config=PLAIN, missing_status=403)
    assert play.run(blobs_push(blob(CONTENT))).uploaded == (DIGEST,)


def test_a_202_without_location() -> None:
    play = Play({"POST blob": [say(202)]})
    result = play.run(blobs_push(blob(CONTENT)))
    assert isinstance(result.error, RemoteProtocolError) and "without a Location" in str(result.error)


# --- mounts -----------------------------------------------------------------------------------------------------


def test_mounted() -> None:
    play = Play()
    play.registry.put_blob("base/one", CONTENT)
    result = play.run(blobs_push(blob(CONTENT, "base/one")))
    assert play.names == ["HEAD blob", "POST mount"]
    assert play.sends[1].url.endswith(f"/v2/{REPO}/blobs/uploads/?mount={DIGEST}&from=base/one")
    assert play.sends[1].body == b""
    assert result.mounted == (DIGEST,) and not result.uploaded
    assert play.told(Status.MOUNTED)[0].text == "base/one"


def test_the_registry_of_a_source_is_named() -> None:
    play = Play()
    source = MountSource(repository="base/one", registry="other.example", foreign=True)
    play.run(blobs_push(blob(CONTENT, source)))
    assert play.sends[1].url.endswith("&from=base/one&origin=other.example")


def mounted_from(play: Play) -> list[str]:
    """The sources that a mount was asked from, in order."""
    return [parse_qs(urlsplit(send.url).query)["from"][0] for send in play.sent("POST mount")]


def asked_sources(play: Play) -> list[str]:
    """The sources that were asked for the blob, in order."""
    return [urlsplit(send.url).path.removeprefix("/v2/").partition("/blobs/")[0] for send in play.sent("HEAD source")]


def test_several_sources_are_asked_at_once_and_it_is_mounted_from_the_first_that_has_it() -> None:
    play = Play()
    play.registry.put_blob("base/two", CONTENT)
    result = play.run(blobs_push(blob(CONTENT, "base/one", "base/two")))
    assert play.names == ["HEAD blob", "HEAD source", "HEAD source", "POST mount"]
    assert mounted_from(play) == ["base/two"] and result.mounted == (DIGEST,)


def test_the_first_in_order_not_the_first_to_answer() -> None:
    play = Play({"HEAD source base/one": [HANG]})
    play.registry.put_blob("base/two", CONTENT)
    play.submit(blobs_push(blob(CONTENT, "base/one", "base/two")))
    play.settle()
    assert "POST mount" not in play.names
    [held] = play.held.values()
    play.answer(held, say(404))
    assert play.run().mounted == (DIGEST,) and mounted_from(play) == ["base/two"]


def test_nobody_waits_for_a_source_that_is_not_needed() -> None:
    play = Play({"HEAD source base/two": [HANG]})
    play.registry.put_blob("base/one", CONTENT)
    assert play.run(blobs_push(blob(CONTENT, "base/one", "base/two"))).mounted == (DIGEST,)
    assert play.now == 0 and not play.held, "what was asked is stopped at the end"


def test_without_a_source_that_has_it_no_session_is_opened_for_a_mount() -> None:
    play = Play()
    assert play.run(blobs_push(blob(CONTENT, "base/one", "base/two"))).uploaded == (DIGEST,)
    assert play.names == ["HEAD blob", "HEAD source", "HEAD source", "POST blob"]


@pytest.mark.parametrize("answer", [say(403), say(401), say(405), say(200), say(500), say(302)])
def test_a_404_alone_rules_a_source_out(answer: Answer) -> None:
    play = Play({"HEAD source base/one": always(answer)})
    play.registry.put_blob("base/one", CONTENT)
    play.registry.put_blob("base/two", CONTENT)
    assert play.run(blobs_push(blob(CONTENT, "base/one", "base/two"))).mounted == (DIGEST,)
    assert mounted_from(play) == ["base/one"]


def test_a_source_that_was_not_ruled_out_and_is_refused_is_followed_by_the_next() -> None:
    play = Play({"HEAD source base/one": [say(403)]})
    play.registry.put_blob("base/two", CONTENT)
    assert play.run(blobs_push(blob(CONTENT, "base/one", "base/two"))).mounted == (DIGEST,)
    assert mounted_from(play) == ["base/one", "base/two"]
    assert play.names.count("DELETE session") == 1 and not play.registry.sessions(REPO)


def test_the_session_of_a_refused_mount_is_used_where_no_other_source_is_known_to_have_it() -> None:
    play = Play({"HEAD source base/two": [HANG]}, mount=False)
    play.registry.put_blob("base/one", CONTENT)
    assert play.run(blobs_push(blob(CONTENT, "base/one", "base/two"))).uploaded == (DIGEST,)
    assert play.names == ["HEAD blob", "HEAD source", "HEAD source", "POST mount", "PUT blob"]


def test_at_most_four_sources_are_asked_at_once() -> None:
    play = Play({"HEAD source": always(HANG)})
    play.submit(blobs_push(blob(CONTENT, *(f"base/{n}" for n in range(6)))))
    play.settle()
    assert asked_sources(play) == [f"base/{n}" for n in range(4)]
    for held in tuple(play.held.values()):
        play.answer(held, say(404))
    play.settle()
    assert asked_sources(play)[4:] == ["base/4", "base/5"]
    play.on({})
    for held in tuple(play.held.values()):
        play.answer(held, say(404))
    assert play.run().uploaded == (DIGEST,)


def test_a_source_that_lacked_its_first_eight_goes_last() -> None:
    contents = [b"layer %d" % n for n in range(30)]
    play = Play(config=Config(max_exchanges=4))
    for content in contents[:-1]:
        play.registry.put_blob("base/two", content)
    play.registry.put_blob("base/one", contents[-1])
    result = play.run(blobs_push(*(blob(content, "base/one", "base/two") for content in contents)))
    assert len(result.mounted) == 30
    asked = asked_sources(play)
    # The first eight, what was on its way then, and the one that the other lacks.
    assert asked.count("base/two") == 30 and 9 <= asked.count("base/one") <= 8 + 4 + 1
    assert mounted_from(play).count("base/one") == 1


def test_pushes_that_overlap_share_what_sources_were_asked() -> None:
    play = Play()
    play.registry.put_blob("base/two", CONTENT)
    layer = blob(CONTENT, "base/one", "base/two")
    play.run(blobs_push(layer), blobs_push(layer, repository="team/other"))
    assert sorted(asked_sources(play)) == ["base/one", "base/two"]
    play.run(blobs_push(layer, repository="team/third"))
    assert len(asked_sources(play)) == 4, "what was known is forgotten with the last of them"
    assert not play.session._graph.sources.checks and not play.session._graph.sources.tallies


def test_a_push_goes_on_waiting_for_a_source_that_another_asked() -> None:
    play = Play({"HEAD source": always(HANG)})
    play.registry.put_blob("base/one", CONTENT)
    layer = blob(CONTENT, "base/one", "base/two")
    play.submit(blobs_push(layer), blobs_push(layer, blob(b"more"), repository="team/other"))
    play.settle()
    play.session.cancel(1)
    play.settle()
    assert play.results[1].outcome is PushOutcome.CANCELLED and not play.aborted
    for held in tuple(play.held.values()):
        play.answer(held, PASS)
    play.on({})
    assert play.run().mounted == (DIGEST,)


def test_a_source_without_a_token_costs_no_request() -> None:
    # The token server refuses a token that covers it, and the registry would refuse the rest.
    grants = [Grant(repository=REPO)]
    play = Play(auth=Auth.BEARER, grants=grants, ungranted=403)
    play.registry.put_blob("base/one", CONTENT)
    assert play.run(blobs_push(blob(CONTENT, "base/one", "base/two"))).uploaded == (DIGEST,)
    assert "HEAD source" not in play.names and "POST mount" not in play.names


def test_the_session_of_a_refused_mount_is_used() -> None:
    play = Play(mount=False)
    assert play.run(blobs_push(blob(CONTENT, "base/one"))).uploaded == (DIGEST,)
    assert play.names == ["HEAD blob", "POST mount", "PUT blob"]


@pytest.mark.parametrize("status", [200, 202, 400, 401, 403, 404, 405, 416, 501])
def test_any_other_refusal_of_a_mount_means_an_upload(status: int) -> None:
    play = Play({"POST mount": [refuse(status, "UNSUPPORTED")]})
    assert play.run(blobs_push(blob(CONTENT, "base/one"))).uploaded == (DIGEST,)
    assert play.names[1] == "POST mount" and "mount=" not in play.sends[2].url


def test_sources_are_bounded() -> None:
    play = Play({"HEAD source": always(say(403)), "POST mount": always(say(404))})
    play.run(blobs_push(blob(CONTENT, *(f"base/{n}" for n in range(20)))))
    assert play.names.count("POST mount") == play.names.count("HEAD source") == 8


@pytest.mark.parametrize(("answer", "mounted"), [(201, True), (202, False), (400, False)])
def test_a_mount_without_a_source_where_asked(answer: int, mounted: bool) -> None:
    play = Play(config=Config(anonymous_mount=True), anonymous_mount=answer)
    play.registry.put_blob("somewhere/else", CONTENT)
    result = play.run(blobs_push(blob(CONTENT)))
    assert play.sends[1].url.endswith(f"?mount={DIGEST}")
    assert bool(result.mounted) is mounted and bool(result.uploaded) is not mounted


def test_never_unless_asked() -> None:
    play = Play(config=PLAIN)
    play.run(blobs_push(blob(CONTENT)))
    assert "POST mount" not in play.names


# --- content ----------------------------------------------------------------------------------------------------


def test_no_content_anywhere() -> None:
    play = Play()
    result = play.run(blobs_push(attrs.evolve(blob(CONTENT, "base/one"), source=None)))
    assert isinstance(result.error, ContentError) and DIGEST in str(result.error)
    assert not play.registry.sessions(REPO)


def test_an_empty_blob() -> None:
    play = Play()
    empty = attrs.evolve(blob(b""), source=None)
    assert play.run(blobs_push(empty)).uploaded == (Digest.of(b""),)
    assert play.sends[0].body == b""


def test_an_empty_blob_the_plain_way() -> None:
    play = Play(single_post=404)
    assert play.run(blobs_push(blob(b""))).uploaded == (Digest.of(b""),)
    assert play.names == ["POST blob", "POST start", "PUT commit"]


@pytest.mark.parametrize("single_post", [201, 202])
def test_embedded_content_needs_no_source(single_post: int) -> None:
    plain = blob(CONTENT)
    embedded = attrs.evolve(plain, source=None, descriptor=attrs.evolve(plain.descriptor, data=CONTENT))
    play = Play(single_post=single_post)
    assert play.run(blobs_push(embedded)).uploaded == (DIGEST,)
    assert play.sends[-1].body == CONTENT


def test_sha512() -> None:
    play = Play({"POST blob": [say(404)]})
    item = blob(CONTENT, algorithm="sha512")
    assert play.run(blobs_push(item)).uploaded == (item.descriptor.digest,)
    assert play.sends[1].url.endswith("/blobs/uploads/?digest-algorithm=sha512")


# --- each digest once -------------------------------------------------------------------------------------------


def test_a_blob_in_two_pushes_is_uploaded_once() -> None:
    one, two = image(CONTENT, config=b"1"), image(CONTENT, config=b"2")
    play = Play()
    play.run(one.push("1"), two.push("2"))
    bodies = [send.url for send in play.sent("POST blob")]
    assert len(bodies) == len(set(bodies)) == 3
    assert DIGEST in play.results[1].uploaded
    assert DIGEST in (*play.results[2].uploaded, *play.results[2].existing)


def test_in_another_repository_it_is_asked_for() -> None:
    play = Play(config=PLAIN)
    play.run(blobs_push(blob(CONTENT)), blobs_push(blob(CONTENT), repository="team/other"))
    assert play.names.count("PUT blob") == 2


def test_a_success_that_says_nothing_is_looked_at() -> None:
    play = Play({"PUT blob": [done_but(202)]}, config=PLAIN)
    assert play.run(blobs_push(blob(CONTENT))).uploaded == (DIGEST,)
    assert play.names == ["HEAD blob", "POST start", "PUT blob", "HEAD blob"]


def test_a_blob_is_not_mounted_from_where_it_goes() -> None:
    play = Play(config=PLAIN)
    assert play.run(blobs_push(blob(CONTENT, REPO))).uploaded == (DIGEST,)
    assert "POST mount" not in play.names
