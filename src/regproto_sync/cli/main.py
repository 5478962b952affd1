"""The `regproto` command: what it is called with, and which module does that.

Each subcommand is a module with one function, `add`. Only what every use needs is imported here: a
driver when it is chosen, the registry when it is served.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from typing import Any, NoReturn

import regproto
from regproto._model.errors import escaped
from regproto_sync.cli import artifact, attach, image, push, serve, tag
from regproto_sync.cli.output import say, write_out
from regproto_sync.cli.run import CODES_HELP, DONE, FAILED, INTERRUPTED, MISUSE, Misuse

COMMANDS = (push, image, attach, artifact, tag, serve)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments (by default the process's) and returns its exit code."""
    options = _parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        code: int = options.run(options)
    except Misuse as error:
        say(f"regproto: {error}")
        return MISUSE
    except KeyboardInterrupt:
        say("regproto: interrupted")
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return code


def _interrupt(*_: object) -> None:
    if not callable(signal.getsignal(signal.SIGINT)):
        raise KeyboardInterrupt  # SIGINT is ignored, as shells have it in their background jobs.
    # Whoever handles SIGINT by now (Python, or trio while it runs) knows where it may raise KeyboardInterrupt.
    signal.raise_signal(signal.SIGINT)


class _Parser(argparse.ArgumentParser):
    """Its errors quote arguments, which may be anything, and its help fails if it can't be written."""

    def error(self, message: str) -> NoReturn:
        super().error(escaped(message))

    def print_help(self, file: Any = None) -> None:
        if not write_out(self.format_help().rstrip("\n")):
            self.exit(FAILED)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.exit(DONE if write_out(f"regproto {regproto.__version__}") else FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="regproto", description="Push container images to registries.", epilog=CODES_HELP, allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser
