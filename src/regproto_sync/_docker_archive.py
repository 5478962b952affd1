"""What `docker save` writes, as the source of a push: a tar of layers, configs and a manifest.json that names them.

It holds no manifest, so one is made, of Docker's schema 2: the same for the same archive. The config stays as it is,
byte for byte. Each layer is read once before anything is sent, for its digest, and to see that it is the one that
the config names; it is sent from where it stands in the archive, as it is there (in most archives a plain tar).

Newer archives hold an OCI layout beside that: those are read as the layout that they are.

Source: moby's image specification v1.2, "Combined Image JSON + Filesystem Changeset Format"; containers-image's
docker-archive(5).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

import attrs

from regproto._content import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    MANIFEST_MAX_BYTES,
    Descriptor,
    Digest,
    parse_json_object,
)
from regproto._errors import ContentError, InvalidReference, printable
from regproto._plan import Manifest
from regproto_sync._archive import GZIP_MAGIC, Archive
from regproto_sync._content import HASHED_BYTES, BytesContent, Content, ContentChanged, SliceContent
from regproto_sync._image import ImageSource, named
from regproto_sync._layout import listed_names, read_small, same_name

LAYER_TAR: Final = "application/vnd.docker.image.rootfs.diff.tar"
LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
LAYERS_MAX: Final = 1_000
"""Layers of one image: docker itself allows 127."""
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


def open_docker_archive(archive: Archive, name: str | None = None) -> DockerImage:
    """The image called `name` (`repository:tag`, or `@N` for the Nth, from 0), or the archive's only one.

    Reads all layers of it.

    Raises:
        ContentError: it is not such an archive, doesn't have that one image (then it lists the names there are), or
            something in it is missing, malformed or not what it has to be.
    """
    with named(archive.name):
        entry = _select(_entries(archive), name)
        config = _config(archive, entry.config)
        diff_ids = _diff_ids(parse_json_object(config, entry.config), entry.config)
        if len(diff_ids) != len(entry.layers):
            raise ContentError(
                f"manifest.json: names {len(entry.layers)} layers, but the config {printable(entry.config, 200)} has "
                f"{len(diff_ids)} diff_ids"
            )
        layers = tuple(_layer(archive, *pair) for pair in zip(entry.layers, diff_ids, strict=True))
        manifest = docker_manifest(config, [layer.descriptor for layer in layers])
        return DockerImage(name=archive.name, config=config, layers=layers, manifest=manifest)


# --- manifest.json --------------------------------------------------------------------------------------------


@attrs.frozen
class _Entry:
    config: str
    names: tuple[str, ...]
    layers: tuple[str, ...]


def _entries(archive: Archive) -> list[_Entry]:
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


def _entry(raw: object, where: str) -> _Entry:
    fields: dict[str, Any] = raw if isinstance(raw, dict) else {}
    config, names, layers = fields.get("Config"), fields.get("RepoTags") or [], fields.get("Layers") or []
    if not isinstance(config, str) or not _are_strings(names) or not _are_strings(layers):
        raise ContentError(f"{where}: must be an object with Config, RepoTags and Layers")
    if len(layers) > LAYERS_MAX:
        raise ContentError(f"{where}: has {len(layers)} layers, over {LAYERS_MAX}")
    return _Entry(config, tuple(names), tuple(layers))


def _are_strings(raw: object) -> bool:
    return isinstance(raw, list) and all(isinstance(each, str) for each in raw)


def _select(entries: Sequence[_Entry], name: str | None) -> _Entry:
    if not entries:
        raise ContentError("manifest.json: has no image, so there is nothing to push")
    chosen = list(entries)
    if name is not None and name[:1] == "@" and name[1:].isdecimal():
        chosen = chosen[int(name[1:]) :][:1] if len(name) < 10 else []
    elif name is not None:
        chosen = [entry for entry in entries if any(same_name(each, name) for each in entry.names)]
    if len({(entry.config, entry.layers) for entry in chosen}) == 1:
        return chosen[0]
    names = listed_names([each for entry in entries for each in entry.names])
    if chosen and name is None:
        raise ContentError(f"manifest.json: has {len(entries)} images; choose one as SOURCE:NAME, of: {names}")
    if chosen:
        raise ContentError(f"manifest.json: {len(chosen)} different images are named {printable(repr(name), 100)}")
    raise ContentError(f"manifest.json: no image is named {printable(repr(name), 100)}; there are: {names}")


# --- configs and layers ---------------------------------------------------------------------------------------


def _find(archive: Archive, path: str) -> SliceContent:
    if path.startswith("/") or ".." in path.split("/"):
        raise ContentError(f"manifest.json: {printable(path, 200)} leads out of the archive")
    found = archive.find(path)
    if found is None:
        raise ContentError(f"manifest.json: names {printable(path, 200)}, which is not in the archive")
    return found


def _config(archive: Archive, path: str) -> bytes:
    config = read_small(_find(archive, path), printable(path, 200))
    digest = Digest.of(config)
    told = path.rpartition("/")[2].removesuffix(".json").removeprefix("sha256:")
    if _HEX.fullmatch(told) and told != digest.hex:
        raise ContentError(f"{path}: the config does not match its digest (it is {digest}): the archive is damaged")
    return config


def _diff_ids(config: dict[str, Any], where: str) -> list[Digest]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    try:
        if not _are_strings(found or []):
            raise InvalidReference("they must be a list of digests")
        return [Digest(each) for each in found or []]
    except InvalidReference as error:
        raise ContentError(f"{printable(where, 200)}: rootfs.diff_ids: {error}") from None


def _layer(archive: Archive, path: str, diff_id: Digest) -> Layer:
    """The layer at this path, which is read and compared with what the config says of it."""
    found, shown = _find(archive, path), printable(path, 200)
    try:
        with found.open() as stream:
            is_gzip = stream.read(2) == GZIP_MAGIC and found.size > 2
        with found.open() as stream:
            whole = _Bounded(stream, found.size)
            plain = hashlib.new(diff_id.algorithm)
            # Not `peekable`: the one stream is read once, and hashed as it is on the way.
            reader: Any = gzip.GzipFile(fileobj=whole) if is_gzip else whole
            while piece := reader.read(HASHED_BYTES):
                plain.update(piece)
            whole.drain()
            found.check(stream)
    except (OSError, EOFError, zlib.error) as error:
        words = error.strerror if isinstance(error, OSError) else None
        raise ContentError(f"{shown}: {words or printable(str(error), 200)}") from error
    is_diff = Digest(f"{diff_id.algorithm}:{plain.hexdigest()}")
    if is_diff != diff_id:
        raise ContentError(
            f"{shown}: the layer is not the one that the config names: it should be {diff_id}, and is {is_diff}"
            "; the archive is damaged, make it again"
        )
    descriptor = Descriptor(
        media_type=LAYER_GZIP if is_gzip else LAYER_TAR,
        digest=Digest(f"sha256:{whole.hashed.hexdigest()}"),
        size=found.size,
    )
    return Layer(descriptor=descriptor, diff_id=diff_id, content=found)


class _Bounded(io.RawIOBase):
    """A stream's first `size` bytes, hashed as they are read."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.hashed = hashlib.sha256()
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises `ContentChanged` if there are too few."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._stream.read(wanted) if wanted else b""
        if wanted and not data:
            raise ContentChanged(f"ends {self._left} bytes too early")
        self._left -= len(data)
        self.hashed.update(data)
        return data

    def drain(self) -> None:
        """Reads what is left."""
        while self.read(HASHED_BYTES):
            pass
