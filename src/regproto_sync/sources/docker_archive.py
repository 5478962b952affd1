"""The archive that `docker save` writes, as a source: a tar of layers, configs and a manifest.json that names them.

It holds no manifest, so one is made, of Docker's schema 2: the same for the same archive. The config stays as it is,
byte for byte. Each layer is read once before anything is sent, for its digest, and to see that it is the one that
the config names; it is sent from where it stands in the archive, as it is there (in most archives a plain tar).
Where one is compressed with zstd, the manifest is an OCI one.

Newer archives hold an OCI layout beside that: see `_docker_layout`.

Source: moby's image specification v1.2, "Combined Image JSON + Filesystem Changeset Format"; containers-image's
docker-archive(5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

import attrs

from regproto._model.digest import Digest
from regproto._model.errors import ContentError, InvalidReferenceError, printable
from regproto._model.manifest import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    MANIFEST_MAX_BYTES,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    parse_json_object,
)
from regproto._model.plan import Manifest
from regproto_sync.sources.archive import Archive
from regproto_sync.sources.content import BytesContent, Content, SliceContent
from regproto_sync.sources.image import ImageSource, named
from regproto_sync.sources.layout import listed_names, read_small, same_name
from regproto_sync.sources.rootfs import LAYER_GZIP, LAYER_TAR, OCI_LAYER, TAR_TYPES, compression_at, unpacked_digest

LAYERS_MAX: Final = 1_000
"""Layers of one image: docker itself allows 127."""
_MEDIA_TYPES: Final = {"none": LAYER_TAR, "gzip": LAYER_GZIP, "zstd": f"{OCI_LAYER}+zstd"}
_HEX: Final = re.compile("[0-9a-f]{64}")


@attrs.frozen(kw_only=True)
class Layer:
    """A layer of which is known what it is unpacked. A `ContentSource`."""

    descriptor: Descriptor
    """As it is in the archive: the media type says whether it is compressed."""
    diff_id: Digest
    """The digest of the plain tar, as the config names it."""
    content: Content = attrs.field(repr=False)

    def describe(self) -> Descriptor:
        """Its media type, digest and size."""
        return self.descriptor

    def open(self, offset: int = 0) -> BinaryIO:
        """Its bytes from `offset` on; they may be followed by others."""
        return self.content.open(offset)

    def check(self, stream: BinaryIO) -> None:
        """Raises `ContentChanged` if the archive has changed."""
        self.content.check(stream)


@attrs.frozen(kw_only=True)
class DockerImage(ImageSource):
    """One image of a docker-save archive."""

    name: str
    config: bytes = attrs.field(repr=False)
    layers: tuple[Layer, ...]
    manifest: Manifest = attrs.field(repr=False)

    @property
    def root(self) -> Descriptor:
        return self.manifest.descriptor

    def read_manifest(self, descriptor: Descriptor) -> bytes | None:
        return self.manifest.content if descriptor.digest == self.root.digest else None

    def find_content(self, descriptor: Descriptor) -> Content | None:
        if descriptor.digest == Digest.of(self.config):
            return BytesContent(self.config)
        return next((layer for layer in self.layers if layer.descriptor.digest == descriptor.digest), None)


def docker_manifest(config: bytes, layers: Sequence[Descriptor]) -> Manifest:
    """The manifest of an image with this config and these layers; the same arguments make the same bytes."""
    described = Descriptor(media_type=DOCKER_CONFIG, digest=Digest.of(config), size=len(config))
    fields = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": described.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return Manifest.of(json.dumps(fields, separators=(",", ":")).encode())


def image_manifest(config: bytes, layers: Sequence[Descriptor]) -> Manifest:
    """The OCI manifest of an image; the same arguments make the same bytes."""
    described = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config), size=len(config))
    fields = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return Manifest.of(json.dumps(fields, separators=(",", ":")).encode())


def saved_manifest(config: bytes, layers: Sequence[Descriptor]) -> Manifest:
    """The manifest of an image that docker saved: of Docker's schema 2, which has no media type for zstd; where a layer
    is that, an OCI manifest, and then all its media types are OCI's."""
    if all(TAR_TYPES.get(layer.media_type) != "zstd" for layer in layers):
        return docker_manifest(config, layers)
    types = {LAYER_TAR: OCI_LAYER, LAYER_GZIP: f"{OCI_LAYER}+gzip"}
    return image_manifest(config, [attrs.evolve(d, media_type=types.get(d.media_type, d.media_type)) for d in layers])


def open_docker_archive(archive: Archive, name: str | None = None) -> DockerImage:
    """The image called `name` (`repository:tag`, or `@N` for the Nth, from 0), or the archive's only one.

    Reads all layers of it.

    Raises:
        ContentError: it is not such an archive, doesn't have that one image (then it lists the names there are), or
            something in it is missing, malformed or not what it has to be.
    """
    with named(archive.name):
        return open_saved(archive, _select(saved_images(archive), name))


def open_saved(archive: Archive, image: SavedImage) -> DockerImage:
    """One of the images that manifest.json lists. Reads all layers of it. Raises `ContentError`."""
    config = _config(archive, image.config)
    diff_ids = _diff_ids(parse_json_object(config, image.config), image.config)
    if len(diff_ids) != len(image.layers):
        raise ContentError(
            f"manifest.json: names {len(image.layers)} layers, but the config {printable(image.config, 200)} has "
            f"{len(diff_ids)} diff_ids"
        )
    layers = tuple(_layer(archive, *pair) for pair in zip(image.layers, diff_ids, strict=True))
    manifest = saved_manifest(config, [layer.descriptor for layer in layers])
    return DockerImage(name=archive.name, config=config, layers=layers, manifest=manifest)


