"""From a source and a reference, as a user names them, to a plan. For every driver; nothing here touches a network."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from regproto import (
    ContentError,
    Digest,
    InvalidReferenceError,
    MountSource,
    PushPlan,
    PushResult,
    Reference,
    RegistryError,
    RegprotoError,
    registry_url,
)
from regproto._model.errors import printable
from regproto._model.reference import check_tag
from regproto_sync.sources.archive import Archive, open_archive
from regproto_sync.sources.docker_archive import DockerImage, open_docker_archive
from regproto_sync.sources.docker_layout import open_docker_layout
from regproto_sync.sources.image import ImageSource, find_corrupt_blob
from regproto_sync.sources.image import verify as verify_content
from regproto_sync.sources.layers import Compression, compressed, compressing_push
from regproto_sync.sources.layout import layout_of, open_layout
from regproto_sync.sources.notation import Form, parse_source
from regproto_sync.sources.stream import StreamContent

LOOK_S: Final = 1.0
"""How long the beginnings of streams are waited for: long enough for a maker that is there or has failed already."""
_CONTENT_CODES: Final = frozenset({"DIGEST_INVALID", "SIZE_INVALID"})


@attrs.frozen(kw_only=True)
class Planned:
    """A push that is ready to be submitted, and where to."""

    registry_url: str
    reference: Reference
    """With the tag that is put, or the digest that was asked for."""
    push: PushPlan
    source: ImageSource | None = attrs.field(repr=False)
    """None: content of the caller's own."""

    def close(self) -> None:
        """Ends the reading of its streams, whatever came of the push."""
        for stream in self.push.streams:
            if isinstance(stream.source, StreamContent):
                stream.source.close()

    def look(self) -> None:
        """Reads the beginnings of its layers that are streams, and raises `ContentError` if one is none.

        Nothing is sent yet. A source that gives nothing for a while is judged later, before the first byte of it goes.
        """
        begun: list[tuple[str, StreamContent]] = []
        for stream in self.push.streams:
            source = stream.source
            if isinstance(source, StreamContent) and source.packed is not None and not source.looked:
                source.begin(stream.key, stream.algorithm)
                begun.append((stream.key, source))
        deadline = time.monotonic() + LOOK_S
        for key, source in begun:
            failure = source.failure(max(0.0, deadline - time.monotonic()))
            if failure is not None:
                raise ContentError(f"stream {key}: {failure}")

    def explained(self, result: PushResult) -> PushResult:
        """The result with the error to show for its own. May read the whole source."""
        return result if result.error is None else attrs.evolve(result, error=self.explain(result.error))

    def explain(self, error: RegprotoError) -> RegprotoError:
        """The error to show for one that ended the push: after a refused digest, the one that names the damaged blob.

        May read the whole source.
        """
        if isinstance(error, RegistryError) and _CONTENT_CODES & {code.upper() for code in error.codes}:
            damaged = find_corrupt_blob(self.push, self.source)
            if damaged is not None:
                return damaged
        return error


def raise_first_error(results: Iterable[PushResult]) -> None:
    """Raises the first error there is in results."""
    for result in results:
        if result.error is not None:
            raise result.error


def state_name(source: str | os.PathLike[str] | ImageSource) -> str:
    """The name that `open_push_state` knows a source by, however it was written."""
    return f"{source.name} {source.root.digest}" if isinstance(source, ImageSource) else os.path.realpath(source)


def open_source(source: str | os.PathLike[str] | ImageSource, *, sparse: bool = False) -> ImageSource:
    """The image that `source` names.

    A folder is read as an OCI layout; a file as an archive, which holds an OCI layout or is what `docker save` writes.

    Args:
        source: a path, as a string also `PATH:NAME`, skopeo's `oci:PATH[:NAME]`, `oci-archive:PATH[:NAME]` and
            `docker-archive:PATH[:NAME]`, and `-` in the place of the path for an archive on standard input.
            What is an image already is returned as it is.
        sparse: an index of which an archive has only some images is wanted as it is. By default, where a manifest.json
            says which of them was saved, that one is.

    Raises:
        SourceNotFound: there is nothing at the path.
        ContentError: it is not what it has to be, or has several images and the name picks none of them.
    """
    if isinstance(source, ImageSource):
        return source
    found = parse_source(source)
    if found.form is Form.FOLDER or (found.form is Form.ANY and found.path is not None and found.path.is_dir()):
        assert found.path is not None
        return open_layout(found.path, found.image)
    archive = open_archive(found.path)
    if found.form is Form.OCI_ARCHIVE:
        return layout_of(archive, found.image)
    if found.form is Form.DOCKER_ARCHIVE:
        return open_docker_archive(archive, found.image)
    return _open_any(archive, found.image, sparse)


