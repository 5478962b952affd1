"""The pushes under way, and those that are over but for machines they left in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import attrs

from regproto._engine.checkpoint import Checkpoint
from regproto._engine.deadlines import Deadlines
from regproto._engine.presence import Presence
from regproto._engine.push_state import PushState
from regproto._engine.scheduler import Exchange, Scheduler
from regproto._machines.base import Machine, Outcome, QueueState, Verdict
from regproto._machines.token import TokenMachine
from regproto._model.errors import PushTimeoutError
from regproto._model.messages import Notice, PushOutcome, Status


@attrs.define(kw_only=True, eq=False, repr=False)
class PushRegistry:
    """The pushes of one session; a push is reported once the last machine it left behind has ended."""

    scheduler: Scheduler
    checkpoint: Checkpoint
    under_way: dict[int, PushState] = attrs.field(factory=dict)
    """By id, until they are reported."""
    deadlines: Deadlines = attrs.field(init=False)
    presence: Presence = attrs.field(factory=Presence)
    ended: deque[PushState] = attrs.field(factory=deque)
    """Pushes that are over and have nothing in flight, to be reported."""

    def __attrs_post_init__(self) -> None:
        self.deadlines = Deadlines(config=self.scheduler.config)

    def begin(self, work: PushState) -> None:
        """Note a push that is under way."""
        self.under_way[work.id] = work
        for repository in work.repositories():
            self.scheduler.auth.begin(repository)
        self.presence.next_id = work.id + 1
        self.deadlines.begin(work.id)

    def await_machine(self, machine: Machine, work: PushState) -> None:
        """Have the report of a push wait for the end of a machine."""
        if machine.ends_for is None:
            machine.ends_for = work
            work.ending += 1
            work.leftovers.append(machine)

    def await_exchange(self, exchange: Exchange, work: PushState) -> None:
        """Have the report of a push wait for an exchange that reads its content."""
        exchange.ends_for = work
        work.ending += 1
        work.read_by.append(exchange)

    def one_ended(self, machine: Machine) -> None:
        """Note the end of a machine; a push that is over and waited for it may be reported."""
        work, machine.ends_for = machine.ends_for, None
        if work is not None:
            self.one_less(work)

    def one_less(self, work: PushState) -> None:
        """Note the end of one thing that a push waited for."""
        work.ending -= 1
        self.report(work)

    def report(self, work: PushState) -> None:
        """Have a push reported if it is over and waits for nothing."""
        if work.outcome is None or work.ending or work.id not in self.under_way:
            return
        self.forget(work)
        self.report_rejected()
        if work.outcome is PushOutcome.PUSHED and not self.under_way:
            self._tell_unclaimed()
        if work.left_open:
            self.scheduler.notices.left_open(self.scheduler.registry, work.id, work.left_open)
        work.alone = ()  # what holds itself would be left to the garbage collector
        self.ended.append(work)

    def forget(self, work: PushState) -> None:
        """Forget a push that is under way no more, and what was learned for it alone."""
        if self.under_way.pop(work.id, None) is not None:
            self.presence.ended(work, next(iter(self.under_way), self.presence.next_id))
            for repository in work.repositories():
                self.scheduler.auth.end(repository)

    def report_rejected(self) -> None:
        """Report the kept uploads that can't be used."""
        rejected, self.checkpoint.rejected = self.checkpoint.rejected, []
        for digest, text in rejected:
            notice = Notice(status=Status.NOT_RESUMED, subject=digest or self.scheduler.registry, text=text)
            self.scheduler.notices.add(notice)

    def _tell_unclaimed(self) -> None:
        """Report the uploads that an earlier process left and no push of this one went on with; another may, so they
        stay open."""
        for kept in self.checkpoint.unclaimed():
            text = f"it is no part of what was pushed; its upload to {kept.repository} was left as it is"
            self.scheduler.notices.tell(kept.digest, kept.descriptor, Status.NOT_RESUMED, text=text)

    # --- time ---

    def overdue(self) -> Iterator[PushState]:
        """Pushes that have taken too long as a whole."""
        for push_id in self.deadlines.overdue(self.scheduler.now):
            work = self.under_way.get(push_id)
            if work is not None and work.outcome is None:
                yield work

    def out_of_time(self) -> Iterator[Machine]:
        """The machines that pushes left behind and that have had their time to end.

        Exchanges that only read the content of such a push are aborted: they are tried again with other content.
        """
        over = [self.under_way[n] for n in self.deadlines.out_of_time(self.scheduler.now) if n in self.under_way]
        for work in over:
            for exchange in work.read_by:
                if self.scheduler.in_flight.get(exchange.id) is exchange:
                    self.scheduler.abort(exchange.machine)
            left = [m for m in work.leftovers if m.ends_for is work and m.state in m.ASKS]
            late = [m for m in left if self._is_late(m)]
            if len(late) < len(left):
                self.deadlines.end(work.id, self.scheduler.now)
            yield from late

    def _is_late(self, machine: Machine) -> bool:
        """Whether a machine has had its time to end. The time of one that cancels a session does not run while it waits
        for a place among other requests, and begins again, once, when its own request is sent."""
        if not machine.cancels_upload or machine.prolonged:
            return True
        if self.scheduler.is_crowded_out(machine):
            return False
        exchange = machine.exchange
        begun = exchange is not None and exchange.begun > self.scheduler.now - self.scheduler.config.cleanup_timeout_s
        machine.prolonged = begun
        return not begun

    def timeout(self, work: PushState) -> PushTimeoutError:
        """The error of a push that has taken too long."""
        name, limit_s = f"{self.scheduler.registry}/{work.plan.repository}", self.scheduler.config.push_timeout_s or 0.0
        done = f"{len(work.found)} things were there, {len(work.nodes)} were not"
        return PushTimeoutError(f"the push to {name} was not over within {limit_s:g} s ({done})", timeout_s=limit_s)

    # --- tokens ---

    def stop_token(self, work: PushState) -> None:
        """Stop the requests for a token that no other push waits for."""
        for repository in work.repositories():
            token = self.scheduler.auth.tokens.get(repository)
            if token is None or token.state in token.ENDS or self._wanted(token):
                continue
            if token.place is QueueState.IN_FLIGHT:
                token.cancel_pending = True
                self.await_machine(token, work)
                self.scheduler.abort(token)
            else:
                self._forget(token)

    def advance_token(self, token: TokenMachine, verdict: Verdict) -> None:
        """Give a token an outcome, and forget it if no push waits for it any more."""
        cancel_pending, token.cancel_pending = token.cancel_pending, False
        self.scheduler.advance_token(token, verdict)
        self.one_ended(token)
        if cancel_pending and token.state not in token.ENDS and not self._wanted(token):
            self._forget(token)

    def _forget(self, token: TokenMachine) -> None:
        self.scheduler.advance_token(token, (Outcome.CANCEL, None))
        del self.scheduler.auth.tokens[token.repository]

    def _wanted(self, token: TokenMachine) -> bool:
        return any(token.repository in p.repositories() and p.outcome is None for p in self.under_way.values())
