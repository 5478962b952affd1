"""What one request costs the core, from 100 to 100,000 blobs, in one run.

The loop below is the smallest driver there is: every request is answered at once from a table. Its own cost is
measured with the core taken out (the same number of answers made and thrown away) and subtracted. The garbage collector
runs as it always does. Ends with 1 if a bound does not hold.

    python benchmarks/step_cost.py [--largest 100000]
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import sys
import time
import tracemalloc

from regproto import Blob, Config, Descriptor, Digest, Finished, Manifest, PushPlan, Response, Send, Session, Wait

LAYER = "application/vnd.oci.image.layer.v1.tar"
BOUND_US = 15.0
"""A request, at every size."""
FLAT = 2.0
"""The dearest size at most this many times the cheapest."""
SIZE = 300_000
"""Bytes a blob: too large to skip the HEAD, so each costs two requests, HEAD and single POST."""


def plan(blobs: int) -> PushPlan:
    """A push of this many blobs, in images of at most 1,000 layers under one repository."""
    made = [
        Blob(
            descriptor=Descriptor(
                media_type=LAYER,
                digest=Digest("sha256:" + hashlib.sha256(b"%d" % n).hexdigest()),
                size=SIZE if n % 1000 else 100,
            ),
            source=n,
        )
        for n in range(blobs)
    ]
    manifests = []
    for start in range(0, blobs, 1000):
        part = [
            {"mediaType": LAYER, "digest": b.descriptor.digest, "size": b.descriptor.size}
            for b in made[start : start + 1000]
        ]
        manifests.append(
            Manifest.of(
                json.dumps(
                    {
                        "schemaVersion": 2,
                        "mediaType": "application/vnd.oci.image.manifest.v1+json",
                        "config": part[0],
                        "layers": part[1:],
                    }
                ).encode()
            )
        )
    return PushPlan(repository="team/app", blobs=made, manifests=manifests)


HEADERS = (("Docker-Distribution-Api-Version", "registry/2.0"),)


def answers(send: Send) -> Response:
    """Absent, then created."""
    return Response(id=send.id, status=404 if send.method == "HEAD" else 201, headers=HEADERS)


def run(push: PushPlan) -> tuple[int, float]:
    """Requests, and seconds of processor time."""
    session = Session("https://registry.example", Config(max_body_bytes=10**9))
    waiting: list[Send] = []
    requests = 0
    started = time.process_time()
    session.submit(push)
    while True:
        match session.poll(0.0):
            case Send() as send:
                waiting.append(send)
                requests += 1
            case Wait():
                batch, waiting = waiting, []
                for send in batch:
                    session.receive(0.0, answers(send))
            case Finished(result=result):
                assert result.error is None, result.error
                return requests, time.process_time() - started


def driver_only(requests: int) -> float:
    """Seconds the loop itself takes for as many requests, without the core."""
    send = Send(id=1, method="HEAD", url="", headers=(), max_head_bytes=1, max_body_bytes=1)
    started = time.process_time()
    for _ in range(requests):
        answers(send)
    return time.process_time() - started


def cost_us(push: PushPlan, blobs: int) -> tuple[int, float]:
    """Requests of one run, and microseconds a request in the best of several (what else the machine does only adds)."""
    gc.collect()
    runs = [run(push) for _ in range(max(3, min(20, 20_000 // blobs)))]
    requests = runs[0][0]
    return requests, (min(seconds for _, seconds in runs) - driver_only(requests)) / requests * 1e6


def memory(push: PushPlan) -> int:
    """The most bytes the session holds at once, the plan not counted."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    run(push)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak


def main() -> None:
    """Print the table, and whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=100_000)
    largest = parser.parse_args().largest
    print(f"{'blobs':>8} {'requests':>9} {'us/request':>11} {'ratio':>6} {'bytes/blob':>11}")
    costs: list[float] = []
    blobs = 100
    while blobs <= largest:
        push = plan(blobs)
        requests, cost = cost_us(push, blobs)
        costs.append(cost)
        held = f"{memory(push) / blobs:11.0f}" if blobs <= 10_000 else f"{'-':>11}"
        print(f"{blobs:>8} {requests:>9} {cost:>11.2f} {cost / costs[0]:>6.2f} {held}")
        blobs *= 10
    highest, spread = max(costs), max(costs) / min(costs)
    holds = highest <= BOUND_US and spread <= FLAT
    print(
        f"highest {highest:.2f} us a request (at most {BOUND_US:g}), {spread:.2f} times the lowest (at most {FLAT:g})"
    )
    print("both bounds hold" if holds else "a bound does NOT hold")
    sys.exit(not holds)


if __name__ == "__main__":
    main()
