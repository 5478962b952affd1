"""The session: its contract, pushes side by side, limits, cancelling."""

from __future__ import annotations

import math

import pytest

from core import (
    BASE,
    HANG,
    PASS,
    PATCHES,
    PLAIN,
    Answer,
    Fail,
    Play,
    always,
    name_of,
    refuse,
    say,
)
from pushes import REPO, Image, blob, blobs_push, image, index
from regproto import (
    Config,
    Credentials,
    Failed,
    FailureKind,
    LocalProtocolError,
    NoCredentials,
    Phase,
    Progress,
    PushOutcome,
    PushPlan,
    RegistryError,
    ResolveReference,
    Response,
    Send,
    Session,
    Status,
    Wait,
    Written,
)
from regproto._engine.lanes import LIGHT_PLACES
from regproto.testing import Auth

CONTENT = b"0123456789"
PUSH = blobs_push(blob(CONTENT))
WHOLE = index(image(b"a", b"shared", config=b"1"), image(b"b", b"shared", config=b"2"))

# --- the contract -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["registry.example", "https://registry.example/v2", "ftp://x", "https://u:p@x", ""])
def test_a_registry_url_that_is_none(url: str) -> None:
    with pytest.raises(LocalProtocolError):
        Session(url)


def test_nothing_to_do() -> None:
    session = Session(BASE + "/")
    assert session.poll(0.0) == Wait(until=math.inf) and session.registry == "registry.example"
    assert session.take_journal() == []


def test_an_empty_push_is_over_at_once() -> None:
    play = Play()
    assert play.run(PushPlan(repository=REPO)).outcome is PushOutcome.PUSHED
    assert play.names == []


def test_misuse_changes_nothing() -> None:
    play = Play()
    play.submit(PUSH)
    sent = play.until("POST blob")
    session, unknown = play.session, sent.id + 100
    for event in (
        Response(id=unknown, status=200),
        Failed(id=unknown, kind=FailureKind.CLOSED, written=Written.ALL),
        Progress(id=unknown, phase=Phase.SENDING),
        Credentials(id=sent.id),
        NoCredentials(id=unknown),
        Response(id=sent.id, status=100),
        Response(id=sent.id, status=1000),
    ):
        with pytest.raises(LocalProtocolError):
            session.receive(1e6, event)
    for push_id in (0, -1, 2):
        with pytest.raises(LocalProtocolError):
            session.cancel(push_id, now=1e6)
    assert session.poll(0.0) == Wait(until=Config().connect_timeout_s), "the clock stands where it was"
    play.answer(sent, PASS)
    with pytest.raises(LocalProtocolError):
        session.receive(0.0, Response(id=sent.id, status=201))
    assert play.run().outcome is PushOutcome.PUSHED


def test_content_can_only_fail_where_there_is_some() -> None:
    play = Play(config=PLAIN)
    play.submit(PUSH)
    sent = play.until("HEAD blob")
    with pytest.raises(LocalProtocolError):
        play.session.receive(0.0, Failed(id=sent.id, kind=FailureKind.CONTENT, written=Written.SOME))
    play.answer(sent, PASS)
    assert play.run().outcome is PushOutcome.PUSHED


def test_time_does_not_run_backwards() -> None:
    play = Play({"POST blob": [say(503)]})
    play.submit(PUSH)
    play.answer(play.until("POST blob"), say(503))
    until = play.settle()
    assert play.session.poll(-1e9) == Wait(until=until)
    play.session.cancel(1, now=-1e9)
    assert play.run().outcome is PushOutcome.CANCELLED


def test_polling_again_says_the_same() -> None:
    play = Play({"POST blob": [HANG]})
    play.submit(PUSH)
    play.until("POST blob")
    assert [play.session.poll(1.0) for _ in range(3)] == [Wait(until=Config().connect_timeout_s)] * 3


def test_the_same_seed_and_answers_the_same_requests() -> None:
    plays = [Play({"PATCH": [say(503)] * 3}, config=PATCHES) for _ in range(2)]
    for play in plays:
        play.run(WHOLE.push("1.0"), PUSH)
    assert plays[0].sends == plays[1].sends and plays[0].now == plays[1].now > 0
    assert plays[0].edges == plays[1].edges and plays[0].edges[-1][0] == "manifest"


