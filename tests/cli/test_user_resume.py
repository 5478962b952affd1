"""Pushes that are stopped, by a failure or by `kill -9`, and go on, with both drivers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import regproto_sync
import regproto_trio
from driving import nobody
from images import blob_path, image_layout, layers_of, root_digest
from regproto import (
    Config,
    ContentError,
    Notice,
    Output,
    PushOutcome,
    PushResult,
    RegprotoError,
    Save,
    Session,
    Status,
    TransportError,
)
from regproto.testing import Exchange, FakeRegistry, Fault, FaultKind, RegistryOptions, RequestHead, When
from regproto_sync import Server
from regproto_sync.state.checkpoint_files import open_state

MB = 1_000_000
DRIVERS = ["sync", "trio"]


# --- pushes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's pushes keep their state."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "regproto"


def call(driver: str, *arguments: Any, **options: Any) -> Any:
    if driver == "sync":
        return regproto_sync.push(*arguments, **options)

    async def main() -> Any:
        with trio.fail_after(30):
            return await regproto_trio.push(*arguments, **options)

    return trio.run(main)


CUT = Fault(kind=FaultKind.DROP, when=When.IN_BODY, method="PATCH", after_bytes=5 * MB)
IMPATIENT = Config(attempts=2, backoff_base_s=0.01, max_exchanges=1)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_failed_push_is_gone_on_with(tmp_path: Path, state: Path, driver: str) -> None:
    layout = image_layout(tmp_path / "layout", [20 * MB])
    [layer] = layers_of(layout, root_digest(layout))
    away = Fault(kind=FaultKind.STATUS, status=503, path="uploads/", at=4, count=99)  # from the cut on
    fake = FakeRegistry(RegistryOptions(faults=[CUT, away]))
    news: list[Notice] = []
    with Server(fake) as server:
        reference = f"127.0.0.1:{server.port}/app:1"
        with pytest.raises(RegprotoError):
            call(driver, layout, reference, resume=True, config=IMPATIENT)
        [file] = state.glob("*.json")
        assert json.loads(file.read_bytes())["uploads"][0]["digest"] == layer
        fake.options = RegistryOptions()
        fake._fault_matches = []
        before = fake.bytes_received
        result = call(driver, layout, reference, resume=True, config=IMPATIENT, on_notice=news.append)
    assert result.outcome is PushOutcome.PUSHED and fake.tags("app") == {"1": root_digest(layout)}
    assert fake.bytes_received - before < 16 * MB
    [told] = [n for n in news if n.status is Status.RESUMED]
    assert (told.subject, told.sent_bytes) == (layer, 5 * MB)
    assert list(state.iterdir()) == [] and fake.sessions("app") == ()


@pytest.mark.parametrize("driver", DRIVERS)
def test_whoever_has_no_lock_pushes_all_the_same(tmp_path: Path, state: Path, driver: str) -> None:
    layout = image_layout(tmp_path / "layout")
    news: list[Notice] = []
    with Server(FakeRegistry()) as server:
        reference = f"127.0.0.1:{server.port}/app:1"
        held = open_state(state, str(layout.resolve()), reference, pytest.fail)
        assert held is not None
        result = call(driver, layout, reference, resume=True, on_notice=news.append)
        held.close()
    assert result.outcome is PushOutcome.PUSHED
    assert any(n.status is Status.NOT_RESUMED and "under way" in n.text for n in news)


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_no_part_of_the_source_any_more_is_given_back_once_it_is_pushed(
    tmp_path: Path, state: Path, driver: str
) -> None:
    layout = image_layout(tmp_path / "layout", [20 * MB])
    away = Fault(kind=FaultKind.STATUS, status=503, path="uploads/", at=4, count=99)  # from the cut on
    fake = FakeRegistry(RegistryOptions(faults=[CUT, away]))
    news: list[Notice] = []
    with Server(fake) as server:
        reference = f"127.0.0.1:{server.port}/app:1"
        with pytest.raises(RegprotoError):
            call(driver, layout, reference, resume=True, config=IMPATIENT)
        assert len(fake.sessions("app")) == 1
        fake.options = RegistryOptions()
        fake._fault_matches = []
        shutil.rmtree(layout)
        image_layout(tmp_path / "layout", [1000])
        result = call(driver, layout, reference, resume=True, config=IMPATIENT, on_notice=news.append)
    assert result.outcome is PushOutcome.PUSHED
    assert any(n.status is Status.NOT_RESUMED and "no part of what was pushed" in n.text for n in news)
    assert fake.sessions("app") == () and list(state.iterdir()) == []


def cancel(driver: str, hint: bytes, registry: str) -> PushResult:
    if driver == "sync":
        return regproto_sync.cancel_kept(hint, registry)

    async def main() -> PushResult:
        with trio.fail_after(30):
            return await regproto_trio.cancel_kept(hint, registry)

    return trio.run(main)


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_kept_is_given_back_on_request(tmp_path: Path, state: Path, driver: str) -> None:
    layout = image_layout(tmp_path / "layout", [20 * MB])
    away = Fault(kind=FaultKind.STATUS, status=503, path="uploads/", at=4, count=99)
    fake = FakeRegistry(RegistryOptions(faults=[CUT, away]))
    with Server(fake) as server:
        registry = f"127.0.0.1:{server.port}"
        with pytest.raises(RegprotoError):
            call(driver, layout, f"{registry}/app:1", resume=True, config=IMPATIENT)
        [file] = state.glob("*.json")
        with pytest.raises(RegprotoError, match="503"):
            cancel(driver, file.read_bytes(), registry)
        assert len(fake.sessions("app")) == 1
        fake.options = RegistryOptions()
        fake._fault_matches = []
        assert cancel(driver, file.read_bytes(), registry).left_open == 0
        with pytest.raises(ContentError, match="can't be used"):
            cancel(driver, file.read_bytes(), "127.0.0.1:1")
    assert fake.sessions("app") == ()


# --- the command ------------------------------------------------------------------------------------------------


class Slow(FakeRegistry):
    """Tells when a request's body has come this far."""

    def __init__(self, reached_bytes: int, then: Callable[[], None], **options: Any) -> None:
        super().__init__(RegistryOptions(log_max=1_000, **options))
        self.reached_bytes, self.then = reached_bytes, then

    def open(self, head: RequestHead, now: float = 0.0, fault: Fault | None = None) -> Exchange:
        exchange = super().open(head, now, fault)
        feed = exchange.feed

        def counted(data: bytes) -> None:
            feed(data)
            if exchange._received >= self.reached_bytes:
                self.then()

        exchange.feed = counted  # type: ignore[method-assign]
        return exchange


