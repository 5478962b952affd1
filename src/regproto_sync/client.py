"""The public calls on blocking sockets. Each has a session of its own, and returns when it is over.

Interrupted (KeyboardInterrupt), a call gives back what it has open at the registry before it raises.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import attrs

from regproto import Config, Notice, PushOutcome, PushPlan, PushResult, Referrers, Session, registry_url
from regproto_sync.credentials.keychain import Keychain, default_keychain
from regproto_sync.driver.driver import Driver
from regproto_sync.sources.artifact import UNKNOWN_ARTIFACT
from regproto_sync.sources.attachments import Attached, plan_attach, plan_referrers, referrers_of, subject_of
from regproto_sync.sources.image import ImageSource
from regproto_sync.sources.layers import Layer
from regproto_sync.sources.options import Options, new_session
from regproto_sync.sources.plans import Item, plan_artifact, plan_image, plan_layer, plan_manifest, plan_many, plan_tag
from regproto_sync.sources.source import Planned, plan_source, raise_first_error, state_name
from regproto_sync.state.checkpoint_files import StateFile, open_push_state


def push(
    source: str | os.PathLike[str] | ImageSource,
    reference: str,
    *,
    tags: Sequence[str] = (),
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
    config: Config | None = None,
    keychain: Keychain | None = None,
    on_notice: Callable[[Notice], None] | None = None,
    nondistributable: bool = False,
    sparse: bool = False,
    verify: bool = False,
    compression: str | None = None,
    level: int | None = None,
    spool: bool = False,
    tls: ssl.SSLContext | None = None,
    resume: bool = False,
    seed: int | None = None,
) -> PushResult:
    """Push an image or index, and return when it is there.

    Interrupted (KeyboardInterrupt), it gives back what it has open at the registry before it raises.

    Args:
        source: an OCI layout folder, an archive (an OCI layout in a tar, or what `docker save` writes), as a string
            also with a name where there are several images in it, or an `ImageSource`: see `open_source`.
        reference: `host/repository:tag`, or `host/repository@digest`, which then must be the source's. The tag is
            `latest` where neither is given.
        tags: further tags.
        mount_from: repositories that may hold some of the blobs already, each `repository` or `host/repository`.
        plain_http: use http; for localhost and loopback addresses that is the default.
        config: limits and choices.
        keychain: asked for credentials when the registry wants some; by default docker's and podman's files.
        on_notice: told of progress, retries and the registry's warnings, one at a time, in a thread of the driver's.
        nondistributable: send non-distributable (foreign) layers too.
        sparse: leave out an index's children that the source does not have.
        verify: read all layers before anything is sent, and compare them with their digests and the `diff_ids` of
            configs. Otherwise a damaged one is found by the registry.
        compression: `gzip`, `zstd` or `none`, of the plain layers of what `docker save` writes, while they are sent.
            Such layers are not looked for or mounted, and can't be sent again after a fault.
        level: of the compression; None: its usual one.
        spool: compress them first, into private temporary files: then they can be.
        tls: for https; by default the system's trust.
        resume: go on where an earlier push of this source to this reference was stopped, and keep what lets a later one
            do so, in the user's state directory. Uploads that are not finished then stay open at the registry; those
            that are no part of the source any more are given back once it is pushed.
        seed: for the jitter of retries; by default random.

    Raises:
        InvalidReferenceError: `reference`, a tag or a mount source is malformed.
        ContentError: the source is not what it has to be; `SourceNotFound` if it is not there.
        RegprotoError: the push failed; see `regproto` for the kinds.
    """
    planned = plan_source(
        source,
        reference,
        tags=tags,
        mount_from=mount_from,
        plain_http=plain_http,
        nondistributable=nondistributable,
        sparse=sparse,
        verify=verify,
        compression=compression,
        level=level,
        spool=spool,
    )
    options = Options(config=config, keychain=keychain, on_notice=on_notice, tls=tls, seed=seed)
    state = None
    try:
        if resume:
            state = open_push_state(state_name(source), planned.reference, on_notice)
        with _open_session(planned.registry_url, options, state) as run:
            result = run.push(planned.push)
            if state is not None and state.kept and result.outcome is PushOutcome.PUSHED:
                run.finish(run.session.cancel_kept(state.kept))
    finally:
        planned.close()
        if state is not None:
            state.close()
    raise_first_error([planned.explained(result)])
    return result


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
    raise_first_error(results)
    return results


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
    return _push_one(plan, options)


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
    return _push_one(plan_layer(layer, repository, mount_from=mount_from, plain_http=plain_http, spool=spool), options)


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
    return _push_one(plan, options)


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
    return _push_one(plan, options)


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
    with _open_session(plan.registry_url, options) as run:
        result = run.push(plan.push(run.push(plan.question)))
    raise_first_error([result])
    return result


def attach(
    reference: str,
    files: Iterable[Item],
    *,
    artifact_type: str = UNKNOWN_ARTIFACT,
    media_type: str = "",
    annotations: Mapping[str, str] | None = None,
    each: bool = False,
    plain_http: bool = False,
    **options: Unpack[Options],
) -> Attached:
    """Attach files (a signature, an SBOM, an attestation) to what is in a registry, and return when they are listed.

    The registry lists them by its referrers API. Where it has none, they are in a tag that every client rewrites. There
    no update is lost, of ours or of what ours has seen, as long as no client waits longer than 0.5 seconds between
    reading that list and writing it, and no write takes effect later than 1.5 seconds after it was sent
    (`Config.referrers_window_s`, `Config.referrers_settle_s`). It takes these two seconds to be sure; docs/referrers.md
    has the reasons.

    Args:
        reference: what to attach to: `host/repository:tag` or `host/repository@digest`. It has to be there.
        files: see `push_artifact`. Without any the attachment is its type and annotations alone.
        artifact_type: what kind of attachment it is, a media type.
        media_type: of the files that come without one.
        annotations: of the attachment; they are shown in the list.
        each: make one attachment of each file, not one of them all. The list is still written once.
        plain_http: see `push`.
        **options: see `Options`.

    Raises:
        InvalidReferenceError: `reference` is malformed.
        ContentError: a file can't be read, or what is told can't stand in a manifest; `SourceNotFound` if a file is
            not there.
        RegprotoError: it failed; see `regproto` for the kinds. The attachment may be there and not be listed.
    """
    attaching = plan_attach(
        reference,
        files,
        artifact_type=artifact_type,
        media_type=media_type,
        annotations=annotations,
        each=each,
        plain_http=plain_http,
    )
    with _open_session(attaching.registry_url, options) as run:
        subject = subject_of(run.push(attaching.question))
        plan, digests = attaching.push(subject)
        result = run.push(plan)
    raise_first_error([result])
    return Attached(subject=subject, digests=digests, result=result)


def referrers(
    reference: str, *, artifact_type: str = "", plain_http: bool = False, **options: Unpack[Options]
) -> Referrers:
    """List what is attached to something in a registry, by the referrers API or by the tag that stands in for it.

    Args:
        reference: see `attach`; with a digest it may be absent.
        artifact_type: list only attachments of this type.
        plain_http: see `push`.
        **options: see `Options`.

    Raises:
        InvalidReferenceError: `reference` is malformed.
        ContentError: `artifact_type` is no media type.
        RegprotoError: it failed.
    """
    listing = plan_referrers(reference, artifact_type=artifact_type, plain_http=plain_http)
    with _open_session(listing.registry_url, options) as run:
        question = listing.question
        digest = listing.reference.digest if question is None else subject_of(run.push(question)).digest
        assert digest is not None
        return referrers_of(run.push(listing.push(digest)))


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
    with _open_session(registry_url(registry, plain_http=plain_http), options) as run:
        [result] = run.finish(run.session.cancel_kept(hint))
    raise_first_error([result])
    return result


def push_planned(plans: Sequence[Planned], **options: Unpack[Options]) -> list[PushResult]:
    """Performs several plans for one registry at the same time, in one session, and closes their streams.

    Returns:
        Their results in the same order, those that failed with their `error`. None for none.
    """
    if not plans:
        return []
    try:
        with _open_session(plans[0].registry_url, options) as run:
            results = run.finish(*[run.session.submit(plan.push) for plan in plans])
    finally:
        for plan in plans:
            plan.close()
    return [plan.explained(result) for plan, result in zip(plans, results, strict=True)]


def _push_one(plan: Planned, options: Options) -> PushResult:
    """Performs a plan once the beginnings of its streams are found to be good. Raises its error."""
    try:
        plan.look()
    except BaseException:
        plan.close()
        raise
    results = push_planned([plan], **options)
    raise_first_error(results)
    return results[0]


@attrs.frozen
class _Run:
    """A session on a driver of its own, for one call."""

    session: Session
    _driver: Driver
    _options: Options
    _state: StateFile | None

    def finish(self, *push_ids: int) -> list[PushResult]:
        """Waits for pushes that were submitted; the results in the same order."""
        keychain = self._options.get("keychain") or default_keychain()
        on_notice = self._options.get("on_notice")
        results = self._driver.run(self.session, push_ids, keychain=keychain, on_notice=on_notice, keeper=self._state)
        return [results[push_id] for push_id in push_ids]

    def push(self, plan: PushPlan) -> PushResult:
        """Submits a plan, and waits for it."""
        [result] = self.finish(self.session.submit(plan))
        return result


@contextmanager
def _open_session(url: str, options: Options, state: StateFile | None = None) -> Iterator[_Run]:
    """A session for one call; with `state` it goes on where that was left, and keeps there what it would lose."""
    session = new_session(url, options, time.monotonic(), state.checkpoint if state is not None else None)
    with Driver(tls=options.get("tls")) as driver:
        yield _Run(session, driver, options, state)
