"""The scenarios for any registry, against real ones; what a registry does not support is named, and nothing fails."""

from __future__ import annotations

import re

import pytest
from registries import Registry

from conformance._cli import main

UNSUPPORTED = {
    "docker-registry": ["foreign-layers", "referrers-api", "single-post"],
    "registry": ["foreign-layers", "referrers-api", "single-post"],
    "ggcr-registry": ["mount"],
    "fake": [],
}


@pytest.mark.parametrize("driver", ["regproto_sync:run_session", "regproto_trio:run_session"])
def test_any_registry(registry: Registry, driver: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--registry", registry.address, "--driver", driver])
    shown = capsys.readouterr().out
    assert code == 0, shown
    lacks = re.search("it does not support (.*)", shown.splitlines()[0])
    assert (lacks[1].split(", ") if lacks else []) == UNSUPPORTED[registry.kind]
    rows = re.findall("^  (\\S+) +(holds|not supported)(?:  (\\S+))?$", shown, re.MULTILINE)
    assert len(rows) > 30
    assert {why for _, verdict, why in rows if verdict == "not supported"} <= set(UNSUPPORTED[registry.kind])
