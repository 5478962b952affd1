"""What to do with each answer: every request against every kind of answer, one case a cell.

A case plays one answer to one request, the fake registry answers the rest; it says what is asked from that request
on, and whether the push gets there. The table is tests/matrix.py; here are also answers that come in other forms, and
`test_again_and_again` has the same answer come every time.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from _pytest.mark import ParameterSet

from core import (
    DONE_BUT_LOST,
    HANG,
    LOST,
    NOT_SENT,
    PASS,
    Answer,
    Play,
    always,
    done_but,
    refuse,
    say,
)
from matrix import (
    BROKEN,
    CELLS,
    CHALLENGE,
    COLUMNS,
    CONTENT,
    HOLD_S,
    LOOKS_OF_OTHER_ROWS,
    OTHER,
    ROWS,
    SOURCES,
    SUBJECT,
    Fails,
)
from pushes import REPO, blob, blobs_push, described, image
from regproto import Config, PushOutcome, RegistryError, RegprotoError
from regproto._http.referrers_list import fallback_tag
from regproto._machines.blob import BlobMachine
from regproto._machines.manifest import ManifestMachine
from regproto._machines.referrers import ReferrersMachine
from regproto._machines.source_check import SourceCheckMachine
from regproto._machines.token import TokenMachine
from regproto._machines.upload import UploadMachine
from regproto._model.manifest import OCI_INDEX
from regproto.testing import Auth

PATCH_PUSH: Final = ROWS["PATCH"].push
MOUNT_PUSH: Final = ROWS["POST mount"].push
SINGLE_PUSH: Final = ROWS["POST blob"].push


PUSHING: Final = [
    *(
        "HEAD blob",
        "POST start",
        "POST mount",
        "POST blob",
        "PATCH",
        "PUT blob",
        "PUT commit",
        "PUT manifest",
        "PUT tag",
        "PUT tags",
    )
]


def started(request: str, authorized: bool = False, **options: Any) -> Play:
    """A registry that has been spoken to already, with a token in hand if it wants one."""
    row = ROWS[request]
    options = {"auth": Auth.BEARER if authorized else Auth.NONE, **row.options, **options}
    play = Play(config=row.config, **options)
    for source in SOURCES:
        play.registry.put_blob(source, CONTENT)
    for content in (b"{}", *row.there):
        play.registry.put_blob(REPO, content)
    if row.listed:
        for whole in (SUBJECT, OTHER):
            play.registry.put_manifest(REPO, whole.manifest.content)
        entries = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described(OTHER.manifest)]}
        play.registry.put_manifest(REPO, json.dumps(entries).encode(), fallback_tag(SUBJECT.digest))
    if row.state not in TokenMachine.ASKS:
        assert play.run(image().bare()).outcome is PushOutcome.PUSHED
    play.sends.clear()
    return play


def asked_from(play: Play, request: str) -> list[str]:
    return play.names[play.names.index(request) :]


# --- the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("request_", ROWS)
def test_cell(request_: str, column: str) -> None:
    row, cell = ROWS[request_], CELLS[request_][column]
    play = started(request_, authorized=column == "401")
    begun, request_ = play.now, row.request or request_
    play.on({**row.before, request_: [row.answer(column)]})
    result = play.run(row.push)
    if isinstance(cell, Fails):
        assert result.outcome is PushOutcome.FAILED
        assert isinstance(result.error, RegprotoError) and cell.says in str(result.error)
        assert asked_from(play, request_) == [request_, *cell.then]
    else:
        assert result.outcome is PushOutcome.PUSHED
        assert asked_from(play, request_) == [request_, *cell]
        if column == "429":
            assert play.now - begun >= HOLD_S
        if column in ("not sent", "lost", "5xx"):
            assert play.now > begun


def test_the_table_is_whole() -> None:
    assert CELLS.keys() == ROWS.keys()
    assert all(cells.keys() == COLUMNS.keys() for cells in CELLS.values())
    machines = (BlobMachine, SourceCheckMachine, UploadMachine, ManifestMachine, ReferrersMachine, TokenMachine)
    asked = {state for machine in machines for state in machine.ASKS}
    assert asked == {row.state for row in ROWS.values()} | LOOKS_OF_OTHER_ROWS


@pytest.mark.parametrize("request_", ROWS)
def test_a_429_holds_back_everything_else(request_: str) -> None:
    """Whoever is refused so, nothing more is sent to the registry before the time it asks for."""
    row = ROWS[request_]
    play = started(request_)
    request_ = row.request or request_
    play.on({**row.before, request_: [row.answer("429")]})
    play.submit(row.push)
    while request_ not in play.names or play.in_flight:
        assert not play.step()
    refused_at, sent = play.now, len(play.sends)
    play.submit(blobs_push(blob(b"another")))
    while len(play.sends) == sent:
        assert not play.step()
    assert play.now >= refused_at + HOLD_S


# --- again and again, and in other forms ------------------------------------------------------------------------


@pytest.mark.parametrize("request_", sorted(set(PUSHING) - {"POST mount"}))
def test_401_again(request_: str) -> None:
    play = started(request_, authorized=True)
    play.on({request_: always(CHALLENGE)} | ({"PATCH": always(CHALLENGE)} if request_ == "PUT blob" else {}))
    result = play.run(ROWS[request_].push)
    assert result.outcome is PushOutcome.FAILED
    assert isinstance(result.error, RegistryError) and result.error.status == 401
    # That the status is asked in between, where a body was under way, brings nothing forward.
    assert asked_from(play, request_).count("GET token") == 1


Cell = tuple[str, str, Answer, list[str]]


ONCE: Final[list[Cell | ParameterSet]] = [
    ("HEAD blob", "timed out", HANG, ["HEAD blob", "POST start", "PUT blob"]),
    ("HEAD blob", "403 for what is missing", say(403), ["POST start", "PUT blob"]),
    ("POST start", "done but lost", DONE_BUT_LOST, ["POST start", "PUT blob"]),
    ("POST start", "timed out", HANG, ["POST start", "PUT blob"]),
    ("POST mount", "timed out", HANG, ["POST mount"]),
    ("POST blob", "done but lost", DONE_BUT_LOST, ["HEAD blob"]),
    ("POST blob", "timed out", HANG, ["HEAD blob", "POST start", "PUT blob"]),
    ("PATCH", "done but lost", DONE_BUT_LOST, ["GET session", "PUT commit"]),
    ("PATCH", "timed out", HANG, ["GET session", "PATCH", "PUT commit"]),
    ("PUT blob", "done but lost", DONE_BUT_LOST, ["HEAD blob"]),
    ("PUT commit", "done but lost", DONE_BUT_LOST, ["HEAD blob"]),
    ("PUT commit", "timed out", HANG, ["HEAD blob", "GET session", "PUT commit"]),
    ("PUT commit", "504", say(504), ["HEAD blob", "GET session", "PUT commit"]),
    ("PUT manifest", "done but lost", DONE_BUT_LOST, ["PUT manifest"]),
    ("PUT manifest", "timed out", HANG, ["PUT manifest"]),
    ("PUT tag", "done but lost", DONE_BUT_LOST, ["HEAD tag"]),
    ("PUT tag", "timed out", HANG, ["HEAD tag", "PUT tag"]),
    ("PUT tags", "done but lost", DONE_BUT_LOST, ["HEAD tag"] * 3),
    ("PUT tags", "timed out", HANG, ["HEAD tag", "HEAD tag", "PUT tag", "PUT tag", "HEAD tag", "PUT tag"]),
    ("PUT tag", "5xx, but done", done_but(500), ["HEAD tag"]),
    ("PUT tag", "409, but ours is there", done_but(409), ["HEAD tag"]),
]


@pytest.mark.parametrize(("request_", "column", "answer", "then"), ONCE, ids=lambda v: v if isinstance(v, str) else "")
def test_once(request_: str, column: str, answer: Answer, then: list[str]) -> None:
    play = started(request_)
    play.on({request_: [answer]})
    assert play.run(ROWS[request_].push).outcome is PushOutcome.PUSHED
    assert asked_from(play, request_) == [request_, *then]


def test_a_patch_goes_on_where_a_416_says() -> None:
    play = started("PATCH", location_query=False)
    play.on({"PATCH": [done_but(416, Range="0-9")]})
    assert play.run(PATCH_PUSH).outcome is PushOutcome.PUSHED
    assert asked_from(play, "PATCH") == ["PATCH", "PUT commit"]


FATAL: Final[list[tuple[str, Answer, str, list[str]]]] = [
    ("POST start", say(404), "may have to be created first", []),
    ("PUT manifest", say(416), "416", []),
    ("PUT tag", say(416), "416", []),
    ("PUT tag", refuse(409, "DENIED", "the tag is immutable"), "the tag is immutable", ["HEAD tag"]),
]


@pytest.mark.parametrize(("request_", "answer", "says", "then"), FATAL)
def test_fatal(request_: str, answer: Answer, says: str, then: list[str]) -> None:
    play = started(request_)
    play.on({request_: [answer]})
    result = play.run(ROWS[request_].push)
    assert result.outcome is PushOutcome.FAILED
    assert isinstance(result.error, RegistryError)
    assert says in str(result.error)
    assert asked_from(play, request_) == [request_, *then]


NO_ANSWER: Final = {"not sent": NOT_SENT, "lost": LOST, "timed out": HANG}

FOR_EVER: Final[list[tuple[str, list[str], list[str], PushOutcome]]] = [
    ("HEAD blob", ["not sent", "lost", "timed out"], ["HEAD blob"] * 4, PushOutcome.FAILED),
    ("HEAD blob", ["5xx"], [*["HEAD blob"] * 4, "POST start", "PUT blob"], PushOutcome.PUSHED),
    ("POST start", ["not sent", "lost", "timed out", "5xx"], ["POST start"] * 4, PushOutcome.FAILED),
    ("POST mount", ["lost", "timed out", "5xx"], ["POST mount", "POST start", "PUT blob"], PushOutcome.PUSHED),
    ("PUT manifest", ["not sent", "lost", "timed out", "5xx"], ["PUT manifest"] * 4, PushOutcome.FAILED),
    ("PUT tag", ["not sent"], ["PUT tag"] * 4, PushOutcome.FAILED),
    ("PUT tags", ["not sent"], ["PUT tags"] * 4, PushOutcome.FAILED),
    ("PUT tag", ["lost", "timed out", "5xx"], ["HEAD tag", "PUT tag"] * 4, PushOutcome.FAILED),
]


@pytest.mark.parametrize(
    ("request_", "column", "then", "ended"),
    [(request, column, then, ended) for request, columns, then, ended in FOR_EVER for column in columns],
)
def test_again_and_again(request_: str, column: str, then: list[str], ended: PushOutcome) -> None:
    play = started(request_)
    play.on({request_: always({"5xx": BROKEN, **NO_ANSWER}[column])})
    assert play.run(ROWS[request_].push).outcome is ended
    assert asked_from(play, request_) == [request_, *then]


@pytest.mark.parametrize("answer", [NOT_SENT, LOST, HANG, BROKEN], ids=["not sent", "lost", "timed out", "5xx"])
@pytest.mark.parametrize("request_", ["POST blob", "PATCH", "PUT blob", "PUT commit"])
def test_bodies_again_and_again(request_: str, answer: Answer) -> None:
    play = started(request_)
    play.on({request_: always(answer), "PATCH": always(answer) if "commit" not in request_ else []})
    result = play.run(ROWS[request_].push)
    if request_ == "POST blob" and answer is not NOT_SENT:
        assert result.outcome is PushOutcome.PUSHED  # the plain way
    else:
        assert result.outcome is PushOutcome.FAILED
    assert len(play.sends) <= 40


@pytest.mark.parametrize("request_", sorted(set(PUSHING) - {"POST mount", "HEAD blob"}))
def test_not_sent_is_bounded(request_: str) -> None:
    play = started(request_)
    play.on({request_: always(NOT_SENT)})
    assert play.run(ROWS[request_].push).outcome is PushOutcome.FAILED
    assert play.names.count(request_) == Config().attempts


def test_mount_sources_that_do_not_exist() -> None:
    play = started("POST mount")
    play.on({"POST mount": always(say(404))})
    assert play.run(MOUNT_PUSH).outcome is PushOutcome.PUSHED
    looks = ["HEAD blob", "HEAD source", "HEAD source"]
    assert play.names == [*looks, "POST mount", "POST mount", "POST start", "PUT blob"]


def test_a_mount_refused_with_401_costs_the_source() -> None:
    play = started("POST mount", authorized=True)
    play.on({"POST mount from=base/one": always(CHALLENGE)})
    result = play.run(MOUNT_PUSH)
    assert result.mounted == (MOUNT_PUSH.blobs[0].descriptor.digest,)
    looks = ["HEAD blob", "HEAD source", "HEAD source"]
    assert [name for name in play.names if name != "GET token"] == [*looks, *["POST mount"] * 3]


def test_what_a_manifest_404_says_is_missing_is_pushed() -> None:
    layer = blob(CONTENT)
    whole = image(layer)
    missing = refuse(404, "MANIFEST_BLOB_UNKNOWN", detail={"digest": layer.descriptor.digest})
    play = Play({"PUT tag": [missing]})
    assert play.run(whole.push("1.0")).outcome is PushOutcome.PUSHED
    assert asked_from(play, "PUT tag") == ["PUT tag", "POST blob", "PUT tag"]


# --- tokens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", ["GET token", "POST token"])
def test_a_token_server_that_times_out_is_asked_again(request_: str) -> None:
    play = started(request_)
    play.on({request_: [HANG]})
    assert play.run(SINGLE_PUSH).outcome is PushOutcome.PUSHED
    assert play.names == ["POST blob", request_, request_, "POST blob"]


@pytest.mark.parametrize("answer", [NOT_SENT, LOST, HANG, BROKEN])
def test_token_again_and_again(answer: Answer) -> None:
    play = Play({"GET token": [PASS, *[answer] * 99]}, auth=Auth.BEARER, config=Config(attempts=3))
    assert play.run(SINGLE_PUSH).outcome is PushOutcome.PUSHED
    play.now = 1e6  # the token has long expired
    play.sends.clear()
    assert play.run(blobs_push(blob(b"another"))).outcome is PushOutcome.FAILED
    assert play.names == ["GET token"] * 3
