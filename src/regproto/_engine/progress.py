"""The progress of pushes: bytes are counted as they move, and reported a few times a second.

A push counts each digest that it names once: layers, configs and manifests, found there, mounted or sent. Of a body
that is being sent the bytes of the present try count; a try that fails is set back to the offset the registry has
acknowledged. A manifest that is found there has all it names there as well.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import attrs

from regproto._engine.notices import Notices
from regproto._engine.push_state import Key, Node, PushState
from regproto._machines.stream import StreamMachine
from regproto._model.digest import Digest
from regproto._model.messages import Notice, Status

INTERVAL_S: Final = 0.125
"""Seconds between two rounds of news: with its first and last, a push has ten reports in any second, as many as an eye
can use."""


@attrs.define(kw_only=True, eq=False, repr=False)
class ProgressReports:
    """The pushes, blobs and streams that have moved and are to be reported."""

    notices: Notices
    moving: dict[Key | tuple[str, int], Node | StreamMachine] = attrs.field(factory=dict)
    """Blobs and streams of which bytes have moved since their last report."""
    moving_due: float = -math.inf
    changed: dict[int, PushState] = attrs.field(factory=dict)
    """Pushes that are further, or less far, than was reported."""
    changed_due: float = -math.inf
    turn: deque[PushState] = attrs.field(factory=deque)
    """The pushes to be reported in this round."""

    # --- counting ---

    def begin(self, work: PushState) -> None:
        """Count the bytes a push has to bring, as far as its plan says: streams are in it once they are there."""
        blobs, manifests = work.blobs.values(), work.manifests.values()
        work.total_bytes = sum([b.descriptor.size for b in blobs]) + sum([m.descriptor.size for m in manifests])

    def found(self, work: PushState, digest: Digest, how: Status, rest_bytes: int) -> None:
        """Count something a push needs that is there; `rest_bytes` of it were not counted yet."""
        if digest not in work.found:
            work.found[digest] = how
            if digest not in work.implied:
                work.complete_bytes += rest_bytes
                self.changed[work.id] = work

    def imply(self, work: PushState, manifest: Digest) -> None:
        """Count all that a manifest names as there, except what is under way anyhow."""
        below = [manifest]
        while below:
            for named in work.manifests[below.pop()].names():
                digest = named.digest
                key = work.key(digest)
                if digest in work.plan.omitted or digest in work.found or digest in work.implied or key in work.nodes:
                    continue
                work.implied.add(digest)
                work.complete_bytes += work.size_of(digest)
                self.changed[work.id] = work
                if digest in work.manifests:
                    below.append(digest)

    def missed(self, work: PushState, digest: Digest) -> None:
        """Take back the count of something that was found there, and is not."""
        if work.found.pop(digest, None) is not None or digest in work.implied:
            work.implied.discard(digest)
            work.complete_bytes -= work.size_of(digest)
            self.changed[work.id] = work

    def joined(self, work: PushState, node: Node) -> None:
        """Count, for one more push, the part of a node that has moved already."""
        if node.sent_bytes and node.digest not in work.implied and node.digest not in work.found:
            work.complete_bytes += node.sent_bytes

    def moved(self, node: Node, sent_bytes: int) -> None:
        """Note the bytes of a blob that have been sent in the present try; fewer than before: a try is taken back."""
        more, node.sent_bytes = sent_bytes - node.sent_bytes, sent_bytes
        if not more:
            return
        if more > 0:
            self.moving[node.key] = node
        else:
            self.moving_due = -math.inf  # the new try is reported at once
        for user in node.users:
            if node.digest not in user.implied and node.digest not in user.found:
                user.complete_bytes += more
                self.changed[user.id] = user

    def stream_moved(self, machine: StreamMachine, sent_bytes: int) -> None:
        """Note the bytes of a stream that have been sent in the present try; the push grows as the stream does."""
        work: PushState = machine.work
        more, machine.sent_bytes = sent_bytes - machine.sent_bytes, sent_bytes
        grown, machine.known_bytes = machine.size - machine.known_bytes, machine.size
        if not more and not grown:
            return
        if more > 0:
            self.moving[machine.stream.key, work.id] = machine
        elif more:
            self.moving_due = -math.inf
        work.complete_bytes += more
        work.total_bytes += grown
        self.changed[work.id] = work

    def streamed(self, machine: StreamMachine) -> None:
        """Count a stream that is there."""
        work: PushState = machine.work
        digest, size = machine.descriptor.digest, machine.stream_status.size
        self.stream_moved(machine, size)
        if digest in work.found or digest in work.blobs:
            # The same as another stream, or a blob of the plan: it counts once.
            work.complete_bytes -= size
            work.total_bytes -= size
            node = work.nodes.get(work.key(digest))
            self.found(work, digest, Status.UPLOADED, size - (node.sent_bytes if node is not None else 0))
        else:
            work.found[digest] = Status.UPLOADED

    # --- reporting ---

    def news(self, now: float) -> Notice | None:
        """The next notice that is due: first news of what has ended, then progress."""
        if self.moving and self.moving_due <= now:
            self.moving_due = now + INTERVAL_S
            moving, self.moving = self.moving, {}
            for moved in moving.values():
                self._tell(moved)
        if (notice := self.notices.take()) is not None:
            return notice
        if self.changed and self.changed_due <= now:
            self.changed_due = now + INTERVAL_S
            self.turn.extend(self.changed.values())
            self.changed.clear()
        while self.turn:
            work = self.turn.popleft()
            if work.outcome is None:
                return self._of(work)
        return None

    def _tell(self, moved: Node | StreamMachine) -> None:
        machine = moved.machine if isinstance(moved, Node) else moved
        if machine is None or machine.state in machine.ENDS:
            return
        if isinstance(machine, StreamMachine):
            if machine.stream.key not in self.notices.newest:
                self.notices.add(machine.news(Status.UPLOADING, machine.sent_bytes))
        elif machine.reference not in self.notices.newest:
            self.notices.tell(machine.reference, machine.descriptor, Status.UPLOADING, moved.sent_bytes)

    def last(self, work: PushState) -> Notice | None:
        """The last report of a push that is over; None if it was made, or if the push brought nothing."""
        if work.last_reported or not work.total_bytes:
            return None
        work.last_reported = True
        self.changed.pop(work.id, None)
        return self._of(work)

    def _of(self, work: PushState) -> Notice:
        return Notice(
            status=Status.PROGRESS,
            subject=work.plan.repository,
            sent_bytes=work.complete_bytes,
            size_bytes=work.total_bytes,
            text=str(work.error) if work.error is not None else "",
            push_id=work.id,
            error=work.error,
        )
