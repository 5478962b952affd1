"""Runs a session while everything outside it is watched; started by test_purity.py in a bare interpreter.

Arguments: the folders to import from. Prints one JSON object: the modules that importing regproto brought, what was
reached while the session ran, how its pushes ended, and a digest of all it said.
"""

from __future__ import annotations

# ruff: noqa: E402 (what regproto imports is seen before anything else is)
import sys

before = set(sys.modules)
sys.path[:0] = sys.argv[1:]

import regproto

for name in regproto.__all__:
    getattr(regproto, name)  # imported when it is first used, which is to be before the session runs
imported = sorted(set(sys.modules) - before)

import builtins
import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

HARMLESS = {"builtins.id"}
"""Audit events of the attrs library's own repr."""

armed = False
reached: list[str] = []


class Reached(BaseException):
    """Not an Exception, so that nothing under watch can swallow it."""


def reach(what: str) -> NoReturn:
    reached.append(what)
    raise Reached(what)


def guard(module: Any, name: str) -> None:
    inner: Callable[..., Any] = getattr(module, name)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if armed:
            reach(f"{module.__name__}.{name}")
        return inner(*args, **kwargs)

    setattr(module, name, guarded)


class Terminal:
    """Stands in for the standard streams."""

    def __getattr__(self, name: str) -> Any:
        if armed:
            reach(f"standard stream .{name}")
        raise AttributeError(name)


def watch() -> None:
    for module in (time, os):
        for name, value in list(vars(module).items()):
            if callable(value) and not isinstance(value, type):
                guard(module, name)
    for name in ("open", "print", "input", "breakpoint", "eval", "exec", "compile"):
        guard(builtins, name)
    guard(io, "open")
    guard(threading.Thread, "start")
    guard(type(os.environ), "__getitem__")
    guard(type(os.environ), "__iter__")
    sys.addaudithook(lambda event, args: reach(f"audit: {event}") if armed and event not in HARMLESS else None)


# --- one registry that asks for a token, loses an answer, is busy once, and takes no single POST --------------------

BLOBS = [bytes([n]) * (n + 1) for n in range(8)]


def plan() -> regproto.PushPlan:
    def described(content: bytes, media_type: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": regproto.Digest.of(content), "size": len(content)}

    raw = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(BLOBS[0], "application/vnd.oci.image.config.v1+json"),
        "layers": [described(blob, "application/vnd.oci.image.layer.v1.tar") for blob in BLOBS[1:]],
    }
    manifest = regproto.Manifest.of(json.dumps(raw).encode())
    return regproto.plan_push(
        "team/app",
        manifest.descriptor,
        read_manifest=lambda _: manifest.content,
        find_content=lambda descriptor: descriptor.digest,
        tags=["one", "two"],
    )


def answer(send: regproto.Send, nth: int) -> regproto.Response | regproto.Failed:
    def response(status: int, *headers: tuple[str, str], body: bytes = b"") -> regproto.Response:
        return regproto.Response(id=send.id, status=status, headers=headers, body=body)

    if "auth.example" in send.url:
        return response(200, body=b'{"token": "secret", "expires_in": 300}')
    if not any(name.lower() == "authorization" for name, _ in send.headers):
        challenge = 'Basic realm="x", Bearer realm="https://auth.example/token",service="registry"'
        return response(401, ("WWW-Authenticate", challenge))
    if nth == 4:
        return regproto.Failed(id=send.id, kind=regproto.FailureKind.CLOSED, written=regproto.Written.ALL)
    if nth == 7:
        return response(503)
    if nth == 9:
        date = "Sun, 06 Nov 1994 08:49:3"
        return response(429, ("Retry-After", f"{date}9 GMT"), ("Date", f"{date}7 GMT"))
    if send.method in ("HEAD", "GET"):
        return response(404)
    if send.method == "POST":
        return response(202, ("Location", f"/v2/team/app/blobs/uploads/{nth}?_state=a%2Bb"))
    return response(201, ("Warning", '299 - "soon gone"'))


def run(push: regproto.PushPlan, cancelled: regproto.PushPlan) -> tuple[list[str], list[str]]:
    session = regproto.Session("https://registry.example", regproto.Config(), seed=7, now=0.0)
    now = 0.0
    said: list[str] = []
    ended: list[str] = []
    session.submit(push)
    given_up = session.submit(cancelled)
    while len(ended) < 2:
        output = session.poll(now)
        said.append(repr(output))
        match output:
            case regproto.Send():
                said.append(output.url)
                session.receive(now, answer(output, len(said) // 2))
                if given_up and len(said) > 40:
                    session.cancel(given_up, now)
                    given_up = 0
            case regproto.NeedCredentials():
                session.receive(now, regproto.Credentials(id=output.id, username="u", password="p"))
            case regproto.Finished():
                ended.append(output.result.outcome.value)
            case regproto.Wait():
                assert now < output.until < 1e6, "nothing is in flight, so there is something to wait for"
                now = output.until
    return said, ended


def main() -> None:
    global armed
    watch()
    push, cancelled = plan(), plan()
    report: dict[str, object] = {"imported": imported, "reached": reached}
    streams = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdout = sys.stderr = Terminal()
    armed = True
    try:
        said, ended = run(push, cancelled)
    except Reached:
        pass
    else:
        armed = False
        report |= {"ended": ended, "steps": len(said), "said": hashlib.sha256("\n".join(said).encode()).hexdigest()}
    finally:
        armed = False
        sys.stdin, sys.stdout, sys.stderr = streams
    print(json.dumps(report))


main()
