"""No network and no clock: a thousand images pushed to a fake registry in simulated time.

    python examples/simulate.py [--pushes 1000] [--latency-ms 20] [--mbit 100]

All pushes go through one session at once. A request takes a round trip, and its body the time that the line needs if
the bodies go one after the other. What is printed is how long the pushes would have taken, and how long it took to find
out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import regproto as r
from regproto.testing import FakeRegistry, Simulation

BASE = "http://registry.example"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def image(number: int) -> r.PushPlan:
    """An image of a base layer that all share and one of its own."""
    contents = [b"config %d" % number, bytes(200_000), b"own %d" % number * 5_000]
    blobs = [
        r.Blob(descriptor=r.Descriptor(media_type=LAYER, digest=r.Digest.of(c), size=len(c)), source=c)
        for c in contents
    ]
    named = [{"mediaType": LAYER, "digest": b.descriptor.digest, "size": b.descriptor.size} for b in blobs]
    fields = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    manifest = r.Manifest.of(json.dumps({**fields, "config": named[0], "layers": named[1:]}).encode())
    tags = (f"{number}.0",)
    return r.PushPlan(
        repository="team/app", blobs=tuple(blobs), manifests=(manifest,), root=manifest.descriptor.digest, tags=tags
    )


def simulate(pushes: Iterator[r.PushPlan], latency_s: float, bytes_per_s: float) -> tuple[float, FakeRegistry]:
    """The simulated seconds until all are pushed, and the registry they are in."""
    simulation = Simulation(r.Session(BASE), latency_s=latency_s, bytes_per_s=bytes_per_s)
    simulation.run(*pushes)
    for result in simulation.results.values():
        assert result.outcome is r.PushOutcome.PUSHED, result.error
    return simulation.now, simulation.registry


def main() -> None:
    parser = argparse.ArgumentParser(description="Push images to a fake registry in simulated time.")
    parser.add_argument("--pushes", type=int, default=1_000)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--mbit", type=float, default=100.0)
    options = parser.parse_args()
    begun = time.perf_counter()
    took, registry = simulate(map(image, range(options.pushes)), options.latency_ms / 1e3, options.mbit * 1e6 / 8)
    spent = time.perf_counter() - begun
    tags = len(registry.tags("team/app"))
    megabytes = registry.bytes_received / 1e6
    print(
        f"{tags} pushes, {registry.requests} requests, {megabytes:.1f} MB: {took:.1f} s simulated, {spent:.1f} s spent"
    )


if __name__ == "__main__":
    main()
