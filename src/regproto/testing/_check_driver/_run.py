"""Performs the checks."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib import import_module
from typing import Final

from regproto._errors import LocalProtocolError
from regproto.testing._check_driver._bench import CHECKS, Bench, Check, CheckFailed, Hung, RunSession, descriptors
from regproto.testing._check_driver._report import DriverFaulty, DriverReport, Finding, Verdict

PATIENCE_S: Final = 10.0
"""How long anything may take before the driver is said to hang; far more than a busy machine needs."""

for _name in ("_looping", "_connecting", "_asking", "_sending", "_answering", "_aborting", "_streaming"):
    import_module(f"regproto.testing._check_driver.{_name}")


def check_driver(
    run_session: RunSession,
    *,
    lacks: Iterable[str] = (),
    only: Collection[str] = (),
    patience_s: float = PATIENCE_S,
) -> DriverReport:
    """Check that a driver does what every driver must, over real sockets on loopback. docs/drivers.md has the rules.

    Args:
        run_session: the driver, see `RunSession`.
        lacks: names of checks that can't hold with the driver's transport. They are done too, and must not hold: what
            is declared to be lacking is reported as such only where it really is.
        only: names of the checks to do; empty: all.
        patience_s: how long anything may take.

    Returns:
        What came of each check: print it.

    Raises:
        DriverFaulty: something does not hold; `report` says what.
        LocalProtocolError: there is no check with one of these names.
    """
    lacking = frozenset(lacks)
    unknown = (lacking | frozenset(only)) - {check.name for check in CHECKS}
    if unknown:
        raise LocalProtocolError(f"there is no check named {', '.join(map(repr, sorted(unknown)))}")
    findings = [
        _perform(Bench(run_session, patience_s), check, lacking) for check in CHECKS if not only or check.name in only
    ]
    report = DriverReport(driver=_name_of(run_session), findings=tuple(findings))
    if not report.ok:
        raise DriverFaulty(report)
    return report


def _perform(bench: Bench, check: Check, lacking: frozenset[str]) -> Finding:
    detail, hung = "", False
    before = descriptors()
    try:
        check.perform(bench)
        if bench.peer_errors:
            detail = f"seen by the peer: {bench.peer_errors[0]}"
    except CheckFailed as error:
        detail, hung = str(error), isinstance(error, Hung)
    after = descriptors()
    if not detail and before is not None and after is not None and (left := after - before):
        detail = f"it left open: {', '.join(sorted(what for _, what in left))}"
    if check.name in lacking:
        verdict = Verdict.LACKING if detail and not hung else Verdict.FAILED
        detail = detail or "it was declared to be lacking, but it holds"
    else:
        verdict = Verdict.FAILED if detail else Verdict.PASSED
    return Finding(name=check.name, rule=check.rule, verdict=verdict, detail=detail, hung=hung)


def _name_of(run_session: RunSession) -> str:
    return f"{getattr(run_session, '__module__', '')}:{getattr(run_session, '__qualname__', repr(run_session))}"
