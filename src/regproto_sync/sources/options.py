"""The options that every public call has in common."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import TypedDict

from regproto import Config, Credentials, NeedCredentials, NoCredentials, Notice, Session


class Options(TypedDict, total=False):
    """Keyword arguments of every call that talks to a registry; each may be left out."""

    config: Config | None
    """Limits and choices."""
    keychain: Callable[[NeedCredentials], Credentials | NoCredentials] | None
    """Asked for credentials when the registry wants some; by default docker's and podman's files."""
    on_notice: Callable[[Notice], None] | None
    """Told of progress, retries and the registry's warnings, one at a time: in a thread of the blocking driver's, or in
    trio's thread, where it must not block."""
    tls: ssl.SSLContext | None
    """For https; by default the system's trust."""
    seed: int | None
    """For the jitter of retries; by default random."""


def new_session(url: str, options: Options, now: float, checkpoint: bytes | None = None) -> Session:
    """A session for one call.

    Args:
        url: the registry's.
        options: the call's.
        now: by the driver's clock.
        checkpoint: kept of an earlier push, maybe empty: it goes on with that, and hands out what is to be kept of
            this one. None: it does neither.
    """
    seed = options.get("seed")
    return Session(
        url,
        options.get("config"),
        seed=int.from_bytes(os.urandom(8)) if seed is None else seed,
        now=now,
        hint=checkpoint or b"",
        save=checkpoint is not None,
    )
