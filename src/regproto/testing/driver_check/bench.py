"""The tools of a check: the driver, run in a thread of its own so that one that hangs is noticed; peers; words."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, Final, Protocol, TypeAlias

import attrs

from regproto._model.digest import Digest
from regproto._model.errors import LocalProtocolError
from regproto._model.messages import (
    BlobSlice,
    Body,
    Credentials,
    Failed,
    FailureKind,
    NeedCredentials,
    NoCredentials,
    PushResult,
    Response,
    Send,
    Written,
)
from regproto.testing.driver_check.peer import Handler, Peer
from regproto.testing.driver_check.script import RESULT, ScriptedSession, Step, answered
from regproto.testing.driver_check.tls import serving, trusting
from regproto.testing.driver_check.words import last_event, raised

Keychain: TypeAlias = Callable[[NeedCredentials], Credentials | NoCredentials]

StreamSource: TypeAlias = Callable[[Callable[[], Any]], AbstractContextManager[object]]
"""Makes the `source` of a `Stream`, closed at the end, from a function that opens a file-like object to be read."""

STREAM_SOURCE: Final = "regproto_sync:StreamContent"
"""The default one's module and name: the streams that the bundled drivers take."""

LIMIT_BYTES: Final = 10_000
"""Of heads and bodies of answers in the checks: small, so that going over it is quick."""


class RunSession(Protocol):
    """A driver, as it is given to `check_driver`: a function that runs a session until some pushes are finished.

    It blocks until then, whatever the driver is made of, and whatever it opened or started is closed or ended when it
    returns.
    """

    def __call__(
        self, session: Any, push_ids: Iterable[int], *, keychain: Keychain, tls: ssl.SSLContext | None = None
    ) -> Mapping[int, PushResult]:
        """Runs `session`.

        Args:
            session: has the methods of `regproto.Session`; nobody else uses it meanwhile.
            push_ids: pushes that were submitted to it.
            keychain: answers `NeedCredentials`; it may block and it may raise.
            tls: for https; None: the driver's own default.

        Returns:
            The result of each of these pushes, by its id.
        """
        ...


class CheckFailed(Exception):
    """The driver does not do what is checked."""


class Hung(CheckFailed):
    """The driver did not return."""


@attrs.frozen
class Check:
    """One thing that a driver must hold to."""

    name: str
    """Short; also how a transport's lack of it is declared."""
    rule: str
    """The driver's duty, in a sentence."""
    perform: Callable[[Bench], None] = attrs.field(repr=False)


CHECKS: Final[list[Check]] = []
"""All of them, in the order they are done."""


