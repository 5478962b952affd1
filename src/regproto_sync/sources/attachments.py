"""The plans of attaching and of listing what is attached. For every driver; nothing here touches a network.

What an attachment is attached to must be described by digest, size and type, so the registry is asked for it first:
both take two plans, the second made of what the first found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from regproto import (
    Blob,
    ContentError,
    Descriptor,
    Digest,
    ListReferrers,
    Manifest,
    PushPlan,
    PushResult,
    Reference,
    Referrers,
    ResolveReference,
    registry_url,
)
from regproto._model.manifest import check_media_type
from regproto_sync.sources.artifact import UNKNOWN_ARTIFACT, Artifact, artifact
from regproto_sync.sources.files import file_blob, folder_blob
from regproto_sync.sources.notation import split_source
from regproto_sync.sources.plans import Item, blob_of


@attrs.frozen(kw_only=True)
class Attached:
    """The outcome of `attach`."""

    subject: Descriptor
    """The manifest it was attached to."""
    digests: tuple[Digest, ...]
    """The attachments, in the order of their files."""
    result: PushResult
    """Of the push; `listed` says how sure it is that they are listed."""


@attrs.frozen(kw_only=True)
class Attaching:
    """Attachments that are ready but for what they are attached to."""

    registry_url: str
    reference: Reference
    files: tuple[tuple[Blob, ...], ...] = attrs.field(repr=False)
    """For each attachment its files."""
    artifact_type: str
    annotations: Mapping[str, str]

    @property
    def question(self) -> PushPlan:
        """Asks what the reference is on."""
        name = self.reference.digest or self.reference.tag
        return PushPlan(repository=self.reference.repository, lookups=[ResolveReference(reference=name)])

    def push(self, subject: Descriptor) -> tuple[PushPlan, tuple[Digest, ...]]:
        """The plan that attaches it all to `subject`, and the attachments' digests. Raises `ContentError`."""
        artifacts = [self._artifact(files, subject) for files in self.files]
        blobs: dict[Digest, Blob] = {}
        manifests: dict[Digest, Manifest] = {}
        for one in artifacts:
            blobs |= {blob.descriptor.digest: blob for blob in one.blobs}
            manifests[one.manifest.descriptor.digest] = one.manifest
        root = next(iter(manifests)) if len(manifests) == 1 else None
        push = PushPlan(
            repository=self.reference.repository, blobs=blobs.values(), manifests=manifests.values(), root=root
        )
        return push, tuple(one.manifest.descriptor.digest for one in artifacts)

    def _artifact(self, files: tuple[Blob, ...], subject: Descriptor) -> Artifact:
        return artifact(files, self.artifact_type, self.annotations, subject)


def plan_attach(
    reference: str,
    files: Iterable[Item],
    *,
    artifact_type: str = UNKNOWN_ARTIFACT,
    media_type: str = "",
    annotations: Mapping[str, str] | None = None,
    each: bool = False,
    plain_http: bool = False,
) -> Attaching:
    """The attachments of these files. The arguments are those of `attach`.

    Raises:
        InvalidReferenceError: `reference` is malformed.
        ContentError: a file can't be read, or what is told can't stand in a manifest; `SourceNotFound` if a file is
            not there.
    """
    target = Reference.parse(reference).with_default_tag()
    url = registry_url(target.registry, plain_http)
    check_media_type(artifact_type, "artifact type")
    blobs = tuple(_blob(item, media_type) for item in files)
    if each and not blobs:
        raise ContentError("one attachment for each file takes at least one file")
    attaching = Attaching(
        registry_url=url,
        reference=target,
        files=tuple((blob,) for blob in blobs) if each else (blobs,),
        artifact_type=artifact_type,
        annotations=annotations or {},
    )
    # Whatever is wrong with it is told before anything is asked.
    attaching.push(Descriptor(media_type="application/x", digest=Digest.of(b""), size=0))
    return attaching


def _blob(item: Item, media_type: str) -> Blob:
    if not media_type or not isinstance(item, (str, os.PathLike)):
        return blob_of(item)
    path, own = split_source(item) if isinstance(item, str) else (Path(item), None)
    if own is not None:
        return blob_of(item)
    return folder_blob(path, media_type) if path.is_dir() else file_blob(path, media_type)


@attrs.frozen(kw_only=True)
class Listing:
    """A question about what is attached to something."""

    registry_url: str
    reference: Reference
    artifact_type: str

    @property
    def question(self) -> PushPlan | None:
        """Asks what the reference is on; None: it says so itself."""
        if self.reference.digest is not None:
            return None
        return self._asking(ResolveReference(reference=self.reference.tag))

    def push(self, subject: Digest) -> PushPlan:
        """Asks what is attached to `subject`."""
        return self._asking(ListReferrers(subject=subject, artifact_type=self.artifact_type))

    def _asking(self, lookup: ResolveReference | ListReferrers) -> PushPlan:
        return PushPlan(repository=self.reference.repository, lookups=[lookup], reads_only=True)


def plan_referrers(reference: str, *, artifact_type: str = "", plain_http: bool = False) -> Listing:
    """The question that `referrers` asks. The arguments are its.

    Raises:
        InvalidReferenceError: `reference` is malformed.
        ContentError: `artifact_type` is no media type.
    """
    target = Reference.parse(reference).with_default_tag()
    if artifact_type:
        check_media_type(artifact_type, "artifact type")
    return Listing(
        registry_url=registry_url(target.registry, plain_http), reference=target, artifact_type=artifact_type
    )


def subject_of(result: PushResult) -> Descriptor:
    """The manifest that the reference of a question is on. Raises the question's error."""
    if result.error is not None:
        raise result.error
    (found,) = result.found
    assert isinstance(found, Descriptor)
    return found


def referrers_of(result: PushResult) -> Referrers:
    """The attachments, by the answer to that question. Raises its error."""
    if result.error is not None:
        raise result.error
    (found,) = result.found
    assert isinstance(found, Referrers)
    return found
