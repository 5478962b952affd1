"""A stream of unknown size, compressed and pushed: resident memory and CPU of the process, beside gzip's own.

The stream comes from this process through a pipe, so what making it costs is counted nowhere; each registry is a
process of its own too. Compared are, over the same bytes in the same run and at the same level:

- `regproto push-layer - --compression gzip`, with each driver, to each registry;
- Python's zlib in a process that does nothing else;
- `gzip`.

    python benchmarks/stream_memory.py [--size 2000] [--level 6] [--registry registry ...] [--driver sync ...]

Exits with 1 if a push takes over 80 MB, or over 1.2 times the CPU of Python's zlib. `registry` is distribution v3,
looked for in $REGPROTO_TOOLS, .tools and the path, like `docker-registry` (2.8); without it that line is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MB: Final = 1_000_000
MEMORY_MAX_MB: Final = 80
CPU_MAX: Final = 1.2
BLOCK: Final = 16 * MB
"""Made once and sent again and again, each time from another offset: far over what gzip looks back on (32 kB)."""

ZLIB: Final = """
import sys, zlib
source, compressor = open(0, "rb", buffering=0), zlib.compressobj(int(sys.argv[1]), zlib.DEFLATED, 31)
block = memoryview(bytearray(262144))
while count := source.readinto(block):
    compressor.compress(block[:count])
compressor.flush()
"""


def text() -> bytes:
    """Words and numbers, as files of an image have them: gzip makes some 40 % of it."""
    random_ = random.Random(1)
    words = [random_.randbytes(random_.randrange(2, 9)).hex().encode() for _ in range(20_000)]
    parts = []
    size = 0
    while size < BLOCK:
        line = b" ".join(random_.choices(words, k=200)) + b"\n"
        parts.append(line)
        size += len(line)
    return b"".join(parts)[:BLOCK]


def measure(command: list[str], block: bytes, size: int, **environment: str) -> tuple[float, float, int]:
    """CPU seconds, seconds, and peak resident bytes of a command that is given the stream."""
    env = {**os.environ, **environment}
    begun = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env)
    assert process.stdin is not None
    view, left, offset, peak = memoryview(block), size, 0, 0
    try:
        while left:
            piece = view[offset : offset + left]
            process.stdin.write(piece)
            left -= len(piece)
            peak = peak_of(process.pid) or peak
            offset = (offset + 7_919) % (len(block) // 2)
        process.stdin.close()
    except BrokenPipeError:
        pass
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        peak = peak_of(process.pid) or peak
        time.sleep(0.05)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, time.monotonic() - begun, peak


def peak_of(pid: int) -> int:
    """The most a process ever had resident, in bytes; 0: it has ended.

    The number that comes with its exit will not do: it includes what this process had when it forked.
    """
    found = re.search(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def tool(name: str) -> str | None:
    """The path of a registry, if it is here."""
    folders = [os.environ.get("REGPROTO_TOOLS", ""), str(Path(__file__).parents[1] / ".tools"), *os.get_exec_path()]
    return shutil.which(name, path=os.pathsep.join(filter(None, folders)))


@contextmanager
def registry(kind: str, folder: Path) -> Iterator[str | None]:
    """The address of a registry in a process of its own; None if there is none of this kind."""
    if kind == "serve":
        command = [sys.executable, "-m", "regproto_sync", "serve", "--port", "0", "--dir", str(folder / "data")]
    else:
        path = tool(kind)
        if path is None:
            yield None
            return
        config = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": "127.0.0.1:0", "secret": "x"},
        }
        (folder / "config.yml").write_text(json.dumps(config))
        command = [path, "serve", str(folder / "config.yml")]
    log = folder / "log"
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        said = None
        while said is None and process.poll() is None:
            time.sleep(0.05)
            said = re.search(rb"(?:listening on |http://)(127\.0\.0\.1:[0-9]+)", log.read_bytes())
        if said is None:
            raise SystemExit(f"{kind} did not start: {log.read_text(errors='replace')}")
        yield said[1].decode()
    finally:
        process.kill()
        process.wait()


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2_000, metavar="MB")
    parser.add_argument("--level", type=int, default=6)
    parser.add_argument("--registry", action="append", choices=("serve", "registry", "docker-registry"))
    parser.add_argument("--driver", action="append", choices=("sync", "trio"))
    options = parser.parse_args()
    block, size, level = text(), options.size * MB, options.level
    heads = f"{'CPU s':>8} {'s':>8} {'resident MB':>12} {'of zlib':>8} {'of gzip':>8}"
    print(f"{f'{options.size} MB, level {level}':32} {heads}")
    zlib_s, whole_s, memory = measure([sys.executable, "-c", ZLIB, str(level)], block, size)
    print(f"{'Python zlib alone':32} {zlib_s:8.1f} {whole_s:8.1f} {memory / MB:12.0f} {1:8.2f} {'':8}", flush=True)
    gzip_s, whole_s, memory = measure(["gzip", f"-{level}"], block, size)
    ratio = gzip_s / zlib_s
    print(f"{f'gzip -{level}':32} {gzip_s:8.1f} {whole_s:8.1f} {memory / MB:12.0f} {ratio:8.2f} {1:8.2f}", flush=True)
    good = True
    for kind in options.registry or ("serve", "registry"):
        for driver in options.driver or ("sync", "trio"):
            with tempfile.TemporaryDirectory(prefix="stream-") as folder, registry(kind, Path(folder)) as address:
                if address is None:
                    print(f"{kind}: not here")
                    continue
                command = [sys.executable, "-m", "regproto_sync", "push-layer", "-", f"{address}/bench/stream"]
                command += ["--compression", "gzip", "--level", str(level), "--driver", driver, "--quiet"]
                command += ["--media-type", "text/plain"]  # what is fed is no tar
                cpu_s, whole_s, memory = measure(command, block, size)
            of_zlib, of_gzip = cpu_s / zlib_s, cpu_s / gzip_s
            good = good and memory <= MEMORY_MAX_MB * MB and of_zlib <= CPU_MAX
            name = f"push, {driver}, to {kind}"
            print(
                f"{name:32} {cpu_s:8.1f} {whole_s:8.1f} {memory / MB:12.0f} {of_zlib:8.2f} {of_gzip:8.2f}", flush=True
            )
    print("within" if good else "OVER", f"{MEMORY_MAX_MB} MB and {CPU_MAX} times Python's zlib")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
