"""The scenarios for any registry, against real ones; what a registry does not support is named, and nothing fails."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from registries import ROOT, Registry

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


@pytest.mark.parametrize("name", ["asyncio_driver", "httpx_driver"])
def test_an_example_driver(name: str) -> None:
    """Over loopback, in a process of its own: httpx leaves some of its sockets to the garbage collector."""
    if name == "httpx_driver":
        pytest.importorskip("httpx", reason="NOT TESTED: examples/httpx_driver.py needs httpx, which is not installed")
    command = [sys.executable, "-m", "conformance", "--driver", f"examples.{name}:run_session", "--lacks", "streams"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("^  stream +not supported  streams$", done.stdout, re.MULTILINE)
