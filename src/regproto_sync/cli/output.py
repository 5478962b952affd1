"""The command's output: lines for people on standard error, or JSON on standard output; the result last.

Errors and notices are printable by themselves. Here everything is escaped once more, whoever made it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

import attrs

from regproto import AuthenticationError, Notice, PushResult, Reference, RegistryError, RegprotoError
from regproto._model.errors import escaped
from regproto_sync.cli.lines import line_of

if TYPE_CHECKING:
    from regproto_sync.cli.live import LiveView

_CREDENTIALS_HINT: Final = " (with --username and --password-stdin, or by a login that docker or podman keeps)"


def say(text: str) -> None:
    """A line for people, on standard error."""
    if sys.stderr is not None:  # None: closed before the command began
        _print(escaped(text), sys.stderr)


def write_out(text: str) -> bool:
    """A line on standard output; False if it can't be written, which is then said, unless its reader went away."""
    if sys.stdout is None:
        say("regproto: standard output is closed")
        return False
    error = _print(text, sys.stdout)
    if error is not None and not isinstance(error, BrokenPipeError):
        say(f"regproto: standard output: {error.strerror}")
    return error is None


def _print(text: str, stream: TextIO) -> OSError | None:
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError as error:
        # The push goes on. What comes after this goes nowhere, Python's own flush included.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return error
    return None


@attrs.define(kw_only=True)
class Output:
    """The news and the end of one push."""

    json: bool
    quiet: bool
    lost: bool = attrs.field(default=False, init=False)
    """Something could not be written to standard output: the command has failed, whatever it did."""

    def show(self, text: str) -> None:
        """A line of the result, on standard output."""
        self.lost = self.lost or not write_out(escaped(text))

    def emit(self, event: str, fields: dict[str, Any]) -> None:
        """One JSON object on standard output."""
        text = json.dumps({"event": event, **fields})  # ASCII, and of its control characters only one is not escaped
        self.show(text.replace("\x7f", "\\u007f"))

    def notice(self, notice: Notice) -> None:
        """Tells of one event."""
        if self.quiet:
            return
        if self.json:
            fields = plain(notice)
            del fields["error"]  # its text says the same
            self.emit("notice", fields)
        elif (line := line_of(notice)) is not None:
            say(line)

    @contextmanager
    def view(self) -> Iterator[Callable[[Notice], None]]:
        """The one to tell the news to meanwhile: a live view on a terminal, if rich is there; else lines."""
        view = None if self.json or self.quiet or sys.stderr is None or not sys.stderr.isatty() else _live_view()
        if view is None:
            yield self.notice
        else:
            with view:
                yield view.notice

    def pushed(self, reference: str, result: PushResult) -> None:
        """Ends with the image's name by digest, or that of the one blob that was pushed."""
        target = Reference.parse(reference)
        digest = result.digest or next(iter((*result.uploaded, *result.existing, *result.mounted)))
        name = f"{target.registry}/{target.repository}@{digest}"
        if self.json:
            fields = plain(result)
            del fields["error"]
            self.emit("result", {**fields, "reference": name})
        else:
            self.show(name)

    def failed(self, error: RegprotoError) -> None:
        """Ends with the error: one message, on standard error in any case."""
        if self.json:
            fields: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
            if isinstance(error, RegistryError):
                fields |= {"status": error.status, "errors": [attrs.asdict(entry) for entry in error.errors]}
            self.emit("result", {"outcome": "failed", "error": fields})
        refused = isinstance(error, RegistryError) and error.status == 401
        unauthorized = refused or isinstance(error, AuthenticationError)
        say(f"regproto: {error}{_CREDENTIALS_HINT if unauthorized else ''}")

    def cancelled(self) -> None:
        """Ends without a result."""
        if self.json:
            self.emit("result", {"outcome": "cancelled"})


def _live_view() -> LiveView | None:
    try:
        from rich.console import Console
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return None
    from regproto_sync.cli.live import LiveView

    console = Console(stderr=True)
    return None if console.is_dumb_terminal else LiveView(console)


def plain(message: attrs.AttrsInstance) -> dict[str, Any]:
    """A message as JSON has it; what is embedded in a descriptor is left out."""
    return attrs.asdict(
        message,
        filter=lambda attribute, _: attribute.name != "data",
        value_serializer=lambda _, __, value: getattr(value, "value", value),
    )
