"""The explorer over small pushes: the invariants hold at every state, and every edge of every table is taken."""

from __future__ import annotations

import pytest

from explored import BEARER, UNREACHED, Scenario, every_edge, one_blob, single
from explored_unlimited import unlimited
from regproto import FailureKind, PushOutcome, Written
from regproto._engine.scheduler import Scheduler
from regproto._machines.base import Machine, Outcome
from regproto._machines.token import TokenMachine
from regproto._machines.upload import UploadMachine
from regproto._model.messages import Failed, Response, Send
from regproto.testing import Answer, Explorer, FakeRegistry, RegistryOptions, Violation
from regproto.testing.explorer.explorer import fails
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


# --- what goes round --------------------------------------------------------------------------------------------

UNLIMITED = {scenario.name: scenario for scenario in unlimited()}


def _goes_round(scenario: Scenario) -> str:
    with pytest.raises(Violation) as found:
        scenario.explorer.explore()
    return str(found.value)


@pytest.mark.parametrize(
    "name", ["tag, closes", "PATCH, closes", "stream, closes", "identity token, closes", "mount, closes"]
)
def test_a_connection_that_is_forgiven_at_every_answer_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = Scheduler.handle_answer

    def forgives(wire: Scheduler, answer: Response | Failed) -> object:
        if isinstance(answer, Response):
            wire.in_flight[answer.id].machine.stale_connection = False
        return answered(wire, answer)

    monkeypatch.setattr(Scheduler, "handle_answer", forgives)
    told = _goes_round(UNLIMITED[name])
    assert "it goes round without a pause" in told or "requests, and no end" in told
    if name == "tag, closes":
        put, look = "PUT /v2/team/app/manifests/1 -> stale connection", "HEAD /v2/team/app/manifests/1 -> ok"
        assert told.partition("and then again and again:")[2].split("\n")[1:] in (
            [f"  {look}", f"  {put}"],
            [f"  {put}", f"  {look}"],
        )


def test_a_count_that_every_answer_sets_back_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pause each time, and yet without an end."""
    monkeypatch.setattr("regproto._machines.base.NO_PROGRESS", frozenset({Outcome.CHALLENGED}))
    told = _goes_round(UNLIMITED["tag, any"])
    assert "it goes round without a count" in told and "time passes" in told.partition("again and again:")[2]


def test_a_session_that_is_asked_for_ever_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit, and no look, but the session says that it is all there."""
    classify = UploadMachine.classify

    def asks_again(machine: UploadMachine, response: Response, url: str, proven: bool) -> object:
        verdict = classify(machine, response, url, proven)
        return (Outcome.GONE, verdict[1]) if verdict[0] is Outcome.RETRIES_EXHAUSTED else verdict

    monkeypatch.setattr(UploadMachine, "classify", asks_again)
    assert "requests, and no end" in _goes_round(UNLIMITED["PATCH, fails"])
