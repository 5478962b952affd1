"""The life of a stream: sent once, described at its end, and what can be done when something goes wrong on the way."""

from __future__ import annotations

import attrs
import pytest

from core import (
    CUT,
    DONE_BUT_LOST,
    HANG,
    NOT_SENT,
    PASS,
    Fail,
    Play,
    Say,
    always,
    cut_after,
    header,
    refuse,
    say,
)
from pushes import (
    LAYER,
    REPO,
    blob,
    image,
    image_of_streams,
    index_of_streams,
    stream,
    stream_push,
)
from regproto import (
    BlobSlice,
    Config,
    ContentError,
    Digest,
    Failed,
    FailureKind,
    LocalProtocolError,
    Manifests,
    NoManifests,
    Phase,
    Progress,
    PushOutcome,
    PushPlan,
    PushResult,
    RegistryError,
    RemoteProtocolError,
    Response,
    Status,
    Stream,
    StreamStatus,
    TransportError,
    Written,
)
from regproto._model.config import MIB
from regproto.testing import Auth, Request
from regproto.testing.simulation import request_of

CONTENT = bytes(range(200))
DIGEST = Digest.of(CONTENT)
PUSH = stream_push(stream(CONTENT))
ALONE = PushPlan(repository=REPO, streams=[stream(CONTENT)])
FORGETFUL = Config(stream_buffer_bytes=50)
"""A driver that keeps only the last 50 bytes."""
AGAIN = "can't be sent again"


def there(play: Play, result: PushResult) -> bool:
    """Whether the push is there, and nothing was left open."""
    assert result.outcome is PushOutcome.PUSHED, result.error
    tagged = play.registry.tags(REPO).get("1.0") == result.digest
    return tagged and play.registry.content(DIGEST) == CONTENT and not play.registry.sessions(REPO)


def failed(play: Play, result: PushResult) -> str:
    """The error of a push that failed and put no tag."""
    assert result.outcome is PushOutcome.FAILED
    assert not play.registry.tags(REPO)
    return str(result.error)


def bodies(play: Play) -> list[tuple[int, int | None]]:
    """Offset and limit of every stream that was sent."""
    return [(s.body.offset, s.body.limit_bytes) for s in play.sends if isinstance(s.body, Stream)]


# --- all is well --------------------------------------------------------------------------------------------


def test_it_is_sent_without_being_looked_for_and_then_named_by_what_is_made_of_it() -> None:
    play = Play()
    result = play.run(PUSH)
    assert there(play, result)
    assert play.names == ["POST start", "PATCH", "PUT commit", "HEAD tag", "POST blob", "PUT tag"]
    assert header(play.sent("PATCH")[0], "content-range") is None
    [made] = result.streamed
    assert (made.key, made.descriptor.digest, made.descriptor.size) == ("layer-0", DIGEST, 200)
    assert result.uploaded[0] == DIGEST and len(result.uploaded) == 3
    assert result.sent_bytes == 200 + sum(len(s.body) for s in play.sends if isinstance(s.body, bytes)) + sum(
        s.body.size for s in play.sends if isinstance(s.body, BlobSlice)
    )


def test_a_stream_alone() -> None:
    play = Play()
    result = play.run(ALONE)
    assert result.outcome is PushOutcome.PUSHED and result.digest is None
    assert result.streamed[0].descriptor.media_type == LAYER
    assert play.names == ["POST start", "PATCH", "PUT commit"] and play.needs == []


def test_an_empty_stream() -> None:
    play = Play()
    result = play.run(stream_push(stream(b"")))
    assert result.outcome is PushOutcome.PUSHED and result.streamed[0].descriptor.size == 0
    assert play.registry.content(Digest.of(b"")) == b""


def test_sha512() -> None:
    play = Play()
    result = play.run(stream_push(stream(CONTENT, algorithm="sha512")))
    assert result.streamed[0].descriptor.digest == Digest.of(CONTENT, "sha512")
    assert play.sent("POST start")[0].url.endswith("?digest-algorithm=sha512")


@pytest.mark.parametrize("draft", [image_of_streams, index_of_streams])
def test_two_streams_and_an_ordinary_blob(draft: object) -> None:
    play = Play()
    push = stream_push(stream(CONTENT), stream(b"two", "layer-1"), draft=draft, blobs=[blob(b"beside")])
    result = play.run(push)
    assert there(play, result)
    assert [s.key for s in result.streamed] == ["layer-0", "layer-1"]
    assert {Digest.of(b"two"), Digest.of(b"beside")} < play.registry.blobs(REPO)
    assert [s.key for s in play.needs[0].streams] == ["layer-0", "layer-1"]


