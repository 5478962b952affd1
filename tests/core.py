"""A scripted driver for the core: answers from a table, else from a fake registry, in simulated time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import attrs

from regproto import (
    Config,
    Credentials,
    Failed,
    FailureKind,
    Headers,
    NeedCredentials,
    NoCredentials,
    Notice,
    Output,
    Response,
    Send,
    Session,
    Status,
    Written,
)
from regproto._machines.base import Edge
from regproto.testing import FakeRegistry, Fault, FaultKind, RegistryOptions, When
from regproto.testing.simulation import Answer as Begun
from regproto.testing.simulation import InFlight, Silence, Simulation, stream_status_of
from regproto.testing.simulation import content_of as content_of

BASE: Final = "https://registry.example"
PLAIN: Final = Config(small_blob_bytes=0)
"""HEAD blob, POST start, PUT blob."""
PATCHES: Final = Config(small_blob_bytes=0, resumable_above_bytes=0)
"""HEAD blob, POST start, PATCH, PUT commit."""


# --- what is answered -------------------------------------------------------------------------------------------


@attrs.frozen
class Say:
    """An answer the registry has no part in."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    truncated: bool = False
    sent: int | None = None
    """How many bytes of a stream went out before; None: all."""


@attrs.frozen
class Fail:
    """No answer; the request never reached the registry, whatever `written` says."""

    kind: FailureKind
    written: Written = Written.ALL
    reused: bool = False
    detail: str = ""
    sent: int | None = None
    """How many bytes of a stream went out before; None: all, if any of the request was written."""


@attrs.frozen
class Hang:
    """No answer before the exchange is aborted."""


@attrs.frozen
class Pass:
    """The registry's own answer, or the given fault in its place."""

    fault: Fault | None = None


Answer: TypeAlias = Say | Fail | Hang | Pass

PASS: Final = Pass()
HANG: Final = Hang()
NOT_SENT: Final = Fail(FailureKind.CONNECT, Written.NONE, detail="connection refused")
CUT: Final = Fail(FailureKind.CLOSED, Written.SOME, detail="broken pipe")
LOST: Final = Fail(FailureKind.CLOSED, Written.ALL, detail="connection reset")
DONE_BUT_LOST: Final = Pass(fault=Fault(kind=FaultKind.DROP, when=When.AFTER))
"""The registry did the work; only its answer is lost."""


def say(status: int, body: bytes = b"", **headers: str) -> Say:
    """An answer; header names are written with `_` for `-`."""
    return Say(status, tuple((name.replace("_", "-"), value) for name, value in headers.items()), body)


def refuse(status: int, code: str, message: str = "", detail: object = None, **headers: str) -> Say:
    """A refusal in the spec's form."""
    error = {"code": code, "message": message} | ({} if detail is None else {"detail": detail})
    return say(status, json.dumps({"errors": [error]}).encode(), **headers)


def done_but(status: int, **headers: str) -> Pass:
    """The registry does the work, and something answers this in its place."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Pass(fault=Fault(kind=FaultKind.STATUS, when=When.AFTER, status=status, headers=named))


def cut_after(size: int) -> Pass:
    """The connection is cut when the registry has taken this much of the body."""
    return Pass(fault=Fault(kind=FaultKind.DROP, when=When.IN_BODY, after_bytes=size))


def token(text: str, **more: Any) -> Say:
    """A token server's answer."""
    return say(200, json.dumps({"token": text, **more}).encode())


def always(answer: Answer) -> Iterator[Answer]:
    """This answer, however often it is asked for."""
    return itertools.repeat(answer)


# --- the driver -------------------------------------------------------------------------------------------------


def name_of(send: Send) -> str:
    """A request in two words, e.g. `POST mount`. Repositories below `base/` are those that blobs are mounted from."""
    url = urlsplit(send.url)
    query = parse_qs(url.query)
    what = "session"
    if url.path.endswith("/token"):
        what = "token"
    elif "/referrers/" in url.path:
        what = "referrers"
    elif "/manifests/" in url.path:
        what = "tags" if "tag" in query else "manifest" if ":" in url.path else "tag"
    elif send.method == "HEAD":
        what = "source" if "/v2/base/" in send.url else "blob"
    elif send.method == "POST":
        what = "mount" if "mount" in query else "blob" if "digest" in query else "start"
    elif send.method == "PUT":
        what = "blob" if send.body else "commit"
    return "PATCH" if send.method == "PATCH" else f"{send.method} {what}"


