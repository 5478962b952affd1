"""What depends on what, and who is told when something is there, or can't be.

One half of the session (`_wire` is the other). A manifest's node counts what it names that is not there yet; at
zero its machine may put it. A push counts what it was asked for; at zero it is over, as it is at the first error of
anything it needs. What nobody needs any more is stopped and given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import attrs

from regproto._blob import BlobMachine, BlobState
from regproto._config import KNOWN_MAX, Config
from regproto._content import Digest
from regproto._drafts import Drafts
from regproto._errors import ContentError
from regproto._giving_back import doubted, end_sessions, follow, give_back, lost_opening, open_session, resume
from regproto._letting_go import fail, over, quit_now
from regproto._lists import Lists
from regproto._lookup import LookupMachine, LookupState
from regproto._machine import Machine, Outcome, Verdict, advance, members
from regproto._making import discarding_kept, machine_for, stream_upload_for
from regproto._manifest import ManifestMachine, ManifestState, together
from regproto._messages import Content, NoContent, PushOutcome, Status
from regproto._pushes import Pushes
from regproto._referrers import ReferrersMachine, ReferrersState
from regproto._resume import Kept
from regproto._retry import backoff_s
from regproto._source_check import SourceCheckMachine, SourceCheckState
from regproto._source_checks import SourceChecks
from regproto._stream import StreamMachine, StreamState
from regproto._token import TokenMachine
from regproto._totals import Totals
from regproto._upload import UploadMachine, UploadState
from regproto._wire import Wire
from regproto._work import Key, Node, PushWork

_O: Final = members(Outcome)
_N: Final = members(Status)
_THERE: Final = frozenset({BlobState.THERE, ManifestState.THERE})
_FAILED: Final = frozenset({BlobState.FAILED, ManifestState.FAILED})
_SPREADING: Final = frozenset({ManifestState.THERE, ManifestState.TAGGING, ManifestState.CONFIRMING})
"""Here a tag that was to bring others along has done so, or never will."""


@attrs.define(kw_only=True, eq=False, repr=False)
class Graph:
    """The pushes of one session and everything they name."""

    base: str
    config: Config
    wire: Wire
    pushes: Pushes
    lists: Lists
    drafts: Drafts
    totals: Totals
    sources: SourceChecks
    nodes: dict[Key, Node] = attrs.field(factory=dict)
    """What is not there yet, and tags."""
    known: set[tuple[str, Digest]] = attrs.field(factory=set)
    """Digests known to be in a repository."""
    known_in_order: deque[tuple[str, Digest]] = attrs.field(factory=deque)
    """The same, oldest first."""

    # --- beginning ---

    def begin(self, work: PushWork) -> None:
        """Start a push: its root under each of its tags, and whatever no manifest of it names."""
        plan = work.plan
        self.pushes.begin(work)
        self.totals.begin(work)
        for descriptor in plan.skipped:
            self.wire.notices.tell(descriptor.digest, descriptor, _N.SKIPPED)
        work.goals += len(plan.streams) + (plan.draft is not None)
        for stream in plan.streams:
            machine = StreamMachine(base=self.base, repository=plan.repository, stream=stream, work=work, lane=work.id)
            work.streams[stream.key] = machine
            self.rest(machine)
        self._aim(work, (*work.manifests, *work.blobs))

    def begin_cancelling(self, work: PushWork, kept: Iterable[Kept]) -> None:
        """Start to give back upload sessions that earlier processes left."""
        self.pushes.begin(work)
        work.cancelling = tuple(discarding_kept(self.base, one, work) for one in kept)
        work.goals += len(work.cancelling)
        for repository in work.repositories():
            self.wire.auth.want(repository, ())
        for upload in work.cancelling:
            self.rest(upload)
        self._reached(work)

    def _aim(self, work: PushWork, digests: Iterable[Digest]) -> None:
        """What a push is asked for: its root under each of its tags, and of these what no manifest of it names."""
        plan = work.plan
        named = {d.digest for m in plan.manifests for d in m.names()}
        # What is attached to something is asked for itself, also where an index names it: an index that is found there
        # tells that its children are, but not that they are listed.
        attached = {m.descriptor.digest for m in plan.manifests if m.info.subject is not None}
        goals = [(d, "") for d in digests if d != plan.root and (d not in named or d in attached)]
        work.together = together(plan, self.wire.knowledge)
        if plan.root is not None:
            goals = [(plan.root, tag) for tag in plan.tags or ("",) if tag not in work.together[1:]] + goals
        for lookup in self.lists.expect(work):
            self._decide(lookup)
        for digest, tag in goals:
            node = self._want(work, digest, tag)
            if tag and work.together[:1] == (tag,) and not (node and node.machine and node.machine.lane == work.id):
                # Another push puts this tag already, and knows nothing of our others.
                goals += [(digest, other) for other in work.together[1:]]
            if work.outcome is not None:
                return
        self._reached(work)

    def _want(self, work: PushWork, digest: Digest, tag: str, looked: bool | None = None) -> Node | None:
        """The node of something a push was asked for; None if it is there."""
        node = self._need(work, digest, tag, looked)
        if node is not None and work.outcome is None:
            node.goal_of += work.alone
            work.goals += 1
        return node

    def _need(self, work: PushWork, digest: Digest, tag: str = "", looked: bool | None = None) -> Node | None:
        """The node of something a push needs, with a machine at work on it; None if it is there."""
        repository, key = work.plan.repository, work.key(digest, tag)
        node = self.nodes.get(key)
        if node is not None:
            self._join(work, node)
            return None if node.there else node
        if not tag and (digest in work.found or (repository, digest) in self.known):
            self._found_before(work, digest)
            return None
        node = self.nodes[key] = work.nodes[key] = Node(
            key=key, repository=repository, digest=digest, tag=tag, users=work.alone
        )
        self._set_to_work(work, node, looked)
        return node

    def _join(self, work: PushWork, node: Node) -> None:
        """One more push needs a node, and so whatever it stands on."""
        if node.key in work.nodes:
            return
        work.nodes[node.key] = node
        node.users += work.alone
        self.totals.joined(work, node)
        if node.there:
            self._found_before(work, node.digest)
        elif node.descended:
            self._need_names(work, node)

    def _found(self, work: PushWork, digest: Digest, how: Status, sent_bytes: int = 0, handled: bool = False) -> None:
        """Something that a push needs is there.

        Args:
            work: the push.
            digest: what is there.
            how: it came to be.
            sent_bytes: how much of it was counted already.
            handled: True if the registry put it into its subject's list.
        """
        self.totals.found(work, digest, how, work.size_of(digest) - sent_bytes)
        if work.attached:
            at_work = self.lists.attached(work, digest, handled)
            if at_work is not None:
                self._decide(at_work)

    def _found_before(self, work: PushWork, digest: Digest) -> None:
        """Something was there before a push needed it."""
        self._found(work, digest, _N.EXISTING)
        if digest in work.manifests:
            self.totals.imply(work, digest)

    def _decide(self, machine: Machine) -> None:
        self.advance(machine, (machine.decide(self.wire.knowledge, self.config), None))

    def _names(self, work: PushWork, node: Node) -> list[Digest]:
        """What a manifest names and the push brings."""
        return [d.digest for d in work.manifests[node.digest].names() if d.digest not in work.plan.absent]

    def _need_names(self, work: PushWork, node: Node) -> list[Node]:
        """The nodes of what a manifest names and is not there; not all if the push comes to an end on the way."""
        children = []
        for digest in self._names(work, node):
            if work.outcome is not None:
                break
            child = self._need(work, digest)
            if child is not None:
                children.append(child)
        manifest = work.manifests[node.digest]
        after, subject = work.put_after(manifest), manifest.info.subject
        if subject is not None and after and work.outcome is None:
            child = self._need(work, subject.digest, "" if ":" in after else after)
            if child is not None:
                children.append(child)
        return children

    def _set_to_work(self, work: PushWork, node: Node, looked: bool | None) -> None:
        machine = node.machine = machine_for(self.base, self.config, work, node, looked)
        kept = self.pushes.checkpoint.claim(node.repository, node.digest)
        if kept is not None and isinstance(machine, BlobMachine):
            resume(self, machine, kept)
        elif isinstance(machine, BlobMachine) and (ahead := self._ahead(machine)) is not None:
            machine.state = BlobState.WAITING
            ahead.followers += (machine,)
            return
        if machine.state in machine.DECIDES:
            self._decide(machine)
        else:
            self.rest(machine)

    def _ahead(self, machine: BlobMachine) -> Node | None:
        """Where the same content is on its way into a repository that this may be mounted from.

        What is there follows nothing itself, so that nobody waits in a circle.
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
            self.rest(check)
        self._checked(blob)

    def _checked(self, blob: BlobMachine) -> None:
        """A blob goes on as soon as it is known where to try first."""
        if blob.state is BlobState.CHECKING and (facts := self.sources.left_to(blob)) is not None:
            self.advance(blob, (_O.READY, facts))

    def _answered(self, check: SourceCheckMachine) -> None:
        """A mount source was asked: whoever waited for that goes on."""
        waiting = [*self.sources.ended(check)]
        if check.state is SourceCheckState.LACKING:
            for spared in self.sources.spared(check.source):
                self.advance(spared.machine, (_O.DROP, None))
                waiting += spared.waiting
        for blob in waiting:
            self._checked(blob)

    def let_follow(self, node: Node) -> None:
        """Nothing of a node is waited for any more: it is there, or will not be."""
        followers, node.followers = node.followers, ()
        for machine in followers:
            if machine.state is BlobState.WAITING:
                self.advance(machine, (_O.READY, None))

    # --- moving ---

    def advance(self, machine: Machine, verdict: Verdict) -> None:
        """Take an outcome to a machine, and what follows from the state it comes to rest in to everyone concerned."""
        outcome, facts = verdict
        if isinstance(machine, TokenMachine):
            self.pushes.advance_token(machine, verdict)
            return
        if facts is not None:
            self.wire.knowledge.learn(facts)
        if outcome is _O.LOST:
            lost_opening(self, machine, facts)
        unproven = isinstance(machine, UploadMachine) and machine.unproven and machine.state is not UploadState.SETTLING
        outcome = doubted(machine, outcome)
        advance(machine, outcome, facts, self.wire.knowledge, self.config, self.wire.journal)
        if self.wire.sessions or (facts is not None and facts.location):
            self.wire.note_session(machine)
        if machine.doomed:
            machine.doomed, machine.delay_s = False, 0.0
            if _O.DROP in machine.TABLE[machine.state]:
                self.advance(machine, (_O.DROP, None))
                return
        if machine.expired and machine.state in machine.ASKS:
            quit_now(self, machine)
            return
        if isinstance(machine, UploadMachine):
            if unproven and machine.blob is not None and machine.offset and outcome in (_O.TOLD, _O.USELESS):
                self.wire.notices.tell(machine.digest, machine.blob.descriptor, _N.RESUMED, machine.offset)
            follow(self, machine, outcome)
        elif isinstance(machine, BlobMachine) and (machine.node.sent_bytes or machine.location):
            self._moved(machine)
        elif isinstance(machine, ManifestMachine):
            if outcome is _O.MISSING and facts is not None:
                self._redo(machine, facts.missing)
            elif machine.share and machine.state in _SPREADING:
                self._spread(machine, facts.tags if facts is not None else ())
        self.rest(machine)

    def _moved(self, blob: BlobMachine) -> None:
        """A blob is in another state."""
        if blob.node.sent_bytes and blob.state is not BlobState.THERE:
            self.totals.moved(blob.node, 0)
        if blob.location and blob.candidates and blob.state not in blob.ENDS:
            give_back(self, blob)  # what waits to open another session holds none

    def _spread(self, machine: ManifestMachine, put: tuple[str, ...]) -> None:
        """A tag was to bring others along: those that it did not are put by themselves."""
        also, machine.also, machine.share = machine.also, (), False
        work = self.pushes.under_way.get(machine.lane)
        for tag in also:
            if tag in put:
                self.wire.notices.tell(tag, machine.descriptor, _N.UPLOADED, machine.descriptor.size)
            elif work is not None and work.outcome is None:
                self._want(work, machine.digest, tag, looked=machine.state is ManifestState.TAGGING)

    def rest(self, machine: Machine) -> None:
        """Do what the state a machine rests in asks for."""
        state = machine.state
        if state in machine.ASKS:
            if state is ReferrersState.READING:
                self.lists.pace(machine)
            self.wire.enqueue(machine)
        elif state in machine.ENDS:
            self._end(machine)
        elif state is BlobState.CHECKING:
            assert isinstance(machine, BlobMachine)
            self._check_sources(machine)
        elif isinstance(machine, BlobMachine):
            open_session(self, machine)
        elif isinstance(machine, ManifestMachine):
            self._wait(machine)
        elif isinstance(machine, StreamMachine):
            upload = machine.upload = stream_upload_for(machine, self.config)
            self.rest(upload)

    def _wait(self, machine: ManifestMachine) -> None:
        """A manifest waits for what it names, which is started with the first that waits."""
        node: Node = machine.node
        if not node.descended and (node.repository, node.digest) not in self.known:
            self._descend(node)
        elif not node.missing:
            self.advance(machine, (_O.READY, None))

    def _descend(self, node: Node) -> None:
        node.descended = True
        node.missing = 1  # that is us: nothing is ready before all have been started
        children: list[Node] = []
        for work in node.users:
            children = self._need_names(work, node)  # the same nodes for each user
        if node.users:
            depends = (node,)
            for child in children:
                child.dependents += depends
            node.missing += len(children)
            self._one_less(node)

    def _one_less(self, node: Node) -> None:
        node.missing -= 1
        if not node.missing and node.machine is not None and node.machine.state is ManifestState.WAITING:
            self.advance(node.machine, (_O.READY, None))

    def _redo(self, machine: ManifestMachine, told: tuple[Digest, ...]) -> None:
        """The registry does not have what was found there: push that anew."""
        node: Node = machine.node
        work = node.users[0]
        node.descended = True  # what it names is started here, all of it or what the registry told
        names = list(dict.fromkeys(self._names(work, node)))
        named = [d for d in names if d in told]
        if named and all(d in work.blobs and work.found.get(d) is _N.UPLOADED for d in named):
            # It took these a moment ago and can't see them: distribution 2.8 does not write its files in one step, so
            # a blob is gone for an instant while others push the same one. They are given the time to be done.
            machine.delay_s = backoff_s(self.config, 2, self.wire.jitter)
            machine.taken = not machine.tag
        for digest in named or names:
            self.known.discard((node.repository, digest))
            for user in node.users:
                self.totals.missed(user, digest)
            child = self._need(work, digest, looked=True)  # looking is what misled us
            if child is None:
                continue
            for user in node.users:
                self._join(user, child)
            if node not in child.dependents:
                child.dependents += (node,)
                node.missing += 1

    # --- streams ---

    def _stream_ended(self, machine: StreamMachine) -> None:
        """A stream is there (once all are, the rest of the plan can be made), or can't be."""
        work: PushWork = machine.work
        if machine.state is StreamState.FAILED:
            assert machine.error is not None
            self.wire.notices.add(machine.news(_N.FAILED, text=str(machine.error)))
            fail(self, work, machine.error)
        elif machine.state is StreamState.THERE:
            digest = machine.descriptor.digest
            self._remember((machine.repository, digest))
            self.totals.streamed(machine)
            self.wire.notices.add(machine.news(_N.UPLOADED, machine.told.size, digest))
            self.drafts.ask(work)
            self._reached(work)

    def made(self, work: PushWork, answer: Content | NoContent) -> None:
        """The rest of a plan has come: push it."""
        try:
            self.drafts.complete(work, answer)
        except ContentError as error:
            fail(self, work, error)
            return
        assert isinstance(answer, Content)
        self.totals.begin(work)
        manifests = [m.descriptor.digest for m in answer.manifests]
        self._aim(work, [*manifests, *(b.descriptor.digest for b in answer.blobs)])

    # --- upload sessions ---

    # --- ending ---

    def _end(self, machine: Machine) -> None:
        if isinstance(machine, BlobMachine):
            end_sessions(self, machine)
        elif isinstance(machine, (ReferrersMachine, LookupMachine)):
            self._told(machine)
        elif isinstance(machine, SourceCheckMachine):
            self._answered(machine)
        if isinstance(machine, StreamMachine):
            self._stream_ended(machine)
        elif machine.state in _THERE:
            self._arrived(machine.node)
        elif machine.state in _FAILED:
            self._failed(machine.node)
        if isinstance(machine, UploadMachine) and machine.node is not None:
            self._reached(machine.node)
        if machine.ends_for is not None:
            self.pushes.one_ended(machine)

    def _told(self, machine: ReferrersMachine | LookupMachine) -> None:
        """A list or a question is at its end: whoever waited for it goes on, or fails."""
        for work in self.lists.ended(machine):
            if machine.state in (ReferrersState.LISTED, LookupState.FOUND):
                self._reached(work)
            elif machine.state in (ReferrersState.FAILED, LookupState.FAILED):
                assert machine.error is not None
                fail(self, work, machine.error)

    def _arrived(self, node: Node) -> None:
        machine = node.machine
        assert machine is not None
        how, descriptor = machine.how, machine.descriptor
        # What is there is remembered in a few words; the rest of it is let go of.
        node.there, node.machine = True, None
        if not node.tag:
            del self.nodes[node.key]
        manifest = machine if isinstance(machine, ManifestMachine) else None
        handled = manifest is not None and manifest.subject_handled
        for user in node.users:
            if not node.tag:
                del user.nodes[node.key]
            self._found(user, node.digest, how, node.sent_bytes, handled)
            if manifest is not None and not node.descended:
                self.totals.imply(user, node.digest)
        sent_bytes = descriptor.size if how is _N.UPLOADED else 0
        text = machine.mounted_from if isinstance(machine, BlobMachine) else ""
        self.wire.notices.tell(machine.reference, descriptor, how, sent_bytes, text)
        self._remember((node.repository, node.digest))
        self.let_follow(node)
        waiting, node.dependents = node.dependents, ()
        for dependent in waiting:
            self._one_less(dependent)
        reached, node.goal_of = node.goal_of, ()
        for work in reached:
            self._reached(work)

    def _remember(self, known: tuple[str, Digest]) -> None:
        if known not in self.known:
            self.known.add(known)
            self.known_in_order.append(known)
            if len(self.known_in_order) > KNOWN_MAX:
                self.known.discard(self.known_in_order.popleft())

    def _reached(self, work: PushWork) -> None:
        work.goals -= 1
        if not work.goals and work.outcome is None:
            over(self, work, PushOutcome.PUSHED if work.error is None else PushOutcome.FAILED)

    def _failed(self, node: Node) -> None:
        """Whoever needs this fails, except a push with content of its own where it was only the content."""
        machine = node.machine
        assert machine is not None and machine.error is not None
        self.wire.notices.tell(machine.reference, machine.descriptor, _N.FAILED, text=str(machine.error))
        heirs: tuple[PushWork, ...] = ()
        if isinstance(machine, BlobMachine) and machine.content_failed:
            ours = machine.blob
            heirs = tuple(u for u in node.users if u.blobs[ours.descriptor.digest].source is not ours.source)
        for user in node.users:
            if user not in heirs:
                fail(self, user, machine.error)
        self.let_follow(node)
        if heirs:
            self._set_to_work(heirs[0], node, looked=True)

    # --- news ---

    def uploading(self, machine: Machine, sent_bytes: int) -> None:
        """Bytes of a blob's body have moved."""
        blob = machine
        if isinstance(machine, UploadMachine):
            blob = machine.owner or machine
            sent_bytes += machine.offset
        if isinstance(blob, BlobMachine):
            self.totals.moved(blob.node, sent_bytes)
        elif isinstance(blob, StreamMachine):
            self.totals.stream_moved(blob, sent_bytes)
