"""What is pushed: a root with everything below it, or blobs alone; or manifests that are read, to go on from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from conformance._content import Contents
from conformance._fields import Fields, Invalid, as_flag, as_object, as_text, list_of, object_of
from conformance._names import Names
from regproto import (
    Blob,
    Descriptor,
    Manifest,
    Manifests,
    MountSource,
    NeedManifests,
    PushPlan,
    ResolveReference,
    StreamBlob,
    plan_push,
)

_EVERY: Final = ""
"""Stands for every blob, where mount sources are given for all."""


@attrs.frozen(kw_only=True)
class MountFrom:
    """A repository that may hold a blob."""

    repository: str
    registry: str = ""
    foreign: bool = False


@attrs.frozen(kw_only=True)
class Plan:
    """One push of a scenario."""

    repository: str
    root: str
    tags: tuple[str, ...]
    blobs: tuple[str, ...]
    streams: tuple[str, ...]
    """Sent as streams; `root` is made when they are there. Without a root: blobs alone."""
    mount_from: dict[str, tuple[MountFrom, ...]]
    reads: tuple[str, ...]
    """Tags and digests whose manifests are read."""
    no_content: tuple[str, ...]
    """What there is no content of at hand."""
    nondistributable: bool
    sparse: bool
    alone: bool
    """The root manifest alone; what it names is taken to be there."""
    after: bool
    """Begun when the push before it is over, not beside it."""

    def named(self) -> tuple[str, ...]:
        """The content it names."""
        root = (self.root,) if self.root else ()
        return (
            *root,
            *self.blobs,
            *self.streams,
            *self.no_content,
            *(name for name in self.mount_from if name != _EVERY),
        )

    def sources_of(self, name: str, names: Names) -> tuple[MountSource, ...]:
        """Where a piece of content may be mounted from."""
        return tuple(
            MountSource(
                repository=names.fill(source.repository), registry=names.fill(source.registry), foreign=source.foreign
            )
            for source in (*self.mount_from.get(name, ()), *self.mount_from.get(_EVERY, ()))
        )


def read_plan(raw: object, where: str) -> Plan:
    """A `push`. Raises `Invalid`."""
    fields = Fields(raw, where)
    plan = Plan(
        repository=fields.take("repository", as_text, "{repo}"),
        root=fields.take("root", as_text, ""),
        tags=fields.many("tags", as_text),
        blobs=fields.many("blobs", as_text),
        streams=fields.many("streams", as_text),
        mount_from=fields.maybe("mount_from", _mount_from) or {},
        reads=fields.many("reads", as_text),
        no_content=fields.many("no_content", as_text),
        nondistributable=fields.take("nondistributable", as_flag, False),
        sparse=fields.take("sparse", as_flag, False),
        alone=fields.take("alone", as_flag, False),
        after=fields.take("after", as_flag, False),
    )
    fields.end()
    pushes = bool(plan.root) is not bool(plan.blobs) or bool(plan.streams and not plan.root)
    if pushes is bool(plan.reads):
        raise Invalid(f"{where} must have either a root or blobs")
    if plan.tags and not plan.root:
        raise Invalid(f"{where}: tags need a root")
    return plan


def _mount_from(raw: object, where: str) -> dict[str, tuple[MountFrom, ...]]:
    read = list_of(_source)
    return {_EVERY: read(raw, where)} if isinstance(raw, list) else object_of(read)(as_object(raw, where), where)


def _source(raw: object, where: str) -> MountFrom:
    if isinstance(raw, str):
        return MountFrom(repository=raw)
    fields = Fields(raw, where)
    source = MountFrom(
        repository=fields.take("repository", as_text),
        registry=fields.take("registry", as_text, ""),
        foreign=fields.take("foreign", as_flag, False),
    )
    fields.end()
    return source


@attrs.frozen
class Draft:
    """Makes the rest of a plan of streams."""

    push: PushPlan
    """The same plan, had nothing in it been a stream."""

    def __call__(self, need: NeedManifests) -> Manifests:
        """The answer to `need`."""
        there = {s.descriptor.digest for s in need.streams}
        blobs = tuple(blob for blob in self.push.blobs if blob.descriptor.digest not in there)
        return Manifests(id=need.id, root=self.push.root, manifests=self.push.manifests, blobs=blobs)

    def make(self, need: NeedManifests) -> Manifests:
        """The same, for the bundled drivers."""
        return self(need)


def whole(push: PushPlan) -> PushPlan:
    """The same plan, had nothing in it been a stream."""
    return push.draft.push if isinstance(push.draft, Draft) else push


def build(
    plan: Plan,
    contents: Contents,
    names: Names,
    wrap: Callable[[bytes], object],
    wrap_stream: Callable[[bytes], object],
) -> PushPlan:
    """The plan for the core.

    Args:
        plan: as the scenario has it.
        contents: of the scenario.
        names: what the words in it mean.
        wrap: makes of bytes what the driver reads a body from.
        wrap_stream: the same for a stream.
    """
    by_digest = {item.digest: (name, item) for name, item in contents.items() if name not in plan.no_content}
    repository = names.fill(plan.repository)

    def source_of(descriptor: Descriptor) -> object:
        found = by_digest.get(descriptor.digest)
        return wrap(found[1].actual) if found is not None else None

    def manifest_of(descriptor: Descriptor) -> bytes | None:
        found = by_digest.get(descriptor.digest)
        return found[1].content if found is not None else None

    if plan.reads:
        lookups = [ResolveReference(reference=names.fill(reference), content=True) for reference in plan.reads]
        return PushPlan(repository=repository, lookups=lookups)
    if not plan.root:
        blobs = (contents[name] for name in plan.blobs)
        push = PushPlan(
            repository=repository,
            blobs=tuple(Blob(descriptor=b.descriptor, source=source_of(b.descriptor)) for b in blobs),
        )
    elif plan.alone:
        manifest = Manifest.of(contents[plan.root].content, contents[plan.root].descriptor)
        absent = frozenset(d.digest for d in manifest.names())
        push = PushPlan(
            repository=repository,
            manifests=(manifest,),
            root=manifest.descriptor.digest,
            tags=plan.tags,
            omitted=absent,
        )
    else:
        push = plan_push(
            repository,
            contents[plan.root].descriptor,
            read_manifest=manifest_of,
            find_content=source_of,
            tags=plan.tags,
            mount_from=(MountSource(repository="any"),) if plan.mount_from else (),
            nondistributable=plan.nondistributable,
            sparse=plan.sparse,
        )
    name_of = {item.digest: name for name, item in contents.items()}
    mounts = [plan.sources_of(name_of[blob.descriptor.digest], names) for blob in push.blobs]
    push = attrs.evolve(
        push,
        blobs=tuple(attrs.evolve(b, mount_from=m) for b, m in zip(push.blobs, mounts, strict=True)),
    )
    if not plan.streams:
        return push
    streams = tuple(
        StreamBlob(
            key=name,
            media_type=contents[name].descriptor.media_type,
            source=wrap_stream(contents[name].actual),
            algorithm=contents[name].digest.algorithm,
        )
        for name in plan.streams
    )
    if not plan.root:
        return attrs.evolve(push, streams=streams)
    return PushPlan(repository=repository, tags=plan.tags, streams=streams, draft=Draft(push))
