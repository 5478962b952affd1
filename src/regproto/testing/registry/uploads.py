"""Blob uploads: sessions, their Locations, and the ways to fill them (distribution-spec, "Pushing blobs").

A Location carries `_state`, which names the session's version. Each Location handed out is a new version, so
that a client that lost, altered or kept an old query is found out.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import quote

from regproto._model.digest import Digest
from regproto._model.messages import Headers
from regproto.testing.registry.http import Refused, Reply, is_repository, parse_digest, refused
from regproto.testing.registry.options import LocationStyle
from regproto.testing.registry.sinks import Piece, Sink, Then
from regproto.testing.registry.state import Call, Session

_ALGORITHMS: Final = ("sha256", "sha384", "sha512")
_RANGE = re.compile(r"([0-9]+)-([0-9]+)")


# --- the endpoints ------------------------------------------------------------------------------------------


def start(call: Call) -> Sink:
    """POST: open a session, mount a blob, or take it at once."""
    if not call.options.create_repositories and call.name not in call.state.repositories:
        raise refused(404, "NAME_UNKNOWN", "repository does not exist", {"name": call.name})
    algorithm = call.param("digest-algorithm") or "sha256"
    if algorithm not in _ALGORITHMS:
        raise refused(400, "DIGEST_INVALID", f"unsupported algorithm {algorithm}")
    mount = call.param("mount")
    if mount is not None:
        return Then(lambda: _mount(call, parse_digest(mount), algorithm))
    digest = call.param("digest")
    if digest is None or call.options.single_post == 202:
        return Then(lambda: opened(call, algorithm))
    wanted = parse_digest(digest)
    if call.options.single_post != 201:
        raise refused(call.options.single_post, "UNSUPPORTED", "uploads in a single POST are not supported")
    session_id = call.state.open_session(call.name, wanted.algorithm)
    return Piece(call, session_id, lambda: _commit(call, session_id, wanted), resumable=False)


def opened(call: Call, algorithm: str) -> Reply:
    """202 with a new session."""
    session_id = call.state.open_session(call.name, algorithm)
    extra: Headers = ()
    if call.options.chunk_min_bytes:
        extra = (("OCI-Chunk-Min-Length", str(call.options.chunk_min_bytes)),)
    return _session_reply(call, 202, session_id, extra)


def _mount(call: Call, digest: Digest, algorithm: str) -> Reply:
    """A refusal of any kind but a bad name opens a session ("Mounting a blob from another repository")."""
    source = call.param("from")
    options, state = call.options, call.state
    if source is None and options.anonymous_mount not in (201, 202):
        raise refused(options.anonymous_mount, "NAME_INVALID", "a mount needs `from`")
    if source is not None and not is_repository(source):
        raise refused(400, "NAME_INVALID", "invalid repository name", {"name": source})
    if source is not None:
        found = options.mount and state.has_blob(source, digest)
    else:
        everywhere = options.mount and options.anonymous_mount == 201
        found = everywhere and any(digest in r.blobs for r in state.repositories.values())
    if not found:
        return opened(call, algorithm)
    state.add_blob(call.name, digest)
    return _blob_created(call, digest, 201)


def patch(call: Call) -> Sink:
    """PATCH: the next piece."""
    session = _writable(call)
    media_type = (call.head.header("content-type") or "application/octet-stream").partition(";")[0].strip()
    if media_type != "application/octet-stream":
        raise refused(415, "UNSUPPORTED", f"a blob is application/octet-stream, not {media_type}")
    _check_piece(call, session)
    return Piece(call, call.argument, lambda: _session_reply(call, call.options.patch_status, call.argument))


def put(call: Call) -> Sink:
    """PUT: the last piece, if any, and the end of the session."""
    session = _writable(call)
    digest = parse_digest(call.param("digest") or "")
    _check_piece(call, session)
    return Piece(call, call.argument, lambda: _commit(call, call.argument, digest))


def status(call: Call) -> Sink:
    """GET: how far the session is."""
    if not call.options.upload_status:
        raise refused(404, "BLOB_UPLOAD_UNKNOWN", "upload status is not supported")
    return Then(lambda: _status(call))


def _status(call: Call) -> Reply:
    _find(call, stale_ok=call.options.stale_status)
    return _session_reply(call, 204, call.argument)


def cancel(call: Call) -> Sink:
    """DELETE: give the session back."""
    return Then(lambda: _cancel(call))


def _cancel(call: Call) -> Reply:
    _writable(call)
    call.state.close_session(call.argument)
    return Reply(204)


# --- sessions -----------------------------------------------------------------------------------------------


def _find(call: Call, *, stale_ok: bool) -> Session:
    session = call.state.sessions.get(call.argument)
    if session is None or session.repository != call.name:
        raise refused(404, "BLOB_UPLOAD_UNKNOWN", "no such upload session")
    if session.lost:
        raise refused(404, "BLOB_UPLOAD_INVALID", "the upload session was lost")
    if call.options.location_query:
        version = version_of(call.argument, call.param("_state") or "")
        if version is None or version > session.version:
            raise refused(400, "BLOB_UPLOAD_INVALID", "the Location's query is missing or altered")
        if version < session.version and not stale_ok:
            raise _out_of_order(call, session, "this is not the session's newest Location")
    return session


def _writable(call: Call) -> Session:
    session = _find(call, stale_ok=False)
    if session.busy:
        raise _out_of_order(call, session, "another request is writing to this session")
    return session


def _check_piece(call: Call, session: Session) -> None:
    """What a piece's head says must fit the session ("Pushing a blob in chunks")."""
    length_header = call.head.header("content-length")
    chunked = call.head.header("transfer-encoding") is not None
    if session.short and (chunked or int(length_header or 0)):
        raise refused(400, "SIZE_INVALID", f"only the last chunk may be under {call.options.chunk_min_bytes} bytes")
    content_range = call.head.header("content-range")
    if content_range is None:
        return
    match = _RANGE.fullmatch(content_range)
    if match is None:
        raise refused(400, "BLOB_UPLOAD_INVALID", "Content-Range must be <start>-<end>")
    if length_header is None:
        raise refused(411, "SIZE_INVALID", "a chunk with Content-Range needs a Content-Length")
    limit = call.options.ranged_max_bytes
    if limit and int(length_header) > limit:
        raise refused(416, "REQUESTED_RANGE_NOT_SATISFIABLE", f"a ranged body may have at most {limit} bytes")
    first, last = int(match[1]), int(match[2])
    if first != session.offset:
        raise _out_of_order(call, session, f"the next byte is {session.offset}, not {first}")
    if last - first + 1 != int(length_header):
        raise refused(400, "SIZE_INVALID", "Content-Range and Content-Length differ")


