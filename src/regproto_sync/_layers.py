"""Layers that are made while they are pushed, and the images of them.

A layer is a plain tar, which is compressed on its way. Its digest is known at its end, and so are the config and the
manifest that name it; unless it is spooled: then it is made first, into a private temporary file, and is content like
any other, which can be looked for, mounted, and sent again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from regproto import (
    Blob,
    Content,
    ContentError,
    Descriptor,
    Digest,
    LocalProtocolError,
    Manifest,
    NeedContent,
    Push,
    StreamBlob,
)
from regproto._content import OCI_CONFIG, OCI_MANIFEST, check_media_type
from regproto._errors import printable
from regproto_sync._compress import check_compression
from regproto_sync._content import BytesContent
from regproto_sync._docker_archive import LAYER_GZIP, LAYER_TAR, DockerImage, docker_manifest
from regproto_sync._docker_archive import Layer as DockerLayer
from regproto_sync._notation import STANDARD_INPUT, SourceNotFound
from regproto_sync._spool import spool
from regproto_sync._stream import Made, Source, StreamContent

OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
MEDIA_TYPES: Final = {"none": OCI_LAYER, "gzip": f"{OCI_LAYER}+gzip", "zstd": f"{OCI_LAYER}+zstd"}
DEFAULT_CONFIG: Final[Mapping[str, Any]] = {"architecture": "amd64", "os": "linux"}
"""What an image's config has to say at least."""


@attrs.frozen(kw_only=True)
class Layer:
    """A layer that is made while it is pushed; `Layer.stream` makes one."""

    name: str
    """What errors call it."""
    open_source: Callable[[], Source] = attrs.field(repr=False)
    compression: str = "gzip"
    level: int | None = None
    media_type: str = attrs.field()

    @media_type.default
    def _default_media_type(self) -> str:
        return MEDIA_TYPES.get(self.compression, OCI_LAYER)

    def __attrs_post_init__(self) -> None:
        check_compression(self.compression, self.level)
        check_media_type(self.media_type, self.name)

    @classmethod
    def stream(
        cls,
        file: str | os.PathLike[str] | BinaryIO,
        *,
        compression: str = "gzip",
        level: int | None = None,
        media_type: str = "",
    ) -> Layer:
        """A layer from a plain tar.

        Args:
            file: its path, `-` for standard input, or something open to be read, which is closed at the end.
            compression: `gzip`, `zstd` or `none`.
            level: of the compression; None: its usual one. The same input makes the same bytes.
            media_type: by default that of an OCI layer of this compression.

        Raises:
            SourceNotFound: there is no such file.
            ContentError: the media type is none.
            LocalProtocolError: there is no such compression or level.
        """
        if isinstance(file, str | os.PathLike):
            name, open_source = _opener(file)
        else:
            given: Source = file
            name, open_source = printable(str(getattr(file, "name", "the layer")), 200), lambda: given
        chosen = {"media_type": media_type} if media_type else {}
        return cls(name=name, open_source=open_source, compression=compression, level=level, **chosen)

    def content(self) -> StreamContent:
        """What is sent of it, once."""
        return StreamContent(self.open_source, self.compression, self.level)

    def spooled(self) -> DockerLayer:
        """It made, in a temporary file. Raises `ContentError`."""

        def write(file: BinaryIO) -> Made:
            with contextlib.closing(self.open_source()) as source:
                made = Made(source, self.compression, self.level)
                for piece in made:
                    file.write(piece)
            return made

        try:
            content, made = spool(write)
        except (OSError, ContentError) as error:
            words = error.strerror if isinstance(error, OSError) else None
            raise ContentError(f"{self.name}: {words or error}") from error
        descriptor = Descriptor(media_type=self.media_type, digest=made.digest, size=made.size)
        return DockerLayer(descriptor=descriptor, diff_id=made.diff_id, content=content)


def _opener(file: str | os.PathLike[str]) -> tuple[str, Callable[[], Source]]:
    if file == STANDARD_INPUT:
        # Not Python's own reader of it: that one is locked while it waits, which a program's end does not survive.
        return "standard input", lambda: io.FileIO(os.dup(sys.stdin.fileno()))
    path = Path(file)
    try:
        found = path.exists()
    except (OSError, ValueError):
        found = False
    if not found:
        raise SourceNotFound(f"{printable(os.fspath(file))}: no such file or directory")
    return printable(str(path), 200), lambda: io.FileIO(path)


# --- images ---------------------------------------------------------------------------------------------------