def header(send: Send, name: str) -> str | None:
    """A header of a request."""
    return next((value for key, value in send.headers if key.lower() == name.lower()), None)


class Play(Simulation):
    """A driver with a script.

    Args:
        script: answers by `name_of` the request (optionally followed by a part of its URL), taken in turn; after
            those, and for every other request, the registry answers.
        options: `RegistryOptions` of the registry.
        keychain: what it has.
        hint: what an earlier session gave to be kept.
        save: have it kept; what was said last is `saves[-1]`.

    Attributes:
        names: every request of `sends` in two words.
        held: requests the script leaves hanging.
    """

    def __init__(
        self,
        script: Mapping[str, Iterable[Answer]] | None = None,
        *,
        config: Config | None = None,
        base: str = BASE,
        registry: FakeRegistry | None = None,
        keychain: Mapping[str, str] | None = None,
        keychain_error: str = "",
        hint: bytes = b"",
        save: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            Session(base, config, seed=1, hint=hint, save=save, journal=True),
            registry or FakeRegistry(RegistryOptions(**options)),
            progress=False,
        )
        self.keychain, self.keychain_error = keychain, keychain_error
        self.keychain_waits = False
        self.when_aborted: Answer = Fail(FailureKind.ABORTED)
        self.edges: list[Edge] = []
        self.hold = ""
        self.on(script or {})

    # --- the script ---

    def on(self, script: Mapping[str, Iterable[Answer]]) -> None:
        """A new script in place of what is left of the old one."""
        self.script = {key: iter(answers) for key, answers in script.items()}

    def _answer_to(self, send: Send) -> Answer:
        name = name_of(send)
        for key, answers in self.script.items():
            if key == name or (key.startswith(f"{name} ") and key[len(name) + 1 :] in send.url):
                answer = next(answers, None)
                if answer is not None:
                    return answer
        return PASS

    # --- what is seen ---

    @property
    def names(self) -> list[str]:
        return [name_of(send) for send in self.sends]

    def sent(self, name: str) -> list[Send]:
        """The requests of this name."""
        return [send for send in self.sends if name_of(send) == name]

    def told(self, status: Status) -> list[Notice]:
        """The notices of this status."""
        return [notice for notice in self.notices if notice.status is status]

    # --- the loop ---

    def until(self, name: str) -> Send:
        """Go on until a request of this name goes out; it is held back, for `answer`."""
        self.hold = name
        while self.hold:
            assert not self.step(), f"no {name} among {self.names}"
        return self.sends[-1]

    def poll(self) -> Output:
        output = super().poll()
        self.edges += self.session.take_journal()
        return output

    def complete(self, flight: InFlight) -> None:
        super().complete(flight)
        self.edges += self.session.take_journal()

    def answer(self, send: Send, answer: Answer) -> None:
        """The one answer to a request."""
        self.complete(InFlight(send, self.now, self._begun(send, answer)))

    def begin(self, send: Send) -> Begun:
        if self.hold == name_of(send):
            self.hold = ""
            return Silence()
        return self._begun(send, self._answer_to(send))

    def answer_credentials(self, need: NeedCredentials) -> Credentials | NoCredentials | None:
        if self.keychain_waits:
            return None
        if self.keychain is None:
            return NoCredentials(id=need.id, error=self.keychain_error)
        return Credentials(id=need.id, **self.keychain)

    def answer_abort(self, send: Send) -> None:
        self.answer(send, self.when_aborted)

    def _begun(self, send: Send, answer: Answer) -> Begun:
        match answer:
            case Say(sent=sent):
                said = attrs.asdict(answer, filter=attrs.filters.exclude("sent"))
                return Response(id=send.id, **said, stream=stream_status_of(send, sent))
            case Fail(sent=sent):
                said = attrs.asdict(answer, filter=attrs.filters.exclude("sent"))
                sent = 0 if answer.written is Written.NONE else sent
                return Failed(id=send.id, **said, stream=stream_status_of(send, sent))
            case Pass():
                return answer.fault
            case Hang():
                return Silence()