def test_two_streams_with_the_same_content() -> None:
    play = Play()
    assert there(play, play.run(stream_push(stream(CONTENT), stream(CONTENT, "layer-1"))))


def test_a_stream_that_is_there_already_and_an_image_that_is() -> None:
    play = Play()
    first = play.run(PUSH)
    play.sends.clear()
    again = play.run(PUSH)
    assert there(play, again) and again.digest == first.digest
    assert play.names == ["POST start", "PATCH", "PUT commit", "HEAD tag"]


def test_only_so_many_streams_are_read_at_a_time() -> None:
    streams = [stream(bytes([n]), f"layer-{n}") for n in range(5)]
    play = Play({"PATCH": [HANG] * 5}, config=Config(stream_buffer_bytes=50, max_body_bytes=120))
    play.submit(stream_push(*streams))
    play.settle()
    assert len(play.sent("PATCH")) == 2
    for _ in range(5):
        play.answer(next(iter(play.held.values())), PASS)
        play.settle()
        assert len(play.held) <= 2
    assert play.results[1].outcome is PushOutcome.PUSHED


def test_its_size_grows_in_the_news() -> None:
    play = Play()
    play.submit(ALONE)
    send = play.until("PATCH")
    for sent in (10, 120):
        play.session.receive(play.now, Progress(id=send.id, phase=Phase.SENDING, bytes=sent))
        play.settle()
        play.now += 1.0
    play.answer(send, PASS)
    while not play.step():
        pass
    news = [(n.status, n.subject, n.sent_bytes, n.size_bytes) for n in play.notices]
    assert news == [
        (Status.UPLOADING, "layer-0", 10, 10),
        (Status.PROGRESS, "team/app", 10, 10),
        (Status.UPLOADING, "layer-0", 120, 120),
        (Status.PROGRESS, "team/app", 120, 120),
        (Status.UPLOADING, "layer-0", 200, 200),
        (Status.PROGRESS, "team/app", 200, 200),
        (Status.UPLOADED, "layer-0", 200, 200),
        (Status.PROGRESS, "team/app", 200, 200),
    ]
    assert play.told(Status.UPLOADED)[0].text == DIGEST


def test_a_source_may_take_its_time() -> None:
    play = Play(config=Config(idle_timeout_s=5))
    play.submit(ALONE)
    send = play.until("PATCH")
    play.session.receive(play.now, Progress(id=send.id, phase=Phase.SENDING))
    play.session.receive(play.now, Progress(id=send.id, phase=Phase.READING))
    play.now += 3_600
    play.settle()
    assert play.aborted == []
    play.session.receive(play.now, Progress(id=send.id, phase=Phase.SENDING, bytes=1))
    play.now += 6
    play.settle()
    assert play.aborted == [send.id]


# --- by ranges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [say(411, sent=0), say(413), say(501)])
def test_a_registry_that_wants_a_length_gets_ranges(refusal: Say) -> None:
    config = Config(stream_buffer_bytes=200)
    play = Play({"PATCH": [refusal]}, config=config)
    assert there(play, play.run(PUSH))
    assert bodies(play) == [(0, None), (0, 200)]
    play.run(stream_push(stream(b"other"), tags=("2.0",)))
    assert bodies(play)[2:] == ([(0, None)] if refusal.status == 413 else [(0, 200)])


def test_ranges_of_what_is_kept() -> None:
    play = Play(config=FORGETFUL, length_required=True)
    # Refused by its head, the body was never read far.
    play.on({"PATCH": [attrs.evolve(refuse(411, "SIZE_INVALID"), sent=50)]})
    assert there(play, play.run(PUSH))
    assert bodies(play) == [(0, None), (0, 50), (50, 50), (100, 50), (150, 50)]


def test_chunks_that_were_asked_for() -> None:
    play = Play(config=Config(chunk_bytes=80, stream_buffer_bytes=150))
    assert there(play, play.run(PUSH))
    assert bodies(play) == [(0, 80), (80, 80), (160, 80)]


def test_the_smallest_chunk_of_the_registry() -> None:
    play = Play(config=Config(chunk_bytes=10, stream_buffer_bytes=50), chunk_min_bytes=90)
    assert there(play, play.run(PUSH))
    assert bodies(play) == [(0, 90), (90, 90), (180, 90)]
    assert isinstance(body := play.sent("PATCH")[0].body, Stream) and body.keep_bytes == 90