def test_headers_of_every_request() -> None:
    play = Play(config=Config(user_agent="me/1"))
    play.run(WHOLE.push("1.0"))
    for send in play.sends:
        names = [name.lower() for name, _ in send.headers]
        assert ("User-Agent", "me/1") in send.headers and len(names) == len(set(names))
        assert not {"host", "content-length", "connection", "cookie"} & set(names)
    assert [send.id for send in play.sends] == sorted({send.id for send in play.sends})


@pytest.mark.parametrize("agent", ["me/1\r\nX: y", "mé/1", "me\0", "\udcff"])
def test_a_user_agent_that_no_header_can_carry(agent: str) -> None:
    with pytest.raises(LocalProtocolError, match="user_agent must be printable ASCII"):
        Config(user_agent=agent)


def test_cookies_are_never_kept() -> None:
    play = Play({"HEAD tag": [say(404, Set_Cookie="sid=1; Path=/")]})
    play.run(WHOLE.push("1.0"))
    assert not any(name.lower() == "cookie" for send in play.sends for name, _ in send.headers)


def test_what_it_took() -> None:
    play = Play(config=PLAIN)
    first = play.run(PUSH)
    assert (first.requests, first.sent_bytes) == (3, 10)
    assert (play.run(blobs_push(blob(b"xyz"))).requests, play.results[2].sent_bytes) == (3, 3)


# --- limits -----------------------------------------------------------------------------------------------------


def in_flight(play: Play) -> int:
    play.script = {name: always(HANG) for name in ("HEAD blob", "POST blob", "PUT blob")}
    play.settle()
    return len(play.held)


def many(count: int, size: int) -> PushPlan:
    return blobs_push(*(blob(bytes([n]) * size) for n in range(count)))


def test_one_request_until_the_origin_has_answered() -> None:
    play = Play(config=PLAIN)
    play.submit(many(5, 10))
    first = play.until("HEAD blob")
    assert in_flight(play) == 1
    play.answer(first, say(404))
    assert in_flight(play) == 5 and sorted(name_of(s) for s in play.held.values()) == ["HEAD blob"] * 4 + ["PUT blob"]


def test_exchanges_are_bounded() -> None:
    play = Play(config=Config(max_exchanges=3, small_blob_bytes=0))
    play.run(PUSH)
    play.submit(many(10, 10))
    assert in_flight(play) == 3
    for send in list(play.held.values()):
        play.answer(send, PASS)
    assert in_flight(play) == 3


@pytest.mark.parametrize(("size", "together"), [(100, 2), (150, 1), (1_000, 1)])
def test_body_bytes_are_bounded_but_one_always_goes(size: int, together: int) -> None:
    play = Play(config=Config(max_body_bytes=250))
    play.run(PUSH)
    play.submit(many(6, size))
    assert in_flight(play) == together


def test_no_push_starves_another() -> None:
    play = Play(config=Config(max_exchanges=1, small_blob_bytes=0))
    play.run(PUSH)
    play.sends.clear()
    other = blobs_push(blob(b"x"), blob(b"y"), repository="team/other")
    play.run(many(20, 10), other)
    first = [f"/{REPO}/" in send.url for send in play.sends[:4]]
    assert first == [True, False, True, False]


