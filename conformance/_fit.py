"""What in a scenario does not fit together: found when it is read, before any is played."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance._content import with_descriptors
from conformance._fields import Invalid
from conformance._results import check_names

if TYPE_CHECKING:
    from conformance._scenario import Scenario


def check_fit(scenario: Scenario, where: str) -> None:
    """Raises `Invalid` for a scenario that checks nothing, names what is not there, or can't be played."""
    if not scenario.source or not scenario.says:
        raise Invalid(f"{where} must say what it shows, and where that is written")
    if scenario.refused is not None:
        _check_refused(scenario, where)
        return
    if scenario.asked is None and not scenario.counts:
        raise Invalid(f"{where} checks nothing of what is asked")
    if scenario.asked is not None and scenario.asked.others and not scenario.asked.requests:
        raise Invalid(f"{where} checks nothing of what is asked")
    if not scenario.plans or len(scenario.plans) != len(scenario.results):
        raise Invalid(f"{where} must have a result for each push")
    _check_words(scenario, where)
    for result in scenario.results:
        check_names(result, scenario.contents, where)
    named = [name for plan in scenario.plans for name in plan.named()]
    named += [name for items in scenario.has.values() for name in items]
    named += [name for tags in scenario.tags.values() for name in tags.values()]
    for name in named:
        if name not in scenario.contents:
            raise Invalid(f"{where}: there is no content {name!r}")
    if scenario.any_registry is not None and (scenario.answers or scenario.switches or scenario.core_only):
        raise Invalid(f"{where}: a real registry has no script and no switches")
    needs_core = [
        *(
            e.to.text
            for e in scenario.answers
            for a in (*e.answers, e.always)
            if a is not None and a.kind == "not_sent"
        ),
        *(["cancel_at"] if scenario.cancel_at else []),
        *(["killed_at"] if scenario.killed_at else []),
        *(["waited_s"] if scenario.waited_s else []),
    ]
    if needs_core and not scenario.core_only:
        raise Invalid(f"{where}: {needs_core[0]} can't be played over HTTP; say why in core_only")


def _check_refused(scenario: Scenario, where: str) -> None:
    """A plan that is refused leaves nothing to ask."""
    if scenario.asked or scenario.counts or scenario.answers or scenario.not_asked or scenario.told:
        raise Invalid(f"{where}: nothing is asked of a registry where the plan is refused")
    for name in (name for plan in scenario.plans for name in plan.named()):
        if name not in scenario.contents:
            raise Invalid(f"{where}: there is no content {name!r}")


def _check_words(scenario: Scenario, where: str) -> None:
    """Every word in braces must mean something, and every body be there."""
    names = scenario.names()
    patterns = [entry.to for entry in scenario.answers] + list(scenario.not_asked)
    patterns += [pattern for pattern, _, _ in scenario.counts]
    patterns += [pattern for pattern in (scenario.cancel_at, scenario.killed_at) if pattern]
    for expected in scenario.asked.requests if scenario.asked else ():
        patterns.append(expected.pattern)
        for value in expected.headers.values():
            names.fill(value or "", where)
        with_descriptors(expected.document, f"{where}: {expected.pattern.text}", scenario.contents)
    for pattern in patterns:
        names.fill(pattern.target, f"{where}: {pattern.text}")
        pattern.body_bytes(scenario.contents)
    for entry in scenario.answers:
        for answer in (*entry.answers, *([entry.always] if entry.always else [])):
            for text in (*answer.headers.values(), answer.body.decode()):
                names.fill(text, f"{where}: {entry.to.text}")
    for text in (*scenario.has, *scenario.tags, *(tag for tags in scenario.tags.values() for tag in tags)):
        names.fill(text, where)
