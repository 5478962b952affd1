"""A scenario against a driver: real sockets on loopback, real time.

The registry of a scenario listens on two ports, which are two origins: its own, and the one uploads may be sent to.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from conformance._names import Names
from conformance._plan import build
from conformance._played import Outcome, differences
from conformance._player import Player
from conformance._scenario import Scenario
from conformance._switches import make_config
from regproto import Credentials, NeedCredentials, NoCredentials, PushPlan, PushResult, Session
from regproto.testing import RunSession
from regproto_sync import BytesContent, Server, StreamContent

Keychain = Callable[[NeedCredentials], Credentials | NoCredentials]

PATIENCE_S: Final = 60.0
"""A driver that has not finished a scenario by then hangs: the longest takes a few seconds on a busy machine."""


def check(scenario: Scenario, run: RunSession) -> list[str]:
    """Plays a scenario through a driver; what is not as it says."""
    names = scenario.names()
    player = Player(scenario, names)
    with Server(player) as server, Server(player) as elsewhere:
        elsewhere.lock = server.lock
        names = scenario.names(registry=server.url, elsewhere=elsewhere.url)
        player = server.registry = elsewhere.registry = Player(scenario, names)
        outcome = play(scenario, run, make_session(scenario, names), player)
    return differences(scenario, outcome, names)


def make_session(scenario: Scenario, names: Names) -> Session:
    """The session of a scenario, with the registry that `names` has."""
    config = make_config(scenario.config, names)
    if not scenario.has_silence:
        # An answer that is late because the machine is busy is waited for.
        config = attrs.evolve(config, response_timeout_s=PATIENCE_S)
    return Session(names.registry, config, seed=1, now=time.monotonic())


def play(scenario: Scenario, run: RunSession, session: Session, player: Player) -> Outcome:
    """Lets a driver perform the pushes of a scenario."""
    pushes, results = perform(scenario, run, session, player.names, keychain_of(scenario))
    return Outcome(seen=player.seen, pushes=pushes, results=results, player=player)


def perform(
    scenario: Scenario, run: RunSession, session: Any, names: Names, keychain: Keychain
) -> tuple[list[PushPlan], list[PushResult]]:
    """Lets a driver perform the pushes of a scenario: the plans, and how they ended."""
    pushes = [build(plan, scenario.contents, names, BytesContent, _stream) for plan in scenario.plans]
    results: dict[int, PushResult] = {}
    ids: list[int] = []
    for plan, push in zip(scenario.plans, pushes, strict=True):
        if plan.after and ids:
            results |= in_time(run, session, [i for i in ids if i not in results], keychain)
        ids.append(session.submit(push))
    results |= in_time(run, session, [i for i in ids if i not in results], keychain)
    return pushes, [results[i] for i in ids]


def _stream(content: bytes) -> StreamContent:
    return StreamContent(lambda: io.BytesIO(content))


def keychain_of(scenario: Scenario) -> Keychain:
    """The keychain of a scenario, as a driver asks it."""
    known = scenario.keychain

    def keychain(need: NeedCredentials) -> Credentials | NoCredentials:
        if known is None or "error" in known:
            return NoCredentials(id=need.id, error=(known or {}).get("error", ""))
        return Credentials(id=need.id, **known)

    return keychain


class Hangs(Exception):
    """A driver did not return."""


def in_time(run: RunSession, session: Any, ids: list[int], keychain: Keychain) -> Mapping[int, PushResult]:
    """Runs a session, in a thread of its own so that a driver that hangs is noticed."""
    results: list[Mapping[int, PushResult]] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(run(session, ids, keychain=keychain))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="scenario", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    if thread.is_alive():
        raise Hangs(f"the driver has not returned after {PATIENCE_S:.0f} s")
    if errors:
        raise errors[0]
    return results[0]
