"""The public calls beside `push`: one layer, one manifest, tags, an artifact, several images at once.

Each does what the call of the same name in `regproto_sync` does, and takes the same arguments. Cancelled or
interrupted (KeyboardInterrupt), it gives back what it has open at the registry before it raises.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

import trio

from regproto import PushResult, Session, registry_url
from regproto_sync.client._entries import explained, first_failure
from regproto_sync.credentials.keychain import docker_keychain
from regproto_sync.sources.artifact import UNKNOWN_ARTIFACT
from regproto_sync.sources.image import ImageSource
from regproto_sync.sources.layers import Layer
from regproto_sync.sources.options import Options
from regproto_sync.sources.plans import Item, plan_artifact, plan_image, plan_layer, plan_manifest, plan_many, plan_tag
from regproto_sync.sources.source import Planned
from regproto_trio.client._attach import open_session
from regproto_trio.driver.driver import drive

T = TypeVar("T")


@trio.lowlevel.enable_ki_protection
async def push_planned(plans: Sequence[Planned], **options: Unpack[Options]) -> list[PushResult]:
    """Performs several plans for one registry at the same time, in one session: see `regproto_sync.push_planned`."""
    if not plans:
        return []
    seed = options.get("seed")
    seed = int.from_bytes(os.urandom(8)) if seed is None else seed
    session = Session(plans[0].registry_url, options.get("config"), seed=seed, now=trio.current_time())
    keychain = options.get("keychain") or docker_keychain(os.environ, Path(os.path.expanduser("~")))
    results: dict[int, PushResult] = {}
    ids = [session.submit(plan.push) for plan in plans]
    tls, on_notice = options.get("tls"), options.get("on_notice")
    try:
        async with drive(session, keychain=keychain, tls=tls, on_notice=on_notice) as driver:

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
        await _in_thread(partial(explained, plan, results[push_id])) for plan, push_id in zip(plans, ids, strict=True)
    ]


async def _in_thread(call: Callable[[], T]) -> T:
    """What reads files. Cancelled, it is waited for: nothing goes on once the call is over."""
    return await trio.to_thread.run_sync(call)


async def _one(plan: Planned, options: Options) -> PushResult:
    try:
        await _in_thread(plan.look)
    except BaseException:
        plan.close()
        raise
    results = await push_planned([plan], **options)
    first_failure(results)
    return results[0]


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
    return await _one(await _in_thread(plan), options)


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
    return await _one(await _in_thread(plan), options)


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
    return await _one(plan, options)


async def tag(
    reference: str, tags: Sequence[str], *, plain_http: bool = False, **options: Unpack[Options]
) -> PushResult:
    """Put further tags on what is in a registry already: see `regproto_sync.tag`."""
    plan = plan_tag(reference, tags, plain_http=plain_http)
    async with open_session(plan.registry_url, options) as driver:
        return await driver.push(plan.push(await driver.push(plan.question)))


@trio.lowlevel.enable_ki_protection
async def cancel_kept(
    hint: bytes, registry: str, *, plain_http: bool = False, **options: Unpack[Options]
) -> PushResult:
    """Give back the upload sessions that pushes which were stopped have left open: see `regproto_sync.cancel_kept`."""
    seed = options.get("seed")
    seed = int.from_bytes(os.urandom(8)) if seed is None else seed
    url = registry_url(registry, plain_http=plain_http)
    session = Session(url, options.get("config"), seed=seed, now=trio.current_time())
    keychain = options.get("keychain") or docker_keychain(os.environ, Path(os.path.expanduser("~")))
    push_id = session.cancel_kept(hint)
    tls, on_notice = options.get("tls"), options.get("on_notice")
    async with drive(session, keychain=keychain, tls=tls, on_notice=on_notice) as driver:
        result = await driver.finish(push_id)
    first_failure([result])
    return result


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
    return await _one(await _in_thread(plan), options)


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
    first_failure(results)
    return results