def _out_of_order(call: Call, session: Session, message: str) -> Refused:
    headers = (("Range", _range(session.offset)),) if call.options.range_on_416 else ()
    return refused(416, "BLOB_UPLOAD_INVALID", message, headers=headers)


def _range(offset: int) -> str:
    return f"0-{max(offset - 1, 0)}"


def _commit(call: Call, session_id: str, digest: Digest) -> Reply:
    """Store the upload if its digest is right. A session whose commit failed is gone, as in the distribution
    registry."""
    state = call.state
    actual = state.storage.digest(session_id, digest.algorithm)
    if actual != digest:
        state.close_session(session_id)
        raise refused(400, "DIGEST_INVALID", "content does not match the digest", {"digest": digest, "actual": actual})
    state.storage.commit(session_id, digest)
    state.close_session(session_id)
    state.add_blob(call.name, digest)
    return _blob_created(call, digest, call.options.commit_status)


def _blob_created(call: Call, digest: Digest, code: int) -> Reply:
    headers: Headers = ()
    if call.options.commit_location:
        headers = (("Location", absolute(call, f"/v2/{call.name}/blobs/{digest}")),)
    if call.options.docker_content_digest:
        headers = (*headers, ("Docker-Content-Digest", digest))
    return Reply(code, headers)


# --- Locations ----------------------------------------------------------------------------------------------


def _state_text(session_id: str, version: int) -> str:
    """`+` and `=` stand in it so that a client that decodes or re-encodes the query wrongly is found out."""
    seal = hashlib.sha256(f"{session_id} {version}".encode()).hexdigest()[:12]
    return f"{version}+{seal}="


def version_of(session_id: str, text: str) -> int | None:
    number = text.partition("+")[0]
    if not number.isascii() or not number.isdigit() or text != _state_text(session_id, int(number)):
        return None
    return int(number)


def _session_reply(call: Call, code: int, session_id: str, extra: Headers = ()) -> Reply:
    session = call.state.sessions[session_id]
    session = call.state.change_session(session_id, version=session.version + 1)
    offset = session.previous if call.options.stale_range else session.offset
    headers = (("Range", _range(offset)), ("Docker-Upload-UUID", session_id), *extra)
    location = _location(call, session_id, session.version)
    return Reply(code, (("Location", location), *headers) if location else headers)


def _location(call: Call, session_id: str, version: int) -> str:
    query = f"?_state={quote(_state_text(session_id, version), safe='')}" if call.options.location_query else ""
    path = f"/v2/{call.name}/blobs/uploads/{session_id}{query}"
    match call.options.location_style:
        case LocationStyle.MISSING:
            return ""
        case LocationStyle.RELATIVE:
            return f"{session_id}{query}"
        case LocationStyle.OTHER_HOST:
            return f"{call.head.scheme}://{call.options.upload_host}{path}"
        case LocationStyle.PATH | LocationStyle.ABSOLUTE:
            return absolute(call, path)


def absolute(call: Call, path: str) -> str:
    """A Location for what is there, absolute where the registry writes them so."""
    return call.head.origin + path if call.options.location_style is LocationStyle.ABSOLUTE else path
