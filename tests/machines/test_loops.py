"""What a peer could keep a push doing for ever: each comes to an end by a count, and does not go on without a pause.

Every case prints how many requests it took, and how long it waited in simulated time (`pytest -s`).
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import pytest

from core import (
    BASE,
    CUT,
    HANG,
    PASS,
    PATCHES,
    PLAIN,
    Answer,
    Fail,
    Play,
    Say,
    always,
    cut_after,
    name_of,
    refuse,
    say,
    token,
)
from pushes import REPO, blob, blobs_push, described, image, stream, stream_push
from regproto import (
    Config,
    Digest,
    FailureKind,
    ListReferrers,
    Phase,
    Progress,
    PushOutcome,
    PushPlan,
    RegistryError,
    RegprotoError,
    RemoteProtocolError,
    Status,
    TransportError,
    Written,
)
from regproto._model.manifest import OCI_INDEX
from regproto.testing import Auth

LARGE = blobs_push(blob(bytes(300_000)))
"""One byte at a time, 300,000 requests."""
SMALL = blobs_push(blob(b"0123456789"))
IMAGE = image(b"a")
STREAM = stream_push(stream(b"0123456789"))
SUBJECT = image(b"the subject")
ATTACHED = image(b"a", subject=described(SUBJECT.manifest)).push()
NO_API = {"referrers_api": False, "sparse_indexes": True}
UPLOAD = f"/v2/{REPO}/blobs/uploads/x"
REALM = "https://registry.example/token"
CLOSED = Fail(FailureKind.CLOSED, Written.ALL, reused=True, detail="the connection was closed before any answer")
"""A connection that had been used before closes under a request."""
UNUSED = Fail(FailureKind.CLOSED, Written.NONE, reused=True)
MOST_REQUESTS = 60
"""The most in any of these: some ten tries of one request, and what is asked between them."""


def challenge(**more: str) -> Say:
    fields = "".join(f',{name}="{value}"' for name, value in more.items())
    return refuse(401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="{REALM}",service="r"{fields}')


def steps(answer: Callable[[int], Answer]) -> Iterator[Answer]:
    """Each time one byte further: the second is the last one there at first (0-0 may be none)."""
    return (answer(last) for last in itertools.count(1))


def taken(last: int) -> Say:
    return say(202, Location=UPLOAD, Range=f"0-{last}")


def led_on(last: int) -> Say:
    return refuse(416, "BLOB_UPLOAD_INVALID", Location=UPLOAD, Range=f"0-{last}")


def told(last: int) -> Say:
    return say(204, Location=UPLOAD, Range=f"0-{last}")


NOWHERE = refuse(404, "BLOB_UPLOAD_UNKNOWN")


@attrs.frozen
class Loop:
    """What a registry answers, however often it is asked."""

    script: Callable[[], Mapping[str, Iterable[Answer]]]
    """Made anew for each play."""
    push: PushPlan = SMALL
    config: Config = PATCHES
    options: Mapping[str, Any] = attrs.field(factory=dict)
    error: type[RegprotoError] = TransportError


def closing(name: str, push: PushPlan = SMALL, config: Config = PATCHES, **options: Any) -> Loop:
    """The connection closes at every request of this name; the registry answers all else."""
    return Loop(lambda: {name: always(CLOSED)}, push, config, options)


def by_one_byte(name: str, answer: Callable[[int], Answer], push: PushPlan) -> Loop:
    """A session that grows by a byte with each body, and its status says the same."""

    def script() -> Mapping[str, Iterable[Answer]]:
        there = 0

        def further() -> Iterator[Answer]:
            nonlocal there
            while True:
                there += 1
                yield answer(there)

        def so_far() -> Iterator[Answer]:
            while True:
                yield told(there)

        return {name: further(), "GET session": so_far()}

    return Loop(script, push, error=RemoteProtocolError)


CLOSES = {
    "HEAD of a blob": closing("HEAD blob"),
    "single POST, and all that can stand in for it": Loop(
        lambda: dict.fromkeys(("POST blob", "PUT blob", "PATCH"), always(CLOSED)), SMALL, Config()
    ),
    "POST that starts": closing("POST start"),
    "PUT, and what stands in for it": Loop(lambda: dict.fromkeys(("PUT blob", "PATCH"), always(CLOSED)), SMALL, PLAIN),
    "PATCH": closing("PATCH"),
    "PATCH, and nothing of it was written": Loop(lambda: {"PATCH": always(UNUSED)}),
    "PATCH, and the status says nothing": Loop(
        lambda: {"PATCH": always(CLOSED), "GET session": always(say(204, Location=UPLOAD))}
    ),
    "commit": closing("PUT commit"),
    "PATCH of a stream": closing("PATCH", STREAM),
    "commit of a stream": closing("PUT commit", STREAM),
    "PUT of a manifest": closing("PUT manifest", IMAGE.push()),
    "PUT of a tag": closing("PUT tag", IMAGE.push("1.0")),
    "PUT of a tag, and nothing of it was written": Loop(lambda: {"PUT tag": always(UNUSED)}, IMAGE.push("1.0")),
    "PUT of three tags": Loop(
        lambda: {"PUT tags": always(CLOSED), "PUT tag": always(CLOSED)}, IMAGE.push("1", "2", "3")
    ),
    "PUT of a list": closing("PUT tag", ATTACHED, **NO_API),
    "GET of a token": closing("GET token", auth=Auth.BEARER),
}

MORE = {
    "a redirect, and the connection closes where it leads": Loop(
        lambda: {
            "POST start uploads/there": always(CLOSED),
            "POST start": always(say(307, Location=f"/v2/{REPO}/blobs/uploads/there")),
        }
    ),
    "a PATCH takes one byte more": by_one_byte("PATCH", taken, LARGE),
    "a PATCH of a stream takes one byte more": by_one_byte("PATCH", taken, stream_push(stream(bytes(300_000)))),
    "a PATCH is led on by one byte": by_one_byte("PATCH", led_on, LARGE),
    "a PATCH of a stream is led on by one byte": by_one_byte("PATCH", led_on, stream_push(stream(bytes(300_000)))),
    "a PUT is led on by one byte": Loop(
        lambda: {"PUT blob": always(led_on(1)), "PATCH": steps(lambda last: led_on(last + 1))},
        LARGE,
        PLAIN,
        error=RegistryError,
    ),
    "a PATCH is lost, and the status one byte further": Loop(
        lambda: {"PATCH": always(CLOSED), "GET session": steps(told)}, LARGE
    ),
    "a PATCH is denied, and the status one byte further": Loop(
        lambda: {"PATCH": always(challenge()), "GET session": steps(told)},
        LARGE,
        options={"auth": Auth.BEARER},
        error=RegistryError,
    ),
    "no commit, no look, but a session": Loop(
        lambda: {
            "PUT commit": always(NOWHERE),
            "HEAD blob": itertools.chain([refuse(404, "BLOB_UNKNOWN")], always(say(503))),
            "GET session": always(told(9)),
        },
        error=RegistryError,
    ),
    "an upload host leads back to where a token is wanted": Loop(
        lambda: {
            "POST start": always(say(202, Location="https://uploads.example/x")),
            "PATCH https://uploads": always(say(307, Location=f"{BASE}{UPLOAD}")),
            "GET session https://uploads": always(say(307, Location=f"{BASE}{UPLOAD}")),
            "PATCH": always(challenge()),
            "GET session": always(challenge()),
        },
        error=RegistryError,
    ),
}


def play(loop: Loop) -> Play:
    made = Play(loop.script(), config=loop.config, **loop.options)
    made.registry.put_manifest(REPO, SUBJECT.manifest.content)
    made.run(loop.push)
    return made


@pytest.mark.parametrize("name", [*CLOSES, *MORE])
def test_it_ends(name: str) -> None:
    loop = (CLOSES | MORE)[name]
    made = play(loop)
    result = made.results[1]
    most = Counter(made.names).most_common(1)[0]
    print(f"\n{name}: {len(made.sends)} requests, most of them {most[1]} x {most[0]}; waited {made.now:.1f} s")
    assert result.outcome is PushOutcome.FAILED
    assert isinstance(result.error, loop.error), result.error
    assert len(made.sends) <= MOST_REQUESTS


@pytest.mark.parametrize("name", CLOSES)
def test_a_connection_that_closes_is_forgiven_once_and_then_waited_for(name: str) -> None:
    loop = CLOSES[name]
    made = play(loop)
    closed = Counter(send.url for send in made.sends if name_of(send) in loop.script())
    assert max(closed.values()) <= 2 * loop.config.attempts  # a session that is lost is made up for once or more
    assert made.told(Status.RETRYING) and made.now >= 0.5 + 1


def test_an_upload_that_moves_on_is_borne_with_however_often_its_connection_closes() -> None:
    """What is sent in a body of its own size brings it forward, and so do 64 KiB of a larger one."""
    step = 64 * 1024
    cut = [cut_after(step) for _ in range(9)]
    content = bytes(10 * step)
    made = Play({"PATCH": cut}, config=PATCHES)
    assert made.run(blobs_push(blob(content))).outcome is PushOutcome.PUSHED
    assert made.names.count("PATCH") == 10
    pieces = Play({"PATCH": [CUT, PASS] * 9}, config=attrs.evolve(PATCHES, chunk_bytes=2))
    assert pieces.run(SMALL).outcome is PushOutcome.PUSHED


def test_a_body_that_hardly_anything_is_taken_of_is_borne_once_and_then_waited_for() -> None:
    made = Play({"PATCH": [taken(1), taken(2)], "GET session": [told(2)]}, config=PATCHES)
    made.run(SMALL)
    assert made.names[2:6] == ["PATCH", "PATCH", "GET session", "PATCH"]
    (notice,) = made.told(Status.RETRYING)
    assert "has brought the upload no further than byte 3 of 10" in notice.text


def test_a_connection_that_closes_when_a_session_is_given_back_is_forgiven_too() -> None:
    """It was forgiven to the body already, and the session is not to be left open for that."""
    made = Play(
        {"PATCH": [CLOSED, refuse(403, "DENIED")], "DELETE session": [CLOSED]}, config=attrs.evolve(PATCHES, attempts=2)
    )
    assert made.run(SMALL).outcome is PushOutcome.FAILED
    assert made.registry.sessions(REPO) == ()


def test_a_commit_that_a_left_session_refuses_with_its_range_is_asked_about() -> None:
    """An earlier process sent all of it; the session can't be asked, and says at the commit that it has less."""
    first = Play({"PUT commit": [HANG]}, config=PATCHES, save=True)
    first.submit(SMALL)
    first.settle()
    again = Play(
        {"GET session": [say(404)], "PUT commit": [refuse(416, "BLOB_UPLOAD_INVALID", Range="0-4")]},
        config=PATCHES,
        hint=first.saves[-1],
        registry=first.registry,
    )
    assert again.run(SMALL).outcome is PushOutcome.PUSHED


