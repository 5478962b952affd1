"""The `regproto` command.

Only what every use needs is imported here: a driver when it is chosen, the registry when it is served.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import regproto
from regproto import Config, InvalidReference, PushResult, RegprotoError
from regproto_sync._output import Output, say

if TYPE_CHECKING:
    from regproto_sync._keychain import Keychain

DONE: Final = 0
FAILED: Final = 1
MISUSE: Final = 2
INTERRUPTED: Final = 130

PASSWORD_MAX: Final = 1024 * 1024
"""Characters of a password; tokens given as one have some thousand."""

_SOURCE_HELP: Final = """\
SOURCE is an OCI image layout directory, or DIRECTORY:NAME where its index.json has several entries (NAME is
their org.opencontainers.image.ref.name). REFERENCE is HOST/REPOSITORY[:TAG] or HOST/REPOSITORY@DIGEST."""
_CODES_HELP: Final = "exit codes: 0 done, 1 refused or failed, 2 used wrongly, 130 interrupted"


class _Misuse(Exception):
    """The command can't be what the user meant; says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments (by default the process's) and returns its exit code."""
    options = _parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        code: int = options.run(options)
    except _Misuse as error:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regproto", description="Push container images to registries.", epilog=_CODES_HELP, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"regproto {regproto.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_push(commands)
    serve = commands.add_parser(
        "serve", help="run a registry to try things with", description="Run a registry to try things with."
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=5000, help="0 takes a free one (default: %(default)s)")
    serve.add_argument("--dir", type=Path, metavar="DIR", help="keep content in this folder instead of in memory")
    serve.set_defaults(run=_serve)
    return parser


def _add_push(commands: Any) -> None:
    push = commands.add_parser(
        "push",
        help="push an image",
        description=f"Push an image, and print its name by digest.\n\n{_SOURCE_HELP}",
        epilog=_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    push.add_argument("source", metavar="SOURCE")
    push.add_argument("reference", metavar="REFERENCE")
    push.add_argument("-t", "--tag", action="append", default=[], dest="tags", help="a further tag; may be repeated")
    push.add_argument(
        "--mount-from",
        action="append",
        default=[],
        metavar="REPOSITORY",
        help="a repository ([HOST/]NAME) that may hold some of the blobs already; may be repeated",
    )
    push.add_argument("--plain-http", action="store_true", help="http; the default for localhost and loopback alone")
    push.add_argument("--jobs", type=_jobs, metavar="N", help=f"requests at a time (default: {Config().max_exchanges})")
    push.add_argument("--quiet", action="store_true", help="print the result only")
    push.add_argument("--json", action="store_true", help="one JSON object per event on standard output")
    push.add_argument("--driver", choices=("sync", "trio"), default="sync", help="(default: %(default)s)")
    push.add_argument("--username", metavar="USER", help="instead of docker's and podman's credentials")
    push.add_argument("--password-stdin", action="store_true", help="read its password from standard input")
    push.add_argument("--allow-nondistributable", action="store_true", help="send non-distributable layers too")
    push.add_argument("--sparse", action="store_true", help="leave out children of an index that SOURCE lacks")
    push.set_defaults(run=_push)


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of requests, 1 or more")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


# --- push -----------------------------------------------------------------------------------------------------


def _push(options: argparse.Namespace) -> int:
    from regproto_sync._layout import SourceNotFound

    output = Output(json=options.json, quiet=options.quiet)
    arguments: dict[str, Any] = {
        "source": options.source,
        "reference": options.reference,
        "tags": options.tags,
        "mount_from": options.mount_from,
        "plain_http": options.plain_http,
        "config": Config(max_exchanges=options.jobs) if options.jobs is not None else None,
        "keychain": _keychain(options),
        "on_notice": output.notice,
        "nondistributable": options.allow_nondistributable,
        "sparse": options.sparse,
    }
    try:
        result = _push_trio(arguments) if options.driver == "trio" else _push_sync(arguments)
    except (InvalidReference, SourceNotFound) as error:
        raise _Misuse(error) from None
    except RegprotoError as error:
        output.failed(error)
        return FAILED
    except KeyboardInterrupt:
        output.cancelled()
        raise
    output.pushed(options.reference, result)
    return DONE


def _push_sync(arguments: dict[str, Any]) -> PushResult:
    from regproto_sync._push import push

    return push(**arguments)


def _push_trio(arguments: dict[str, Any]) -> PushResult:
    try:
        import trio
    except ModuleNotFoundError as error:
        if error.name != "trio":
            raise
        raise _Misuse("--driver trio needs trio: pip install 'regproto[trio]'") from None
    from regproto_trio import push

    async def run() -> PushResult:
        result: PushResult | RegprotoError | None = None
        async with trio.open_nursery() as nursery:
            await nursery.start(cancel_at_signal, nursery.cancel_scope)
            try:
                result = await push(**arguments)
            except RegprotoError as error:
                result = error
            nursery.cancel_scope.cancel()
        if result is None:
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
        raise _Misuse("--username and --password-stdin go together")
    if options.username is None:
        return None
    from regproto_sync._keychain import static_keychain

    try:
        password = sys.stdin.read(PASSWORD_MAX + 1).removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError):
        raise _Misuse("the password on standard input can't be read as text") from None
    if not 0 < len(password) <= PASSWORD_MAX:
        raise _Misuse("expected a password on standard input")
    return static_keychain(options.username, password)


# --- serve ----------------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    from regproto_sync._serve import serve

    def ready(url: str) -> None:
        say(f"registry at {url}; Ctrl-C ends it")

    try:
        serve(options.host, options.port, options.dir, None, ready)
    except (OSError, RegprotoError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        say(f"regproto: can't serve at {options.host}:{options.port}: {reason}")
        return FAILED
    return DONE
