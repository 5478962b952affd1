"""Races of many attachers in simulated time, on the fake registry without the referrers API.

    python benchmarks/simulated_races.py [--races 200] [--sessions 20] [--foreign 0]

Every request takes effect some milliseconds after it was sent, and is answered some later; a few take long, but no
write longer than the deadline. Foreign writers read, write 5 to 450 ms later, and never look. Prints what was lost (of
what sessions attached), and the most writes and the longest time any session needed. What is proven, and not only
tried, is in scripts/explore-referrers.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import sys
from collections.abc import Callable

from regproto import Config, Digest, Finished, Manifest, Push, Response, Send, Session, Wait
from regproto.testing import FakeRegistry, RegistryOptions, Request

BASE = "http://registry.localhost"
REPOSITORY = "team/app"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}
SUBJECT = Digest.of(b"subject")
TAG = f"sha256-{SUBJECT.hex}"


def attachment(number: int) -> Manifest:
    """One attachment of the subject."""
    subject = {"mediaType": IMAGE, "digest": SUBJECT, "size": 7}
    fields = {"schemaVersion": 2, "mediaType": IMAGE, "artifactType": "a/b", "config": EMPTY, "layers": [EMPTY]}
    return Manifest.of(json.dumps({**fields, "subject": subject, "annotations": {"n": str(number)}}).encode())


class Simulation:
    """One race."""

    def __init__(self, seed: int, sessions: int, foreign: int) -> None:
        self.random = random.Random(seed)
        self.registry = FakeRegistry(RegistryOptions(referrers_api=False, sparse_indexes=True))
        self.registry.put_blob(REPOSITORY, b"{}")
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = itertools.count()
        self.writes = [0] * sessions
        self.ended: dict[int, float] = {}
        self.told: list[Digest] = []
        for number in range(sessions):
            session = Session(BASE, Config(), seed=self.random.getrandbits(60))
            made = attachment(number)
            absent = [named.digest for named in made.names()]
            session.submit(Push(repository=REPOSITORY, manifests=[made], root=made.descriptor.digest, absent=absent))
            self.at(self.random.random() * 0.2, lambda now, n=number, s=session: self.poll(now, n, s))  # type: ignore[misc]
        for number in range(foreign):
            self.at(self.random.random() * 4.0, lambda now, n=number: self.foreign(now, 1_000 + n))  # type: ignore[misc]

    def at(self, when: float, what: Callable[[float], None]) -> None:
        """Have something happen."""
        heapq.heappush(self.events, (when, next(self.order), what))

    def run(self) -> int:
        """Until nothing happens any more: how many attachments were lost although they were told to be listed."""
        while self.events:
            now, _, what = heapq.heappop(self.events)
            what(now)
        listed = self.registry.referrers(REPOSITORY, SUBJECT)
        return sum(digest not in listed for digest in self.told)

    def poll(self, now: float, number: int, session: Session) -> None:
        """Do what a session asks for."""
        while True:
            match session.poll(now):
                case Send() as send:
                    takes = self.random.uniform(0.002, 0.05)
                    if self.random.random() < 0.02:
                        takes = self.random.uniform(0.05, 1.4)
                    self.writes[number] += send.method == "PUT" and send.url.endswith(TAG)
                    self.at(now + takes, lambda when, s=send: self.effect(when, number, session, s))  # type: ignore[misc]
                case Finished(result=result):
                    assert result.error is None, result.error
                    assert result.digest is not None
                    self.told.append(result.digest)
                    self.ended[number] = now
                case Wait(until=until):
                    if until < float("inf"):
                        self.at(max(until, now + 1e-6), lambda when: self.poll(when, number, session))
                    return

    def effect(self, now: float, number: int, session: Session, send: Send) -> None:
        """A request takes effect."""
        assert isinstance(send.body, bytes)
        reply = self.registry.handle(Request.to(send.method, send.url, send.headers, send.body))
        body = b"" if send.method == "HEAD" else reply.content
        answer = Response(id=send.id, status=reply.status, headers=reply.headers, body=body)

        def answered(when: float) -> None:
            session.receive(when, answer)
            self.poll(when, number, session)

        self.at(now + self.random.uniform(0.001, 0.03), answered)

    def foreign(self, now: float, number: int) -> None:
        """Somebody else reads the list, and writes it a while later."""
        listed = list(self.registry.referrers(REPOSITORY, SUBJECT).values())
        made = attachment(number)
        entry = {"mediaType": IMAGE, "digest": made.descriptor.digest, "size": made.descriptor.size}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed, entry]}

        def write(when: float) -> None:
            self.registry.put_manifest(REPOSITORY, made.content)
            self.registry.put_manifest(REPOSITORY, json.dumps(index).encode(), TAG)

        self.at(now + self.random.uniform(0.005, 0.45), write)


def main() -> int:
    """Run them all."""
    parser = argparse.ArgumentParser(description="Race attachers in simulated time.")
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--foreign", type=int, default=0)
    options = parser.parse_args()
    lost, writes, seconds = 0, [], []
    for seed in range(options.races):
        race = Simulation(seed, options.sessions, options.foreign)
        lost += race.run()
        writes.append(max(race.writes))
        seconds.append(max(race.ended.values()))
    seconds.sort()
    print(
        f"{options.races} races of {options.sessions} sessions and {options.foreign} foreign writers: {lost} lost; "
        f"at most {max(writes)} writes of one session; {seconds[len(seconds) // 2]:.1f} s in the middle, "
        f"{seconds[-1]:.1f} s at most"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
