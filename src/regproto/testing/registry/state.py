"""A fake registry's state: repositories and upload sessions, and how each change is recorded in storage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import attrs

from regproto._model.digest import Digest
from regproto.testing.registry.http import RequestHead
from regproto.testing.registry.options import RegistryOptions
from regproto.testing.registry.storage import MemoryStorage, Storage


def _pairs(pairs: Iterable[Iterable[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in pairs)


@attrs.frozen(kw_only=True)
class StoredManifest:
    """What is known of a manifest beside its bytes."""

    media_type: str
    size: int
    subject: str = ""
    artifact_type: str = ""
    annotations: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs)


@attrs.define
class Repository:
    """What one repository holds."""

    blobs: dict[str, int] = attrs.field(factory=dict)
    """Sizes by digest."""
    manifests: dict[str, StoredManifest] = attrs.field(factory=dict)
    tags: dict[str, str] = attrs.field(factory=dict)
    """Digests by tag."""

    def copy(self) -> Repository:
        """An independent twin."""
        return Repository(self.blobs.copy(), self.manifests.copy(), self.tags.copy())


@attrs.frozen(kw_only=True)
class Session:
    """An upload session."""

    repository: str
    algorithm: str
    offset: int = 0
    previous: int = 0
    """The offset before the latest piece."""
    version: int = 0
    """How many Locations it gave out; the newest carries this number."""
    busy: bool = False
    """A request is writing to it right now."""
    lost: bool = False
    short: bool = False
    """The latest piece was below the chunk minimum, so it must have been the last."""


@attrs.define
class State:
    """Everything a registry knows. Every change goes through a method, which records it in storage."""

    storage: Storage
    repositories: dict[str, Repository] = attrs.field(factory=dict)
    sessions: dict[str, Session] = attrs.field(factory=dict)
    opened: int = 0
    """Sessions opened so far: what session ids are made from."""

    @classmethod
    def load(cls, storage: Storage) -> State:
        """The state that `storage` has records of."""
        state = cls(storage)
        for (kind, *rest), record in tuple(storage.records().items()):
            if kind == "session":
                session = Session(**record)
                try:
                    received = storage.length(rest[0])
                except KeyError:  # the process ended while the session was closed
                    storage.keep((kind, *rest), None)
                    continue
                if received != session.offset:  # the process ended inside a body
                    session = attrs.evolve(
                        session, offset=received, previous=session.offset, version=session.version + 1
                    )
                state.sessions[rest[0]] = session
            elif kind == "opened":
                state.opened = record["count"]
            else:
                repository = state.repositories.setdefault(rest[0], Repository())
                if kind == "blob":
                    repository.blobs[rest[1]] = record["size"]
                elif kind == "manifest":
                    repository.manifests[rest[1]] = StoredManifest(**record)
                elif kind == "tag":
                    repository.tags[rest[1]] = record["digest"]
        return state

    def copy(self, storage: MemoryStorage) -> State:
        """An independent twin over a copied storage."""
        repositories = {name: repository.copy() for name, repository in self.repositories.items()}
        return State(storage, repositories, self.sessions.copy(), self.opened)

    def repository(self, name: str) -> Repository:
        """The repository of this name, made if it is not there."""
        if name not in self.repositories:
            self.repositories[name] = Repository()
            self.storage.keep(("repository", name), {})
        return self.repositories[name]

    def has_blob(self, name: str, digest: str) -> bool:
        """Whether the repository has this blob."""
        return name in self.repositories and digest in self.repositories[name].blobs

    def add_blob(self, name: str, digest: str) -> None:
        """Link stored content into a repository."""
        size = self.storage.size(digest)
        self.repository(name).blobs[digest] = size
        self.storage.keep(("blob", name, digest), {"size": size})

    def remove_blob(self, name: str, digest: str) -> None:
        """Unlink a blob; the content goes with its last use."""
        del self.repositories[name].blobs[digest]
        self.storage.keep(("blob", name, digest), None)
        self._collect(digest)

    def add_manifest(self, name: str, digest: str, manifest: StoredManifest, content: bytes) -> None:
        """Store a manifest in a repository."""
        self.storage.put(digest, content)
        self.repository(name).manifests[digest] = manifest
        self.storage.keep(("manifest", name, digest), attrs.asdict(manifest))

    def remove_manifest(self, name: str, digest: str) -> None:
        """Remove a manifest and every tag on it."""
        repository = self.repositories[name]
        for tag in [tag for tag, target in repository.tags.items() if target == digest]:
            self.remove_tag(name, tag)
        del repository.manifests[digest]
        self.storage.keep(("manifest", name, digest), None)
        self._collect(digest)

    def _collect(self, digest: str) -> None:
        if not any(digest in r.blobs or digest in r.manifests for r in self.repositories.values()):
            self.storage.remove(digest)

    def set_tag(self, name: str, tag: str, digest: str) -> None:
        """Put a tag on a manifest."""
        self.repository(name).tags[tag] = digest
        self.storage.keep(("tag", name, tag), {"digest": digest})

    def remove_tag(self, name: str, tag: str) -> None:
        """Remove a tag."""
        del self.repositories[name].tags[tag]
        self.storage.keep(("tag", name, tag), None)

    def open_session(self, name: str, algorithm: str) -> str:
        """Open an upload session; returns its id, a UUID that follows from how many there were before."""
        self.opened += 1
        self.storage.keep(("opened",), {"count": self.opened})
        text = hashlib.sha256(f"upload session {self.opened}".encode()).hexdigest()
        session_id = f"{text[:8]}-{text[8:12]}-5{text[13:16]}-8{text[17:20]}-{text[20:32]}"
        self.storage.begin(session_id, algorithm)
        self.set_session(session_id, Session(repository=name, algorithm=algorithm))
        return session_id

    def set_session(self, session_id: str, session: Session) -> None:
        """Replace what is known of a session."""
        self.sessions[session_id] = session
        self.storage.keep(("session", session_id), attrs.asdict(attrs.evolve(session, busy=False)))

    def change_session(self, session_id: str, **changes: Any) -> Session:
        """Change some of what is known of a session."""
        session = attrs.evolve(self.sessions[session_id], **changes)
        self.set_session(session_id, session)
        return session

    def close_session(self, session_id: str) -> None:
        """Forget a session; its upload was committed or is discarded."""
        del self.sessions[session_id]
        self.storage.discard(session_id)
        self.storage.keep(("session", session_id), None)

    def digest_of(self, name: str, reference: str) -> Digest | None:
        """The manifest that a tag or digest names, if it is there."""
        repository = self.repositories.get(name)
        if repository is None:
            return None
        digest = repository.tags.get(reference, reference)
        return Digest(digest) if digest in repository.manifests else None


@attrs.frozen
class Call:
    """One request on its way through the registry."""

    head: RequestHead
    options: RegistryOptions
    state: State
    now: float
    name: str = ""
    """The repository's name in the path."""
    argument: str = ""
    """What follows it: a digest, a tag, a session's id."""
    query: dict[str, list[str]] = attrs.field(factory=dict)

    def param(self, key: str) -> str | None:
        """The first query parameter of this name."""
        values = self.query.get(key)
        return values[0] if values else None
