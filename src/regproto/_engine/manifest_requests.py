"""Questions to the driver for the rest of a plan, once its streams are there and can be named."""

from __future__ import annotations

import attrs

from regproto._engine.push_state import PushState
from regproto._engine.scheduler import Scheduler
from regproto._model.errors import ContentError, printable
from regproto._model.messages import Manifests, NeedManifests, NoManifests
from regproto._model.plan import Blob


@attrs.define(kw_only=True, eq=False, repr=False)
class ManifestRequests:
    """The questions for manifests of one session."""

    scheduler: Scheduler
    asked: dict[int, PushState] = attrs.field(factory=dict)
    """By id, until they are answered."""

    def ask(self, work: PushState) -> None:
        """Have the rest of a plan made if all its streams are there."""
        streamed = work.streamed()
        if work.plan.draft is None or len(streamed) < len(work.plan.streams):
            return
        number = self.scheduler.next_id
        self.scheduler.next_id += 1
        self.asked[number] = work
        need = NeedManifests(id=number, push_id=work.id, draft=work.plan.draft, streams=streamed)
        self.scheduler.outbox.append(need)

    def complete(self, work: PushState, answer: Manifests | NoManifests) -> None:
        """Put an answer into the push's plan. Raises `ContentError` if the whole is no valid plan."""
        if isinstance(answer, NoManifests):
            raise ContentError(f"nothing can be made of the streams: {printable(answer.error)}")
        plan, there = work.plan, [Blob(descriptor=s.descriptor) for s in work.streamed()]
        try:
            work.plan = attrs.evolve(
                plan,
                draft=None,
                root=answer.root,
                manifests=(*plan.manifests, *answer.manifests),
                blobs=(*there, *plan.blobs, *answer.blobs),
            )
        except ContentError as error:
            raise ContentError(f"what was made of the streams is no plan: {error}") from None
        work.manifests = {m.descriptor.digest: m for m in work.plan.manifests}
        work.blobs = {b.descriptor.digest: b for b in work.plan.blobs}
