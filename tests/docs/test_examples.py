"""The examples do what they say: the drivers hold to all that their transports can, and time is simulated."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regproto import PushOutcome, Session
from regproto.testing import FakeRegistry
from regproto.testing.driver_check.bench import RunSession, no_credentials
from regproto.testing.driver_check.run import CHECKS
from regproto_sync import plan_source
from regproto_sync.server.server import Server

ROOT = Path(__file__).parents[2]

STREAMS = frozenset({"streams", "stream fails", "drafts"})
LACKS: dict[str, frozenset[str]] = {
    "asyncio_driver": STREAMS | {"TLS cut"},
    "httpx_driver": STREAMS | {"early answer", "answer after a write error", "TLS cut", "abort, in the handshake"},
}


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(params=LACKS)
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "httpx_driver":
        pytest.importorskip("httpx", reason="NOT TESTED: examples/httpx_driver.py needs httpx, which is not installed")
    yield request.param


def driver(name: str) -> RunSession:
    run_session: RunSession = importlib.import_module(f"examples.{name}").run_session
    return run_session


def test_a_driver_holds_to_all_that_its_transport_can(name: str) -> None:
    # In a process of its own, for httpx leaves a socket to the garbage collector: that is one thing it lacks. What is
    # lacking shows by waiting in vain, so patience is not for free.
    command = [sys.executable, "-m", "regproto.testing", "check-driver", f"examples.{name}:run_session"]
    lacks = [word for check in sorted(LACKS[name]) for word in ("--lacks", check)]
    done = subprocess.run(
        [*command, *lacks, "--patience", "4"], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"^(\S.*?) +lacking  ", done.stdout, re.MULTILINE)) == LACKS[name]
    passed, lacking = len(CHECKS) - len(LACKS[name]), len(LACKS[name])
    assert done.stdout.endswith(f"run_session: {passed} passed, {lacking} lacking, 0 failed\n")


def test_what_it_lacks_is_told_in_its_file(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text()
    assert set(re.findall(r'--lacks "([^"]*)"', text)) == LACKS[name]


def test_a_driver_pushes(name: str, tmp_path: Path) -> None:
    from images import image_layout, root_digest

    source = image_layout(tmp_path / "layout", (2_000, 300_000))
    with Server(FakeRegistry()) as server:
        planned = plan_source(source, f"127.0.0.1:{server.port}/team/app:1.0")
        session = Session(planned.registry_url)
        push_id = session.submit(planned.push)
        result = driver(name)(session, [push_id], keychain=no_credentials)[push_id]
        assert result.outcome is PushOutcome.PUSHED
        assert server.registry.tags("team/app") == {"1.0": root_digest(source)}


def test_simulated_pushes() -> None:
    command = [sys.executable, "examples/simulate.py"]
    outputs = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
        for _ in range(2)
    ]
    figures = [re.match(r"1000 pushes, (\d+) requests, (\S+) MB: (\S+) s simulated, ", output) for output in outputs]
    assert figures[0] is not None and figures[1] is not None, outputs
    assert figures[0].groups() == figures[1].groups(), "the same every time"
