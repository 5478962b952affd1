"""The same content into several repositories at the same time: sent into one, mounted from there into the others."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest

from core import HANG, LOST, PLAIN, Play, always, refuse
from pushes import blob, image
from regproto import MountSource, Push, PushOutcome

BASE, APP, MORE = "team/base", "team/app", "team/more"
CONTENT = b"shared"
DIGEST = blob(CONTENT).descriptor.digest


def into(repository: str, *sources: str, content: bytes = CONTENT) -> Push:
    return Push(repository=repository, blobs=[blob(content, *sources)])


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
