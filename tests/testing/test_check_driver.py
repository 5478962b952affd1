"""The checks of a driver: what ships passes them all, and each finds what it is there for."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import regproto_sync
import regproto_trio
from broken_drivers import BROKEN, Broken
from regproto import LocalProtocolError, NeedCredentials, NoCredentials, Progress
from regproto.testing import DriverFaulty, Verdict, check_driver
from regproto.testing.driver_check.bench import Bench
from regproto.testing.driver_check.command import main
from regproto.testing.driver_check.run import CHECKS
from regproto_sync import StreamContent

WAIT_S = 3.0
"""In which even a busy machine gets to where a driver goes no further."""


@pytest.mark.parametrize("module", [regproto_sync, regproto_trio])
@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_the_bundled_drivers_pass(module: Any, name: str) -> None:
    report = check_driver(module.run_session, only=[name])
    assert [finding.verdict for finding in report.findings] == [Verdict.PASSED]


def test_every_check_has_a_driver_that_fails_it() -> None:
    assert set(BROKEN) == {check.name for check in CHECKS}


@pytest.mark.parametrize(("name", "broken"), [(name, broken) for name in BROKEN for broken in BROKEN[name]])
def test_a_broken_driver_is_caught(monkeypatch: pytest.MonkeyPatch, name: str, broken: Broken) -> None:
    driver = broken.make(monkeypatch)
    for wait_timeout_s in (0.5, 8.0):  # a little is enough, unless the machine is very busy
        with pytest.raises(DriverFaulty) as caught:
            check_driver(driver, only=[name], wait_timeout_s=wait_timeout_s)
        [finding] = caught.value.report.findings
        if re.search(broken.detail, finding.detail):
            break
    assert finding.name == name and finding.verdict is Verdict.FAILED
    assert re.search(broken.detail, finding.detail), finding.detail
    assert name in str(caught.value)


@pytest.mark.parametrize("module", [regproto_sync, regproto_trio])
def test_a_lookup_that_is_left_is_answered_too(module: Any) -> None:
    over = threading.Event()

    def keychain(need: NeedCredentials) -> NoCredentials:
        over.wait(60)
        return NoCredentials(id=need.id)

    need = NeedCredentials(id=5, registry="registry.example", repository="team/app")
    session = Bench(module.run_session, 60.0).run(need, keychain=keychain)
    assert [event for _, event in session.inputs] == [NoCredentials(id=5, error="the keychain was too slow")]
    over.set()


def test_what_is_declared_to_be_lacking_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    [lacking, *_] = BROKEN["keep-alive"]
    with pytest.raises(DriverFaulty, match="declared to be lacking, but it holds"):
        check_driver(regproto_sync.run_session, only=["keep-alive"], lacks=["keep-alive"])
    report = check_driver(lacking.make(monkeypatch), only=["keep-alive", "refused"], lacks=["keep-alive"])
    assert [finding.verdict for finding in report.findings] == [Verdict.LACKING, Verdict.PASSED]
    assert "1 passed, 1 lacking, 0 failed" in str(report)


def test_a_driver_with_streams_of_its_own() -> None:
    opened = []

    def own(open_file: Callable[[], Any]) -> StreamContent:
        opened.append(open_file)
        return StreamContent(open_file)

    streams = ["streams", "stream fails", "no streams", "drafts"]
    assert check_driver(regproto_sync.run_session, only=streams, stream_source=own).ok
    assert len(opened) == 5


def test_a_stream_source_of_the_command_s(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check-driver", "regproto_sync:run_session", "--only", "stream fails", "--stream-source"]
    assert main([*command, "regproto_sync:StreamContent"]) == 0
    for nothing in ("", "regproto_sync", "regproto_sync:Streams", "no.such:thing"):
        assert main([*command, nothing]) == 2
        assert f"{nothing!r} is not a MODULE:FUNCTION" in capsys.readouterr().err


def test_unknown_names_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="no check named 'keep alive'; there are: results, .*keep-alive, "):
        check_driver(regproto_sync.run_session, lacks=["keep alive"])


def test_upper_and_lower_case_are_the_same() -> None:
    [finding] = check_driver(regproto_sync.run_session, only=["Keep-Alive"]).findings
    assert finding.name == "keep-alive"


def test_what_went_on_is_told() -> None:
    def deaf(session: Any, push_ids: Iterable[int], **more: Any) -> Any:
        real, session.receive = session.receive, lambda now, event: isinstance(event, Progress) and real(now, event)
        return regproto_sync.run_session(session, push_ids, **more)

    with pytest.raises(DriverFaulty) as caught:
        check_driver(deaf, only=["keep-alive"], wait_timeout_s=WAIT_S)
    assert re.search(
        r"the session waits in vain for the answer to 0 \(the driver told last: .*Progress\(0, \w+, \d bytes\); "
        r"the peer saw: connections: 1 \(requests: 1, then it waited for the head of request 2 on this connection\)\)",
        str(caught.value),
    )


def test_what_a_peer_waited_for_is_told() -> None:
    def holds_on(session: Any, push_ids: Iterable[int], **more: Any) -> Any:
        connection = socket.create_connection(("127.0.0.1", int(session._steps[0].url.rpartition(":")[2])))
        left.append(connection)
        return regproto_sync.run_session(session, push_ids, **more)

    left: list[socket.socket] = []
    try:
        with pytest.raises(DriverFaulty, match="seen by the peer: it waited in vain for the driver to close"):
            check_driver(holds_on, only=["what is left"], wait_timeout_s=WAIT_S)
    finally:
        left[0].close()


def test_what_a_driver_leaves_open_is_told() -> None:
    left = []

    def leaking(session: Any, push_ids: Iterable[int], **more: Any) -> Any:
        left.append(open("/dev/null"))  # noqa: SIM115
        return regproto_sync.run_session(session, push_ids, **more)

    with pytest.raises(DriverFaulty, match="left open: /dev/null"):
        check_driver(leaking, only=["refused"])
    left[0].close()


def test_where_a_socket_that_is_left_open_leads_is_told() -> None:
    left: list[socket.socket] = []

    def leaking(session: Any, push_ids: Iterable[int], **more: Any) -> Any:
        left.append(socket.create_connection(listener.getsockname()))
        left.append(socket.socket())
        left.extend(socket.socketpair())
        return regproto_sync.run_session(session, push_ids, **more)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(DriverFaulty) as caught:
            check_driver(leaking, only=["refused"])
        port = listener.getsockname()[1]
    for words in (rf"\(from 127.0.0.1:\d+ to 127.0.0.1:{port}\)", r"\(at 0.0.0.0:0, not connected\)", r"\(AF_UNIX\)"):
        assert re.search(words, str(caught.value)), words
    for sock in left:
        sock.close()


def raising_in_a_group(*_: Any, **__: Any) -> Any:
    raise BaseExceptionGroup("tasks", [ValueError("no")])


def test_a_driver_that_raised_is_not_waited_for() -> None:
    with pytest.raises(DriverFaulty, match="it raised KeyError"):
        # Whoever waited for its peers would wait for longer than a test may take.
        check_driver(connects_and_raises, only=["keep-alive", "TLS", "progress"], wait_timeout_s=10_000.0)
    for connection in connections:
        connection.close()


def connects_and_raises(session: Any, push_ids: Iterable[int], **_: Any) -> Any:
    send = session.poll(time.monotonic())
    connections.append(socket.create_connection(("127.0.0.1", int(send.url.rpartition(":")[2]))))
    raise KeyError("boom")


connections: list[socket.socket] = []


@pytest.mark.parametrize(
    ("driver", "detail"),
    [
        (lambda *_, **__: {}, r"no result for \[0\]"),
        (lambda *_, **__: None, "it returned None instead of a dict of results"),
        (lambda *_, **__: 1 / 0, r"it raised ZeroDivisionError\('division by zero'\) at .*test_check_driver.py:\d+"),
        (raising_in_a_group, r"it raised ValueError\('no'\)"),
    ],
)
def test_a_driver_that_does_nothing_is_caught(driver: Any, detail: str) -> None:
    with pytest.raises(DriverFaulty, match=detail):
        check_driver(driver, only=["refused"])


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "regproto.testing", "check-driver", "regproto_sync:run_session", "--only", "refused"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused  passed ")
    assert main(["check-driver", "regproto_sync:run_session", "--only", "TLS", "--lacks", "TLS"]) == 1
    assert "0 lacking, 1 failed" in capsys.readouterr().out
    for wrong in ("regproto_sync:none", "no_such_module:x", "regproto_sync", ""):
        assert main(["check-driver", wrong]) == 2
        assert "MODULE:FUNCTION" in capsys.readouterr().err


def test_the_checks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-driver", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CHECKS)
    assert main(["check-driver", "--list", "--only", "no such"]) == 2
    assert "there are: results, " in capsys.readouterr().err


def test_what_there_is_is_told_before_an_interrupt() -> None:
    command = [sys.executable, "-m", "regproto.testing", "check-driver", "broken_drivers:second_check_hangs"]
    checks = ["--only", "results", "--only", "refused", "--only", "TLS", "--patience", "60"]
    with subprocess.Popen(
        [*command, *checks], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.match("results +passed ", line)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().endswith("1 passed, 0 lacking, 0 failed, interrupted after 1 of 3 checks\n")
        assert process.wait(60) == 130
