"""What to do with each answer: every request against every kind of answer, one case a cell.

A case plays one answer to one request, the fake registry answers the rest; it says what is asked from that request
on, and whether the push gets there. `test_again_and_again` has the same answer come every time.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from _pytest.mark import ParameterSet

from core import (
    DONE_BUT_LOST,
    HANG,
    LOST,
    NOT_SENT,
    PASS,
    PATCHES,
    PLAIN,
    Answer,
    Play,
    always,
    done_but,
    refuse,
    say,
)
from pushes import REPO, blob, blobs_push, image
from regproto import Config, Push, PushOutcome, RegistryError
from regproto.testing import Auth

CHALLENGE: Final = refuse(
    401,
    "UNAUTHORIZED",
    WWW_Authenticate='Bearer realm="https://registry.example/token",service="registry.example",error="invalid_token"',
)
CONTENT: Final = b"0123456789"
SOURCES: Final = ("base/one", "base/two")
BROKEN: Final = say(503)
OUT_OF_RANGE: Final = refuse(416, "BLOB_UPLOAD_INVALID")
UNKNOWN_SESSION: Final = refuse(404, "BLOB_UPLOAD_UNKNOWN")

PLAIN_ROW: Final = (PLAIN, blobs_push(blob(CONTENT)))
PATCH_ROW: Final = (PATCHES, blobs_push(blob(CONTENT)))
MOUNT_ROW: Final = (PLAIN, blobs_push(blob(CONTENT, *SOURCES)))
SINGLE_ROW: Final = (Config(), blobs_push(blob(CONTENT)))
IMAGE: Final = image(CONTENT)

ROWS: Final[dict[str, tuple[Config, Push]]] = {
    "HEAD blob": PLAIN_ROW,
    "POST start": PLAIN_ROW,
    "POST mount": MOUNT_ROW,
    "POST blob": SINGLE_ROW,
    "PATCH": PATCH_ROW,
    "PUT blob": PLAIN_ROW,
    "PUT commit": PATCH_ROW,
    "PUT manifest": (Config(check_existing=False), IMAGE.bare()),
    "PUT tag": (Config(check_existing=False), IMAGE.bare("1.0")),
}

TAIL: Final = {
    "HEAD blob": ["POST start", "PUT blob"],
    "POST start": ["PUT blob"],
    "POST mount": [],
    "POST blob": [],
    "PATCH": ["PUT commit"],
    "PUT blob": [],
    "PUT commit": [],
    "PUT manifest": [],
    "PUT tag": [],
}
"""What comes after each request where nothing goes wrong."""


def started(request: str, authorized: bool = False, **options: Any) -> Play:
    """A registry that has been spoken to already, with a token in hand if it wants one."""
    play = Play(config=ROWS[request][0], auth=Auth.BEARER if authorized else Auth.NONE, **options)
    for source in SOURCES:
        play.registry.put_blob(source, CONTENT)
    for content in (b"{}", *([CONTENT] if request in ("PUT manifest", "PUT tag") else [])):
        play.registry.put_blob(REPO, content)
    assert play.run(image().bare()).outcome is PushOutcome.PUSHED
    play.sends.clear()
    return play


def asked_from(play: Play, request: str) -> list[str]:
    return play.names[play.names.index(request) :]


@pytest.mark.parametrize("request_", ROWS)
def test_where_nothing_goes_wrong(request_: str) -> None:
    play = started(request_)
    assert play.run(ROWS[request_][1]).outcome is PushOutcome.PUSHED
    assert asked_from(play, request_) == [request_, *TAIL[request_]]


@pytest.mark.parametrize("request_", ROWS)
def test_not_sent(request_: str) -> None:
    play = started(request_)
    play.on({request_: [NOT_SENT]})
    assert play.run(ROWS[request_][1]).outcome is PushOutcome.PUSHED
    assert asked_from(play, request_) == [request_, request_, *TAIL[request_]]
    assert play.now > 0


@pytest.mark.parametrize("request_", ROWS)
def test_401(request_: str) -> None:
    play = started(request_, authorized=True)
    play.on({request_: [CHALLENGE]})
    assert play.run(ROWS[request_][1]).outcome is PushOutcome.PUSHED
    first = ["GET session"] if request_ in ("PATCH", "PUT blob") else []
    again = "PATCH" if request_ == "PUT blob" else request_
    tail = ["PUT commit"] if request_ == "PUT blob" else TAIL[request_]
    # A mount's sources are new to the token: one is fetched before the first mount, too.
    assert asked_from(play, request_) == [request_, "GET token", *first, again, *tail]
    assert play.now == 0


@pytest.mark.parametrize("request_", sorted(set(ROWS) - {"POST mount"}))
def test_401_again(request_: str) -> None:
    play = started(request_, authorized=True)
    play.on({request_: always(CHALLENGE)} | ({"PATCH": always(CHALLENGE)} if request_ == "PUT blob" else {}))
    result = play.run(ROWS[request_][1])
    assert result.outcome is PushOutcome.FAILED
    assert isinstance(result.error, RegistryError) and result.error.status == 401
    # The status that is asked first, where a body was under way, is taken: the refusals are not in a row.
    assert asked_from(play, request_).count("GET token") == (2 if request_ in ("PATCH", "PUT blob") else 1)


Cell = tuple[str, str, Answer, list[str]]


ONCE: Final[list[Cell | ParameterSet]] = [
    ("HEAD blob", "lost", LOST, ["HEAD blob", "POST start", "PUT blob"]),
    ("HEAD blob", "timed out", HANG, ["HEAD blob", "POST start", "PUT blob"]),
    ("HEAD blob", "404", say(404), ["POST start", "PUT blob"]),
    ("HEAD blob", "403 for what is missing", say(403), ["POST start", "PUT blob"]),
    ("HEAD blob", "416", say(416), ["POST start", "PUT blob"]),
    ("HEAD blob", "5xx", BROKEN, ["HEAD blob", "POST start", "PUT blob"]),
    ("POST start", "lost", LOST, ["POST start", "PUT blob"]),
    ("POST start", "done but lost", DONE_BUT_LOST, ["POST start", "PUT blob"]),
    ("POST start", "timed out", HANG, ["POST start", "PUT blob"]),
    ("POST start", "5xx", BROKEN, ["POST start", "PUT blob"]),
    ("POST mount", "lost", LOST, ["POST mount"]),
    ("POST mount", "timed out", HANG, ["POST mount"]),
    ("POST mount", "404", say(404), ["POST mount"]),
    ("POST mount", "416", OUT_OF_RANGE, ["POST start", "PUT blob"]),
    ("POST mount", "5xx", BROKEN, ["POST mount"]),
    ("POST blob", "lost", LOST, ["HEAD blob", "POST start", "PUT blob"]),
    ("POST blob", "done but lost", DONE_BUT_LOST, ["HEAD blob"]),
    ("POST blob", "timed out", HANG, ["HEAD blob", "POST start", "PUT blob"]),
    ("POST blob", "404", say(404), ["POST start", "PUT blob"]),
    ("POST blob", "416", OUT_OF_RANGE, ["POST start", "PUT blob"]),
    ("POST blob", "5xx", BROKEN, ["HEAD blob", "POST start", "PUT blob"]),
    ("PATCH", "lost", LOST, ["GET session", "PATCH", "PUT commit"]),
    ("PATCH", "done but lost", DONE_BUT_LOST, ["GET session", "PUT commit"]),
    ("PATCH", "timed out", HANG, ["GET session", "PATCH", "PUT commit"]),
    ("PATCH", "404", UNKNOWN_SESSION, ["POST start", "PATCH", "PUT commit"]),
    ("PATCH", "416 without", OUT_OF_RANGE, ["GET session", "PATCH", "PUT commit"]),
    ("PATCH", "5xx", BROKEN, ["GET session", "PATCH", "PUT commit"]),
    ("PUT blob", "lost", LOST, ["HEAD blob", "GET session", "PATCH", "PUT commit"]),
    ("PUT blob", "done but lost", DONE_BUT_LOST, ["HEAD blob"]),
    ("PUT blob", "5xx", BROKEN, ["HEAD blob", "GET session", "PATCH", "PUT commit"]),
    ("PUT commit", "lost", LOST, ["HEAD blob", "GET session", "PUT commit"]),
    ("PUT commit", "done but lost", DONE_BUT_LOST, ["HEAD blob"]),
    ("PUT commit", "timed out", HANG, ["HEAD blob", "GET session", "PUT commit"]),
    ("PUT commit", "404", UNKNOWN_SESSION, ["HEAD blob", "POST start", "PATCH", "PUT commit"]),
    ("PUT commit", "416", OUT_OF_RANGE, ["GET session", "PUT commit"]),
    ("PUT commit", "5xx", say(504), ["HEAD blob", "GET session", "PUT commit"]),
    ("PUT manifest", "lost", LOST, ["PUT manifest"]),
    ("PUT manifest", "done but lost", DONE_BUT_LOST, ["PUT manifest"]),
    ("PUT manifest", "timed out", HANG, ["PUT manifest"]),
    ("PUT manifest", "5xx", BROKEN, ["PUT manifest"]),
    ("PUT tag", "lost", LOST, ["HEAD tag", "PUT tag"]),
    ("PUT tag", "done but lost", DONE_BUT_LOST, ["HEAD tag"]),
    ("PUT tag", "timed out", HANG, ["HEAD tag", "PUT tag"]),
    ("PUT tag", "5xx", BROKEN, ["HEAD tag", "PUT tag"]),
    ("PUT tag", "5xx, but done", done_but(500), ["HEAD tag"]),
    ("PUT tag", "409, but ours is there", done_but(409), ["HEAD tag"]),
]


@pytest.mark.parametrize(("request_", "column", "answer", "then"), ONCE, ids=lambda v: v if isinstance(v, str) else "")
def test_once(request_: str, column: str, answer: Answer, then: list[str]) -> None:
    play = started(request_)
    play.on({request_: [answer]})
    assert play.run(ROWS[request_][1]).outcome is PushOutcome.PUSHED
    assert asked_from(play, request_) == [request_, *then]


def test_a_patch_goes_on_where_a_416_says() -> None:
    play = started("PATCH", location_query=False)
    play.on({"PATCH": [done_but(416, Range="0-9")]})
    assert play.run(PATCH_ROW[1]).outcome is PushOutcome.PUSHED
    assert asked_from(play, "PATCH") == ["PATCH", "PUT commit"]


FATAL: Final[list[tuple[str, Answer, str, list[str]]]] = [
    ("POST start", refuse(404, "NAME_UNKNOWN"), "may have to be created first", []),
    ("POST start", say(404), "may have to be created first", []),
    ("POST start", OUT_OF_RANGE, "BLOB_UPLOAD_INVALID", []),
    ("PUT manifest", refuse(404, "NAME_UNKNOWN"), "may have to be created first", []),
    ("PUT manifest", say(416), "416", []),
    ("PUT tag", refuse(404, "NAME_UNKNOWN"), "may have to be created first", []),
    ("PUT tag", say(416), "416", []),
    ("PUT tag", refuse(409, "DENIED", "the tag is immutable"), "the tag is immutable", ["HEAD tag"]),
]


@pytest.mark.parametrize(("request_", "answer", "says", "then"), FATAL)
def test_fatal(request_: str, answer: Answer, says: str, then: list[str]) -> None:
    play = started(request_)
    play.on({request_: [answer]})
    result = play.run(ROWS[request_][1])
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
    ("PUT tag", ["lost", "timed out", "5xx"], ["HEAD tag", "PUT tag"] * 4, PushOutcome.FAILED),
]


@pytest.mark.parametrize(
    ("request_", "column", "then", "ended"),
    [(request, column, then, ended) for request, columns, then, ended in FOR_EVER for column in columns],
)
def test_again_and_again(request_: str, column: str, then: list[str], ended: PushOutcome) -> None:
    play = started(request_)
    play.on({request_: always({"5xx": BROKEN, **NO_ANSWER}[column])})
    assert play.run(ROWS[request_][1]).outcome is ended
    assert asked_from(play, request_) == [request_, *then]


@pytest.mark.parametrize("answer", [NOT_SENT, LOST, HANG, BROKEN], ids=["not sent", "lost", "timed out", "5xx"])
@pytest.mark.parametrize("request_", ["POST blob", "PATCH", "PUT blob", "PUT commit"])
def test_bodies_again_and_again(request_: str, answer: Answer) -> None:
    play = started(request_)
    play.on({request_: always(answer), "PATCH": always(answer) if "commit" not in request_ else []})
    result = play.run(ROWS[request_][1])
    if request_ == "POST blob" and answer is not NOT_SENT:
        assert result.outcome is PushOutcome.PUSHED  # the plain way
    else:
        assert result.outcome is PushOutcome.FAILED
    assert len(play.sends) <= 40


@pytest.mark.parametrize("request_", sorted(set(ROWS) - {"POST mount", "HEAD blob"}))
def test_not_sent_is_bounded(request_: str) -> None:
    play = started(request_)
    play.on({request_: always(NOT_SENT)})
    assert play.run(ROWS[request_][1]).outcome is PushOutcome.FAILED
    assert play.names.count(request_) == Config().attempts


def test_mount_sources_that_do_not_exist() -> None:
    play = started("POST mount")
    play.on({"POST mount": always(say(404))})
    assert play.run(MOUNT_ROW[1]).outcome is PushOutcome.PUSHED
    assert play.names == ["HEAD blob", "POST mount", "POST mount", "POST start", "PUT blob"]


def test_a_mount_refused_with_401_costs_the_source() -> None:
    play = started("POST mount", authorized=True)
    play.on({"POST mount from=base/one": always(CHALLENGE)})
    result = play.run(MOUNT_ROW[1])
    assert result.mounted == (MOUNT_ROW[1].blobs[0].descriptor.digest,)
    assert [name for name in play.names if name != "GET token"] == ["HEAD blob", *["POST mount"] * 3]


def test_what_a_manifest_404_says_is_missing_is_pushed() -> None:
    layer = blob(CONTENT)
    whole = image(layer)
    missing = refuse(404, "MANIFEST_BLOB_UNKNOWN", detail={"digest": layer.descriptor.digest})
    play = Play({"PUT tag": [missing]})
    assert play.run(whole.push("1.0")).outcome is PushOutcome.PUSHED
    assert asked_from(play, "PUT tag") == ["PUT tag", "POST blob", "PUT tag"]


# --- tokens -----------------------------------------------------------------------------------------------------

IDENTITY: Final = {"identity_token": "refresh me"}

TOKENS: Final[list[tuple[str, Answer, list[str], PushOutcome]]] = [
    ("GET token", NOT_SENT, ["GET token", "POST blob"], PushOutcome.PUSHED),
    ("GET token", LOST, ["GET token", "POST blob"], PushOutcome.PUSHED),
    ("GET token", HANG, ["GET token", "POST blob"], PushOutcome.PUSHED),
    ("GET token", BROKEN, ["GET token", "POST blob"], PushOutcome.PUSHED),
    ("GET token", say(401), [], PushOutcome.FAILED),
    ("GET token", say(404), [], PushOutcome.FAILED),
    ("GET token", say(416), [], PushOutcome.FAILED),
    ("POST token", NOT_SENT, ["POST token", "POST blob"], PushOutcome.PUSHED),
    ("POST token", LOST, ["POST token", "POST blob"], PushOutcome.PUSHED),
    ("POST token", HANG, ["POST token", "POST blob"], PushOutcome.PUSHED),
    ("POST token", BROKEN, ["POST token", "POST blob"], PushOutcome.PUSHED),
    ("POST token", say(401), ["GET token", "POST blob"], PushOutcome.PUSHED),
    ("POST token", say(404), ["GET token", "POST blob"], PushOutcome.PUSHED),
    ("POST token", say(416), [], PushOutcome.FAILED),
]


@pytest.mark.parametrize(("request_", "answer", "then", "ended"), TOKENS)
def test_token(request_: str, answer: Answer, then: list[str], ended: PushOutcome) -> None:
    play = Play(
        {request_: [answer]},
        auth=Auth.BEARER,
        keychain=IDENTITY if request_ == "POST token" else None,
        users={"<token>": "refresh me"},
        identity_tokens={"refresh me": "<token>"},
    )
    assert play.run(SINGLE_ROW[1]).outcome is ended
    assert play.names == ["POST blob", request_, *then]


@pytest.mark.parametrize("answer", [NOT_SENT, LOST, HANG, BROKEN])
def test_token_again_and_again(answer: Answer) -> None:
    play = Play({"GET token": [PASS, *[answer] * 99]}, auth=Auth.BEARER, config=Config(attempts=3))
    assert play.run(SINGLE_ROW[1]).outcome is PushOutcome.PUSHED
    play.now = 1e6  # the token has long expired
    play.sends.clear()
    assert play.run(blobs_push(blob(b"another"))).outcome is PushOutcome.FAILED
    assert play.names == ["GET token"] * 3
