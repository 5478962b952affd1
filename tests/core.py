"""A scripted driver for the core: answers from a table, else from a fake registry, in simulated time."""

from __future__ import annotations

import itertools
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import attrs

from regproto import (
    Abort,
    Config,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Headers,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    Notice,
    Output,
    PushPlan,
    PushResult,
    Response,
    Save,
    Send,
    Session,
    Status,
    Wait,
    Written,
)
from regproto._machines.base import Edge
from regproto.testing import FakeRegistry, Fault, FaultKind, RegistryOptions, Reply, When, Wire
from regproto.testing.explorer import bodies as _bodies

BASE: Final = "https://registry.example"
PLAIN: Final = Config(small_blob_bytes=0)
"""HEAD blob, POST start, PUT blob."""
PATCHES: Final = Config(small_blob_bytes=0, resumable_above_bytes=0)
"""HEAD blob, POST start, PATCH, PUT commit."""
STEPS_MAX: Final = 20_000


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
    """The registry's own answer, with more headers; or the given fault in its place."""

    headers: Headers = ()
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


def content_of(send: Send) -> bytes:
    """A request's body, read from its source."""
    return _bodies.content_of(send)


class Play:
    """A driver with a script.

    Args:
        script: answers by `name_of` the request (optionally followed by a part of its URL), taken in turn; after
            those, and for every other request, the registry answers.
        options: `RegistryOptions` of the registry.
        keychain: what it has.
        hint: what an earlier session gave to be kept.
        save: have it kept; what was said last is `saves[-1]`.

    Attributes:
        sends: every request, in order; `names` in two words each.
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
        self.session = Session(base, config, seed=1, hint=hint, save=save, journal=True)
        self.registry = registry or FakeRegistry(RegistryOptions(**options))
        self.keychain, self.keychain_error = keychain, keychain_error
        self.keychain_waits = False
        self.when_aborted: Answer = Fail(FailureKind.ABORTED)
        self.now = 0.0
        self.sends: list[Send] = []
        self.waiting: deque[tuple[Send, Answer]] = deque()
        self.held: dict[int, Send] = {}
        self.aborted: list[int] = []
        self.asked: list[NeedCredentials] = []
        self.needs: list[NeedManifests] = []
        self.notices: list[Notice] = []
        self.saves: list[bytes] = []
        self.open: set[int] = set()
        self.results: dict[int, PushResult] = {}
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

    def run(self, *pushes: PushPlan) -> PushResult:
        """Submit these and go on until every push is over; the result of the newest."""
        self.submit(*pushes)
        while not self.step():
            pass
        return self.results[max(self.results)]

    def submit(self, *pushes: PushPlan) -> int:
        """Begin these; the id of the newest."""
        for push in pushes:
            self.open.add(self.session.submit(push))
        return max(self.open)

    def until(self, name: str) -> Send:
        """Go on until a request of this name goes out; it is held back, for `answer`."""
        self.hold = name
        while self.hold:
            assert not self.step(), f"no {name} among {self.names}"
        return self.sends[-1]

    def settle(self) -> float:
        """Poll and answer until there is nothing to do but to wait; until when."""
        while True:
            if isinstance(output := self.poll(), Wait) and not self.answer_next():
                return output.until

    def step(self) -> bool:
        """One poll; True when every push is over and there is no more news."""
        output = self.poll()
        if isinstance(output, Wait) and not self.answer_next():
            if not self.open:
                return True
            assert output.until < math.inf, f"stuck on {[name_of(s) for s in self.held.values()]}"
            self.now = max(self.now, output.until)
        return False

    def answer_next(self) -> bool:
        """Answer the oldest request that waits; False if none does."""
        if self.waiting:
            self.answer(*self.waiting.popleft())
            return True
        return False

    def poll(self) -> Output:
        """One poll; what it returns is taken note of."""
        output = self.session.poll(self.now)
        self.edges += self.session.take_journal()
        match output:
            case Send():
                assert len(self.sends) < STEPS_MAX, "it never ends"
                self.sends.append(output)
                answer = HANG if self.hold == name_of(output) else self._answer_to(output)
                self.hold = "" if self.hold == name_of(output) else self.hold
                if isinstance(answer, Hang):
                    self.held[output.id] = output
                else:
                    self.waiting.append((output, answer))
            case Abort():
                self.aborted.append(output.id)
                if output.id in self.held:
                    self.answer(self.held[output.id], self.when_aborted)
            case NeedCredentials():
                self.asked.append(output)
                if self.keychain_waits:
                    pass
                elif self.keychain is None:
                    self.session.receive(self.now, NoCredentials(id=output.id, error=self.keychain_error))
                else:
                    self.session.receive(self.now, Credentials(id=output.id, **self.keychain))
            case Save():
                self.saves.append(output.data)
            case Notice():
                self.notices.append(output)
            case NeedManifests():
                self.needs.append(output)
                if callable(output.draft):
                    self.session.receive(self.now, output.draft(output))
            case Finished():
                self.open.remove(output.push_id)
                self.results[output.push_id] = output.result
            case Wait():
                pass
        return output

    def answer(self, send: Send, answer: Answer) -> None:
        """The one answer to a request."""
        self.held.pop(send.id, None)
        match answer:
            case Say():
                event: Response | Failed = Response(
                    id=send.id,
                    status=answer.status,
                    headers=answer.headers,
                    body=answer.body,
                    truncated=answer.truncated,
                    stream=_bodies.told_of(send, answer.sent),
                )
            case Fail():
                event = Failed(
                    id=send.id,
                    kind=answer.kind,
                    written=answer.written,
                    reused=answer.reused,
                    detail=answer.detail,
                    stream=_bodies.told_of(send, 0 if answer.written is Written.NONE else answer.sent),
                )
            case Pass():
                event = self._registry_answers(send, answer)
            case Hang():
                raise AssertionError("nothing to answer")
        self.session.receive(self.now, event)
        self.edges += self.session.take_journal()

    def _registry_answers(self, send: Send, answer: Pass) -> Response | Failed:
        reply: Reply = self.registry.handle(_bodies.request_of(send), self.now, answer.fault)
        told = _bodies.told_of(send)
        if reply.wire is not Wire.WHOLE:
            fault = answer.fault
            in_body = fault is not None and fault.position is When.IN_BODY
            if fault is not None and in_body:
                told = _bodies.told_of(send, min(fault.after_bytes, len(content_of(send))))
            written = Written.SOME if in_body else Written.ALL
            return Failed(id=send.id, kind=FailureKind.CLOSED, written=written, stream=told)
        body = b"" if send.method == "HEAD" else reply.content
        headers = (*reply.headers, *answer.headers)
        return Response(id=send.id, status=reply.status, headers=headers, body=body, stream=told)
