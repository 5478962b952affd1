"""The upload sessions of blobs and streams: opened, resumed, and cancelled when they are not needed.

A blob or stream may have several in turn, and a session may outlive it: one that was opened and is not needed is
deleted, or left for a later process where a checkpoint is kept.
"""

from __future__ import annotations

from typing import Final

import attrs

from regproto._engine.checkpoint import Kept
from regproto._engine.construct import cancelling_upload, upload_for
from regproto._engine.loop import Loop
from regproto._engine.progress import ProgressReports
from regproto._engine.push_registry import PushRegistry
from regproto._engine.push_state import Node, PushState
from regproto._engine.scheduler import Scheduler
from regproto._machines.base import Details, Machine, Outcome, members
from regproto._machines.blob import BlobMachine, BlobState
from regproto._machines.stream import StreamMachine, StreamUpload, unreplayable_error
from regproto._machines.upload import UploadMachine, UploadState
from regproto._model.config import Config
from regproto._model.errors import TransportError
from regproto._model.messages import Status

_O: Final = members(Outcome)
_N: Final = members(Status)
CANCELLING_STATES: Final = frozenset({UploadState.QUERYING_BEFORE_CANCEL, UploadState.CANCELLING})
_GIVEN_UP: Final = frozenset({UploadState.ABANDONED, UploadState.LOST})
_CLOSED: Final = frozenset({_O.DELETED, _O.GONE, _O.REJECTED})
"""Outcomes after which an upload session is not open any more. (A registry that refuses a digest drops the session.)"""
_ENDING: Final = CANCELLING_STATES | {UploadState.ABANDONED, UploadState.KEPT_OPEN}
"""States in which an upload is over for its blob."""