def test_a_smallest_chunk_that_nobody_can_hold() -> None:
    play = Play(config=Config(chunk_bytes=10), chunk_min_bytes=10**10)
    assert "takes no chunk under 10000000000 bytes" in failed(play, play.run(PUSH))
    assert not play.registry.sessions(REPO)


def test_a_range_that_is_too_large_is_halved() -> None:
    content = bytes(300_000)
    play = Play(config=Config(chunk_bytes=200_000), max_body_bytes=120_000)
    result = play.run(stream_push(stream(content)))
    assert result.outcome is PushOutcome.PUSHED
    assert [limit for _, limit in bodies(play)] == [200_000, 100_000, 100_000, 100_000]


def test_a_proxy_that_takes_next_to_nothing() -> None:
    play = Play(config=Config(chunk_bytes=200_000), max_body_bytes=1_000)
    result = play.run(stream_push(stream(bytes(300_000))))
    assert isinstance(result.error, RegistryError) and result.error.status == 413
    assert not play.registry.sessions(REPO)


# --- faults -------------------------------------------------------------------------------------------------


def test_before_any_byte_was_taken_it_is_tried_again() -> None:
    play = Play({"PATCH": [NOT_SENT, NOT_SENT], "POST start": [NOT_SENT, say(503)]}, config=FORGETFUL)
    assert there(play, play.run(PUSH))
    assert bodies(play) == [(0, None)] * 3


@pytest.mark.parametrize("position", [0, 2, 120])
def test_it_goes_on_from_where_the_registry_has_it_while_that_is_kept(position: int) -> None:
    play = Play({"PATCH": [cut_after(position)]})
    assert there(play, play.run(PUSH))
    assert play.names[:6] == ["POST start", "PATCH", "GET session", "PATCH", "PUT commit", "HEAD tag"]
    rest = 8 * MIB if position else None
    assert bodies(play) == [(0, None), (position, rest)]


def test_of_one_byte_a_registry_says_the_same_as_of_none() -> None:
    play = Play({"PATCH": [cut_after(1)]})
    assert there(play, play.run(PUSH))
    assert bodies(play) == [(0, None)] * 3


def test_a_lost_answer() -> None:
    play = Play({"PATCH": [DONE_BUT_LOST], "PUT commit": [DONE_BUT_LOST]})
    assert there(play, play.run(PUSH))
    assert play.names[:5] == ["POST start", "PATCH", "GET session", "PUT commit", "HEAD blob"]


def test_what_is_kept_no_more_can_not_be_sent_again() -> None:
    # The registry got nothing of what the connection took.
    play = Play({"PATCH": [CUT]}, config=FORGETFUL)
    result = play.run(PUSH)
    assert AGAIN in failed(play, result) and "spool it to a file first" in str(result.error)
    assert "of its first 200 bytes only the last 50 are kept" in str(result.error)
    assert isinstance(result.error, TransportError) and not play.registry.sessions(REPO)
    assert play.names == ["POST start", "PATCH", "GET session", "DELETE session"]


def test_what_is_kept_is_enough() -> None:
    play = Play({"PATCH": [cut_after(170), Fail(FailureKind.CLOSED, Written.SOME, sent=10)]}, config=FORGETFUL)
    assert there(play, play.run(PUSH))
    assert bodies(play) == [(0, None), (170, 50), (170, 50)]


def test_a_lost_session_is_made_up_for_while_everything_is_kept() -> None:
    play = Play({"PATCH": [cut_after(100)]}, lost_sessions=True)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.told(Status.RESTARTED)[0].subject == "layer-0"
    assert bodies(play) == [(0, None), (0, None)]


def test_a_lost_session_ends_a_long_stream() -> None:
    play = Play({"PATCH": [cut_after(100)]}, config=FORGETFUL, lost_sessions=True)
    result = play.run(PUSH)
    assert AGAIN in failed(play, result) and "loses an upload session whose request is cut" in str(result.error)
    assert isinstance(result.error, RegistryError) and result.error.status == 404
    assert play.told(Status.RESTARTED) == []


def test_a_session_that_is_lost_again_and_again() -> None:
    play = Play({"PATCH": [say(404)] * 9}, config=Config(attempts=3))
    result = play.run(PUSH)
    assert "does not know the upload session" in failed(play, result)
    assert len(play.sent("PATCH")) == 3


def test_a_digest_that_is_refused_is_tried_once_more_while_everything_is_kept() -> None:
    play = Play({"PUT commit": [refuse(400, "DIGEST_INVALID")]})
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    play = Play({"PUT commit": [refuse(400, "DIGEST_INVALID")]}, config=FORGETFUL)
    result = play.run(PUSH)
    assert AGAIN in failed(play, result)
    assert isinstance(result.error, RegistryError) and result.error.codes == {"DIGEST_INVALID"}


