"""Digests, descriptors, media types and manifests: what is pushed, as plain data.

Source: image-spec, "Descriptors", "Image Manifest" and "Image Index"; Docker's image manifest v2 schema 2.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from regproto._model.digest import Digest
from regproto._model.errors import ContentError, InvalidReferenceError, printable

MANIFEST_MAX_BYTES: Final = 4 * 1024 * 1024
"""Registries need not take a larger manifest (distribution-spec, "Pushing Manifests"), and the known ones do not."""

MANIFEST_MAX_DEPTH: Final = 16
"""Indexes nested deeper than this are a mistake or an attack; real ones are two deep."""

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
NONDISTRIBUTABLE_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
"""Layers that their owner serves elsewhere; skipped unless `Config.push_nondistributable`."""

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


@attrs.frozen(kw_only=True)
class Descriptor:
    """The description of one thing that a manifest names (image-spec, "OCI Content Descriptors")."""

    media_type: str
    digest: Digest
    size: int
    """Bytes."""
    data: bytes | None = attrs.field(default=None, repr=False)
    """The content itself, where the descriptor embeds it; checked against digest and size."""
    annotations: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    artifact_type: str = ""

    def to_json(self) -> dict[str, Any]:
        """The JSON form, as it stands in a manifest."""
        fields: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.data is not None:
            fields["data"] = base64.b64encode(self.data).decode()
        if self.annotations:
            fields["annotations"] = dict(self.annotations)
        if self.artifact_type:
            fields["artifactType"] = self.artifact_type
        return fields


@attrs.frozen(kw_only=True)
class ManifestInfo:
    """The descriptors in a manifest or index, read from its bytes."""

    media_type: str
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    """An index's children."""
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = attrs.field(factory=dict, hash=False)

    @property
    def is_index(self) -> bool:
        """True if this names other manifests, not layers."""
        return self.media_type in INDEX_TYPES


def check_media_type(text: object, where: str) -> str:
    """`text` as a media type; raises `ContentError` if it could not stand in a header."""
    if not isinstance(text, str) or not _MEDIA_TYPE.fullmatch(text):
        raise ContentError(f"{where}: {printable(repr(text), 100)} is not a media type")
    return text


def parse_descriptor(raw: object, where: str) -> Descriptor:
    """A descriptor from its JSON form. Raises `ContentError` that names `where` it stands and what is wrong."""
    if not isinstance(raw, dict):
        raise ContentError(f"{where}: a descriptor must be a JSON object")
    size = raw.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise ContentError(f"{where}: descriptor size {printable(repr(size), 60)} is not a byte count")
    try:
        digest = Digest(raw["digest"] if isinstance(raw.get("digest"), str) else "")
    except InvalidReferenceError as error:
        raise ContentError(f"{where}: {error}") from None
    artifact_type = raw.get("artifactType", "")
    if artifact_type:
        check_media_type(artifact_type, f"{where}: artifactType")
    return Descriptor(
        media_type=check_media_type(raw.get("mediaType", ""), f"{where}: mediaType"),
        digest=digest,
        size=size,
        data=_embedded(raw.get("data"), digest, size, where),
        annotations=_annotations(raw.get("annotations"), where),
        artifact_type=artifact_type or "",
    )


def _embedded(raw: object, digest: Digest, size: int, where: str) -> bytes | None:
    if raw is None:
        return None
    try:
        data = base64.b64decode(raw if isinstance(raw, str) else "!", validate=True)
    except (binascii.Error, ValueError):
        raise ContentError(f"{where}: descriptor data is not base64") from None
    if len(data) != size or Digest.of(data, digest.algorithm) != digest:
        raise ContentError(f"{where}: descriptor data does not match its own digest {digest} and size {size}")
    return data


def _annotations(raw: object, where: str) -> Mapping[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(v, str) for v in raw.values()):
        raise ContentError(f"{where}: annotations must be an object of strings")
    return dict(raw)


def parse_json_object(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object from bytes of a bounded size. Raises `ContentError` naming `where` it came from."""
    if len(content) > MANIFEST_MAX_BYTES:
        raise ContentError(f"{where}: {len(content)} bytes; a manifest may have at most {MANIFEST_MAX_BYTES} (4 MiB)")
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        raise ContentError(f"{where}: is not JSON") from None
    if not isinstance(raw, dict):
        raise ContentError(f"{where}: must be a JSON object")
    return raw


def parse_manifest(content: bytes, media_type: str = "", where: str = "manifest") -> ManifestInfo:
    """Read the descriptors in a manifest or index.

    Args:
        content: the manifest's exact bytes.
        media_type: from the descriptor that names it; it wins over the manifest's own `mediaType`, and where
            neither says anything the structure decides (`manifests` makes an index), else Docker schema 2.
        where: how errors call it.

    Raises:
        ContentError: not JSON, over 4 MiB, of an unknown schema, or naming something malformed.
    """
    raw = parse_json_object(content, where)
    own = raw.get("mediaType", "")
    if own:
        check_media_type(own, f"{where}: mediaType")
    kind = media_type or own or (OCI_INDEX if "manifests" in raw else DOCKER_MANIFEST)
    if kind in DOCKER_SCHEMA1 or raw.get("schemaVersion") == 1:
        raise ContentError(
            f"{where}: Docker schema 1 manifests are not supported; convert the image to OCI or schema 2"
        )
    if kind not in MANIFEST_TYPES | INDEX_TYPES:
        raise ContentError(f"{where}: {kind} is not a manifest or index media type")
    if raw.get("schemaVersion") != 2:
        raise ContentError(f"{where}: schemaVersion must be 2, not {printable(repr(raw.get('schemaVersion')), 60)}")

    def descriptors(key: str) -> tuple[Descriptor, ...]:
        entries = raw.get(key) or []
        if not isinstance(entries, list):
            raise ContentError(f"{where}: {key} must be a list")
        return tuple(parse_descriptor(entry, f"{where}: {key}[{n}]") for n, entry in enumerate(entries))

    index = kind in INDEX_TYPES
    config = raw.get("config") if not index else None
    if not index and config is None:
        raise ContentError(f"{where}: an image manifest needs a config")
    subject = raw.get("subject")
    artifact_type = raw.get("artifactType") or ""
    if artifact_type:
        check_media_type(artifact_type, f"{where}: artifactType")
    return ManifestInfo(
        media_type=kind,
        config=parse_descriptor(config, f"{where}: config") if config is not None else None,
        layers=descriptors("layers") if not index else (),
        manifests=descriptors("manifests") if index else (),
        subject=parse_descriptor(subject, f"{where}: subject") if subject is not None else None,
        artifact_type=artifact_type,
        annotations=_annotations(raw.get("annotations"), where),
    )