# --- tokens -----------------------------------------------------------------------------------------------------


def test_challenges_widen_a_token_only_so_far() -> None:
    """Each blob's request is told to need more; the token is asked for with every scope that was kept."""
    more = (challenge(error="insufficient_scope", scope=f"repository:r/{n}:pull") for n in itertools.count())
    answers = itertools.chain.from_iterable((answer, PASS) for answer in more)
    made = Play({"POST blob": answers, "GET token": always(token("t"))}, config=Config(max_exchanges=1))
    made.run(blobs_push(*(blob(bytes([n])) for n in range(100))))
    longest = max(len(send.url) for send in made.sent("GET token"))
    print(f"\n{made.names.count('GET token')} token requests, the longest URL {longest} characters")
    assert longest < 1_000


@pytest.mark.parametrize("lifetime", [-1, 0, float("nan"), float("-inf"), 10**400, float("inf"), 1e-9, "soon", None])
def test_a_token_is_held_for_a_while_whatever_it_says_of_itself(lifetime: object) -> None:
    made = Play(
        {"POST blob": [challenge()], "GET token": always(token("t", expires_in=lifetime))},
        config=Config(max_exchanges=1),
    )
    made.run(blobs_push(*(blob(bytes([n])) for n in range(50))))
    assert made.names.count("GET token") == 1
    made.now += 2 * 365 * 86_400
    made.run(SMALL)
    assert made.names.count("GET token") == 2


