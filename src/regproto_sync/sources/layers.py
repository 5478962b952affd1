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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from regproto import (
    Blob,
    ContentError,
    Descriptor,
    Digest,
    LocalProtocolError,
    Manifests,
    NeedManifests,
    PushPlan,
    StreamBlob,
)
from regproto._model.errors import printable
from regproto._model.manifest import check_media_type
from regproto_sync.sources.compress import check_compression
from regproto_sync.sources.content import BytesContent
from regproto_sync.sources.docker_archive import DockerImage, image_manifest, saved_manifest
from regproto_sync.sources.docker_archive import Layer as DockerLayer
from regproto_sync.sources.notation import STANDARD_INPUT, SourceNotFound
from regproto_sync.sources.reading import Source, read_some
from regproto_sync.sources.rootfs import LAYER_GZIP, LAYER_TAR, OCI_LAYER, TAR_TYPES
from regproto_sync.sources.spool import spool
from regproto_sync.sources.stream import NOT_EMPTY, CompressedStream, StreamContent, look_at

MEDIA_TYPES: Final = {"none": OCI_LAYER, "gzip": f"{OCI_LAYER}+gzip", "zstd": f"{OCI_LAYER}+zstd"}
DEFAULT_CONFIG: Final[Mapping[str, Any]] = {"architecture": "amd64", "os": "linux"}
"""Fields that an image's config has to have."""


@attrs.frozen(kw_only=True)
class Layer:
    """A layer that is made while it is pushed; `Layer.stream` makes one.

    With the media type of a layer it has to be a tar, and all of it; with another it may be anything but empty.
    """

    name: str
    """Its name in errors."""
    open_source: Callable[[], Source] = attrs.field(repr=False)
    compression: str = "gzip"
    level: int | None = None
    media_type: str = attrs.field()
    is_file: bool = False
    """`open_source` may be called more than once, and reading does not wait."""

    @media_type.default
    def _default_media_type(self) -> str:
        return MEDIA_TYPES.get(self.compression, OCI_LAYER)

    def __attrs_post_init__(self) -> None:
        check_compression(self.compression, self.level)
        check_media_type(self.media_type, self.name)
        if self.compression not in ("none", TAR_TYPES.get(self.media_type, self.compression)):
            raise ContentError(f"{self.name}: {self.media_type} is not what {self.compression} makes")

    @property
    def packed(self) -> str:
        """The compression that the tar which it is made of has to have, or `NOT_EMPTY`."""
        how = TAR_TYPES.get(self.media_type, NOT_EMPTY)
        return how if how == NOT_EMPTY or self.compression == "none" else "none"

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
            file: its path, `-` for standard input, or something open to be read, which is closed at the end. If it does
                not block, it is waited for where it has nothing yet.
            compression: `gzip`, `zstd` or `none`.
            level: of the compression; None: its usual one. The same input makes the same bytes.
            media_type: by default that of an OCI layer of this compression. One that says "compressed" goes with the
                compression that makes it, or with `none` and a tar compressed so already.

        Raises:
            SourceNotFound: there is no such file.
            ContentError: the media type is none, or of another compression.
            LocalProtocolError: there is no such compression or level.
        """
        if isinstance(file, str | os.PathLike):
            name, open_source, is_file = _opener(file)
        else:
            given: Source = file
            is_file = False
            name, open_source = printable(str(getattr(file, "name", "the layer")), 200), lambda: given
        chosen = {"media_type": media_type} if media_type else {}
        return cls(name=name, open_source=open_source, compression=compression, level=level, is_file=is_file, **chosen)

    def content(self) -> StreamContent:
        """Its content, which can be sent once. Raises `ContentError` if it is a file with another beginning."""
        content = StreamContent(self.open_source, self.compression, self.level, packed=self.packed)
        if self.packed != NOT_EMPTY and self.is_file:
            with self._named(), contextlib.closing(self.open_source()) as source:
                look_at(source, self.packed)
            content.looked = True
        return content

    def spooled(self) -> DockerLayer:
        """It made, in a temporary file. Raises `ContentError`."""

        def write(file: BinaryIO) -> CompressedStream:
            with contextlib.closing(self.open_source()) as source:
                stream = CompressedStream(source, self.compression, self.level, packed=self.packed)
                for piece in stream:
                    file.write(piece)
            return stream

        with self._named():
            content, stream = spool(write)
        descriptor = Descriptor(media_type=self.media_type, digest=stream.digest, size=stream.size)
        return DockerLayer(descriptor=descriptor, diff_id=stream.diff_id, content=content)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors inside say what is wrong; this says with what."""
        try:
            yield
        except (OSError, ContentError) as error:
            words = error.strerror if isinstance(error, OSError) else None
            raise ContentError(f"{self.name}: {words or error}") from error


def _opener(file: str | os.PathLike[str]) -> tuple[str, Callable[[], Source], bool]:
    """A file's name for errors, how to open it, and whether that may be done more than once."""
    if file == STANDARD_INPUT:
        return "standard input", _open_standard_input, False
    path = Path(file)
    try:
        found = path.exists()
    except (OSError, ValueError):
        found = False
    if not found:
        raise SourceNotFound(f"{printable(os.fspath(file))}: no such file or directory")
    return printable(str(path), 200), lambda: io.FileIO(path), path.is_file()


def _open_standard_input() -> Source:
    if sys.stdin is None:
        raise ContentError("is closed")
    # Not Python's own reader of it: that one is locked while it waits, which a program's end does not survive.
    return io.FileIO(os.dup(sys.stdin.fileno()))


