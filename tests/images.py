"""Images to push, built as OCI layout directories. The same arguments make the same bytes, on every machine."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regproto._model.digest import Digest
from regproto._model.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
REF_NAME = "org.opencontainers.image.ref.name"
PLATFORMS = ("amd64", "arm64", "ppc64le", "s390x")

_STORED_MAX = 65_535
_GZIP_FRAME = 18
_TAR_MIN = 512 + 1024

Json = dict[str, Any]


def layer(seed: int, size: int) -> bytes:
    """A gzipped tar of exactly `size` bytes, holding one file that does not compress.

    The deflate blocks are stored ones made by hand: what zlib makes differs between its versions. Below some 1.6 kB,
    where no tar fits, the layer is `size` bytes of noise.
    """
    noise = random.Random(seed)
    tar_size = (size - _GZIP_FRAME) // 512 * 512
    while tar_size >= _TAR_MIN and _GZIP_FRAME + _stored_size(tar_size) > size:
        tar_size -= 512
    if tar_size < _TAR_MIN:
        return noise.randbytes(size)
    tar = _tar(f"layer-{seed}", noise.randbytes(tar_size - _TAR_MIN))
    blocks = [tar[at : at + _STORED_MAX] for at in range(0, len(tar), _STORED_MAX)]
    padding = size - _GZIP_FRAME - _stored_size(tar_size)
    # The header's file name takes up what is left: any length, ended by a zero byte.
    head = struct.pack("<4BI2B", 0x1F, 0x8B, 8, 8 if padding else 0, 0, 0, 255)
    name = b"x" * (padding - 1) + b"\0" if padding else b""
    body = b"".join(
        struct.pack("<B2H", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    return head + name + body + struct.pack("<2I", zlib.crc32(tar), len(tar))


def _stored_size(tar_size: int) -> int:
    return tar_size + 5 * -(-tar_size // _STORED_MAX)


def _tar(name: str, content: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(1024)


def diff_id(content: bytes) -> Digest:
    """The digest of a layer's content before compression, as an image's config has it."""
    try:
        return Digest.of(zlib.decompress(content, 31))
    except zlib.error:
        return Digest.of(content)


class LayoutBuilder:
    """Writes an OCI layout bit by bit; every method returns the JSON descriptor of what it wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Json] = []
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, content: bytes, media_type: str) -> Json:
        digest = Digest.of(content)
        (self.path / "blobs" / digest.algorithm / digest.hex).write_bytes(content)
        return {"mediaType": media_type, "digest": str(digest), "size": len(content)}

    def json(self, content: Mapping[str, Any], media_type: str) -> Json:
        return self.blob(json.dumps(content, separators=(",", ":")).encode(), media_type)

    def image(
        self,
        layers: Sequence[bytes],
        *,
        architecture: str = "amd64",
        media_types: Sequence[str] = (),
        **extra: Any,
    ) -> Json:
        """An image manifest; `extra` goes into the manifest (`subject`, `annotations`)."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id(content) for content in layers]},
        }
        kinds = [*media_types, *[LAYER] * (len(layers) - len(media_types))]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.json(config, OCI_CONFIG),
            "layers": [self.blob(content, kind) for content, kind in zip(layers, kinds, strict=True)],
            **extra,
        }
        return self.json(manifest, OCI_MANIFEST)

    def index(self, children: Sequence[Json], **extra: Any) -> Json:
        content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children), **extra}
        return self.json(content, OCI_INDEX)

    def entry(self, descriptor: Json, name: str | None = None) -> Path:
        """Lists `descriptor` in index.json, under `name` if there is one; returns the layout's path."""
        named = descriptor if name is None else {**descriptor, "annotations": {REF_NAME: name}}
        self.entries.append(named)
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.entries}
        (self.path / "index.json").write_text(json.dumps(index))
        return self.path


def image_layout(path: Path, layer_sizes: Sequence[int] = (2_000,), *, name: str | None = None, seed: int = 0) -> Path:
    """A layout of one image with layers of these sizes."""
    build = LayoutBuilder(path)
    layers = [layer(seed * 1_000 + n, size) for n, size in enumerate(layer_sizes)]
    return build.entry(build.image(layers), name)


def platforms_layout(
    path: Path, *, own: Sequence[int] = (2_000,), shared: Sequence[int] = (3_000,), seed: int = 0
) -> Path:
    """A layout of an index of four images: each has layers of its own of these sizes, above ones that all share."""
    build = LayoutBuilder(path)
    below = [layer(seed * 1_000_000 + n, size) for n, size in enumerate(shared)]
    images = []
    for number, architecture in enumerate(PLATFORMS, start=1):
        above = [layer(seed * 1_000_000 + number * 1_000 + n, size) for n, size in enumerate(own)]
        image = build.image([*below, *above], architecture=architecture)
        images.append({**image, "platform": {"architecture": architecture, "os": "linux"}})
    return build.entry(build.index(images))


def nested_layout(path: Path, *, depth: int = 2, seed: int = 0) -> Path:
    """A layout of an index that holds an image and a further index, `depth` indexes deep."""
    build = LayoutBuilder(path)
    below: list[Json] = []
    for level in range(depth):
        below = [build.index([build.image([layer(seed * 1_000 + level, 2_000)]), *below])]
    return build.entry(below[0])


def edit_index(path: Path, **changes: Any) -> None:
    """Changes fields of index.json; None takes a field out."""
    index = json.loads((path / "index.json").read_text()) | changes
    (path / "index.json").write_text(json.dumps({k: v for k, v in index.items() if v is not None}))


def root_digest(path: Path) -> Digest:
    """The digest of the first entry of index.json."""
    return Digest(json.loads((path / "index.json").read_text())["manifests"][0]["digest"])


def blob_path(path: Path, digest: str) -> Path:
    """Where the layout keeps this blob."""
    algorithm, _, encoded = digest.partition(":")
    return path / "blobs" / algorithm / encoded


def layers_of(path: Path, digest: str) -> list[Digest]:
    """The layers of the image manifest with this digest."""
    manifest = json.loads(blob_path(path, digest).read_text())
    return [Digest(described["digest"]) for described in manifest["layers"]]


def tar_names(content: bytes) -> list[str]:
    """The names in a layer's tar."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return tar.getnames()
