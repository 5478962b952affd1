"""The end of a push: it lets go of all it needs, and what nobody else needs is stopped and given back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regproto._blob import BlobMachine
from regproto._errors import RegprotoError
from regproto._giving_back import GIVING_BACK
from regproto._machine import Machine, Outcome, Place, members
from regproto._messages import PushOutcome
from regproto._upload import UploadMachine
from regproto._work import PushWork

if TYPE_CHECKING:
    from regproto._graph import Graph

_O: Final = members(Outcome)


def fail(graph: Graph, work: PushWork, error: RegprotoError) -> None:
    """The first fatal error of a push stops everything else it has under way."""
    if work.outcome is None:
        work.error = error
        over(graph, work, PushOutcome.FAILED)


def cancel(graph: Graph, work: PushWork) -> None:
    """End a push before its time."""
    if work.outcome is None:
        over(graph, work, PushOutcome.CANCELLED)


def over(graph: Graph, work: PushWork, outcome: PushOutcome) -> None:
    """Let go of all a push needs; what nobody else needs is stopped, and the push waits for it to end."""
    work.outcome = outcome
    work.ending += 1  # that is us: not before everything is let go
    for node in list(work.nodes.values()):
        node.users = _without(work, node.users)
        node.goal_of = _without(work, node.goal_of)
        if not node.users:
            del graph.nodes[node.key]
            machine = node.machine
            _stop(graph, work, machine, machine.upload if isinstance(machine, BlobMachine) else None)
            graph.let_follow(node)
        elif isinstance(node.machine, BlobMachine):
            _hand_on(graph, node.machine, node.users[0])
        elif node.machine is not None and node.machine.lane == work.id:
            node.machine.also = ()
    for stream in work.streams.values():
        _stop(graph, work, stream, stream.upload)
    _stop(graph, work, *graph.lists.left(work), *graph.sources.left(work), *work.cancelling)
    graph.pushes.stop_token(work)
    work.ending -= 1
    if work.ending:
        graph.pushes.patience.end(work.id, graph.wire.now)
    graph.pushes.report(work)


def expire(graph: Graph) -> None:
    """End what has taken too long: pushes, and what those that are over have left behind."""
    for work in graph.pushes.overdue():
        fail(graph, work, graph.pushes.timeout(work))
    for machine in graph.pushes.out_of_time():
        machine.expired, machine.delay_s = True, 0.0
        if machine.place is Place.IN_FLIGHT:
            graph.wire.abort(machine)
        else:
            quit_now(graph, machine)


def quit_now(graph: Graph, machine: Machine) -> None:
    """Ask nothing more."""
    machine.delay_s = 0.0
    graph.advance(machine, (_O.DROP if _O.DROP in machine.TABLE[machine.state] else _O.GAVE_UP, None))


def _stop(graph: Graph, work: PushWork, *machines: Machine | None) -> None:
    for stopped in machines:
        if stopped is None or stopped.state in stopped.ENDS:
            continue
        graph.pushes.outlive(stopped, work)
        if isinstance(stopped, UploadMachine):
            stopped.owner = None
            if stopped.state in GIVING_BACK:
                if stopped.node is work and stopped.place is not Place.IN_FLIGHT:
                    quit_now(graph, stopped)  # it was asked to give this back, and is not any more
                continue
        if stopped.place is Place.IN_FLIGHT:
            stopped.doomed = True
            if not stopped.may_open(graph.wire.knowledge):
                graph.wire.abort(stopped)
        else:
            stopped.delay_s = 0.0
            graph.advance(stopped, (_O.DROP, None))


def _hand_on(graph: Graph, machine: BlobMachine, heir: PushWork) -> None:
    """Whoever stays is whose content is sent from now on."""
    blob = heir.blobs[machine.digest]
    if blob.source is not None:
        machine.blob = blob
        if isinstance(machine.upload, UploadMachine):
            machine.upload.blob = blob


def _without(work: PushWork, users: tuple[PushWork, ...]) -> tuple[PushWork, ...]:
    return () if users == work.alone else tuple(user for user in users if user is not work)
