"""Ranges that are refused where the registry says it is, and statuses that are not about this upload."""

from __future__ import annotations

from core import PATCHES, Play, content_of, cut_after, header, refuse, say
from pushes import REPO, blob, blobs_push
from regproto import Config, Digest, PushOutcome, Status

CONTENT = bytes(range(200))
DIGEST = Digest.of(CONTENT)
CHUNKS = Config(small_blob_bytes=0, chunk_bytes=50)
PUSH = blobs_push(blob(CONTENT))


def uploaded(play: Play) -> bool:
    """Whether the content came through whole, and nothing was left open."""
    there = play.registry.blobs(REPO) == {DIGEST} and play.registry.content(DIGEST) == CONTENT
    return there and not play.registry.sessions(REPO)


def ranges(play: Play) -> list[str | None]:
    return [header(send, "content-range") for send in play.sent("PATCH")]


def test_a_session_somebody_still_writes_to_is_waited_for() -> None:
    # Another process's last request, say, which was killed in the middle of it.
    busy = refuse(416, "RANGE_INVALID")
    play = Play({"PATCH": [cut_after(60), busy, busy]}, config=PATCHES)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names[3:] == ["GET session", "PATCH"] * 3 + ["PUT commit"]
    assert uploaded(play) and play.now >= 1


def test_a_range_too_large_for_the_registry_is_made_smaller() -> None:
    # GHCR takes any body without a range, but with one 4 MiB at most; a smaller one is refused for no such reason.
    mib = 1024 * 1024
    large = blob(bytes(9 * mib + 7))
    play = Play({"PATCH": [cut_after(7)]}, config=PATCHES, ranged_max_bytes=4 * mib, range_on_416=False)
    assert play.run(blobs_push(large)).outcome is PushOutcome.PUSHED
    sizes = [len(content_of(send)) for send in play.sent("PATCH")]
    assert sizes == [9 * mib + 7, 9 * mib, 9 * mib, 9 * mib, 4 * mib, 4 * mib, mib]
    assert not play.registry.sessions(REPO)


def test_a_session_that_takes_nothing_any_more_is_left_for_a_new_one() -> None:
    play = Play({"PATCH": [cut_after(60), *[refuse(416, "RANGE_INVALID")] * 4]}, config=PATCHES)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names[-3:] == ["POST start", "PATCH", "PUT commit"] and "DELETE session" not in play.names
    assert "another process may be writing" in play.told(Status.RESTARTED)[0].text


def test_one_byte_that_is_there_after_all() -> None:
    play = Play({"PATCH": [cut_after(1)]}, config=CHUNKS)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert ranges(play)[:4] == ["0-49", "0-49", "0-49", "1-50"] and uploaded(play)


def test_more_than_was_sent_is_not_about_this_upload() -> None:
    play = Play(
        {"PATCH": [cut_after(10)], "GET session": [say(204, Range="0-99"), say(204, Range="0-99")]}, config=CHUNKS
    )
    assert play.run(PUSH).uploaded == (DIGEST,)
