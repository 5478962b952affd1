"""What a machine is asked changes nothing of it: requests, and what answers mean, are functions of what it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from explored import MACHINES, scenarios
from regproto._machines.base import Machine
from regproto._machines.blob import BlobMachine

ASKED = ("request", "classify")
WALKED = frozenset(
    ["blob not mounted", "blob in chunks", "PATCH, cancelled", "image", "three tags one by one", "identity token"]
    + ["stream by ranges", "two pushes asking the same sources", "attach, tag", "attach, API", "blob, lied to"]
    + ["manifest put without a word", "questions, tag", "questions, API"]
)


def contents(machine: Machine) -> dict[str, Any]:
    """The fields of a machine, what can be changed of them copied."""
    found = {field.name: getattr(machine, field.name) for field in attrs.fields(type(machine))}
    return {name: copy.copy(value) if isinstance(value, (dict, set, list)) else value for name, value in found.items()}


def watched(asked: Callable[..., Any], seen: set[tuple[type[Machine], str]]) -> Callable[..., Any]:
    """The method of a machine, with a look before and after."""

    def ask(machine: Machine, *args: Any) -> Any:
        before = contents(machine)
        answer = asked(machine, *args)
        assert contents(machine) == before, f"{machine!r}: {asked.__name__} changes it"
        seen.add((type(machine), asked.__name__))
        return answer

    return ask


def test_requests_and_verdicts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[type[Machine], str]] = set()
    for kind in MACHINES:
        for name in ASKED:
            monkeypatch.setattr(kind, name, watched(getattr(kind, name), seen))
    for scenario in scenarios():
        if scenario.name in WALKED:
            attrs.evolve(scenario.explorer, faults=1).explore()
    assert {(kind, name) for kind, name in seen} >= {(k, n) for k in MACHINES if k.ASKS for n in ASKED}


def test_a_machine_that_changes_when_asked_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def counts(machine: Machine) -> Any:
        machine.faults += 1
        return asked(machine)

    asked = BlobMachine.request
    monkeypatch.setattr(BlobMachine, "request", watched(counts, set()))
    scenario = next(scenario for scenario in scenarios() if scenario.name in WALKED)
    with pytest.raises(AssertionError, match="changes it"):
        scenario.explorer.explore()
