"""Requests of attaching one small file to an image that is there, counted against the fake registry without a network.

    python benchmarks/attach_requests.py

The look again, by which it is known that nobody overwrote the list, comes two seconds later and is counted by itself.
Exits 1 if it takes more than 5 requests with the referrers API, or 7 without it (beside the look), where the registry
takes a blob in a single POST. One that does not (distribution) costs one more for each of the two blobs.
"""

from __future__ import annotations

import json
import sys
from urllib.parse import urlsplit

from regproto import Blob, Descriptor, Digest, Manifest, PushPlan, ResolveReference, Session
from regproto.testing import FakeRegistry, RegistryOptions, Simulation

BASE = "http://registry.localhost"
REPOSITORY = "team/app"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
REGISTRIES = (
    ("with the referrers API", RegistryOptions(), 5),
    ("without it", RegistryOptions(referrers_api=False), 7),
    ("without it, and without single POSTs", RegistryOptions(referrers_api=False, single_post=202), 9),
)
"""Each with the most requests it may take."""


def described(content: bytes, media_type: str) -> dict[str, object]:
    """A descriptor in its JSON form."""
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content)}


def manifest(*layers: bytes, **fields: object) -> bytes:
    """A manifest of these, with an empty config."""
    described_layers = [described(layer, "application/spdx+json") for layer in layers]
    content = {"schemaVersion": 2, "mediaType": IMAGE, "config": described(b"{}", EMPTY), "layers": described_layers}
    return json.dumps({**content, **fields}).encode()


def attachment(subject: Descriptor) -> PushPlan:
    """The push of a small SBOM attached to an image."""
    sbom = b'{"spdxVersion": "SPDX-2.3"}'
    named = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}
    made = Manifest.of(manifest(sbom, artifactType="application/spdx+json", subject=named))
    contents = {Digest.of(content): content for content in (b"{}", sbom)}
    blobs = [Blob(descriptor=descriptor, source=contents[descriptor.digest]) for descriptor in made.names()]
    return PushPlan(repository=REPOSITORY, blobs=blobs, manifests=[made], root=made.descriptor.digest)


def main() -> int:
    """Print the requests; the exit code."""
    code = 0
    for how, options, most in REGISTRIES:
        registry = FakeRegistry(options)
        registry.put_blob(REPOSITORY, b"{}")
        registry.put_manifest(REPOSITORY, manifest(), "1.0")
        log: list[tuple[float, str]] = []
        simulation = Simulation(
            Session(BASE),
            registry,
            answer=lambda send: log.append((simulation.now, f"{send.method} {urlsplit(send.url).path}")),  # noqa: B023
        )
        simulation.run(PushPlan(repository=REPOSITORY, lookups=[ResolveReference(reference="1.0")]))
        (subject,) = simulation.results[1].found
        assert isinstance(subject, Descriptor)
        result = simulation.run(attachment(subject))
        assert result.error is None, result.error
        looks = sum(at > 0 for at, _ in log)
        requests = len(log) - looks
        guarantee = result.listed[0].guarantee.value
        print(f"{how}: {requests} requests, at most {most}; {looks} to look again; {log[-1][0]:.1f} s; {guarantee}")
        for at, line in log:
            print(f"  {at:4.1f} s  {line}")
        code |= requests > most
    return code


if __name__ == "__main__":
    sys.exit(main())
