"""The public functions of both drivers, called in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

import regproto_sync
import regproto_trio
from regproto import PushResult

Call = Callable[..., PushResult]


def calling(driver: str, name: str) -> Call:
    """The public function of a driver ("sync" or "trio"), called from here."""
    if driver == "sync":
        found: Call = getattr(regproto_sync, name)
        return found

    def call(*arguments: Any, **options: Any) -> PushResult:
        async def run() -> PushResult:
            with trio.fail_after(60):
                result: PushResult = await getattr(regproto_trio, name)(*arguments, **options)
                return result

        return trio.run(run)

    return call
