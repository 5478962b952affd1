"""Any event at any time: either `LocalProtocolError` with nothing changed, or it is taken and the push goes on.

Hypothesis plays the driver: it polls when it likes, answers in any order with anything HTTP allows, reports progress
that makes no sense, answers what was never asked, cancels, submits more, and lets time jump. At the end it plays fair,
and every push has to end, with what it says being so. `scripts/fuzz` does it for longer.
"""

from __future__ import annotations

import math
import os
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import Phase as Phases
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import explored
from pushes import REPO, blob, blobs_push, described, image, index
from regproto import (
    Abort,
    Config,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Input,
    LocalProtocolError,
    MountSource,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    NoManifests,
    Notice,
    Phase,
    Progress,
    PushOutcome,
    PushPlan,
    PushResult,
    RegprotoError,
    Response,
    Save,
    Send,
    Session,
    Stream,
    Wait,
    Written,
)
from regproto.testing import Auth, Etag, FakeRegistry, RegistryOptions
from regproto.testing.explorer.fork import Forker, fingerprint
from regproto.testing.simulation import content_of, request_of, stream_status_of

BASE = "https://registry.example"
SECRET = "s3cr3t-of-the-fuzzer"
EXAMPLES = int(os.environ.get("REGPROTO_FUZZ_EXAMPLES", "0"))
"""0: the small edition, the same every time."""
STEPS_MAX = 4_000
"""In which a push ends once all is well again."""

# --- what is pushed, and how ------------------------------------------------------------------------------------

SUBJECT = image(b"the subject")
LAYERS = (b"one layer", b"another layer", b"a third")
CONFIGS = st.builds(
    Config,
    max_exchanges=st.sampled_from([1, 2, 32]),
    max_body_bytes=st.sampled_from([1, 20, 10_000]),
    attempts=st.integers(1, 3),
    small_blob_bytes=st.sampled_from([0, 10, 10_000]),
    resumable_above_bytes=st.sampled_from([0, 10, 10_000]),
    chunk_bytes=st.sampled_from([None, 1, 4]),
    anonymous_mount=st.booleans(),
    check_existing=st.booleans(),
    push_timeout_s=st.sampled_from([None, 40.0]),
    stream_buffer_bytes=st.sampled_from([2, 10_000]),
    exchange_timeout_s=st.sampled_from([None, 20.0]),
)
OPTIONS = st.builds(
    RegistryOptions,
    auth=st.sampled_from(list(Auth)),
    users=st.just({"user": SECRET}),
    single_post=st.sampled_from([201, 202, 404]),
    docker_content_digest=st.booleans(),
    location_query=st.booleans(),
    upload_status=st.booleans(),
    stale_range=st.booleans(),
    range_on_416=st.booleans(),
    missing_status=st.sampled_from([404, 403]),
    sparse_indexes=st.just(True),
    referrers_api=st.booleans(),
    tag_params=st.booleans(),
    etag=st.sampled_from(list(Etag)),
)


def _push(number: int, mounts: bool, repository: str) -> PushPlan:
    sources = (MountSource(repository="team/base"), MountSource(repository="far/away", foreign=True)) if mounts else ()
    if number in (12, 13):
        streamed = explored.one_stream() if number == 12 else explored.stream_image(b"stream", b"another")
        return attrs.evolve(streamed, repository=repository)
    layers = [blob(content, *sources) for content in LAYERS[: 1 + number % 3]]
    if number > 13:
        attached = image(*layers, subject=described(SUBJECT.manifest), annotations={"n": str(number)})
        return attached.push(repository=repository)
    if number % 4 == 3:
        return blobs_push(*layers, repository=repository)
    whole = image(*layers) if number % 2 else index(image(*layers), image(b"its own", layers[0]))
    return whole.push(*["1.0", "2.0"][: number % 3], repository=repository)


PUSHES = st.builds(_push, st.integers(0, 16), st.booleans(), st.sampled_from([REPO, "team/other"]))

# --- what is answered -------------------------------------------------------------------------------------------

