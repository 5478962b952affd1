"""The same content into several repositories at the same time: sent into one, mounted from there into the others."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest

from core import HANG, LOST, PASS, PATCHES, PLAIN, Fail, Play, always, refuse, say
from pushes import blob, blobs_push, image
from regproto import Config, FailureKind, MountSource, PushOutcome, PushPlan, Send, Written
from regproto._model.messages import BlobSlice

BASE, APP, MORE = "team/base", "team/app", "team/more"
CONTENT = b"shared"
DIGEST = blob(CONTENT).descriptor.digest


def into(repository: str, *sources: str, content: bytes = CONTENT) -> PushPlan:
    return PushPlan(repository=repository, blobs=[blob(content, *sources)])


def bodies(play: Play) -> list[str]:
    """The repositories that a body was sent into."""
    sends = [send for send in play.sends if send.body]
    return [urlsplit(send.url).path.removeprefix("/v2/").partition("/blobs/")[0] for send in sends]


def mounts(play: Play) -> list[str]:
    return [parse_qs(urlsplit(send.url).query)["from"][0] for send in play.sent("POST mount")]


def known(script: Any) -> Play:
    """A registry that has answered once, so that requests go together."""
    play = Play()
    play.run(into(MORE, content=b"first of all"))
    play.on(script)
    return play


@pytest.mark.parametrize("config", [None, PLAIN])
def test_sent_into_one_and_mounted_into_the_others(config: Any) -> None:
    play = Play(config=config)
    play.run(into(BASE), into(APP, BASE), into(MORE, BASE))
    assert [result.outcome for result in play.results.values()] == [PushOutcome.PUSHED] * 3
    assert bodies(play)[-1:] == [BASE] and set(bodies(play)) == {BASE}
    assert mounts(play) == [BASE, BASE]
    assert play.names.count("HEAD blob") == (3 if config else 2)
    assert play.results[2].mounted == play.results[3].mounted == (DIGEST,)
    for repository in (BASE, APP, MORE):
        assert DIGEST in play.registry.blobs(repository)


def test_a_chain_and_a_circle_of_sources() -> None:
    play = Play()
    play.run(into(BASE, MORE), into(APP, BASE), into(MORE, APP, BASE))
    assert set(bodies(play)) == {BASE}
    circle = Play()
    circle.run(into(BASE, APP), into(APP, BASE))
    assert {result.outcome for result in circle.results.values()} == {PushOutcome.PUSHED}


def test_other_content_waits_for_nothing() -> None:
    play = known({"POST blob team/base": [HANG]})
    number = play.submit(into(BASE), into(APP, BASE, content=b"other"))
    play.settle()
    assert play.results[number].outcome is PushOutcome.PUSHED


def test_sources_in_other_registries_are_not_waited_for() -> None:
    foreign = MountSource(repository=BASE, registry="other.example", foreign=True)
    play = known({"POST blob team/base": [HANG]})
    number = play.submit(into(BASE), attrs.evolve(into(APP), blobs=[blob(CONTENT, foreign)]))
    play.settle()
    assert number in play.results


@pytest.mark.parametrize("ending", ["refused", "lost for ever", "cancelled"])
def test_where_the_first_comes_to_nothing_the_next_sends_it_itself(ending: str) -> None:
    answer = {"refused": refuse(403, "DENIED"), "lost for ever": LOST, "cancelled": HANG}[ending]
    play = Play(
        {name: always(answer) for name in ("POST blob team/base", "HEAD blob team/base", "POST start team/base")}
    )
    play.submit(into(BASE), into(APP, BASE))
    if ending == "cancelled":
        play.settle()
        assert 2 not in play.results
        play.session.cancel(1, 0.0)
    while play.open:
        play.step()
    assert play.results[1].outcome is not PushOutcome.PUSHED
    assert play.results[2].outcome is PushOutcome.PUSHED and play.results[2].uploaded == (DIGEST,)


def test_one_that_waits_may_be_cancelled() -> None:
    play = Play({"POST blob team/base": [HANG]})
    play.submit(into(BASE), into(APP, BASE))
    play.settle()
    play.session.cancel(2, 0.0)
    play.settle()
    assert play.results[2].outcome is PushOutcome.CANCELLED and 1 not in play.results


def test_images_that_share_a_layer() -> None:
    layer = blob(CONTENT)
    ours = image(layer, config=b"1").push("1", repository=BASE)
    shared = blob(CONTENT, BASE)
    theirs = image(shared, config=b"2").push("1", repository=APP)
    play = Play(config=PLAIN)
    play.run(ours, theirs)
    assert {result.outcome for result in play.results.values()} == {PushOutcome.PUSHED}
    assert mounts(play) == [BASE]


# --- whose content is read --------------------------------------------------------------------------------------


def copy_of(push: PushPlan, **fields: Any) -> PushPlan:
    """The same with content of its own."""
    blobs = [attrs.evolve(b, source=bytes(bytearray(b.source)), **fields) for b in push.blobs]  # type: ignore[arg-type]
    return attrs.evolve(push, blobs=blobs)


OURS, THEIRS = blobs_push(blob(CONTENT)), copy_of(blobs_push(blob(CONTENT)))
NOWHERE = attrs.evolve(blob(b"nowhere"), source=None)
SENDING = {"POST blob": Config(), "PUT blob": PLAIN, "PATCH": PATCHES}


def reads(send: Send, push: PushPlan) -> bool:
    return isinstance(send.body, BlobSlice) and send.body.source is push.blobs[0].source


def sharing(request: str, *pushes: PushPlan, **options: Any) -> tuple[Play, Send]:
    """Pushes that share a blob, with the first one's content on its way."""
    play = Play(config=attrs.evolve(SENDING[request], **options))
    play.run(blobs_push(blob(b"first of all"), repository="team/first"))
    play.sends.clear()
    play.on({request: [HANG], f"HEAD blob {NOWHERE.descriptor.digest}": [HANG]})
    play.submit(*(pushes or (OURS, THEIRS)))
    play.settle()
    [send] = [held for held in play.held.values() if reads(held, OURS)]
    return play, send


