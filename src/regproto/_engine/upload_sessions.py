"""The upload sessions of what is pushed: opened, gone on with, and given back when nobody needs them.

A blob or stream may have several in turn, and a session outlives what it was for: what was opened and is not needed is
deleted, or left for a later process where a checkpoint is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regproto._engine.checkpoint import Kept
from regproto._engine.construct import cancelling_upload, upload_for
from regproto._engine.push_state import Node, PushState
from regproto._machines.base import Details, Machine, Outcome, members
from regproto._machines.blob import BlobMachine, BlobState
from regproto._machines.stream import StreamMachine, StreamUpload, unreplayable_error
from regproto._machines.upload import UploadMachine, UploadState
from regproto._model.errors import TransportError
from regproto._model.messages import Status

if TYPE_CHECKING:
    from regproto._engine.graph import Graph

_O: Final = members(Outcome)
_N: Final = members(Status)
CANCELLING_STATES: Final = frozenset({UploadState.QUERYING_BEFORE_CANCEL, UploadState.CANCELLING})
_GIVEN_UP: Final = frozenset({UploadState.ABANDONED, UploadState.LOST})
_CLOSED: Final = frozenset({_O.DELETED, _O.GONE, _O.REJECTED})
"""After these an upload session is not open any more. (What refuses a digest drops what it was given.)"""
_ENDING: Final = CANCELLING_STATES | {UploadState.ABANDONED, UploadState.KEPT_OPEN}
"""In these, an upload is over for its blob."""


def open_session(graph: Graph, blob: BlobMachine) -> None:
    """Open an upload session for a blob, or go on with the one it was given."""
    upload = blob.upload = upload_for(blob, graph.config, graph.pushes.checkpoint.active)
    if blob.location:
        facts = Details(location=blob.location, chunk_min_bytes=blob.chunk_min_bytes)
        blob.location = ""
        graph.scheduler.note_session(blob)
        graph.move(upload, (_O.STARTED, facts))
    else:
        graph.enter_state(upload)


def follow(graph: Graph, upload: UploadMachine, outcome: Outcome) -> None:
    """An upload session is further, or over."""
    kept = upload.blob is not None and graph.pushes.checkpoint.follow(upload, outcome)
    if upload.state in _GIVEN_UP and upload.location and outcome not in _CLOSED and not kept:
        left_open(graph, upload)
    if upload.kept_at and upload.state in upload.ENDS:
        graph.pushes.checkpoint.cancelled(upload.kept_at, outcome)
    owner = upload.owner
    if isinstance(owner, BlobMachine):
        graph.totals.moved(owner.node, upload.offset)
    elif isinstance(owner, StreamMachine) and isinstance(upload, StreamUpload):
        owner.told = upload.told
        graph.totals.stream_moved(owner, upload.offset)
    _tell_owner(graph, upload, outcome)


def _tell_owner(graph: Graph, upload: UploadMachine, outcome: Outcome) -> None:
    """Tell a blob or stream how its upload session went, once."""
    blob = upload.owner
    if not isinstance(blob, (BlobMachine, StreamMachine)):
        return
    state = upload.state
    if state is UploadState.DONE:
        upload.owner = None
        graph.then(graph.move, blob, (_O.UPLOADED, None))
    elif state is UploadState.LOST:
        upload.owner = None
        blob.sessions_lost += not upload.unverified
        blob.rejections += outcome is _O.REJECTED
        blob.chunk_bytes = upload.chunk_bytes
        lost = blob.rejections > 1 or blob.sessions_lost >= graph.config.attempts
        if lost or (isinstance(blob, StreamMachine) and not blob.may_restart):
            _upload_failed(graph, blob, upload)
        else:
            why = str(upload.error or "the upload session was lost")
            if isinstance(blob, StreamMachine):
                graph.scheduler.notices.add(blob.news(_N.RESTARTED, text=why))
            else:
                graph.scheduler.notices.tell(blob.digest, blob.descriptor, _N.RESTARTED, text=why)
            graph.then(graph.move, blob, (_O.SESSION_LOST, None))
    elif state in _ENDING:
        upload.owner = None
        if state in CANCELLING_STATES and (work := _work_of(blob)) is not None:
            graph.pushes.outlive(upload, work)
        _upload_failed(graph, blob, upload)


def _upload_failed(graph: Graph, blob: BlobMachine | StreamMachine, upload: UploadMachine) -> None:
    error = upload.error or TransportError(f"{blob.describe()}: its upload sessions were lost")
    if isinstance(blob, StreamMachine) and upload.state is UploadState.LOST and not blob.may_restart:
        error = unreplayable_error(blob.describe(), blob.told, error)
    blob.content_failed = upload.content_failed
    graph.then(graph.move, blob, (_O.FAILED, Details(error=error)))


def resume(graph: Graph, blob: BlobMachine, kept: Kept) -> None:
    """Go on with a session that an earlier process left, unless it is about other content."""
    blob.location, blob.chunk_min_bytes = kept.location, kept.chunk_min_bytes
    if (kept.size, kept.identity) == (blob.size, blob.blob.identity):
        blob.kept_offset = kept.offset
        blob.candidates = ()  # they were tried before that session was opened
        return
    graph.pushes.checkpoint.drop(kept.key)
    why = "the content is not what it was when its upload began"
    graph.scheduler.notices.tell(blob.digest, blob.descriptor, _N.NOT_RESUMED, text=why)
    cancel_upload(graph, blob, unverified=True)


def doubted(machine: Machine, outcome: Outcome) -> Outcome:
    """What an earlier process left and is denied (a 401 that asks for nothing we have) is not known to be an upload
    session, so it is let go of, and not deleted."""
    patches = isinstance(machine, UploadMachine) and machine.unverified and machine.state is UploadState.PATCHING
    return _O.GONE if patches and outcome is _O.REFUSED else outcome


def end_sessions(graph: Graph, blob: BlobMachine) -> None:
    """What a blob was given and did not need is given back; an earlier process's is left for a later one."""
    checkpoint, key = graph.pushes.checkpoint, (blob.repository, blob.digest)
    if blob.kept_offset is not None and blob.state is not BlobState.PRESENT and checkpoint.active:
        checkpoint.leave(key)
    elif blob.location:
        checkpoint.drop(key)
        cancel_upload(graph, blob, unverified=blob.kept_offset is not None)


