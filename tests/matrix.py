"""What to do with each answer, as data: every request a push makes against every kind of answer.

A cell says what is asked after an answer of that kind came once, where the registry answers all else, up to the end of
the push; or that the push fails, and with what words. A cell that is missing fails the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import attrs

from core import LOST, NOT_SENT, PATCHES, PLAIN, Answer, refuse, say
from pushes import blob, blobs_push, described, image
from regproto import Config, PushPlan
from regproto._machines.base import State
from regproto._machines.blob import BlobState
from regproto._machines.manifest import ManifestState
from regproto._machines.referrers import ReferrersState
from regproto._machines.source_check import SourceCheckState
from regproto._machines.token import TokenState
from regproto._machines.upload import UploadState
from regproto.testing import Auth

CONTENT: Final = b"0123456789"
SOURCES: Final = ("base/one", "base/two")
HOLD_S: Final = 7
"""What the 429 asks to wait."""

CHALLENGE: Final = refuse(
    401,
    "UNAUTHORIZED",
    WWW_Authenticate='Bearer realm="https://registry.example/token",service="registry.example",error="invalid_token"',
)
BROKEN: Final = say(503)
OUT_OF_RANGE: Final = refuse(416, "BLOB_UPLOAD_INVALID")
UNKNOWN_SESSION: Final = refuse(404, "BLOB_UPLOAD_UNKNOWN")

COLUMNS: Final[Mapping[str, Answer]] = {
    "not sent": NOT_SENT,
    "lost": LOST,
    "401": CHALLENGE,
    "404": refuse(404, "NAME_UNKNOWN"),
    "416": OUT_OF_RANGE,
    "429": refuse(429, "TOOMANYREQUESTS", Retry_After=str(HOLD_S)),
    "5xx": BROKEN,
}


@attrs.frozen(kw_only=True)
class Row:
    """A request, and how a push comes to make it."""

    state: State
    """The one in which it is made."""
    config: Config = attrs.field(factory=Config)
    push: PushPlan
    before: Mapping[str, list[Answer]] = attrs.field(factory=dict)
    """What has to go wrong for it to be made at all."""
    answers: Mapping[str, Answer] = attrs.field(factory=dict)
    """Where a column's answer takes another form here."""
    options: Mapping[str, Any] = attrs.field(factory=dict)
    """Of the registry and the player."""
    there: tuple[bytes, ...] = ()
    """Blobs that the registry has."""
    listed: bool = False
    """The registry has the subject of an attachment, and another one in its list."""
    request: str = ""
    """As tests name it (`core.name_of`), if not as the row."""

    def answer(self, column: str) -> Answer:
        """What comes once."""
        return self.answers.get(column, COLUMNS[column])


IMAGE: Final = image(CONTENT)
SUBJECT: Final = image(b"the subject")
ATTACHMENT, OTHER = (image(CONTENT, subject=described(SUBJECT.manifest), annotations={"n": n}) for n in "12")
NO_API: Final = {"referrers_api": False, "sparse_indexes": True}
BLOB: Final = blobs_push(blob(CONTENT))
UNKNOWN: Final = {"404": UNKNOWN_SESSION}
PUT_AT_ONCE: Final = Config(check_existing=False)
TOKENS: Final = {"auth": Auth.BEARER}
IDENTITY: Final = {
    "auth": Auth.BEARER,
    "keychain": {"identity_token": "refresh me"},
    "users": {"<token>": "refresh me"},
    "identity_tokens": {"refresh me": "<token>"},
}

