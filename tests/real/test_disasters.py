"""What befalls a registry or a source in the middle of a push; scripts/soak has the figures of all registries."""

from __future__ import annotations

from pathlib import Path

import pytest

from fault_runs import Client, by_sync, by_trio
from soak_runs import MB, disk_full, restarted, source_truncated

CLIENTS = [pytest.param(by_sync, id="sync"), pytest.param(by_trio, id="trio")]


@pytest.mark.parametrize(("kind", "client"), [("docker-registry", by_sync), ("registry", by_trio), ("fake", by_sync)])
def test_a_registry_that_is_killed_and_comes_back(kind: str, client: Client, tmp_path: Path) -> None:
    done = restarted(kind, client, tmp_path, size=16 * MB, away_s=0.5)
    assert (done.said, done.there) == ("", True)


@pytest.mark.parametrize("kind", ["docker-registry", "registry", "fake"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_registry_whose_disk_is_full(kind: str, client: Client, tmp_path: Path) -> None:
    try:
        done = disk_full(kind, client, tmp_path, size=6 * MB)
    except OSError as error:
        pytest.skip(str(error))
    assert done.said.startswith(("RegistryError: ", "TransportError: ")) and not done.there
    assert (done.again, done.again_there) == ("", True)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_source_that_is_truncated_while_it_is_sent(client: Client, tmp_path: Path) -> None:
    done = source_truncated("docker-registry", client, tmp_path)
    assert done.said.startswith("ContentError: ") and not done.there
    assert (done.again, done.again_there) == ("", True)
