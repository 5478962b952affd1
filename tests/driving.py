"""Short words for the tests of the blocking driver."""

from __future__ import annotations

from typing import Any

import wire
from regproto._model.messages import (
    Failed,
    FailureKind,
    NeedCredentials,
    NoCredentials,
    Notice,
    Output,
    Response,
    Send,
    Status,
    Written,
)
from regproto_sync.driver.driver import Driver
from wire import ScriptedSession, answered

BIG = 8 * 1024 * 1024
NEWS = Notice(status=Status.UPLOADING, subject="sha256:0")


def nobody(need: NeedCredentials) -> NoCredentials:
    return NoCredentials(id=need.id)


def run(driver: Driver, *script: Output | wire.Condition, **options: Any) -> ScriptedSession:
    session = ScriptedSession(*script)
    options.setdefault("keychain", nobody)
    assert driver.run(session, [0], **options) == {0: wire.RESULT}
    assert all(len(session.answers(id)) == 1 for id in {s.id for s in script if isinstance(s, Send)})
    return session


def exchange(driver: Driver, what: Send) -> Response | Failed:
    [answer] = run(driver, what, answered(what.id)).answers(what.id)
    return answer


def responded(answer: Response | Failed) -> Response:
    assert isinstance(answer, Response), answer
    return answer


def failed(answer: Response | Failed, kind: FailureKind, written: Written) -> Failed:
    assert isinstance(answer, Failed), answer
    assert (answer.kind, answer.written) == (kind, written), answer
    return answer
