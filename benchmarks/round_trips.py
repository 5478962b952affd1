"""Requests and round trips of clean pushes, counted against the fake registry without a network.

Every answer takes a second of simulated time, so the seconds are the round trips of the critical path.

    python benchmarks/round_trips.py
"""

from __future__ import annotations

import json

from regproto import Digest, Manifest, PushPlan, Session, plan_push
from regproto.testing import FakeRegistry, RegistryOptions, Simulation

BASE = "http://registry.localhost"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def described(content: bytes, media_type: str) -> dict[str, object]:
    """A descriptor in its JSON form."""
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content)}


def image(seed: int, layers: int, size: int) -> tuple[bytes, dict[Digest, bytes]]:
    """A manifest and its blobs."""
    config = b'{"image":%d}' % seed
    made = [(b"%d/%d " % (seed, n)).ljust(size, b".") for n in range(layers)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": described(config, CONFIG),
        "layers": [described(content, LAYER) for content in made],
    }
    return json.dumps(manifest).encode(), {Digest.of(content): content for content in (config, *made)}


def single() -> PushPlan:
    """A config and one layer of 100 kB."""
    return planned(*image(1, 1, 100_000))


def index() -> PushPlan:
    """An index of 4 images, each of 5 layers of 300 kB."""
    images = [image(seed, 5, 300_000) for seed in range(4)]
    root = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [described(content, IMAGE) for content, _ in images]}
    found = {digest: content for _, blobs in images for digest, content in blobs.items()}
    found |= {Digest.of(content): content for content, _ in images}
    return planned(json.dumps(root).encode(), found)


def planned(root: bytes, found: dict[Digest, bytes]) -> PushPlan:
    """The plan that pushes it as `team/app:1.0`."""
    manifest = Manifest.of(root)
    found = found | {manifest.descriptor.digest: root}
    return plan_push(
        "team/app",
        manifest.descriptor,
        read_manifest=lambda d: found.get(d.digest),
        find_content=lambda d: found.get(d.digest),
        tags=("1.0",),
    )


def count(push: PushPlan, registry: FakeRegistry) -> tuple[int, int, int]:
    """Requests, round trips, and connections (the most in flight at once)."""
    simulation = Simulation(Session(BASE), registry, latency_s=1.0)
    simulation.submit(push)
    connections = 0
    while not simulation.step():
        connections = max(connections, len(simulation.in_flight))
    (result,) = simulation.results.values()
    assert result.error is None, result.error
    return result.requests, round(simulation.now), connections


def main() -> None:
    """Print the table."""
    takes, ignores = RegistryOptions(), RegistryOptions(single_post=202)
    print(f"{'push':44} {'requests':>8} {'round trips':>11} {'connections':>11}")
    for name, push, options in (
        ("one layer; takes single POSTs", single(), takes),
        ("one layer; ignores them", single(), ignores),
        ("index of 4 x 5 x 300 kB; takes single POSTs", index(), takes),
        ("index of 4 x 5 x 300 kB; ignores them", index(), ignores),
    ):
        registry = FakeRegistry(options)
        for label in (name, "  again"):
            requests, trips, connections = count(push, registry)
            print(f"{label:44} {requests:8} {trips:11} {connections:11}")


if __name__ == "__main__":
    main()