def check(name: str, rule: str) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Adds a function to the checks. It raises `CheckFailed` if the driver does not do what the rule says."""

    def add(perform: Callable[[Bench], None]) -> Callable[[Bench], None]:
        CHECKS.append(Check(name, rule, perform))
        return perform

    return add


def expect(holds: object, otherwise: str) -> None:
    """Raises `CheckFailed` unless something holds."""
    if not holds:
        raise CheckFailed(otherwise)


def no_credentials(need: NeedCredentials) -> NoCredentials:
    """A keychain that is empty."""
    return NoCredentials(id=need.id)


def load(name: str) -> Any:
    """The function that `MODULE:FUNCTION` names. Raises `LocalProtocolError` if there is none."""
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise LocalProtocolError(f"{name!r} is not a MODULE:FUNCTION: {error}") from error


def default_stream_source() -> StreamSource:
    """The one named `STREAM_SOURCE`."""
    source: StreamSource = load(STREAM_SOURCE)
    return source


@attrs.frozen
class Bench:
    """The driver that is checked, and what it is checked with."""

    run_session: RunSession
    wait_timeout_s: float
    """How long anything may take; nothing waits this long when all is well."""
    stream_source: StreamSource = attrs.field(factory=default_stream_source)
    peer_errors: list[BaseException] = attrs.field(factory=list, init=False)
    """Errors of peers, which counts if nothing else did."""

    peers: list[Peer] = attrs.field(factory=list, init=False)
    """All that were there, the newest last."""

    # --- the driver ---

    def run(
        self,
        *steps: Step,
        push_ids: Iterable[int] = (0,),
        keychain: Keychain = no_credentials,
        tls: ssl.SSLContext | None = None,
    ) -> ScriptedSession:
        """Lets the driver run a scripted session to its end."""
        ids = list(push_ids)
        session = ScriptedSession(steps, ids, self.wait_timeout_s)
        results: list[Mapping[int, PushResult]] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(self.run_session(session, ids, keychain=keychain, tls=tls))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="check", daemon=True)
        thread.start()
        thread.join(2 * self.wait_timeout_s)
        # What was done first explains the rest.
        if session.broken:
            raise CheckFailed(session.broken[0])
        if thread.is_alive():
            stuck = f"; the session waits for {session.stuck}{self._so_far(session)}" if session.stuck else ""
            raise Hung(f"it does not return{stuck}")
        if errors:
            raise CheckFailed(raised(errors[0], self.run_session)) from errors[0]
        if session.stuck:
            raise CheckFailed(f"the session waits in vain for {session.stuck}{self._so_far(session)}")
        self._heed(results[0], ids, session)
        return session

    def _heed(self, results: object, ids: list[int], session: ScriptedSession) -> None:
        if not isinstance(results, Mapping):
            raise CheckFailed(f"it returned {results!r} instead of a dict of results")
        missing = [id for id in ids if results.get(id) != RESULT]
        expect(not missing, f"it returned no result for {missing}, or another: {dict(results)!r}")
        invented = [id for id in results if id not in session.finished]
        expect(not invented, f"it returned a result for {invented}, which was not finished")

    def _so_far(self, session: ScriptedSession) -> str:
        seen = "; ".join(sight for peer in self.peers[-2:] if (sight := peer.sight()))
        return f" (the driver told last: {last_event(session.inputs)}; the peer saw: {seen or 'no connection'})"

    def exchange(self, send: Send, tls: ssl.SSLContext | None = None) -> Response | Failed:
        """The answer to one `Send`."""
        return self.run(send, answered(send.id), tls=tls).answers(send.id)[0]

    # --- peers ---

    @contextmanager
    def peer(self, *handlers: Handler, tls: bool = False, may_fail: bool = False) -> Iterator[Peer]:
        """A registry made of handlers. Their errors fail the check, unless they `may_fail`."""
        # More patient than the script: who waits in vain for an answer is to find that out first.
        with Peer(*handlers, tls=serving() if tls else None, wait_timeout_s=2 * self.wait_timeout_s) as peer:
            self.peers.append(peer)
            yield peer
        if not may_fail:
            self.peer_errors.extend(peer.errors)

    def trust(self) -> ssl.SSLContext:
        """The context that trusts a peer with TLS."""
        return trusting()


def ask(id: int, url: str, method: str = "GET", body: Body = b"", **changes: Any) -> Send:
    """A `Send`."""
    plain = Send(
        id=id, method=method, url=url, headers=(), body=body, max_head_bytes=LIMIT_BYTES, max_body_bytes=LIMIT_BYTES
    )
    return attrs.evolve(plain, **changes)


def blob_slice(source: object, size: int, offset: int = 0) -> BlobSlice:
    """A slice of some blob."""
    return BlobSlice(source=source, digest=Digest.of(b""), offset=offset, size=size)


def responded(answer: Response | Failed, status: int = 200, body: bytes | None = b"ok") -> Response:
    """The answer, which has to be this response."""
    expect(isinstance(answer, Response), f"the answer should be Response({status}), but was {answer!r}")
    assert isinstance(answer, Response)
    expect(answer.status == status, f"the status should be {status}, but was {answer.status}")
    expect(
        body is None or answer.body == body,
        f"the answer's body should be {_short(body)}, but was {_short(answer.body)}",
    )
    return answer


def _short(body: bytes | None) -> str:
    return f"{len(body)} bytes" if body and len(body) > 80 else repr(body)


def failed(answer: Response | Failed, *kinds: FailureKind, nothing_written: bool = False) -> Failed:
    """The answer, which has to be a failure of one of these kinds."""
    wanted = " or ".join(kind.name for kind in kinds)
    expect(isinstance(answer, Failed), f"the answer should be Failed({wanted}), but was {answer!r}")
    assert isinstance(answer, Failed)
    expect(answer.kind in kinds, f"the kind should be {wanted}, but was {answer.kind.name}: {answer.detail!r}")
    if nothing_written:
        expect(answer.written is Written.NONE, f"`written` should be NONE, but was {answer.written.name}")
    else:
        expect(answer.written is not Written.NONE, "`written` should not be NONE: something was written")
    return answer
