"""What drivers share: a run's bookkeeping, the pool, and what becomes of an exchange that never began."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from regproto import (
    Abort,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Input,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    NoManifests,
    Notice,
    Output,
    Phase,
    Progress,
    PushOutcome,
    PushResult,
    RemoteProtocolError,
    Response,
    Save,
    Send,
    Status,
    Stream,
    Wait,
    Written,
    driving,
    http1,
)

SEND = Send(
    id=7, method="PUT", url="http://r.example/v2/", headers=(), body=b"abc", max_head_bytes=99, max_body_bytes=5
)
NEED = NeedCredentials(id=8, registry="r.example", repository="a/b")
STREAM = Stream(key="s", source=None, offset=0, keep_bytes=1)
DONE = PushResult(outcome=PushOutcome.PUSHED, repository="r.example/a", digest=None)
WRITTEN_NOTHING = Failed(id=7, kind=FailureKind.CONNECT, written=Written.NONE, detail="no")


class Script:
    """A session that says what it was given, then waits."""

    def __init__(self, *outputs: Output) -> None:
        self.outputs = list(outputs)
        self.heard: list[Input] = []

    def poll(self, now: float) -> Output:
        return self.outputs.pop(0) if self.outputs else Wait(until=math.inf)

    def receive(self, now: float, event: Input, /) -> None:
        self.heard.append(event)


def run(*outputs: Output) -> tuple[Script, driving.Run[str]]:
    script = Script(*outputs)
    return script, driving.Run(script, [1, 2])


def test_what_is_to_do_comes_out_and_the_rest_is_dropped() -> None:
    news = Notice(status=Status.EXISTING, subject="x")
    _, loop = run(news, SEND, Save(data=b""), NEED, Wait(until=3.0))
    assert [loop.poll(1.0) for _ in range(3)] == [SEND, NEED, Wait(until=3.0)]


def test_it_ends_with_the_last_push_that_was_asked_for() -> None:
    first, other, second = (Finished(push_id=number, result=DONE) for number in (2, 3, 1))
    script, loop = run(first, other, SEND, second, NEED)
    assert loop.poll(0.0) == SEND
    assert loop.poll(0.0) is None and loop.poll(0.0) is None
    assert loop.results == {1: DONE, 2: DONE, 3: DONE} and script.outputs == [NEED]


def test_only_what_is_not_answered_is_aborted() -> None:
    script, loop = run(SEND, Abort(id=7), Abort(id=7), Abort(id=7))
    loop.poll(0.0)
    assert loop.poll(0.0) == Wait(until=math.inf), "nothing was begun"
    script.outputs = [Abort(id=7), Abort(id=7)]
    loop.tasks[7] = "task"
    loop.tell(0.0, Progress(id=7, phase=Phase.SENDING))
    loop.tell(0.0, None)
    assert loop.poll(0.0) == Abort(id=7)
    loop.tell(0.0, WRITTEN_NOTHING)
    assert loop.tasks == {} and loop.poll(0.0) == Wait(until=math.inf)
    assert script.heard == [Progress(id=7, phase=Phase.SENDING), WRITTEN_NOTHING]


def test_what_needs_no_network_is_answered_at_once() -> None:
    late, stream = attrs.evolve(SEND, not_after=1.0), attrs.evolve(SEND, body=STREAM)
    draft = NeedManifests(id=9, push_id=1, draft=None, streams=())
    script, loop = run(late, stream, draft)
    assert loop.poll(1.5) == Wait(until=math.inf)
    *failures, content = script.heard
    assert [(answer.kind, answer.written) for answer in failures if isinstance(answer, Failed)] == [
        (FailureKind.NOT_SENT, Written.NONE),
        (FailureKind.CONTENT, Written.NONE),
    ]
    assert content == NoManifests(id=9, error="this driver sends no streams")
    script.outputs = [late]
    assert loop.poll(1.0) == late, "not yet later"


def test_how_long_to_wait() -> None:
    waits = [driving.wait_timeout_s(Wait(until=until), 5.0) for until in (7.5, 5.0, 1.0, math.inf)]
    assert waits == [2.5, 0.0, 0.0, None]


def test_the_keychain() -> None:
    known = Credentials(id=8, username="ann")

    def broken(_: NeedCredentials) -> Credentials:
        raise ValueError("no helper")

    def silent(_: NeedCredentials) -> Credentials:
        raise KeyError

    assert driving.look_up(lambda _: known, NEED) == known
    assert driving.look_up(broken, NEED) == NoCredentials(id=8, error="no helper")
    assert driving.look_up(silent, NEED) == NoCredentials(id=8, error="KeyError"), "an error is never empty"


def test_the_pool_gives_the_last_first_and_by_origin() -> None:
    pool, here, there = driving.Pool[int](), http1.Origin.of("http://a"), http1.Origin.of("https://a")
    assert pool.take(here) is None
    for connection in (1, 2):
        pool.give(here, connection)
    pool.give(there, 3)
    assert [pool.take(here), pool.take(there), pool.take(there)] == [2, 3, None]
    pool.give(there, 4)
    assert pool.drain() == [1, 4] and pool.drain() == [] and pool.take(here) is None


def test_it_is_too_late_only_after_its_time() -> None:
    driving.check_time(SEND, math.inf)
    limited = attrs.evolve(SEND, not_after=2.0)
    driving.check_time(limited, 2.0)
    with pytest.raises(driving.TooLate):
        driving.check_time(limited, 2.1)


class Handshake(OSError):
    pass


class Stopped(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (driving.TooLate(), FailureKind.NOT_SENT),
        (http1.ContentFailed(), FailureKind.CONTENT),
        (Handshake(), FailureKind.TLS),
        (Stopped(), FailureKind.ABORTED),
        (ConnectionRefusedError(), FailureKind.CONNECT),
        (UnicodeError(), FailureKind.CONNECT),
        (RemoteProtocolError("no URL"), FailureKind.CONNECT),
    ],
)
def test_what_an_error_means(error: BaseException, kind: FailureKind) -> None:
    assert driving.kind_of(error, tls=Handshake, aborted=Stopped) is kind


@pytest.mark.parametrize("error", [Stopped(), ZeroDivisionError()])
def test_a_mistake_is_no_failure(error: BaseException) -> None:
    with pytest.raises(type(error)):
        driving.kind_of(error)


def test_unsent() -> None:
    assert driving.unsent(SEND, FailureKind.CONNECT, "no") == WRITTEN_NOTHING
    assert driving.unsent(SEND, FailureKind.CONNECT, OSError("no")) == WRITTEN_NOTHING
    assert driving.unsent(SEND, FailureKind.CONNECT, TimeoutError()).detail == "TimeoutError"


def facts(course: driving.ExchangeProgress) -> tuple[Written, bool]:
    failed = course.failed(FailureKind.CLOSED, "cut")
    assert (failed.id, failed.kind, failed.detail) == (7, FailureKind.CLOSED, "cut")
    return failed.written, failed.reused


def test_the_course_of_an_exchange() -> None:
    course = driving.ExchangeProgress(SEND)
    steps: list[tuple[float, Phase, int, Any]] = [
        (0.0, Phase.CONNECTING, 0, 0),
        (0.01, Phase.SENDING, 0, 0),
        (0.02, Phase.SENDING, 10, None),
        (0.11, Phase.SENDING, 5, 15),
        (0.2, Phase.SENDING, 1, None),
        (0.2, Phase.WAITING, 0, 16),
        (0.21, Phase.RECEIVING, 0, 0),
        (0.4, Phase.RECEIVING, 3, 3),
    ]
    for now, phase, more, count in steps:
        told = None if count is None else Progress(id=7, phase=phase, bytes=count)
        assert course.reach(now, phase, more) == told, (now, phase)


def test_how_far_an_exchange_came() -> None:
    fresh, kept = driving.ExchangeProgress(SEND), driving.ExchangeProgress(SEND)
    assert facts(fresh) == (Written.NONE, False)
    fresh.reach(0.0, Phase.CONNECTING)
    assert facts(fresh) == (Written.NONE, False)
    for course, reused in ((fresh, False), (kept, True)):
        course.reach(0.0, Phase.SENDING)
        assert facts(course) == (Written.SOME, reused)
        course.reach(0.0, Phase.WAITING)
        assert facts(course) == (Written.ALL, reused)


@pytest.mark.parametrize(("came", "kept", "truncated"), [(b"1234", b"1234", False), (b"123456", b"12345", True)])
def test_an_answer_of_another_http(came: bytes, kept: bytes, truncated: bool) -> None:
    headers = [(b"A", b"\xe9"), (b"A", b"2")]
    told = driving.answer(SEND, 200, headers, bytearray(came))
    assert told == Response(id=7, status=200, headers=(("A", "\xe9"), ("A", "2")), body=kept, truncated=truncated)


def test_a_body_of_bytes_is_read_like_any_other_and_a_stream_not_at_all() -> None:
    reader = http1.SliceReader(b"abcde")
    assert [reader.read(2) for _ in range(4)] == [b"ab", b"cd", b"e", b""]
    reader.close()
    with pytest.raises(http1.ContentFailed, match="no streams"):
        http1.SliceReader(STREAM)
