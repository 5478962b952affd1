"""One seeded run of several pushes in one session, in bad weather: what a seed makes is the same every time.

Plans share blobs, repositories, tags, subjects and mount sources; the registry has odd switches; answers come late, in
any order, wrong or not at all, from a registry that may be one only part of the time; pushes are cancelled, and the
process ends and goes on from what it kept. After it all `Run.check` says what no weather excuses.
"""

from __future__ import annotations

import heapq
import json
import math
import pickle
import random
from typing import Any, Final

import attrs

from pushes import Image, blob, blobs_push, described, image, image_of_streams, index, index_of_streams, stream
from regproto import (
    Abort,
    Config,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    LocalProtocolError,
    MountSource,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    NoManifests,
    Notice,
    Output,
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
    Status,
    Stream,
    Wait,
    Written,
)
from regproto.testing import Auth, Etag, FakeRegistry, Fault, FaultKind, RegistryOptions, When, Wire
from regproto.testing.registry.options import LocationStyle
from regproto.testing.simulation import content_of, request_of, stream_status_of

BASE: Final = "https://registry.example"
SECRET: Final = "s3cr3t-of-the-chaos"
REPOSITORIES: Final = ("team/app", "team/other", "team/third")
SOURCES: Final = tuple(f"base/{n}" for n in range(6))
CONTENTS: Final = (b"one layer", b"another layer", b"a third", b"x" * 40, b"y" * 100, b"")
SUBJECT: Final = image(b"the subject")
REQUESTS_PER_THING: Final = 60
LONGEST_S: Final = 20_000.0
STEPS_MAX: Final = 60_000
HTML: Final = b"<html><body>Please sign in</body></html>"


# --- what is pushed ---------------------------------------------------------------------------------------------


def _plan(rng: random.Random) -> PushPlan:
    repository = rng.choice((*REPOSITORIES, REPOSITORIES[0]))
    own = rng.random() < 0.5

    def layer(content: bytes) -> Any:
        names = rng.sample([*SOURCES, *(r for r in REPOSITORIES if r != repository)], rng.choice((0, 0, 1, 2, 5, 7)))
        sources = [MountSource(repository=name) for name in names]
        if rng.random() < 0.1:
            sources.append(MountSource(repository="far/away", registry="far.example", foreign=True))
        # `bytes(bytearray())` is another object with the same content: another push's own source.
        made = blob(bytes(bytearray(content)) if own else content, *sources)
        if rng.random() < 0.02:
            made = attrs.evolve(made, source=None)
        return made

    layers = [layer(content) for content in rng.sample(CONTENTS, rng.randint(0, 3))]
    tags = [f"v{n}" for n in rng.sample(range(14), rng.choice((0, 1, 2, 3, 12)))]
    kind = rng.choice((0, 1, 1, 2, 3, 4, 5, 6, 6))
    if kind == 0:
        return blobs_push(*layers, repository=repository)
    if kind == 1:
        streams = tuple(stream(c, f"s{n}") for n, c in enumerate(rng.sample(CONTENTS, rng.randint(1, 3))))
        draft = rng.choice((image_of_streams, index_of_streams, None))
        return PushPlan(
            repository=repository, streams=streams, draft=draft, tags=tags if draft else (), blobs=_unique(layers)
        )
    if kind == 2:
        attached = image(*layers, subject=described(SUBJECT.manifest), annotations={"n": str(rng.randrange(3))})
        whole = Image(manifest=attached.manifest, blobs=_unique(attached.blobs))
        return whole.push(*tags, repository=repository)
    if kind == 3:
        root = image(b"the root", *layers)
        one = image(subject=described(root.manifest), annotations={"n": "1"})
        plan = root.push(*tags, repository=repository)
        return attrs.evolve(
            plan, manifests=(*plan.manifests, one.manifest), blobs=_unique((*plan.blobs, *one.all_blobs()))
        )
    if kind == 4:
        return image(*layers).bare(*tags, repository=repository)
    if kind == 5:
        inner = index(image(*layers), image(b"inner"))
        return index(inner, image(b"its own", *layers[:1])).push(*tags, repository=repository)
    return image(*layers).push(*tags, repository=repository)


def _unique(blobs: Any) -> tuple[Any, ...]:
    return tuple({b.descriptor.digest: b for b in blobs}.values())


