"""What the size of chunks costs and saves: requests and seconds of one large layer, and what a crash half way costs.

python benchmarks/chunks.py                 1 GB, 50 ms a round trip, 125 MB/s (1 Gbit/s)
python benchmarks/chunks.py --size 200 --kind docker-registry
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / part) for part in ("src", "tests", "tests/real")]

from crash_runs import crash, large_layout, line  # noqa: E402
from registries import Registry, running  # noqa: E402

from regproto import Config  # noqa: E402
from regproto_sync import push  # noqa: E402

MB, MIB = 1_000_000, 1024 * 1024
KINDS = {"fake": "regproto serve", "registry": "distribution v3", "docker-registry": "distribution 2.8"}
CHUNKS = (None, 256 * MIB, 64 * MIB, 16 * MIB, 4 * MIB)


def main() -> None:
    """Measure, and print one line for each size of chunks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1_000, help="MB (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=125, help="MB/s (default: %(default)s)")
    parser.add_argument("--round-trip", type=int, default=50, help="ms (default: %(default)s)")
    parser.add_argument("--kind", action="append", choices=KINDS, default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        layout = Path(folder) / "image"
        digest = large_layout(layout, options.size * MB)
        for kind in options.kind or KINDS:
            print(f"\n{KINDS[kind]}: {options.size} MB at {options.rate} MB/s, {options.round_trip} ms a round trip")
            print(f"{'chunks of':>12} {'requests':>9} {'seconds':>8} {'ratio':>6}   sent again after a crash half way")
            base = 0.0
            for chunk in CHUNKS:
                with tempfile.TemporaryDirectory() as data, running(kind, Path(data)) as registry:
                    requests, seconds = timed(registry, layout, chunk, options)
                with tempfile.TemporaryDirectory() as data, running(kind, Path(data)) as registry:
                    again = crashed(registry, layout, digest, chunk, options)
                base = base or seconds
                name = "the whole" if chunk is None else f"{chunk // MIB} MiB"
                print(
                    f"{name:>12} {requests:>9} {seconds:>8.1f} {seconds / base:>6.2f}   {again / MB:>6.1f} MB",
                    flush=True,
                )


def timed(registry: Registry, layout: Path, chunk: int | None, options: argparse.Namespace) -> tuple[int, float]:
    """Requests and seconds of one push over the slow line."""
    with line(registry.host_and_port, options.rate * MB, options.round_trip / 1000) as slow:
        begun = time.monotonic()
        result = push(layout, f"{slow.address}/bench/chunks:1", config=Config(chunk_bytes=chunk))
        return result.requests, time.monotonic() - begun


def crashed(registry: Registry, layout: Path, digest: str, chunk: int | None, options: argparse.Namespace) -> int:
    """Bytes that go twice if the process is killed half way."""
    size, rate = options.size * MB, options.rate * MB
    done = crash(registry, layout, digest, "bench/crash", at_bytes=size // 2, bytes_per_s=rate, chunk_bytes=chunk)
    assert done.exact, done
    for file in layout.parent.glob("state-*"):
        assert not [path for path in file.rglob("*") if path.is_file()]
    return done.again_bytes(size)


if __name__ == "__main__":
    main()
