"""The state of a push, and the nodes that pushes share.

A node is one thing that is to be there: a blob, a manifest by its digest, or a manifest under a tag; in one
repository, however many manifests or pushes name it. It owns the one machine at work on it, and lives until that
is there.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TypeAlias, cast

import attrs

from regproto._engine.scheduler import Exchange
from regproto._machines.base import Machine
from regproto._machines.blob import BlobMachine
from regproto._machines.manifest import ManifestMachine
from regproto._machines.query import QueryMachine
from regproto._machines.stream import StreamMachine, StreamState
from regproto._machines.upload import UploadMachine
from regproto._model.digest import Digest
from regproto._model.errors import RegprotoError
from regproto._model.messages import PushOutcome, PushResult, Status
from regproto._model.plan import Blob, Manifest, PushPlan, StreamedBlob
from regproto._model.referrers import ReferrersUpdate

Key: TypeAlias = tuple[str, Digest, str, tuple[frozenset[Digest], str] | None]
"""The key of a node: repository, digest, tag (or ""), and for a manifest the digests that the plan omits and the tag or
digest of the subject that it is put after: plans that differ in these do not share its node."""


@attrs.define(eq=False, repr=False)
class Known:
    """One thing that was learned to be there."""

    key: tuple[str, str]
    """The repository, and a digest or a tag."""
    digest: Digest
    """The digest that is there."""
    before: int = 0
    """Pushes with a lower id were begun before the last answer that said so..."""
    good_for: float = math.inf
    """...and those with a lower id than this may rely on it."""
    learners: int = 0
    """The number of answers that said so to pushes under way."""


@attrs.define(kw_only=True, eq=False, repr=False)
class PushState:
    """One push under way."""

    id: int
    plan: PushPlan
    manifests: dict[Digest, Manifest]
    blobs: dict[Digest, Blob]
    nodes: dict[Key, Node] = attrs.field(factory=dict)
    """The nodes it needs, directly or through others, that are not there yet."""
    asked: set[Digest] = attrs.field(factory=set)
    """The digests that are goals: an answer to this push is needed for each, whatever is known from others."""
    learned: list[Known] = attrs.field(factory=list)
    """The things that answers to it showed to be there."""
    together: tuple[str, ...] = ()
    """The tags that one PUT is to set; the first has a node, whose machine has the others."""
    streams: dict[str, StreamMachine] = attrs.field(factory=dict)
    goals: int = 1
    """The number of goals not reached yet; one more while it is being begun."""
    ending: int = 0
    """The number of machines and exchanges it waits for, once it is over."""
    outcome: PushOutcome | None = None
    error: RegprotoError | None = None
    found: dict[Digest, Status] = attrs.field(factory=dict)
    """How each digest came to be there, in the order it did."""
    leftovers: list[Machine] = attrs.field(factory=list)
    """The machines among those, also the ended ones."""
    read_by: list[Exchange] = attrs.field(factory=list)
    """The exchanges under other pushes' nodes that read its content when it was over."""
    total_bytes: int = 0
    """The size of all it brings, each digest once."""
    complete_bytes: int = 0
    """The part of that which is there or has been sent."""
    implied: set[Digest] = attrs.field(factory=set)
    """Digests that count as there because a manifest that names them was found there."""
    left_open: int = 0
    """Upload sessions that stay open, or may."""
    cancelling: tuple[UploadMachine, ...] = ()
    """The upload sessions of earlier processes that it is to cancel."""
    last_reported: bool = False
    """Its last progress was reported."""
    attached: dict[Digest, dict[Digest, bool | None]] = attrs.field(factory=dict)
    """By subject: each manifest that is attached to it, None until it is there, then whether the registry said that it
    put it into its own list."""
    listed: tuple[ReferrersUpdate, ...] = ()
    lookups: tuple[QueryMachine, ...] = ()
    requests_before: int = 0
    bytes_before: int = 0
    alone: tuple[PushState, ...] = attrs.field(init=False)
    """A tuple of this push alone: the users of most nodes, made once."""

    def __attrs_post_init__(self) -> None:
        self.alone = (self,)

    def repositories(self) -> tuple[str, ...]:
        """The repositories it makes requests about, mount sources aside."""
        return tuple(dict.fromkeys((self.plan.repository, *(upload.repository for upload in self.cancelling))))

    def streamed(self) -> tuple[StreamedBlob, ...]:
        """Its streams that are there."""
        there = (s for s in self.streams.values() if s.state is StreamState.PRESENT)
        return tuple(StreamedBlob(key=s.stream.key, descriptor=s.descriptor) for s in there)

    def key(self, digest: Digest, tag: str = "") -> Key:
        """The key of a node of this push."""
        manifest = self.manifests.get(digest)
        of_plan = (self.plan.omitted, self.put_after(manifest)) if manifest is not None else None
        return (self.plan.repository, digest, tag, of_plan)

    def put_after(self, manifest: Manifest) -> str:
        """The tag or digest that a manifest's subject must have before it is put; "" if the plan does not bring it."""
        subject, plan = manifest.info.subject, self.plan
        if subject is None or subject.digest not in self.manifests:
            return ""
        return plan.tags[0] if plan.tags and subject.digest == plan.root else subject.digest

    def size_of(self, digest: Digest) -> int:
        """The bytes of something it brings."""
        manifest = self.manifests.get(digest)
        return (manifest or self.blobs[digest]).descriptor.size

    def result(self, registry: str, requests: int, sent_bytes: int, warnings: tuple[str, ...]) -> PushResult:
        """The result, given what the session has counted by now."""
        assert self.outcome is not None

        def came(status: Status) -> tuple[Digest, ...]:
            return tuple(digest for digest, how in self.found.items() if how is status)

        return PushResult(
            outcome=self.outcome,
            repository=f"{registry}/{self.plan.repository}",
            digest=self.plan.root,
            tags=self.plan.tags,
            error=self.error,
            existing=came(Status.EXISTING),
            mounted=came(Status.MOUNTED),
            uploaded=came(Status.UPLOADED),
            skipped=self.plan.skipped,
            listed=self.listed,
            found=tuple(machine.found for machine in self.lookups if machine.found is not None),
            streamed=self.streamed(),
            left_open=self.left_open,
            warnings=warnings,
            requests=requests - self.requests_before,
            sent_bytes=sent_bytes - self.bytes_before,
        )


