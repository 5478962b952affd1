"""`kill -9` in the middle of a layer, and the same command again, against real registries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_runs import crash, large_layout
from registries import Registry, running

MB = 1_000_000
SIZE = 40 * MB
ON_ITS_WAY = 8 * MB
"""Socket buffers of both connections, and what the line holds."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A layout with one layer of 40 MB, and that layer's digest."""
    layout = tmp_path_factory.mktemp("crash") / "image"
    return layout, large_layout(layout, SIZE)


@pytest.fixture(scope="module", params=["registry", "fake", "docker-registry"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with a disk."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as registry:
        yield registry


@pytest.mark.parametrize("driver", ["sync", "trio"])
@pytest.mark.parametrize("at", [10 * MB, 30 * MB])
def test_killed_and_the_same_command_again(
    kept: Registry, image: tuple[Path, str], repository: str, driver: str, at: int
) -> None:
    done = crash(kept, *image, repository, at_bytes=at, bytes_per_s=60 * MB, driver=driver)
    assert (done.code, done.exact, done.left) == (0, True, 0), done
    if kept.kind == "docker-registry":
        # It drops a session whose request was cut: the blob goes again, and that is said.
        assert "restarted" in done.said and "loses an upload session" in done.said
        assert done.second_bytes >= SIZE
    else:
        assert "resumed" in done.said and done.resumed_bytes >= at - ON_ITS_WAY
        assert done.again_bytes(SIZE) <= ON_ITS_WAY
