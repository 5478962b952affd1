"""`attach` and `referrers` on trio."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Unpack

import trio

from regproto import Referrers, Session
from regproto_sync.credentials.keychain import docker_keychain
from regproto_sync.sources.artifact import UNKNOWN_ARTIFACT
from regproto_sync.sources.attachments import Attached, plan_attach, plan_referrers, referrers_of, subject_of
from regproto_sync.sources.options import Options
from regproto_sync.sources.plans import Item
from regproto_trio.driver.driver import Driver, drive


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
    async with open_session(attaching.registry_url, options) as driver:
        subject = subject_of(await driver.push(attaching.question))
        push, digests = attaching.push(subject)
        result = await driver.push(push)
    return Attached(subject=subject, digests=digests, result=result)


async def referrers(
    reference: str, *, artifact_type: str = "", plain_http: bool = False, **options: Unpack[Options]
) -> Referrers:
    """List what is attached to something in a registry: see `regproto_sync.referrers`."""
    listing = plan_referrers(reference, artifact_type=artifact_type, plain_http=plain_http)
    async with open_session(listing.registry_url, options) as driver:
        question = listing.question
        digest = listing.reference.digest
        if question is not None:
            digest = subject_of(await driver.push(question)).digest
        assert digest is not None
        return referrers_of(await driver.push(listing.push(digest)))


@asynccontextmanager
async def open_session(url: str, options: Options) -> AsyncIterator[Driver]:
    """One session for several plans, each made of what came of the one before."""
    seed = options.get("seed")
    seed = int.from_bytes(os.urandom(8)) if seed is None else seed
    session = Session(url, options.get("config"), seed=seed, now=trio.current_time())
    keychain = options.get("keychain") or docker_keychain(os.environ, Path(os.path.expanduser("~")))
    async with drive(session, keychain=keychain, tls=options.get("tls"), on_notice=options.get("on_notice")) as driver:
        yield driver
