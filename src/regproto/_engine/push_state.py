"""What a session is asked to do: pushes, and the nodes they share.

A node is one thing that is to be there: a blob, a manifest by its digest, or a manifest under a tag; in one
repository, however many manifests or pushes name it. It owns the one machine at work on it, and lives until it is
there.
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
"""What a node is about: repository, digest, tag (or ""), and for a manifest what the plan leaves out and the tag or
digest of the subject it puts it after: plans that differ in that do not share its node."""


@attrs.define(eq=False, repr=False)
class Known:
    """One thing that was learned to be there."""

    key: tuple[str, str]
    """The repository, and a digest or a tag."""
    digest: Digest
    """What is there."""
    before: int = 0
    """Pushes with a lower id were begun before this was learned last..."""
    good_for: float = math.inf
    """...and those with a lower id than this may rely on it."""
    learners: int = 0
    """Pushes under way that learned it, each as often as it did."""


@attrs.define(kw_only=True, eq=False, repr=False)
class PushState:
    """One push under way."""

    id: int
    plan: PushPlan
    manifests: dict[Digest, Manifest]
    blobs: dict[Digest, Blob]
    nodes: dict[Key, Node] = attrs.field(factory=dict)
    """All it needs, directly or through others, that is not there yet."""
    asked: set[Digest] = attrs.field(factory=set)
    """The digests it was asked for themselves: whatever is known of them, the registry is to say it to this push."""
    learned: list[Known] = attrs.field(factory=list)
    """What it was answered to be there."""
    together: tuple[str, ...] = ()
    """The tags that one request is to put; the first has a node, which brings the others along."""
    streams: dict[str, StreamMachine] = attrs.field(factory=dict)
    goals: int = 1
    """Of what it was asked for: how much is not there yet; one more while it is being begun."""
    ending: int = 0
    """What it left in flight or to be given back, once it is over."""
    outcome: PushOutcome | None = None
    error: RegprotoError | None = None
    found: dict[Digest, Status] = attrs.field(factory=dict)
    """How each digest came to be there, in that order."""
    leftovers: list[Machine] = attrs.field(factory=list)
    """What that is or was."""
    read_by: list[Exchange] = attrs.field(factory=list)
    """Of other pushes: what read its content when it was over."""
    total_bytes: int = 0
    """Of all it brings, each digest once."""
    complete_bytes: int = 0
    """Of that, what is there and what is being sent."""
    implied: set[Digest] = attrs.field(factory=set)
    """What counts as complete because a manifest that names it was found there."""
    left_open: int = 0
    """Upload sessions that stay open, or may."""
    cancelling: tuple[UploadMachine, ...] = ()
    """Those of earlier processes that it was asked to give back."""
    last_told: bool = False
    """It was told how far it came."""
    attached: dict[Digest, dict[Digest, bool | None]] = attrs.field(factory=dict)
    """By subject: each manifest that is attached to it, None until it is there, then whether the registry said that it
    put it into its own list."""
    listed: tuple[ReferrersUpdate, ...] = ()
    lookups: tuple[QueryMachine, ...] = ()
    requests_before: int = 0
    bytes_before: int = 0
    alone: tuple[PushState, ...] = attrs.field(init=False)
    """This push and no other: the users of most nodes, made once."""

    def __attrs_post_init__(self) -> None:
        self.alone = (self,)

    def repositories(self) -> tuple[str, ...]:
        """Those it makes requests about, mount sources aside."""
        return tuple(dict.fromkeys((self.plan.repository, *(upload.repository for upload in self.cancelling))))

    def streamed(self) -> tuple[StreamedBlob, ...]:
        """Its streams that are there."""
        there = (s for s in self.streams.values() if s.state is StreamState.PRESENT)
        return tuple(StreamedBlob(key=s.stream.key, descriptor=s.descriptor) for s in there)

    def key(self, digest: Digest, tag: str = "") -> Key:
        """What a node of this push is known by."""
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
    """Those of them that were asked for this itself: see `goal_of`."""
    dependents: tuple[Node, ...] = ()
    """Who counts this as missing."""
    followers: tuple[BlobMachine, ...] = ()
    """In other repositories, to be mounted from here: they wait for this."""
    missing: int = 0
    expanded: bool = False
    """What a manifest names has been started."""
    sent_bytes: int = 0
    """Of a blob, in the present try."""

    @property
    def users(self) -> Collection[PushState]:
        """The pushes that need this, in the order they began to."""
        return each(self.sharers)

    @property
    def goal_of(self) -> Collection[PushState]:
        """The users that were asked for this itself."""
        return each(self.askers)

    @property
    def first_user(self) -> PushState:
        """The push that has needed this longest."""
        return next(iter(each(self.sharers)))


Sharers: TypeAlias = "PushState | dict[int, PushState] | None"
"""No push, one, or several by their ids: nearly always it is one, and what one more or less costs does not grow."""


def each(sharers: Sharers) -> Collection[PushState]:
    """The pushes, in the order they came."""
    if sharers is None:
        return ()
    return sharers.values() if type(sharers) is dict else cast(PushState, sharers).alone


def with_push(sharers: Sharers, work: PushState) -> Sharers:
    """The same and one more."""
    if sharers is None:
        return work
    if type(sharers) is not dict:
        first = cast(PushState, sharers)
        sharers = {first.id: first}
    sharers[work.id] = work
    return sharers


def without_push(sharers: Sharers, work: PushState) -> Sharers:
    """The same without this one."""
    if type(sharers) is dict:
        sharers.pop(work.id, None)
        return sharers or None
    return None if sharers is work else sharers
