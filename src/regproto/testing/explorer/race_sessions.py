"""One session in a race, for the walk in `_races`: what it does next, worked out once for each of its own states.

Writers of one kind are alike, so a session is only ever run as the first writer; what it does as another one is the
same with the names changed. A state of a session is what its future depends on, with sets of entries as bits.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import attrs

from regproto._http.referrers_list import ABSENT, entry_of, merged
from regproto._machines.base import Edge
from regproto._machines.referrers import ReferrersMachine
from regproto._model.config import Config
from regproto._model.digest import Digest
from regproto._model.manifest import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from regproto._model.messages import Failed, FailureKind, Finished, Headers, PushOutcome, Response, Send, Wait, Written
from regproto._model.plan import Manifest, PushPlan
from regproto._model.referrers import Guarantee
from regproto._session import Session
from regproto.testing.explorer.explorer import BASE
from regproto.testing.explorer.fork import Forker

NO_LIST: Final = -1
"""In the place of a set of entries: there is no list yet."""
_PATIENT: Final = Config(attempts=1_000_000, referrers_attempts=1_000_000)
"""Nobody gives up; without that there would be no end to the states."""
PROMISE_S: Final = _PATIENT.referrers_window_s + _PATIENT.referrers_settle_s
"""How long after its read a write has taken effect, as others take it to be."""


class Entries(int):
    """A set of entries within `Local.rest`, or NO_LIST."""


class Local(NamedTuple):
    """Where one session is. Sets of entries are bits, one for each writer."""

    me: int
    sends: int | None
    """The entries in its write on its way; None: it will read next, or is done."""
    condition: int | None
    """What the list has to be for that write where conditions are enforced; None: anything."""
    waits: bool
    """It waits for quiet."""
    done: bool
    pushed: bool
    guarantee: Guarantee | None
    unsure: bool
    seen: int
    round_trip_s: float
    """0: as quick as can be."""
    rest_s: float
    """How long it waits for quiet."""
    rest: tuple[Any, ...]
    """Whatever else its future depends on."""


def permuted(entries: int, names: tuple[int, ...]) -> int:
    """A set of entries with each writer's name changed to `names[writer]`."""
    if entries <= 0:
        return entries
    return sum(1 << name for old, name in enumerate(names) if entries >> old & 1)


def _renamed(local: Local, names: tuple[int, ...]) -> Local:
    return local._replace(
        me=names[local.me],
        sends=None if local.sends is None else permuted(local.sends, names),
        condition=None if local.condition is None else permuted(local.condition, names),
        seen=permuted(local.seen, names),
        rest=tuple(Entries(permuted(r, names)) if isinstance(r, Entries) else r for r in local.rest),
    )


def _attachment(number: int) -> Manifest:
    """An attachment of a subject that need not be there."""
    empty = {"mediaType": OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2}
    subject = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"subject")), "size": 7}
    fields = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "a/b", "config": empty, "layers": [empty]}
    return Manifest.of(json.dumps({**fields, "subject": subject, "annotations": {"by": str(number)}}).encode())