# --- manifest.json --------------------------------------------------------------------------------------------


@attrs.frozen
class SavedImage:
    """One image's entry in manifest.json."""

    config: str
    """Its path in the archive, as those of the layers."""
    names: tuple[str, ...]
    layers: tuple[str, ...]


def saved_images(archive: Archive) -> list[SavedImage]:
    """The images that manifest.json lists, in its order. Raises `ContentError`."""
    found = archive.find("manifest.json")
    if found is None:
        raise ContentError("manifest.json: is missing, so this is not what docker save writes")
    content = read_small(found, "manifest.json")
    if len(content) > MANIFEST_MAX_BYTES:
        raise ContentError(f"manifest.json: has over {MANIFEST_MAX_BYTES} bytes")
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        raise ContentError("manifest.json: is not JSON") from None
    if not isinstance(raw, list):
        raise ContentError("manifest.json: must be a list")
    return [_entry(each, f"manifest.json: [{n}]") for n, each in enumerate(raw)]


def _entry(raw: object, where: str) -> SavedImage:
    fields: dict[str, Any] = raw if isinstance(raw, dict) else {}
    config, names, layers = fields.get("Config"), fields.get("RepoTags") or [], fields.get("Layers") or []
    if not isinstance(config, str) or not _are_strings(names) or not _are_strings(layers):
        raise ContentError(f"{where}: must be an object with Config, RepoTags and Layers")
    if len(layers) > LAYERS_MAX:
        raise ContentError(f"{where}: has {len(layers)} layers, over {LAYERS_MAX}")
    return SavedImage(config, tuple(names), tuple(layers))


def _are_strings(raw: object) -> bool:
    return isinstance(raw, list) and all(isinstance(each, str) for each in raw)


def number_of(name: str) -> int | None:
    """N of a name `@N`; None: it is none. Of one with more digits than there are images the first."""
    if name[:1] != "@" or not (name[1:].isascii() and name[1:].isdecimal()):
        return None
    return int(name[1:10])


def _select(entries: Sequence[SavedImage], name: str | None) -> SavedImage:
    if not entries:
        raise ContentError("manifest.json: has no image, so there is nothing to push")
    chosen = list(entries)
    number = number_of(name) if name is not None else None
    if number is not None:
        chosen = chosen[number:][:1]
    elif name is not None:
        chosen = [entry for entry in entries if any(same_name(each, name) for each in entry.names)]
    if len({(entry.config, entry.layers) for entry in chosen}) == 1:
        return chosen[0]
    names = listed_names([each for entry in entries for each in entry.names])
    if chosen and name is None:
        raise ContentError(
            f"manifest.json: has {len(entries)} images; choose one as SOURCE:NAME or SOURCE:@N (from 0), of: {names}"
        )
    if chosen:
        raise ContentError(f"manifest.json: {len(chosen)} different images are named {printable(repr(name), 100)}")
    raise ContentError(f"manifest.json: no image is named {printable(repr(name), 100)}; there are: {names}")


# --- configs and layers ---------------------------------------------------------------------------------------


def find_saved(archive: Archive, path: str) -> SliceContent:
    """The content at a path that manifest.json names. Raises `ContentError`."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ContentError(f"manifest.json: {printable(path, 200)} leads out of the archive")
    found = archive.find(path)
    if found is None:
        raise ContentError(f"manifest.json: names {printable(path, 200)}, which is not in the archive")
    return found


def _config(archive: Archive, path: str) -> bytes:
    config = read_small(find_saved(archive, path), printable(path, 200))
    digest = Digest.of(config)
    stated = path.rpartition("/")[2].removesuffix(".json").removeprefix("sha256:")
    if _HEX.fullmatch(stated) and stated != digest.hex:
        raise ContentError(f"{path}: the config does not match its digest (it is {digest}): the archive is damaged")
    return config


def _diff_ids(config: dict[str, Any], where: str) -> list[Digest]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    try:
        if not _are_strings(found or []):
            raise InvalidReferenceError("they must be a list of digests")
        return [Digest(each) for each in found or []]
    except InvalidReferenceError as error:
        raise ContentError(f"{printable(where, 200)}: rootfs.diff_ids: {error}") from None


def _layer(archive: Archive, path: str, diff_id: Digest) -> Layer:
    """The layer at this path, which is read and compared with what the config says of it."""
    found, shown = find_saved(archive, path), printable(path, 200)
    try:
        with found.open() as stream:
            packed = compression_at(stream, found.size)
        with found.open() as stream:
            is_diff, digest = unpacked_digest(
                stream, found.size, packed if packed in _MEDIA_TYPES else "none", diff_id.algorithm
            )
            found.check(stream)
    except (OSError, ContentError) as error:
        words = error.strerror if isinstance(error, OSError) else None
        raise ContentError(f"{shown}: {words or printable(str(error), 200)}") from error
    if is_diff != diff_id:
        if packed not in _MEDIA_TYPES:
            raise ContentError(f"{shown}: is {packed}, which no image's layer can be")
        raise ContentError(
            f"{shown}: the layer is not the one that the config names: it should be {diff_id}, and is {is_diff}"
            "; the archive is damaged, make it again"
        )
    descriptor = Descriptor(media_type=_MEDIA_TYPES.get(packed, LAYER_TAR), digest=digest, size=found.size)
    return Layer(descriptor=descriptor, diff_id=diff_id, content=found)
