"""The graph of dependencies: which machines wait for which, and which pushes need them.

One half of the engine (`scheduler.py` is the other). A manifest's node counts the nodes it waits for that are not there
yet; at zero its machine may put it. A push counts its goals; at zero it is over, as it is at the first error of
anything it needs. Machines that no push needs any more are stopped, and their upload sessions cancelled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import attrs

from regproto._engine.checkpoint import Kept
from regproto._engine.construct import cancelling_kept, machine_for, stream_upload_for
from regproto._engine.loop import Loop
from regproto._engine.manifest_requests import ManifestRequests
from regproto._engine.presence import Presence
from regproto._engine.progress import ProgressReports
from regproto._engine.push_lifecycle import PushLifecycle
from regproto._engine.push_registry import PushRegistry
from regproto._engine.push_state import Node, PushState, each, with_push
from regproto._engine.referrers_updates import ReferrersUpdates
from regproto._engine.retry import backoff_s
from regproto._engine.scheduler import Scheduler
from regproto._engine.source_checks import SourceChecks
from regproto._engine.upload_sessions import UploadSessions, outcome_if_unverified
from regproto._machines.base import Machine, Outcome, Verdict, advance, members
from regproto._machines.blob import BlobMachine, BlobState
from regproto._machines.manifest import ManifestMachine, ManifestState, together
from regproto._machines.query import QueryMachine, QueryState
from regproto._machines.referrers import ReferrersMachine, ReferrersState
from regproto._machines.source_check import SourceCheckMachine, SourceCheckState
from regproto._machines.stream import StreamMachine, StreamState
from regproto._machines.token import TokenMachine
from regproto._machines.upload import UploadMachine, UploadState
from regproto._model.config import Config
from regproto._model.digest import Digest
from regproto._model.errors import ContentError
from regproto._model.messages import Manifests, NoManifests, PushOutcome, Status

_O: Final = members(Outcome)
_N: Final = members(Status)
_PRESENT: Final = frozenset({BlobState.PRESENT, ManifestState.PRESENT})
_FAILED: Final = frozenset({BlobState.FAILED, ManifestState.FAILED})
_WAITING: Final = frozenset({BlobState.WAITING, ManifestState.WAITING})
_AFTER_SHARED_PUT: Final = frozenset({ManifestState.PRESENT, ManifestState.TAGGING, ManifestState.CONFIRMING})
"""States in which a PUT that was to set further tags has done so, or never will."""


@attrs.define(kw_only=True, eq=False, repr=False)
class Graph(Loop):
    """The pushes of one session and everything they name."""

    base: str
    config: Config
    scheduler: Scheduler
    pushes: PushRegistry
    lists: ReferrersUpdates
    drafts: ManifestRequests
    reports: ProgressReports
    sources: SourceChecks
    presence: Presence = attrs.field(init=False)
    uploads: UploadSessions = attrs.field(init=False)
    lifecycle: PushLifecycle = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.presence = self.pushes.presence
        self.uploads = UploadSessions(
            loop=self, config=self.config, scheduler=self.scheduler, pushes=self.pushes, reports=self.reports
        )
        self.lifecycle = PushLifecycle(
            loop=self,
            scheduler=self.scheduler,
            pushes=self.pushes,
            lists=self.lists,
            sources=self.sources,
            reports=self.reports,
        )

    def advance(self, machine: Machine, verdict: Verdict) -> None:
        """Give a machine an outcome, from outside, with all that follows."""
        try:
            self.move(machine, verdict)
            if self.stack:
                self._drain()
        except BaseException:
            self.stack.clear()
            raise

    # --- beginning ---

    def begin(self, work: PushState) -> None:
        """Start a push: its root under each of its tags, and all that no manifest of it names.

        If this raises, for any reason, nothing of the push stays.
        """
        try:
            self.run(self._begin, work)
        except BaseException:
            self.run(self.lifecycle.withdraw, work)
            raise

    def _begin(self, work: PushState) -> None:
        plan = work.plan
        self.pushes.begin(work)
        self.reports.begin(work)
        for descriptor in plan.skipped:
            self.scheduler.notices.tell(descriptor.digest, descriptor, _N.SKIPPED)
        work.goals += len(plan.streams) + (plan.draft is not None)
        for stream in plan.streams:
            machine = StreamMachine(base=self.base, repository=plan.repository, stream=stream, work=work, lane=work.id)
            work.streams[stream.key] = machine
            self.enter_state(machine)
        self._add_goals(work, (*work.manifests, *work.blobs))

    def begin_cancelling(self, work: PushState, kept: Iterable[Kept]) -> None:
        """Start to cancel upload sessions that earlier processes left."""
        work.cancelling = tuple(cancelling_kept(self.base, one, work) for one in kept)
        self.pushes.begin(work)
        work.goals += len(work.cancelling)
        for repository in work.repositories():
            self.scheduler.auth.note_needs(repository, ())
        for upload in work.cancelling:
            self.enter_state(upload)
        self._reached(work)

    def _add_goals(self, work: PushState, digests: Iterable[Digest]) -> None:
        """Add the goals of a push: its root under each tag, and of `digests` those that none of its manifests names."""
        plan = work.plan
        named = {d.digest for m in plan.manifests for d in m.names()}
        # What is attached to something is asked for itself, also where an index names it: an index that is found there
        # tells that its children are, but not that they are listed.
        attached = {m.descriptor.digest for m in plan.manifests if m.info.subject is not None}
        goals = [(d, "") for d in digests if d != plan.root and (d not in named or d in attached)]
        work.asked.update(d for d, _ in goals)
        work.together = together(plan, self.scheduler.capabilities)
        if plan.root is not None:
            if not plan.tags:
                work.asked.add(plan.root)
            goals = [(plan.root, tag) for tag in plan.tags or ("",) if tag not in work.together[1:]] + goals
        for lookup in self.lists.expect(work):
            self._decide(lookup)
        self.then(self._add_next_goal, work, deque(goals))

    def _add_next_goal(self, work: PushState, goals: deque[tuple[Digest, str]]) -> None:
        if work.outcome is not None:
            return
        if not goals:
            self._reached(work)
            return
        digest, tag = goals.popleft()
        node = self._request(work, digest, tag)
        if tag and work.together[:1] == (tag,) and not (node and node.machine and node.machine.lane == work.id):
            # Another push puts this tag already, and knows nothing of our others.
            goals.extend((digest, other) for other in work.together[1:])
        self.then(self._add_next_goal, work, goals)

    def _request(self, work: PushState, digest: Digest, tag: str, looked: bool | None = None) -> Node | None:
        """The node of a goal of a push; None if it is there, or the push is over."""
        node = self._require(work, digest, tag, looked) if work.outcome is None else None
        if node is not None:
            node.askers = with_push(node.askers, work)
            work.goals += 1
        return node

    def _require(self, work: PushState, digest: Digest, tag: str = "", looked: bool | None = None) -> Node | None:
        """The node of something a push needs, with a machine at work on it; None if that is there."""
        repository, key = work.plan.repository, work.key(digest, tag)
        node = self.nodes.get(key)
        if node is not None:
            self._join(work, node)
            return node
        if (digest in work.found and not tag) or self.presence.holds(work, digest, tag):
            self._found_before(work, digest)
            return None
        node = self.nodes[key] = work.nodes[key] = Node(
            key=key, repository=repository, digest=digest, tag=tag, sharers=work
        )
        self._set_to_work(work, node, looked)
        return node

    def _join(self, work: PushState, node: Node) -> None:
        """Have one more push need a node, and so all that this stands on."""
        if node.key in work.nodes:
            return
        work.nodes[node.key] = node
        node.sharers = with_push(node.sharers, work)
        self.reports.joined(work, node)
        if node.expanded:
            for digest, tag in self._stands_on(work, node):
                self.then(self._require_too, work, node, digest, tag)

    def _require_too(self, work: PushState, node: Node, digest: Digest, tag: str) -> None:
        """Have a push need a part of a manifest that was on its way before."""
        if work.outcome is not None or node.machine is None:
            return
        if node.machine.state is ManifestState.WAITING:
            child = self._require(work, digest, tag)
            if child is not None and not (child.dependents or child.goal_of):
                # The others may rely on what this push may not: so it is looked at, and the manifest waits for that.
                child.dependents += (node,)
                node.missing += 1
                self._share(node, child)
        elif not tag and digest not in work.asked:
            self._found_before(work, digest)  # the manifest is being put, for it was there

    def _found(self, work: PushState, digest: Digest, how: Status, sent_bytes: int = 0, handled: bool = False) -> None:
        """Note that something a push needs is there.

        Args:
            work: the push.
            digest: of that.
            how: how it came to be there.
            sent_bytes: the bytes of it that were counted already.
            handled: True if the registry put it into its subject's list.
        """
        self.reports.found(work, digest, how, work.size_of(digest) - sent_bytes)
        if work.attached:
            at_work = self.lists.attached(work, digest, handled)
            if at_work is not None:
                self._decide(at_work)

    def _found_before(self, work: PushState, digest: Digest) -> None:
        """Note that something was there before a push needed it."""
        self._found(work, digest, _N.EXISTING)
        if digest in work.manifests:
            self.reports.imply(work, digest)

    def _decide(self, machine: Machine) -> None:
        """Take the first decision of a machine that was just made."""
        self.move(machine, (machine.decide(self.scheduler.capabilities, self.config), None))

    def _names(self, work: PushState, node: Node) -> list[Digest]:
        """The digests that a manifest names and the push brings, each once."""
        absent, manifest = work.plan.omitted, work.manifests[node.digest]
        return list(dict.fromkeys(d.digest for d in manifest.names() if d.digest not in absent))

    def _stands_on(self, work: PushState, node: Node) -> list[tuple[Digest, str]]:
        """The digests and tags that a manifest is put after: those it names, and its subject's digest or tag."""
        found = [(digest, "") for digest in self._names(work, node)]
        manifest = work.manifests[node.digest]
        after, subject = work.put_after(manifest), manifest.info.subject
        if subject is not None and after:
            found.append((subject.digest, "" if ":" in after else after))
        return found

    def _require_for(self, node: Node, digest: Digest, tag: str, again: bool = False) -> None:
        """Have all users of a manifest need one thing it stands on, and the manifest wait for that.

        Args:
            node: the manifest's.
            digest: of what it stands on.
            tag: of that, or "".
            again: that was found there, and is not: it is pushed without another look.
        """
        depends, looked = (node,), True if again else None
        for user in node.users:
            child = self._require(user, digest, tag, looked)
            # For another user it was the last that was added; of what is pushed anew it may be any.
            if child is None or (
                child.dependents and (child.dependents[-1] is node or (again and node in child.dependents))
            ):
                continue
            child.dependents += depends
            node.missing += 1
            if len(child.users) < len(node.users):
                self._share(node, child)

    def _share(self, node: Node, child: Node) -> None:
        """Have all users of a manifest need a node it waits for, also those for whom that was there."""
        for user in node.users:
            self._join(user, child)

    def _set_to_work(self, work: PushState, node: Node, looked: bool | None) -> None:
        machine = node.machine = machine_for(self.base, self.config, work, node, looked)
        checkpoint, kept = self.pushes.checkpoint, None
        if checkpoint.waiting and isinstance(machine, BlobMachine) and machine.has_content:
            kept = checkpoint.claim(node.repository, node.digest)
        if kept is not None and isinstance(machine, BlobMachine):
            self.uploads.resume(machine, kept)
        elif isinstance(machine, BlobMachine) and (ahead := self._pending_mount_source(machine)) is not None:
            ahead.followers += (machine,)
            self.move(machine, (_O.FOLLOW, None))
            return
        if machine.state in machine.DECIDES:
            self._decide(machine)
        else:
            self.enter_state(machine)

    def _pending_mount_source(self, machine: BlobMachine) -> Node | None:
        """The node of the same content on its way into a repository that this may be mounted from; None: there is none.

        A blob that waits for another itself is not one, so that none wait in a circle.
        """
        for source in machine.candidates:
            if source is None or source.foreign:
                continue
            node = self.nodes.get((source.repository, machine.digest, "", None))
            found = node.machine if node is not None else None
            if isinstance(found, BlobMachine) and found is not machine and found.state is not BlobState.WAITING:
                return node
        return None

    def _check_sources(self, blob: BlobMachine) -> None:
        for check in self.sources.begin(blob):
            self.enter_state(check)
        self._checked(blob)

    def _checked(self, blob: BlobMachine) -> None:
        """Let a blob go on if it is known which source to try first."""
        if blob.state is BlobState.AWAITING_SOURCES and (details := self.sources.left_to(blob)) is not None:
            self.move(blob, (_O.READY, details))

    def _source_check_ended(self, check: SourceCheckMachine) -> None:
        """Let the blobs go on that waited for the answer of a mount source."""
        waiting = [*self.sources.ended(check)]
        if check.state is SourceCheckState.LACKING:
            for spared in self.sources.spared(check.source):
                self.move(spared.machine, (_O.CANCEL, None))
                waiting += spared.waiting
        for blob in waiting:
            self._checked(blob)

    def release_followers(self, node: Node) -> None:
        """Let the blobs go on that follow a node: it is there, or will not be."""
        followers, node.followers = node.followers, ()
        for machine in followers:
            self.then(self._ready, machine)

    def release(self, node: Node) -> None:
        """Let the manifests go on that wait for a node without users, if they have users (of plans that omit this)."""
        for dependent in node.dependents:
            if dependent.users:
                self._one_less(dependent)

    def _ready(self, machine: Machine) -> None:
        """Tell a machine that what it waited for is there, or will not be."""
        if machine.state in _WAITING:
            self.move(machine, (_O.READY, None))

    # --- moving ---

    def move(self, machine: Machine, verdict: Verdict) -> None:
        """Give a machine an outcome, and take the steps that follow from the state it comes to rest in."""
        outcome, details = verdict
        if isinstance(machine, TokenMachine):
            self.pushes.advance_token(machine, verdict)
            return
        if details is not None:
            self.scheduler.capabilities.learn(details)
        if outcome is _O.LOST:
            self.uploads.lost_opening(machine, details)
        unverified = (
            isinstance(machine, UploadMachine)
            and machine.unverified
            and machine.state is not UploadState.QUERYING_BEFORE_CANCEL
        )
        outcome = outcome_if_unverified(machine, outcome)
        advance(machine, outcome, details, self.scheduler.capabilities, self.config, self.scheduler.journal)
        if self.scheduler.sessions or (details is not None and details.location):
            self.scheduler.note_session(machine)
        if (machine.cancel_pending or machine.expired) and self._stop_if_due(machine):
            return
        if isinstance(machine, BlobMachine):
            if machine.node.sent_bytes or machine.location:
                self._moved(machine)
            self.enter_state(machine)
            return
        height = len(self.stack)
        if isinstance(machine, UploadMachine):
            if (
                unverified
                and machine.blob is not None
                and machine.offset
                and outcome in (_O.OFFSET_KNOWN, _O.NO_OFFSET)
            ):
                self.scheduler.notices.tell(machine.digest, machine.blob.descriptor, _N.RESUMED, machine.offset)
            self.uploads.follow(machine, outcome)
        elif isinstance(machine, ManifestMachine):
            if outcome is _O.MISSING and details is not None:
                self._repush_missing(machine, details.missing)
            elif machine.share and machine.state in _AFTER_SHARED_PUT:
                self._put_remaining_tags(machine, details.tags if details is not None else ())
        if len(self.stack) > height:
            self.then(self.enter_state, machine)  # after what was asked for on the way
        else:
            self.enter_state(machine)

    def _stop_if_due(self, machine: Machine) -> bool:
        """Stop a machine that is not needed, or has no time left; False if its new state is an end anyhow."""
        if machine.cancel_pending:
            machine.cancel_pending, machine.delay_s = False, 0.0
            if _O.CANCEL in machine.TABLE[machine.state]:
                self.then(self.move, machine, (_O.CANCEL, None))
                return True
        if machine.expired and machine.state in machine.ASKS:
            self.lifecycle.abandon(machine)
            return True
        return False

    def _moved(self, blob: BlobMachine) -> None:
        """Adjust progress and sessions to a blob's new state."""
        if blob.node.sent_bytes and blob.state is not BlobState.PRESENT:
            self.reports.moved(blob.node, 0)
        if blob.location and blob.candidates and blob.state not in blob.ENDS:
            self.uploads.cancel_upload(blob)  # what waits to open another session holds none

    def _put_remaining_tags(self, machine: ManifestMachine, put: tuple[str, ...]) -> None:
        """Put the tags alone that one PUT was to set along with its own, and did not."""
        also, machine.also, machine.share = machine.also, (), False
        work = self.pushes.under_way.get(machine.lane)
        for tag in also:
            if tag in put:
                self.scheduler.notices.tell(tag, machine.descriptor, _N.UPLOADED, machine.descriptor.size)
            elif work is not None:
                self.then(self._request, work, machine.digest, tag, machine.state is ManifestState.TAGGING)

    def enter_state(self, machine: Machine) -> None:
        """Take the step that the state of a machine asks for."""
        state = machine.state
        if state in machine.ASKS:
            if state is ReferrersState.READING:
                self.lists.delay_read(machine)
            self.scheduler.enqueue(machine)
        elif state in machine.ENDS:
            self._end(machine)
        elif state is BlobState.AWAITING_SOURCES:
            assert isinstance(machine, BlobMachine)
            self._check_sources(machine)
        elif state is BlobState.UPLOADING:
            assert isinstance(machine, BlobMachine)
            self.uploads.open(machine)
        elif isinstance(machine, ManifestMachine):
            self._wait(machine)
        elif isinstance(machine, StreamMachine):
            upload = machine.upload = stream_upload_for(machine, self.config)
            self.enter_state(upload)

    def _wait(self, machine: ManifestMachine) -> None:
        """Have a manifest wait for what it stands on, which is started with the first machine that waits."""
        node: Node = machine.node
        holds = self.presence.holds
        if not node.expanded and not (node.tag and all(holds(user, node.digest) for user in node.users)):
            self._expand(node)
        elif not node.missing:
            self.then(self._ready, machine)

    def _expand(self, node: Node) -> None:
        node.expanded = True
        node.missing = 1  # for this step: nothing is ready before all have been started
        left = self._stands_on(node.first_user, node)  # the same for each user
        left.reverse()
        self.then(self._require_next, node, left)

    def _require_next(self, node: Node, left: list[tuple[Digest, str]]) -> None:
        """Start the things a manifest stands on in their order, each with all that it stands on itself."""
        stack = self.stack
        height = len(stack)
        while left:
            digest, tag = left.pop()
            self._require_for(node, digest, tag)
            if len(stack) > height:
                self.then(self._require_next, node, left)
                return
        self._one_less(node)

    def _one_less(self, node: Node) -> None:
        node.missing -= 1
        if not node.missing and node.machine is not None:
            self.then(self._ready, node.machine)

    def _repush_missing(self, machine: ManifestMachine, reported: tuple[Digest, ...]) -> None:
        """Push again the content that was found there and that the registry does not have."""
        node: Node = machine.node
        work = node.first_user
        node.expanded = True  # what it names is started here, all of it or what the registry reported
        names = self._names(work, node)
        named = [d for d in names if d in reported]
        if named and all(d in work.blobs and work.found.get(d) is _N.UPLOADED for d in named):
            # It took these a moment ago and can't see them: distribution 2.8 does not write its files in one step, so
            # a blob is gone for an instant while others push the same one. They are given the time to be done.
            machine.delay_s = backoff_s(self.config, 2, self.scheduler.jitter)
            machine.may_appear = not machine.tag
        for digest in named or names:
            self.presence.forget(node.repository, digest)
            for user in node.users:
                self.reports.missed(user, digest)
            self.then(self._require_for, node, digest, "", True)

    # --- streams ---

    def _stream_ended(self, machine: StreamMachine) -> None:
        """Note that a stream is there, or has failed. Once all are there the rest of the plan can be made."""
        work: PushState = machine.work
        if machine.state is StreamState.FAILED:
            assert machine.error is not None
            self.scheduler.notices.add(machine.news(_N.FAILED, text=str(machine.error)))
            self.lifecycle.fail(work, machine.error)
        elif machine.state is StreamState.PRESENT:
            digest = machine.descriptor.digest
            self.presence.learn(machine.repository, digest, digest, work.alone)
            self.reports.streamed(machine)
            self.scheduler.notices.add(machine.news(_N.UPLOADED, machine.stream_status.size, digest))
            self.drafts.ask(work)
            self._reached(work)

    def complete_plan(self, work: PushState, answer: Manifests | NoManifests) -> None:
        """Push the rest of a plan, which the driver has made."""
        self.run(self._complete_plan, work, answer)

    def _complete_plan(self, work: PushState, answer: Manifests | NoManifests) -> None:
        try:
            self.drafts.complete(work, answer)
        except ContentError as error:
            self.lifecycle.fail(work, error)
            return
        assert isinstance(answer, Manifests)
        self.reports.begin(work)
        manifests = [m.descriptor.digest for m in answer.manifests]
        self._add_goals(work, [*manifests, *(b.descriptor.digest for b in answer.blobs)])

    # --- ending ---

    def _end(self, machine: Machine) -> None:
        if isinstance(machine, BlobMachine):
            self.uploads.end_sessions(machine)
        elif isinstance(machine, (ReferrersMachine, QueryMachine)):
            self._updates_ended(machine)
        elif isinstance(machine, SourceCheckMachine):
            self._source_check_ended(machine)
        if isinstance(machine, StreamMachine):
            self._stream_ended(machine)
        elif machine.state in _PRESENT:
            self._arrived(machine.node)
        elif machine.state in _FAILED:
            self.then(self._failed, machine.node)
        if isinstance(machine, UploadMachine) and machine.node is not None:
            self._reached(machine.node)
        if machine.ends_for is not None:
            self.pushes.one_ended(machine)

    def _updates_ended(self, machine: ReferrersMachine | QueryMachine) -> None:
        """Let the pushes go on, or fail, that waited for a list or a question."""
        for work in self.lists.ended(machine):
            if machine.state in (ReferrersState.LISTED, QueryState.FOUND):
                self._reached(work)
            elif machine.state in (ReferrersState.FAILED, QueryState.FAILED):
                assert machine.error is not None
                self.lifecycle.fail(work, machine.error)

    def _arrived(self, node: Node) -> None:
        machine = node.machine
        assert machine is not None
        how, descriptor = machine.how, machine.descriptor
        # Only its presence is remembered; the machine and the node are forgotten.
        node.machine = None
        self.nodes.pop(node.key, None)
        manifest = machine if isinstance(machine, ManifestMachine) else None
        handled = manifest is not None and manifest.subject_handled
        for user in node.users:
            del user.nodes[node.key]
            self._found(user, node.digest, how, node.sent_bytes, handled)
            if manifest is not None and not node.expanded:
                self.reports.imply(user, node.digest)
        sent_bytes = descriptor.size if how is _N.UPLOADED else 0
        text = machine.mounted_from if isinstance(machine, BlobMachine) else ""
        self.scheduler.notices.tell(machine.reference, descriptor, how, sent_bytes, text)
        self.presence.learn(node.repository, node.digest, node.digest, node.users)
        if node.tag:
            self.presence.learn(node.repository, node.tag, node.digest, node.users)
        self.release_followers(node)
        waiting, node.dependents = node.dependents, ()
        for dependent in waiting:
            self._one_less(dependent)
        reached, node.askers = node.askers, None
        for work in each(reached):
            self._reached(work)

    def _reached(self, work: PushState) -> None:
        work.goals -= 1
        if not work.goals:
            self.then(self.lifecycle.finish, work, PushOutcome.FAILED if work.error else PushOutcome.PUSHED, work.error)

    def _failed(self, node: Node) -> None:
        """Fail the pushes that need a node, except those with other content where only the content was at fault."""
        machine = node.machine
        assert machine is not None and machine.error is not None
        self.scheduler.notices.tell(machine.reference, machine.descriptor, _N.FAILED, text=str(machine.error))
        heirs: tuple[PushState, ...] = ()
        if isinstance(machine, BlobMachine) and machine.content_failed:
            ours = machine.blob
            heirs = tuple(u for u in node.users if u.blobs[ours.descriptor.digest].source is not ours.source)
        for user in node.users:
            if user not in heirs:
                self.lifecycle.fail(user, machine.error)
        self.release_followers(node)
        if heirs:
            self.then(self.inherit, node, True)

    def inherit(self, node: Node, looked: bool) -> None:
        """Start a node anew with the content of the pushes that still need it."""
        if node.users:
            self._set_to_work(node.first_user, node, looked)

    # --- news ---

    def uploading(self, machine: Machine, sent_bytes: int) -> None:
        """Note that bytes of a blob's body have moved."""
        blob = machine
        if isinstance(machine, UploadMachine):
            blob = machine.owner or machine
            sent_bytes += machine.offset
        if isinstance(blob, BlobMachine):
            self.reports.moved(blob.node, sent_bytes)
        elif isinstance(blob, StreamMachine):
            self.reports.stream_moved(blob, sent_bytes)