@attrs.define(eq=False)
class RaceSessions:
    """The sessions of one race, by number: equal numbers are equal states of the same writer."""

    writers: int
    locals: list[Local] = attrs.field(factory=list)
    edges: set[Edge] = attrs.field(factory=set)
    _numbers: dict[Local, int] = attrs.field(factory=dict)
    _stored: dict[Local, tuple[bytes, Local]] = attrs.field(factory=dict)
    """By what the first writer is like, whatever the others are called: a copy of a session like that with the request
    it has in flight, and what that one calls them."""
    _steps: dict[tuple[int, str, int], int] = attrs.field(factory=dict)
    _renames: dict[tuple[int, tuple[int, ...]], int] = attrs.field(factory=dict)
    _forker: Forker = attrs.field(factory=Forker)
    _manifests: list[Manifest] = attrs.field(init=False)
    _bits: dict[str, int] = attrs.field(init=False)
    _lists: dict[str, int] = attrs.field(init=False)
    """Every list there can be, by the digest of its bytes."""

    def __attrs_post_init__(self) -> None:
        self._manifests = [_attachment(number) for number in range(self.writers)]
        self._bits = {m.descriptor.digest: 1 << n for n, m in enumerate(self._manifests)}
        self._lists = {Digest.of(self._body(entries)): entries for entries in range(1 << self.writers)}
        self._lists[""] = NO_LIST

    def first(self, me: int, round_trip_s: float = 0.0) -> int:
        """A session whose attachment is there, and which is about to read the list."""
        session = Session(BASE, _PATIENT, journal=True)
        manifest = self._manifests[0]
        absent = [named.digest for named in manifest.names()]
        session.submit(PushPlan(repository="r", manifests=(manifest,), root=manifest.descriptor.digest, omitted=absent))
        return self.rename(self._number(self._settled(session, None, 0.0, round_trip_s)), self._swap(me))

    def rename(self, number: int, names: tuple[int, ...]) -> int:
        """The same state of the writer that is called `names[me]`, with all others called by their new names too."""
        key = number, names
        found = self._renames.get(key)
        if found is None:
            found = self._renames[key] = self._number(_renamed(self.locals[number], names))
        return found

    def step(self, number: int, event: str, met: int = 0) -> int:
        """The state after an event.

        Args:
            number: the state before.
            event: `read` (of the list `met`); or what became of its write: `landed`, `refused` (412), `lost` (no
                answer) or `not sent`.
            met: see `event`.
        """
        key = number, event, met
        after = self._steps.get(key)
        if after is None:
            local = self.locals[number]
            dumped, stored = self._stored[self._nameless(_renamed(local, self._swap(local.me)))]
            there = self._names_between(local, stored)
            back = tuple(there.index(name) for name in range(self.writers))
            ran = self._run(dumped, event, permuted(met, there), local.round_trip_s)
            after = self._number(_renamed(ran, back))
            self._steps[key] = after
        return after

    def _nameless(self, first: Local) -> Local:
        """The same for all states of the first writer that differ only by what the others are called."""
        return min((_renamed(first, names) for names in self._others()), key=repr)

    def _names_between(self, local: Local, stored: Local) -> tuple[int, ...]:
        """New names that make one state the other."""
        swap = self._swap(local.me)
        for names in self._others():
            both = tuple(names[name] for name in swap)
            if _renamed(local, both) == stored:
                return both
        raise AssertionError("what is nameless alike is alike")

    def _others(self) -> Iterator[tuple[int, ...]]:
        """Every way to name the writers beside the first."""
        return ((0, *names) for names in itertools.permutations(range(1, self.writers)))

    def _swap(self, me: int) -> tuple[int, ...]:
        """The names when the first writer and this one change places."""
        names = list(range(self.writers))
        names[0], names[me] = me, 0
        return tuple(names)

    def _number(self, local: Local) -> int:
        number = self._numbers.get(local)
        if number is None:
            number = self._numbers[local] = len(self.locals)
            self.locals.append(local)
        return number

    # --- running one ---

    def _run(self, dumped: bytes, event: str, met: int, round_trip_s: float) -> Local:
        loaded: Any = self._forker.load(dumped)
        session, send, now = loaded
        machine = _machine_of(session)
        if event == "read":
            while send is None:
                match session.poll(now):
                    case Send() as asked:
                        send = asked
                    case Wait(until=until):
                        now = until
            now += round_trip_s
            session.receive(now, self._list_answer(send, met))
        elif event in ("landed", "refused"):
            now += round_trip_s
            session.receive(now, _says(send, 201 if event == "landed" else 412))
        else:
            unsent = event == "not sent"
            kind, written = (FailureKind.NOT_SENT, Written.NONE) if unsent else (FailureKind.CLOSED, Written.ALL)
            session.receive(now, Failed(id=send.id, kind=kind, written=written))
        return self._settled(session, machine, now, round_trip_s)

    def _list_answer(self, send: Send, entries: int) -> Response:
        if entries == NO_LIST:
            return _says(send, 404)
        body = self._body(entries)
        headers: Headers = (("Content-Type", OCI_INDEX), ("ETag", f'"{Digest.of(body)}"'))
        return _says(send, 200, headers, body)

    def _body(self, entries: int) -> bytes:
        having = [entry_of(m) for n, m in enumerate(self._manifests) if entries >> n & 1]
        return merged(ABSENT, having, frozenset())

    def _settled(self, session: Session, machine: ReferrersMachine | None, now: float, round_trip_s: float) -> Local:
        """Poll until it is the turn of others; what is about this session alone is answered at once."""
        send: Send | None = None
        end: Finished | None = None
        while True:
            match session.poll(now):
                case Send() as asked:
                    name = asked.url.rpartition("/")[2]
                    if asked.method == "HEAD":
                        session.receive(now, _says(asked, 200))  # nobody deletes anything here
                    elif "/referrers/" in asked.url:
                        session.receive(now, _says(asked, 404))
                    elif ":" in name:
                        session.receive(now, _says(asked, 201))  # the attachment itself
                    elif asked.not_after is not None and now > asked.not_after:
                        session.receive(now, Failed(id=asked.id, kind=FailureKind.NOT_SENT, written=Written.NONE))
                    else:
                        send = asked
                case Finished() as finished:
                    end = finished
                case Wait():
                    break
        self.edges.update(edge for edge in session.take_journal() if edge[0] == ReferrersMachine.NAME)
        machine = machine or _machine_of(session)
        assert machine is not None
        local = self._ended(machine, end) if end is not None else self._local(session, machine, send)
        local = local._replace(round_trip_s=round_trip_s)
        nameless = self._nameless(local)
        if nameless not in self._stored:
            self._stored[nameless] = self._forker.dump((session, send, now)), local
        return local

    def _ended(self, machine: ReferrersMachine, end: Finished) -> Local:
        pushed, seen = end.result.outcome is PushOutcome.PUSHED, self._entries(machine.seen)
        return Local(0, None, None, False, True, pushed, machine.guarantee, machine.unsure, seen, 0.0, 0.0, ())

    def _local(self, session: Session, machine: ReferrersMachine, send: Send | None) -> Local:
        sends = condition = None
        if send is not None and send.method == "PUT":
            assert isinstance(send.body, bytes)
            sends = self._entries(entry["digest"] for entry in json.loads(send.body)["manifests"])
            condition = self._condition(send)
        listing, last_quiet_identity, refused_at = machine.listing, machine.last_quiet_identity, machine.refused_at
        rest = (
            machine.state.value,
            Entries(self._entries(machine.placed)),
            Entries(self._entries(machine.alive)),
            None if listing is None else Entries(self._entries(listing.entries)),
            None if last_quiet_identity is None else Entries(self._lists[last_quiet_identity]),
            None if refused_at is None else Entries(self._lists[refused_at]),
            (machine.fresh, machine.waited, machine.bare, machine.refusals, send is not None),
            session._scheduler.capabilities.conditional_put,
            (machine.late, round(machine.prepare_s, 3), round(machine.write_s, 3), machine.fits),
        )
        waits = last_quiet_identity is not None and sends is None
        seen = self._entries(machine.seen)
        rest_s = machine.rest_s if waits else 0.0
        return Local(0, sends, condition, waits, False, False, None, machine.unsure, seen, 0.0, rest_s, rest)

    def _entries(self, digests: Iterable[str]) -> int:
        return sum(self._bits[digest] for digest in digests)

    def _condition(self, send: Send) -> int | None:
        for name, value in send.headers:
            if name in ("If-None-Match", "If-Match"):
                return self._lists["" if value == "*" else value.strip('"')]
        return None


def _says(send: Send, status: int, headers: Headers = (), body: bytes = b"") -> Response:
    """A registry's answer."""
    headers = (*headers, ("Docker-Distribution-Api-Version", "registry/2.0"))
    return Response(id=send.id, status=status, headers=headers, body=body)


def _machine_of(session: Session) -> ReferrersMachine | None:
    return next((at_work.machine for at_work in session._graph.lists.lists.values()), None)