def cancel_first(play: Play) -> None:
    play.session.cancel(2, play.now)
    play.settle()


@pytest.mark.parametrize("request_", SENDING)
def test_a_push_is_not_finished_while_its_content_is_read(request_: str) -> None:
    play, send = sharing(request_)
    cancel_first(play)
    assert not play.aborted and 2 not in play.results
    play.answer(send, PASS)
    play.settle()
    assert [play.results[n].outcome for n in (2, 3)] == [PushOutcome.CANCELLED, PushOutcome.PUSHED]
    assert sum(bool(s.body) for s in play.sends) == 1  # nothing was sent twice


@pytest.mark.parametrize("request_", SENDING)
def test_a_push_that_fails_is_not_finished_either(request_: str) -> None:
    play, send = sharing(request_, attrs.evolve(OURS, blobs=(*OURS.blobs, NOWHERE)), THEIRS)
    [look] = [held for held in play.held.values() if held is not send]
    play.answer(look, PASS)
    play.settle()
    assert not play.aborted and 2 not in play.results
    play.answer(send, PASS)
    play.settle()
    assert [play.results[n].outcome for n in (2, 3)] == [PushOutcome.FAILED, PushOutcome.PUSHED]


@pytest.mark.parametrize("written", Written)
@pytest.mark.parametrize("attempts", [1, 5])
@pytest.mark.parametrize("request_", SENDING)
def test_when_its_time_is_over_the_exchange_is_aborted(request_: str, attempts: int, written: Written) -> None:
    play, send = sharing(request_, attempts=attempts)
    cancel_first(play)
    play.when_aborted = Fail(FailureKind.ABORTED, written)
    play.now += play.session.config.cleanup_timeout_s
    play.settle()
    assert play.aborted == [send.id]
    assert [play.results[n].outcome for n in (2, 3)] == [PushOutcome.CANCELLED, PushOutcome.PUSHED]
    again = [s for s in play.sends if s.body]
    assert len(again) == 2 and reads(again[1], THEIRS)


