"""The life of an upload session: Locations, ranges, what is asked after a fault, and how it is given back."""

from __future__ import annotations

import attrs
import pytest

from core import (
    BASE,
    CUT,
    DONE_BUT_LOST,
    LOST,
    PASS,
    PATCHES,
    PLAIN,
    Fail,
    Pass,
    Play,
    always,
    content_of,
    cut_after,
    done_but,
    header,
    name_of,
    refuse,
    say,
)
from pushes import REPO, blob, blobs_push
from regproto import (
    Config,
    ContentError,
    Digest,
    FailureKind,
    PushOutcome,
    RegistryError,
    RemoteProtocolError,
    Status,
    TransportError,
    Written,
)
from regproto.testing import Auth, LocationStyle

CONTENT = bytes(range(200))
DIGEST = Digest.of(CONTENT)
CHUNKS = Config(small_blob_bytes=0, chunk_bytes=50)
BIG = Config(small_blob_bytes=0, resumable_above_bytes=0, chunk_bytes=10**9)
UPLOADS = f"{BASE}/v2/{REPO}/blobs/uploads/"
PUSH = blobs_push(blob(CONTENT))


def uploaded(play: Play) -> bool:
    """Whether the content came through whole, and nothing was left open."""
    there = play.registry.blobs(REPO) == {DIGEST} and play.registry.content(DIGEST) == CONTENT
    return there and not play.registry.sessions(REPO)


def ranges(play: Play) -> list[str | None]:
    return [header(send, "content-range") for send in play.sent("PATCH")]


# --- starting and Locations -------------------------------------------------------------------------------------


def test_started_and_put() -> None:
    play = Play(config=PLAIN)
    play.run(PUSH)
    _, start, put = play.sends
    assert (start.method, start.url, start.body) == ("POST", UPLOADS, b"")
    assert header(start, "content-type") == "application/json"
    assert header(put, "content-type") == "application/octet-stream"
    assert header(put, "content-range") is None and content_of(put) == CONTENT
    assert uploaded(play)


@pytest.mark.parametrize("style", [LocationStyle.PATH, LocationStyle.ABSOLUTE, LocationStyle.RELATIVE])
@pytest.mark.parametrize("config", [PLAIN, PATCHES, CHUNKS], ids=["put", "patch", "chunks"])
def test_locations_of_every_kind(style: LocationStyle, config: Config) -> None:
    play = Play(config=config, location_style=style)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert uploaded(play)


def test_an_upload_host_gets_no_authorization() -> None:
    play = Play(config=PATCHES, location_style=LocationStyle.OTHER_HOST, auth=Auth.BEARER)
    assert play.run(PUSH).uploaded == (DIGEST,)
    elsewhere = [send for send in play.sends if send.url.startswith("https://uploads.example/")]
    assert [name_of(send) for send in elsewhere] == ["PATCH", "PUT commit"]
    assert not any(header(send, "authorization") for send in elsewhere)
    assert header(play.sent("POST start")[-1], "authorization")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/up/1?_state=a%2Bb+c=&x", f"{BASE}/up/1?_state=a%2Bb+c=&x&digest={DIGEST}"),
        ("/up/1?digest=old&_state=s", f"{BASE}/up/1?digest={DIGEST}&_state=s"),
        ("7", f"{UPLOADS}7?digest={DIGEST}"),
        ("https://store.example/a?sig=%2F", f"https://store.example/a?sig=%2F&digest={DIGEST}"),
    ],
)
def test_the_digest_joins_a_query_that_stays_as_it_is(location: str, url: str) -> None:
    play = Play({"POST start": [say(202, Location=location)], "PUT blob": [say(201)]}, config=PLAIN)
    play.run(PUSH)
    assert play.sends[2].url == url


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("", "without a Location"),
        ("http://registry.example/up", "plain http"),
        ("https://10.0.0.1/up", "private network"),
        ("https://user:secret@store.example/up", "user name or password"),
        ("/up\x01", "control characters"),
    ],
)
def test_a_location_that_is_not_followed(location: str, says: str) -> None:
    play = Play({"POST start": [say(202, Location=location)]}, config=PLAIN)
    result = play.run(PUSH)
    assert isinstance(result.error, RemoteProtocolError)
    assert says in str(result.error) and "secret" not in str(result.error)
    assert play.names == ["HEAD blob", "POST start"]


def test_an_origin_that_is_not_trusted() -> None:
    asked: list[str] = []
    config = attrs.evolve(PLAIN, trust_origin=lambda origin: asked.append(origin) is not None)
    play = Play(config=config, location_style=LocationStyle.OTHER_HOST)
    result = play.run(PUSH)
    assert "not trusted" in str(result.error) and asked == ["https://uploads.example:443"]


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_start_that_opens_nothing(status: int) -> None:
    play = Play({"POST start": [say(status, Location="/up")]}, config=PLAIN)
    result = play.run(PUSH)
    assert isinstance(result.error, RemoteProtocolError) and f"answered {status}" in str(result.error)