@attrs.define(kw_only=True, eq=False, repr=False)
class Node:
    """One thing that is to be there."""

    key: Key
    repository: str
    digest: Digest
    tag: str
    machine: BlobMachine | ManifestMachine | None = None
    """None once it is there."""
    sharers: Sharers = None
    """The pushes that need this: see `users`."""
    askers: Sharers = None
    """The pushes that have this as a goal: see `goal_of`."""
    dependents: tuple[Node, ...] = ()
    """The manifests' nodes that count this as missing."""
    followers: tuple[BlobMachine, ...] = ()
    """Blobs in other repositories that wait for this, to be mounted from here."""
    missing: int = 0
    expanded: bool = False
    """The nodes below a manifest have been started."""
    sent_bytes: int = 0
    """Of a blob, in the present try."""

    @property
    def users(self) -> Collection[PushState]:
        """The pushes that need this, in the order they came."""
        return each(self.sharers)

    @property
    def goal_of(self) -> Collection[PushState]:
        """The users that have this as a goal."""
        return each(self.askers)

    @property
    def first_user(self) -> PushState:
        """The push that has needed this longest."""
        return next(iter(each(self.sharers)))


Sharers: TypeAlias = "PushState | dict[int, PushState] | None"
"""No push, one, or several by their ids: nearly always one, and the cost of one more or less does not grow."""


def each(sharers: Sharers) -> Collection[PushState]:
    """The pushes, in the order they came."""
    if sharers is None:
        return ()
    return sharers.values() if type(sharers) is dict else cast(PushState, sharers).alone


def with_push(sharers: Sharers, work: PushState) -> Sharers:
    """The pushes with one more."""
    if sharers is None:
        return work
    if type(sharers) is not dict:
        first = cast(PushState, sharers)
        sharers = {first.id: first}
    sharers[work.id] = work
    return sharers


def without_push(sharers: Sharers, work: PushState) -> Sharers:
    """The pushes without this one."""
    if type(sharers) is dict:
        sharers.pop(work.id, None)
        return sharers or None
    return None if sharers is work else sharers