def test_a_session_whose_end_is_out_of_order_goes_on() -> None:
    play = Play({"PUT commit": [say(416)]}, config=FORGETFUL)
    assert there(play, play.run(PUSH))


def test_an_answer_before_anything_was_sent_leads_nowhere() -> None:
    early = attrs.evolve(say(202, Location="/elsewhere"), sent=0)
    play = Play({"PATCH": always(early)}, config=Config(attempts=3))
    assert "got nowhere in 3 tries" in failed(play, play.run(PUSH))
    assert (len(play.sent("POST start")), len(play.sent("PATCH"))) == (3, 9)


def test_a_short_range_is_believed() -> None:
    play = Play(config=FORGETFUL)
    play.submit(PUSH)
    send = play.until("PATCH")
    play.registry.handle(request_of(attrs.evolve(send, body=CONTENT[:160])))
    answer = play.registry.handle(Request.to("GET", send.url))
    headers = {name: value for name, value in answer.headers if name in ("Location", "Range")}
    play.answer(send, say(202, **headers))
    while not play.step():
        pass
    assert there(play, play.results[1])
    assert bodies(play) == [(0, None), (160, 50)]


def test_a_range_that_is_out_of_order_is_sent_from_where_the_registry_is() -> None:
    play = Play(config=Config(chunk_bytes=150, stream_buffer_bytes=150))
    play.submit(PUSH)
    send = play.until("PATCH")
    # It took less than it says, and says so at the next range.
    play.registry.handle(request_of(attrs.evolve(send, body=CONTENT[:100])))
    location = play.registry.handle(Request.to("GET", send.url)).header("Location")
    assert location is not None
    play.answer(send, say(202, Location=location))
    while not play.step():
        pass
    assert there(play, play.results[1])
    assert bodies(play) == [(0, 150), (150, 150), (100, 150)]


def test_no_location() -> None:
    play = Play({"PATCH": [say(202)]})
    assert "without a Location" in failed(play, play.run(PUSH))


def test_a_source_that_can_not_be_read() -> None:
    play = Play({"PATCH": [Fail(FailureKind.CONTENT, Written.SOME, detail="disk on fire", sent=30)]})
    result = play.run(PUSH)
    assert "disk on fire" in failed(play, result) and isinstance(result.error, ContentError)
    assert not play.registry.sessions(REPO)
    assert play.told(Status.FAILED)[0].subject == "layer-0"


def test_a_refusal_is_the_registrys() -> None:
    play = Play({"PATCH": [refuse(403, "DENIED")]})
    result = play.run(PUSH)
    assert isinstance(result.error, RegistryError) and result.error.codes == {"DENIED"}
    assert AGAIN not in str(result.error)


def test_a_new_token_in_the_middle() -> None:
    play = Play({"PATCH": [PASS, say(401)]}, auth=Auth.BEARER, config=Config(chunk_bytes=120, stream_buffer_bytes=120))
    assert there(play, play.run(PUSH))


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_is_followed_while_nothing_is_gone(status: int) -> None:
    play = Play()
    play.submit(PUSH)
    send = play.until("PATCH")
    play.answer(send, say(status, Location=send.url))
    while not play.step():
        pass
    assert there(play, play.results[1])
    assert bodies(play) == [(0, None), (0, None)]


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_of_a_stream_that_was_partly_read(status: int) -> None:
    play = Play({"PATCH": [say(status, Location="/elsewhere")]}, config=FORGETFUL)
    result = play.run(PUSH)
    assert AGAIN in failed(play, result) and isinstance(result.error, RemoteProtocolError)


def test_a_manifest_that_does_not_find_the_stream() -> None:
    play = Play({"PUT tag": [refuse(404, "MANIFEST_BLOB_UNKNOWN", detail={"digest": DIGEST})]})
    result = play.run(PUSH)
    assert "there is no content to push it from" in failed(play, result)


# --- what is made of them -----------------------------------------------------------------------------------


def question(push: PushPlan = PUSH) -> Play:
    """A play whose question for content is not answered yet."""
    play = Play()
    play.submit(attrs.evolve(push, draft="mine"))
    play.settle()
    assert [(n.push_id, n.draft) for n in play.needs] == [(1, "mine")]
    return play


