"""The end of a push: its nodes lose it as a user, and machines that no other push needs are stopped."""

from __future__ import annotations

from itertools import islice
from typing import Final

import attrs

from regproto._engine.loop import Loop
from regproto._engine.progress import ProgressReports
from regproto._engine.push_registry import PushRegistry
from regproto._engine.push_state import Node, PushState, without_push
from regproto._engine.referrers_updates import ReferrersUpdates
from regproto._engine.scheduler import Scheduler
from regproto._engine.source_checks import SourceChecks
from regproto._engine.upload_sessions import CANCELLING_STATES
from regproto._machines.base import Machine, Outcome, QueueState, members
from regproto._machines.blob import BlobMachine, BlobState
from regproto._machines.upload import UploadMachine
from regproto._model.errors import RegprotoError
from regproto._model.messages import BlobSlice, PushOutcome

_O: Final = members(Outcome)
_SENDING: Final = frozenset({BlobState.POSTING, BlobState.UPLOADING})
"""States in which a blob needs its content; in all others the way to push it is still to be chosen."""
HEIRS_LOOKED_AT: Final = 16
"""Pushes looked through for one with the very same content, which can go on from the same offset: bounds the cost of
the end of one push of thousands."""


@attrs.define(kw_only=True, eq=False, repr=False)
class PushLifecycle:
    """The ends of one session's pushes."""

    loop: Loop
    scheduler: Scheduler
    pushes: PushRegistry
    lists: ReferrersUpdates
    sources: SourceChecks
    reports: ProgressReports

    def fail(self, work: PushState, error: RegprotoError) -> None:
        """End a push with its first fatal error."""
        self.loop.then(self.finish, work, PushOutcome.FAILED, error)

    def cancel(self, work: PushState) -> None:
        """End a push before its time."""
        self.loop.run(self.finish, work, PushOutcome.CANCELLED)

    def withdraw(self, work: PushState) -> None:
        """End a push that could not be begun, without a report."""
        self.pushes.forget(work)
        self.finish(work, PushOutcome.CANCELLED)

    def finish(self, work: PushState, outcome: PushOutcome, error: RegprotoError | None = None) -> None:
        """End a push: machines that no other push needs are stopped, and the push waits for them to end."""
        if work.outcome is not None:
            return
        work.outcome, work.error = outcome, error
        work.ending += 1  # for this step: not before all of it is done
        for node in work.nodes.values():
            node.sharers = without_push(node.sharers, work)
            node.askers = without_push(node.askers, work)
        for node in work.nodes.values():
            if not node.users:
                del self.loop.nodes[node.key]
                machine = node.machine
                self._stop(work, machine, machine.upload if isinstance(machine, BlobMachine) else None)
                self.loop.release_followers(node)
                self.loop.release(node)
            elif isinstance(node.machine, BlobMachine):
                self._transfer_content(work, node, node.machine)
            elif node.machine is not None and node.machine.lane == work.id:
                node.machine.also = ()
        for stream in work.streams.values():
            self._stop(work, stream, stream.upload)
        self._stop(work, *self.lists.left(work), *self.sources.left(work), *work.cancelling)
        self.loop.then(self._report_or_wait, work)

    def _report_or_wait(self, work: PushState) -> None:
        """Report a push whose machines are all being stopped, or have it wait for those left."""
        self.pushes.stop_token(work)
        work.ending -= 1
        if work.ending:
            self.pushes.deadlines.end(work.id, self.scheduler.now)
        self.pushes.report(work)

    def expire(self) -> None:
        """End the pushes that have taken too long, and the machines that pushes left behind for too long."""
        for work in self.pushes.overdue():
            self.loop.run(self.fail, work, self.pushes.timeout(work))
        for machine in self.pushes.out_of_time():
            machine.expired, machine.delay_s = True, 0.0
            if machine.place is QueueState.IN_FLIGHT:
                self.scheduler.abort(machine)
            else:
                self.loop.run(self.abandon, machine)

    def abandon(self, machine: Machine) -> None:
        """End a machine without another request."""
        machine.delay_s = 0.0
        self.loop.then(
            self.loop.move, machine, (_O.CANCEL if _O.CANCEL in machine.TABLE[machine.state] else _O.GAVE_UP, None)
        )

    def _stop(self, work: PushState, *machines: Machine | None) -> None:
        for stopped in machines:
            if stopped is None or stopped.state in stopped.ENDS:
                continue
            self.pushes.await_machine(stopped, work)
            if isinstance(stopped, UploadMachine):
                stopped.owner = None
                if stopped.state in CANCELLING_STATES:
                    if stopped.node is work and stopped.place is not QueueState.IN_FLIGHT:
                        self.abandon(stopped)  # the request to cancel this session was itself cancelled
                    continue
            if stopped.place is QueueState.IN_FLIGHT:
                stopped.cancel_pending = True
                if not stopped.may_open(self.scheduler.capabilities):
                    self.scheduler.abort(stopped)
            else:
                stopped.delay_s = 0.0
                self.loop.then(self.loop.move, stopped, (_O.CANCEL, None))

    def _transfer_content(self, work: PushState, node: Node, machine: BlobMachine) -> None:
        """Have a blob sent from the content of a push that stays; the push that is over waits for exchanges that still
        read its own."""
        ours = machine.blob
        if ours is not work.blobs[node.digest] or machine.state in machine.ENDS:
            return
        theirs = [user.blobs[node.digest] for user in islice(node.users, HEIRS_LOOKED_AT)]
        heir = next((blob for blob in theirs if blob.source is ours.source and blob.has_content), None)
        if heir is None:
            having = (blob for user in node.users if (blob := user.blobs[node.digest]).has_content)
            heir = next(having, theirs[0])
        if not heir.has_content and machine.state in _SENDING:
            self._begin_anew(work, node, machine)
            return
        machine.blob = heir
        sending: list[Machine] = [machine]
        if isinstance(machine.upload, UploadMachine) and machine.upload.owner is machine:
            machine.upload.blob = heir
            sending.append(machine.upload)
        if heir.source is ours.source:
            return
        for part in sending:
            exchange = part.exchange
            if exchange is None:
                part.redirect = None  # made anew, with other content
            elif isinstance(exchange.ask.body, BlobSlice) and exchange.ends_for is None:
                self.pushes.await_exchange(exchange, work)

    def _begin_anew(self, work: PushState, node: Node, machine: BlobMachine) -> None:
        """Start a blob anew without content: only the push that is over had any, so the others look and mount."""
        self.reports.moved(node, 0)
        machine.node = Node(key=node.key, repository=node.repository, digest=node.digest, tag="", machine=machine)
        node.machine = None
        self._stop(work, machine, machine.upload)
        self.loop.then(self.loop.inherit, node, False)
