"""How far a push is told to be: every byte once, a failed try taken back, and seldom enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

import regproto_sync
import regproto_trio
from core import BASE, HANG, LOST, PASS, PATCHES, PLAIN, Fail, Hang, Play, cut_after, refuse, say
from images import image_layout, platforms_layout
from pushes import REPO, blob, blobs_push, image, index, stream, stream_push
from regproto import (
    Config,
    FailureKind,
    Notice,
    Phase,
    Progress,
    PushOutcome,
    PushPlan,
    RegistryError,
    RegprotoError,
    Send,
    Session,
    Status,
    StreamBlob,
)
from regproto.testing import FakeRegistry, Fault, FaultKind, RegistryOptions, When
from regproto_sync.server.server import Server

CONTENT = b"0123456789"


def size_of(push: PushPlan) -> int:
    """Bytes of everything a push brings, each digest once."""
    parts = {part.descriptor.digest: part.descriptor.size for part in (*push.blobs, *push.manifests)}
    return sum(parts.values())


def told(play: Play) -> list[tuple[int, int]]:
    """What was told of pushes: complete, and of how much."""
    return [(n.sent_bytes, n.size_bytes) for n in play.told(Status.PROGRESS)]


def moved(play: Play, send: Send, sent_bytes: int, phase: Phase = Phase.SENDING) -> None:
    """The driver tells that so much of a body is sent; a second later it is told of."""
    play.session.receive(play.now, Progress(id=send.id, phase=phase, bytes=sent_bytes))
    while isinstance(play.poll(), Notice | Send):
        pass
    play.now += 1.0


def finish(play: Play) -> None:
    """Go on until every push is over."""
    while not play.step():
        pass


# --- what counts ------------------------------------------------------------------------------------------------


def test_all_of_an_index_counts_once() -> None:
    shared = blob(b"shared layer")
    plan = index(image(shared, b"one"), image(shared, b"two")).push("1.0", "latest")
    play = Play(config=PLAIN)
    play.run(plan)
    there = play.registry.blobs(REPO) | play.registry.manifests(REPO)
    total = sum(len(play.registry.content(digest)) for digest in there)
    assert told(play)[-1] == (total, total) == (size_of(plan), size_of(plan))


def test_what_is_there_counts_when_it_is_known() -> None:
    play = Play(config=PLAIN)
    play.registry.put_blob(REPO, CONTENT)
    play.registry.put_blob("base/one", b"mounted")
    play.run(blobs_push(blob(CONTENT), blob(b"mounted", "base/one"), blob(b"sent")))
    assert told(play)[0] == (10, 21), "of one it is known before anything was sent"
    assert told(play)[-1] == (21, 21)


def test_a_manifest_that_is_there_has_all_it_names() -> None:
    plan = index(image(b"one"), image(b"two")).push("1.0")
    play = Play()
    play.run(plan)
    again = Play(registry=play.registry)
    again.run(plan)
    assert again.names == ["HEAD tag"]
    assert told(again) == [(size_of(plan), size_of(plan))]


def test_what_a_manifest_names_counts_once_though_it_is_pushed_as_well() -> None:
    shared = blob(b"shared layer")
    there = image(shared, b"one")
    play = Play(config=PLAIN)
    play.run(there.push())
    plan = index(there, image(shared, b"two")).push("1.0")
    play.run(plan)
    assert told(play)[-1] == (size_of(plan), size_of(plan))
    assert all(complete <= total for complete, total in told(play))


def test_a_new_tag_of_what_is_known() -> None:
    plan = image(b"one").push("1.0")
    play = Play()
    play.run(plan)
    later = image(b"one").push("2.0")
    play.run(later)
    assert told(play)[-1] == (size_of(later), size_of(later))


def test_two_pushes_that_share_a_blob() -> None:
    play = Play(config=PLAIN)
    first, second = blobs_push(blob(CONTENT)), blobs_push(blob(CONTENT), blob(b"more"))
    play.submit(first)
    put = play.until("PUT blob")
    moved(play, put, 4)
    play.submit(second)
    moved(play, put, 5)
    play.answer(put, PASS)
    finish(play)
    last = {n.push_id: n for n in play.told(Status.PROGRESS)}
    assert [(n.sent_bytes, n.size_bytes) for n in last.values()] == [(10, 10), (14, 14)]
    assert [n.sent_bytes for n in play.told(Status.PROGRESS) if n.push_id == 2][0] == 5


def test_a_push_of_nothing_is_not_told_of() -> None:
    play = Play()
    play.run(blobs_push())
    assert told(play) == []


# --- what is taken back -----------------------------------------------------------------------------------------


def test_bytes_count_while_they_are_sent() -> None:
    play = Play(config=PLAIN)
    play.submit(blobs_push(blob(CONTENT)))
    put = play.until("PUT blob")
    for sent in (3, 7, 10):
        moved(play, put, sent)
    play.answer(put, PASS)
    finish(play)
    assert told(play) == [(3, 10), (7, 10), (10, 10), (10, 10)]


@pytest.mark.parametrize(
    ("config", "first_name", "second_name"),
    [(Config(), "POST blob", "PUT blob"), (PLAIN, "PUT blob", "PATCH"), (PATCHES, "PATCH", "PATCH")],
)
def test_a_failed_try_is_taken_back(config: Config, first_name: str, second_name: str) -> None:
    play = Play(config=config)
    play.submit(blobs_push(blob(CONTENT)))
    first = play.until(first_name)
    moved(play, first, 7)
    play.answer(first, LOST)
    second = play.until(second_name)
    assert told(play)[-1] == (0, 10)
    moved(play, second, 2)
    moved(play, second, 10)
    play.answer(second, PASS)
    finish(play)
    assert [complete for complete, _ in told(play)] == [7, 0, 2, 10, 10]
    assert [n.sent_bytes for n in play.told(Status.UPLOADING)] == [7, 2, 10]
    assert play.told(Status.RETRYING)


def test_what_the_registry_has_is_not_taken_back() -> None:
    play = Play(config=PATCHES)
    play.submit(blobs_push(blob(CONTENT)))
    first = play.until("PATCH")
    moved(play, first, 7)
    play.answer(first, cut_after(4))
    second = play.until("PATCH")
    play.settle()
    play.now += 1.0
    assert told(play)[-1] == (4, 10)
    moved(play, second, 1)
    assert told(play)[-1] == (5, 10)
    play.answer(second, PASS)
    finish(play)
    assert told(play)[-1] == (10, 10)


def test_refused_in_the_middle_of_a_body() -> None:
    play = Play(config=PLAIN)
    play.submit(blobs_push(blob(CONTENT)))
    put = play.until("PUT blob")
    moved(play, put, 7)
    play.answer(put, say(403))
    finish(play)
    assert told(play) == [(7, 10), (0, 10)]


def test_what_turns_out_to_be_missing() -> None:
    plan = image(b"one").push("1.0")
    play = Play({"PUT tag": [refuse(400, "MANIFEST_BLOB_UNKNOWN", detail={"digest": plan.blobs[1].descriptor.digest})]})
    assert play.run(plan).outcome is PushOutcome.PUSHED
    assert told(play)[-1] == (size_of(plan), size_of(plan))
    assert all(complete <= total for complete, total in told(play))


# --- streams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "streams",
    [
        [stream(b"one")],
        [stream(b"one"), stream(b"two", "layer-1")],
        [stream(b"one"), stream(b"one", "layer-1")],
        [stream(b"")],
    ],
)
def test_streams_count_like_blobs_and_once(streams: list[StreamBlob]) -> None:
    play = Play()
    play.run(stream_push(*streams))
    there = play.registry.blobs(REPO) | play.registry.manifests(REPO)
    total = sum(len(play.registry.content(digest)) for digest in there)
    assert told(play)[-1] == (total, total)


@pytest.mark.parametrize("script", [{}, {"PUT blob": [HANG]}])
def test_a_stream_that_is_a_blob_of_the_plan(script: dict[str, list[Hang]]) -> None:
    play = Play(script, config=PLAIN)
    play.submit(PushPlan(repository=REPO, blobs=[blob(CONTENT)], streams=[stream(CONTENT)]))
    play.settle()
    for send in list(play.held.values()):
        moved(play, send, 4)
        play.answer(send, PASS)
    finish(play)
    assert told(play)[-1] == (10, 10)
    assert all(complete <= total for complete, total in told(play))


def test_the_total_grows_with_a_stream_and_its_tries_are_taken_back() -> None:
    play = Play()
    play.submit(stream_push(stream(CONTENT), blobs=[blob(b"beside")]))
    first = play.until("PATCH")
    play.settle()
    for sent in (3, 7):
        moved(play, first, sent)
    play.answer(first, LOST)
    second = play.until("PATCH")
    play.settle()
    play.now += 1.0
    assert told(play)[-1] == (6, 16), "what is known of it stays known"
    moved(play, second, 9)
    assert told(play)[-1] == (15, 16)
    play.answer(second, PASS)
    finish(play)
    there = play.registry.blobs(REPO) | play.registry.manifests(REPO)
    total = sum(len(play.registry.content(digest)) for digest in there)
    assert told(play)[-1] == (total, total)


# --- when it is told --------------------------------------------------------------------------------------------


def test_at_most_ten_times_a_second() -> None:
    contents = [bytes([n]) * 10_000 for n in range(20)]
    session = Session(BASE, PLAIN)
    push_id = session.submit(blobs_push(*(blob(content) for content in contents)))
    registry = FakeRegistry()
    play = Play(registry=registry, config=PLAIN)
    play.session, play.hold = session, ""
    play.open.add(push_id)
    play.on({"PUT blob": [HANG] * 20})
    play.settle()
    times: list[float] = []
    for step in range(300):
        play.now = step * 0.01
        for send in play.held.values():
            session.receive(play.now, Progress(id=send.id, phase=Phase.SENDING, bytes=step * 30))
        while isinstance(output := play.poll(), Notice):
            if output.status is Status.PROGRESS:
                times.append(play.now)
    for send in list(play.held.values()):
        play.answer(send, PASS)
    while play.open:
        if isinstance(output := play.poll(), Notice) and output.status is Status.PROGRESS:
            times.append(play.now)
    assert len(times) > 20 and told(play)[-1] == (200_000, 200_000)
    assert all(sum(at <= other < at + 1.0 for other in times) <= 10 for at in times)
    per_blob = [n for n in play.told(Status.UPLOADING) if n.subject == blob(contents[0]).descriptor.digest]
    assert 20 < len(per_blob) <= 30


def test_the_last_one_says_what_went_wrong() -> None:
    play = Play({"PUT tag": [say(403)]})
    result = play.run(image(b"one").push("1.0"))
    last = play.told(Status.PROGRESS)[-1]
    assert isinstance(last.error, RegistryError) and last.error is result.error
    assert last.text == str(result.error) and last.push_id == 1
    assert all(notice.error is None for notice in play.told(Status.PROGRESS)[:-1])


def test_a_cancelled_push() -> None:
    play = Play(config=PLAIN)
    play.submit(blobs_push(blob(CONTENT)))
    put = play.until("PUT blob")
    moved(play, put, 7)
    play.session.cancel(1)
    play.answer(put, Fail(FailureKind.ABORTED))
    finish(play)
    assert told(play)[-1][1] == 10 and play.told(Status.PROGRESS)[-1].error is None


# --- by the drivers ---------------------------------------------------------------------------------------------

Run: TypeAlias = Callable[..., object]


def by_sync(source: Path, reference: str, config: Config, on_notice: Callable[[Notice], None]) -> None:
    regproto_sync.push(source, reference, config=config, on_notice=on_notice, seed=1)


def by_trio(source: Path, reference: str, config: Config, on_notice: Callable[[Notice], None]) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            await regproto_trio.push(source, reference, config=config, on_notice=on_notice, seed=1)

    trio.run(main)


@contextmanager
def served(*faults: Fault, **options: object) -> Iterator[tuple[FakeRegistry, str]]:
    registry = FakeRegistry(RegistryOptions(faults=faults, **options))  # type: ignore[arg-type]
    with Server(registry) as server:
        yield registry, f"127.0.0.1:{server.port}/team/app:1.0"


FAULTS = {
    "none": (),
    "503": (Fault(kind=FaultKind.STATUS, method="POST", count=2), Fault(kind=FaultKind.STATUS, method="PUT", count=2)),
    "cut in the body": (
        Fault(kind=FaultKind.DROP, when=When.IN_BODY, method="POST", after_bytes=100_000, count=2),
        Fault(kind=FaultKind.DROP, when=When.IN_BODY, method="PATCH", after_bytes=500_000, count=2),
        Fault(kind=FaultKind.DROP, when=When.IN_BODY, method="PUT", after_bytes=1, count=2),
    ),
    "answer lost": (
        Fault(kind=FaultKind.DROP, when=When.AFTER, method="POST", count=2),
        Fault(kind=FaultKind.DROP, when=When.AFTER, method="PATCH", count=2),
        Fault(kind=FaultKind.DROP, when=When.AFTER, method="PUT", count=3),
    ),
}


@pytest.mark.parametrize("run", [by_sync, by_trio])
@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("single_post", [201, 202])
def test_totals_are_what_the_registry_has(tmp_path: Path, run: Run, faults: str, single_post: int) -> None:
    source = image_layout(tmp_path / "layout", (300_000, 3_000_000, 2_000))
    config = Config(backoff_base_s=0.01, resumable_above_bytes=1_000_000, small_blob_bytes=500_000)
    news: list[Notice] = []
    with served(*FAULTS[faults], single_post=single_post) as (registry, reference):
        run(source, reference, config, news.append)
        there = registry.blobs("team/app") | registry.manifests("team/app")
        size = sum(len(registry.content(digest)) for digest in there)
    totals = [notice for notice in news if notice.status is Status.PROGRESS]
    assert (totals[-1].sent_bytes, totals[-1].size_bytes) == (size, size)
    assert {notice.size_bytes for notice in totals} == {size}
    assert all(0 <= notice.sent_bytes <= size for notice in totals)
    if faults == "none" and single_post == 201:
        complete = [notice.sent_bytes for notice in totals]
        assert complete == sorted(complete), "nothing was taken back"


@pytest.mark.parametrize("run", [by_sync, by_trio])
def test_the_second_time_all_is_there(tmp_path: Path, run: Run) -> None:
    source = platforms_layout(tmp_path / "layout")
    news: list[Notice] = []
    with served() as (registry, reference):
        run(source, reference, Config(), lambda notice: None)
        run(source, reference, Config(), news.append)
        there = registry.blobs("team/app") | registry.manifests("team/app")
        size = sum(len(registry.content(digest)) for digest in there)
    assert [(n.sent_bytes, n.size_bytes) for n in news if n.status is Status.PROGRESS] == [(size, size)]


@pytest.mark.parametrize("run", [by_sync, by_trio])
def test_the_error_comes_with_the_last_one(tmp_path: Path, run: Run) -> None:
    source = image_layout(tmp_path / "layout")
    news: list[Notice] = []
    with served(create_repositories=False) as (_, reference):
        with pytest.raises(RegprotoError) as caught:
            run(source, reference, Config(), news.append)
    assert news[-1].status is Status.PROGRESS and news[-1].error is not None
    assert str(news[-1].error) == news[-1].text and news[-1].text in str(caught.value)
