"""`regproto serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from regproto import RegprotoError
from regproto_sync.cli.output import say
from regproto_sync.cli.run import DONE, FAILED


def add(commands: Any) -> None:
    """Adds the subcommand to a parser's."""
    serve = commands.add_parser(
        "serve", help="run a registry to try things with", description="Run a registry to try things with."
    )
    serve.add_argument("--host", type=_host, default="127.0.0.1", help="address to listen at (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=5000, help="0 takes a free one (default: %(default)s)")
    serve.add_argument("--dir", type=Path, metavar="DIR", help="keep content in this folder instead of in memory")
    serve.set_defaults(run=_serve)


def _host(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not an address")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    from regproto_sync.server.server import serve

    def ready(url: str) -> None:
        say(f"registry at {url}; Ctrl-C ends it")

    try:
        serve(options.host, options.port, options.dir, None, ready)
    except (OSError, RegprotoError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        say(f"regproto: can't serve at {options.host}:{options.port}: {reason}")
        return FAILED
    return DONE
