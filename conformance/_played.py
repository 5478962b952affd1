"""What came of playing a scenario, and whether that is what it says."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from conformance._asked import difference
from conformance._names import Names
from conformance._plan import build, whole
from conformance._player import Player
from conformance._requests import Seen, target_of
from conformance._results import error_difference, result_difference, told_difference
from conformance._scenario import Scenario
from regproto import Notice, PushOutcome, PushPlan, PushResult, RegprotoError


@attrs.define(kw_only=True)
class Outcome:
    """What happened."""

    seen: Sequence[Seen]
    pushes: list[PushPlan]
    results: list[PushResult]
    player: Player | None = None
    """None: it was a real registry."""
    notices: list[Notice] | None = None
    """None: they were not kept."""
    waited_s: float | None = None


def refusal_difference(scenario: Scenario, names: Names) -> list[str]:
    """What is not as it says of a scenario whose plan is refused."""
    assert scenario.refused is not None
    try:
        for plan in scenario.plans:
            build(plan, scenario.contents, names, bytes, bytes)
    except RegprotoError as error:
        return error_difference(scenario.refused, error, names)
    return ["the plan is taken, must be refused"]


def differences(scenario: Scenario, outcome: Outcome, names: Names) -> list[str]:
    """Everything that is not as the scenario says; nothing if it is conformant."""
    found: list[str] = []
    if scenario.asked is not None:
        found += filter(None, [difference(scenario.asked, outcome.seen, names)])
    for pattern in scenario.not_asked:
        asked = [s for s in outcome.seen if pattern.fits(s, names)]
        found += [f"must not be asked: {s.method} {target_of(s.url, names)}" for s in asked[:1]]
    for pattern, least, most in scenario.counts:
        count = sum(pattern.fits(s, names) for s in outcome.seen)
        if not least <= count <= most:
            found.append(f"asked {count} times, must be {least} to {most} times: {pattern.text}")
    for number, (expected, result) in enumerate(zip(scenario.results, outcome.results, strict=True)):
        which = f"push {number + 1}: " if len(outcome.results) > 1 else ""
        found += [which + text for text in result_difference(expected, result, names)]
    alone = len(outcome.results) == 1 and scenario.killed_at is None
    if alone and outcome.results[0].requests != len(outcome.seen):
        found.append(f"the result tells of {outcome.results[0].requests} requests, {len(outcome.seen)} came")
    if outcome.notices is not None:
        found += told_difference(scenario.told, outcome.notices, names)
    if outcome.player is not None:
        found += _left(scenario, outcome, outcome.player)
    if scenario.waited_s and outcome.waited_s is not None:
        least_s, most_s = scenario.waited_s
        if not least_s <= outcome.waited_s <= most_s:
            found.append(f"it took {outcome.waited_s:.1f} s, must be {least_s} to {most_s} s")
    return found


def _left(scenario: Scenario, outcome: Outcome, player: Player) -> list[str]:
    """What is not as it must be on the registry's side."""
    found = [f"the script's answer was never asked for: {line}" for line in player.unasked()]
    names = player.names
    open_now = [s for push in {p.repository for p in outcome.pushes} for s in player.sessions(push)]
    if len(open_now) != scenario.left_open:
        found.append(f"{len(open_now)} upload sessions are left open, must be {scenario.left_open}")
    if not scenario.there:
        return found
    for push, result in zip(outcome.pushes, outcome.results, strict=True):
        if result.outcome is PushOutcome.PUSHED:
            found += _missing(push, result.digest, player, names)
    return found


def _missing(push: PushPlan, root: str | None, player: Player, names: Names) -> list[str]:
    streamed = [names.contents[stream.key].digest for stream in push.streams]
    push = whole(push)
    blobs, manifests = player.blobs(push.repository), player.manifests(push.repository)
    name_of = {item.digest: name for name, item in names.contents.items()}
    missing = [d for d in (*streamed, *(b.descriptor.digest for b in push.blobs)) if d not in blobs]
    missing += [m.descriptor.digest for m in push.manifests if m.descriptor.digest not in manifests]
    found = [f"told to be pushed, but not there: {name_of[digest]}" for digest in missing]
    tags = player.tags(push.repository)
    return found + [f"told to be pushed, but not there: tag {tag}" for tag in push.tags if tags.get(tag) != root]
