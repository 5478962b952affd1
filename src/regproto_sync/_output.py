"""What the command tells: lines for people on standard error, or JSON on standard output; the result last."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final, TextIO

import attrs

from regproto import Notice, PushResult, Reference, RegistryError, RegprotoError, Status

_SHORT_DIGEST: Final = len("sha256:") + 12


def say(text: str) -> None:
    """A line for people, on standard error."""
    _print(text, sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # Nobody reads any more, but the push goes on. What comes after this goes nowhere, Python's own flush included.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@attrs.frozen(kw_only=True)
class Output:
    """The news and the end of one push."""

    json: bool
    quiet: bool

    def notice(self, notice: Notice) -> None:
        """Tells of one event."""
        if self.quiet:
            return
        if self.json:
            fields = plain(notice)
            del fields["error"]  # its text says the same
            emit("notice", fields)
        elif (line := _line(notice)) is not None:
            say(line)

    def pushed(self, reference: str, result: PushResult) -> None:
        """Ends with the image's name by digest, or that of the one blob that was pushed."""
        target = Reference.parse(reference)
        digest = result.digest or next(iter((*result.uploaded, *result.existing, *result.mounted)))
        name = f"{target.registry}/{target.repository}@{digest}"
        if self.json:
            fields = plain(result)
            del fields["error"]
            emit("result", {**fields, "reference": name})
        else:
            _print(name, sys.stdout)

    def failed(self, error: RegprotoError) -> None:
        """Ends with the error: one message, on standard error in any case."""
        if self.json:
            fields: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
            if isinstance(error, RegistryError):
                fields |= {"status": error.status, "errors": [attrs.asdict(entry) for entry in error.errors]}
            emit("result", {"outcome": "failed", "error": fields})
        say(f"regproto: {error}")

    def cancelled(self) -> None:
        """Ends without a result."""
        if self.json:
            emit("result", {"outcome": "cancelled"})


def show(text: str) -> None:
    """A line of the result, on standard output."""
    _print(text, sys.stdout)


def emit(event: str, fields: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    _print(json.dumps({"event": event, **fields}), sys.stdout)


def plain(message: attrs.AttrsInstance) -> dict[str, Any]:
    """A message as JSON has it; what is embedded in a descriptor is left out."""
    return attrs.asdict(
        message,
        filter=lambda attribute, _: attribute.name != "data",
        value_serializer=lambda _, __, value: getattr(value, "value", value),
    )


def _line(notice: Notice) -> str | None:
    """One line for what ended or needs to be known; None for what is under way."""
    what = notice.subject[:_SHORT_DIGEST] if ":" in notice.subject else notice.subject
    match notice.status:
        case Status.EXISTING | Status.UPLOADED:
            return f"{what} {notice.status.value} {_size(notice.size_bytes)}"
        case Status.MOUNTED:
            return f"{what} mounted {_size(notice.size_bytes)}" + (f" from {notice.text}" if notice.text else "")
        case Status.RESUMED:
            return f"{what} resumed: {_size(notice.sent_bytes)} of {_size(notice.size_bytes)} are there"
        case Status.SKIPPED | Status.FAILED | Status.RESTARTED | Status.NOT_RESUMED:
            return f"{what} {notice.status.value}" + (f": {notice.text}" if notice.text else "")
        case Status.RETRYING:
            return f"{what} again in {notice.delay_s:.1f} s: {notice.text}"
        case Status.WARNING:
            return f"{notice.subject} warns: {notice.text}"
        case Status.UPLOADING | Status.PROGRESS:
            return None


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