# --- images ---------------------------------------------------------------------------------------------------


def image_config(config: Mapping[str, Any], diff_ids: Sequence[Digest]) -> bytes:
    """An image's config with these layers; the same arguments make the same bytes."""
    fields = {**DEFAULT_CONFIG, **config, "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}
    try:
        return json.dumps(fields, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ContentError(f"the image's config can't be JSON: {error}") from None


@attrs.frozen(kw_only=True)
class ImageDraft:
    """An image some of whose layers are streams."""

    config: Mapping[str, Any] | bytes
    """Bytes: kept as they are; they name the layers already."""
    layers: tuple[StreamContent | DockerLayer, ...]
    docker: bool = False
    """The manifest is as `saved_manifest` makes it, else an OCI one."""

    def make(self, need: NeedManifests) -> Manifests:
        """Config and manifest, once the streams are there. Raises `ContentError`."""
        streamed = iter(need.streams)
        layers = [
            next(streamed).descriptor if isinstance(layer, StreamContent) else layer.descriptor for layer in self.layers
        ]
        config = self._config()
        manifest = saved_manifest(config, layers) if self.docker else image_manifest(config, layers)
        described = manifest.info.config
        assert described is not None
        blob = Blob(descriptor=described, source=BytesContent(config))
        return Manifests(id=need.id, root=manifest.descriptor.digest, manifests=(manifest,), blobs=(blob,))

    def _config(self) -> bytes:
        found = [layer.diff_id for layer in self.layers]
        if not isinstance(self.config, bytes):
            return image_config(self.config, found)
        check_unchanged(json.loads(self.config)["rootfs"]["diff_ids"], found)
        return self.config


def check_unchanged(diff_ids: Sequence[str], found: Sequence[Digest]) -> None:
    """Raises `ContentError` if the layers that were made are not those of a config."""
    for number, (was, is_now) in enumerate(zip(diff_ids, found, strict=True)):
        if is_now != was:
            raise ContentError(f"layer {number} has changed since it was read: it was {was}, and is {is_now}")


def image_push(
    config: Mapping[str, Any], layers: Sequence[Layer], repository: str, tags: Sequence[str], spooled: bool
) -> PushPlan:
    """The plan of an image of these layers, the lowest first. Raises `ContentError`."""
    if spooled or not layers:
        return _push_of(config, [layer.spooled() for layer in layers], repository, tags)
    contents = tuple(layer.content() for layer in layers)
    draft = ImageDraft(config=config, layers=contents)
    return PushPlan(repository=repository, streams=_streams(layers, contents), draft=draft, tags=tags)


def _streams(layers: Sequence[Layer], contents: Sequence[StreamContent]) -> list[StreamBlob]:
    return [
        StreamBlob(key=f"layer-{number}", media_type=layer.media_type, source=content)
        for number, (layer, content) in enumerate(zip(layers, contents, strict=True))
    ]


def _push_of(
    config: Mapping[str, Any], layers: Sequence[DockerLayer], repository: str, tags: Sequence[str]
) -> PushPlan:
    content = image_config(config, [layer.diff_id for layer in layers])
    manifest = image_manifest(content, [layer.descriptor for layer in layers])
    assert manifest.info.config is not None
    blobs = {layer.descriptor.digest: Blob(descriptor=layer.descriptor, source=layer.content) for layer in layers}
    root = manifest.descriptor.digest
    blobs[manifest.info.config.digest] = Blob(descriptor=manifest.info.config, source=BytesContent(content))
    return PushPlan(repository=repository, blobs=blobs.values(), manifests=[manifest], root=root, tags=tags)


@attrs.frozen
class Compression:
    """How the layers of a source are to be compressed."""

    name: str
    level: int | None
    spool: bool

    @classmethod
    def of(cls, name: str | None, level: int | None, spool: bool) -> Compression | None:
        """The compression that `push` was given; None: none.

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
        data = read_some(self._stream, min(size, self._left)) if self._left else b""
        if not data and self._left:
            raise ContentError(f"ends {self._left} bytes too early")
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._stream.close()


def compressed(image: DockerImage, how: Compression) -> DockerImage:
    """The image with its plain layers compressed into temporary files. Raises `ContentError`."""
    compressing = [_compressing(layer, number, how) for number, layer in enumerate(image.layers)]
    layers = tuple(layer.spooled() if isinstance(layer, Layer) else layer for layer in compressing)
    check_unchanged([layer.diff_id for layer in image.layers], [layer.diff_id for layer in layers])
    manifest = saved_manifest(image.config, [layer.descriptor for layer in layers])
    return attrs.evolve(image, layers=layers, manifest=manifest)


def compressing_push(image: DockerImage, how: Compression, repository: str, tags: Sequence[str]) -> PushPlan:
    """The plan of the image with its plain layers compressed on their way."""
    compressing = [_compressing(layer, number, how) for number, layer in enumerate(image.layers)]
    parts = tuple(layer.content() if isinstance(layer, Layer) else layer for layer in compressing)
    streams = [
        StreamBlob(key=f"layer-{number}", media_type=layer.media_type, source=content)
        for number, (layer, content) in enumerate(zip(compressing, parts, strict=True))
        if isinstance(layer, Layer)
    ]
    if not streams:
        return image.plan(repository, tags=tags)
    whole = {p.descriptor.digest: Blob(descriptor=p.descriptor, source=p) for p in parts if isinstance(p, DockerLayer)}
    draft = ImageDraft(config=image.config, layers=parts, docker=True)
    return PushPlan(repository=repository, streams=streams, draft=draft, blobs=whole.values(), tags=tags)
