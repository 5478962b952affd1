"""An image (or index) to be pushed, wherever it comes from: what every source of one has in common."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence

import attrs

from regproto._model.digest import Digest
from regproto._model.errors import ContentError, printable
from regproto._model.manifest import MANIFEST_MAX_BYTES, Descriptor
from regproto._model.plan import Blob, Manifest, MountSource, PushPlan, plan_push
from regproto_sync.sources.content import BytesContent, Content, ContentSource, FileContent, digest_of
from regproto_sync.sources.rootfs import check_rootfs, verify_layers


class ImageSource(abc.ABC):
    """A manifest or index, and what is below it. An embedder makes its own by giving these three.

    What it gives is checked: manifests against the descriptors that name them, configs too, and that manifests have
    the layers that their configs name. The layers' digests are left to the registry, which checks them anyway;
    `find_corrupt_blob` finds the culprit when it refuses one.
    """

    name: str = ""
    """How errors call it."""

    @property
    @abc.abstractmethod
    def root(self) -> Descriptor:
        """The manifest or index that is pushed."""

    @abc.abstractmethod
    def read_manifest(self, descriptor: Descriptor) -> bytes | None:
        """The bytes of a manifest or index, the root's too; None if it is not here. Raises `ContentError`."""

    @abc.abstractmethod
    def find_content(self, descriptor: Descriptor) -> Content | None:
        """Where a config, layer or other blob is read from; None if it is not here. Raises `ContentError`."""

    def where(self, digest: Digest) -> str:
        """Where in the source this content is, for errors."""
        return str(digest)

    def plan(
        self,
        repository: str,
        *,
        tags: Sequence[str] = (),
        mount_from: Sequence[MountSource] = (),
        nondistributable: bool = False,
        sparse: bool = False,
    ) -> PushPlan:
        """The plan that pushes the root and everything below it; the arguments are those of `regproto.plan_push`.

        Raises:
            ContentError: something is missing, malformed, or not what its descriptor says.
        """
        with named(self.name):
            push = plan_push(
                repository,
                self.root,
                read_manifest=self.read_manifest,
                find_content=self.find_content,
                tags=tags,
                mount_from=mount_from,
                nondistributable=nondistributable,
                sparse=sparse,
            )
            configs = {m.info.config.digest for m in push.manifests if m.info.config is not None}
            for blob in push.blobs:
                # Of a config's size; a "config" of gigabytes is content like any other, for the registry to check.
                if blob.descriptor.digest in configs and blob.descriptor.size <= MANIFEST_MAX_BYTES:
                    _check(blob, self)
            _check_rootfs(push)
        return push


def find_corrupt_blob(push: PushPlan, source: ImageSource | None) -> ContentError | None:
    """The error that names a blob of `push` whose content is not what its digest says; None if all are right.

    Reads them all: for after a registry refused one.
    """
    try:
        with named(source.name if source is not None else ""):
            for blob in push.blobs:
                _check(blob, source)
    except ContentError as error:
        return error
    return None


def _check_rootfs(push: PushPlan) -> None:
    try:
        check_rootfs(push)
    except OSError as error:
        raise ContentError(error.strerror or printable(str(error), 200)) from error


def verify(push: PushPlan, source: ImageSource) -> None:
    """Reads all content there is: each blob has to be the one of its digest, each layer the one of its diff_id.

    Raises:
        ContentError: something is not.
    """
    if (damaged := find_corrupt_blob(push, source)) is not None:
        raise damaged
    with named(source.name):
        verify_layers(push)


def _check(blob: Blob, source: ImageSource | None) -> None:
    digest = blob.descriptor.digest
    if not isinstance(blob.source, Content):
        return
    where = source.where(digest) if source is not None else str(digest)
    try:
        # A file as it is now: whether it has changed since it was described, drivers look.
        content = FileContent.of(blob.source.path) if isinstance(blob.source, FileContent) else blob.source
        found = digest_of(content, blob.descriptor.size, digest.algorithm)
    except OSError as error:
        raise ContentError(f"{where}: {error.strerror or printable(str(error), 200)}") from error
    if found != digest:
        raise ContentError(
            f"{where}: the content of {digest} does not match its digest (it is {found}): it is damaged, make it again"
        )


@contextlib.contextmanager
def named(source: str) -> Iterator[None]:
    """Errors inside say what is wrong where in the source; this says in which one."""
    try:
        yield
    except ContentError as error:
        if not source:
            raise
        raise ContentError(f"{printable(source)}: {error}") from error


@attrs.frozen(kw_only=True)
class MemoryImage(ImageSource):
    """An image of manifests in memory and of content from anywhere; made by `image_of`."""

    top: Manifest
    manifests: Mapping[Digest, bytes] = attrs.field(repr=False)
    contents: Mapping[Digest, Content] = attrs.field(repr=False)

    @property
    def root(self) -> Descriptor:
        return self.top.descriptor

    def read_manifest(self, descriptor: Descriptor) -> bytes | None:
        return self.manifests.get(descriptor.digest)

    def find_content(self, descriptor: Descriptor) -> Content | None:
        return self.contents.get(descriptor.digest)


def image_of(
    manifest: bytes,
    contents: Sequence[ContentSource | Blob | bytes] = (),
    *,
    children: Sequence[bytes] = (),
    media_type: str = "",
    algorithm: str = "sha256",
) -> MemoryImage:
    """An image or index of these exact bytes.

    Args:
        manifest: the root's.
        contents: config and layers: bytes, blobs as `file_blob` makes them, or an embedder's own content.
        children: the manifests below an index.
        media_type: of the root; by default what it says itself.
        algorithm: of the digests of manifests and bytes, as the manifests name them.

    Raises:
        ContentError: the root is not a manifest.
    """
    digest = Digest.of(manifest, algorithm)
    top = Manifest.of(manifest)
    described = Descriptor(media_type=media_type or top.info.media_type, digest=digest, size=len(manifest))
    found: dict[Digest, Content] = {}
    for content in contents:
        if isinstance(content, bytes):
            found[Digest.of(content, algorithm)] = BytesContent(content)
        else:
            blob = as_blob(content)
            if isinstance(blob.source, Content):
                found[blob.descriptor.digest] = blob.source
    return MemoryImage(
        top=Manifest.of(manifest, described),
        manifests={Digest.of(each, algorithm): each for each in (manifest, *children)},
        contents=found,
    )


def as_blob(content: ContentSource | Blob) -> Blob:
    """Content as the blob of a push."""
    return content if isinstance(content, Blob) else Blob(descriptor=content.describe(), source=content)