@attrs.define(kw_only=True, eq=False, repr=False)
class UploadSessions:
    """The upload sessions of one session's blobs and streams."""

    loop: Loop
    config: Config
    scheduler: Scheduler
    pushes: PushRegistry
    reports: ProgressReports

    def open(self, blob: BlobMachine) -> None:
        """Open an upload session for a blob, or go on with the one it has."""
        upload = blob.upload = upload_for(blob, self.config, self.pushes.checkpoint.active)
        if blob.location:
            details = Details(location=blob.location, chunk_min_bytes=blob.chunk_min_bytes)
            blob.location = ""
            self.scheduler.note_session(blob)
            self.loop.move(upload, (_O.STARTED, details))
        else:
            self.loop.enter_state(upload)

    def follow(self, upload: UploadMachine, outcome: Outcome) -> None:
        """Note an upload session's new state, for the checkpoint, the progress and its blob or stream."""
        kept = upload.blob is not None and self.pushes.checkpoint.follow(upload, outcome)
        while self.pushes.checkpoint.displaced:
            self.pushes.checkpoint.displaced -= 1
            self.left_open(upload)
        closed = outcome in _CLOSED and not upload.gone_undenied
        if upload.state in _GIVEN_UP and upload.location and not closed and not kept:
            self.left_open(upload)
        if upload.kept_at and upload.state in upload.ENDS:
            self.pushes.checkpoint.cancelled(upload.kept_at, outcome)
        owner = upload.owner
        if isinstance(owner, BlobMachine):
            self.reports.moved(owner.node, upload.offset)
        elif isinstance(owner, StreamMachine) and isinstance(upload, StreamUpload):
            owner.stream_status = upload.stream_status
            self.reports.stream_moved(owner, upload.offset)
        self._tell_owner(upload, outcome)

    def _tell_owner(self, upload: UploadMachine, outcome: Outcome) -> None:
        """Give a blob or stream the outcome of its upload session, once."""
        blob = upload.owner
        if not isinstance(blob, (BlobMachine, StreamMachine)):
            return
        state = upload.state
        if state is UploadState.DONE:
            upload.owner = None
            self.loop.then(self.loop.move, blob, (_O.UPLOADED, None))
        elif state is UploadState.LOST:
            upload.owner = None
            blob.sessions_lost += not upload.unverified
            blob.rejections += outcome is _O.REJECTED
            blob.chunk_bytes = upload.chunk_bytes
            lost = blob.rejections > 1 or blob.sessions_lost >= self.config.attempts
            if lost or (isinstance(blob, StreamMachine) and not blob.may_restart):
                self._upload_failed(blob, upload)
            else:
                why = str(upload.error or "the upload session was lost")
                if isinstance(blob, StreamMachine):
                    self.scheduler.notices.add(blob.news(_N.RESTARTED, text=why))
                else:
                    self.scheduler.notices.tell(blob.digest, blob.descriptor, _N.RESTARTED, text=why)
                self.loop.then(self.loop.move, blob, (_O.SESSION_LOST, None))
        elif state in _ENDING:
            upload.owner = None
            if state in CANCELLING_STATES and (work := _work_of(blob)) is not None:
                self.pushes.await_machine(upload, work)
            self._upload_failed(blob, upload)

    def _upload_failed(self, blob: BlobMachine | StreamMachine, upload: UploadMachine) -> None:
        error = upload.error or TransportError(f"{blob.describe()}: its upload sessions were lost")
        if isinstance(blob, StreamMachine) and upload.state is UploadState.LOST and not blob.may_restart:
            error = unreplayable_error(blob.describe(), blob.stream_status, error)
        blob.content_failed = upload.content_failed
        self.loop.then(self.loop.move, blob, (_O.FAILED, Details(error=error)))

    def resume(self, blob: BlobMachine, kept: Kept) -> None:
        """Go on with a session that an earlier process left, unless it has other content."""
        blob.location, blob.chunk_min_bytes = kept.location, kept.chunk_min_bytes
        if (kept.size, kept.identity) == (blob.size, blob.blob.identity):
            blob.kept_offset = kept.offset
            blob.candidates = ()  # they were tried before that session was opened
            return
        self.pushes.checkpoint.drop(kept.key)
        why = "the content is not what it was when its upload began"
        self.scheduler.notices.tell(blob.digest, blob.descriptor, _N.NOT_RESUMED, text=why)
        self.cancel_upload(blob, unverified=True)

    def end_sessions(self, blob: BlobMachine) -> None:
        """Cancel the session that a blob has and did not need; an earlier process's is left for a later one."""
        checkpoint, key = self.pushes.checkpoint, (blob.repository, blob.digest)
        if blob.kept_offset is not None and blob.state is not BlobState.PRESENT and checkpoint.active:
            checkpoint.leave(key)
        elif blob.location:
            checkpoint.drop(key)
            self.cancel_upload(blob, unverified=blob.kept_offset is not None)

    def cancel_upload(self, blob: BlobMachine, unverified: bool = False) -> None:
        """Cancel a session that a blob has and does not need; `unverified`: an earlier process opened it."""
        upload = cancelling_upload(blob, unverified)
        blob.location = ""
        self.scheduler.note_session(blob)
        waiting = _work_of(blob)
        if waiting is not None:
            self.pushes.await_machine(upload, waiting)
        if blob.expired:
            self.quit_upload(upload)
            return
        self.scheduler.note_session(upload)
        self.scheduler.enqueue(upload)

    def quit_upload(self, upload: UploadMachine) -> None:
        """End an upload session's machine that has no time left to cancel it."""
        self.loop.then(self.loop.move, upload, (_O.GAVE_UP, None))

    def lost_opening(self, machine: Machine, details: Details | None) -> None:
        """Note a request without an answer that may have opened an upload session, whose URL nobody knows."""
        starting = machine.state is UploadState.STARTING and not (details is not None and details.cut)
        if starting or (machine.expired and machine.may_open(self.scheduler.capabilities)):
            self.left_open(machine)

    def left_open(self, machine: Machine) -> None:
        """Count an upload session that stays open, or may."""
        work = _work_of(machine)
        if work is not None:
            work.left_open += 1
            if machine.node is work and work.error is None:
                work.error = machine.error


def outcome_if_unverified(machine: Machine, outcome: Outcome) -> Outcome:
    """The outcome for an earlier process's session, unconfirmed, that is refused for want of authorization: GONE, so
    that it is not deleted, for nothing says that it is an upload session."""
    patches = isinstance(machine, UploadMachine) and machine.unverified and machine.state is UploadState.PATCHING
    return _O.GONE if patches and outcome is _O.REFUSED else outcome


def _work_of(machine: Machine) -> PushState | None:
    """The push that a machine is at work for, or one of several."""
    if machine.ends_for is not None:
        work: PushState = machine.ends_for
        return work
    if isinstance(machine.node, PushState):
        return machine.node
    owner = machine.owner if isinstance(machine, UploadMachine) else machine
    if isinstance(owner, StreamMachine):
        return owner.work  # type: ignore[no-any-return]
    if isinstance(owner, BlobMachine):
        node: Node = owner.node
        return node.first_user if node.users else owner.ends_for
    return None
