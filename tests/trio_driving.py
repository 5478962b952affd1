"""Short words for the tests of the trio driver."""

from __future__ import annotations

import ssl
import threading
from typing import Any

import attrs
import trio

import wire
from driving import nobody
from regproto._messages import Failed, Output, Response, Send, Wait
from regproto._plan import Push
from regproto_trio import drive
from wire import Condition, ScriptedSession, answered

NOTHING = Push(repository="a")
TICK_S = 0.005
"""How soon a condition is looked at again that depends on a peer."""


class Scripted(ScriptedSession):
    """Takes one push, and never holds up the loop while it waits for a peer."""

    def submit(self, push: Push, /) -> int:
        return 0

    def poll(self, now: float) -> Output:
        output = super().poll(now)
        return Wait(until=min(output.until, now + TICK_S)) if isinstance(output, Wait) else output


def peer_has(event: threading.Event) -> Condition:
    """Until a peer has set this."""
    return lambda _: event.is_set()


def run(*script: Output | Condition, **options: Any) -> Scripted:
    """Runs a script to its end, each of its Sends answered once."""
    session = Scripted(*script)

    async def main() -> None:
        with trio.fail_after(wire.PATIENCE_S):
            async with drive(session, **{"keychain": nobody, **options}) as driver:
                assert await driver.push(NOTHING) == wire.RESULT

    trio.run(main)
    assert all(len(session.answers(s.id)) == 1 for s in script if isinstance(s, Send))
    return session


def exchange(what: Send, **options: Any) -> Response | Failed:
    """The answer to one Send."""
    return run(what, answered(what.id), **options).answers(what.id)[0]


@attrs.frozen
class Ends:
    """What the two ends of a line need: nothing, or TLS."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None
