"""The push plan: everything one push puts into one repository, as data the session can walk.

`plan_push` builds one from a root descriptor by reading manifests through the caller; an embedder that knows its
content already may build `PushPlan` by hand. A plan is checked when it is made, so a session never meets a bad one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from regproto._model.digest import DIGEST_ALGORITHMS, Digest
from regproto._model.errors import ContentError, printable
from regproto._model.manifest import (
    INDEX_TYPES,
    MANIFEST_MAX_DEPTH,
    MANIFEST_TYPES,
    NONDISTRIBUTABLE_TYPES,
    Descriptor,
    ManifestInfo,
    check_media_type,
    parse_manifest,
)
from regproto._model.reference import check_reference, check_repository, check_tag
from regproto._model.referrers import Query, ResolveReference

MANIFESTS_MAX: Final = 10_000
"""Manifests in one plan: a hundred times the largest public multi-platform index, and a bound on what a loop can
cost."""


def _valid_repository(_instance: object, _attribute: attrs.Attribute[Any], value: str) -> None:
    check_repository(value)


@attrs.frozen(kw_only=True)
class MountSource:
    """A repository that may hold a blob already."""

    repository: str = attrs.field(validator=_valid_repository)
    registry: str = ""
    """The source's registry host, sent as `origin=` where it is known."""
    foreign: bool = False
    """The source is in another registry: no token of ours covers it."""


@attrs.frozen(kw_only=True)
class Blob:
    """A blob to be pushed."""

    descriptor: Descriptor
    source: object = attrs.field(default=None, repr=False, eq=False)
    """The object the driver reads the content from, handed back in `BlobSlice.source`. None: there is no content at
    hand, and the blob must be there, be mountable, or be embedded in its descriptor."""
    mount_from: tuple[MountSource, ...] = ()
    """Tried before any upload. If there are several, they are asked for the blob first, and it is mounted from the
    first, in this order, that is not known to lack it."""
    identity: str = ""
    """A mark of the source that stays the same while it does not change, such as a file's size, mtime and inode. An
    upload that an earlier process began goes on only if this is the same."""

    @property
    def has_content(self) -> bool:
        """False if it can only be found or mounted."""
        return self.source is not None or self.descriptor.data is not None or self.descriptor.size == 0


_STREAM_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")


def _valid_key(_instance: object, _attribute: attrs.Attribute[Any], value: str) -> None:
    if not _STREAM_KEY.fullmatch(value):
        raise ContentError(f"{printable(value, 150)!r} can't name a stream: use up to 128 letters, digits and ._:@/+-")


def _valid_algorithm(_instance: object, _attribute: attrs.Attribute[Any], value: str) -> None:
    if value not in DIGEST_ALGORITHMS:
        raise ContentError(f"digest algorithm {printable(value, 100)!r} is not supported: use sha256 or sha512")


@attrs.frozen(kw_only=True)
class StreamBlob:
    """A blob whose digest and size are known only once it was sent. It is sent once, and can't be sent again."""

    key: str = attrs.field(validator=_valid_key)
    """Its name in the plan and in news of it."""
    media_type: str
    source: object = attrs.field(repr=False, eq=False)
    """The object the driver reads it from, handed back in `Stream.source`. Streams must not wait for each other: only
    so many are read at a time (see `Config.stream_buffer_bytes`), in no certain order."""
    algorithm: str = attrs.field(default="sha256", validator=_valid_algorithm)


@attrs.frozen(kw_only=True)
class StreamedBlob:
    """A stream that is in the repository."""

    key: str
    descriptor: Descriptor


@attrs.frozen(kw_only=True)
class Manifest:
    """A manifest or index to be put, with its exact bytes."""

    descriptor: Descriptor
    content: bytes = attrs.field(repr=False)
    info: ManifestInfo = attrs.field(repr=False)

    @classmethod
    def of(cls, content: bytes, descriptor: Descriptor | None = None, where: str = "manifest") -> Manifest:
        """A manifest from its bytes, checked against `descriptor` if that is given.

        Raises:
            ContentError: the bytes are not a manifest, or not the one the descriptor names.
        """
        if descriptor is not None:
            _check_bytes(content, descriptor, where)
        info = parse_manifest(content, descriptor.media_type if descriptor else "", where)
        if descriptor is None:
            descriptor = Descriptor(
                media_type=info.media_type,
                digest=Digest.of(content),
                size=len(content),
                artifact_type=info.artifact_type,
            )
        return cls(descriptor=descriptor, content=content, info=info)

    def names(self) -> tuple[Descriptor, ...]:
        """Everything this manifest needs to be there before it is put, config first."""
        config = (self.info.config,) if self.info.config else ()
        return (*config, *self.info.layers, *self.info.manifests)

    def after(self) -> tuple[Digest, ...]:
        """The manifests this is put after, as far as they are in the same plan: its children and its subject."""
        subject = (self.info.subject.digest,) if self.info.subject else ()
        return (*(d.digest for d in self.info.manifests), *subject)


