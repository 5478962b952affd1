"""How long a push may take as a whole, what is worth another try, and pushes that share an origin fairly."""

from __future__ import annotations

import math
import pickle

import attrs
import pytest

from core import HANG, PASS, PATCHES, PLAIN, Answer, Play, always, name_of, say
from pushes import REPO, blob, blobs_push, image
from regproto import (
    Config,
    LocalProtocolError,
    MountSource,
    PushOutcome,
    PushPlan,
    PushTimeoutError,
    RegistryError,
    TransportError,
    Wait,
)
from regproto.testing import Auth

CONTENT = b"0123456789"
PUSH = blobs_push(blob(CONTENT))
IMAGE = image(CONTENT)
MOUNT = blobs_push(blob(CONTENT, MountSource(repository="base/one")))
LIMIT_S = 8.0
GRACE_S = 3.0


def limited(config: Config, **changes: object) -> Config:
    return attrs.evolve(config, push_timeout_s=LIMIT_S, cleanup_timeout_s=GRACE_S, **changes)


STAGES: list[tuple[Config, PushPlan, str]] = [
    (PLAIN, PUSH, "HEAD blob"),
    (PLAIN, PUSH, "POST start"),
    (PLAIN, PUSH, "PUT blob"),
    (PLAIN, MOUNT, "POST mount"),
    (Config(), PUSH, "POST blob"),
    (PATCHES, PUSH, "PATCH"),
    (PATCHES, PUSH, "PUT commit"),
    (Config(), IMAGE.push("1.0"), "HEAD tag"),
    (Config(), IMAGE.push("1.0"), "PUT tag"),
    (Config(), IMAGE.push(), "PUT manifest"),
]
ENDS = ["DELETE session", "GET session"]


