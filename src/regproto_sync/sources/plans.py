"""The plans of what can be pushed beside a source: a layer, a manifest, an artifact, several images at once.

For every driver; nothing here touches a network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from regproto import (
    Blob,
    Config,
    ContentError,
    Descriptor,
    Digest,
    InvalidReferenceError,
    Manifest,
    MountSource,
    PushPlan,
    PushResult,
    Reference,
    ResolveReference,
    StreamBlob,
    registry_url,
)
from regproto._model.errors import printable
from regproto._model.manifest import check_media_type, parse_manifest
from regproto_sync.sources.artifact import UNKNOWN_ARTIFACT, artifact
from regproto_sync.sources.content import ContentSource
from regproto_sync.sources.files import FILE_TYPE, FOLDER_TYPE, file_blob, folder_blob
from regproto_sync.sources.image import ImageSource, as_blob
from regproto_sync.sources.layers import Layer, image_push
from regproto_sync.sources.notation import split_source
from regproto_sync.sources.source import Planned, mount_source, open_source, plan_source, target_of

Item = str | os.PathLike[str] | Blob | ContentSource
"""A single piece of content: a path, or something that describes itself."""


def blob_of(item: Item) -> Blob:
    """The blob that `FILE[:MEDIA_TYPE]` names (a string), or that a path, blob or content is.

    A folder becomes a gzipped tar. A path that exists as it stands wins over one with a media type after it.

    Raises:
        SourceNotFound: there is nothing at the path.
        ContentError: it can't be read, or the media type is none.
    """
    if isinstance(item, str):
        path, media_type = split_source(item)
        if media_type is not None:
            check_media_type(media_type, printable(item, 200))
    elif isinstance(item, os.PathLike):
        path, media_type = Path(item), None
    else:
        return as_blob(item)
    if path.is_dir():
        return folder_blob(path, media_type or FOLDER_TYPE)
    return file_blob(path, media_type or FILE_TYPE)


def plan_layer(
    layer: Item | Layer,
    repository: str,
    *,
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
    spool: bool = False,
) -> Planned:
    """The plan that puts one blob into a repository, for a manifest that comes later.

    Args:
        layer: see `blob_of`; or a `Layer`, which is sent as a stream.
        repository: `host/repository`.
        mount_from: see `push`; for a stream of no use.
        plain_http: see `push`.
        spool: make a `Layer` first, in a temporary file.

    Raises:
        InvalidReferenceError: `repository` is malformed, or has a tag or digest.
        ContentError: the content can't be read; `SourceNotFound` if there is none.
    """
    target = Reference.parse(repository)
    if target.tag or target.digest:
        raise InvalidReferenceError(f"{str(target)!r}: a layer goes into a repository, without tag or digest")
    url = registry_url(target.registry, plain_http)
    if isinstance(layer, Layer):
        if not spool:
            stream = StreamBlob(key="layer", media_type=layer.media_type, source=layer.content())
            push = PushPlan(repository=target.repository, streams=[stream])
            return Planned(registry_url=url, reference=target, push=push, source=None)
        spooled = layer.spooled()
        blob = Blob(descriptor=spooled.descriptor, source=spooled.content)
    else:
        blob = blob_of(layer)
    mounts = [mount_source(text, target.registry) for text in mount_from]
    push = PushPlan(repository=target.repository, blobs=[_mounted(blob, mounts)])
    return Planned(
        registry_url=url,
        reference=attrs.evolve(target, digest=blob.descriptor.digest),
        push=push,
        source=None,
    )


def plan_image(
    config: Mapping[str, Any],
    layers: Sequence[Layer],
    reference: str,
    *,
    tags: Sequence[str] = (),
    plain_http: bool = False,
    spool: bool = False,
) -> Planned:
    """The plan that pushes an image of layers that are made on their way. The arguments are those of `push_image`.

    Raises:
        InvalidReferenceError: `reference` or a tag is malformed.
        ContentError: a layer can't be read, or the reference has a digest.
    """
    target, url, names = target_of(reference, tags, plain_http)
    if target.digest is not None:
        raise ContentError(f"{reference}: the digest of an image that is yet to be made is not known beforehand")
    push = image_push(config, layers, target.repository, names, spool)
    return Planned(registry_url=url, reference=target, push=push, source=None)


def plan_manifest(
    content: bytes,
    reference: str,
    *,
    media_type: str = "",
    tags: Sequence[str] = (),
    plain_http: bool = False,
) -> Planned:
    """The plan that puts a manifest or index alone: all that it names has to be in the repository already.

    Args:
        content: its exact bytes.
        reference: see `push`; with a digest it is put under that one, sha512 too.
        media_type: by default what the manifest says itself.
        tags: further tags.
        plain_http: see `push`.

    Raises:
        InvalidReferenceError: `reference` or a tag is malformed.
        ContentError: it is not a manifest, or not the one with the reference's digest.
    """
    target, url, names = target_of(reference, tags, plain_http)
    info = parse_manifest(content, check_media_type(media_type, "media type") if media_type else "")
    digest = Digest.of(content, target.digest.algorithm if target.digest else "sha256")
    described = Descriptor(media_type=info.media_type, digest=digest, size=len(content))
    if target.digest is not None and target.digest != digest:
        raise ContentError(f"the reference asks for {target.digest}, but the manifest is {digest}")
    manifest = Manifest.of(content, described)
    named = {named.digest for named in manifest.names()}
    push = PushPlan(repository=target.repository, manifests=[manifest], root=digest, tags=names, omitted=named)
    return Planned(registry_url=url, reference=target, push=push, source=None)


@attrs.frozen(kw_only=True)
class Tagging:
    """Tags for something that is in a registry already: two plans, the second made of what the first found."""

    registry_url: str
    reference: Reference
    tags: tuple[str, ...]

    @property
    def question(self) -> PushPlan:
        """Reads the manifest that the reference is on."""
        name = self.reference.digest or self.reference.tag
        return PushPlan(repository=self.reference.repository, lookups=[ResolveReference(reference=name, content=True)])

    def push(self, found: PushResult) -> PushPlan:
        """Puts the tags, given the question's answer. Raises the question's error."""
        if found.error is not None:
            raise found.error
        (descriptor,) = found.found
        assert isinstance(descriptor, Descriptor) and descriptor.data is not None
        manifest = Manifest.of(descriptor.data, attrs.evolve(descriptor, data=None))
        return PushPlan(
            repository=self.reference.repository,
            manifests=[manifest],
            root=descriptor.digest,
            tags=self.tags,
            omitted=[named.digest for named in manifest.names()],
        )


def plan_tag(reference: str, tags: Sequence[str], *, plain_http: bool = False) -> Tagging:
    """The plans that put further tags on what is in a registry already.

    Args:
        reference: `host/repository:tag` or `host/repository@digest`.
        tags: to be put on it.
        plain_http: see `push`.

    Raises:
        InvalidReferenceError: `reference` or a tag is malformed, or there is no tag.
    """
    target, url, _ = target_of(reference, tags, plain_http)
    if not tags:
        raise InvalidReferenceError("there is no tag to be put")
    return Tagging(registry_url=url, reference=target, tags=tuple(tags))


def plan_artifact(
    files: Iterable[Item],
    reference: str,
    *,
    artifact_type: str = UNKNOWN_ARTIFACT,
    annotations: Mapping[str, str] | None = None,
    tags: Sequence[str] = (),
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
) -> Planned:
    """The plan that pushes an artifact of these files.

    Args:
        files: see `blob_of`.
        reference: see `push`.
        artifact_type: see `artifact`.
        annotations: of the manifest.
        tags: see `push`.
        mount_from: see `push`.
        plain_http: see `push`.

    Raises:
        InvalidReferenceError: `reference`, a tag or a mount source is malformed.
        ContentError: a file can't be read, or `artifact` refuses it all; `SourceNotFound` if a file is not there.
    """
    target, url, names = target_of(reference, tags, plain_http)
    mounts = [mount_source(text, target.registry) for text in mount_from]
    found = artifact([blob_of(item) for item in files], artifact_type, annotations)
    push = found.push(target.repository, tags=names, mount_from=mounts)
    if target.digest is not None and target.digest != push.root:
        raise ContentError(f"the reference asks for {target.digest}, but the artifact is {push.root}")
    return Planned(registry_url=url, reference=target, push=push, source=None)


def plan_many(
    images: Iterable[tuple[str | os.PathLike[str] | ImageSource, str]],
    *,
    tags: Sequence[str] = (),
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
    nondistributable: bool = False,
    sparse: bool = False,
    verify: bool = False,
) -> list[Planned]:
    """The plans that push several images, each a source and a reference, into one registry.

    What two of them share is sent once for each repository; what is large is mounted from one to the next.

    Raises:
        InvalidReferenceError: a reference is malformed, or one of another registry than the first.
        ContentError: a source is not what it has to be; `SourceNotFound` if it is not there.
    """
    opened: dict[str, ImageSource] = {}
    plans = []
    for source, reference in images:
        if not isinstance(source, ImageSource):
            # Once for all references of its: standard input can't be read twice.
            path = os.fspath(source)
            source = opened[path] = opened.get(path) or open_source(source, sparse=sparse)
        plans.append(
            plan_source(
                source,
                reference,
                tags=tags,
                mount_from=mount_from,
                plain_http=plain_http,
                nondistributable=nondistributable,
                sparse=sparse,
                verify=verify,
            )
        )
    registries = {plan.reference.registry for plan in plans}
    if len(registries) > 1:
        raise InvalidReferenceError(f"one push goes to one registry, not to {' and '.join(sorted(registries))}")
    first: dict[Digest, str] = {}
    for number, plan in enumerate(plans):
        repository = plan.push.repository
        shared = {b.descriptor.digest: first.setdefault(b.descriptor.digest, repository) for b in plan.push.blobs}
        blobs = [_mounted(b, _from(shared[b.descriptor.digest], repository, b)) for b in plan.push.blobs]
        plans[number] = attrs.evolve(plan, push=attrs.evolve(plan.push, blobs=blobs))
    return plans


def _from(first: str, repository: str, blob: Blob) -> list[MountSource]:
    # What is small is sent in one request; looking for it and mounting it would take two.
    if first == repository or blob.descriptor.size <= Config().small_blob_bytes:
        return []
    return [MountSource(repository=first)]


def _mounted(blob: Blob, sources: Sequence[MountSource]) -> Blob:
    """A blob that may be mounted from these too, before all others."""
    return attrs.evolve(blob, mount_from=(*sources, *blob.mount_from)) if sources else blob
