"""The layers of an image and the `rootfs` of its config: do they belong together?

A registry never asks, so an image whose layers are others than its config says is stored, pulled, and fails, or runs
as another, wherever it is unpacked.

Source: image-spec, "Image Configuration" (`rootfs.diff_ids`: the digests of the layers' tars, the lowest first) and
"Image Layer Filesystem Changeset"; Docker's image manifest v2 schema 2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import BinaryIO, Final

from regproto._model.digest import DIGEST_ALGORITHMS, Digest
from regproto._model.errors import ContentError, printable
from regproto._model.manifest import DOCKER_CONFIG, MANIFEST_MAX_BYTES, OCI_CONFIG, Descriptor
from regproto._model.plan import Manifest, PushPlan
from regproto_sync.sources.compress import Unpacker, compression_of
from regproto_sync.sources.content import HASHED_BYTES, Content, ContentChanged
from regproto_sync.sources.reading import read_at_most, read_some

OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_OCI_FOREIGN: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
LAYER_TAR: Final = "application/vnd.docker.image.rootfs.diff.tar"
LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_DOCKER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
TAR_TYPES: Final = {
    OCI_LAYER: "none",
    f"{OCI_LAYER}+gzip": "gzip",
    f"{OCI_LAYER}+zstd": "zstd",
    _OCI_FOREIGN: "none",
    f"{_OCI_FOREIGN}+gzip": "gzip",
    f"{_OCI_FOREIGN}+zstd": "zstd",
    LAYER_TAR: "none",
    LAYER_GZIP: "gzip",
    _DOCKER_FOREIGN: "none",
    f"{_DOCKER_FOREIGN}.gzip": "gzip",
}
"""The compression of a layer that is a file system, by its media type. One of any other type is something else, an
attestation or a part of an artifact."""
_CONFIG_TYPES: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_MAGIC_BYTES: Final = 6
"""Enough to know every compression by."""


def diff_ids_of(manifest: Manifest, config: bytes) -> list[object] | None:
    """The `diff_ids` in the config of an image; None: it is no image's config, and says nothing of the layers.

    Artifacts use an image's media type for all kinds of configs, with `{}` or a nothing of every field in them.
    """
    described = manifest.info.config
    if described is None or described.media_type not in _CONFIG_TYPES or len(config) > MANIFEST_MAX_BYTES:
        return None
    try:
        fields = json.loads(config)
    except (ValueError, RecursionError):
        return None
    rootfs = fields.get("rootfs") if isinstance(fields, dict) else None
    if not isinstance(rootfs, dict):
        return None
    found = rootfs.get("diff_ids")
    if found is None and rootfs.get("type") == "layers":
        return []  # an empty list, as Go writes it
    return found if isinstance(found, list) else None


def check_rootfs(push: PushPlan) -> None:
    """Compares each image's manifest with its config, as far as that is at hand: nothing but configs is read.

    The number of layers has to be that of the `diff_ids`, and a layer that is a plain tar has to be the one of its
    place.

    Raises:
        ContentError: they don't belong together.
    """
    contents = {blob.descriptor.digest: blob.source for blob in push.blobs}
    for manifest, diff_ids in _images(push):
        layers = manifest.info.layers
        where = f"{manifest.descriptor.digest}"
        if len(layers) != len(diff_ids):
            raise ContentError(
                f"{where}: has {len(layers)} layers, but its config has {len(diff_ids)} diff_ids: the image is broken, "
                "make it again"
            )
        for number, (layer, diff_id) in enumerate(zip(layers, diff_ids, strict=True)):
            if TAR_TYPES.get(layer.media_type) != "none" or layer.digest == diff_id:
                continue
            by_another = _algorithm(diff_id) in DIGEST_ALGORITHMS - {layer.digest.algorithm}
            if by_another or _is_packed(contents.get(layer.digest), layer.size):
                continue  # only reading all of it will tell
            raise _unlike(where, number, diff_id, layer.digest, layer.digest in diff_ids)


def verify_layers(push: PushPlan) -> None:
    """Unpacks the layers that are at hand, each once, and compares them with the `diff_ids` of the configs.

    Raises:
        ContentError: a layer is not the one that the config names, is damaged, or can't be unpacked here.
    """
    contents = {blob.descriptor.digest: blob.source for blob in push.blobs}
    known: dict[tuple[Digest, str], Digest] = {}
    for manifest, diff_ids in _images(push):
        for number, (layer, diff_id) in enumerate(zip(manifest.info.layers, diff_ids, strict=True)):
            content, algorithm = contents.get(layer.digest), _algorithm(diff_id)
            if layer.media_type not in TAR_TYPES or not isinstance(content, Content):
                continue
            if algorithm not in DIGEST_ALGORITHMS:
                raise ContentError(f"{manifest.descriptor.digest}: {_shown(diff_id)} is not a digest")
            if (layer.digest, algorithm) not in known:
                known[layer.digest, algorithm] = _diff_id_of(content, layer, algorithm)
            found = known[layer.digest, algorithm]
            if found != diff_id:
                raise _unlike(f"{manifest.descriptor.digest}", number, diff_id, found, found in diff_ids)


def unpacked_digest(stream: BinaryIO, size: int, packed: str, algorithm: str) -> tuple[Digest, Digest]:
    """The digest of a stream's first `size` bytes unpacked, and (sha256) of these themselves.

    Args:
        stream: stands at their beginning.
        size: bytes.
        packed: `none`, `gzip` or `zstd`.
        algorithm: of the first digest.

    Raises:
        ContentError: they are damaged, or zstd is not installed.
        OSError: they can't be read, or are too few.
    """
    unpacker, plain, whole = Unpacker(packed), hashlib.new(algorithm), hashlib.sha256()
    left = size
    while left:
        piece = read_some(stream, min(left, HASHED_BYTES))
        if not piece:
            raise ContentChanged(f"ends {left} bytes too early")
        left -= len(piece)
        whole.update(piece)
        for part in unpacker.feed(piece):
            plain.update(part)
    unpacker.end()
    return Digest(f"{algorithm}:{plain.hexdigest()}"), Digest(f"sha256:{whole.hexdigest()}")


def compression_at(stream: BinaryIO, size: int) -> str:
    """How a stream's first `size` bytes look to be compressed: see `compression_of`. Raises `OSError`."""
    return compression_of(read_at_most(stream, min(size, _MAGIC_BYTES)))


