"""The referrers lists that pushes update, and the questions they ask.

One machine keeps the list of one subject, for all pushes of the session that attach to it at the time; a push joins it
when all its own attachments to that subject are there. So the attachments of one push cost one write. While other
pushes are about to join, a read is put off for them, for as long as the window of a write at the most.
"""

from __future__ import annotations

from collections import Counter

import attrs

from regproto._engine.push_state import PushState
from regproto._engine.scheduler import Scheduler
from regproto._http.referrers_list import entry_of
from regproto._machines.base import Machine, QueueState
from regproto._machines.query import QueryMachine
from regproto._machines.referrers import ReferrersMachine, ReferrersState
from regproto._model.config import Config
from regproto._model.digest import Digest
from regproto._model.referrers import ReferrersUpdate


@attrs.define(kw_only=True, eq=False, repr=False)
class SubjectList:
    """A list being updated, and the pushes that wait for it."""

    machine: ReferrersMachine
    works: tuple[PushState, ...] = ()


@attrs.define(kw_only=True, eq=False, repr=False)
class ReferrersUpdates:
    """The referrers lists and lookups of one session."""

    base: str
    config: Config
    scheduler: Scheduler
    lists: dict[tuple[str, Digest], SubjectList] = attrs.field(factory=dict)
    coming: Counter[tuple[str, Digest]] = attrs.field(factory=Counter)
    """Pushes under way that have not joined their list yet."""

    def expect(self, work: PushState) -> tuple[QueryMachine, ...]:
        """Add the lists and questions of a push to its goals; gives the questions' machines, to be started.

        Called again when the rest of a plan was made: that has manifests, where the draft had none, and no questions.
        """
        asked = len(work.lookups)
        for subject, manifests in work.plan.subjects.items():
            work.attached[subject] = dict.fromkeys(m.descriptor.digest for m in manifests)
            work.goals += 1
            self.coming[work.plan.repository, subject] += 1
        for lookup in work.plan.lookups[asked:]:
            machine = QueryMachine(
                base=self.base, repository=work.plan.repository, lookup=lookup, lane=work.id, node=work
            )
            work.lookups = (*work.lookups, machine)
            work.goals += 1
        return work.lookups[asked:]

    def attached(self, work: PushState, digest: Digest, handled: bool) -> ReferrersMachine | None:
        """Note that a manifest of a push is there; `handled`: the registry said that it lists it itself.

        Gives the machine to be started, if any.
        """
        manifest = work.manifests.get(digest)
        subject = manifest.info.subject if manifest is not None else None
        if subject is None or work.outcome is not None:
            return None
        there = work.attached[subject.digest]
        if there[digest] is not None:
            return None
        there[digest] = handled
        if None in there.values():
            return None
        return self._join(work, subject.digest)

    def _one_less(self, key: tuple[str, Digest]) -> None:
        self.coming[key] -= 1
        if not self.coming[key]:
            del self.coming[key]

    def _join(self, work: PushState, subject: Digest) -> ReferrersMachine | None:
        key = work.plan.repository, subject
        self._one_less(key)
        at_work = self.lists.get(key)
        fresh = at_work is None
        if at_work is None:
            at_work = self.lists[key] = SubjectList(
                machine=ReferrersMachine(
                    base=self.base,
                    repository=work.plan.repository,
                    subject=subject,
                    window_s=self.config.referrers_window_s,
                    settle_s=self.config.referrers_settle_s,
                    lane=work.id,
                )
            )
        at_work.works = (*at_work.works, work)
        machine = at_work.machine
        for digest, handled in work.attached[subject].items():
            machine.add_entry(entry_of(work.manifests[digest]), bool(handled))
        if fresh:
            return machine
        if machine.pausing and machine.place is QueueState.DELAYED:
            # It waits for quiet, or for company: there is something new to write.
            wait_s = machine.window_s if self.coming[key] else 0.0
            if self.scheduler.now + wait_s < machine.due:
                machine.place, machine.delay_s = QueueState.IDLE, wait_s
                self.scheduler.enqueue(machine)
        return None

    def delay_read(self, machine: Machine) -> None:
        """Delay a read by the machine's pause and its jitter, or until other pushes may have joined."""
        assert isinstance(machine, ReferrersMachine)
        wait_s = machine.pause_s
        if machine.spread_s:
            wait_s += machine.spread_s * self.scheduler.jitter.next()
        if not wait_s and self.coming[machine.repository, machine.subject]:
            wait_s = machine.window_s
        machine.pausing = wait_s > 0
        machine.pause_s = machine.spread_s = 0.0
        machine.delay_s = max(machine.delay_s, wait_s)

    def ended(self, machine: ReferrersMachine | QueryMachine) -> tuple[PushState, ...]:
        """Take out a machine that has ended; gives the pushes that waited for it."""
        if isinstance(machine, QueryMachine):
            return (machine.node,)
        key = machine.repository, machine.subject
        at_work = self.lists.get(key)
        if at_work is None or at_work.machine is not machine:
            return ()
        del self.lists[key]
        if machine.state is ReferrersState.LISTED:
            for work in at_work.works:
                self._tell(work, machine)
        return at_work.works

    def _tell(self, work: PushState, machine: ReferrersMachine) -> None:
        assert machine.guarantee is not None
        by_tag = machine.guarantee.value not in ("api", "unlisted")
        listed = ReferrersUpdate(
            subject=machine.subject,
            attached=tuple(work.attached[machine.subject]),
            guarantee=machine.guarantee,
            tag=machine.tag if by_tag else "",
            unsure=machine.unsure,
        )
        work.listed = (*work.listed, listed)

    def left(self, work: PushState) -> list[Machine]:
        """Take out a push that is over; gives the machines that no other waits for, to be stopped."""
        stopped: list[Machine] = list(work.lookups)
        for subject in work.attached:
            key = work.plan.repository, subject
            if None in work.attached[subject].values():
                self._one_less(key)
            at_work = self.lists.get(key)
            if at_work is None or work not in at_work.works:
                continue
            at_work.works = tuple(other for other in at_work.works if other is not work)
            if not at_work.works:
                del self.lists[key]
                stopped.append(at_work.machine)
        return stopped