ROWS: Final[Mapping[str, Row]] = {
    "HEAD blob": Row(state=BlobState.CHECKING, config=PLAIN, push=BLOB),
    "HEAD source": Row(state=SourceCheckState.CHECKING, config=PLAIN, push=blobs_push(blob(CONTENT, *SOURCES))),
    "POST mount": Row(state=BlobState.MOUNTING, config=PLAIN, push=blobs_push(blob(CONTENT, *SOURCES))),
    "POST blob": Row(state=BlobState.POSTING, push=BLOB),
    "POST start": Row(state=UploadState.STARTING, config=PLAIN, push=BLOB),
    "PATCH": Row(state=UploadState.PATCHING, config=PATCHES, push=BLOB, answers=UNKNOWN),
    "PUT blob": Row(state=UploadState.PUTTING, config=PLAIN, push=BLOB, answers=UNKNOWN),
    "PUT commit": Row(state=UploadState.COMMITTING, config=PATCHES, push=BLOB, answers=UNKNOWN),
    "GET session": Row(
        state=UploadState.QUERYING_STATUS, config=PATCHES, push=BLOB, before={"PATCH": [LOST]}, answers=UNKNOWN
    ),
    "DELETE session": Row(
        state=UploadState.CANCELLING,
        config=PATCHES,
        push=BLOB,
        before={"PATCH": [refuse(403, "DENIED", "not you")]},
        answers=UNKNOWN,
    ),
    "HEAD manifest": Row(state=ManifestState.CHECKING, push=IMAGE.bare(), there=(CONTENT,)),
    "HEAD tag": Row(state=ManifestState.CHECKING, push=IMAGE.bare("1.0"), there=(CONTENT,)),
    "PUT manifest": Row(state=ManifestState.PUTTING, config=PUT_AT_ONCE, push=IMAGE.bare(), there=(CONTENT,)),
    "PUT tag": Row(state=ManifestState.TAGGING, config=PUT_AT_ONCE, push=IMAGE.bare("1.0"), there=(CONTENT,)),
    "PUT tags": Row(
        state=ManifestState.PUTTING_WITH_TAGS, config=PUT_AT_ONCE, push=IMAGE.bare("1", "2", "3"), there=(CONTENT,)
    ),
    "GET referrers API": Row(
        state=ReferrersState.QUERYING_API,
        request="GET referrers",
        config=PUT_AT_ONCE,
        push=ATTACHMENT.bare(),
        options={"sparse_indexes": True},
        there=(CONTENT,),
        listed=True,
    ),
    "GET list": Row(
        state=ReferrersState.READING,
        request="GET tag",
        config=PUT_AT_ONCE,
        push=ATTACHMENT.bare(),
        options=NO_API,
        there=(CONTENT,),
        listed=True,
    ),
    "PUT list": Row(
        state=ReferrersState.WRITING,
        request="PUT tag",
        config=PUT_AT_ONCE,
        push=ATTACHMENT.bare(),
        options=NO_API,
        there=(CONTENT,),
        listed=True,
    ),
    "GET token": Row(state=TokenState.FETCHING, push=BLOB, options=TOKENS),
    "POST token": Row(state=TokenState.EXCHANGING, push=BLOB, options=IDENTITY),
}

LOOKS_OF_OTHER_ROWS: Final = frozenset(
    {
        *(
            BlobState.CONFIRMING,
            UploadState.CHECKING_BLOB,
            UploadState.QUERYING_BEFORE_CANCEL,
            ManifestState.CONFIRMING,
        ),
        ReferrersState.CHECKING,
        *(BlobState.PROVING, UploadState.PROVING, ManifestState.CHECKING_PUT, ManifestState.PROVING),
    }
)
"""States that ask what a row above asks too, after an answer that was lost: they are what follows in its cells. (The
last four ask after a success that proves nothing: tests/evidence/test_evidence.py has what follows there.)"""


@attrs.frozen
class Fails:
    """The push fails."""

    says: str
    """A part of the error's words."""
    then: tuple[str, ...] = ()


Cell: TypeAlias = tuple[str, ...] | Fails

_UP: Final = ("POST start", "PUT blob")
_ON: Final = ("GET session", "PATCH", "PUT commit")
_SURE: Final = ("HEAD blob", *_ON)
_PLAINLY: Final = ("HEAD blob", *_UP)
_LISTING: Final = ("GET tag", "PUT tag", "GET tag")
_OTHER: Final = ("HEAD source",)
_GIVEN_BACK: Final = Fails("not you")
_EACH: Final = ("PUT tag",) * 3
_LOOK_AT_EACH: Final = ("HEAD tag", "HEAD tag", "PUT tag", "PUT tag", "HEAD tag", "PUT tag")
"""The others at once, the first after its delay."""
_UNKNOWN: Final = Fails("may have to be created first")
_NO_TOKEN: Final = Fails("check the credentials")