def _options(rng: random.Random) -> RegistryOptions:
    pick = rng.choice
    return RegistryOptions(
        auth=pick([Auth.NONE, Auth.NONE, Auth.BASIC, Auth.BEARER]),
        users={"user": SECRET},
        expires_in=pick([300, 5, None]),
        anonymous_tokens=pick([True, False]),
        token_post=pick([200, 404]),
        single_post=pick([201, 201, 202, 404]),
        mount=pick([True, True, False]),
        anonymous_mount=pick([201, 202, 400]),
        chunk_min_bytes=pick([0, 0, 3]),
        location_style=pick([LocationStyle.PATH, LocationStyle.ABSOLUTE, LocationStyle.OTHER_HOST]),
        location_query=pick([True, False]),
        upload_status=pick([True, True, False]),
        stale_range=pick([False, False, True]),
        range_on_416=pick([True, False]),
        ranged_max_bytes=pick([0, 0, 8]),
        lost_sessions=pick([False, True]),
        sparse_indexes=pick([True, False]),
        tag_params=pick([True, False]),
        etag=pick(list(Etag)),
        referrers_api=pick([True, False]),
        referrers_page=pick([0, 1]),
        docker_content_digest=pick([True, True, False]),
        api_version=pick([True, True, False]),
        missing_status=pick([404, 404, 403]),
        early_refusals=pick([False, True]),
        length_required=pick([False, False, True]),
        max_body_bytes=0,
    )


def _config(rng: random.Random) -> Config:
    pick = rng.choice
    return Config(
        max_exchanges=pick([1, 2, 6, 32]),
        max_body_bytes=pick([1, 20, 10_000]),
        attempts=pick([1, 2, 3, 5]),
        small_blob_bytes=pick([0, 10, 10_000]),
        resumable_above_bytes=pick([0, 10, 10_000]),
        chunk_bytes=pick([None, None, 4, 30]),
        anonymous_mount=pick([False, False, True]),
        check_existing=pick([True, True, False]),
        push_timeout_s=pick([None, None, 40.0, 3.0]),
        cleanup_timeout_s=pick([10.0, 1.0]),
        stream_buffer_bytes=pick([2, 10_000]),
        exchange_timeout_s=pick([None, None, 20.0]),
        referrers_look_again=pick([True, False]),
        referrers_fallback=pick([True, True, False]),
        referrers_attempts=5,
        retry_statuses=pick([Config().retry_statuses, Config().retry_statuses, frozenset({404, 416, 500})]),
    )


# --- the run ----------------------------------------------------------------------------------------------------


@attrs.define
class Weather:
    """How much goes wrong, and until which request."""

    rate: float = 0.0
    until: int = 0
    hangs: float = 0.0
    liar_from: int = 0
    liar_until: int = 0
    """Between these requests something else answers: a sign-in page."""
    forgets: float = 0.0


