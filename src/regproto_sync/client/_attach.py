"""`attach` and `referrers` on blocking sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

from regproto import PushPlan, PushResult, Referrers, Session
from regproto_sync.credentials.keychain import docker_keychain
from regproto_sync.driver.driver import Driver
from regproto_sync.sources.artifact import UNKNOWN_ARTIFACT
from regproto_sync.sources.attachments import Attached, plan_attach, plan_referrers, referrers_of, subject_of
from regproto_sync.sources.options import Options
from regproto_sync.sources.plans import Item


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
    with open_session(attaching.registry_url, options) as ask:
        subject = subject_of(ask(attaching.question))
        push, digests = attaching.push(subject)
        result = ask(push)
    if result.error is not None:
        raise result.error
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
    with open_session(listing.registry_url, options) as ask:
        question = listing.question
        digest = listing.reference.digest if question is None else subject_of(ask(question)).digest
        assert digest is not None
        return referrers_of(ask(listing.push(digest)))


@contextmanager
def open_session(url: str, options: Options) -> Iterator[Callable[[PushPlan], PushResult]]:
    """One session for several plans, each made of what came of the one before."""
    seed = options.get("seed")
    seed = int.from_bytes(os.urandom(8)) if seed is None else seed
    session = Session(url, options.get("config"), seed=seed, now=time.monotonic())
    keychain = options.get("keychain") or docker_keychain(os.environ, Path(os.path.expanduser("~")))
    with Driver(tls=options.get("tls")) as driver:

        def ask(push: PushPlan) -> PushResult:
            push_id = session.submit(push)
            return driver.run(session, {push_id}, keychain=keychain, on_notice=options.get("on_notice"))[push_id]

        yield ask
