"""Upload sessions that a push opens: never more than twice the places, and each is given back, or said."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import attrs
import pytest

from core import HANG, LOST, NOT_SENT, PASS, PATCHES, PLAIN, Answer, Fail, Play, always, name_of, refuse, say
from pushes import REPO, blob, blobs_push, stream, stream_push
from regproto import Config, FailureKind, Phase, Progress, PushOutcome, Status, Written
from regproto.testing import RegistryOptions


def _benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "open_sessions.py"
    spec = importlib.util.spec_from_file_location("open_sessions", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BENCH = _benchmark()
CONTENT = b"0123456789"
PUSH = blobs_push(blob(CONTENT))


# --- many blobs, few places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [1, 2, 6, 12])
@pytest.mark.parametrize(
    "switches",
    [{}, {"single_post": 405}, {"single_post": 202}, {"single_post": 405, "mount": False}, {"mount": False}],
    ids=str,
)
@pytest.mark.parametrize("every", [1, 3])
def test_two_sources_of_which_the_first_has_nothing(places: int, switches: dict[str, int], every: int) -> None:
    push = BENCH.plan(100)
    registry = BENCH.filled(push, RegistryOptions(**switches), every)
    opened = BENCH.simulated(push, registry, Config(max_exchanges=places))
    assert opened.result.outcome is PushOutcome.PUSHED
    assert opened.left == opened.result.left_open == 0 and opened.most <= 2 * places
    # A look at each blob here and in the second source; in the first, eight looks, those under way then, and those for
    # what the second lacks.
    assert opened.requests["HEAD"] <= 200 + 8 + places + (100 - 100 // every)


def test_over_sockets() -> None:
    push = BENCH.plan(60)
    opened = BENCH.on_sockets(push, BENCH.filled(push, every=2), Config(max_exchanges=8), 0.02)
    assert opened.result.outcome is PushOutcome.PUSHED and len(opened.result.mounted) == 30
    assert opened.left == opened.result.left_open == 0 and opened.most <= 16


@pytest.mark.parametrize("places", [1, 3])
def test_sources_that_can_not_be_told_from_each_other_open_one_session_at_a_time(places: int) -> None:
    """403 to every look: each refused mount opens a session, which is given back before the next."""
    most = 0
    play = Play({"HEAD source": always(say(403))}, config=attrs.evolve(PLAIN, max_exchanges=places))
    play.submit(blobs_push(*(blob(b"layer %d" % n, "base/one", "base/two", "base/three") for n in range(20))))
    while not play.step():
        most = max(most, len(play.registry.sessions(REPO)))
    assert play.results[1].outcome is PushOutcome.PUSHED and len(play.results[1].uploaded) == 20
    assert most <= 2 * places and not play.registry.sessions(REPO)


@pytest.mark.parametrize("config", [PLAIN, PATCHES, Config()], ids=["put", "patch", "post"])
@pytest.mark.parametrize("cancelled_at", range(0, 40, 3))
def test_with_one_place_everything_ends_however_late_it_is_cancelled(config: Config, cancelled_at: int) -> None:
    play = Play(config=attrs.evolve(config, max_exchanges=1), mount=False, single_post=202)
    play.submit(
        blobs_push(*(blob(b"layer %d" % n, "base/one", "base/two") for n in range(6))),
        stream_push(stream(b"a stream"), repository="team/other"),
    )
    for _ in range(cancelled_at):
        play.step()
    play.session.cancel(1, play.now)
    play.run()
    assert play.results[2].outcome is PushOutcome.PUSHED
    assert not play.registry.sessions(REPO) and not play.registry.sessions("team/other")
    assert (
        play.results[1].left_open == 0 and not play.session._scheduler.sessions and not play.session._scheduler.opening
    )


def test_what_ends_a_session_goes_before_what_opens_one() -> None:
    play = Play({"PUT blob": [refuse(403, "DENIED")]}, config=attrs.evolve(PLAIN, max_exchanges=1))
    many = blobs_push(*(blob(b"layer %d" % n) for n in range(10)), repository="team/other")
    play.submit(PUSH, many)
    while 1 not in play.results:
        play.step()
    denied = next(n for n, send in enumerate(play.sends) if send.method == "PUT" and f"/{REPO}/" in send.url)
    assert play.names[denied + 1] == "DELETE session"
    play.run()


def test_what_waits_for_room_is_not_lost_when_its_push_ends() -> None:
    config = attrs.evolve(PLAIN, max_exchanges=1)
    play = Play({"PUT blob": [HANG]}, config=config)
    first = play.submit(blobs_push(*(blob(b"layer %d" % n) for n in range(10))))
    play.settle()
    play.submit(blobs_push(*(blob(b"other %d" % n) for n in range(10)), repository="team/other"))
    play.session.cancel(first, play.now)
    assert play.run().outcome is PushOutcome.PUSHED and not play.registry.sessions(REPO)


# --- given back, or said ----------------------------------------------------------------------------------------


def _said(play: Play) -> list[str]:
    return [notice.text for notice in play.told(Status.LEFT_OPEN)]


@pytest.mark.parametrize("answer", [refuse(403, "DENIED"), refuse(405, "UNSUPPORTED"), say(500), say(302), LOST])
def test_a_session_that_the_registry_does_not_take_back_is_said(answer: Answer) -> None:
    play = Play({"PUT blob": [refuse(403, "DENIED")], "DELETE session": always(answer)}, config=PLAIN)
    result = play.run(PUSH)
    assert result.outcome is PushOutcome.FAILED and result.left_open == 1
    [text] = _said(play)
    assert text.startswith("1 upload session stays open")


@pytest.mark.parametrize("answer", [say(204), say(200), refuse(404, "BLOB_UPLOAD_UNKNOWN"), say(410)])
def test_one_that_is_gone_is_not(answer: Answer) -> None:
    play = Play({"PUT blob": [refuse(403, "DENIED")], "DELETE session": [answer]}, config=PLAIN)
    assert play.run(PUSH).left_open == 0 and not _said(play)


def test_what_there_is_no_time_for_is_said() -> None:
    play = Play({"PUT blob": always(HANG), "DELETE session": always(HANG)}, config=PLAIN)
    push_id = play.submit(blobs_push(*(blob(b"layer %d" % n) for n in range(3))))
    play.settle()
    play.session.cancel(push_id, play.now)
    result = play.run()
    assert play.now == Config().cleanup_timeout_s
    assert (result.outcome, result.left_open) == (PushOutcome.CANCELLED, 3)
    assert len(play.registry.sessions(REPO)) == 3 and _said(play)[0].startswith("3 upload sessions stay open")


def test_a_session_that_may_have_been_opened_is_said() -> None:
    play = Play({"POST start": [HANG]}, config=PLAIN)
    push_id = play.submit(PUSH)
    play.settle()
    play.session.cancel(push_id, play.now)
    assert play.run().left_open == 1 and len(_said(play)) == 1


def crowded(**answers: Iterable[Answer]) -> Play:
    """One place, which another push has; the first push was cancelled with a session to give back."""
    script = {
        f"PUT blob {REPO}": [NOT_SENT],
        "PUT blob team/other": [HANG],
        "DELETE session": answers.get("delete", ()),
    }
    play = Play(script, config=attrs.evolve(PLAIN, max_exchanges=1))
    play.submit(PUSH, blobs_push(blob(b"other"), repository="team/other"))
    while not play.held:
        play.step()
    assert len(play.registry.sessions(REPO)) == 1
    [put] = play.held
    play.session.receive(play.now, Progress(id=put, phase=Phase.WAITING))
    play.session.cancel(1, play.now)
    return play


def test_what_waits_for_a_place_alone_is_not_dropped() -> None:
    """Giving back has its time from when it could begin."""
    play = crowded()
    for _ in range(2):
        play.now += Config().cleanup_timeout_s
        play.settle()
    assert 1 not in play.results
    before = len(play.sends)
    [put] = play.held.values()
    play.answer(put, PASS)
    play.run()
    assert play.results[2].outcome is PushOutcome.PUSHED and play.results[1].left_open == 0
    assert not play.registry.sessions(REPO) and name_of(play.sends[before]) == "DELETE session"


def test_once_it_has_its_place_its_time_is_over_as_ever() -> None:
    play = crowded(delete=always(HANG))
    play.now += Config().cleanup_timeout_s
    play.settle()
    [put] = play.held.values()
    play.answer(put, PASS)
    begun = play.now
    play.run()
    assert play.results[1].left_open == 1 and play.now <= begun + 2 * Config().cleanup_timeout_s


def test_many_that_are_to_be_given_back_at_the_end_are() -> None:
    """Each DELETE takes a second, and there is one place: longer than the time that each of them has."""
    config = attrs.evolve(PLAIN, max_exchanges=8)
    play = Play({"PUT blob": always(HANG), "DELETE session": always(HANG)}, config=config)
    push_id = play.submit(blobs_push(*(blob(b"layer %d" % n) for n in range(30))))
    play.settle()
    assert len(play.registry.sessions(REPO)) <= 16
    play.session.cancel(push_id, play.now)
    deletes = 0
    while push_id not in play.results:
        play.settle()
        if play.held:
            play.now += 1.0
            for send in tuple(play.held.values()):
                deletes += name_of(send) == "DELETE session"
                play.answer(send, PASS)
    assert play.results[push_id].left_open == 0 and not play.registry.sessions(REPO) and deletes >= 8


@pytest.mark.parametrize(
    ("answer", "left_open"),
    [
        (say(404), 0),
        (say(410), 0),
        (refuse(400, "BLOB_UPLOAD_UNKNOWN"), 0),
        (say(400), 1),
        (say(403), 1),
    ],
    ids=["404", "410", "the code", "400", "403"],
)
def test_only_what_the_registry_denies_is_gone(answer: Answer, left_open: int) -> None:
    """The upload begins again in any case."""
    play = Play({"PATCH": [LOST], "GET session": [answer]}, config=PATCHES)
    result = play.run(PUSH)
    assert result.outcome is PushOutcome.PUSHED and play.names.count("POST start") == 2
    assert result.left_open == left_open == len(_said(play))


@pytest.mark.parametrize(("answer", "left_open"), [(say(404), 0), (say(405), 1), (say(403), 1)], ids=str)
def test_also_where_it_is_asked_before_it_is_given_back(answer: Answer, left_open: int) -> None:
    unreadable = Fail(FailureKind.CONTENT, Written.SOME)
    play = Play({"PATCH": [unreadable], "GET session": [answer]}, config=PATCHES)
    result = play.run(PUSH)
    assert result.outcome is PushOutcome.FAILED and play.names[-1] == "GET session"
    assert result.left_open == left_open == len(_said(play))
