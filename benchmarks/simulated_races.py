"""Races of many attachers in simulated time, on the fake registry without the referrers API.

    python benchmarks/simulated_races.py [--races 200] [--sessions 20] [--foreign 0]
    python benchmarks/simulated_races.py --slow [--races 5]

Every request takes effect some milliseconds after it was sent, and is answered some later; a few take long, but no
write longer than the deadline. Foreign writers read, write 5 to 450 ms later, and never look. Prints what was lost (of
what sessions attached), and the most writes and the longest time any session needed. What is proven, and not only
tried, is in scripts/explore-referrers.

--slow: registries whose round trips take up to 10 s, for all sessions or for some, with and without conditions; a row
for each. Exits 1 if anything is lost without a word of the session that took it away.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import attrs

from regproto import (
    Abort,
    Config,
    Digest,
    Failed,
    FailureKind,
    Finished,
    Manifest,
    PushPlan,
    PushResult,
    Response,
    Send,
    Session,
    Wait,
    Written,
)
from regproto.testing import Etag, FakeRegistry, RegistryOptions, Request

BASE = "http://registry.localhost"
REPOSITORY = "team/app"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}
SUBJECT = Digest.of(b"subject")
TAG = f"sha256-{SUBJECT.hex}"
ROUND_TRIPS_S = (0.1, 0.4, 0.6, 1.0, 1.5, 3.0, 10.0)


def attachment(number: int) -> Manifest:
    """One attachment of the subject."""
    subject = {"mediaType": IMAGE, "digest": SUBJECT, "size": 7}
    fields = {"schemaVersion": 2, "mediaType": IMAGE, "artifactType": "a/b", "config": EMPTY, "layers": [EMPTY]}
    return Manifest.of(json.dumps({**fields, "subject": subject, "annotations": {"n": str(number)}}).encode())


class Simulation:
    """One race.

    Args:
        seed: of all that is random.
        round_trips: of each session, in seconds; 0: some milliseconds, and now and then a second.
        foreign: writers that never look.
        etag: what the registry makes of conditions.
    """

    def __init__(self, seed: int, round_trips: Sequence[float], foreign: int, etag: Etag = Etag.SENT) -> None:
        self.random = random.Random(seed)
        self.registry = FakeRegistry(RegistryOptions(referrers_api=False, sparse_indexes=True, etag=etag))
        self.registry.put_blob(REPOSITORY, b"{}")
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = itertools.count()
        self.round_trips = round_trips
        self.begun = [0.0] * len(round_trips)
        self.writes, self.requests, self.late = ([0] * len(round_trips) for _ in range(3))
        self.in_flight: dict[tuple[int, int], Send] = {}
        self.attached: list[Digest] = []
        self.ended: dict[int, float] = {}
        self.results: dict[int, PushResult] = {}
        self.taken: dict[Digest, int] = {}
        """Who took an entry out of the list last."""
        for number in range(len(round_trips)):
            session = Session(BASE, Config(), seed=self.random.getrandbits(60))
            made = attachment(number)
            self.attached.append(made.descriptor.digest)
            absent = [named.digest for named in made.names()]
            session.submit(
                PushPlan(repository=REPOSITORY, manifests=[made], root=made.descriptor.digest, omitted=absent)
            )
            self.begun[number] = self.random.random() * 0.2
            self.at(self.begun[number], lambda now, n=number, s=session: self.poll(now, n, s))  # type: ignore[misc]
        for number in range(foreign):
            self.at(self.random.random() * 4.0, lambda now, n=number: self.foreign(now, 1_000 + n))  # type: ignore[misc]

    def at(self, when: float, what: Callable[[float], None]) -> None:
        """Have something happen."""
        heapq.heappush(self.events, (when, next(self.order), what))

    def run(self) -> list[int]:
        """Until nothing happens any more: whose attachments were lost although they were told to be listed."""
        while self.events:
            now, _, what = heapq.heappop(self.events)
            what(now)
        listed = self.registry.referrers(REPOSITORY, SUBJECT)
        told = [n for n, result in self.results.items() if result.error is None]
        return [n for n in told if self.attached[n] not in listed]

    def unsaid(self, lost: Sequence[int]) -> list[int]:
        """Those of the lost ones that were taken away by a session that neither failed nor is unsure."""
        return [n for n in lost if not self._says_so(self.results.get(self.taken[self.attached[n]]))]

    @staticmethod
    def _says_so(result: PushResult | None) -> bool:
        return result is not None and (result.error is not None or result.listed[0].unsure)

    def poll(self, now: float, number: int, session: Session) -> None:
        """Do what a session asks for."""
        while True:
            match session.poll(now):
                case Send() as send if send.not_after is not None and now > send.not_after:
                    self.late[number] += 1
                    session.receive(now, Failed(id=send.id, kind=FailureKind.NOT_SENT, written=Written.NONE))
                case Send() as send:
                    self.requests[number] += 1
                    self.writes[number] += send.method == "PUT" and send.url.endswith(TAG)
                    self.in_flight[number, send.id] = send
                    takes, returns = self.times(number)
                    at = now + takes
                    self.at(at, lambda when, s=send, r=returns: self.effect(when, number, session, s, r))  # type: ignore[misc]
                case Abort(id=aborted):
                    if self.in_flight.pop((number, aborted), None) is not None:  # it takes effect all the same
                        failed = Failed(id=aborted, kind=FailureKind.ABORTED, written=Written.ALL)
                        session.receive(now, failed)
                case Finished(result=result):
                    self.results[number] = result
                    self.ended[number] = now
                case Wait(until=until):
                    if until < float("inf"):
                        self.at(max(until, now + 1e-6), lambda when: self.poll(when, number, session))
                    return

    def times(self, number: int) -> tuple[float, float]:
        """How long until the next request takes effect, and from there to its answer."""
        whole = self.round_trips[number] * self.random.uniform(0.95, 1.05)
        if whole:
            takes = whole * self.random.uniform(0.3, 0.7)
            return takes, whole - takes
        takes = self.random.uniform(0.05, 1.4) if self.random.random() < 0.02 else self.random.uniform(0.002, 0.05)
        return takes, self.random.uniform(0.001, 0.03)

    def effect(self, now: float, number: int, session: Session, send: Send, returns: float) -> None:
        """A request takes effect."""
        assert isinstance(send.body, bytes)
        before = self.registry.referrers(REPOSITORY, SUBJECT).keys()
        reply = self.registry.handle(Request.to(send.method, send.url, send.headers, send.body))
        self.note(number, before)
        body = b"" if send.method == "HEAD" else reply.content
        answer = Response(id=send.id, status=reply.status, headers=reply.headers, body=body)

        def answered(when: float) -> None:
            if self.in_flight.pop((number, send.id), None) is not None:
                session.receive(when, answer)
                self.poll(when, number, session)

        self.at(now + returns, answered)

    def note(self, number: int, before: Iterable[str]) -> None:
        """Keep who took what out of the list."""
        after = self.registry.referrers(REPOSITORY, SUBJECT)
        for digest in before:
            if digest not in after:
                self.taken[Digest(digest)] = number

    def foreign(self, now: float, number: int) -> None:
        """Somebody else reads the list, and writes it a while later."""
        listed = list(self.registry.referrers(REPOSITORY, SUBJECT).values())
        made = attachment(number)
        entry = {"mediaType": IMAGE, "digest": made.descriptor.digest, "size": made.descriptor.size}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed, entry]}

        def write(when: float) -> None:
            before = self.registry.referrers(REPOSITORY, SUBJECT).keys()
            self.registry.put_manifest(REPOSITORY, made.content)
            self.registry.put_manifest(REPOSITORY, json.dumps(index).encode(), TAG)
            self.note(number, before)

        self.at(now + self.random.uniform(0.005, 0.45), write)


@attrs.define(kw_only=True)
class Row:
    """Races of one kind."""

    name: str
    lost: int = 0
    unsaid: int = 0
    failed: int = 0
    unsure: int = 0
    late: int = 0
    writes: int = 0
    requests: int = 0
    seconds: float = 0.0
    guarantees: Counter[str] = attrs.field(factory=Counter)

    def add(self, race: Simulation) -> None:
        """Run one more."""
        lost = race.run()
        self.lost += len(lost)
        self.unsaid += len(race.unsaid(lost))
        for number, result in race.results.items():
            self.failed += result.error is not None
            self.unsure += any(told.unsure for told in result.listed)
            self.guarantees.update(told.guarantee.value for told in result.listed)
            self.seconds = max(self.seconds, race.ended[number] - race.begun[number])
        self.late = max(self.late, *race.late)
        self.writes = max(self.writes, *race.writes)
        self.requests = max(self.requests, *race.requests)

    def __str__(self) -> str:
        found = ", ".join(f"{name} {count}" for name, count in sorted(self.guarantees.items()))
        numbers = f"{self.requests:>8} {self.late:>5} {self.writes:>6} {self.seconds:>8.1f} {self.unsure:>6}"
        return f"{self.name:44} {numbers} {self.failed:>6} {self.lost:>5} {self.unsaid:>6}  {found}"


def slow(races: int) -> int:
    """Print a row for each kind of slow race; 1 if anything was lost without a word."""
    kinds = [([r] * n, f"{n} of {r:g} s") for r in ROUND_TRIPS_S for n in (1, 2, 5, 20)]
    for n in (1, 4):
        kinds += [([r] * n + [0.0] * 4, f"{n} of {r:g} s, 4 of 30 ms") for r in ROUND_TRIPS_S]
    kinds += [([*ROUND_TRIPS_S], "one of each"), ([*ROUND_TRIPS_S] * 2 + [0.0] * 6, "two of each, 6 of 30 ms")]
    numbers = f"{'requests':>8} {'late':>5} {'writes':>6} {'seconds':>8} {'unsure':>6} {'failed':>6} {'lost':>5}"
    print(f"{f'each in {races} races':44} {numbers} {'unsaid':>6}  guarantees")
    unsaid = 0
    for etag, foreign in itertools.product((Etag.SENT, Etag.ENFORCED), (0, 2)):
        for round_trips, name in kinds:
            if foreign and (len(round_trips) not in (1, 5) or etag is Etag.ENFORCED):
                continue
            row = Row(name=name + f", {foreign} foreign" * bool(foreign) + ", enforced" * (etag is Etag.ENFORCED))
            for seed in range(races):
                row.add(Simulation(seed, round_trips, foreign, etag))
            print(row, flush=True)
            unsaid += row.unsaid
    print(f"{unsaid} lost without a word; requests, late tries, writes and seconds: the most that one session needed")
    return 1 if unsaid else 0


def main() -> int:
    """Run them all."""
    parser = argparse.ArgumentParser(description="Race attachers in simulated time.")
    parser.add_argument("--races", type=int)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--foreign", type=int, default=0)
    parser.add_argument("--slow", action="store_true", help="registries whose round trips take up to 10 s")
    options = parser.parse_args()
    if options.slow:
        return slow(options.races or 5)
    lost, writes, seconds = 0, [], []
    races = options.races or 200
    for seed in range(races):
        race = Simulation(seed, [0.0] * options.sessions, options.foreign)
        lost += len(race.run())
        for result in race.results.values():
            assert result.error is None, result.error
        writes.append(max(race.writes))
        seconds.append(max(race.ended.values()))
    seconds.sort()
    print(
        f"{races} races of {options.sessions} sessions and {options.foreign} foreign writers: {lost} lost; "
        f"at most {max(writes)} writes of one session; {seconds[len(seconds) // 2]:.1f} s in the middle, "
        f"{seconds[-1]:.1f} s at most"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