def _check_bytes(content: bytes, descriptor: Descriptor, where: str) -> None:
    if len(content) != descriptor.size:
        raise ContentError(
            f"{where}: {descriptor.digest} is {len(content)} bytes long, its descriptor says {descriptor.size}"
        )
    if Digest.of(content, descriptor.digest.algorithm) != descriptor.digest:
        raise ContentError(f"{where}: the content of {descriptor.digest} does not match its digest")


def _as_tuple(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(items)


def _unique(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tags))


def _as_set(digests: Iterable[Digest]) -> frozenset[Digest]:
    return frozenset(digests)


@attrs.frozen(kw_only=True)
class PushPlan:
    """Everything one push puts into one repository.

    Raises `ContentError` when it names something that is neither in the plan nor in `omitted`, or names itself.
    """

    repository: str = attrs.field(validator=_valid_repository)
    """The name within the registry, without host or tag."""
    blobs: tuple[Blob, ...] = attrs.field(default=(), converter=_as_tuple)
    manifests: tuple[Manifest, ...] = attrs.field(default=(), converter=_as_tuple)
    root: Digest | None = None
    """The manifest the tags are put on; put by digest if there are no tags. None: blobs (and manifests by digest)
    alone."""
    tags: tuple[str, ...] = attrs.field(default=(), converter=_unique)
    omitted: frozenset[Digest] = attrs.field(default=frozenset(), converter=_as_set)
    """Digests that manifests name but the push does not bring and does not ask for (see `skipped`)."""
    skipped: tuple[Descriptor, ...] = ()
    """The descriptors left out on purpose, for the result."""
    lookups: tuple[Query, ...] = attrs.field(default=(), converter=_as_tuple)
    """Questions about the repository, beside the pushing; answered in `PushResult.found`."""
    reads_only: bool = False
    """Nothing will be put into the repository by this session, so that no right to push is asked for."""

    streams: tuple[StreamBlob, ...] = attrs.field(default=(), converter=_as_tuple)
    """Sent beside everything else."""
    draft: object = attrs.field(default=None, repr=False, eq=False)
    """Not None: once all streams are there the driver is given this to make the rest of the plan from
    (`NeedManifests`): the manifests that name them, and the root that the tags are put on."""

    @property
    def subjects(self) -> dict[Digest, list[Manifest]]:
        """The manifests that are attachments, by what they are attached to."""
        found: dict[Digest, list[Manifest]] = {}
        for manifest in self.manifests:
            if manifest.info.subject is not None:
                found.setdefault(manifest.info.subject.digest, []).append(manifest)
        return found

    def __attrs_post_init__(self) -> None:
        for tag in self.tags:
            check_tag(tag)
        for lookup in self.lookups:
            if isinstance(lookup, ResolveReference):
                check_reference(lookup.reference)
            elif lookup.artifact_type:
                check_media_type(lookup.artifact_type, "artifact type")
        if self.tags and self.root is None and self.draft is None:
            raise ContentError("tags need a root manifest to stand on")
        if self.draft is not None and (self.manifests or not self.streams):
            raise ContentError("a draft makes manifests from streams: there must be streams, and no manifest yet")
        if len({stream.key for stream in self.streams}) < len(self.streams):
            raise ContentError("two streams have the same key")
        manifests = {m.descriptor.digest: m for m in self.manifests}
        if self.root is not None and self.root not in manifests:
            raise ContentError(f"the root manifest {self.root} is not in the plan")
        known = manifests.keys() | {b.descriptor.digest for b in self.blobs} | self.omitted
        for manifest in self.manifests:
            for named in manifest.names():
                if named.digest not in known:
                    raise ContentError(f"{manifest.descriptor.digest} names {named.digest}, which is not in the plan")
        _check_acyclic(manifests)


