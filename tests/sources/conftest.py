"""A registry to push to, with each of the drivers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regproto.testing import FakeRegistry, RegistryOptions
from regproto_sync import Server


@pytest.fixture(params=["sync", "trio"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry(RegistryOptions(log_max=1_000))


@pytest.fixture
def server(registry: FakeRegistry) -> Iterator[Server]:
    with Server(registry) as server:
        yield server