def _open_any(archive: Archive, name: str | None, sparse: bool) -> ImageSource:
    """An image of an archive whose form nobody told."""
    match "index.json" in archive.members, "manifest.json" in archive.members:
        case True, True:
            return open_docker_layout(archive, name, sparse=sparse)
        case True, False:
            return layout_of(archive, name)
        case False, True:
            return open_docker_archive(archive, name)
    raise ContentError(
        f"{archive.name}: is neither an OCI layout (oci-layout, index.json, blobs) nor what docker save writes "
        "(manifest.json)"
    )


def plan_source(
    source: str | os.PathLike[str] | ImageSource,
    reference: str,
    *,
    tags: Sequence[str] = (),
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
    nondistributable: bool = False,
    sparse: bool = False,
    verify: bool = False,
    compression: str | None = None,
    level: int | None = None,
    spool: bool = False,
) -> Planned:
    """The plan that pushes `source` to `reference`. The arguments are those of `push`.

    Raises:
        InvalidReferenceError: `reference`, a tag or a mount source is malformed.
        SourceNotFound: there is nothing at the source's path.
        ContentError: the source is not what it has to be.
        LocalProtocolError: there is no such compression or level.
    """
    target, url, named = target_of(reference, tags, plain_http)
    mounts = [mount_source(text, target.registry) for text in mount_from]
    how = Compression.of(compression, level, spool)
    image = open_source(source, sparse=sparse)
    if how is not None:
        if not isinstance(image, DockerImage):
            raise ContentError(
                f"{image.name}: its manifests name the layers as they are; only those of a docker archive can be "
                "compressed on their way"
            )
        if target.digest is None and not how.spool:
            push = compressing_push(image, how, target.repository, named)
            return Planned(registry_url=url, reference=target, push=push, source=image)
        image = compressed(image, how)
    _check_digest(target.digest, image)
    push = image.plan(
        target.repository, tags=named, mount_from=mounts, nondistributable=nondistributable, sparse=sparse
    )
    if verify:
        verify_content(push, image)
    return Planned(registry_url=url, reference=target, push=push, source=image)


def target_of(reference: str, tags: Sequence[str], plain_http: bool) -> tuple[Reference, str, tuple[str, ...]]:
    """Where to: the reference with its default tag, the registry's URL, and all the tags that are put.

    Raises:
        InvalidReferenceError: `reference` or a tag is malformed.
    """
    target = Reference.parse(reference).with_default_tag()
    if isinstance(tags, str):
        raise InvalidReferenceError(f"tags must be a sequence of tags: [{printable(tags, 130)!r}], not a string")
    named = tuple(dict.fromkeys([*([target.tag] if target.tag else []), *map(check_tag, tags)]))
    return target, registry_url(target.registry, plain_http), named


def mount_source(text: str, registry: str) -> MountSource:
    """The mount source that `repository` or `host/repository` means for a push to `registry`.

    Raises:
        InvalidReferenceError: it is neither, or has a tag or digest.
    """
    first, slash, _ = text.partition("/")
    has_host = slash and ("." in first or ":" in first or first == "localhost")
    found = Reference.parse(text if has_host else f"{registry}/{text}")
    if found.tag or found.digest:
        raise InvalidReferenceError(f"{str(found)!r}: a repository to mount from has no tag or digest")
    foreign = found.registry != registry
    return MountSource(repository=found.repository, registry=found.registry if foreign else "", foreign=foreign)


def _check_digest(wanted: Digest | None, image: ImageSource) -> None:
    if wanted is not None and wanted != image.root.digest:
        raise ContentError(f"{image.name}: the reference asks for {wanted}, but the source is {image.root.digest}")