STATUSES = st.sampled_from(
    [
        *(
            200,
            201,
            202,
            204,
            206,
            226,
            299,
            300,
            301,
            302,
            303,
            304,
            307,
            308,
            400,
            401,
            403,
            404,
            405,
            408,
            409,
            411,
            412,
        )
    ]
    + [*(413, 416, 418, 422, 425, 429, 451, 499, 500, 501, 502, 503, 504, 522, 599, 600, 999)]
)
VALUES: dict[str, list[str]] = {
    "Location": [
        *("", "/", "?", "/v2/team/app/blobs/uploads/1", "relative", "//other.example/x", "https://other.example/a?b=c"),
        *("http://registry.example/x", "https://10.0.0.1/x", "https://user@registry.example/x", "https://[::1", "\x00"),
        *("https://registry.example:0/x", "https://registry.example/v2/team/app/blobs/uploads/2?digest=sha256:0", "é"),
    ],
    "Range": ["", "0-0", "0-3", "0-8", "bytes=0-2", "1-3", "0-99999999999999999999", "junk", "0--1"],
    "Docker-Content-Digest": ["", "sha256:" + "0" * 64, "sha512:0", "junk"],
    "WWW-Authenticate": [
        *("", "Basic", 'Basic realm="x"', "Bearer", 'Bearer realm="https://registry.example/token",service="s"'),
        *(
            'Bearer realm="https://auth.example/token"',
            'Bearer realm="http://10.0.0.1/"',
            'Bearer realm="',
            "Negotiate",
        ),
        'Bearer realm="https://registry.example/token",error="insufficient_scope",scope="repository:a:pull"',
    ],
    "Retry-After": ["", "0", "1", "30", "119", "121", "-1", "1e9", "soon", "Tue, 24 Nov 2026 16:00:00 GMT"],
    "OCI-Chunk-Min-Length": ["0", "2", "9999", "junk"],
    "Warning": ['299 - "careful"', '299 - "\\"', "junk"],
    "Date": ["Tue, 24 Nov 2026 15:59:00 GMT", "junk"],
    "Content-Type": ["application/json", "application/vnd.oci.image.index.v1+json", ""],
    "OCI-Subject": ["sha256:" + "0" * 64],
    "Set-Cookie": ["a=b"],
}
HEADERS = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(
        lambda name: st.tuples(st.sampled_from([name, name.lower(), name.upper()]), st.sampled_from(VALUES[name]))
    ),
    max_size=5,
).map(tuple)
BODIES = st.sampled_from(
    [
        *(b"", b"{}", b"[]", b"null", b"\xff\x00", b"<html>", b'{"errors":null}', b'{"errors":[null,7,{"code":7}]}'),
        b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}',
        b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","detail":{"digest":"sha256:junk"}}]}',
        *(
            b'{"errors":[{"code":"%s"}]}' % c
            for c in (b"DIGEST_INVALID", b"BLOB_UPLOAD_UNKNOWN", b"DENIED", b"UNKNOWN")
        ),
        *(b'{"token":"t0ken"}', b'{"access_token":"t","expires_in":0}', b'{"token":7}', b'{"token":"a b"}'),
        *(b'{"token":"t","expires_in":1e400}', b'{"token":"t","expires_in":-5}', b"[" * 2_000),
    ]
)
KINDS = st.sampled_from(list(FailureKind))
JUMPS = st.sampled_from([0.0, 0.0, 0.0, 0.4, 1.0, 5.0, 16.0, 100.0, 4_000.0, -3.0])
PICK = st.integers(0, 40)


def _state(session: Session) -> tuple[object, bytes]:
    """All that a session is."""
    return fingerprint(session, lambda text: text), Forker().dump(session)


