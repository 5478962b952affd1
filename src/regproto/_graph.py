"""What depends on what: the pushes, what each of them names, and who is told when something is there.

One half of the session (`_wire` is the other). A node is one digest in one repository, however many manifests or
pushes name it; it is served by one machine, or for a tagged manifest by one for each tag. A manifest's node counts
what it names that is not there yet; at zero its machines may put it.
"""

from __future__ import annotations

from typing import Final

import attrs

from regproto._blob import BlobMachine, BlobState
from regproto._config import KNOWN_MAX, MOUNT_SOURCES_MAX, Config
from regproto._content import Descriptor, Digest
from regproto._errors import RegprotoError, TransportError
from regproto._machine import Facts, Machine, Outcome, Place, Verdict, advance
from regproto._manifest import ManifestMachine, ManifestState
from regproto._messages import Notice, Status
from regproto._plan import Blob, Manifest, Push
from regproto._token import TokenMachine
from regproto._upload import UploadMachine, UploadState
from regproto._wire import Wire

_THERE: Final = frozenset({BlobState.THERE, ManifestState.THERE})
_ENDING: Final = frozenset({UploadState.SETTLING, UploadState.DISCARDING})


@attrs.define(kw_only=True, eq=False)
class PushWork:
    """One push under way."""

    id: int
    plan: Push
    manifests: dict[Digest, Manifest]
    blobs: dict[Digest, Blob]
    nodes: list[Node] = attrs.field(factory=list)
    live: int = 1
    """Machines at work for this push that have not ended; one more while it is being begun."""
    error: RegprotoError | None = None
    cancelled: bool = False
    found: dict[Digest, Status] = attrs.field(factory=dict)
    """How each digest came to be there, in that order."""
    requests_before: int = 0
    bytes_before: int = 0

    @property
    def over(self) -> bool:
        """Nothing more is to be done for it, except to end what is in flight."""
        return self.cancelled or self.error is not None


@attrs.define(kw_only=True, eq=False)
class Node:
    """One digest in one repository."""

    key: tuple[str, Digest]
    manifest: Manifest | None = None
    machines: list[Machine] = attrs.field(factory=list)
    users: tuple[PushWork, ...] = ()
    dependents: list[Node] = attrs.field(factory=list)
    """Who counts this as missing."""
    missing: int = 0
    descended: bool = False
    there: bool = False


