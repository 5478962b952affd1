"""What is pushed in the core's tests: blobs, images and indexes in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import attrs

from regproto import Blob, Descriptor, Digest, Manifest, Manifests, MountSource, NeedManifests, PushPlan, StreamBlob
from regproto._model.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

REPO: Final = "team/app"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


def blob(content: bytes, *mount_from: str | MountSource, media_type: str = LAYER, algorithm: str = "sha256") -> Blob:
    """A blob whose source is its content."""
    sources = tuple(MountSource(repository=s) if isinstance(s, str) else s for s in mount_from)
    descriptor = Descriptor(media_type=media_type, digest=Digest.of(content, algorithm), size=len(content))
    return Blob(descriptor=descriptor, source=content, mount_from=sources)


def blobs_push(*blobs: Blob, repository: str = REPO) -> PushPlan:
    """A push of blobs alone."""
    return PushPlan(repository=repository, blobs=blobs)


def described(item: Blob | Manifest | Descriptor) -> dict[str, Any]:
    """The JSON form of a descriptor."""
    descriptor = item if isinstance(item, Descriptor) else item.descriptor
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


@attrs.frozen(kw_only=True)
class Image:
    """A manifest or index and everything below it."""

    manifest: Manifest
    blobs: tuple[Blob, ...] = ()
    children: tuple[Image, ...] = ()

    @property
    def digest(self) -> Digest:
        return self.manifest.descriptor.digest

    def all_blobs(self) -> tuple[Blob, ...]:
        below = (b for child in self.children for b in child.all_blobs())
        return tuple({b.descriptor.digest: b for b in (*self.blobs, *below)}.values())

    def all_manifests(self) -> tuple[Manifest, ...]:
        return (self.manifest, *(m for child in self.children for m in child.all_manifests()))

    def push(self, *tags: str, repository: str = REPO, **more: Any) -> PushPlan:
        """The push of all of it; without tags by digest."""
        return PushPlan(
            repository=repository,
            blobs=self.all_blobs(),
            manifests=self.all_manifests(),
            root=self.digest,
            tags=tags,
            **more,
        )

    def bare(self, *tags: str, repository: str = REPO) -> PushPlan:
        """The push of the root manifest alone; all it names is taken to be there."""
        absent = frozenset(d.digest for d in self.manifest.names())
        return PushPlan(repository=repository, manifests=(self.manifest,), root=self.digest, tags=tags, omitted=absent)


def image(*layers: bytes | Blob, config: bytes = b"{}", media_type: str = OCI_MANIFEST, **extra: Any) -> Image:
    """An image of these layers; `extra` goes into the manifest."""
    parts = [layer if isinstance(layer, Blob) else blob(layer) for layer in layers]
    root = blob(config, media_type=OCI_CONFIG)
    content = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": described(root),
        "layers": [described(part) for part in parts],
        **extra,
    }
    return Image(manifest=Manifest.of(json.dumps(content).encode()), blobs=(root, *parts))


def index(*children: Image, blobs: Sequence[Blob] = (), **extra: Any) -> Image:
    """An index of these; `blobs` are children of other media types."""
    named = [described(child.manifest) for child in children] + [described(b) for b in blobs]
    content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": named, **extra}
    return Image(manifest=Manifest.of(json.dumps(content).encode()), blobs=tuple(blobs), children=children)


def stream(content: bytes, key: str = "layer-0", **more: Any) -> StreamBlob:
    """A stream whose source is its content."""
    return StreamBlob(key=key, media_type=LAYER, source=content, **more)


def image_of_streams(need: NeedManifests) -> Manifests:
    """A draft: the image whose layers are a push's streams."""
    made = image_of([described(s.descriptor) for s in need.streams])
    return Manifests(id=need.id, root=made.digest, manifests=(made.manifest,), blobs=made.blobs)


def index_of_streams(need: NeedManifests) -> Manifests:
    """A draft: an index of one image for each of a push's streams."""
    images = [image_of([described(s.descriptor)]) for s in need.streams]
    made = index(*images)
    return Manifests(id=need.id, root=made.digest, manifests=made.all_manifests(), blobs=made.all_blobs())


def image_of(layers: Sequence[dict[str, Any]]) -> Image:
    """An image with layers that are there already."""
    config = blob(json.dumps({"layers": [layer["digest"] for layer in layers]}).encode(), media_type=OCI_CONFIG)
    content = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described(config), "layers": list(layers)}
    return Image(manifest=Manifest.of(json.dumps(content).encode()), blobs=(config,))


def stream_push(*streams: StreamBlob, tags: Sequence[str] = ("1.0",), **more: Any) -> PushPlan:
    """The push of an image whose layers are these streams."""
    return PushPlan(**({"repository": REPO, "streams": streams, "draft": image_of_streams, "tags": tags} | more))