def _images(push: PushPlan) -> Iterator[tuple[Manifest, list[object]]]:
    blobs = {blob.descriptor.digest: blob for blob in push.blobs}
    for manifest in push.manifests:
        blob = blobs.get(manifest.info.config.digest) if manifest.info.config is not None else None
        if blob is None or blob.descriptor.size > MANIFEST_MAX_BYTES:
            continue
        config = blob.descriptor.data
        if config is None and isinstance(blob.source, Content):
            with blob.source.open() as stream:
                config = read_at_most(stream, blob.descriptor.size)
        diff_ids = diff_ids_of(manifest, config) if config is not None else None
        if diff_ids is not None:
            yield manifest, diff_ids


def _is_packed(content: object, size: int) -> bool:
    """True if content is compressed, whatever its media type says: those who unpack it look at it too."""
    if not isinstance(content, Content):
        return False
    with content.open() as stream:
        return compression_at(stream, size) != "none"


def _diff_id_of(content: Content, layer: Descriptor, algorithm: str) -> Digest:
    try:
        with content.open() as stream:
            packed = compression_at(stream, layer.size)
        if packed not in ("none", "gzip", "zstd"):
            raise ContentError(f"is {packed}, which no image's layer can be")
        with content.open() as stream:
            found, _ = unpacked_digest(stream, layer.size, packed, algorithm)
            content.check(stream)
    except (OSError, ContentError) as error:
        words = error.strerror if isinstance(error, OSError) else None
        raise ContentError(f"{layer.digest}: {words or error}") from error
    return found


def _algorithm(diff_id: object) -> str:
    return diff_id.partition(":")[0] if isinstance(diff_id, str) else ""


def _shown(diff_id: object) -> str:
    return printable(str(diff_id), 150)


def _unlike(where: str, number: int, diff_id: object, found: Digest, elsewhere: bool) -> ContentError:
    why = "the layers are in another order than in the config" if elsewhere else "the image is broken"
    return ContentError(
        f"{where}: layer {number} is not the one that the config names: it should be {_shown(diff_id)}, and is {found}"
        f"; {why}, make it again"
    )