@attrs.define(kw_only=True, eq=False)
class Graph:
    """The pushes of one session and everything they name."""

    base: str
    config: Config
    wire: Wire
    nodes: dict[tuple[str, Digest], Node] = attrs.field(factory=dict)
    known: dict[tuple[str, Digest], None] = attrs.field(factory=dict)
    """What finished pushes left there, oldest first."""
    pushes: dict[int, PushWork] = attrs.field(factory=dict)
    ended: list[PushWork] = attrs.field(factory=list)
    """Pushes with nothing at work any more, to be reported."""

    # --- beginning ---

    def begin(self, work: PushWork) -> None:
        """Start a push: its root under each of its tags, and whatever no manifest of it names."""
        plan = work.plan
        self.pushes[work.id] = work
        named = {d.digest for m in plan.manifests for d in m.names()}
        for digest in (*work.manifests, *work.blobs):
            if work.over:
                break
            if digest == plan.root:
                node = self._node(work, digest)
                for tag in plan.tags or ("",):
                    self._add_manifest(work, node, tag)
            elif digest not in named:
                self._start(work, digest)
        work.live -= 1
        self._check_ended(work)

    def _node(self, work: PushWork, digest: Digest) -> Node:
        key = (work.plan.repository, digest)
        node = self.nodes.get(key)
        if node is None:
            node = self.nodes[key] = Node(key=key, manifest=work.manifests.get(digest), there=key in self.known)
        if work not in node.users:
            node.users = (*node.users, work)
            work.nodes.append(node)
            if node.descended and not node.there:
                self._join(work, node)
        return node

    def _join(self, work: PushWork, node: Node) -> None:
        """Another push needs what a node names, too."""
        assert node.manifest is not None
        for named in node.manifest.names():
            if named.digest not in work.plan.absent:
                self._node(work, named.digest)

    def _start(self, work: PushWork, digest: Digest) -> Node:
        """The node of a digest, with a machine at work on it unless it is there."""
        node = self._node(work, digest)
        if node.there:
            work.found.setdefault(digest, Status.EXISTING)
        elif not node.machines:
            if node.manifest is not None:
                self._add_manifest(work, node, "")
            else:
                self._add_blob(work, node, work.blobs[digest])
        return node

    def _add_manifest(self, work: PushWork, node: Node, tag: str) -> None:
        assert node.manifest is not None
        look = self.config.check_existing
        machine = ManifestMachine(
            base=self.base,
            repository=work.plan.repository,
            manifest=node.manifest,
            tag=tag,
            push=work,
            node=node,
            state=ManifestState.LOOKING if look else ManifestState.WAITING,
        )
        node.machines.append(machine)
        work.live += 1
        self._rest(machine)

    def _add_blob(self, work: PushWork, node: Node, blob: Blob, looked: bool = False) -> BlobMachine:
        candidates = (*blob.mount_from, *((None,) if self.config.anonymous_mount else ()))
        machine = BlobMachine(
            base=self.base,
            repository=work.plan.repository,
            blob=blob,
            push=work,
            node=node,
            candidates=candidates[:MOUNT_SOURCES_MAX],
            looked=looked,
        )
        node.machines.append(machine)
        work.live += 1
        self._decide(machine)
        return machine

    def _decide(self, machine: BlobMachine) -> None:
        """A blob's first decision: nothing has been answered yet."""
        self.advance(machine, (machine.decide(self.wire.knowledge, self.config), None))

    # --- moving ---

    def advance(self, machine: Machine, verdict: Verdict) -> None:
        """Take an outcome to a machine, and what follows from the state it comes to rest in to everyone concerned."""
        outcome, facts = verdict
        if isinstance(machine, TokenMachine):
            self._advance_token(machine, verdict)
            return
        if facts is not None:
            if facts.single_post is not None:
                self.wire.knowledge.single_post = facts.single_post
            if facts.location and isinstance(machine, BlobMachine) and machine.location:
                self._give_back(machine)
        was = machine.state
        advance(machine, outcome, facts, self.wire.knowledge, self.config, self.wire.journal)
        if machine.doomed and outcome is not Outcome.DROP:
            machine.doomed = False
            machine.delay_s = 0.0
            if Outcome.DROP in machine.TABLE[machine.state]:
                self.advance(machine, (Outcome.DROP, None))
                return
        if isinstance(machine, UploadMachine):
            self._tell_owner(machine, outcome)
        if outcome is Outcome.MISSING and isinstance(machine, ManifestMachine) and was not in machine.ENDS:
            self._redo(machine, facts)
        self._rest(machine)

    def _rest(self, machine: Machine) -> None:
        """Do what the state a machine rests in asks for."""
        state = machine.state
        if state in machine.ASKS:
            self.wire.enqueue(machine)
        elif state is BlobState.UPLOADING:
            assert isinstance(machine, BlobMachine)
            self._upload(machine)
        elif state is ManifestState.WAITING:
            self._wait(machine)
        elif state in machine.ENDS:
            self._end(machine)

    def _upload(self, blob: BlobMachine) -> None:
        upload = UploadMachine(
            base=self.base, repository=blob.repository, blob=blob.blob, owner=blob, push=blob.push, node=None
        )
        blob.upload = upload
        upload.push.live += 1
        if blob.location:
            facts = Facts(location=blob.location, chunk_min_bytes=blob.chunk_min_bytes)
            blob.location = ""
            self.advance(upload, (Outcome.STARTED, facts))
        else:
            self._rest(upload)

    def _wait(self, machine: Machine) -> None:
        node: Node = machine.node
        if not node.there and not node.descended:
            self._descend(node, machine.push)
        elif node.there or not node.missing:
            self.advance(machine, (Outcome.READY, None))

    def _descend(self, node: Node, work: PushWork) -> None:
        """Start everything a manifest names."""
        assert node.manifest is not None
        node.descended = True
        node.missing = 1  # this one is us: nothing is ready before all have been started
        for named in node.manifest.names():
            if named.digest in work.plan.absent:
                continue
            child = self._start(work, named.digest)
            if work.over:
                return
            if not child.there:
                child.dependents.append(node)
                node.missing += 1
        for user in node.users:
            if user is not work:
                self._join(user, node)
        self._one_less(node)

    def _one_less(self, node: Node) -> None:
        node.missing -= 1
        if not node.missing:
            self._ready(node)

    def _ready(self, node: Node) -> None:
        for machine in list(node.machines):
            if machine.state is ManifestState.WAITING:
                self.advance(machine, (Outcome.READY, None))

    def _redo(self, machine: ManifestMachine, facts: Facts | None) -> None:
        """The registry does not have what was found there: push that anew."""
        node: Node = machine.node
        node.descended, node.there = True, False
        told = facts.missing if facts is not None else ()
        named: tuple[Descriptor, ...] = machine.manifest.names()
        wanted = [d.digest for d in named if d.digest in told] or [d.digest for d in named]
        for digest in dict.fromkeys(wanted):
            if digest in machine.push.plan.absent:
                continue
            child = self._node(machine.push, digest)
            self.known.pop(child.key, None)
            if node not in child.dependents:
                child.dependents.append(node)
                node.missing += 1
            if child.there:
                child.there = False
                self._again(machine.push, child)

    def _again(self, work: PushWork, node: Node) -> None:
        for machine in node.machines:
            if machine.state in _THERE:
                machine.push = work
                work.live += 1
                self.advance(machine, (Outcome.MISSING, None))
                return
        if node.manifest is not None:
            self._add_manifest(work, node, "")
        else:
            self._add_blob(work, node, work.blobs[node.key[1]], looked=True)

    # --- ending ---

    def _tell_owner(self, upload: UploadMachine, outcome: Outcome) -> None:
        """Tell a blob how its upload session went, once."""
        blob = upload.owner
        if not isinstance(blob, BlobMachine):
            return
        state = upload.state
        if state is UploadState.DONE:
            upload.owner = None
            self.advance(blob, (Outcome.UPLOADED, None))
        elif state is UploadState.LOST:
            upload.owner = None
            blob.sessions_lost += 1
            blob.rejections += outcome is Outcome.REJECTED
            if blob.rejections > 1 or blob.sessions_lost >= self.config.attempts:
                error = upload.error or TransportError(f"{blob.describe()}: its upload sessions were lost")
                self.advance(blob, (Outcome.FAILED, Facts(error=error)))
            else:
                self._tell(blob, Status.RESTARTED, text=str(upload.error or "the upload session was lost"))
                self.advance(blob, (Outcome.SESSION_LOST, None))
        elif state in (UploadState.DISCARDING, UploadState.SETTLING, UploadState.ABANDONED):
            upload.owner = None
            error = upload.error or TransportError(f"{blob.describe()}: its upload failed")
            self.advance(blob, (Outcome.FAILED, Facts(error=error)))

    def _give_back(self, blob: BlobMachine) -> None:
        """Delete a session that a blob was given and does not need."""
        upload = UploadMachine(
            base=self.base,
            repository=blob.repository,
            blob=blob.blob,
            push=blob.push,
            location=blob.location,
            state=UploadState.DISCARDING,
        )
        blob.location = ""
        upload.push.live += 1
        self.wire.enqueue(upload)

    def _end(self, machine: Machine) -> None:
        work: PushWork = machine.push
        if isinstance(machine, BlobMachine) and machine.location:
            self._give_back(machine)
        if machine.state in _THERE:
            self._arrived(machine)
        elif machine.state in (BlobState.FAILED, ManifestState.FAILED):
            self._tell(machine, Status.FAILED, text=str(machine.error or ""))
            assert machine.error is not None
            # A tag is its own push's alone; what it stands on may be needed by others.
            tag = isinstance(machine, ManifestMachine) and machine.tag
            for user in (work,) if tag else (*machine.node.users, work):
                self.fail(user, machine.error)
        work.live -= 1
        self._check_ended(work)

    def _arrived(self, machine: Machine) -> None:
        assert isinstance(machine, (BlobMachine, ManifestMachine))
        node: Node = machine.node
        status = machine.how
        for user in node.users:
            user.found.setdefault(node.key[1], status)
        self._tell(machine, status, text=machine.mounted_from if isinstance(machine, BlobMachine) else "")
        if node.there:
            return
        node.there = True
        waiting, node.dependents = node.dependents, []
        for dependent in waiting:
            self._one_less(dependent)
        self._ready(node)

    def _tell(self, machine: Machine, status: Status, sent_bytes: int = 0, text: str = "") -> None:
        if isinstance(machine, BlobMachine):
            subject, descriptor = str(machine.digest), machine.blob.descriptor
        else:
            assert isinstance(machine, ManifestMachine)
            subject, descriptor = machine.reference, machine.manifest.descriptor
        if status in (Status.UPLOADED, Status.EXISTING, Status.MOUNTED):
            sent_bytes = descriptor.size if status is Status.UPLOADED else 0
        self.wire.notices.add(
            Notice(
                status=status,
                subject=subject,
                media_type=descriptor.media_type,
                sent_bytes=sent_bytes,
                size_bytes=descriptor.size,
                text=text,
            )
        )

    def uploading(self, machine: Machine, sent_bytes: int) -> None:
        """Bytes of a blob's body have moved."""
        if isinstance(machine, UploadMachine) and isinstance(machine.owner, BlobMachine):
            self._tell(machine.owner, Status.UPLOADING, machine.offset + sent_bytes)
        elif isinstance(machine, BlobMachine):
            self._tell(machine, Status.UPLOADING, sent_bytes)

    def fail(self, work: PushWork, error: RegprotoError) -> None:
        """The first fatal error of a push stops everything else it has under way."""
        if not work.over:
            work.error = error
            self._drop(work)

    def cancel(self, work: PushWork) -> None:
        """Give back what the push has open, and end it."""
        if not work.over:
            work.cancelled = True
            self._drop(work)
            self._check_ended(work)

    def _drop(self, work: PushWork) -> None:
        for node in work.nodes:
            node.users = tuple(user for user in node.users if user is not work)
            for machine in list(node.machines):
                if machine.push is work:
                    self._release(node, machine, work)
            if not node.users:
                self.nodes.pop(node.key, None)
            elif not node.there and all(machine.state in machine.ENDS for machine in node.machines):
                self._add_manifest(node.users[0], node, "")  # it was being put under a tag of this push
        self._drop_token(work)

    def _drop_token(self, work: PushWork) -> None:
        """Stop asking for a token that no other push waits for."""
        token = self.wire.auth.tokens.get(work.plan.repository)
        if token is None or token.state in token.ENDS or self._wanted(token):
            return
        if token.place is Place.IN_FLIGHT:
            token.doomed, token.push = True, work
            work.live += 1
            self.wire.abort(token)
        else:
            self._forget(token)

    def _wanted(self, token: TokenMachine) -> bool:
        return any(push.plan.repository == token.repository and not push.over for push in self.pushes.values())

    def _forget(self, token: TokenMachine) -> None:
        self.wire.advance_token(token, (Outcome.DROP, None))
        del self.wire.auth.tokens[token.repository]

    def _advance_token(self, token: TokenMachine, verdict: Verdict) -> None:
        work = token.push
        if token.doomed:
            token.doomed, token.push, token.delay_s = False, None, 0.0
            work.live -= 1
        self.wire.advance_token(token, verdict)
        if work is not None:
            if token.state not in token.ENDS and not self._wanted(token):
                self._forget(token)
            self._check_ended(work)

    def _release(self, node: Node, machine: Machine, work: PushWork) -> None:
        """Stop a machine of a push that is over, or hand it to another push that needs it."""
        upload = machine.upload if isinstance(machine, BlobMachine) else None
        tag = machine.tag if isinstance(machine, ManifestMachine) else ""
        if node.users and not tag:
            heir = node.users[0]
            for moved in (machine, upload):
                if isinstance(moved, (BlobMachine, UploadMachine)):
                    moved.blob = heir.blobs.get(moved.digest, moved.blob)
                if moved is not None and moved.state not in moved.ENDS:
                    moved.push = heir
                    work.live -= 1
                    heir.live += 1
            return
        for stopped in (machine, upload):
            if stopped is not None and stopped.state not in stopped.ENDS:
                if isinstance(stopped, UploadMachine):
                    stopped.owner = None
                self._doom(stopped)

    def _doom(self, machine: Machine) -> None:
        if machine.state in _ENDING:
            return
        if machine.place is Place.IN_FLIGHT:
            machine.doomed = True
            self.wire.abort(machine)
        elif Outcome.DROP in machine.TABLE[machine.state]:
            machine.delay_s = 0.0
            self.advance(machine, (Outcome.DROP, None))

    def _check_ended(self, work: PushWork) -> None:
        if work.live == 0 and work.id in self.pushes:
            del self.pushes[work.id]
            for node in work.nodes:
                node.users = tuple(user for user in node.users if user is not work)
                if not node.users and self.nodes.get(node.key) is node:
                    del self.nodes[node.key]
                    if node.there:
                        self.known[node.key] = None
            while len(self.known) > KNOWN_MAX:
                del self.known[next(iter(self.known))]
            self.ended.append(work)
