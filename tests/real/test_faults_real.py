"""One transient fault at each request of a push into real registries: the small edition of scripts/faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from fault_runs import SHAPES, Runs, Tally, by_sync, by_trio, real


@pytest.mark.parametrize("kind", ["docker-registry", "registry", "ggcr-registry"])
def test_one_fault_anywhere_is_borne(kind: str, tmp_path: Path) -> None:
    layout = SHAPES["image"](tmp_path / "image")
    (tmp_path / "registry").mkdir()
    with real(kind, tmp_path / "registry") as target:
        runs = Runs(target, {"sync": by_sync, "trio": by_trio}, {"image": layout}, jobs=8)
        for client, step in (("sync", 4), ("trio", 8)):
            tally = Tally(tuple(runs.run(runs.cells(client, "image", step=step))), 0.0)
            assert tally.lied == 0
            assert tally.succeeded == len(tally.counted), list(tally.failures())