class Run:
    """One run.

    Args:
        seed: makes all of it.
        pickled_at: the step at which the session is pickled and what is loaded goes on in its place.
    """

    def __init__(self, seed: int, pickled_at: int = -1) -> None:
        rng = self.rng = random.Random(seed)
        self.seed, self.pickled_at = seed, pickled_at
        self.config, self.options = _config(rng), _options(rng)
        self.save = rng.random() < 0.4
        self.registry = FakeRegistry(self.options)
        for source in (*SOURCES, *REPOSITORIES):
            for content in CONTENTS:
                if rng.random() < 0.3:
                    self.registry.put_blob(source, content)
        if rng.random() < 0.8:
            for repository in REPOSITORIES:
                for b in SUBJECT.blobs:
                    self.registry.put_blob(repository, b.source)  # type: ignore[arg-type]
                self.registry.put_manifest(repository, SUBJECT.manifest.content)
        start = rng.choice([0, 0, rng.randrange(40)])
        self.weather = Weather(
            rate=rng.choice([0.0, 0.02, 0.02, 0.05, 0.05, 0.1, 0.2, 0.5, 0.9]),
            until=rng.choice([10, 50, 100_000]),
            hangs=rng.choice([0.0, 0.0, 0.02]),
            liar_from=start,
            liar_until=start + rng.choice([0, 0, 0, 1, 5, 50, 100_000]),
            forgets=rng.choice([0.0, 0.0, 0.03]),
        )
        self.now = 0.0
        self.trace: list[str] = []
        self.order = 0
        self.held: dict[int, Send] = {}
        self.answers: list[tuple[float, int, int]] = []
        self.plans: dict[int, PushPlan] = {}
        self.results: dict[int, PushResult] = {}
        self.progress: dict[int, tuple[int, int]] = {}
        self.events: list[tuple[float, int, str, Any]] = []
        self.things = 0
        self.lied = False
        self.forgot = False
        self.excused: set[str] = set()
        self.left_open = 0
        self.kept = b""
        self.requests = 0
        self.sends_total = 0
        self.session = self._new(b"")
        self.crash_at = rng.randrange(400) if self.save and rng.random() < 0.5 else -1
        for _ in range(rng.choice([1, 1, 2, 3, 4, 8])):
            when = rng.choice([0.0, 0.0, rng.random() * 3])
            self._at(when, "submit", _plan(rng))
        while rng.random() < 0.3:
            self._at(rng.random() * rng.choice([1, 5, 30]), "cancel", rng.random())
        if rng.random() < 0.1:
            self._at(rng.random() * 20, "cancel_kept", None)

    def _new(self, hint: bytes) -> Session:
        return Session(BASE, self.config, seed=self.seed, now=self.now, hint=hint, save=self.save)

    def _at(self, when: float, what: str, which: Any) -> None:
        self.order += 1
        heapq.heappush(self.events, (when, self.order, what, which))

    # --- the loop ---

    def run(self) -> Run:
        """Until all is over; then once more from what was kept, if something was."""
        lives = 0
        if self._to_the_end():
            self.check()
        else:
            self._again()
            self._to_the_end()
            self.check()
        while self.save and self.kept and lives < 2 and self.rng.random() < 0.7:
            lives += 1
            self._again()
            self._to_the_end()
            self.check()
        return self

    def _again(self) -> None:
        """Another process. Of what the one before had in flight, the registry may have done all or nothing."""
        for send in self.held.values():
            if self.rng.random() < 0.5:
                self._registry(send, None, excuse=send.method)
            if send.method in ("PUT", "DELETE", "PATCH"):
                self.excused |= {name for name in self.registry._state.sessions if name in send.url}
        if self.results.keys() != self.plans.keys():  # what was being given back is kept by nobody
            self.excused |= {n for n in self.registry._state.sessions if n not in self.kept.decode()}
        self.held, self.answers, self.crash_at = {}, [], -1
        self.events = [event for event in self.events if event[2] == "submit"]
        self.session = self._new(self.kept)
        plans = [plan for plan in self.plans.values() if self.rng.random() < 0.8]
        self.plans, self.results, self.progress = {}, {}, {}
        self.things = self.requests = 0
        if self.rng.random() < 0.7:
            self.weather = Weather()
        for plan in plans:
            self._at(self.now, "submit", plan)
        if self.rng.random() < 0.5:
            self._at(self.now + self.rng.random(), "cancel_kept", None)

    def _to_the_end(self) -> bool:
        """Whether it came there; else the process has ended."""
        for step in range(STEPS_MAX):
            if step == self.crash_at:
                return False
            if step == self.pickled_at:
                state = (self.session, self.plans, self.held, self.events)
                self.session, self.plans, self.held, self.events = pickle.loads(pickle.dumps(state))
            output = self.session.poll(self.now)
            self.trace.append(_shown(output))
            if isinstance(output, Wait):
                if not self._pass_time(output.until):
                    return True
            else:
                self._take(output)
        raise AssertionError("it never ends")

    def _pass_time(self, until: float) -> bool:
        assert until > self.now, "a wait for what is past"
        dues = [q[0][0] for q in (self.answers, self.events) if q]
        due = min(dues, default=math.inf)
        if due == until == math.inf:
            assert len(self.results) == len(self.plans), f"stuck: {self.held}"
            return False
        self.now = max(self.now, min(due, until))
        assert self.now < LONGEST_S, "it takes too long"
        if self.events and self.events[0][0] <= self.now:
            _, _, what, which = heapq.heappop(self.events)
            self._happens(what, which)
        elif self.answers and self.answers[0][0] <= self.now:
            number = heapq.heappop(self.answers)[2]
            if number in self.held:
                self._answer(self.held[number])
        return True

    def _happens(self, what: str, which: Any) -> None:
        if what == "submit":
            plan: PushPlan = which
            push_id = self.session.submit(plan)
            self.plans[push_id] = plan
            self.things += 1 + len(plan.blobs) + len(plan.manifests) + len(plan.tags) + 3 * len(plan.streams)
            self.things += sum(len(b.mount_from) for b in plan.blobs) + (6 if plan.draft else 0)
        elif what == "cancel" and self.plans:
            self.session.cancel(sorted(self.plans)[int(which * len(self.plans))], self.now)
        elif what == "cancel_kept":
            uploads = len(json.loads(self.kept)["uploads"]) if self.kept else 0
            push_id = self.session.cancel_kept(self.kept)
            self.plans[push_id] = PushPlan(repository="none")
            self.things += 1 + uploads
        elif what == "progress" and which[0] in self.held:
            number, phase, size = which
            self.session.receive(self.now, Progress(id=number, phase=phase, bytes=size))
        elif what == "keychain":
            known = self.rng.random() < 0.9
            answer = Credentials(id=which, username="user", password=SECRET) if known else NoCredentials(id=which)
            self.session.receive(self.now, answer)
        elif what == "draft":
            able = self.rng.random() < 0.95
            self.session.receive(self.now, which.draft(which) if able else NoManifests(id=which.id, error="not today"))

    def _take(self, output: Output) -> None:
        rng = self.rng
        match output:
            case Send():
                self._sent(output)
            case Abort(id=number):
                assert number in self.held
                if rng.random() < 0.8:
                    self._fail(self.held[number], FailureKind.ABORTED)
                else:
                    self._answer(self.held[number])
            case NeedCredentials(id=number):
                self._at(self.now + rng.choice([0.0, 0.5]), "keychain", number)
            case NeedManifests():
                self._at(self.now + rng.choice([0.0, 0.5]), "draft", output)
            case Save(data=data):
                assert SECRET.encode() not in data
                self.kept = data
            case Finished(push_id=push_id, result=result):
                assert push_id in self.plans, "finished, and never begun"
                assert push_id not in self.results, "finished twice"
                self.results[push_id] = result
                self._judge(self.plans[push_id], push_id, result)
            case Notice(status=Status.PROGRESS) as told:
                assert 0 <= told.sent_bytes <= told.size_bytes, f"{told.sent_bytes} of {told.size_bytes} bytes"
                self.progress[told.push_id] = told.sent_bytes, told.size_bytes
            case Notice():
                assert output.sent_bytes >= 0 and (not output.size_bytes or output.sent_bytes <= output.size_bytes)

    def _sent(self, output: Send) -> None:
        rng, number = self.rng, output.id
        self.requests += 1
        self.sends_total += 1
        limit = REQUESTS_PER_THING * self.things
        assert self.requests <= limit, f"{self.requests} requests for {self.things} things"
        assert number not in self.held
        self.held[number] = output
        assert SECRET not in repr(output)
        scheduler = self.session._scheduler
        assert len(scheduler.sessions) + scheduler.opening <= scheduler.sessions_max, "too many sessions"
        for origin in scheduler.origins.values():
            assert origin.exchanges <= self.config.max_exchanges, "too many at once"
        if not output.url.startswith(BASE + "/"):
            assert not any(name == "Authorization" for name, _ in output.headers), output.url
        if rng.random() >= self.weather.hangs:
            due = self.now + rng.choice([0.01, rng.random(), rng.random() * 0.1, 3 * rng.random()])
            self.order += 1
            heapq.heappush(self.answers, (due, self.order, number))
        if rng.random() < 0.3:
            size = len(content_of(output))
            phase = rng.choice(list(Phase))
            moved = size if phase in (Phase.WAITING, Phase.RECEIVING) else rng.randint(0, size)
            if phase is not Phase.READING:
                self._at(self.now + 0.01 * rng.random(), "progress", (number, phase, moved))

    # --- answers ---

    def _fail(self, send: Send, kind: FailureKind, done: bool = False) -> None:
        rng = self.rng
        written = rng.choice(list(Written))
        if kind is FailureKind.CONNECT:
            written = Written.NONE
        if written is not Written.NONE and (done or rng.random() < 0.3):
            if written is Written.ALL:
                self._registry(send, None, excuse="POST")
            else:
                cut = Fault(kind=FaultKind.DROP, when=When.IN_BODY, after_bytes=len(content_of(send)) // 2)
                self._registry(send, cut, excuse="POST")
        if send.method == "PUT":  # it is looked for, and may be there by another's doing
            self.excused |= {name for name in self.registry._state.sessions if name in send.url}
        size = len(content_of(send))
        sent = {Written.NONE: 0, Written.SOME: max(0, size - 1), Written.ALL: size}[written]
        stream = stream_status_of(send, sent) if isinstance(send.body, Stream) else None
        reused = kind is FailureKind.CLOSED and rng.random() < 0.4
        self._receive(send, Failed(id=send.id, kind=kind, written=written, reused=reused, stream=stream))

    def _receive(self, send: Send, event: Response | Failed) -> None:
        del self.held[send.id]
        self.trace.append(f"{event.status if isinstance(event, Response) else event.kind} to {send.method} {send.url}")
        self.session.receive(self.now, event)

    def _registry(self, send: Send, fault: Fault | None, excuse: str = "") -> Any:
        """What the registry answers; with `excuse` nobody hears of it, so what it opens may stay open."""
        before = set(self.registry._state.sessions)
        reply = self.registry.handle(request_of(send), self.now, fault)
        if excuse == send.method:
            self.excused |= set(self.registry._state.sessions) - before
        return reply

    def _say(self, send: Send, status: int, headers: Any = (), body: bytes = b"") -> None:
        """What is no answer of the registry's."""
        if status < 400 or status in (404, 410, 429) or b"BLOB_UPLOAD_UNKNOWN" in body or b"DIGEST_INVALID" in body:
            self.excused |= {name for name in self.registry._state.sessions if name in send.url}
        body = b"" if send.method == "HEAD" else body
        response = Response(id=send.id, status=status, headers=tuple(headers), body=body, stream=stream_status_of(send))
        self._receive(send, response)

    def _truly(self, send: Send) -> None:
        reply = self._registry(send, None)
        body = b"" if send.method == "HEAD" else reply.content
        assert reply.wire is Wire.WHOLE
        if reply.status == 404 and "/uploads/" in send.url:  # what is denied is let go of
            self.excused |= {name for name in self.registry._state.sessions if name in send.url}
        self._receive(
            send,
            Response(id=send.id, status=reply.status, headers=reply.headers, body=body, stream=stream_status_of(send)),
        )

    def _answer(self, send: Send) -> None:
        rng, weather = self.rng, self.weather
        if rng.random() < weather.forgets:
            self._forget()
        if weather.liar_from <= self.sends_total < weather.liar_until:
            status = rng.choice([200, 200, 201, 202, 204, 302, 404, 503])
            self.lied |= status == 201 and self.session._scheduler.home.proven
            headers = (("Content-Type", "text/html"), ("Content-Length", str(len(HTML))))
            self._say(send, status, headers, HTML)
            return
        if self.sends_total > weather.until or rng.random() >= weather.rate:
            self._truly(send)
            return
        match rng.randrange(10):
            case 0 | 1:
                self._fail(send, rng.choice([k for k in FailureKind if k is not FailureKind.CONTENT]))
            case 2:
                self._fail(send, FailureKind.CLOSED, done=True)
            case 3 if not isinstance(send.body, bytes):
                self._fail(send, FailureKind.CONTENT)
            case 4:
                url = send.url
                other = url.replace("registry.example", rng.choice(["registry.example", "other.example", "a.example"]))
                back = url.replace("other.example", "registry.example").replace("a.example", "registry.example")
                status = rng.choice([302, 307, 308])
                self._say(send, status, (("Location", rng.choice([url, other, back, "/", "/v2/" + "team/app/tags"])),))
            case 5:
                headers = rng.choice(
                    [
                        (),
                        (("WWW-Authenticate", 'Bearer realm="https://registry.example/token",service="s"'),),
                        (("WWW-Authenticate", 'Basic realm="x"'),),
                        (
                            (
                                "WWW-Authenticate",
                                'Bearer realm="https://registry.example/token",error="insufficient_scope",'
                                'scope="repository:a:pull"',
                            ),
                        ),
                    ]
                )
                self._say(send, 401, headers)
            case 6:
                self._registry(send, None, excuse="POST")
                self._say(send, rng.choice([404, 500, 503, 429, 400]), body=HTML)
            case 7:
                status = rng.choice([404, 410, 416, 429, 429, 503, 500, 400, 403, 405, 411, 412, 413])
                headers = rng.choice([(), (), (("Retry-After", rng.choice(["0", "1", "30", "200"])),)])
                code = rng.choice(["BLOB_UPLOAD_UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "DENIED", "DIGEST_INVALID", "X"])
                body = json.dumps({"errors": [{"code": code, "message": "no"}]}).encode()
                self._say(send, status, headers, rng.choice([b"", HTML, body]))
            case _:
                status = rng.choice([200, 202, 204, 201, 206, 207])
                self.lied |= status == 201 and self.session._scheduler.home.proven
                headers = rng.choice([(), (("Range", rng.choice(["0-0", "0-3", "0-99", "junk"])),)])
                self._say(send, status, headers, rng.choice([b"", HTML, b"{}"]))

    def _forget(self) -> None:
        rng, state = self.rng, self.registry._state
        self.forgot = True
        if rng.random() < 0.5 and state.sessions:
            name = rng.choice(sorted(state.sessions))
            state.close_session(name)
            return
        there = [(name, digest) for name, r in sorted(state.repositories.items()) for digest in sorted(r.blobs)]
        if there:
            state.remove_blob(*rng.choice(there))

    # --- what has to hold ---

    def _judge(self, plan: PushPlan, push_id: int, result: PushResult) -> None:
        self.left_open += result.left_open
        assert result.left_open >= 0
        assert (result.outcome is PushOutcome.FAILED) is (result.error is not None)
        assert result.error is None or isinstance(result.error, RegprotoError)
        assert not isinstance(result.error, LocalProtocolError)
        assert SECRET not in repr(result) + str(result.error)
        if result.outcome is not PushOutcome.PUSHED:
            return
        told = self.progress.get(push_id)
        assert told is None or told[0] == told[1], f"{told[0]} of {told[1]} bytes, and pushed"
        if self.lied or self.forgot:
            return
        there = self.registry.blobs(plan.repository) | self.registry.manifests(plan.repository)
        wanted = {b.descriptor.digest for b in plan.blobs} | {m.descriptor.digest for m in plan.manifests}
        wanted |= {s.descriptor.digest for s in result.streamed}
        assert len(result.streamed) == len(plan.streams)
        assert wanted <= there, f"pushed, but {wanted - there} are not there"
        assert set(plan.tags) <= set(self.registry.tags(plan.repository))

    def check(self) -> None:
        """What has to hold when all is over."""
        session = self.session
        assert self.results.keys() == self.plans.keys()
        assert not self.held
        scheduler, graph, pushes = session._scheduler, session._graph, session._pushes
        empty = {
            "in flight": scheduler.in_flight,
            "timers": scheduler.timers,
            "outbox": scheduler.outbox,
            "waiting for tokens": scheduler.awaiting_token,
            "asked of the keychain": scheduler.keychain,
            "sessions": scheduler.sessions,
            "opening": scheduler.opening,
            "nodes": graph.nodes,
            "steps": graph.stack,
            "lists": graph.lists.lists,
            "coming": +graph.lists.coming,
            "drafts": graph.drafts.asked,
            "source checks": graph.sources.checks,
            "tallies": graph.sources.tallies,
            "uses of sources": graph.sources.by_push,
            "known": pushes.presence.known,
            "fading": pushes.presence.fading,
            "under way": pushes.under_way,
            "ended": pushes.ended,
            "begun": pushes.deadlines.begun,
            "running": pushes.deadlines.running,
            "ending": pushes.deadlines.ending,
            "open": pushes.checkpoint.open,
            "being given back": pushes.checkpoint.cancelling,
            "rejected": pushes.checkpoint.rejected,
            "changed": session._reports.changed,
            "turn": session._reports.turn,
            "moving": session._reports.moving,
            "counts of pushes": scheduler.auth.pushes,
            "tokens at work": [t for t in scheduler.auth.tokens.values() if t.state not in t.ENDS],
        }
        for origin in scheduler.origins.values():
            empty[f"at {origin.name}"] = origin.waits or origin.exchanges or origin.bodies or origin.body_bytes
        left = {name: what for name, what in empty.items() if what}
        assert not left, f"left: {left}"
        kept = {u["location"] for u in json.loads(self.kept)["uploads"]} if self.kept else set()
        open_ = set(self.registry._state.sessions) - self.excused
        lost = {name for name in open_ if not any(name in location for location in kept)}
        assert len(lost) <= self.left_open, f"open and not told: {lost}"


def _shown(output: Output) -> str:
    match output:
        case Send():
            return f"{output.id} {output.method} {output.url} {output.headers} {len(content_of(output))}"
        case Save(data=data):
            return f"Save {data!r}"
        case Wait(until=until):
            return f"Wait {until}"
        case Finished():
            return f"Finished {output.push_id} {output.result.outcome} {output.result.error} {output.result.requests}"
    return type(output).__name__ + str(getattr(output, "id", "")) + str(getattr(output, "text", ""))
