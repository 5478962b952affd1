"""What a push opens at a registry and gives back: many layers with two mount sources, of which the first has none.

    python benchmarks/open_sessions.py                       1,000 blobs, 6 places, simulated
    python benchmarks/open_sessions.py --places 12
    python benchmarks/open_sessions.py --sockets             600 layers, over loopback HTTP: about a minute and a half

Every answer takes a second (`--answer-s`). What is printed is how the push ended, the upload sessions that are left
open, the most that were open at once, and the requests by method. Exits 1 where a session is left open, or more than
twice the places were open at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import Any

import attrs

import regproto as r
from regproto.testing import FakeRegistry, RegistryOptions, RequestHead, Simulation

BASE = "http://registry.example"
REPOSITORY = "team/app"
SOURCES = ("base/empty", "base/full")
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@attrs.define
class Opened:
    """What came of one push."""

    result: r.PushResult
    requests: Counter[str]
    left: int
    """Upload sessions that are open at the registry at the end."""
    most: int
    """The most that were open at once."""
    took_s: float

    def __str__(self) -> str:
        asked = ", ".join(f"{count} {method}" for method, count in self.requests.most_common())
        return (
            f"{self.result.outcome.value} in {self.took_s:.0f} s: {len(self.result.mounted)} mounted, "
            f"{len(self.result.uploaded)} uploaded; {self.left} sessions left open, {self.most} at once at most; "
            f"{self.requests.total()} requests ({asked})"
        )


class Watched(FakeRegistry):
    """Counts its requests, and the sessions that are open after each of them."""

    def __init__(self, options: RegistryOptions | None = None) -> None:
        super().__init__(options)
        self.by_method: Counter[str] = Counter()
        self.most = 0

    def open(self, head: RequestHead, *arguments: Any, **more: Any) -> Any:
        """A request begins."""
        self.by_method[head.method] += 1
        exchange = super().open(head, *arguments, **more)
        finish = exchange.finish

        def finished() -> Any:
            reply = finish()
            self.most = max(self.most, len(self.sessions(REPOSITORY)))
            return reply

        exchange.finish = finished  # type: ignore[method-assign]
        return exchange


def plan(blobs: int, sources: tuple[str, ...] = SOURCES) -> r.PushPlan:
    """So many blobs, each of which may be mounted from these."""
    mount_from = tuple(r.MountSource(repository=source) for source in sources)
    contents = [b"layer %d" % number for number in range(blobs)]
    described = [r.Descriptor(media_type=LAYER, digest=r.Digest.of(c), size=len(c)) for c in contents]
    made = [r.Blob(descriptor=d, source=c, mount_from=mount_from) for d, c in zip(described, contents, strict=True)]
    return r.PushPlan(repository=REPOSITORY, blobs=made)


def filled(push: r.PushPlan, options: RegistryOptions | None = None, every: int = 1) -> Watched:
    """A registry in which the last source has every n-th of the blobs."""
    registry = Watched(options)
    for blob in push.blobs[::every]:
        assert isinstance(blob.source, bytes)
        registry.put_blob(SOURCES[-1], blob.source)
    return registry


def simulated(push: r.PushPlan, registry: Watched, config: r.Config, answer_s: float = 1.0) -> Opened:
    """Push in simulated time, every answer after so long."""
    simulation = Simulation(r.Session(BASE, config), registry, latency_s=answer_s)
    result = simulation.run(push)
    return Opened(result, registry.by_method, len(registry.sessions(REPOSITORY)), registry.most, simulation.now)


def on_sockets(push: r.PushPlan, registry: Watched, config: r.Config, answer_s: float = 1.0) -> Opened:
    """Push over loopback HTTP, with the blocking driver."""
    from regproto_sync import BytesContent, Driver, Server

    blobs = [attrs.evolve(b, source=BytesContent(b.source)) for b in push.blobs if isinstance(b.source, bytes)]
    push = attrs.evolve(push, blobs=blobs)
    begun = time.monotonic()
    with Server(registry, latency_s=answer_s) as server, Driver() as driver:
        session = r.Session(server.url, config, now=time.monotonic())
        push_id = session.submit(push)
        result = driver.run(session, [push_id], keychain=lambda need: r.NoCredentials(id=need.id))[push_id]
        with server.lock:
            left = len(registry.sessions(REPOSITORY))
    return Opened(result, registry.by_method, left, registry.most, time.monotonic() - begun)


def main() -> int:
    """Print what came of it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blobs", type=int, help="(default: 1000, or 600 on sockets)")
    parser.add_argument("--places", type=int, help="requests at a time (default: 6, or the core's own on sockets)")
    parser.add_argument("--answer-s", type=float, default=1.0)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="the second source has each Nth blob alone")
    parser.add_argument("--no-single-post", action="store_true", help="every upload takes a session")
    parser.add_argument("--no-mount", action="store_true", help="the registry mounts nothing, and opens a session")
    parser.add_argument("--sockets", action="store_true", help="over loopback HTTP, in real time")
    options = parser.parse_args()
    push = plan(options.blobs or (600 if options.sockets else 1_000))
    places = options.places or (r.Config().max_exchanges if options.sockets else 6)
    run = on_sockets if options.sockets else simulated
    switches = RegistryOptions(single_post=405 if options.no_single_post else 201, mount=not options.no_mount)
    opened = run(push, filled(push, switches, options.every), r.Config(max_exchanges=places), options.answer_s)
    print(f"{len(push.blobs)} blobs, {places} places, answers after {options.answer_s:g} s: {opened}")
    return 1 if opened.left or opened.most > 2 * places else 0


if __name__ == "__main__":
    sys.exit(main())
