"""The public calls beside `push`: one layer, one manifest, tags, an artifact, several images at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import attrs

from regproto import PushResult, Session, registry_url
from regproto_sync.client._attach import open_session
from regproto_sync.credentials.keychain import docker_keychain
from regproto_sync.driver.driver import Driver
from regproto_sync.sources.artifact import UNKNOWN_ARTIFACT
from regproto_sync.sources.image import ImageSource
from regproto_sync.sources.layers import Layer
from regproto_sync.sources.options import Options
from regproto_sync.sources.plans import Item, plan_artifact, plan_image, plan_layer, plan_manifest, plan_many, plan_tag
from regproto_sync.sources.source import Planned


def push_planned(plans: Sequence[Planned], **options: Unpack[Options]) -> list[PushResult]:
    """Performs several plans for one registry at the same time, in one session, and closes their streams.

    Returns:
        Their results in the same order, those that failed with their `error`. None for none.
    """
    if not plans:
        return []
    seed = options.get("seed")
    seed = int.from_bytes(os.urandom(8)) if seed is None else seed
    session = Session(plans[0].registry_url, options.get("config"), seed=seed, now=time.monotonic())
    keychain = options.get("keychain") or docker_keychain(os.environ, Path(os.path.expanduser("~")))
    ids = [session.submit(plan.push) for plan in plans]
    try:
        with Driver(tls=options.get("tls")) as driver:
            results = driver.run(session, set(ids), keychain=keychain, on_notice=options.get("on_notice"))
    finally:
        for plan in plans:
            plan.close()
    return [explained(plan, results[push_id]) for plan, push_id in zip(plans, ids, strict=True)]


def explained(plan: Planned, result: PushResult) -> PushResult:
    """A result with the error that is to be shown for its own."""
    return result if result.error is None else attrs.evolve(result, error=plan.explain(result.error))


def first_failure(results: Sequence[PushResult]) -> None:
    """Raises the first error there is."""
    for result in results:
        if result.error is not None:
            raise result.error


def _one(plan: Planned, options: Options) -> PushResult:
    try:
        plan.look()
    except BaseException:
        plan.close()
        raise
    results = push_planned([plan], **options)
    first_failure(results)
    return results[0]


def push_image(
    image_config: Mapping[str, Any],
    layers: Sequence[Layer],
    reference: str,
    *,
    tags: Sequence[str] = (),
    plain_http: bool = False,
    spool: bool = False,
    **options: Unpack[Options],
) -> PushResult:
    """Push an image of layers that are made on their way: compressed and hashed while they are sent.

    A layer can't be sent again: a fault that takes more of it than is kept (`Config.stream_buffer_bytes`) ends the
    push.

    Args:
        image_config: the image's config; its `rootfs` is made here. `architecture` is amd64 and `os` linux where they
            are not told.
        layers: the lowest first; see `Layer.stream`.
        reference: `host/repository:tag`.
        tags: further tags.
        plain_http: see `push`.
        spool: make the layers first, in private temporary files, so that they can be sent again.
        **options: see `Options`.

    Raises:
        InvalidReferenceError: `reference` or a tag is malformed.
        ContentError: a layer can't be read, or the config can't be JSON.
        RegprotoError: the push failed.
    """
    plan = plan_image(image_config, layers, reference, tags=tags, plain_http=plain_http, spool=spool)
    return _one(plan, options)


def push_layer(
    layer: Item | Layer,
    repository: str,
    *,
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
    spool: bool = False,
    **options: Unpack[Options],
) -> PushResult:
    """Push one layer (or any other blob), for a manifest that comes later.

    Args:
        layer: a file's path, as a string also `FILE:MEDIA_TYPE`, a folder (which becomes a gzipped tar), or a blob
            or content that describes itself; or a `Layer`, which is made while it is sent.
        repository: `host/repository`.
        mount_from: see `push`.
        plain_http: see `push`.
        spool: make a `Layer` first, in a private temporary file, so that it can be sent again.
        **options: see `Options`.

    Returns:
        Its digest is in `existing`, `mounted` or `uploaded`; that of a `Layer` stands in `streamed` too.

    Raises:
        InvalidReferenceError: `repository` is malformed, or has a tag or digest.
        ContentError: the content can't be read; `SourceNotFound` if there is none.
        RegprotoError: the push failed.
    """
    return _one(plan_layer(layer, repository, mount_from=mount_from, plain_http=plain_http, spool=spool), options)


def put_manifest(
    content: bytes,
    reference: str,
    *,
    media_type: str = "",
    tags: Sequence[str] = (),
    plain_http: bool = False,
    **options: Unpack[Options],
) -> PushResult:
    """Put a manifest or index alone: all that it names has to be in the repository already.

    Args:
        content: its exact bytes.
        reference: see `push`; with a digest it is put under that one, sha512 too.
        media_type: by default what the manifest says itself.
        tags: further tags.
        plain_http: see `push`.
        **options: see `Options`.

    Raises:
        InvalidReferenceError: `reference` or a tag is malformed.
        ContentError: it is not a manifest, or not the one with the reference's digest.
        RegprotoError: it was refused.
    """
    plan = plan_manifest(content, reference, media_type=media_type, tags=tags, plain_http=plain_http)
    return _one(plan, options)


def tag(reference: str, tags: Sequence[str], *, plain_http: bool = False, **options: Unpack[Options]) -> PushResult:
    """Put further tags on what is in a registry already.

    The manifest is read, checked against its digest, and put under the tags in its exact bytes.

    Args:
        reference: `host/repository:tag` or `host/repository@digest`; the tag is `latest` where neither is given.
        tags: to be put on it.
        plain_http: see `push`.
        **options: see `Options`.

    Raises:
        InvalidReferenceError: `reference` or a tag is malformed, or there is no tag.
        RegprotoError: there is nothing under the reference, or a tag was refused.
    """
    plan = plan_tag(reference, tags, plain_http=plain_http)
    with open_session(plan.registry_url, options) as ask:
        result = ask(plan.push(ask(plan.question)))
    first_failure([result])
    return result


def cancel_kept(hint: bytes, registry: str, *, plain_http: bool = False, **options: Unpack[Options]) -> PushResult:
    """Give back the upload sessions that pushes which were stopped have left open.

    The registry is asked for each first: what it does not know, or does not tell to be an upload, is left alone.

    Args:
        hint: what a session gave to be kept (`regproto.Save`), or several of those joined by `regproto.merge_kept`.
        registry: its host, as in a reference.
        plain_http: see `push`.
        **options: see `Options`.

    Raises:
        ContentError: the hint can't be used, or is about another registry.
        RegprotoError: something could not be given back; the rest is.
    """
    seed = options.get("seed")
    seed = int.from_bytes(os.urandom(8)) if seed is None else seed
    url = registry_url(registry, plain_http=plain_http)
    session = Session(url, options.get("config"), seed=seed, now=time.monotonic())
    keychain = options.get("keychain") or docker_keychain(os.environ, Path(os.path.expanduser("~")))
    push_id = session.cancel_kept(hint)
    with Driver(tls=options.get("tls")) as driver:
        result = driver.run(session, {push_id}, keychain=keychain, on_notice=options.get("on_notice"))[push_id]
    first_failure([result])
    return result


def push_artifact(
    files: Iterable[Item],
    reference: str,
    *,
    artifact_type: str = UNKNOWN_ARTIFACT,
    annotations: Mapping[str, str] | None = None,
    tags: Sequence[str] = (),
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
    **options: Unpack[Options],
) -> PushResult:
    """Push files as an artifact, in the form that oras gives them.

    Args:
        files: each a path, as a string also `FILE:MEDIA_TYPE`, or a blob or content that describes itself. A folder
            becomes a gzipped tar, the same for the same content, that oras unpacks.
        reference: see `push`.
        artifact_type: what kind of artifact it is, a media type.
        annotations: of the manifest.
        tags: further tags.
        mount_from: see `push`.
        plain_http: see `push`.
        **options: see `Options`.

    Raises:
        InvalidReferenceError: `reference`, a tag or a mount source is malformed.
        ContentError: a file can't be read, or what is told can't stand in a manifest; `SourceNotFound` if a file is
            not there.
        RegprotoError: the push failed.
    """
    plan = plan_artifact(
        files,
        reference,
        artifact_type=artifact_type,
        annotations=annotations,
        tags=tags,
        mount_from=mount_from,
        plain_http=plain_http,
    )
    return _one(plan, options)


def push_many(
    images: Iterable[tuple[str | os.PathLike[str] | ImageSource, str]],
    *,
    tags: Sequence[str] = (),
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
    nondistributable: bool = False,
    sparse: bool = False,
    verify: bool = False,
    **options: Unpack[Options],
) -> list[PushResult]:
    """Push several images into one registry at the same time, each a source and a reference.

    What they share is sent once for each repository. One that fails does not stop the others.

    Args:
        images: sources and references, as for `push`.
        tags: further tags, for each of them.
        mount_from: see `push`.
        plain_http: see `push`.
        nondistributable: see `push`.
        sparse: see `push`.
        verify: see `push`.
        **options: see `Options`.

    Returns:
        The results in the same order, when all are over.

    Raises:
        InvalidReferenceError: a reference is malformed, or one of another registry than the first.
        ContentError: a source is not what it has to be; `SourceNotFound` if it is not there. Nothing was sent.
        RegprotoError: a push failed: the first in that order, once all are over.
    """
    plans = plan_many(
        images,
        tags=tags,
        mount_from=mount_from,
        plain_http=plain_http,
        nondistributable=nondistributable,
        sparse=sparse,
        verify=verify,
    )
    results = push_planned(plans, **options)
    first_failure(results)
    return results
