"""Copies of a session, and what makes two of them the same.

The explorer forks a session at every choice, so both are made to be quick: a copy is a pickle in which plans and
messages are shared instead of copied, and a fingerprint is a tuple of what a session's future depends on, without
its counters and clocks.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable, Hashable
from typing import Any, Final

import attrs

from regproto._engine.checkpoint import Checkpoint
from regproto._http.referrers_list import Listing
from regproto._machines.base import Machine
from regproto._machines.blob import BlobMachine
from regproto._machines.manifest import ManifestMachine
from regproto._machines.query import QueryMachine
from regproto._machines.referrers import ReferrersMachine
from regproto._machines.source_check import SourceCheckMachine
from regproto._machines.stream import StreamMachine, StreamUpload
from regproto._machines.token import TokenMachine
from regproto._machines.upload import UploadMachine
from regproto._model.config import Config
from regproto._model.plan import Blob, Manifest, PushPlan, StreamBlob
from regproto._session import Session

_SHARED: Final = (Config, PushPlan, Blob, Manifest, StreamBlob)
"""Immutable, and most of a session's bytes."""

_FORGOTTEN: Final = frozenset(
    {"lane", "node", "ends_for", "base", "repository", "exchange", "due", "delay_s", "error", "asked_at", "header"}
    | {"work", "begun_at", "answered_at", "read_at", "sent_bytes", "known_bytes"}
    | {"promise_s", "open_s", "prepare_s", "write_s"}
)
"""Fields of machines that no later transition depends on, or that other parts of the fingerprint cover."""


class Forker:
    """Makes copies of sessions that share their plans."""

    def __init__(self) -> None:
        self._shared: dict[int, object] = {}

    def _reduce(self, thing: object) -> tuple[Callable[[int], object], tuple[int]]:
        self._shared[id(thing)] = thing
        return _find, (id(thing),)

    def dump(self, session: object) -> bytes:
        """A session as bytes that `load` can make any number of copies from, in this process."""
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, protocol=5)
        pickler.dispatch_table = copyreg.dispatch_table | dict.fromkeys(_SHARED, self._reduce)
        pickler.dump(session)
        return buffer.getvalue()

    def load(self, dumped: bytes) -> Session:
        """A copy of the session that was dumped."""
        _current.clear()
        _current.update(self._shared)
        session: Session = pickle.loads(dumped)
        return session


_current: dict[int, object] = {}


def _find(key: int) -> object:
    return _current[key]


def fingerprint(session: Session, normal: Callable[[str], str]) -> Hashable:
    """Equal for sessions that will answer alike.

    Args:
        session: whose.
        normal: makes Locations comparable (`FakeRegistry.normalised`).
    """
    scheduler, graph, under_way = session._scheduler, session._graph, session._pushes.under_way
    nodes = tuple(
        (
            key[:3],
            node.missing,
            node.expanded,
            len(node.users),
            len(node.goal_of),
            len(node.dependents),
            len(node.followers),
            _machine(node.machine, normal) if node.machine is not None else None,
        )
        for key, node in sorted(graph.nodes.items(), key=lambda item: item[0][:3])
    )
    pushes = tuple(
        (
            *(p.id, p.goals, p.ending, p.outcome, type(p.error).__name__),
            tuple(_machine(stream, normal) for stream in p.streams.values()),
        )
        for p in under_way.values()
    )
    lists = tuple(
        (key, tuple(work.id for work in at_work.works), _machine(at_work.machine, normal))
        for key, at_work in sorted(graph.lists.lists.items())
    )
    asked = tuple(_machine(lookup, normal) for p in under_way.values() for lookup in p.lookups)
    attached = tuple(
        (subject, tuple(there.items())) for p in under_way.values() for subject, there in p.attached.items()
    )
    tokens = tuple(
        (repo, _machine(token, normal), scheduler.now >= token.renew_at)
        for repo, token in sorted(scheduler.auth.tokens.items())
    )
    flights = frozenset(
        (
            _name(e.machine),
            e.ask.method,
            normal(e.url),
            e.redirects,
            bool(e.aborted),
            e.ends_for is not None,
            _current_token(session, e.machine, e.serial),
        )
        for e in scheduler.in_flight.values()
    )
    lanes = tuple(
        (
            name,
            o.exchanges,
            o.body_bytes,
            o.answered,
            o.passed,
            o.hold_until > scheduler.now,
            *(_lanes(part, normal) for part in (o.light, o.heavy, o.ending, o.withheld)),
        )
        for name, o in sorted(scheduler.origins.items())
    )
    awaiting_token = tuple(
        (repo, tuple(_one(m, normal) for *_, lane in stuck for m in lane))
        for repo, stuck in sorted(scheduler.awaiting_token.items())
    )
    waiting = tuple(_one(m, normal) for due, _, m in sorted(scheduler.timers, key=lambda t: t[:2]) if m.due == due)
    others = tuple(
        _machine(e.machine, normal) for e in scheduler.in_flight.values() if isinstance(e.machine, UploadMachine)
    )
    return (
        nodes,
        pushes,
        (lists, asked, attached, _sources(session, normal), len(scheduler.sessions)),
        (scheduler.capabilities.referrers_api, scheduler.capabilities.conditional_put),
        tokens,
        flights,
        lanes,
        awaiting_token,
        waiting,
        frozenset(others),
        tuple(type(u).__name__ for u in scheduler.outbox),
        len(scheduler.keychain),
        scheduler.capabilities.single_post,
        scheduler.capabilities.tag_params,
        scheduler.capabilities.chunked,
        len(session._drafts.asked),
        scheduler.auth.scheme,
        tuple(sorted((*key, known.digest) for key, known in session._pushes.presence.known.items())),
        len(session._pushes.ended),
        _kept(session._pushes.checkpoint, normal),
    )