@pytest.mark.parametrize("attempts", [1, 5])
@pytest.mark.parametrize("request_", SENDING)
def test_content_that_is_gone_with_its_push_is_no_fault_of_the_other(request_: str, attempts: int) -> None:
    play, send = sharing(request_, attempts=attempts)
    cancel_first(play)
    play.answer(send, Fail(FailureKind.CONTENT, Written.SOME))
    play.settle()
    assert [play.results[n].outcome for n in (2, 3)] == [PushOutcome.CANCELLED, PushOutcome.PUSHED]


@pytest.mark.parametrize("request_", SENDING)
def test_a_redirect_is_not_followed_with_it(request_: str) -> None:
    play, send = sharing(request_)
    cancel_first(play)
    play.answer(send, say(307, Location=send.url))
    play.settle()
    assert [play.results[n].outcome for n in (2, 3)] == [PushOutcome.CANCELLED, PushOutcome.PUSHED]
    assert [reads(s, OURS) for s in play.sends if s.body] == [True, False]


@pytest.mark.parametrize("request_", SENDING)
def test_a_redirect_that_is_queued_is_made_anew(request_: str) -> None:
    play, send = sharing(request_, max_exchanges=1)
    play.answer(send, say(307, Location=send.url))
    play.session.cancel(2, play.now)
    play.settle()
    assert [play.results[n].outcome for n in (2, 3)] == [PushOutcome.CANCELLED, PushOutcome.PUSHED]
    assert [reads(s, OURS) for s in play.sends if s.body] == [True, False]


@pytest.mark.parametrize("request_", SENDING)
def test_the_same_source_is_everyones(request_: str) -> None:
    play, send = sharing(request_, OURS, THEIRS, OURS)
    cancel_first(play)
    assert play.results[2].outcome is PushOutcome.CANCELLED  # the third has that very source
    play.session.cancel(4, play.now)
    play.settle()
    assert 4 not in play.results
    play.answer(send, PASS)
    play.settle()
    assert [play.results[n].outcome for n in (3, 4)] == [PushOutcome.PUSHED, PushOutcome.CANCELLED]


@pytest.mark.parametrize("request_", SENDING)
def test_whoever_is_left_and_has_no_content_can_only_look(request_: str) -> None:
    empty = attrs.evolve(OURS, blobs=[attrs.evolve(OURS.blobs[0], source=None)])
    play, send = sharing(request_, OURS, empty)
    cancel_first(play)
    if send.id in play.held:
        play.answer(send, Fail(FailureKind.ABORTED))
    play.settle()
    assert play.results[2].outcome is PushOutcome.CANCELLED
    assert "no content" in str(play.results[3].error)
    assert sum(bool(s.body) for s in play.sends) == 1 and not play.registry.sessions(empty.repository)


@pytest.mark.parametrize("request_", SENDING)
def test_both_are_cancelled(request_: str) -> None:
    play, send = sharing(request_)
    cancel_first(play)
    play.session.cancel(3, play.now)
    play.settle()
    if send.id in play.held:
        play.answer(send, PASS)
        play.settle()
    assert {play.results[n].outcome for n in (2, 3)} == {PushOutcome.CANCELLED}
    assert not play.registry.sessions(OURS.repository) and not play.session._graph.nodes


def test_one_of_many_that_share_a_blob_is_cancelled() -> None:
    play, send = sharing("PUT blob", OURS, *(copy_of(THEIRS) for _ in range(1_000)))
    for number in range(2, 1_002):
        play.session.cancel(number, play.now)
    play.settle()
    assert sorted(play.results) == [1, *range(3, 1_002)]
    play.answer(send, PASS)
    play.settle()
    assert play.results[1_002].outcome is PushOutcome.PUSHED and not play.open