class AnyEventAtAnyTime(RuleBasedStateMachine):
    """A driver out of its mind."""

    @initialize(config=CONFIGS, options=OPTIONS, known=st.booleans())
    def begin(self, config: Config, options: RegistryOptions, known: bool) -> None:
        self.session = Session(BASE, config, seed=7, save=known)
        self.registry = FakeRegistry(options)
        for content in LAYERS[:2]:
            self.registry.put_blob("team/base", content)
        self.known = known
        self.now = 0.0
        self.sends: dict[int, Send] = {}
        self.questions: dict[int, NeedCredentials] = {}
        self.drafts: dict[int, NeedManifests] = {}
        self.aborted: set[int] = set()
        self.pushes: dict[int, PushPlan] = {}
        self.results: dict[int, PushResult] = {}
        self.gone: list[int] = []
        self.lied = False

    # --- what a driver may do -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.pushes) < 4)
    @rule(push=PUSHES)
    def submit(self, push: PushPlan) -> None:
        push_id = self.session.submit(push)
        assert push_id not in self.pushes
        self.pushes[push_id] = push

    @rule(jump=JUMPS)
    def poll(self, jump: float) -> None:
        self.now += jump
        self._poll()

    @rule()
    def settle(self) -> None:
        for _ in range(STEPS_MAX):
            if isinstance(self._poll(), Wait):
                return
        raise AssertionError("it never waits")

    def _poll(self) -> object:
        output = self.session.poll(self.now)
        match output:
            case Send(id=number):
                assert number not in self.sends and number not in self.gone
                assert SECRET not in repr(output)
                self.sends[number] = output
            case Abort(id=number):
                assert number in self.sends and number not in self.aborted
                self.aborted.add(number)
            case NeedCredentials(id=number):
                assert number not in self.questions
                self.questions[number] = output
            case Finished(push_id=push_id, result=result):
                assert push_id in self.pushes and push_id not in self.results
                self._judge(self.pushes[push_id], result)
                self.results[push_id] = result
            case NeedManifests(id=number):
                assert number not in self.drafts
                self.drafts[number] = output
            case Save(data=data):
                assert SECRET.encode() not in data
            case Wait(until=until):
                assert until > self.now or until == math.inf or self.now < 0
            case Notice():
                pass
        return output

    def _judge(self, push: PushPlan, result: PushResult) -> None:
        assert (result.outcome is PushOutcome.FAILED) is (result.error is not None)
        assert result.error is None or isinstance(result.error, RegprotoError)
        assert not isinstance(result.error, LocalProtocolError)
        assert SECRET not in repr(result) + str(result.error)
        if result.outcome is PushOutcome.PUSHED and not self.lied:
            there = self.registry.blobs(push.repository) | self.registry.manifests(push.repository)
            assert {b.descriptor.digest for b in push.blobs} | {m.descriptor.digest for m in push.manifests} <= there
            rivals = [other for other in self.pushes.values() if other.repository == push.repository]
            for tag in push.tags:  # two pushes may put one tag on different things
                roots = {other.root for other in rivals if tag in other.tags}
                found = self.registry.tags(push.repository)[tag]
                assert found in roots or None in roots  # what a draft makes is not known before

    @precondition(lambda self: self.pushes)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        self.session.cancel(sorted(self.pushes)[pick % len(self.pushes)], self.now)

    # --- answers ------------------------------------------------------------------------------------------

    def _open(self, pick: int) -> Send:
        return self.sends[sorted(self.sends)[pick % len(self.sends)]]

    def _answer(self, answer: Response | Failed) -> None:
        self.session.receive(self.now, answer)
        del self.sends[answer.id]
        self.gone.append(answer.id)

    def _as_the_registry(self, send: Send) -> Response:
        reply = self.registry.handle(request_of(send))
        body = b"" if send.method == "HEAD" else reply.content
        return Response(
            id=send.id, status=reply.status, headers=reply.headers, body=body, stream=stream_status_of(send)
        )

    @precondition(lambda self: self.sends)
    @rule(pick=PICK)
    def answer_truly(self, pick: int) -> None:
        self._answer(self._as_the_registry(self._open(pick)))

    @precondition(lambda self: self.sends)
    @rule(pick=PICK, kind=KINDS, written=st.sampled_from(list(Written)), reused=st.booleans(), done=st.booleans())
    def fail(self, pick: int, kind: FailureKind, written: Written, reused: bool, done: bool) -> None:
        send = self._open(pick)
        answer = Failed(id=send.id, kind=kind, written=written, reused=reused, detail="for a reason")
        if isinstance(send.body, Stream):
            size = len(content_of(send))
            sent = {Written.NONE: 0, Written.SOME: max(0, size - 1), Written.ALL: size}[written]
            answer = attrs.evolve(answer, stream=stream_status_of(send, sent))
        if kind is FailureKind.CONTENT and isinstance(send.body, bytes):
            self._is_misuse(answer)
            return
        if done and written is Written.ALL:
            self._as_the_registry(send)
        self._answer(answer)

    @precondition(lambda self: self.sends)
    @rule(pick=PICK, status=STATUSES, headers=HEADERS, body=BODIES, truncated=st.booleans(), done=st.booleans())
    def answer_anything(
        self, pick: int, status: int, headers: tuple[Any, ...], body: bytes, truncated: bool, done: bool
    ) -> None:
        send = self._open(pick)
        if done:
            self._as_the_registry(send)
        self.lied |= status < 300
        note(f"{send.method} {send.url} -> {status} {headers}")
        answer = Response(
            id=send.id, status=status, headers=headers, body=body, truncated=truncated, stream=stream_status_of(send)
        )
        self._answer(answer)

    @precondition(lambda self: self.sends)
    @rule(pick=PICK, phase=st.sampled_from(list(Phase)), size=st.integers(0, 2**63))
    def progress(self, pick: int, phase: Phase, size: int) -> None:
        self.session.receive(self.now, Progress(id=self._open(pick).id, phase=phase, bytes=size))

    @precondition(lambda self: self.questions)
    @rule(pick=PICK, error=st.sampled_from(["", "", "the helper is broken"]))
    def answer_the_keychain(self, pick: int, error: str) -> None:
        number = sorted(self.questions)[pick % len(self.questions)]
        del self.questions[number]
        known = Credentials(id=number, username="user", password=SECRET)
        self.session.receive(self.now, known if self.known and not error else NoCredentials(id=number, error=error))

    @precondition(lambda self: self.drafts)
    @rule(pick=PICK, able=st.booleans())
    def answer_the_draft(self, pick: int, able: bool) -> None:
        need = self.drafts.pop(sorted(self.drafts)[pick % len(self.drafts)])
        assert callable(need.draft)
        self.session.receive(self.now, need.draft(need) if able else NoManifests(id=need.id, error="not today"))

    # --- misuse -------------------------------------------------------------------------------------------

    def _is_misuse(self, event: Input) -> None:
        before = _state(self.session)
        with pytest.raises(LocalProtocolError):
            self.session.receive(self.now + 1_000.0, event)
        assert _state(self.session) == before

    @rule(
        number=st.integers(-3, 60), of=st.sampled_from(["response", "failed", "progress", "known", "unknown", "draft"])
    )
    def answer_what_was_not_asked(self, number: int, of: str) -> None:
        if of in ("known", "unknown"):
            if number not in self.questions:
                self._is_misuse(Credentials(id=number) if of == "known" else NoCredentials(id=number))
        elif of == "draft":
            if number not in self.drafts:
                self._is_misuse(NoManifests(id=number, error="why"))
        elif number not in self.sends:
            answers: dict[str, Input] = {
                "response": Response(id=number, status=201),
                "failed": Failed(id=number, kind=FailureKind.CLOSED, written=Written.ALL),
                "progress": Progress(id=number, phase=Phase.SENDING),
            }
            self._is_misuse(answers[of])

    @precondition(lambda self: self.sends)
    @rule(pick=PICK, status=st.sampled_from([-1, 0, 100, 101, 199, 1000, 10**9]))
    def answer_with_no_final_status(self, pick: int, status: int) -> None:
        self._is_misuse(Response(id=self._open(pick).id, status=status))

    @rule(number=st.sampled_from([-1, 0, 999]))
    def cancel_what_there_is_not(self, number: int) -> None:
        before = _state(self.session)
        with pytest.raises(LocalProtocolError):
            self.session.cancel(number, self.now + 1_000.0)
        assert _state(self.session) == before

    # --- and in the end -----------------------------------------------------------------------------------

    def teardown(self) -> None:
        """All is well from now on: every push ends, after its last exchange."""
        if not hasattr(self, "session"):
            return
        for _ in range(STEPS_MAX):
            output = self._poll()
            if not isinstance(output, Wait):
                continue
            if self.drafts:
                self.answer_the_draft(0, True)
                continue
            for number in sorted(self.questions):
                del self.questions[number]
                self.session.receive(self.now, NoCredentials(id=number))
                break
            else:
                if self.sends:
                    send = self._open(0)
                    told = stream_status_of(send, max(0, len(content_of(send)) - 1))
                    aborted = Failed(id=send.id, kind=FailureKind.ABORTED, written=Written.SOME, stream=told)
                    self._answer(aborted if send.id in self.aborted else self._as_the_registry(send))
                elif self.results.keys() == self.pushes.keys():
                    return
                else:
                    assert output.until < math.inf, "stuck"
                    self.now = max(self.now, output.until)
        raise AssertionError(f"no end of {self.pushes.keys() - self.results.keys()}")


TestAnyEventAtAnyTime = AnyEventAtAnyTime.TestCase
TestAnyEventAtAnyTime.settings = settings(
    max_examples=EXAMPLES or 60,
    stateful_step_count=60,
    deadline=None,
    # What is found is told with every step; making it smaller takes minutes.
    phases=[Phases.explicit, Phases.reuse, Phases.generate],
    derandomize=not EXAMPLES,
    suppress_health_check=list(HealthCheck),
)


def test_the_state_that_is_compared_tells_changes() -> None:
    session = Session(BASE)
    session.submit(blobs_push(blob(b"x")))
    before = _state(session)
    assert _state(session) == before
    session.poll(0.0)
    assert _state(session) != before
    waiting = _state(session)
    session.poll(5.0)
    assert _state(session) != waiting, "even the clock"
