"""For those who test registry clients, or embed this one: a registry that needs no network."""

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
from regproto.testing._registry import FakeRegistry
from regproto.testing._registry_exchange import Exchange
from regproto.testing._registry_state import Session
from regproto.testing._registry_wire import Content, Reply, Request, RequestHead, Wire
from regproto.testing._storage import MemoryStorage, Storage

__all__ = [
    "ANSWERS",
    "Answer",
    "Exploration",
    "Explorer",
    "Violation",
    "explore",
    "ALL_ACTIONS",
    "Auth",
    "Content",
    "Etag",
    "Exchange",
    "FakeRegistry",
    "Fault",
    "FaultKind",
    "Grant",
    "LocationStyle",
    "MemoryStorage",
    "RegistryOptions",
    "Reply",
    "Request",
    "RequestHead",
    "Session",
    "Storage",
    "When",
    "Wire",
]
