"""Archives to push: tars of OCI layouts and what `docker save` writes, and ways to damage them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from regproto import Digest
from regproto._model.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

Member = tuple[str, bytes]
Json = dict[str, Any]

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def link(name: str, target: str) -> tarfile.TarInfo:
    """A symbolic link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def hard_link(name: str, target: str) -> tarfile.TarInfo:
    """A hard link to another member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, target
    return info


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    """A folder, pipe or device."""
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


def tar_bytes(members: Iterable[Member | tarfile.TarInfo], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these, in this order; with no times and owners."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=format) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return whole.getvalue()


def layout_members(layout: Path) -> dict[str, bytes]:
    """The files of a layout folder."""
    files = sorted(path for path in layout.rglob("*") if path.is_file())
    return {path.relative_to(layout).as_posix(): path.read_bytes() for path in files}


def layout_tar(layout: Path, path: Path) -> Path:
    """Puts a layout folder into a tar."""
    path.write_bytes(tar_bytes(layout_members(layout).items()))
    return path


def plain_layer(seed: int) -> bytes:
    """A layer's tar."""
    return tar_bytes([(f"file-{seed}", bytes([seed % 256]) * 1_000)])


@attrs.define
class DockerSave:
    """What `docker save` writes, to be changed before it is written."""

    members: dict[str, bytes] = attrs.field(factory=dict)
    links: list[tarfile.TarInfo] = attrs.field(factory=list)
    entries: list[dict[str, Any]] = attrs.field(factory=list)

    def image(
        self,
        layers: Sequence[bytes],
        *names: str,
        diff_ids: Sequence[str] | None = None,
        pack: Callable[[bytes], bytes] = lambda layer: layer,
        extra: Mapping[str, Any] | None = None,
    ) -> Digest:
        """Adds an image; returns its config's digest."""
        ids = [str(Digest.of(layer)) for layer in layers] if diff_ids is None else list(diff_ids)
        fields = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
        config = json.dumps({**fields, **(extra or {})}).encode()
        digest = Digest.of(config)
        paths = [f"{Digest.of(layer).hex}/layer.tar" for layer in layers]
        self.members |= {f"{digest.hex}.json": config}
        self.members |= {path: pack(layer) for path, layer in zip(paths, layers, strict=True)}
        self.entries.append({"Config": f"{digest.hex}.json", "RepoTags": list(names) or None, "Layers": paths})
        return digest

    def write(self, path: Path) -> Path:
        """Writes the archive."""
        manifest = ("manifest.json", json.dumps(self.entries).encode())
        path.write_bytes(tar_bytes([*self.members.items(), *self.links, manifest]))
        return path


def docker_save(path: Path, layers: int = 2, *names: str) -> Path:
    """An archive of one image."""
    build = DockerSave()
    build.image([plain_layer(n) for n in range(layers)], *names)
    return build.write(path)


def diff_ids(layers: Sequence[bytes]) -> list[str]:
    """What a config says of these tars."""
    return [str(Digest.of(layer)) for layer in layers]


@attrs.define
class Saved:
    """An archive of blobs with an index.json, a manifest.json, or both."""

    blobs: dict[str, bytes] = attrs.field(factory=dict)
    listed: list[Json] = attrs.field(factory=list)
    """Of index.json."""
    saved: list[Json] = attrs.field(factory=list)
    """Of manifest.json."""

    def blob(self, content: bytes, media_type: str) -> Json:
        digest = Digest.of(content)
        self.blobs[f"blobs/sha256/{digest.hex}"] = content
        return {"mediaType": media_type, "digest": str(digest), "size": len(content)}

    def json(self, content: Json, media_type: str) -> Json:
        return self.blob(json.dumps(content).encode(), media_type)

    def image(
        self,
        layers: Sequence[bytes],
        *names: str,
        ids: object = None,
        types: Sequence[str] = (),
        saved: bool = True,
        config_type: str = OCI_CONFIG,
        config: object = None,
        order: Sequence[int] = (),
    ) -> Json:
        """Adds an image; returns its descriptor. `order`: of the layers in its manifest."""
        rootfs = {"type": "layers", "diff_ids": diff_ids(layers) if ids is None else ids}
        fields = {"os": "linux", "architecture": "amd64", "rootfs": rootfs} if config is None else config
        described = self.json(fields, config_type)  # type: ignore[arg-type]
        kinds = [*types, *[OCI_LAYER] * (len(layers) - len(types))]
        parts = [self.blob(layer, kind) for layer, kind in zip(layers, kinds, strict=True)]
        if saved:
            paths = [path_of(part) for part in parts]
            self.saved.append({"Config": path_of(described), "RepoTags": list(names) or None, "Layers": paths})
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described,
            "layers": [parts[n] for n in order] if order else parts,
        }
        return self.json(manifest, OCI_MANIFEST)

    def index(self, children: Sequence[Json]) -> Json:
        return self.json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children)}, OCI_INDEX)

    def list(self, described: Json, name: str = "") -> Json:
        """Lists something in index.json, as docker does."""
        tag = {"org.opencontainers.image.ref.name": name.rpartition(":")[2]}
        names = {"annotations": {"io.containerd.image.name": f"docker.io/library/{name}", **tag}} if name else {}
        self.listed.append({**described, **names})
        return described

    def without(self, described: Json) -> Json:
        """Takes a blob out."""
        del self.blobs[path_of(described)]
        return described

    def write(self, path: Path, files: str = "both") -> Path:
        members = dict(self.blobs)
        if files != "manifest.json":
            members["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
            members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": self.listed}).encode()
        if files != "index.json":
            members["manifest.json"] = json.dumps(self.saved).encode()
        path.write_bytes(tar_bytes(members.items()))
        return path


def path_of(described: Json) -> str:
    """Where an archive has a blob."""
    return f"blobs/sha256/{described['digest'].removeprefix('sha256:')}"