def test_nothing_can_be_made() -> None:
    play = question()
    play.session.receive(play.now, NoManifests(id=play.needs[0].id, error="no\nidea"))
    while not play.step():
        pass
    assert "nothing can be made of the streams: no\\nidea" in failed(play, play.results[1])


def test_what_is_made_is_checked() -> None:
    play = question()
    play.session.receive(play.now, Manifests(id=play.needs[0].id, root=None))
    while not play.step():
        pass
    assert "tags need a root manifest" in failed(play, play.results[1])
    play = question()
    other = image(b"not there")
    play.session.receive(play.now, Manifests(id=play.needs[0].id, root=other.digest, manifests=(other.manifest,)))
    while not play.step():
        pass
    assert "which is not in the plan" in failed(play, play.results[1])


def test_what_is_made_may_be_mounted() -> None:
    play = question()
    made = image_of_streams(play.needs[0])
    config = attrs.evolve(made.blobs[0], mount_from=blob(b"", "team/base").mount_from)
    play.registry.put_blob("team/base", made.blobs[0].source)  # type: ignore[arg-type]
    play.session.receive(play.now, attrs.evolve(made, blobs=(config,)))
    while not play.step():
        pass
    assert there(play, play.results[1]) and play.results[1].mounted == (config.descriptor.digest,)


def test_the_answer_is_not_wanted_any_more() -> None:
    play = question()
    play.session.cancel(1)
    while not play.step():
        pass
    assert play.results[1].outcome is PushOutcome.CANCELLED
    answer = NoManifests(id=play.needs[0].id, error="late")
    play.session.receive(play.now, answer)
    assert play.results[1].error is None
    with pytest.raises(LocalProtocolError, match="no question for content"):
        play.session.receive(play.now, answer)


# --- ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["POST start", "PATCH", "PUT commit"])
def test_a_cancelled_push_gives_its_session_back(at: str) -> None:
    play = Play()
    play.submit(PUSH)
    send = play.until(at)
    play.session.cancel(1, play.now)
    play.settle()
    if at == "POST start":
        play.answer(send, PASS)
    while not play.step():
        pass
    assert play.results[1].outcome is PushOutcome.CANCELLED
    assert not play.registry.sessions(REPO)


def test_another_blob_that_fails_ends_the_stream() -> None:
    play = Play({"HEAD blob": [say(403)], "POST blob": [refuse(403, "DENIED")]})
    result = play.run(attrs.evolve(PUSH, blobs=(blob(b"beside"),)))
    assert result.outcome is PushOutcome.FAILED and not play.registry.sessions(REPO)


# --- misuse -------------------------------------------------------------------------------------------------


def test_an_answer_says_how_the_stream_stands() -> None:
    play = Play()
    play.submit(PUSH)
    start = play.until("POST start")
    told = StreamStatus(sent=0, kept=0)
    with pytest.raises(LocalProtocolError, match="has no stream"):
        play.session.receive(play.now, Response(id=start.id, status=202, stream=told))
    play.answer(start, PASS)
    send = play.until("PATCH")
    with pytest.raises(LocalProtocolError, match="must say how its stream stands"):
        play.session.receive(play.now, Response(id=send.id, status=202))
    with pytest.raises(LocalProtocolError, match="must say how its stream stands"):
        play.session.receive(play.now, Failed(id=send.id, kind=FailureKind.CLOSED, written=Written.SOME))
    for wrong in (StreamStatus(sent=1, kept=2), StreamStatus(sent=9, kept=0, digest=DIGEST, size=8)):
        with pytest.raises(LocalProtocolError, match="impossible"):
            play.session.receive(play.now, Response(id=send.id, status=202, stream=wrong))
    play.session.receive(play.now, Failed(id=send.id, kind=FailureKind.CONNECT, written=Written.NONE))
    while not play.step():
        pass
    assert there(play, play.results[1])


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 129, "-x"])
def test_keys(key: str) -> None:
    with pytest.raises(ContentError, match="can't name a stream"):
        stream(b"", key)


def test_plans_that_can_not_be() -> None:
    with pytest.raises(ContentError, match="same key"):
        stream_push(stream(b""), stream(b""))
    made = image(b"there")
    for wrong in ({}, {"streams": [stream(b"")], "manifests": [made.manifest], "blobs": made.blobs}):
        with pytest.raises(ContentError, match="there must be streams, and no manifest"):
            PushPlan(repository=REPO, draft="x", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ContentError, match="tags need"):
        PushPlan(repository=REPO, streams=[stream(b"")], tags=("1.0",))
    with pytest.raises(ContentError, match="not supported"):
        stream(b"", algorithm="md5")