# --- answers that do not end --------------------------------------------------------------------------------------

LIMITS = Config(small_blob_bytes=0, response_timeout_s=7, idle_timeout_s=5, attempts=1)


def held(made: Play, phases: Callable[[int], Progress], every_s: float) -> float:
    """How long an exchange is held by what its driver tells of it, until it is aborted."""
    for n in range(100_000):
        if made.aborted:
            return made.now
        made.session.receive(made.now, phases(n))
        made.settle()
        made.now += every_s
    raise AssertionError("it is never aborted")


def test_an_answer_that_drips_is_held_to_a_limit() -> None:
    made = Play(config=LIMITS)
    made.submit(SMALL)
    sent = made.until("PUT blob")
    assert held(made, lambda n: Progress(id=sent.id, phase=Phase.RECEIVING, bytes=n), 4.0) <= 7 + 8 + 2 * 4
    assert "no whole answer within 15 s" in str(made.results[1].error)


def test_a_large_answer_has_its_time() -> None:
    made = Play(config=LIMITS)
    made.submit(PushPlan(repository=REPO, lookups=[ListReferrers(subject=SUBJECT.digest)], reads_only=True))
    sent = made.until("GET referrers")
    assert held(made, lambda n: Progress(id=sent.id, phase=Phase.RECEIVING, bytes=n), 4.0) >= 512


