"""Fixtures for the tests of the blocking driver (a pytest plugin)."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from driving import BIG
from regproto_sync.driver.driver import Driver


def open_things() -> tuple[list[str], int]:
    # trio keeps its own idle threads for some seconds; those of earlier tests end when they like.
    names = sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith("Trio thread"))
    return names, len(os.listdir("/proc/self/fd"))


@pytest.fixture
def nothing_leaks() -> Iterator[None]:
    """The test leaves no thread and no descriptor behind."""
    before = open_things()
    yield
    assert open_things() == before


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        yield driver


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def tls_driver(authority: trustme.CA) -> Iterator[Driver]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with Driver(tls=context) as driver:
        yield driver


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer"
    path.write_bytes(os.urandom(BIG))
    return path
