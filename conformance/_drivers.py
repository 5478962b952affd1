"""The blocking driver, as `--driver` takes it: `--driver conformance._drivers:sync`."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from conformance._http import Keychain
from regproto import PushResult
from regproto_sync import Driver


def sync(
    session: Any, push_ids: Iterable[int], *, keychain: Keychain, tls: ssl.SSLContext | None = None
) -> Mapping[int, PushResult]:
    """Runs `session` until these pushes are finished."""
    with Driver(tls=tls) as driver:
        return driver.run(session, push_ids, keychain=keychain)