# --- filling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_one_patch_with_the_whole_body_needs_no_range(status: int) -> None:
    play = Play(config=PATCHES, patch_status=status)
    play.run(PUSH)
    assert play.names == ["HEAD blob", "POST start", "PATCH", "PUT commit"]
    assert ranges(play) == [None] and uploaded(play)


def test_chunks() -> None:
    play = Play(config=CHUNKS)
    play.run(PUSH)
    assert ranges(play) == ["0-49", "50-99", "100-149", "150-199"] and uploaded(play)
    assert play.names[-1] == "PUT commit"


def test_the_registry_may_take_less_than_was_sent() -> None:
    whole = always(say(202, Location="/up/2"))
    play = Play(config=CHUNKS)
    play.on({"PATCH /up/2": whole, "PATCH": [say(202, Location="/up/2", Range="0-19")], "PUT commit": [say(201)]})
    play.run(PUSH)
    assert ranges(play) == ["0-49", "20-69", "70-119", "120-169", "170-199"]


def test_a_range_that_stands_still_is_stale_and_our_own_count_is_kept() -> None:
    play = Play(config=CHUNKS, stale_range=True)
    play.run(PUSH)
    assert len(ranges(play)) == 4 and uploaded(play)


def test_a_patch_answered_without_location() -> None:
    play = Play({"PATCH": [say(202)]}, config=PATCHES)
    assert "without a Location" in str(play.run(PUSH).error)
    assert play.names[-1] == "DELETE session" and not play.registry.sessions(REPO)


def test_413_halves_the_body_and_goes_on() -> None:
    large = blob(bytes(500_000))
    play = Play(config=PATCHES, max_body_bytes=200_000)
    assert play.run(blobs_push(large)).outcome is PushOutcome.PUSHED
    assert ranges(play)[:2] == [None, "0-249999"] and ranges(play)[-1] == "375000-499999"


def test_413_for_a_put_of_the_whole() -> None:
    play = Play(config=PLAIN, max_body_bytes=200_000)
    assert play.run(blobs_push(blob(bytes(300_000)))).outcome is PushOutcome.PUSHED
    assert play.names[2:] == ["PUT blob", "GET session", "PATCH", "PATCH", "PUT commit"]


def test_413_down_to_the_floor_is_a_refusal() -> None:
    play = Play(config=PATCHES, max_body_bytes=1_000)
    result = play.run(blobs_push(blob(bytes(300_000))))
    assert isinstance(result.error, RegistryError) and result.error.status == 413
    assert not play.registry.sessions(REPO)


# --- after a fault ----------------------------------------------------------------------------------------------


def test_it_goes_on_where_the_registry_is() -> None:
    play = Play({"PATCH": [cut_after(120)]}, config=PATCHES)
    play.run(PUSH)
    assert play.names[2:] == ["PATCH", "GET session", "PATCH", "PUT commit"]
    assert ranges(play) == [None, "120-199"] and uploaded(play)


def test_a_put_that_was_cut_goes_on_as_a_patch() -> None:
    play = Play({"PUT blob": [cut_after(120)]}, config=PLAIN)
    play.run(PUSH)
    assert ranges(play) == ["120-199"] and uploaded(play)


@pytest.mark.parametrize("size", [0, 1])
def test_0_0_is_one_byte_or_none(size: int) -> None:
    play = Play({"PATCH": [cut_after(size)]}, config=PATCHES)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert uploaded(play)


def test_a_416_without_range_is_asked_about() -> None:
    play = Play({"PATCH": [cut_after(60), refuse(416, "BLOB_UPLOAD_INVALID")]}, config=PATCHES, range_on_416=False)
    play.run(PUSH)
    assert play.names[2:] == ["PATCH", "GET session", "PATCH", "GET session", "PATCH", "PUT commit"]
    assert uploaded(play)


def test_a_lost_session_starts_afresh_and_says_so() -> None:
    play = Play({"PATCH": [cut_after(60)]}, config=PATCHES, lost_sessions=True)
    play.run(PUSH)
    assert play.names[2:] == ["PATCH", "GET session", "POST start", "PATCH", "PUT commit"]
    assert play.told(Status.RESTARTED)[0].subject == DIGEST
    assert DIGEST in play.registry.blobs(REPO)


def test_a_useless_status_keeps_our_own_count_once() -> None:
    # As public ECR: two chunks are taken, the third is lost whole, and there is no status to ask for.
    play = Play({"PATCH": [PASS, PASS, LOST], "GET session": [say(404)]}, config=CHUNKS)
    play.run(PUSH)
    assert ranges(play) == ["0-49", "50-99", "100-149", "100-149", "150-199"] and uploaded(play)


def test_a_useless_status_twice_is_a_new_session() -> None:
    play = Play({"PATCH": [PASS, LOST, LOST], "GET session": always(say(204))}, config=CHUNKS)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names.count("POST start") == 2


def test_a_status_that_never_comes_is_a_new_session() -> None:
    play = Play({"PATCH": [LOST], "GET session": [LOST] * 9}, config=PATCHES)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.names.count("POST start") >= 2