def killed_and_again(
    tmp_path: Path, driver: str, **options: Any
) -> tuple[Slow, Path, subprocess.CompletedProcess[str], int]:
    """The command, killed when the registry has 5 MB of 20, and again; what the second one sent."""
    layout = image_layout(tmp_path / "layout", [20 * MB])
    started: list[subprocess.Popen[bytes]] = []
    fake = Slow(5 * MB, lambda: started[0].send_signal(signal.SIGKILL), **options)
    with Server(fake) as server:
        command = [sys.executable, "-m", "regproto_sync", "push", "--resume", "--driver", driver]
        command += [str(layout), f"127.0.0.1:{server.port}/app:1"]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        assert started[0].wait(30) == -signal.SIGKILL
        fake.reached_bytes = 10**12
        while any(session.busy for session in fake.sessions("app")):
            time.sleep(0.01)
        before = fake.bytes_received
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return fake, layout, done, fake.bytes_received - before


@pytest.mark.parametrize("driver", DRIVERS)
def test_killed_and_the_same_command_again(tmp_path: Path, state: Path, driver: str) -> None:
    fake, layout, done, sent = killed_and_again(tmp_path, driver)
    [layer] = layers_of(layout, root_digest(layout))
    assert done.returncode == 0, done.stderr
    assert "resumed: " in done.stderr and " of 20.0 MB are there" in done.stderr
    assert sent <= 15 * MB + 10_000
    assert fake.content(layer) == blob_path(layout, layer).read_bytes()
    assert fake.sessions("app") == () and list(state.iterdir()) == []


def test_killed_where_the_registry_loses_what_was_cut(tmp_path: Path, state: Path) -> None:
    fake, layout, done, sent = killed_and_again(tmp_path, "sync", lost_sessions=True)
    assert done.returncode == 0, done.stderr
    assert "restarted: " in done.stderr and "loses an upload session whose request is cut" in done.stderr
    assert sent >= 20 * MB and fake.tags("app") == {"1": root_digest(layout)}
    assert list(state.iterdir()) == []


def test_resume_says_nothing_where_there_is_nothing_to_resume(tmp_path: Path, state: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    with Server(FakeRegistry()) as server:
        command = [sys.executable, "-m", "regproto_sync", "push", "--resume", layout, f"127.0.0.1:{server.port}/app:1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "resumed" not in done.stderr and list(state.iterdir()) == []


def test_a_registry_that_is_not_there_leaves_nothing(tmp_path: Path, state: Path) -> None:
    layout = image_layout(tmp_path / "layout", [20 * MB])
    with pytest.raises(TransportError):
        regproto_sync.push(layout, "127.0.0.1:1/app:1", resume=True, config=IMPATIENT)
    assert list(state.iterdir()) == []


# --- the trio driver's keeper -----------------------------------------------------------------------------------


class Saving(Session):
    """Wants two things kept, and nothing more."""

    def __init__(self, log: list[str]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.log = log
        self.saves = [Save(data=b"1"), Save(data=b"2")]

    def poll(self, now: float) -> Output:
        self.log.append("poll")
        return self.saves.pop(0) if self.saves else super().poll(now)


def test_the_trio_driver_keeps_before_it_polls_again_and_in_a_thread() -> None:
    log: list[str] = []
    threads: set[threading.Thread] = set()

    class Kept:
        def save(self, data: bytes) -> None:
            threads.add(threading.current_thread())
            log.append(data.decode())

    async def main(keeper: Kept | None) -> None:
        async with regproto_trio.drive(Saving(log), keychain=nobody, keeper=keeper):
            await trio.testing.wait_all_tasks_blocked(0.01)

    trio.run(main, Kept())
    assert log[:5] == ["poll", "1", "poll", "2", "poll"]
    assert threading.main_thread() not in threads
    trio.run(main, None)


def test_an_error_of_the_keeper_s_ends_the_block() -> None:
    class Broken:
        def save(self, data: bytes) -> None:
            raise OSError("broken")

    async def main() -> None:
        async with regproto_trio.drive(Saving([]), keychain=nobody, keeper=Broken()):
            await trio.sleep_forever()

    with pytest.raises(OSError, match="broken"):
        trio.run(main)
