"""The one public call: push a source to a reference, and wait for it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import trio

from regproto import Config, Notice, PushResult, RegprotoError, Session
from regproto_sync.credentials.keychain import docker_keychain
from regproto_sync.sources.image import ImageSource
from regproto_sync.sources.source import plan_source
from regproto_sync.state.checkpoint_files import state_folder
from regproto_trio.driver.driver import Keychain, drive


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
    """Push an image or index, and return when it is there.

    Cancelled or interrupted (KeyboardInterrupt), it gives back what it has open at the registry, for at most ten
    seconds, before it raises. `drive` has that time as an argument, and shares connections and tokens among pushes.

    Args:
        source: an OCI layout folder, an archive (an OCI layout in a tar, or what `docker save` writes), as a string
            also with a name where there are several images in it, or an `ImageSource`: see `open_source`.
        reference: `host/repository:tag`, or `host/repository@digest`, which then must be the source's. The tag is
            `latest` where neither is given.
        tags: further tags.
        mount_from: repositories that may hold some of the blobs already, each `repository` or `host/repository`.
        plain_http: use http; for localhost and loopback addresses that is the default.
        config: limits and choices.
        keychain: asked for credentials when the registry wants some, in a thread; by default docker's and podman's
            files.
        on_notice: told of progress, retries and the registry's warnings, one at a time, in trio's thread: it must not
            block.
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
    planned = await trio.to_thread.run_sync(
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
    seed = int.from_bytes(os.urandom(8)) if seed is None else seed
    home = Path(os.path.expanduser("~"))
    keychain = keychain or docker_keychain(os.environ, home)
    state = None
    if resume:

        def tell(notice: Notice) -> None:
            if on_notice is not None:
                trio.from_thread.run_sync(on_notice, notice)

        open_state = partial(planned.open_state, source, state_folder(os.environ, home), tell)
        state = await trio.to_thread.run_sync(open_state)
    hint, save = (state.hint, True) if state is not None else (b"", False)
    session = Session(planned.registry_url, config, seed=seed, now=trio.current_time(), hint=hint, save=save)
    try:
        async with drive(session, keychain=keychain, tls=tls, on_notice=on_notice, keeper=state) as driver:
            result = await driver.push(planned.push)
            if state is not None and state.kept:
                await driver.finish(session.cancel_kept(state.kept))
    except RegprotoError as error:
        explained = await trio.to_thread.run_sync(planned.explain, error)
        if explained is error:
            raise
        raise explained from error
    finally:
        planned.close()
        if state is not None:
            state.close()
    return result
