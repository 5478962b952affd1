"""The command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from conformance import _core
from conformance._fields import Invalid
from conformance._scenario import DRIVER_NEEDS, SCENARIOS, Scenario, read_all
from conformance._table import Row, Verdict, show
from regproto import LocalProtocolError
from regproto.testing import RunSession

HOLDS: Final = 0
FAILS: Final = 1
MISUSE: Final = 2

JOBS: Final = 16
"""Scenarios at a time over real sockets: most of their time they wait."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (by default the process's); returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance",
        description="Play the scenarios against the core alone, a driver or a real registry.",
        epilog="exit codes: 0 all hold, 1 one fails, 2 used wrongly or a scenario is invalid",
        allow_abbrev=False,
    )
    parser.add_argument("--driver", metavar="MODULE:FUNCTION", help="over loopback HTTP, by this driver")
    parser.add_argument(
        "--registry",
        metavar="HOST[:PORT]",
        help="against this registry (http on loopback, else https), by the driver given or the blocking one; it is "
        "left with repositories below conformance/",
    )
    parser.add_argument(
        "--lacks",
        action="append",
        default=[],
        choices=DRIVER_NEEDS,
        help="what the driver does not do; what needs it is played all the same, and must really fail",
    )
    parser.add_argument("-k", metavar="TEXT", default="", help="only scenarios with this in their theme or id")
    parser.add_argument("--list", action="store_true", help="print what the scenarios show, and play none")
    parser.add_argument("--scenarios", metavar="DIR", type=Path, default=SCENARIOS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    try:
        scenarios = [s for s in read_all(options.scenarios) if options.k in f"{s.theme} {s.id}"]
        if not scenarios:
            raise Invalid(f"no scenario has {options.k!r} in its theme or id")
        if options.list:
            _list(scenarios)
            return HOLDS
        rows = lacking(_play(scenarios, options.driver, options.registry), frozenset(options.lacks))
    except Invalid as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return MISUSE
    show(rows, sys.stdout)
    return FAILS if any(row.verdict is Verdict.FAILS for row in rows) else HOLDS


def _list(scenarios: Sequence[Scenario]) -> None:
    for scenario in scenarios:
        print(f"{scenario.theme}: {scenario.id}\n    {scenario.says}\n    ({'; '.join(scenario.source)})")


def _play(scenarios: Sequence[Scenario], driver: str | None, registry: str | None) -> list[Row]:
    if registry is not None:
        from conformance._real import play_all

        rows, told = play_all(scenarios, registry, _load(driver or "regproto_sync:run_session"))
        print(told)
        return rows
    if driver is None:
        return [_row(scenario, _core.check) for scenario in scenarios]
    return over_http(scenarios, driver)


def lacking(rows: Sequence[Row], lacks: frozenset[str]) -> list[Row]:
    """The rows, where what needs something that the driver lacks must have failed."""

    def judged(row: Row) -> Row:
        needs = ", ".join(sorted(row.scenario.driver_needs & lacks))
        if needs and row.verdict is Verdict.FAILS:
            return Row(row.scenario, Verdict.UNSUPPORTED, needs)
        if needs and row.verdict is Verdict.HOLDS:
            return Row(row.scenario, Verdict.FAILS, f"{needs}: declared to be lacking, but it holds")
        return row

    return [judged(row) for row in rows]


def _load(driver: str) -> RunSession:
    from regproto.testing.driver_check.bench import load

    try:
        run_session: RunSession = load(driver)
    except LocalProtocolError as error:
        raise Invalid(str(error)) from None
    return run_session


def over_http(scenarios: Sequence[Scenario], driver: str, jobs: int = JOBS) -> list[Row]:
    """The rows of these scenarios over loopback HTTP. Raises `Invalid` if there is no such driver."""
    from conformance._http import check

    run = _load(driver)

    def row(scenario: Scenario) -> Row:
        if scenario.refused is not None:
            return Row(scenario, Verdict.NOT_PLAYED, "the plan is refused before any driver has part in it")
        if scenario.core_only:
            return Row(scenario, Verdict.NOT_PLAYED, scenario.core_only)
        return _row(scenario, lambda s: check(s, run))

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(row, scenarios))


def _row(scenario: Scenario, check: Callable[[Scenario], list[str]]) -> Row:
    try:
        found = check(scenario)
    except Exception as error:
        found = [f"{type(error).__name__}: {error}"]
    return Row(scenario, Verdict.FAILS, "\n".join(found)) if found else Row(scenario, Verdict.HOLDS)
