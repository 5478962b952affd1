"""Real connections that close at every request of a kind: a push over them ends, with either driver, and says why.

Each case prints how many requests came in (`pytest -s`); of time nothing is said.
"""

from __future__ import annotations

import io
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest

import regproto_sync
import regproto_trio
from faulty import Closing, Kind, Seen, faulty_relay
from pushes import blob, blobs_push, image, stream
from regproto import (
    Config,
    Credentials,
    NeedCredentials,
    NoCredentials,
    Notice,
    Output,
    PushOutcome,
    PushPlan,
    PushResult,
    Session,
    Status,
    TransportError,
)
from regproto.testing import FakeRegistry
from regproto_sync import BytesContent, Server, StreamContent

CONFIG = Config(backoff_base_s=0.01, backoff_max_s=0.05)
PATCHES = attrs.evolve(CONFIG, small_blob_bytes=0, resumable_above_bytes=0)
CONTENT = b"0123456789" * 1_000
DRIVERS: Mapping[str, Callable[..., Mapping[int, PushResult]]] = {
    "sync": regproto_sync.run_session,
    "trio": regproto_trio.run_session,
}
MOST_REQUESTS = 60
HOWS = (Kind.RESET_BEFORE, Closing.UNANSWERED, Closing.IN_THE_ANSWER)


class Listening(Session):
    """A session that counts how often it was told that something is tried again."""

    retries = 0

    def poll(self, now: float) -> Output:
        output = super().poll(now)
        self.retries += isinstance(output, Notice) and output.status is Status.RETRYING
        return output


def _read(push: PushPlan) -> PushPlan:
    """The same with content that a driver reads."""
    blobs = [attrs.evolve(b, source=BytesContent(b.source)) for b in push.blobs if isinstance(b.source, bytes)]
    return attrs.evolve(push, blobs=blobs)


def _stream() -> PushPlan:
    source = StreamContent(lambda: io.BytesIO(CONTENT))
    return PushPlan(repository="team/app", streams=[attrs.evolve(stream(CONTENT), source=source)])


def _tag() -> PushPlan:
    return _read(image(CONTENT).push("1.0"))


def _blob() -> PushPlan:
    return _read(blobs_push(blob(CONTENT)))


CASES: Mapping[str, tuple[str, Callable[[], PushPlan], Config]] = {
    "tag": (r"PUT \S+/manifests/1\.0", _tag, CONFIG),
    "PATCH": (r"PATCH ", _blob, PATCHES),
    "commit": (r"PUT \S+digest=", _blob, PATCHES),
    "commit of a stream": (r"PUT \S+digest=", _stream, CONFIG),
    "PATCH of a stream": (r"PATCH ", _stream, CONFIG),
}


def _nobody(need: NeedCredentials) -> Credentials | NoCredentials:
    return NoCredentials(id=need.id)


def _pushed(run: Callable[..., Any], push: PushPlan, config: Config, url: str) -> tuple[PushResult, int]:
    session = Listening(url, config, seed=1, now=time.monotonic())
    push_id = session.submit(push)
    return run(session, [push_id], keychain=_nobody)[push_id], session.retries


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("how", HOWS, ids=lambda how: how.value)
@pytest.mark.parametrize("name", CASES)
def test_a_connection_that_closes_every_time(name: str, how: Kind | Closing, driver: str) -> None:
    pattern, push, config = CASES[name]

    def plan(number: int, method: str, target: str) -> Kind | Closing | None:
        # What is answered a thousand times would go on for ever: then it goes through, and the count is wrong.
        return how if number < 1_000 and re.match(pattern, f"{method} {target}") else None

    with Server(FakeRegistry()) as server, faulty_relay(("127.0.0.1", server.port), plan) as relay:
        result, retries = _pushed(DRIVERS[driver], push(), config, f"http://{relay.address}")
        seen: list[Seen] = relay.seen
    closed = sum(s.fault is how for s in seen)
    print(f"\n{name}, {how.value}, {driver}: {len(seen)} requests, {closed} of them closed; {retries} waits")
    assert result.outcome is PushOutcome.FAILED and isinstance(result.error, TransportError)
    assert f": {pattern.split()[0]} http" in str(result.error) and "the connection ended" in str(result.error)
    assert len(seen) <= MOST_REQUESTS and closed <= 2 * config.attempts
    assert retries >= closed // 2, Counter(f"{s.method} {s.target}" for s in seen)
