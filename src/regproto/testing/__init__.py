"""For those who test registry clients, or embed this one: a registry that needs no network, and checks for drivers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from regproto.testing._explorer import ANSWERS, Answer, Exploration, Explorer, Violation, explore
from regproto.testing._options import (
    ALL_ACTIONS,
    Auth,
    Etag,
    Fault,
    FaultKind,
    Grant,
    LocationStyle,
    RegistryOptions,
    When,
)
from regproto.testing._races import RaceResult, Races
from regproto.testing._registry import FakeRegistry
from regproto.testing._registry_exchange import Exchange
from regproto.testing._registry_state import Session
from regproto.testing._registry_wire import Content, Reply, Request, RequestHead, Wire
from regproto.testing._storage import MemoryStorage, Storage

if TYPE_CHECKING:
    from regproto.testing._check_driver._bench import RunSession as RunSession
    from regproto.testing._check_driver._report import DriverFaulty as DriverFaulty
    from regproto.testing._check_driver._report import DriverReport as DriverReport
    from regproto.testing._check_driver._report import Finding as Finding
    from regproto.testing._check_driver._report import Verdict as Verdict
    from regproto.testing._check_driver._run import check_driver as check_driver

_CHECK_DRIVER: Final = {
    "DriverFaulty": "_report",
    "DriverReport": "_report",
    "Finding": "_report",
    "RunSession": "_bench",
    "Verdict": "_report",
    "check_driver": "_run",
}
"""What does I/O: it is imported when it is asked for."""

__all__ = [
    "ALL_ACTIONS",
    "ANSWERS",
    "Answer",
    "Auth",
    "Content",
    "DriverFaulty",
    "DriverReport",
    "Etag",
    "Exchange",
    "Exploration",
    "Explorer",
    "FakeRegistry",
    "Fault",
    "FaultKind",
    "Finding",
    "Grant",
    "LocationStyle",
    "MemoryStorage",
    "RaceResult",
    "Races",
    "RegistryOptions",
    "Reply",
    "Request",
    "RequestHead",
    "RunSession",
    "Session",
    "Storage",
    "Verdict",
    "Violation",
    "When",
    "Wire",
    "check_driver",
    "explore",
]


def __getattr__(name: str) -> object:
    home = _CHECK_DRIVER.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}._check_driver.{home}"), name)
    globals()[name] = value
    return value