def image_config(config: Mapping[str, Any], diff_ids: Sequence[Digest]) -> bytes:
    """An image's config with these layers; the same arguments make the same bytes."""
    fields = {**DEFAULT_CONFIG, **config, "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}
    try:
        return json.dumps(fields, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ContentError(f"the image's config can't be JSON: {error}") from None


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


@attrs.frozen(kw_only=True)
class ImageDraft:
    """An image some of whose layers are streams."""

    config: Mapping[str, Any] | bytes
    """Bytes: kept as they are; they name the layers already."""
    layers: tuple[StreamContent | DockerLayer, ...]
    docker: bool = False
    """A manifest of Docker's schema 2."""

    def make(self, need: NeedContent) -> Content:
        """Config and manifest, once the streams are there. Raises `ContentError`."""
        streamed = iter(need.streams)
        layers = [
            next(streamed).descriptor if isinstance(layer, StreamContent) else layer.descriptor for layer in self.layers
        ]
        config = self._config()
        made = docker_manifest(config, layers) if self.docker else image_manifest(config, layers)
        described = made.info.config
        assert described is not None
        blob = Blob(descriptor=described, source=BytesContent(config))
        return Content(id=need.id, root=made.descriptor.digest, manifests=(made,), blobs=(blob,))

    def _config(self) -> bytes:
        found = [layer.diff_id for layer in self.layers]
        if not isinstance(self.config, bytes):
            return image_config(self.config, found)
        told = json.loads(self.config)["rootfs"]["diff_ids"]
        for number, (is_now, was) in enumerate(zip(found, told, strict=True)):
            if is_now != was:
                raise ContentError(f"layer {number} has changed since it was read: it was {was}, and is {is_now}")
        return self.config


def image_push(
    config: Mapping[str, Any], layers: Sequence[Layer], repository: str, tags: Sequence[str], spooled: bool
) -> Push:
    """The plan of an image of these layers, the lowest first. Raises `ContentError`."""
    if spooled or not layers:
        return _push_of(config, [layer.spooled() for layer in layers], repository, tags)
    contents = tuple(layer.content() for layer in layers)
    draft = ImageDraft(config=config, layers=contents)
    return Push(repository=repository, streams=_streams(layers, contents), draft=draft, tags=tags)


def _streams(layers: Sequence[Layer], contents: Sequence[StreamContent]) -> list[StreamBlob]:
    return [
        StreamBlob(key=f"layer-{number}", media_type=layer.media_type, source=content)
        for number, (layer, content) in enumerate(zip(layers, contents, strict=True))
    ]


def _push_of(config: Mapping[str, Any], layers: Sequence[DockerLayer], repository: str, tags: Sequence[str]) -> Push:
    content = image_config(config, [layer.diff_id for layer in layers])
    made = image_manifest(content, [layer.descriptor for layer in layers])
    assert made.info.config is not None
    blobs = {layer.descriptor.digest: Blob(descriptor=layer.descriptor, source=layer.content) for layer in layers}
    root = made.descriptor.digest
    blobs[made.info.config.digest] = Blob(descriptor=made.info.config, source=BytesContent(content))
    return Push(repository=repository, blobs=blobs.values(), manifests=[made], root=root, tags=tags)


@attrs.frozen
class Compression:
    """How the layers of a source are to be compressed."""

    name: str
    level: int | None
    spool: bool

    @classmethod
    def of(cls, name: str | None, level: int | None, spool: bool) -> Compression | None:
        """What `push` was told; None: nothing.

        Raises:
            LocalProtocolError: there is no such compression or level, or there is nothing that it could be about.
        """
        if name is None:
            if level is not None or spool:
                raise LocalProtocolError("a level, or a spool, is of a compression: choose one")
            return None
        check_compression(name, level)
        return cls(name, level, spool)


# --- docker archives ------------------------------------------------------------------------------------------


def _compressing(layer: DockerLayer, number: int, how: Compression) -> Layer | DockerLayer:
    """A layer of an archive, to be compressed if it is a plain tar."""
    if layer.descriptor.media_type != LAYER_TAR or how.name == "none":
        return layer

    def open_source() -> Source:
        return _First(layer.open(), layer.descriptor.size)

    media_type = LAYER_GZIP if how.name == "gzip" else MEDIA_TYPES[how.name]
    return Layer(
        name=f"layer {number}", open_source=open_source, compression=how.name, level=how.level, media_type=media_type
    )


class _First:
    """The first bytes of a stream, which must not end before."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left))
        if not data and self._left:
            raise ContentError(f"ends {self._left} bytes too early")
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._stream.close()


def compressed(image: DockerImage, how: Compression) -> DockerImage:
    """The image with its plain layers compressed into temporary files. Raises `ContentError`."""
    made = [_compressing(layer, number, how) for number, layer in enumerate(image.layers)]
    layers = tuple(layer.spooled() if isinstance(layer, Layer) else layer for layer in made)
    descriptors = [layer.descriptor for layer in layers]
    docker = how.name != "zstd"
    manifest = docker_manifest(image.config, descriptors) if docker else image_manifest(image.config, descriptors)
    return attrs.evolve(image, layers=layers, manifest=manifest)


def compressing_push(image: DockerImage, how: Compression, repository: str, tags: Sequence[str]) -> Push:
    """The plan of the image with its plain layers compressed on their way.

    For zstd, which Docker's schema 2 has no media type for, the manifest is an OCI one.
    """
    made = [_compressing(layer, number, how) for number, layer in enumerate(image.layers)]
    parts = tuple(layer.content() if isinstance(layer, Layer) else layer for layer in made)
    streams = [
        StreamBlob(key=f"layer-{number}", media_type=layer.media_type, source=content)
        for number, (layer, content) in enumerate(zip(made, parts, strict=True))
        if isinstance(layer, Layer)
    ]
    if not streams:
        return image.plan(repository, tags=tags)
    whole = {p.descriptor.digest: Blob(descriptor=p.descriptor, source=p) for p in parts if isinstance(p, DockerLayer)}
    draft = ImageDraft(config=image.config, layers=parts, docker=how.name != "zstd")
    return Push(repository=repository, streams=streams, draft=draft, blobs=whole.values(), tags=tags)