@pytest.mark.parametrize("places", [2, 3, 8, 32])
def test_bodies_and_requests_without_one_leave_places_to_each_other(places: int) -> None:
    play = Play(config=Config(max_exchanges=places))
    play.run(PUSH)
    play.submit(many(200, 10))
    assert in_flight(play) == places
    tags = [f"1.{n}" for n in range(200)]
    for tag in tags:
        play.registry.put_manifest("team/other", image(b"x").manifest.content, tag)
    play.submit(PushPlan(repository="team/other", lookups=tuple(ResolveReference(reference=tag) for tag in tags)))
    play.script["HEAD tag"] = always(HANG)
    for _ in range(3 * places):
        play.answer(next(iter(play.held.values())), PASS)
        play.settle()
    held = [name_of(send) for send in play.held.values()]
    assert held.count("HEAD tag") == min(LIGHT_PLACES, places // 2) and len(held) == places


# --- pushes side by side ----------------------------------------------------------------------------------------


def test_the_first_fatal_error_stops_the_siblings_and_no_other_push() -> None:
    denied = refuse(403, "DENIED", "not you")
    play = Play({"POST blob team/bad": [HANG, denied, *[HANG] * 9]})
    bad = WHOLE.push("1.0", repository="team/bad")
    play.submit(bad, WHOLE.push("1.0"))
    play.run()
    assert isinstance(play.results[1].error, RegistryError) and "not you" in str(play.results[1].error)
    assert play.results[1].outcome is PushOutcome.FAILED and play.aborted
    assert play.results[2].outcome is PushOutcome.PUSHED
    assert not play.registry.manifests("team/bad") and "1.0" in play.registry.tags(REPO)
    assert any(notice.status is Status.FAILED and "not you" in notice.text for notice in play.notices)


def test_a_shared_blob_that_fails_fails_both() -> None:
    play = Play({"POST blob": [refuse(403, "DENIED")]})
    play.run(PUSH, PUSH)
    assert [play.results[n].outcome for n in (1, 2)] == [PushOutcome.FAILED] * 2
    assert len(play.sends) == 1


def test_what_a_cancelled_push_had_begun_goes_on_for_another() -> None:
    play = Play(config=PATCHES)
    play.submit(PUSH, blobs_push(blob(CONTENT), blob(b"more")))
    sent = play.until("PATCH")
    play.session.cancel(1)
    assert not play.aborted
    play.answer(sent, PASS)
    assert play.run().outcome is PushOutcome.PUSHED
    assert play.results[1].outcome is PushOutcome.CANCELLED
    assert play.names.count("PATCH") == 2 and len(play.registry.blobs(REPO)) == 2


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_one_image_under_a_tag_for_each_push(order: tuple[int, int]) -> None:
    play = Play()
    play.submit(WHOLE.push("one"), WHOLE.push("two"))
    play.until("POST blob")
    play.session.cancel(order[0])
    play.run()
    assert play.results[order[0]].outcome is PushOutcome.CANCELLED
    assert play.results[order[1]].outcome is PushOutcome.PUSHED
    assert set(play.registry.tags(REPO)) == {"one" if order[1] == 1 else "two"}


def test_an_image_another_push_was_putting_under_its_tag() -> None:
    child, *_ = WHOLE.children
    play = Play()
    play.submit(child.push("child"), WHOLE.push("1.0"))
    play.until("POST blob")
    play.session.cancel(1)
    assert play.run().outcome is PushOutcome.PUSHED
    assert child.digest in play.registry.manifests(REPO) and set(play.registry.tags(REPO)) == {"1.0"}


# --- cancelling -------------------------------------------------------------------------------------------------

MOUNT = blobs_push(blob(CONTENT, "base/one"))
IMAGE: Image = image(CONTENT)
STAGES: list[tuple[Config, PushPlan, str]] = [
    (PLAIN, PUSH, "HEAD blob"),
    (PLAIN, PUSH, "PUT blob"),
    (PATCHES, PUSH, "PATCH"),
    (PATCHES, PUSH, "PUT commit"),
    (Config(), IMAGE.push("1.0"), "HEAD tag"),
    (Config(), IMAGE.push("1.0"), "PUT tag"),
    (Config(), IMAGE.push(), "PUT manifest"),
]


@pytest.mark.parametrize("answer", [PASS, Fail(FailureKind.ABORTED), say(401)], ids=["answered", "aborted", "401"])
@pytest.mark.parametrize(("config", "push", "stage"), STAGES, ids=lambda value: value if isinstance(value, str) else "")
def test_cancelled(config: Config, push: PushPlan, stage: str, answer: Answer) -> None:
    play = Play(config=config)
    play.when_aborted = answer
    push_id = play.submit(push)
    sent = play.until(stage)
    play.session.cancel(push_id)
    play.session.cancel(push_id)
    result = play.run()
    assert result.outcome is PushOutcome.CANCELLED and result.error is None
    assert play.aborted[0] == sent.id and play.now == 0
    assert not play.registry.sessions(REPO)
    assert play.run(push).outcome is PushOutcome.PUSHED, "the session lives on"


@pytest.mark.parametrize("answer", [PASS, Fail(FailureKind.CLOSED), say(401)], ids=["answered", "lost", "401"])
@pytest.mark.parametrize(
    ("config", "push", "stage"),
    [(PLAIN, PUSH, "POST start"), (PLAIN, MOUNT, "POST mount"), (Config(), PUSH, "POST blob")],
    ids=["start", "mount", "POST"],
)
@pytest.mark.parametrize("single_post", [201, 202])
def test_cancelled_while_a_session_is_opened(
    config: Config, push: PushPlan, stage: str, answer: Answer, single_post: int
) -> None:
    # Its answer is waited for: it says what is to be given back.
    play = Play(config=config, single_post=single_post)
    push_id = play.submit(push)
    sent = play.until(stage)
    play.session.cancel(push_id)
    assert not play.aborted
    play.answer(sent, answer)
    assert play.run().outcome is PushOutcome.CANCELLED
    assert not play.aborted and not play.registry.sessions(REPO)


def test_cancelled_in_a_single_post_that_the_registry_is_known_to_take() -> None:
    play = Play()
    play.run(blobs_push(blob(b"another")))
    push_id = play.submit(PUSH)
    sent = play.until("POST blob")
    play.session.cancel(push_id)
    assert play.run().outcome is PushOutcome.CANCELLED
    assert play.aborted == [sent.id] and not play.registry.sessions(REPO)


def test_cancelled_before_anything_was_sent() -> None:
    play = Play()
    play.session.cancel(play.submit(WHOLE.push("1.0")))
    assert play.run().outcome is PushOutcome.CANCELLED and play.names == []


def test_cancelled_while_it_waits_to_try_again() -> None:
    play = Play({"PATCH": [say(503)]}, config=PATCHES)
    push_id = play.submit(PUSH)
    play.settle()
    play.session.cancel(push_id)
    assert play.run().outcome is PushOutcome.CANCELLED
    assert not play.registry.sessions(REPO) and play.now == 0


def test_cancelled_while_it_waits_to_open_a_session_again() -> None:
    play = Play({"POST start": [say(503)]}, config=PLAIN)
    push_id = play.submit(PUSH)
    play.settle()
    play.session.cancel(push_id)
    assert play.run().outcome is PushOutcome.CANCELLED
    play.now = 1_000.0  # the time of the next try comes and goes
    assert play.run(blobs_push(blob(b"another"))).outcome is PushOutcome.PUSHED


def test_an_abort_is_void_once_the_answer_has_come() -> None:
    play = Play(config=PATCHES)
    push_id = play.submit(PUSH)
    sent = play.until("PATCH")
    play.session.cancel(push_id)
    play.answer(sent, PASS)
    assert play.run().outcome is PushOutcome.CANCELLED and play.aborted == []


def test_cancelled_while_it_waits_for_the_keychain() -> None:
    play = Play(auth=Auth.BEARER)
    play.keychain_waits = True
    push_id = play.submit(PUSH)
    play.settle()
    play.session.cancel(push_id)
    assert play.run().outcome is PushOutcome.CANCELLED


def test_cancelled_while_a_session_is_given_back() -> None:
    play = Play({"PATCH": [refuse(403, "DENIED")]}, config=PATCHES)
    push_id = play.submit(PUSH)
    sent = play.until("DELETE session")
    play.session.cancel(push_id)
    play.answer(sent, PASS)
    assert play.run().outcome is PushOutcome.FAILED
    play.session.cancel(push_id)
    assert isinstance(play.session.poll(0.0), Wait)


def test_finished_comes_after_the_last_exchange() -> None:
    play = Play(config=PATCHES)
    push_id = play.submit(PUSH)
    play.until("PATCH")
    play.session.cancel(push_id)
    kinds = []
    while not play.results:
        output = play.poll()
        kinds.append(name_of(output) if isinstance(output, Send) else type(output).__name__)
        if isinstance(output, Wait):
            play.answer_next()
    assert kinds[0] == "Abort" and kinds[-1] == "Finished" and "DELETE session" in kinds