@pytest.mark.parametrize(("phase", "limit_s"), [(Phase.WAITING, 7), (Phase.SENDING, 5)])
def test_informational_answers_in_pieces_hold_nothing_up(phase: Phase, limit_s: float) -> None:
    """A part of one is an answer that comes, and its end brings back what was before it."""
    made = Play(config=LIMITS)
    made.submit(SMALL)
    sent = made.until("PUT blob")
    own, theirs = (Progress(id=sent.id, phase=p, bytes=b) for p, b in ((phase, 3), (Phase.RECEIVING, 0)))
    assert held(made, lambda n: (own, theirs)[n % 2], 3.0) <= limit_s + 5 + 3


# --- lists ------------------------------------------------------------------------------------------------------


def pages() -> Iterator[Answer]:
    """Pages that say nothing new, and lead back to where they are."""
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    link = f'</v2/{REPO}/referrers/{SUBJECT.digest}>; rel="next"'
    return always(Say(200, (("Content-Type", OCI_INDEX), ("Link", link)), body))


def test_pages_that_bring_nothing_new_set_nothing_back() -> None:
    asked = PushPlan(repository=REPO, lookups=[ListReferrers(subject=Digest(SUBJECT.digest))], reads_only=True)
    between = itertools.chain.from_iterable((CLOSED, page) for page in pages())
    made = Play({"GET referrers": between})
    assert isinstance(made.run(asked).error, TransportError)
    assert made.names.count("GET referrers") <= 12
    endless = Play({"GET referrers": pages()})
    assert isinstance(endless.run(asked).error, RemoteProtocolError)
    assert len(endless.sends) <= 1_001
