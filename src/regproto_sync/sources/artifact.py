"""Artifacts: an OCI manifest over files that are no container image, in the form that oras gives them.

A file is a layer with its name as `org.opencontainers.image.title`; a folder is one layer too, a gzipped tar that is
the same for the same content, marked to be unpacked. The config is the empty one, so that the artifact type says
what it is (image-spec, "Guidelines for Artifact Usage").
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from regproto._model.digest import Digest
from regproto._model.errors import ContentError, printable
from regproto._model.manifest import OCI_EMPTY, OCI_MANIFEST, Descriptor, check_media_type
from regproto._model.plan import Blob, Manifest, MountSource, PushPlan

TITLE: Final = "org.opencontainers.image.title"
UNKNOWN_ARTIFACT: Final = "application/vnd.unknown.artifact.v1"
"""The type that oras gives an artifact that comes without one."""
EMPTY: Final = Descriptor(media_type=OCI_EMPTY, digest=Digest.of(b"{}"), size=2, data=b"{}")
"""The empty descriptor of the image-spec: `{}`, embedded."""


@attrs.frozen(kw_only=True)
class Artifact:
    """An artifact's manifest and what it names."""

    manifest: Manifest
    blobs: tuple[Blob, ...]

    def push(self, repository: str, *, tags: Sequence[str] = (), mount_from: Sequence[MountSource] = ()) -> PushPlan:
        """The plan that pushes all of it; without tags by digest.

        Raises:
            InvalidReferenceError: `repository` or a tag is malformed.
        """
        return PushPlan(
            repository=repository,
            blobs=[attrs.evolve(blob, mount_from=tuple(mount_from) or blob.mount_from) for blob in self.blobs],
            manifests=(self.manifest,),
            root=self.manifest.descriptor.digest,
            tags=tags,
        )


def artifact(
    files: Sequence[Blob],
    artifact_type: str = UNKNOWN_ARTIFACT,
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
) -> Artifact:
    """The artifact of these files; the same arguments make the same bytes.

    Args:
        files: its layers, in this order, as `file_blob`, `folder_blob` and `bytes_blob` make them. Without any, the
            one layer is the empty descriptor, as the image-spec wants it.
        artifact_type: what kind of artifact it is, a media type.
        annotations: of the manifest.
        subject: what it is attached to.

    Raises:
        ContentError: the type is no media type, an annotation no text, two files have one title, or it all is too
            large for a manifest.
    """
    check_media_type(artifact_type, "artifact type")
    _refuse_same_titles(files)
    layers = [blob.descriptor for blob in files] or [EMPTY]
    fields: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": EMPTY.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if subject is not None:
        named = Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size)
        fields["subject"] = named.to_json()
    if annotations:
        fields["annotations"] = dict(annotations)
    try:
        content = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ContentError("artifact: a name or annotation is not valid Unicode") from None
    blobs = {blob.descriptor.digest: blob for blob in (Blob(descriptor=EMPTY), *files)}
    return Artifact(manifest=Manifest.of(content, where="artifact"), blobs=tuple(blobs.values()))


def _refuse_same_titles(files: Sequence[Blob]) -> None:
    titles: set[str] = set()
    for blob in files:
        title = blob.descriptor.annotations.get(TITLE, "")
        if title in titles:
            raise ContentError(
                f"artifact: two files have the title {printable(title, 200)!r}; the later would replace the other"
            )
        if title:
            titles.add(title)