def _kept(checkpoint: Checkpoint, normal: Callable[[str], str]) -> Hashable:
    if not checkpoint.active:
        return None
    parts = (checkpoint.waiting, checkpoint.open, checkpoint.cancelling)
    kept = tuple(frozenset((k.key, normal(k.location), k.offset) for k in part.values()) for part in parts)
    return kept, frozenset(checkpoint.hinted)


def _sources(session: Session, normal: Callable[[str], str]) -> Hashable:
    sources = session._graph.sources
    checks = tuple(
        (key, _machine(check.machine, normal), tuple(map(_name, check.waiting)), tuple(check.works))
        for key, check in sorted(sources.checks.items(), key=lambda item: item[0])
    )
    tallies = tuple((name, t.lacked, t.may_have) for name, t in sorted(sources.tallies.items()))
    return checks, tallies


def _current_token(session: Session, machine: Machine, serial: int) -> int:
    """Whether a request went with no token, the newest, or an older one."""
    token = session._scheduler.auth.tokens.get(machine.repository)
    return 0 if not serial or token is None else 2 if token.serial == serial else 1


def _lanes(lanes: Any, normal: Callable[[str], str]) -> Hashable:
    return tuple((lane, tuple(_one(m, normal) for m in lanes.lanes[lane])) for lane in lanes.turn)


def _one(machine: Machine, normal: Callable[[str], str]) -> Hashable:
    """A machine that is to be sent: in full where no node leads to it any more."""
    alone = isinstance(machine, UploadMachine) and machine.owner is None
    return _machine(machine, normal) if alone else _name(machine)


def _name(machine: Machine) -> Hashable:
    if isinstance(machine, (StreamMachine, StreamUpload)):
        return machine.NAME, machine.repository, machine.stream.key, machine.state
    digest = getattr(machine, "digest", "")
    if isinstance(machine, SourceCheckMachine):
        return machine.NAME, machine.source, digest, machine.state
    return machine.NAME, machine.repository, digest, getattr(machine, "tag", ""), machine.state


def _rested(machine: Machine) -> bool:
    """Whether the read in flight was begun late enough to find a list at rest."""
    assert isinstance(machine, ReferrersMachine)
    exchange = machine.exchange
    return exchange is not None and exchange.begun >= machine.last_quiet_at + machine.rest_s


def _machine(machine: Machine, normal: Callable[[str], str]) -> Hashable:
    return tuple(_value(machine, name, normal) for name in _FIELDS[type(machine)])


def _value(machine: Machine, name: str, normal: Callable[[str], str]) -> Hashable:
    value = getattr(machine, name)
    if name in ("location", "kept_at"):
        return normal(value) if value else ""
    if name == "calm_at":
        return _rested(machine)
    if name == "serial":
        return bool(value)
    if name in ("redirect", "credentials"):
        return value is not None
    if isinstance(value, Machine):
        return _machine(value, normal) if name == "upload" and value.state not in value.ENDS else _name(value)
    if isinstance(value, (Blob, Manifest)):
        return value.descriptor.digest
    if isinstance(value, Listing):
        return value.identity, value.validator
    if isinstance(value, (dict, set)):
        return tuple(sorted(value))
    return value  # type: ignore[no-any-return]


_FIELDS: Final[dict[type[Machine], tuple[str, ...]]] = {
    kind: tuple(f.name for f in attrs.fields(kind) if f.name not in _FORGOTTEN)
    for kind in (
        *(BlobMachine, QueryMachine, ManifestMachine, ReferrersMachine, StreamMachine, StreamUpload),
        *(SourceCheckMachine, TokenMachine, UploadMachine),
    )
}
