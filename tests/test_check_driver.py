"""The checks of a driver: what ships passes them all, and each finds what it is there for."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest

import regproto_sync
import regproto_trio
from broken_drivers import BROKEN, Broken
from regproto import LocalProtocolError
from regproto.testing import DriverFaulty, Verdict, check_driver
from regproto.testing._check_driver._command import main
from regproto.testing._check_driver._run import CHECKS


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
    for patience_s in (0.5, 8.0):  # a little is enough, unless the machine is very busy
        with pytest.raises(DriverFaulty) as caught:
            check_driver(driver, only=[name], patience_s=patience_s)
        [finding] = caught.value.report.findings
        if re.search(broken.detail, finding.detail):
            break
    assert finding.name == name and finding.verdict is Verdict.FAILED
    assert re.search(broken.detail, finding.detail), finding.detail
    assert name in str(caught.value)


def test_what_is_declared_to_be_lacking_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    [lacking, *_] = BROKEN["keep-alive"]
    with pytest.raises(DriverFaulty, match="declared to be lacking, but it holds"):
        check_driver(regproto_sync.run_session, only=["keep-alive"], lacks=["keep-alive"])
    report = check_driver(lacking.make(monkeypatch), only=["keep-alive", "refused"], lacks=["keep-alive"])
    assert [finding.verdict for finding in report.findings] == [Verdict.LACKING, Verdict.PASSED]
    assert "1 passed, 1 lacking, 0 failed" in str(report)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="no check named 'keep alive'"):
        check_driver(regproto_sync.run_session, lacks=["keep alive"])


def test_what_a_driver_leaves_open_is_told() -> None:
    left = []

    def leaking(session: Any, push_ids: Iterable[int], **more: Any) -> Any:
        left.append(open("/dev/null"))  # noqa: SIM115
        return regproto_sync.run_session(session, push_ids, **more)

    with pytest.raises(DriverFaulty, match="left open: /dev/null"):
        check_driver(leaking, only=["refused"])
    left[0].close()


@pytest.mark.parametrize(
    ("driver", "detail"),
    [
        (lambda *_, **__: {}, r"no result for \[0\]"),
        (lambda *_, **__: 1 / 0, "it raised ZeroDivisionError"),
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
