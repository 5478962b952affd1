"""The options that every public call has in common."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypedDict

from regproto import Config, Credentials, NeedCredentials, NoCredentials, Notice


class Options(TypedDict, total=False):
    """What may be given to every call that talks to a registry; nothing of it has to be."""

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
