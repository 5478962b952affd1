"""The session: one registry, any number of pushes, and one question at a time to the driver that moves the bytes."""

from __future__ import annotations

from typing import Final, assert_never

import attrs

from regproto._engine.authorizer import Authorizer
from regproto._engine.checkpoint import Checkpoint
from regproto._engine.graph import Graph
from regproto._engine.manifest_requests import ManifestRequests
from regproto._engine.progress import ProgressReports
from regproto._engine.push_registry import PushRegistry
from regproto._engine.push_state import PushState
from regproto._engine.referrers_updates import ReferrersUpdates
from regproto._engine.retry import Jitter
from regproto._engine.scheduler import Exchange, Scheduler
from regproto._engine.source_checks import SourceChecks
from regproto._http.url import base_url
from regproto._machines.base import Edge
from regproto._model.config import MOUNT_SOURCES_MAX, Config
from regproto._model.errors import LocalProtocolError
from regproto._model.messages import (
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Input,
    Manifests,
    NoCredentials,
    NoManifests,
    Output,
    Phase,
    Progress,
    Response,
    Save,
    Stream,
    Wait,
    Written,
)
from regproto._model.plan import Blob, PushPlan

NOTHING_KEPT: Final = "nothing"
"""The repository in the result where there was nothing to cancel."""


