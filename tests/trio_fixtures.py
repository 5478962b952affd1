"""Fixtures for the tests of the trio driver (a pytest plugin)."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme

from trio_driving import Ends

pytest_plugins = ["sync_fixtures"]


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(params=["tcp", "tls"])
def ends(request: pytest.FixtureRequest, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> Ends:
    return Ends(server_tls, client_tls) if request.param == "tls" else Ends()


def open_things() -> tuple[list[str], int]:
    """Descriptors, and threads but for trio's idle ones."""
    busy = sorted(t.name for t in threading.enumerate() if not t.name.startswith("Trio thread"))
    return busy, len(os.listdir("/proc/self/fd"))


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """The test leaves no thread and no descriptor behind."""
    before = open_things()
    yield
    assert open_things() == before
