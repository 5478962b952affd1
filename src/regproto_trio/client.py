"""The public calls on trio: those of `regproto_sync`, with the same arguments, to be awaited.

Cancelled or interrupted (KeyboardInterrupt), a call gives back what it has open at the registry, for at most ten
seconds, before it raises. `drive` has that time as an argument, and shares connections and tokens among pushes.

Two arguments differ: `keychain` is asked in a thread, and `on_notice` is told in trio's thread, so it must not block.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, Unpack

import trio

from regproto import Config, Notice, PushOutcome, PushResult, Referrers, Session, registry_url
from regproto_sync.credentials.keychain import default_keychain
from regproto_sync.sources.artifact import UNKNOWN_ARTIFACT
from regproto_sync.sources.attachments import Attached, plan_attach, plan_referrers, referrers_of, subject_of
from regproto_sync.sources.image import ImageSource
from regproto_sync.sources.layers import Layer
from regproto_sync.sources.options import Options, new_session
from regproto_sync.sources.plans import Item, plan_artifact, plan_image, plan_layer, plan_manifest, plan_many, plan_tag
from regproto_sync.sources.source import Planned, plan_source, raise_first_error, state_name
from regproto_sync.state.checkpoint_files import StateFile, open_push_state
from regproto_trio.driver.driver import Driver, Keychain, drive

T = TypeVar("T")


@trio.lowlevel.enable_ki_protection
async def push(
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
    """Push an image or index, and return when it is there: see `regproto_sync.push`."""
    planned = await _in_thread(
        partial(
            plan_source,
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
    )
    options = Options(config=config, keychain=keychain, on_notice=on_notice, tls=tls, seed=seed)
    state = None
    try:
        if resume:
            state = await _in_thread(partial(_open_state, state_name(source), planned, on_notice))
        async with _open_session(planned.registry_url, options, state) as (session, driver):
            result = await driver.finish(session.submit(planned.push))
            if state is not None and state.kept and result.outcome is PushOutcome.PUSHED:
                await driver.finish(session.cancel_kept(state.kept))
    finally:
        planned.close()
        if state is not None:
            state.close()
    raise_first_error([await _in_thread(partial(planned.explained, result))])
    return result


async def push_many(
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
    """Push several images into one registry at the same time: see `regproto_sync.push_many`."""
    plan = partial(
        plan_many,
        images,
        tags=tags,
        mount_from=mount_from,
        plain_http=plain_http,
        nondistributable=nondistributable,
        sparse=sparse,
        verify=verify,
    )
    results = await push_planned(await _in_thread(plan), **options)
    raise_first_error(results)
    return results


async def push_image(
    image_config: Mapping[str, Any],
    layers: Sequence[Layer],
    reference: str,
    *,
    tags: Sequence[str] = (),
    plain_http: bool = False,
    spool: bool = False,
    **options: Unpack[Options],
) -> PushResult:
    """Push an image of layers that are made on their way: see `regproto_sync.push_image`."""
    plan = partial(plan_image, image_config, layers, reference, tags=tags, plain_http=plain_http, spool=spool)
    return await _push_one(await _in_thread(plan), options)


async def push_layer(
    layer: Item | Layer,
    repository: str,
    *,
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
    spool: bool = False,
    **options: Unpack[Options],
) -> PushResult:
    """Push one layer, for a manifest that comes later: see `regproto_sync.push_layer`."""
    plan = partial(plan_layer, layer, repository, mount_from=mount_from, plain_http=plain_http, spool=spool)
    return await _push_one(await _in_thread(plan), options)


async def push_artifact(
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
    """Push files as an artifact: see `regproto_sync.push_artifact`."""
    plan = partial(
        plan_artifact,
        files,
        reference,
        artifact_type=artifact_type,
        annotations=annotations,
        tags=tags,
        mount_from=mount_from,
        plain_http=plain_http,
    )
    return await _push_one(await _in_thread(plan), options)


async def put_manifest(
    content: bytes,
    reference: str,
    *,
    media_type: str = "",
    tags: Sequence[str] = (),
    plain_http: bool = False,
    **options: Unpack[Options],
) -> PushResult:
    """Put a manifest or index alone: see `regproto_sync.put_manifest`."""
    plan = plan_manifest(content, reference, media_type=media_type, tags=tags, plain_http=plain_http)
    return await _push_one(plan, options)


async def tag(
    reference: str, tags: Sequence[str], *, plain_http: bool = False, **options: Unpack[Options]
) -> PushResult:
    """Put further tags on what is in a registry already: see `regproto_sync.tag`."""
    plan = plan_tag(reference, tags, plain_http=plain_http)
    async with _open_session(plan.registry_url, options) as (_, driver):
        return await driver.push(plan.push(await driver.push(plan.question)))


async def attach(
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
    """Attach files to what is in a registry, and return when they are listed: see `regproto_sync.attach`.

    Where the registry has no referrers API no update of the list is lost as long as no client waits longer than 0.5
    seconds between reading it and writing it, and no write takes effect later than 1.5 seconds after it was sent.
    """
    plan = partial(
        plan_attach,
        reference,
        files,
        artifact_type=artifact_type,
        media_type=media_type,
        annotations=annotations,
        each=each,
        plain_http=plain_http,
    )
    attaching = await trio.to_thread.run_sync(plan, abandon_on_cancel=True)
    async with _open_session(attaching.registry_url, options) as (_, driver):
        subject = subject_of(await driver.push(attaching.question))
        push, digests = attaching.push(subject)
        result = await driver.push(push)
    return Attached(subject=subject, digests=digests, result=result)


async def referrers(
    reference: str, *, artifact_type: str = "", plain_http: bool = False, **options: Unpack[Options]
) -> Referrers:
    """List what is attached to something in a registry: see `regproto_sync.referrers`."""
    listing = plan_referrers(reference, artifact_type=artifact_type, plain_http=plain_http)
    async with _open_session(listing.registry_url, options) as (_, driver):
        question = listing.question
        digest = listing.reference.digest
        if question is not None:
            digest = subject_of(await driver.push(question)).digest
        assert digest is not None
        return referrers_of(await driver.push(listing.push(digest)))


@trio.lowlevel.enable_ki_protection
async def cancel_kept(
    hint: bytes, registry: str, *, plain_http: bool = False, **options: Unpack[Options]
) -> PushResult:
    """Give back the upload sessions that pushes which were stopped have left open: see `regproto_sync.cancel_kept`."""
    async with _open_session(registry_url(registry, plain_http=plain_http), options) as (session, driver):
        result = await driver.finish(session.cancel_kept(hint))
    raise_first_error([result])
    return result


@trio.lowlevel.enable_ki_protection
async def push_planned(plans: Sequence[Planned], **options: Unpack[Options]) -> list[PushResult]:
    """Performs several plans for one registry at the same time, in one session: see `regproto_sync.push_planned`."""
    if not plans:
        return []
    results: dict[int, PushResult] = {}
    try:
        async with _open_session(plans[0].registry_url, options) as (session, driver):
            ids = [session.submit(plan.push) for plan in plans]

            @trio.lowlevel.enable_ki_protection
            async def finish(push_id: int) -> None:
                results[push_id] = await driver.finish(push_id)

            async with trio.open_nursery() as nursery:
                for push_id in ids:
                    nursery.start_soon(finish, push_id)
    finally:
        for plan in plans:
            plan.close()
    return [
        await _in_thread(partial(plan.explained, results[push_id])) for plan, push_id in zip(plans, ids, strict=True)
    ]


async def _push_one(plan: Planned, options: Options) -> PushResult:
    """Performs a plan once the beginnings of its streams are found to be good. Raises its error."""
    try:
        await _in_thread(plan.look)
    except BaseException:
        plan.close()
        raise
    results = await push_planned([plan], **options)
    raise_first_error(results)
    return results[0]


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def _open_session(
    url: str, options: Options, state: StateFile | None = None
) -> AsyncIterator[tuple[Session, Driver]]:
    """A session for one call; with `state` it goes on where that was left, and keeps there what it would lose."""
    session = new_session(url, options, trio.current_time(), state.checkpoint if state is not None else None)
    async with drive(
        session,
        keychain=options.get("keychain") or default_keychain(),
        tls=options.get("tls"),
        on_notice=options.get("on_notice"),
        keeper=state,
    ) as driver:
        yield session, driver


def _open_state(name: str, planned: Planned, on_notice: Callable[[Notice], None] | None) -> StateFile | None:
    """The state of a push, opened in a thread; `on_notice` is called in trio's."""

    def tell(notice: Notice) -> None:
        if on_notice is not None:
            trio.from_thread.run_sync(on_notice, notice)

    return open_push_state(name, planned.reference, tell)


async def _in_thread(call: Callable[[], T]) -> T:
    """The value of a call that reads files. Cancelled, it is waited for: nothing goes on once the call is over."""
    return await trio.to_thread.run_sync(call)