@pytest.mark.parametrize(("config", "push", "stage"), STAGES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_push_that_takes_too_long_is_ended_in_good_order(config: Config, push: PushPlan, stage: str) -> None:
    play = Play({stage: [HANG]}, config=limited(config))
    result = play.run(push)
    assert result.outcome is PushOutcome.FAILED
    assert isinstance(result.error, PushTimeoutError) and isinstance(result.error, TransportError)
    assert result.error.timeout_s == LIMIT_S and "not over within 8 s" in str(result.error)
    # A request that may open a session is waited for as long as giving back may take: also a single POST to a registry
    # that is not known to take those.
    opening = stage in ("POST start", "POST mount", "POST blob")
    assert play.now == (LIMIT_S + GRACE_S if opening else LIMIT_S)
    assert not play.registry.sessions(REPO)
    assert play.run(push).outcome is PushOutcome.PUSHED, "the session lives on"


@pytest.mark.parametrize(("config", "push", "stage"), STAGES, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("when_aborted", [None, say(202, Location="/v2/team/app/blobs/uploads/1"), say(503)])
def test_a_registry_that_has_gone_silent_does_not_hold_it_up(
    config: Config, push: PushPlan, stage: str, when_aborted: Answer | None
) -> None:
    play = Play({name: always(HANG) for name in (stage, *ENDS)}, config=limited(config))
    if when_aborted is not None:
        play.when_aborted = when_aborted
    result = play.run(push)
    assert isinstance(result.error, PushTimeoutError)
    assert play.now <= LIMIT_S + GRACE_S
    assert not play.held
    assert isinstance(play.session.poll(play.now), Wait)


@pytest.mark.parametrize("stage", ["PATCH", "POST start"])
def test_nor_does_it_hold_up_a_push_that_is_cancelled(stage: str) -> None:
    play = Play({name: always(HANG) for name in (stage, *ENDS)}, config=PATCHES)
    push_id = play.submit(PUSH)
    play.settle()
    play.session.cancel(push_id, play.now)
    assert play.run().outcome is PushOutcome.CANCELLED
    assert play.now == Config().cleanup_timeout_s


def test_what_is_given_back_while_it_waits_for_its_turn_is_left() -> None:
    # The session is to be deleted, but a 429 holds everything back for longer than there is time.
    play = Play(config=PATCHES)
    play.submit(PUSH)
    sent = play.until("PATCH")
    other = play.submit(blobs_push(blob(b"x"), repository="team/other"))
    play.answer(play.until("HEAD blob"), say(429, Retry_After="60"))
    play.answer(sent, say(403))
    while 1 not in play.results:
        play.step()
    assert isinstance(play.results[1].error, RegistryError) and play.now == Config().cleanup_timeout_s
    play.run()
    assert play.results[other].outcome is PushOutcome.PUSHED and "DELETE session" not in play.names


def test_its_time_begins_when_it_is_first_polled_for() -> None:
    play = Play({"HEAD blob": [HANG]}, config=limited(PLAIN))
    play.submit(PUSH)
    play.now = 1_000.0
    result = play.run()
    assert isinstance(result.error, PushTimeoutError) and play.now == 1_000.0 + LIMIT_S


@pytest.mark.parametrize("stuck", ["keychain", "token", "backoff", "429"])
def test_whatever_it_waits_for(stuck: str) -> None:
    script = {
        "keychain": {},
        "token": {"GET token": always(HANG)},
        "backoff": {"POST blob": always(say(503, Retry_After="100"))},
        "429": {"POST blob": always(say(429, Retry_After="100"))},
    }[stuck]
    auth = Auth.BEARER if stuck in ("keychain", "token") else Auth.NONE
    play = Play(script, config=limited(Config()), auth=auth)
    play.keychain_waits = stuck == "keychain"
    result = play.run(PUSH)
    assert isinstance(result.error, PushTimeoutError) and play.now == LIMIT_S


def test_a_push_in_time_hears_nothing_of_it() -> None:
    play = Play(config=limited(Config()))
    assert play.run(IMAGE.push("1.0")).outcome is PushOutcome.PUSHED
    play.now = 1_000.0
    assert play.session.poll(play.now) == Wait(until=math.inf)


def test_what_another_push_needs_goes_on() -> None:
    play = Play({"PATCH": [HANG]}, config=limited(PATCHES))
    play.submit(PUSH)
    play.settle()
    play.now = 5.0
    play.submit(PUSH)
    sent = play.held[max(play.held)]
    play.now = 9.0
    play.settle()
    assert isinstance(play.results[1].error, PushTimeoutError) and play.aborted == []
    play.answer(sent, PASS)
    play.run()
    assert play.results[2].outcome is PushOutcome.PUSHED


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(PushTimeoutError("too long", timeout_s=3.0)))
    assert (str(error), error.timeout_s) == ("too long", 3.0)


# --- what is worth another try ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["POST start", "PUT blob", "HEAD blob"])
def test_a_status_that_is_not_to_be_tried_again(stage: str) -> None:
    play = Play({stage: always(say(503))}, config=Config(small_blob_bytes=0, retry_statuses={429, 500}))
    result = play.run(PUSH)
    assert play.now == 0 and play.names.count(stage) == 1
    # A registry that can't say whether a blob is there may still take it.
    assert result.outcome is (PushOutcome.PUSHED if stage == "HEAD blob" else PushOutcome.FAILED)
    assert result.error is None or (isinstance(result.error, RegistryError) and result.error.status == 503)


def test_a_refusal_that_is_to_be_tried_again() -> None:
    config = Config(small_blob_bytes=0, retry_statuses={403, 404, 503})
    play = Play({"HEAD blob": [say(404)], "POST start": [say(403)], "PUT blob": [say(503)]}, config=config)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.names[:3] == ["HEAD blob", "POST start", "POST start"]


@pytest.mark.parametrize("status", [200, 302, 399, 401, 600])
def test_only_refusals_can_be_tried_again(status: int) -> None:
    with pytest.raises(LocalProtocolError, match="retry_statuses"):
        Config(retry_statuses={status})


# --- turns ------------------------------------------------------------------------------------------------------


def test_a_small_push_has_every_second_turn_beside_a_large_one() -> None:
    play = Play(config=Config(max_exchanges=1, small_blob_bytes=0))
    play.run(PUSH)
    play.sends.clear()
    large = blobs_push(*(blob(bytes([n]) * 10) for n in range(100)))
    small = blobs_push(*(blob(bytes([n]) * 11) for n in range(5)), repository="team/other")
    play.run(large, small)
    turns = [f"/{REPO}/" in send.url for send in play.sends]
    last = len(turns) - turns[::-1].index(False)
    assert turns[:last].count(True) <= turns[:last].count(False) + 1
    assert turns.count(False) == 15


def test_small_bodies_do_not_wait_for_room_for_large_ones_nor_the_other_way_round() -> None:
    config = Config(max_exchanges=8, max_body_bytes=1_000, small_blob_bytes=10_000)
    play = Play(config=config)
    play.run(PUSH)
    play.sends.clear()
    large = blobs_push(*(blob(bytes([n]) * 900) for n in range(10)))
    small = blobs_push(*(blob(bytes([n]) * 20) for n in range(200)), repository="team/other")
    play.run(large, small)
    sizes = [len(send.body) if isinstance(send.body, bytes) else send.body.size for send in play.sends]
    assert [name_of(send) for send in play.sends] == ["POST blob"] * 210
    # Beside each large body small ones go; and however many of those there are, the next large one has its turn.
    gaps = [n for n, size in enumerate(sizes) if size == 900]
    between = [b - a - 1 for a, b in zip(gaps, gaps[1:], strict=False)]
    assert min(between) >= 5 and max(between) <= 20
