"""The real registries as fixtures: one process of each kind per test file."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from registries import Registry, running

KINDS = ("docker-registry", "registry", "ggcr-registry", "fake")


@pytest.fixture(scope="module", params=KINDS)
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Each registry in turn; tests share it and keep to repositories of their own."""
    kind: str = request.param
    with running(kind, tmp_path_factory.mktemp(kind)) as started:
        yield started


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository that no other test uses."""
    return "tests/" + re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