def _check_acyclic(manifests: dict[Digest, Manifest]) -> None:
    """Digests make a true cycle infeasible; a plan built by hand with wrong digests could still hold one."""
    done: set[Digest] = set()
    for start in manifests:
        path: list[tuple[Digest, bool]] = [(start, False)]
        on_path: set[Digest] = set()
        while path:
            digest, leaving = path.pop()
            if leaving:
                on_path.discard(digest)
                done.add(digest)
            elif digest in on_path:
                raise ContentError(f"{digest} names itself, directly or through others")
            elif digest not in done:
                on_path.add(digest)
                path.append((digest, True))
                path.extend((d, False) for d in manifests[digest].after() if d in manifests)


def plan_push(
    repository: str,
    root: Descriptor,
    *,
    read_manifest: Callable[[Descriptor], bytes | None],
    find_content: Callable[[Descriptor], object],
    tags: Sequence[str] = (),
    mount_from: Sequence[MountSource] = (),
    nondistributable: bool = False,
    sparse: bool = False,
) -> PushPlan:
    """The plan that pushes `root` and everything below it.

    Args:
        repository: the target's name within its registry.
        root: the manifest or index to push.
        read_manifest: the bytes of a manifest or index, or None if the caller does not have it.
        find_content: what `Blob.source` is to be for a blob, or None if the caller does not have it. Its attribute
            `identity`, if it has one, becomes the blob's.
        tags: put on the root once everything else is there; none: the root is put by digest.
        mount_from: tried in turn for every blob.
        nondistributable: send non-distributable (foreign) layers too.
        sparse: leave out an index's children that the caller does not have, instead of refusing.

    Raises:
        ContentError: something is missing, malformed, not what its descriptor says, nested too deep or too much.
    """
    manifests: dict[Digest, Manifest] = {}
    blobs: dict[Digest, Blob] = {}
    skipped: dict[Digest, Descriptor] = {}

    def add_blob(descriptor: Descriptor, parent: Digest) -> None:
        if descriptor.media_type in NONDISTRIBUTABLE_TYPES and not nondistributable:
            skipped[descriptor.digest] = descriptor
            return
        known = blobs.get(descriptor.digest)
        if known is not None:
            if known.descriptor.size != descriptor.size:
                raise ContentError(f"{parent}: {descriptor.digest} has two sizes in this image")
            return
        source = None if descriptor.data is not None else find_content(descriptor)
        if source is None and descriptor.data is None and not mount_from:
            raise ContentError(
                f"{parent} names {descriptor.digest} ({descriptor.media_type}), which is not in the source"
            )
        identity = getattr(source, "identity", "")
        blobs[descriptor.digest] = Blob(
            descriptor=descriptor, source=source, mount_from=tuple(mount_from), identity=str(identity)
        )

    waiting: list[tuple[Descriptor, str, int]] = [(root, "root", 1)]
    while waiting:
        descriptor, parent, depth = waiting.pop()
        if descriptor.digest in manifests or descriptor.digest in skipped:
            continue
        if depth > MANIFEST_MAX_DEPTH or len(manifests) >= MANIFESTS_MAX:
            raise ContentError(
                f"{root.digest}: nested over {MANIFEST_MAX_DEPTH} deep, or over {MANIFESTS_MAX} manifests"
            )
        content = descriptor.data if descriptor.data is not None else read_manifest(descriptor)
        if content is None:
            if not sparse or depth == 1:
                raise ContentError(f"{parent} names the manifest {descriptor.digest}, which is not in the source")
            skipped[descriptor.digest] = descriptor
            continue
        manifest = Manifest.of(content, descriptor, where=str(descriptor.digest))
        manifests[descriptor.digest] = manifest
        for named in manifest.names():
            if manifest.info.is_index and named.media_type in MANIFEST_TYPES | INDEX_TYPES:
                waiting.append((named, str(descriptor.digest), depth + 1))
            else:
                add_blob(named, descriptor.digest)

    left_out = {d: s for d, s in skipped.items() if d not in blobs and d not in manifests}
    return PushPlan(
        repository=repository,
        blobs=tuple(blobs.values()),
        manifests=tuple(manifests.values()),
        root=root.digest,
        tags=tuple(tags),
        omitted=frozenset(left_out),
        skipped=tuple(left_out.values()),
    )
