"""For those who test registry clients, or embed this one: a registry that needs no network, and checks for drivers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from regproto.testing.driver_check.bench import RunSession as RunSession
    from regproto.testing.driver_check.report import DriverFaulty as DriverFaulty
    from regproto.testing.driver_check.report import DriverReport as DriverReport
    from regproto.testing.driver_check.report import Finding as Finding
    from regproto.testing.driver_check.report import Verdict as Verdict
    from regproto.testing.driver_check.run import check_driver as check_driver
    from regproto.testing.explorer.explorer import ANSWERS as ANSWERS
    from regproto.testing.explorer.explorer import Answer as Answer
    from regproto.testing.explorer.explorer import Exploration as Exploration
    from regproto.testing.explorer.explorer import Explorer as Explorer
    from regproto.testing.explorer.explorer import Violation as Violation
    from regproto.testing.explorer.explorer import explore as explore
    from regproto.testing.explorer.races import RaceResult as RaceResult
    from regproto.testing.explorer.races import Races as Races
    from regproto.testing.registry.exchange import Exchange as Exchange
    from regproto.testing.registry.fake import FakeRegistry as FakeRegistry
    from regproto.testing.registry.http import Content as Content
    from regproto.testing.registry.http import Reply as Reply
    from regproto.testing.registry.http import Request as Request
    from regproto.testing.registry.http import RequestHead as RequestHead
    from regproto.testing.registry.http import Wire as Wire
    from regproto.testing.registry.options import ALL_ACTIONS as ALL_ACTIONS
    from regproto.testing.registry.options import Auth as Auth
    from regproto.testing.registry.options import Etag as Etag
    from regproto.testing.registry.options import Fault as Fault
    from regproto.testing.registry.options import FaultKind as FaultKind
    from regproto.testing.registry.options import Grant as Grant
    from regproto.testing.registry.options import LocationStyle as LocationStyle
    from regproto.testing.registry.options import RegistryOptions as RegistryOptions
    from regproto.testing.registry.options import When as When
    from regproto.testing.registry.state import Session as Session
    from regproto.testing.registry.storage import MemoryStorage as MemoryStorage
    from regproto.testing.registry.storage import Storage as Storage
    from regproto.testing.simulation import AnswerOrder as AnswerOrder
    from regproto.testing.simulation import Simulation as Simulation
    from regproto.testing.simulation import SimulationStuck as SimulationStuck

_MODULES: Final = {
    "ALL_ACTIONS": "regproto.testing.registry.options",
    "ANSWERS": "regproto.testing.explorer.explorer",
    "Answer": "regproto.testing.explorer.explorer",
    "AnswerOrder": "regproto.testing.simulation",
    "Auth": "regproto.testing.registry.options",
    "Content": "regproto.testing.registry.http",
    "DriverFaulty": "regproto.testing.driver_check.report",
    "DriverReport": "regproto.testing.driver_check.report",
    "Etag": "regproto.testing.registry.options",
    "Exchange": "regproto.testing.registry.exchange",
    "Exploration": "regproto.testing.explorer.explorer",
    "Explorer": "regproto.testing.explorer.explorer",
    "FakeRegistry": "regproto.testing.registry.fake",
    "Fault": "regproto.testing.registry.options",
    "FaultKind": "regproto.testing.registry.options",
    "Finding": "regproto.testing.driver_check.report",
    "Grant": "regproto.testing.registry.options",
    "LocationStyle": "regproto.testing.registry.options",
    "MemoryStorage": "regproto.testing.registry.storage",
    "RaceResult": "regproto.testing.explorer.races",
    "Races": "regproto.testing.explorer.races",
    "RegistryOptions": "regproto.testing.registry.options",
    "Reply": "regproto.testing.registry.http",
    "Request": "regproto.testing.registry.http",
    "RequestHead": "regproto.testing.registry.http",
    "RunSession": "regproto.testing.driver_check.bench",
    "Session": "regproto.testing.registry.state",
    "Simulation": "regproto.testing.simulation",
    "SimulationStuck": "regproto.testing.simulation",
    "Storage": "regproto.testing.registry.storage",
    "Verdict": "regproto.testing.driver_check.report",
    "Violation": "regproto.testing.explorer.explorer",
    "When": "regproto.testing.registry.options",
    "Wire": "regproto.testing.registry.http",
    "check_driver": "regproto.testing.driver_check.run",
    "explore": "regproto.testing.explorer.explorer",
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