def cancel_upload(graph: Graph, blob: BlobMachine, unverified: bool = False) -> None:
    """Delete a session that a blob was given, or (`unverified`) an earlier process was, and does not need."""
    upload = cancelling_upload(blob, unverified)
    blob.location = ""
    graph.scheduler.note_session(blob)
    waiting = _work_of(blob)
    if waiting is not None:
        graph.pushes.outlive(upload, waiting)
    if blob.expired:
        quit_upload(graph, upload)
        return
    graph.scheduler.note_session(upload)
    graph.scheduler.enqueue(upload)


def quit_upload(graph: Graph, upload: UploadMachine) -> None:
    """There is no time to give a session back."""
    graph.then(graph.move, upload, (_O.GAVE_UP, None))


def lost_opening(graph: Graph, machine: Machine, facts: Details | None) -> None:
    """A request that may have opened an upload session was not answered: nobody knows where that is."""
    starting = machine.state is UploadState.STARTING and not (facts is not None and facts.cut)
    if starting or (machine.expired and machine.may_open(graph.scheduler.knowledge)):
        left_open(graph, machine)


def left_open(graph: Graph, machine: Machine) -> None:
    """An upload session stays open, or may."""
    work = _work_of(machine)
    if work is not None:
        work.left_open += 1
        if machine.node is work and work.error is None:
            work.error = machine.error


def _work_of(machine: Machine) -> PushState | None:
    """The push that a machine is at work for, one of them if they are several."""
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
