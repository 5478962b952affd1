"""The life of a question about a mount source: does that repository have this blob?

A mount that is refused opens an upload session, a HEAD opens none. So where a blob may be mounted from several
repositories, they are asked first. Only a 404 rules one out (LACKING): some registries answer 403 for what is missing,
and a source that gives no answer, or no token, may still be mounted from (POSSIBLE). It is a short cut, so it is tried
again once.

Source: distribution-spec "Checking if content exists", "Mounting a blob from another repository".
"""

from __future__ import annotations

from typing import ClassVar, Final

import attrs

from regproto._http.url import blob_url
from regproto._machines.base import Machine, Outcome, Request, State, Table, Verdict, members
from regproto._machines.blob_requests import SHORT_CUT_FAULTS_MAX
from regproto._machines.verdicts import refused
from regproto._model.config import TRANSIENT, Config
from regproto._model.digest import Digest
from regproto._model.messages import Response


class SourceCheckState(State):
    """The states of the question."""

    CHECKING = "checking"
    LACKING = "lacking"
    HAVING = "having"
    POSSIBLE = "possible"
    DROPPED = "dropped"


_S: Final = members(SourceCheckState)
_O: Final = members(Outcome)

TABLE: Final[Table] = {
    _S.CHECKING: {
        _O.ABSENT: _S.LACKING,
        _O.PRESENT: _S.HAVING,
        _O.CHALLENGED: _S.CHECKING,
        _O.NOT_SENT: _S.CHECKING,
        _O.LOST: _S.CHECKING,
        _O.UNAVAILABLE: _S.CHECKING,
        _O.GAVE_UP: _S.POSSIBLE,
        _O.RETRIES_EXHAUSTED: _S.POSSIBLE,
        _O.REFUSED: _S.POSSIBLE,
        _O.DENIED: _S.POSSIBLE,
        _O.BROKEN: _S.POSSIBLE,
        _O.CANCEL: _S.DROPPED,
    },
    _S.LACKING: {},
    _S.HAVING: {},
    _S.POSSIBLE: {},
    _S.DROPPED: {},
}


@attrs.define(kw_only=True, eq=False, repr=False)
class SourceCheckMachine(Machine):
    """One blob in one repository that it may be mounted from.

    `repository` is the one that is pushed to: its token covers reading from the source.
    """

    NAME: ClassVar[str] = "source check"
    TABLE: ClassVar[Table] = TABLE
    ASKS: ClassVar[frozenset[State]] = frozenset({_S.CHECKING})
    ENDS: ClassVar[frozenset[State]] = frozenset({_S.LACKING, _S.HAVING, _S.POSSIBLE, _S.DROPPED})

    state: State = _S.CHECKING
    source: str
    digest: Digest

    @property
    def mount_source(self) -> str:
        return self.source

    def describe(self) -> str:
        return f"blob in {self.source} {self.digest}"

    def max_faults(self, config: Config) -> int:
        return min(SHORT_CUT_FAULTS_MAX, config.attempts - 1)

    def request(self) -> Request:
        return Request("HEAD", blob_url(self.base, self.source, self.digest))

    def classify(self, response: Response, url: str, proven: bool) -> Verdict:
        if response.status == 404:
            return _O.ABSENT, None
        if response.status == 200:
            return _O.PRESENT, None  # what it says of the blob is asked of the mount's answer
        if response.status == 401 or response.status in TRANSIENT:
            return refused(self.describe(), "HEAD", url, response)
        return _O.REFUSED, None