@attrs.define(init=False, eq=False, repr=False)
class Session:
    """The push protocol towards one registry, without any I/O.

    Ask `poll` what to do; give `receive` the answer. A session has one owner at a time: a driver that uses threads
    holds one lock around every call. docs/design.md has the whole contract.

    Args:
        registry_url: `https://host[:port]` (or http), without a path.
        config: limits and choices.
        seed: for the jitter of retries; give each session its own.
        now: the driver's clock at this moment, seconds on any monotonic scale.
        hint: the data of the newest `Save` of an earlier session that did not come to its end; submit the same pushes
            again. Uploads that none of them goes on with stay open and kept (`cancel_kept` cancels them). It may be
            anything: what is not trusted is reported in a `Notice`, and ignored.
        save: hand out a `Save` whenever what should outlive the process changes. Uploads that are not finished when
            their push ends are then left open, for a later session, instead of being cancelled.
        journal: True keeps every transition for tests and the explorer (`take_journal`); it grows until taken.

    Raises:
        LocalProtocolError: `registry_url` is not one.
    """

    base: str
    registry: str
    config: Config
    _scheduler: Scheduler
    _graph: Graph
    _pushes: PushRegistry
    _drafts: ManifestRequests
    _reports: ProgressReports
    _next_push: int

    def __init__(
        self,
        registry_url: str,
        config: Config | None = None,
        *,
        seed: int = 0,
        now: float = 0.0,
        hint: bytes = b"",
        save: bool = False,
        journal: bool = False,
    ) -> None:
        self.base = base_url(registry_url)
        self.registry = self.base.partition("://")[2]
        self.config = config if config is not None else Config()
        auth = Authorizer(base=self.base, trust=self.config.trust_origin)
        self._scheduler = Scheduler(
            base=self.base,
            registry=self.registry,
            config=self.config,
            auth=auth,
            jitter=Jitter(seed),
            now=now,
            journal=[] if journal else None,
        )
        checkpoint = Checkpoint(base=self.base, active=save)
        checkpoint.load(hint, self._scheduler.capabilities, self.config.trust_origin)
        self._pushes = PushRegistry(scheduler=self._scheduler, checkpoint=checkpoint)
        self._pushes.report_rejected()
        self._drafts = ManifestRequests(scheduler=self._scheduler)
        self._reports = ProgressReports(notices=self._scheduler.notices)
        self._graph = Graph(
            base=self.base,
            config=self.config,
            scheduler=self._scheduler,
            pushes=self._pushes,
            lists=ReferrersUpdates(base=self.base, config=self.config, scheduler=self._scheduler),
            drafts=self._drafts,
            reports=self._reports,
            sources=SourceChecks(base=self.base),
        )
        self._next_push = 1

    def submit(self, push: PushPlan) -> int:
        """Begin a push beside those under way. Returns the id its `Finished` will carry.

        Poll again after this: an earlier `Wait` is void.
        """
        work = self._work(push)
        self._note_needs(push, push.blobs)
        self._graph.begin(work)
        return work.id

    def _work(self, push: PushPlan) -> PushState:
        work = PushState(
            id=self._next_push,
            plan=push,
            manifests={m.descriptor.digest: m for m in push.manifests},
            blobs={b.descriptor.digest: b for b in push.blobs},
            requests_before=self._scheduler.requests,
            bytes_before=self._scheduler.sent_bytes,
        )
        self._next_push += 1
        return work

    def cancel_kept(self, hint: bytes) -> int:
        """Cancel the upload sessions that earlier processes left, beside the pushes under way.

        The registry is asked for the status of each first, and only one that it knows is deleted; one that a push of
        this session goes on with is left alone. What can't be cancelled stays kept, in the data of the next `Save` too.

        Args:
            hint: the data of a `Save`, or several joined (`merge_kept`). What of it is not trusted is reported
                in a `Notice`, and left alone.

        Returns:
            The id its `Finished` will carry, as of a push; `cancel` ends it before its time. The outcome is PUSHED if
            all is gone, else FAILED with the first error, and `left_open` says how many stay open. Poll again after
            this.

        Raises:
            ContentError: the hint as a whole can't be used: it is of another version, or about another registry.
        """
        kept = self._pushes.checkpoint.cancel(hint, self.config.trust_origin)
        self._pushes.report_rejected()
        work = self._work(PushPlan(repository=kept[0].repository if kept else NOTHING_KEPT))
        self._graph.run(self._graph.begin_cancelling, work, kept)
        return work.id

    def _note_needs(self, push: PushPlan, blobs: tuple[Blob, ...]) -> None:
        """Note what the requests of a push will have to be authorized for."""
        tried = (s for b in blobs for s in b.mount_from[:MOUNT_SOURCES_MAX])
        sources = dict.fromkeys(s.repository for s in tried if not s.foreign)
        self._scheduler.auth.note_needs(push.repository, tuple(sources), "pull" if push.reads_only else "pull,push")

    def cancel(self, push_id: int, now: float | None = None) -> None:
        """End a push before its time: its upload sessions are cancelled, then its `Finished` comes.

        A push that is over already is left as it is. Poll again after this.

        Raises:
            LocalProtocolError: there never was a push with this id.
        """
        if not 0 < push_id < self._next_push:
            raise LocalProtocolError(f"no push has the id {push_id}")
        if now is not None:
            self._scheduler.tick(now)
        work = self._pushes.under_way.get(push_id)
        if work is not None:
            self._graph.lifecycle.cancel(work)

    def poll(self, now: float) -> Output:
        """The next thing to do. Never blocks and may be called at any time; each call returns one thing.

        `now` running backwards is taken as standing still.
        """
        scheduler, graph = self._scheduler, self._graph
        scheduler.tick(now)
        if self._pushes.deadlines.due <= scheduler.now:
            graph.lifecycle.expire()
        saves = self._pushes.checkpoint.active
        while (found := (self._save() if saves else None) or scheduler.next_output()) is not None:
            if not isinstance(found, tuple):
                return found
            graph.advance(*found)
        notice = self._reports.news(scheduler.now)
        if notice is not None:
            return notice
        ended = self._pushes.ended
        if ended:
            return self._reports.last(ended[0]) or self._finish(ended.popleft())
        return Wait(until=min(scheduler.wait_until(), self._pushes.deadlines.due))

    def receive(self, now: float, event: Input) -> None:
        """Take an answer to a `Send`, `NeedCredentials` or `NeedManifests`, or a `Progress`. Never raises for what a
        registry does.

        Raises:
            LocalProtocolError: nothing with this id is waiting for an answer (or for this kind of answer). Nothing
            has changed.
        """
        scheduler = self._scheduler
        if isinstance(event, (Response, Failed)):
            exchange = self._check_answer(event)
            scheduler.tick(now)
            found = scheduler.handle_answer(event)
            if found is not None:
                self._graph.advance(*found)
            if exchange.ends_for is not None:
                self._pushes.one_less(exchange.ends_for)
        elif isinstance(event, Progress):
            if event.id not in scheduler.in_flight:
                raise LocalProtocolError(f"no request with the id {event.id} is in flight")
            scheduler.tick(now)
            moved = scheduler.progress(event)
            if moved is not None and moved.size and event.phase in (Phase.SENDING, Phase.WAITING):
                self._graph.uploading(moved.machine, event.bytes)
        elif isinstance(event, (Credentials, NoCredentials)):
            token = scheduler.keychain.get(event.id)
            if token is None:
                raise LocalProtocolError(f"no question to the keychain has the id {event.id}, or it was answered")
            scheduler.tick(now)
            del scheduler.keychain[event.id]
            scheduler.keychain_answered(token, event)
        elif isinstance(event, (Manifests, NoManifests)):
            if event.id not in self._drafts.asked:
                raise LocalProtocolError(f"no question for content has the id {event.id}, or it was answered")
            scheduler.tick(now)
            work = self._drafts.asked.pop(event.id)
            if work.outcome is None:
                if isinstance(event, Manifests):
                    self._note_needs(work.plan, event.blobs)
                self._graph.complete_plan(work, event)
        else:
            assert_never(event)

    def _check_answer(self, event: Response | Failed) -> Exchange:
        """The exchange that this answers. Raises `LocalProtocolError` for an answer that does not fit it."""
        scheduler = self._scheduler
        exchange = scheduler.in_flight.get(event.id)
        if exchange is None:
            raise LocalProtocolError(f"no request with the id {event.id} is waiting for an answer")
        if isinstance(event, Response):
            if not 200 <= event.status <= 999:
                raise LocalProtocolError(f"{event.status} is not the status of a final answer")
        elif event.kind is FailureKind.CONTENT and not scheduler.sends_content(event.id):
            raise LocalProtocolError(f"the request with the id {event.id} has no content that could fail")
        status, is_stream = event.stream, isinstance(exchange.ask.body, Stream)
        if status is None:
            if is_stream and not (isinstance(event, Failed) and event.written is Written.NONE):
                raise LocalProtocolError(f"the answer with the id {event.id} must say how its stream stands")
        elif not is_stream:
            raise LocalProtocolError(f"the request with the id {event.id} has no stream")
        elif not 0 <= status.kept <= status.sent or (status.digest is not None and status.size < status.sent):
            raise LocalProtocolError(f"the request with the id {event.id} tells of an impossible stream")
        return exchange

    def take_journal(self) -> list[Edge]:
        """The transitions since the last call, each (machine, state, outcome). Empty unless `journal` was asked for."""
        journal = self._scheduler.journal or []
        if journal:
            self._scheduler.journal = []
        return journal

    def _save(self) -> Save | None:
        data = self._pushes.checkpoint.take(self._scheduler.capabilities)
        return None if data is None else Save(data=data)

    def _finish(self, work: PushState) -> Finished:
        scheduler = self._scheduler
        result = work.result(self.registry, scheduler.requests, scheduler.sent_bytes, tuple(scheduler.notices.warned))
        return Finished(push_id=work.id, result=result)

    def __repr__(self) -> str:
        return (
            f"<Session {self.base}: {len(self._pushes.under_way)} pushes, {len(self._scheduler.in_flight)} in flight>"
        )
