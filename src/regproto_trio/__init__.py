"""`regproto` on trio: `push` for one image and its kin, `drive` for tasks that share a session."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from regproto_trio.client import attach as attach
    from regproto_trio.client import cancel_kept as cancel_kept
    from regproto_trio.client import push as push
    from regproto_trio.client import push_artifact as push_artifact
    from regproto_trio.client import push_image as push_image
    from regproto_trio.client import push_layer as push_layer
    from regproto_trio.client import push_many as push_many
    from regproto_trio.client import push_planned as push_planned
    from regproto_trio.client import put_manifest as put_manifest
    from regproto_trio.client import referrers as referrers
    from regproto_trio.client import tag as tag
    from regproto_trio.driver.driver import Driver as Driver
    from regproto_trio.driver.driver import drive as drive
    from regproto_trio.driver.driver import run_session as run_session

_MODULES: Final = {
    "Driver": "regproto_trio.driver.driver",
    "attach": "regproto_trio.client",
    "cancel_kept": "regproto_trio.client",
    "drive": "regproto_trio.driver.driver",
    "push": "regproto_trio.client",
    "push_artifact": "regproto_trio.client",
    "push_image": "regproto_trio.client",
    "push_layer": "regproto_trio.client",
    "push_many": "regproto_trio.client",
    "push_planned": "regproto_trio.client",
    "put_manifest": "regproto_trio.client",
    "referrers": "regproto_trio.client",
    "run_session": "regproto_trio.driver.driver",
    "tag": "regproto_trio.client",
}
"""The module of each public name, imported when the name is first used."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
