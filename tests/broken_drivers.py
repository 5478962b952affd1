"""Drivers that are wrong in one way each, to see that the checks find it: the blocking driver with a part replaced."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import pytest

from regproto import http1
from regproto._messages import Failed, FailureKind, Input, Output, PushResult, Response, Send, Written
from regproto.testing import RunSession
from regproto_sync import run_session
from regproto_sync._transport import Pool, Wire

Faulty = Callable[[pytest.MonkeyPatch], RunSession]
"""Makes a driver; what it patches is put back after the test."""


class Between:
    """Stands between a driver and its session, and changes what passes."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def poll(self, now: float) -> Output:
        output: Output = self.session.poll(now)
        return output

    def receive(self, now: float, event: Input, /) -> None:
        self.session.receive(now, event)

    def cancel(self, push_id: int, now: float) -> None:
        self.session.cancel(push_id, now)


def between(kind: type[Between]) -> Faulty:
    """A driver whose session is behind a `Between`."""

    def run(session: Any, push_ids: Iterable[int], *, keychain: Any, tls: ssl.SSLContext | None = None) -> Any:
        return run_session(kind(session), push_ids, keychain=keychain, tls=tls)

    return lambda _: run


def patched(target: Any, name: str, value: Any) -> Faulty:
    """A driver with one of its parts replaced."""

    def make(monkeypatch: pytest.MonkeyPatch) -> RunSession:
        monkeypatch.setattr(target, name, value)
        return run_session

    return make


def telling(change: Callable[[Any], Input]) -> Faulty:
    """A driver that tells failures otherwise than they are."""

    class Telling(Between):
        def receive(self, now: float, event: Input, /) -> None:
            super().receive(now, change(event) if isinstance(event, Failed) else event)

    return between(Telling)


def asking(change: Callable[[Send], Send]) -> Faulty:
    """A driver that sends otherwise than it was told."""

    class Asking(Between):
        def poll(self, now: float) -> Output:
            output = super().poll(now)
            return change(output) if isinstance(output, Send) else output

    return between(Asking)


def _always_connect(pool: Pool, origin: http1.Origin) -> Wire | None:
    return None


def _take_any(pool: Pool, origin: http1.Origin) -> Wire | None:
    idle = pool._idle.get(origin)
    return idle.pop() if idle else None


def _start_anyhow(connection: http1.Connection, send: Send) -> http1.Exchange:
    if connection._exchange is not None:
        connection.__init__()  # type: ignore[misc]
    connection._exchange = http1.Exchange(send, connection._h11, reused=True)
    return connection._exchange


def _keep_ended(monkeypatch: pytest.MonkeyPatch) -> RunSession:
    monkeypatch.setattr(http1.Connection, "reusable", property(lambda _: True))
    monkeypatch.setattr(http1.Connection, "start", _start_anyhow)
    monkeypatch.setattr(Wire, "is_quiet", lambda _: True)
    return run_session


def _without_tls(send: Send) -> Send:
    return attrs.evolve(send, url=send.url.replace("https://", "http://"))


def _with_default_tls(
    session: Any, push_ids: Iterable[int], *, keychain: Any, tls: ssl.SSLContext | None = None
) -> Mapping[int, PushResult]:
    return run_session(session, push_ids, keychain=keychain)


def _gullible(
    session: Any, push_ids: Iterable[int], *, keychain: Any, tls: ssl.SSLContext | None = None
) -> Mapping[int, PushResult]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return run_session(session, push_ids, keychain=keychain, tls=context)


def _kind(kind: FailureKind) -> Callable[[Failed], Input]:
    return lambda failed: attrs.evolve(failed, kind=kind)


BROKEN: dict[str, list[Faulty]] = {
    "keep-alive": [patched(Pool, "take", _always_connect)],
    "end of keep-alive": [_keep_ended],
    "idle connection closed": [patched(Pool, "take", _take_any)],
    "idle connection that spoke": [patched(Pool, "take", _take_any)],
    "reused": [
        telling(lambda failed: attrs.evolve(failed, reused=False)),
        telling(lambda failed: attrs.evolve(failed, reused=True)),
    ],
    "refused": [
        telling(_kind(FailureKind.CLOSED)),
        telling(lambda failed: attrs.evolve(failed, written=Written.SOME)),
        telling(lambda failed: Response(id=failed.id, status=502)),
    ],
    "TLS": [asking(_without_tls), lambda _: _with_default_tls],
    "TLS failure": [lambda _: _gullible, telling(_kind(FailureKind.CONNECT))],
    "closed in the handshake": [telling(_kind(FailureKind.CLOSED))],
}
"""For each check, drivers that it must find fault with."""
