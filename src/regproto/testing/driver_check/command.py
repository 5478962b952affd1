"""`python -m regproto.testing check-driver MODULE:FUNCTION`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from regproto._model.errors import LocalProtocolError
from regproto.testing.driver_check.bench import CHECKS, STREAM_SOURCE, RunSession, load
from regproto.testing.driver_check.report import DriverFaulty, DriverReport, Finding
from regproto.testing.driver_check.run import PATIENCE_S, check_driver, name_of, named

PASSED: Final = 0
FAULTY: Final = 1
MISUSE: Final = 2
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments (by default the process's) and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m regproto.testing", allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser(
        "check-driver",
        help="check that a driver does what every driver must",
        description="Check that a driver does what every driver must, over real sockets on loopback.",
        epilog="exit codes: 0 passed, 1 something does not hold, 2 used wrongly, 130 interrupted",
        allow_abbrev=False,
    )
    command.add_argument(
        "driver",
        nargs="?",
        default="",
        metavar="MODULE:FUNCTION",
        help="FUNCTION(session, push_ids, *, keychain, tls) runs a session until these pushes are finished",
    )
    command.add_argument(
        "--lacks", action="append", default=[], metavar="CHECK", help="what its transport can't do; may be repeated"
    )
    command.add_argument(
        "--only", action="append", default=[], metavar="CHECK", help="do this check alone; may be repeated"
    )
    command.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_S,
        metavar="SECONDS",
        help="how long anything may take (default: %(default)s)",
    )
    command.add_argument(
        "--stream-source",
        default=STREAM_SOURCE,
        metavar="MODULE:CALLABLE",
        help="makes the source of a stream from a function that opens a file (default: %(default)s)",
    )
    command.add_argument("--list", action="store_true", help="name the checks and their rules, and do none")
    options = parser.parse_args(argv)
    findings: list[Finding] = []
    try:
        chosen = named(options.only) or CHECKS
        width = max(len(check.name) for check in chosen)
        if options.list:
            print("\n".join(f"{check.name:{width}}  {check.rule}" for check in chosen))
            return PASSED
        run_session: RunSession = load(options.driver)

        def tell(finding: Finding) -> None:
            findings.append(finding)
            print(finding.line(width), flush=True)

        print(
            check_driver(
                run_session,
                lacks=options.lacks,
                only=options.only,
                wait_timeout_s=options.patience,
                stream_source=load(options.stream_source),
                on_finding=tell,
            ).summary
        )
    except KeyboardInterrupt:
        report = DriverReport(driver=name_of(run_session), findings=tuple(findings))
        print(f"{report.summary}, interrupted after {len(findings)} of {len(chosen)} checks", flush=True)
        os._exit(INTERRUPTED)  # A thread of the driver's might keep the process from ending.
    except LocalProtocolError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return MISUSE
    except DriverFaulty as error:
        print(error.report.summary, flush=True)
        if error.report.hung:
            os._exit(FAULTY)  # A thread that hangs might keep the process from ending.
        return FAULTY
    return PASSED
