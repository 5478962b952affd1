"""The explorer over small pushes: the invariants hold at every state, and every edge of every table is taken."""

from __future__ import annotations

import pytest

from explored import BEARER, UNREACHED, every_edge, one_blob, single
from regproto import FailureKind, PushOutcome, Written
from regproto._machine import Machine, Outcome
from regproto._messages import Response, Send
from regproto._token import TokenMachine
from regproto.testing import Answer, Explorer, FakeRegistry, RegistryOptions, Violation
from regproto.testing._explorer import fails
from walking import walk_all


def test_every_edge_is_taken_and_every_invariant_holds() -> None:
    taken = set()
    for scenario, found, _ in walk_all():
        assert not isinstance(found, str), f"{scenario.name}: {found}"
        assert found.finished, scenario.name
        taken |= found.edges
    missed = every_edge() - taken
    assert missed == UNREACHED.keys()
    assert taken <= every_edge()


@pytest.mark.parametrize(
    "machine", [m for m in Machine.__subclasses__() if m is not TokenMachine], ids=lambda m: m.NAME
)
def test_every_asking_state_has_a_way_for_every_answer_the_session_may_bring(machine: type[Machine]) -> None:
    always = {Outcome.CHALLENGED, Outcome.NOT_SENT, Outcome.LOST, Outcome.GAVE_UP, Outcome.REFUSED, Outcome.BROKEN}
    for state in machine.ASKS:
        assert always - machine.TABLE[state].keys() == set(), state


def _lies(send: Send, registry: FakeRegistry) -> Response:
    return Response(id=send.id, status=201)


def test_a_registry_that_lies_about_a_manifest_is_found_out_by_the_explorer() -> None:
    lie = Answer(name="lie", give=_lies, applies=lambda send: send.method == "PUT")
    explorer = Explorer(pushes=[single()], registry=FakeRegistry(BEARER), answers=("ok", lie), faults=1)
    with pytest.raises(Violation, match="told to be pushed"):
        explorer.explore()


def test_the_path_to_a_violation_is_told() -> None:
    answers = ("ok", Answer(name="never", give=fails(FailureKind.CONNECT, Written.NONE), is_fault=False))
    explorer = Explorer(pushes=[one_blob()], registry=FakeRegistry(), answers=answers, faults=0)
    with pytest.raises(Violation, match=r"failed without a fault(.|\n)*-> never"):
        explorer.explore()


def test_a_walk_without_faults_ends_one_way() -> None:
    found = Explorer(pushes=[single()], registry=FakeRegistry(RegistryOptions()), faults=0).explore()
    assert found.finished == {PushOutcome.PUSHED: 1}
    assert found.requests_max == 4