def _row(
    not_sent: Cell, lost: Cell, refused: Cell, absent: Cell, range_: Cell, busy: Cell, broken: Cell
) -> dict[str, Cell]:
    return dict(zip(COLUMNS, (not_sent, lost, refused, absent, range_, busy, broken), strict=True))


def _again(
    request: str, *tail: str, absent: Cell, range_: Cell, after: tuple[str, ...] | None = None, **other: Cell
) -> dict[str, Cell]:
    """A row in which most answers mean: once more; `after`: what a doubtful answer is followed by instead."""
    once_more: Cell = (request, *tail)
    doubtful: Cell = once_more if after is None else after
    cells = _row(once_more, doubtful, ("GET token", *once_more), absent, range_, doubtful, doubtful)
    return cells | {column.replace("_", " "): cell for column, cell in other.items()}


CELLS: Final[Mapping[str, Mapping[str, Cell]]] = {
    "HEAD blob": _again("HEAD blob", *_UP, absent=_UP, range_=_UP),
    # The other source is asked at the same time.
    "HEAD source": _again(
        *_OTHER, "HEAD source", "POST mount", absent=(*_OTHER, "POST mount"), range_=(*_OTHER, "POST mount")
    )
    | {"401": (*_OTHER, "GET token", "HEAD source", "POST mount")},
    "POST mount": _again("POST mount", absent=("POST mount",), range_=_UP),
    "POST blob": _again("POST blob", absent=_UP, range_=_UP, after=_PLAINLY),
    "POST start": _again("POST start", "PUT blob", absent=_UNKNOWN, range_=Fails("BLOB_UPLOAD_INVALID")),
    "PATCH": _again("PATCH", "PUT commit", absent=("POST start", "PATCH", "PUT commit"), range_=_ON, after=_ON)
    | {"401": ("GET token", *_ON)},
    "PUT blob": _again("PUT blob", absent=_PLAINLY, range_=_ON, after=_SURE) | {"401": ("GET token", *_ON)},
    "PUT commit": _again(
        "PUT commit",
        absent=("HEAD blob", "POST start", "PATCH", "PUT commit"),
        range_=("GET session", "PUT commit"),
        after=("HEAD blob", "GET session", "PUT commit"),
    ),
    "GET session": _again(
        *_ON, absent=("POST start", "PATCH", "PUT commit"), range_=("POST start", "PATCH", "PUT commit")
    ),
    "DELETE session": _row(
        *(_GIVEN_BACK,) * 2,
        Fails("not you", ("GET token", "DELETE session")),
        _GIVEN_BACK,
        Fails("not you", ("GET session", "DELETE session")),
        *(_GIVEN_BACK,) * 2,
    ),
    "HEAD manifest": _again("HEAD manifest", "PUT manifest", absent=("PUT manifest",), range_=("PUT manifest",)),
    "HEAD tag": _again("HEAD tag", "PUT tag", absent=("PUT tag",), range_=("PUT tag",)),
    "PUT manifest": _again("PUT manifest", absent=_UNKNOWN, range_=Fails("416")),
    "PUT tag": _again("PUT tag", absent=_UNKNOWN, range_=Fails("416"), after=("HEAD tag", "PUT tag")),
    "PUT tags": _again("PUT tags", absent=_EACH, range_=_EACH, after=_LOOK_AT_EACH)
    | {"429": (*("HEAD tag",) * 3, *_EACH)},
    "GET referrers API": _again("GET referrers", absent=_LISTING, range_=Fails("416")),
    "GET list": _again(*_LISTING, absent=_LISTING[1:], range_=Fails("416")),
    "PUT list": _again("PUT tag", "GET tag", absent=_UNKNOWN, range_=Fails("416"), after=_LISTING)
    | {"not sent": _LISTING},
    "GET token": _again("GET token", "POST blob", absent=_NO_TOKEN, range_=_NO_TOKEN) | {"401": _NO_TOKEN},
    "POST token": _again("POST token", "POST blob", absent=("GET token", "POST blob"), range_=_NO_TOKEN)
    | {"401": ("GET token", "POST blob")},
}
"""By row and column. `lost` is also what a timeout, a reset or an answer that is no HTTP mean."""
