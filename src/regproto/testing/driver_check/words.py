"""Words for people who read why a check failed."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from regproto._model.messages import Input, Progress

_TOLD_MAX: Final = 3


def last_event(inputs: Sequence[tuple[float, Input]]) -> str:
    """The last things that a session was told."""
    return ", ".join(_short(event) for _, event in inputs[-_TOLD_MAX:]) or "nothing"


def _short(event: Input) -> str:
    if isinstance(event, Progress):
        return f"Progress({event.id}, {event.phase.name}, {event.bytes} bytes)"
    return f"{type(event).__name__}({event.id})"


def raised(error: BaseException, run_session: object) -> str:
    """An error of a driver, and where in its own files it was raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    code = getattr(run_session, "__code__", None)
    home = Path(code.co_filename).parent if code is not None else None
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent == home]
    where = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
    return f"it raised {error!r}{where}"


def descriptors() -> frozenset[tuple[str, str]] | None:
    """The open file descriptors and what they are; None where the system does not tell."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return None
    found = set()
    for name in names:
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except OSError:  # that of the listing itself
            pass
    return frozenset(found)


def described(descriptor: str, link: str) -> str:
    """An open file descriptor; of a socket where it leads."""
    if not link.startswith("socket:"):
        return link
    try:
        with socket.socket(fileno=os.dup(int(descriptor))) as sock:
            if sock.family not in (socket.AF_INET, socket.AF_INET6):
                return f"{link} ({sock.family.name})"
            local = _address(sock.getsockname())
            try:
                return f"{link} (from {local} to {_address(sock.getpeername())})"
            except OSError:
                return f"{link} (at {local}, not connected)"
    except OSError:  # closed meanwhile
        return link


def _address(name: tuple[str, int]) -> str:
    return f"{name[0]}:{name[1]}"
