"""The options, the driver and the exit codes of all subcommands that talk to a registry."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from regproto import Config, InvalidReferenceError, RegprotoError
from regproto_sync.cli.output import Output

if TYPE_CHECKING:
    from regproto_sync.credentials.keychain import Keychain

DONE: Final = 0
FAILED: Final = 1
MISUSE: Final = 2
INTERRUPTED: Final = 130
CODES_HELP: Final = "exit codes: 0 done, 1 refused or failed, 2 used wrongly, 130 interrupted"

PASSWORD_MAX: Final = 1024 * 1024
"""Characters of a password; tokens given as one have some thousand."""
_TIMEOUT_MAX_S: Final = 366 * 86_400.0
"""Nobody waits a year; keeps a deadline a date."""


class Misuse(Exception):
    """The command can't be what the user meant; says why."""


def add_registry_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every subcommand that talks to a registry."""
    parser.add_argument("--plain-http", action="store_true", help="http; the default for localhost and loopback alone")
    parser.add_argument(
        "--jobs", type=_jobs, metavar="N", help=f"requests at a time (default: {Config().max_exchanges})"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="give up when it is not done after so long, and give back what is open (default: never)",
    )
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    parser.add_argument("--json", action="store_true", help="one JSON object per event on standard output")
    parser.add_argument("--driver", choices=("sync", "trio"), default="sync", help="(default: %(default)s)")
    parser.add_argument("--username", metavar="USER", help="instead of docker's and podman's credentials")
    parser.add_argument(
        "--password-stdin",
        action="store_true",
        help="read its password from standard input; typed there, it is not shown",
    )


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of requests, 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _TIMEOUT_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, more than 0")
    return seconds


def perform(
    options: argparse.Namespace,
    output: Output,
    name: str,
    arguments: dict[str, Any],
    show: Callable[[Any], None],
    choices: dict[str, Any] | None = None,
) -> int:
    """Calls the public function `name` of the chosen driver, and shows what it returns or how it failed.

    Args:
        options: what `add_registry_options` added is read from it, and handed on.
        output: where news and errors go.
        name: of a function that both drivers have.
        arguments: its arguments beside `plain_http`, `config`, `keychain` and `on_notice`.
        show: called with what it returns.
        choices: fields of `Config` beside those of the options.

    Returns:
        The exit code.

    Raises:
        Misuse: an option, a reference or the source's name is wrong.
    """
    from regproto_sync.sources.notation import SourceNotFound

    arguments = {
        **arguments,
        "plain_http": options.plain_http,
        "config": Config(
            max_exchanges=options.jobs or Config().max_exchanges,
            push_timeout_s=options.timeout,
            **(choices or {}),
        ),
        "keychain": _keychain(options),
    }
    try:
        with output.view() as on_notice:
            call = _call_trio if options.driver == "trio" else _call_sync
            result = call(name, {**arguments, "on_notice": on_notice})
    except (InvalidReferenceError, SourceNotFound) as error:
        raise Misuse(error) from None
    except RegprotoError as error:
        output.failed(error)
        return FAILED
    except KeyboardInterrupt:
        output.cancelled()
        raise
    show(result)
    return FAILED if output.lost else DONE


def _call_sync(name: str, arguments: dict[str, Any]) -> Any:
    return getattr(import_module("regproto_sync"), name)(**arguments)


def _call_trio(name: str, arguments: dict[str, Any]) -> Any:
    try:
        import trio
    except ModuleNotFoundError as error:
        if error.name != "trio":
            raise
        raise Misuse("--driver trio needs trio: pip install 'regproto[trio]'") from None
    call = getattr(import_module("regproto_trio"), name)

    async def run() -> Any:
        result: Any = None
        cancelled = True
        async with trio.open_nursery() as nursery:
            await nursery.start(cancel_at_signal, nursery.cancel_scope)
            try:
                result = await call(**arguments)
                cancelled = False
            except RegprotoError as error:
                result, cancelled = error, False
            nursery.cancel_scope.cancel()
        if cancelled:
            raise KeyboardInterrupt
        if isinstance(result, RegprotoError):
            raise result
        return result

    async def cancel_at_signal(scope: trio.CancelScope, *, task_status: trio.TaskStatus) -> None:
        # Only a cancelled push has its time to give sessions back; a KeyboardInterrupt may be raised in any task. The
        # second signal is nobody's but trio's, which then ends everything.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                break
        scope.cancel()

    try:
        return trio.run(run)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None


def _keychain(options: argparse.Namespace) -> Keychain | None:
    if (options.username is not None) != options.password_stdin:
        raise Misuse("--username and --password-stdin go together")
    if options.username is None:
        return None
    from regproto_sync.credentials.keychain import static_keychain

    try:
        password = _password().removesuffix("\n").removesuffix("\r")
        password.encode()  # what is no text may come as surrogates
    except (OSError, UnicodeError):
        raise Misuse("the password on standard input can't be read as text") from None
    if not 0 < len(password) <= PASSWORD_MAX:
        raise Misuse("expected a password on standard input")
    if not options.username or ":" in options.username:
        raise Misuse("--username must be a name without a colon")
    return static_keychain(options.username, password)


def _password() -> str:
    """Everything on standard input, or one line that is typed there, which the terminal does not show."""
    if sys.stdin is None:  # closed before the command began
        return ""
    if not sys.stdin.isatty():
        return sys.stdin.read(PASSWORD_MAX + 1)
    from getpass import getpass

    try:
        return getpass("Password: ", sys.stderr)
    except EOFError:
        return ""
