"""The examples do what they say: the drivers hold to all that their transports can, and time is simulated."""

from __future__ import annotations

import gc
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regproto import PushOutcome, Session
from regproto.testing import FakeRegistry, Verdict, check_driver
from regproto.testing._check_driver._bench import CHECKS, RunSession, no_credentials
from regproto_sync import plan_source
from regproto_sync._serve import Server

ROOT = Path(__file__).parents[1]

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


# httpx leaves the socket of a handshake that is cancelled to the garbage collector: that is what it lacks.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_driver_holds_to_all_that_its_transport_can(name: str) -> None:
    # What is lacking shows by waiting in vain, so patience is not for free.
    report = check_driver(driver(name), lacks=LACKS[name], patience_s=4.0)
    gc.collect()
    assert {f.name for f in report.findings if f.verdict is Verdict.LACKING} == LACKS[name]
    assert len(report.findings) == len(CHECKS)


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
