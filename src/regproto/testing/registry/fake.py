"""A registry that is itself sans-IO: strict as the distribution-spec, with switches for what real ones differ
in.

`FakeRegistry.handle` answers a whole request; `open` is the streaming form under it, for servers. Nothing in
here does I/O, reads a clock or is random: the same requests get the same answers, and a registry in memory
can be copied at any point.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import attrs

from regproto._http.referrers_list import fallback_tag
from regproto._model.digest import Digest
from regproto._model.errors import LocalProtocolError
from regproto._model.manifest import parse_manifest
from regproto.testing.registry import content as content
from regproto.testing.registry import uploads as uploads
from regproto.testing.registry.auth import Access, authorize, challenge, get_token, post_token
from regproto.testing.registry.exchange import Exchange, too_large
from regproto.testing.registry.http import (
    Content,
    Refused,
    Reply,
    Request,
    RequestHead,
    Wire,
    is_repository,
    json_reply,
    refused,
)
from regproto.testing.registry.options import Auth, Fault, LocationStyle, RegistryOptions, When
from regproto.testing.registry.sinks import Sink
from regproto.testing.registry.state import Call, Session, State
from regproto.testing.registry.storage import MemoryStorage, Storage

Handler: TypeAlias = Callable[[Call], Reply | Sink]

_PULL: Final = frozenset({"pull"})
_PUSH: Final = frozenset({"pull", "push"})
_DELETE: Final = frozenset({"delete"})

_ROUTES: Final[dict[str, dict[str, tuple[Handler, frozenset[str]]]]] = {
    "uploads": {"POST": (uploads.start, _PUSH)},
    "session": {
        "GET": (uploads.status, _PUSH),
        "PATCH": (uploads.patch, _PUSH),
        "PUT": (uploads.put, _PUSH),
        "DELETE": (uploads.cancel, _PUSH),
    },
    "blobs": {
        "GET": (content.get_blob, _PULL),
        "HEAD": (content.get_blob, _PULL),
        "DELETE": (content.delete_blob, _DELETE),
    },
    "manifests": {
        "GET": (content.get_manifest, _PULL),
        "HEAD": (content.get_manifest, _PULL),
        "PUT": (content.put_manifest, _PUSH),
        "DELETE": (content.delete_manifest, _DELETE),
    },
    "tags": {"GET": (content.list_tags, _PULL)},
    "referrers": {"GET": (content.list_referrers, _PULL)},
}
"""What is there by kind of path and method, and the actions it takes (distribution-spec, "Endpoints")."""

_PATH = re.compile(r"/v2/(.+)/(?:(blobs/uploads|blobs|manifests|referrers)/([^/]*)|(tags)/list)")
_SESSION = re.compile(r"uploads/([0-9a-f-]{36})(?:\?_state=([^&]*))?")


class FakeRegistry:
    """A registry to test clients against.

    Args:
        options: its switches and faults.
        storage: where bytes and records are kept; what an earlier registry recorded there is found again.

    Attributes:
        log: method, target and status (0: no answer) of the newest `options.log_max` requests.
        requests: how many were opened.
        bytes_received: of request bodies, in all.
    """

    def __init__(self, options: RegistryOptions | None = None, storage: Storage | None = None) -> None:
        self.options = options or RegistryOptions()
        self.log: deque[tuple[str, str, int]] = deque(maxlen=self.options.log_max)
        self.requests = 0
        self.bytes_received = 0
        self.storage: Storage = MemoryStorage() if storage is None else storage
        self._state = State.load(self.storage)
        self._fault_matches = [0] * len(self.options.faults)

    # --- requests -----------------------------------------------------------------------------------------

    def handle(self, request: Request, now: float = 0.0, fault: Fault | None = None) -> Reply:
        """Answer a whole request.

        Args:
            request: its Content-Length, if it has one, must be right.
            now: seconds on any clock; tokens expire by it.
            fault: befalls this request, whatever its position.

        Returns:
            The answer, its body as bytes. Where `Reply.wire` is not WHOLE, the client does not see it as
            such.

        Raises:
            LocalProtocolError: the body is not as long as Content-Length says.
        """
        length = request.header("content-length")
        head = RequestHead(request.method, request.target, request.headers, request.scheme)
        if request.header("transfer-encoding") is not None:
            pass
        elif length is None:
            head = attrs.evolve(head, headers=(*head.headers, ("Content-Length", str(len(request.body)))))
        elif length != str(len(request.body)):
            raise LocalProtocolError(f"Content-Length is {length}, the body has {len(request.body)} bytes")
        exchange = self.open(head, now, fault)
        exchange.feed(request.body)
        reply = exchange.finish()
        body = reply.body
        if isinstance(body, Content):
            body = self.storage.read(body.digest, body.offset, body.size)
        return attrs.evolve(reply, body=body[: reply.sent_bytes] if reply.wire is Wire.TRUNCATED else body)

    def open(self, head: RequestHead, now: float = 0.0, fault: Fault | None = None) -> Exchange:
        """Begin a request whose body comes in pieces; the returned exchange says what to do next."""
        self.requests += 1
        fault = fault or self._next_fault(head)
        call = Call(head, self.options, self._state, now, query=head.query)
        access: Access = {}
        plan: Reply | Sink
        try:
            call, handler, access = self._route(call)
            plan = self._checked(call, handler, access, fault)
        except Refused as error:
            plan = error.reply
        header = None if self.options.auth is Auth.NONE else challenge(self.options, head, access)
        return Exchange(head, self.options, plan, fault, header, self._done)

    def _checked(self, call: Call, handler: Handler, access: Access, fault: Fault | None) -> Reply | Sink:
        if fault is not None and fault.position is When.BEFORE:
            return Reply(0)  # the exchange has the fault's own answer
        at_upload_host = call.head.header("host") == self.options.upload_host
        if at_upload_host and self.options.location_style is LocationStyle.OTHER_HOST:
            if call.head.header("authorization") is not None:
                raise refused(400, "UNSUPPORTED", "a signed URL takes no Authorization")
        elif handler not in (get_token, post_token):
            authorize(call, access)
        if self.options.length_required and call.head.header("transfer-encoding") is not None:
            raise refused(411, "SIZE_INVALID", "a body needs a Content-Length")
        limit, length = self.options.max_body_bytes, int(call.head.header("content-length") or 0)
        if limit and length > limit:
            raise Refused(too_large(limit))
        return handler(call)

    def _route(self, call: Call) -> tuple[Call, Handler, Access]:
        method, path = call.head.method, call.head.path
        if path in ("/v2", "/v2/"):
            return call, _method(method, {"GET": _version_check, "HEAD": _version_check}), {}
        if path == "/token" and self.options.auth is Auth.BEARER:
            return call, _method(method, {"GET": get_token, "POST": post_token}), {}
        match = _PATH.fullmatch(path)
        if match is None:
            raise refused(404, "UNSUPPORTED", "no such endpoint")
        name, kind, argument = match[1], match[2] or match[4], match[3] or ""
        if kind == "blobs/uploads":
            kind = "session" if argument else "uploads"
        if not is_repository(name):
            raise refused(400, "NAME_INVALID", "invalid repository name", {"name": name})
        handlers = _ROUTES[kind]
        handler = _method(method, {verb: entry[0] for verb, entry in handlers.items()})
        access = {name: handlers[method][1]}
        call = attrs.evolve(call, name=name, argument=argument)
        source = call.param("from") if kind == "uploads" and call.param("mount") is not None else None
        if source is not None and source != name and is_repository(source):
            access[source] = _PULL
        return call, handler, access

    def _next_fault(self, head: RequestHead) -> Fault | None:
        found = None
        for number, fault in enumerate(self.options.faults):
            if (not fault.method or fault.method == head.method) and re.search(fault.path, head.target):
                self._fault_matches[number] += 1
                if found is None and 0 <= self._fault_matches[number] - fault.at < fault.count:
                    found = fault
        return found

    def _done(self, head: RequestHead, received: int, status: int) -> None:
        self.bytes_received += received
        if self.options.log_max:
            self.log.append((head.method, head.target, status))

    # --- for explorers ------------------------------------------------------------------------------------

    def copy(self) -> FakeRegistry:
        """An independent twin. Raises `LocalProtocolError` unless the storage is in memory."""
        if not isinstance(self.storage, MemoryStorage):
            raise LocalProtocolError("only a registry in memory can be copied")
        twin = FakeRegistry.__new__(FakeRegistry)
        storage = self.storage.copy()
        twin.options, twin.storage, twin._state = self.options, storage, self._state.copy(storage)
        twin.log = self.log.copy()
        twin.requests, twin.bytes_received = self.requests, self.bytes_received
        twin._fault_matches = self._fault_matches.copy()
        return twin

    def fingerprint(self) -> Hashable:
        """Equal for registries that answer alike: content, tags, sessions whatever their ids, and the faults
        to come.

        How many Locations a session gave out does not count; `normalised` says of a Location whether it is
        the newest.
        """
        repositories = frozenset(
            (
                name,
                frozenset(repository.blobs),
                frozenset((digest, m.media_type) for digest, m in repository.manifests.items()),
                frozenset(repository.tags.items()),
            )
            for name, repository in self._state.repositories.items()
        )
        sessions = tuple(sorted(self._normal_session(session_id) for session_id in self._state.sessions))
        left = tuple(
            min(count, fault.at + fault.count)
            for count, fault in zip(self._fault_matches, self.options.faults, strict=True)
        )
        return repositories, sessions, left

    def _normal_session(self, session_id: str) -> tuple[str, str, int, int, bool, bool, str]:
        session = self._state.sessions[session_id]
        digest = self.storage.digest(session_id, session.algorithm)
        return (
            session.repository,
            session.algorithm,
            session.offset,
            session.previous if self.options.stale_range else 0,
            session.lost,
            session.short,
            digest,
        )

    def normalised(self, text: str) -> str:
        """`text` with each session's Location replaced by its rank in the fingerprint, and `newest`, `stale`,
        `gone` or `unsure`.

        For the states of clients that are to be compared between registries with other session ids.
        """
        ranked = sorted(self._state.sessions, key=lambda known: (self._normal_session(known), known))

        def normal(match: re.Match[str]) -> str:
            session_id, query = match[1], match[2]
            if session_id not in self._state.sessions:
                return "uploads/gone"
            version = uploads.version_of(session_id, unquote(query)) if query else None
            newest = self._state.sessions[session_id].version
            age = "unsure" if version is None else "newest" if version == newest else "stale"
            return f"uploads/{ranked.index(session_id)}/{age}"

        return _SESSION.sub(normal, text)

    # --- inspection ---------------------------------------------------------------------------------------

    def blobs(self, repository: str) -> frozenset[Digest]:
        """The blobs of a repository."""
        found = self._state.repositories.get(repository)
        return frozenset(map(Digest, found.blobs)) if found else frozenset()

    def manifests(self, repository: str) -> frozenset[Digest]:
        """The manifests of a repository."""
        found = self._state.repositories.get(repository)
        return frozenset(map(Digest, found.manifests)) if found else frozenset()

    def tags(self, repository: str) -> dict[str, Digest]:
        """The tags of a repository, and what they are on."""
        found = self._state.repositories.get(repository)
        return {tag: Digest(digest) for tag, digest in found.tags.items()} if found else {}

    def referrers(self, repository: str, subject: Digest) -> dict[str, dict[str, Any]]:
        """What is listed as attached to a manifest, by digest: what the referrers API answers, or the tag holds."""
        entries: list[dict[str, Any]] = []
        if self.options.referrers_api:
            found = self._state.repositories.get(repository)
            entries = [content.entry(d, m) for d, m in found.manifests.items() if m.subject == subject] if found else []
        elif (listed := self.tags(repository).get(fallback_tag(subject))) is not None:
            entries = json.loads(self.content(listed)).get("manifests", [])
        return {entry["digest"]: entry for entry in entries}

    def sessions(self, repository: str) -> tuple[Session, ...]:
        """The upload sessions that are open in a repository, the oldest first."""
        return tuple(s for s in self._state.sessions.values() if s.repository == repository)

    def content(self, digest: str) -> bytes:
        """A blob's or manifest's bytes. Raises `KeyError` if they are not there."""
        return self.storage.read(digest, 0, self.storage.size(digest))

    def put_blob(self, repository: str, body: bytes, algorithm: str = "sha256") -> Digest:
        """Put a blob in place, without a request."""
        digest = Digest.of(body, algorithm)
        self.storage.put(digest, body)
        self._state.add_blob(repository, digest)
        return digest

    def put_manifest(self, repository: str, body: bytes, tag: str = "") -> Digest:
        """Put a manifest in place, without a request and without a look at what it names."""
        digest = Digest.of(body)
        self._state.add_manifest(repository, digest, content.stored(parse_manifest(body), len(body)), body)
        if tag:
            self._state.set_tag(repository, tag, digest)
        return digest


def _version_check(call: Call) -> Reply:
    return json_reply({})


def _method(method: str, handlers: dict[str, Handler]) -> Handler:
    if method not in handlers:
        allowed = (("Allow", ", ".join(handlers)),)
        raise refused(405, "UNSUPPORTED", f"{method} is not supported here", headers=allowed)
    return handlers[method]
