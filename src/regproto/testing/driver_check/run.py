"""Performs the checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from importlib import import_module
from typing import Final

from regproto._model.errors import LocalProtocolError
from regproto.testing.driver_check.bench import (
    CHECKS,
    Bench,
    Check,
    CheckFailed,
    Hung,
    RunSession,
    StreamSource,
    default_stream_source,
)
from regproto.testing.driver_check.report import DriverFaulty, DriverReport, Finding, Verdict
from regproto.testing.driver_check.words import described, descriptors

PATIENCE_S: Final = 10.0
"""How long anything may take before the driver is said to hang; far more than a busy machine needs."""

for _name in ("looping", "connecting", "requesting", "sending", "answering", "aborting", "streaming"):
    import_module(f"regproto.testing.driver_check.{_name}")


def check_driver(
    run_session: RunSession,
    *,
    lacks: Iterable[str] = (),
    only: Collection[str] = (),
    wait_timeout_s: float = PATIENCE_S,
    stream_source: StreamSource | None = None,
    on_finding: Callable[[Finding], object] = lambda _: None,
) -> DriverReport:
    """Check that a driver does what every driver must, over real sockets on loopback. docs/drivers.md has the rules.

    Args:
        run_session: the driver, see `RunSession`.
        lacks: names of checks that can't hold with the driver's transport. They are done too, and must not hold: what
            is declared to be lacking is reported as such only where it really is. Upper and lower case are the same.
        only: names of the checks to do; empty: all.
        wait_timeout_s: how long anything may take.
        stream_source: makes the `source` of a `Stream` that the driver can read: called with a function that opens a
            file-like object, it gives a context manager. None: `regproto_sync.StreamContent`.
        on_finding: told of each check once it is done.

    Returns:
        What came of each check: print it.

    Raises:
        DriverFaulty: something does not hold; `report` says what.
        LocalProtocolError: there is no check with one of these names.
    """
    lacking = frozenset(check.name for check in named(lacks))
    stream_source = stream_source or default_stream_source()
    findings = []
    for check in named(only) or CHECKS:
        findings.append(_perform(Bench(run_session, wait_timeout_s, stream_source), check, lacking))
        on_finding(findings[-1])
    report = DriverReport(driver=name_of(run_session), findings=tuple(findings))
    if not report.ok:
        raise DriverFaulty(report)
    return report


def named(names: Iterable[str]) -> list[Check]:
    """The checks with these names, in the order they are done. Raises `LocalProtocolError` if there is no such."""
    wanted = {name.casefold(): name for name in names}
    found = [check for check in CHECKS if wanted.pop(check.name.casefold(), None) is not None]
    if wanted:
        known = ", ".join(check.name for check in CHECKS)
        raise LocalProtocolError(f"there is no check named {', '.join(map(repr, wanted.values()))}; there are: {known}")
    return found


def _perform(bench: Bench, check: Check, lacking: frozenset[str]) -> Finding:
    detail, hung = "", False
    before = descriptors()
    try:
        check.perform(bench)
        if bench.peer_errors:
            detail = f"seen by the peer: {bench.peer_errors[0]}"
    except CheckFailed as error:
        detail, hung = str(error), isinstance(error, Hung)
    except Exception as error:
        detail = f"the check can't go on after what the driver did: {error!r}"
    after = descriptors()
    if not detail and before is not None and after is not None and (left := after - before):
        detail = f"it left open: {', '.join(sorted(described(*one) for one in left))}"
    if check.name in lacking:
        verdict = Verdict.LACKING if detail and not hung else Verdict.FAILED
        detail = detail or "it was declared to be lacking, but it holds"
    else:
        verdict = Verdict.FAILED if detail else Verdict.PASSED
    return Finding(name=check.name, rule=check.rule, verdict=verdict, detail=detail, hung=hung)


def name_of(run_session: RunSession) -> str:
    """The name of a driver in its report."""
    return f"{getattr(run_session, '__module__', '')}:{getattr(run_session, '__qualname__', repr(run_session))}"