def test_sessions_lost_again_and_again() -> None:
    play = Play({"PATCH": always(refuse(404, "BLOB_UPLOAD_UNKNOWN"))}, config=PATCHES)
    result = play.run(PUSH)
    assert isinstance(result.error, RegistryError) and "does not know the upload session" in str(result.error)
    assert play.names.count("POST start") == 5


def test_progress_forgives_faults() -> None:
    # Every chunk fails four times; five in a row would be too many.
    answers = [CUT, CUT, CUT, CUT, PASS] * 4
    play = Play({"PATCH": answers}, config=CHUNKS)
    assert play.run(PUSH).uploaded == (DIGEST,)


def test_no_progress_is_given_up_and_given_back() -> None:
    play = Play({"PATCH": always(CUT)}, config=PATCHES)
    result = play.run(PUSH)
    assert isinstance(result.error, TransportError) and "broken pipe" in str(result.error)
    assert play.names[-1] == "DELETE session" and not play.registry.sessions(REPO)


# --- the commit -------------------------------------------------------------------------------------------------


def test_a_slow_commit_is_looked_for_more_than_once() -> None:
    # A registry still at work: neither the blob nor the session is there at first.
    unknown = refuse(404, "BLOB_UPLOAD_UNKNOWN")
    script = {"PUT commit": [done_but(504)], "HEAD blob": [PASS, say(404), say(404)], "GET session": [unknown, unknown]}
    play = Play(script, config=PATCHES)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names[3:] == ["PUT commit", "HEAD blob", "GET session", "HEAD blob", "HEAD blob"]
    assert play.now > 1


def test_a_repeated_commit_answered_404_may_be_there() -> None:
    play = Play({"PUT commit": [LOST, done_but(404)]}, config=PATCHES)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names[-2:] == ["PUT commit", "HEAD blob"]


def test_a_refused_digest_starts_once_from_zero() -> None:
    play = Play({"PUT commit": [refuse(400, "DIGEST_INVALID")]}, config=PATCHES)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names.count("POST start") == 2


def test_a_commit_without_location_or_digest() -> None:
    play = Play(config=PATCHES, commit_location=False, docker_content_digest=False)
    assert play.run(PUSH).uploaded == (DIGEST,)


# --- content and giving back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [Config(), PLAIN, PATCHES], ids=["post", "put", "patch"])
def test_content_that_changed(config: Config) -> None:
    gone = Fail(FailureKind.CONTENT, Written.SOME, detail="layer.tar is 3 bytes short")
    play = Play({"POST blob": [gone], "PUT blob": [gone], "PATCH": [gone]}, config=config)
    result = play.run(PUSH)
    assert isinstance(result.error, ContentError) and "3 bytes short" in str(result.error)
    assert not play.registry.sessions(REPO)


def test_giving_back_asks_for_the_newest_location_first() -> None:
    play = Play(config=CHUNKS)
    push_id = play.submit(PUSH)
    play.answer(play.until("PATCH"), DONE_BUT_LOST)  # the registry has moved on, and its new Location is lost
    assert play.settle() > play.now
    play.session.cancel(push_id)
    assert play.run().outcome is PushOutcome.CANCELLED
    assert play.names[-2:] == ["GET session", "DELETE session"] and not play.registry.sessions(REPO)


def test_a_stale_delete_is_asked_about_once() -> None:
    play = Play({"PATCH": [refuse(403, "DENIED")], "DELETE session": [say(416)]}, config=PATCHES)
    play.run(PUSH)
    assert play.names[2:] == ["PATCH", "DELETE session", "GET session", "DELETE session"]


def test_a_session_that_is_still_at_work_is_given_back_after_a_while() -> None:
    play = Play({"PATCH": [refuse(403, "DENIED")], "DELETE session": [say(416)] * 3}, config=PATCHES)
    play.run(PUSH)
    assert play.names[2:] == ["PATCH", *["DELETE session", "GET session"] * 3, "DELETE session"]
    assert play.now > 0 and not play.registry.sessions(REPO)


def test_a_session_that_is_always_stale_is_left() -> None:
    play = Play({"PATCH": [refuse(403, "DENIED")], "DELETE session": [say(416)] * 9}, config=PATCHES)
    play.run(PUSH)
    assert play.names.count("DELETE session") == 4


@pytest.mark.parametrize("answer", [say(404), say(500), say(405), LOST])
def test_a_failed_delete_is_ignored(answer: Fail | Pass) -> None:
    play = Play({"PATCH": [refuse(403, "DENIED")], "DELETE session": [answer]}, config=PATCHES)
    result = play.run(PUSH)
    assert isinstance(result.error, RegistryError) and result.error.status == 403
    assert play.names[2:] == ["PATCH", "DELETE session"]


def test_commits_that_are_never_done_come_to_an_end() -> None:
    made = Play({"PUT commit": always(say(202)), "HEAD blob": always(say(404))}, config=PATCHES)
    result = made.run(blobs_push(blob(b"hello")))
    assert isinstance(result.error, RemoteProtocolError) and "answered 202 to each commit" in str(result.error)
    assert made.names.count("PUT commit") == 5
