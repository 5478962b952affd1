"""What a push may take to be there: what it was answered itself, and what pushes that overlap it were.

The numbers of requests stand here so that a change of them shows.
"""

from __future__ import annotations

import pytest

from core import HANG, PASS, PLAIN, Play, refuse
from pushes import REPO, blob, blobs_push, image, index, stream, stream_push
from regproto import PushOutcome, PushPlan
from regproto._engine.presence import Presence
from regproto._engine.push_state import PushState
from regproto._model.config import KNOWN_MAX
from regproto._model.digest import Digest

CONTENT = b"0123456789"
IMAGE = image(b"layer")
ATTACHED = image(
    b"signature",
    subject={
        "mediaType": IMAGE.manifest.descriptor.media_type,
        "digest": IMAGE.digest,
        "size": IMAGE.manifest.descriptor.size,
    },
)
WHOLE = index(image(b"a", b"shared", config=b"1"), image(b"b", b"shared", config=b"2"))
HOLD = blobs_push(blob(b"held"), repository="team/held")
"""A push that stays under way while its POST is not answered."""


def held() -> Play:
    """A session with a push under way that does not end."""
    play = Play()
    play.run(blobs_push(blob(b"first of all"), repository="team/first"))  # so that requests go together
    play.on({"POST blob team/held": [HANG]})
    play.submit(HOLD)
    play.settle()
    return play


def names(play: Play, *pushes: PushPlan) -> list[str]:
    """What these ask, begun together."""
    play.sends.clear()
    numbers = [play.session.submit(push) for push in pushes]
    play.open.update(numbers)
    play.settle()
    assert [play.results[number].outcome for number in numbers] == [PushOutcome.PUSHED] * len(numbers)
    return play.names


# --- one after the other ----------------------------------------------------------------------------------------

AGAIN: dict[str, tuple[PushPlan, list[str]]] = {
    "blob, small": (blobs_push(blob(CONTENT)), ["POST blob"]),
    "blob": (blobs_push(blob(bytes(300_000))), ["HEAD blob"]),
    "two blobs": (blobs_push(blob(CONTENT), blob(bytes(300_000))), ["POST blob", "HEAD blob"]),
    "image by digest": (IMAGE.push(), ["HEAD manifest"]),
    "image by tag": (IMAGE.push("1.0"), ["HEAD tag"]),
    "three tags": (IMAGE.push("1", "2", "3"), ["HEAD tag"] * 3),
    "index by digest": (WHOLE.push(), ["HEAD manifest"]),
    "manifest alone": (IMAGE.bare(), ["HEAD manifest"]),
    "attachment": (ATTACHED.push(), ["POST blob", "POST blob", "PUT manifest"]),
    "stream": (stream_push(stream(b"stream")), ["POST start", "PATCH", "PUT commit", "HEAD tag"]),
}


@pytest.mark.parametrize("what", AGAIN)
def test_a_second_push_asks_again(what: str) -> None:
    push, again = AGAIN[what]
    play = Play()
    play.run(IMAGE.push())
    play.run(push)
    assert sorted(names(play, push)) == sorted(again)
    assert play.results[max(play.results)].requests == len(again) > 0


@pytest.mark.parametrize("what", AGAIN)
def test_so_it_does_beside_another_that_overlapped_the_first(what: str) -> None:
    push, again = AGAIN[what]
    play = held()
    names(play, IMAGE.push())
    names(play, push)
    assert sorted(names(play, push)) == sorted(again)


def test_gone_meanwhile_is_pushed_anew() -> None:
    play = Play()
    play.run(IMAGE.push())
    play.on({"HEAD manifest": [refuse(404, "MANIFEST_UNKNOWN")]})
    assert names(play, IMAGE.push()) == ["HEAD manifest", "POST blob", "POST blob", "PUT manifest"]


# --- overlapping ------------------------------------------------------------------------------------------------


def test_two_together_ask_once() -> None:
    for push, requests in ((WHOLE.push("1"), 11), (IMAGE.push(), 4), (blobs_push(blob(CONTENT)), 1)):
        alone, both = Play(), Play()
        alone.run(push)
        both.run(push, push)
        assert len(alone.sends) == len(both.sends) == requests
        assert [result.outcome for result in both.results.values()] == [PushOutcome.PUSHED] * 2


def test_what_is_named_is_shared_while_the_push_that_learned_it_goes_on() -> None:
    # The first has put its layer and waits for its tag; the second names that layer too.
    play = Play({"PUT tag": [HANG]})
    play.submit(image(b"shared", config=b"1").push("1"))
    play.settle()
    assert names(play, image(b"shared", config=b"2").push("2")) == ["HEAD tag", "POST blob", "PUT tag"]


def test_what_was_asked_for_itself_is_not() -> None:
    play = Play({"PUT tag": [HANG]}, config=PLAIN)
    play.submit(image(b"shared", config=b"1").push("1"))
    play.settle()
    assert names(play, blobs_push(blob(b"shared"))) == ["HEAD blob"]


def test_it_is_shared_with_those_that_overlapped_and_no_later_ones() -> None:
    play = held()
    over = image(b"shared", config=b"1")
    assert names(play, over.push("1")) == ["HEAD tag", "POST blob", "POST blob", "PUT tag"]
    presence = play.session._pushes.presence
    assert presence.known  # for the push that is held, which might need it
    # Begun after that: it never overlapped it, although both overlap the one that is held.
    assert names(play, image(b"shared", config=b"2").push("2")) == ["HEAD tag", "POST blob", "POST blob", "PUT tag"]
    play.answer(play.held.popitem()[1], PASS)
    play.settle()
    assert not presence.known and not presence.fading and not play.session._graph.nodes


def test_a_push_that_only_relied_on_it_has_not_learned_it() -> None:
    play = Play({"PUT tag team/app/manifests/1": [HANG], "PUT tag team/app/manifests/2": [HANG]})
    play.submit(image(b"shared", config=b"1").push("1"))
    play.settle()
    play.submit(image(b"shared", config=b"2").push("2"))
    play.settle()
    first, second = play.held
    play.answer(play.held[first], PASS)
    play.settle()
    assert 1 in play.results and 2 not in play.results
    # The second overlapped the first; the third overlaps only the second.
    assert names(play, image(b"shared", config=b"3").push("3")) == ["HEAD tag", "POST blob", "POST blob", "PUT tag"]
    play.answer(play.held[second], PASS)
    play.settle()
    assert not play.session._pushes.presence.known


def test_a_tag_that_another_push_put_is_looked_at() -> None:
    play = Play({"PUT tag team/app/manifests/2": [HANG]})
    play.submit(IMAGE.push("1", "2"))
    play.settle()
    assert "1" in play.registry.tags(REPO)
    assert names(play, IMAGE.push("1")) == ["HEAD tag"]


SHARED = blob(b"shared").descriptor.digest
SHARES = image(b"shared", config=b"1")


CONFIG = blob(b"1").descriptor.digest


@pytest.mark.parametrize("cancelled", ["", "first", "second"])
@pytest.mark.parametrize("joins", ["before it is begun", "when it waits"])
def test_a_manifest_waits_for_what_one_of_its_pushes_may_not_rely_on(joins: str, cancelled: str) -> None:
    play = Play()
    play.run(blobs_push(blob(b"first of all"), repository="team/first"))
    play.on({"HEAD tag": [HANG], f"POST blob {CONFIG}": [HANG]})
    pushes = {"first": play.submit(SHARES.push("1"))}
    play.settle()
    [look] = play.held.values()
    names(play, blobs_push(blob(b"shared")))  # which the first overlaps, and the second does not
    if joins == "when it waits":
        play.answer(look, PASS)
        play.settle()
    play.on({f"POST blob {CONFIG}": [HANG], f"POST blob {SHARED}": [HANG]})
    pushes["second"] = play.submit(SHARES.push("1"))
    play.settle()
    if joins == "before it is begun":
        play.answer(look, PASS)
        play.settle()
    config, shared = sorted(play.held.values(), key=lambda send: SHARED in send.url)
    if cancelled:
        play.session.cancel(pushes.pop(cancelled), play.now)
    play.answer(config, PASS)
    play.settle()
    assert "PUT tag" not in play.names
    play.answer(shared, PASS)
    play.settle()
    assert [play.results[number].outcome for number in pushes.values()] == [PushOutcome.PUSHED] * len(pushes)
    assert play.names.count("PUT tag") == 1 and not play.session._graph.nodes


# --- what is remembered -----------------------------------------------------------------------------------------


def test_pushes_one_after_the_other_leave_nothing() -> None:
    play = Play()
    for number in range(3_000):
        for seen in (play.sends, play.results, play.notices, play.edges):
            seen.clear()
        assert play.run(IMAGE.push("1", repository=f"team/app{number}")).requests == 4
    session = play.session
    assert not session._graph.nodes and not session._pushes.presence.known and not session._pushes.presence.fading


def test_one_long_push_beside_many() -> None:
    presence = Presence()
    plan = blobs_push()
    works = [PushState(id=number, plan=plan, manifests={}, blobs={}) for number in range(1, KNOWN_MAX + 11)]
    later = PushState(id=KNOWN_MAX + 11, plan=plan, manifests={}, blobs={})
    for work in works[1:]:
        presence.next_id = work.id + 1
        digest = Digest.of(str(work.id).encode())
        presence.learn(REPO, digest, digest, [work])
        presence.ended(work, oldest=1)
    assert len(presence.known) == len(presence.fading) == KNOWN_MAX
    assert presence.holds(works[0], digest) and not presence.holds(later, digest)
    presence.ended(works[0], oldest=presence.next_id)
    assert not presence.known and not presence.fading
