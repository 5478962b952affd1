"""A push that is killed on the way, and the same command again: what it cost, and what came of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
from registries import Registry

PIECE: Final = 256 * 1024
TIMEOUT_S: Final = 600
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"


# --- what is pushed ---------------------------------------------------------------------------------------------


def large_layout(path: Path, size: int, seed: int = 0) -> str:
    """An OCI layout with one layer of `size` bytes, written a piece at a time; the layer's digest."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    hashed, piece, left = hashlib.sha256(), hashlib.shake_256(b"%d" % seed).digest(1_000_000), size
    with open(path / "layer", "wb") as file:
        while left:
            # Every piece is another one, so that one that is missing or doubled is found out.
            data = (b"%016d" % left + piece)[: min(left, len(piece))]
            file.write(data)
            hashed.update(data)
            left -= len(data)
    digest = hashed.hexdigest()
    (path / "layer").rename(blobs / digest)

    def put(content: bytes, media_type: str) -> dict[str, object]:
        name = hashlib.sha256(content).hexdigest()
        (blobs / name).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(content)}

    layer = {"mediaType": LAYER_TYPE, "digest": f"sha256:{digest}", "size": size}
    config = put(b"{}", CONFIG_TYPE)
    image = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [layer]}
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [put(json.dumps(image).encode(), MANIFEST_TYPE)],
    }
    (path / "index.json").write_text(json.dumps(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"sha256:{digest}"


# --- the line ---------------------------------------------------------------------------------------------------


class Line:
    """A slow line to a registry: lets through so many bytes a second, and counts what a client sends."""

    def __init__(self, target: tuple[str, int], bytes_per_s: float, round_trip_s: float = 0.0) -> None:
        self.target = target
        self.sent = 0
        self.requests = 0
        self.on_sent: Callable[[int], None] = lambda sent: None
        self._rate = bytes_per_s
        self._round_trip_s = round_trip_s
        self._free_at = 0.0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No further connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self.target) as registry:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            registry.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._copy_back, args=(registry, client), daemon=True)
            back.start()
            # What a client that was killed had sent still arrives, and then the end.
            with suppress(OSError):
                while data := client.recv(PIECE):
                    self._pass(len(data))
                    registry.sendall(data)
            with suppress(OSError):
                registry.shutdown(socket.SHUT_WR)
            back.join()

    def _copy_back(self, registry: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := registry.recv(PIECE):
                with self._lock:
                    self.requests += data.startswith(b"HTTP/1.1 ")
                if self._round_trip_s:
                    time.sleep(self._round_trip_s)
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)

    def _pass(self, size: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self._rate
            wait_s = self._free_at - now
            self.sent += size
            sent = self.sent
        self.on_sent(sent)
        if wait_s > 0.005:
            time.sleep(wait_s)


@contextmanager
def line(target: tuple[str, int], bytes_per_s: float, round_trip_s: float = 0.0) -> Iterator[Line]:
    """A running line to `target`."""
    slow = Line(target, bytes_per_s, round_trip_s)
    try:
        yield slow
    finally:
        slow.close()


# --- the crash --------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Crash:
    """What one crash cost."""

    first_bytes: int
    """Sent by the process that was killed, request heads included."""
    second_bytes: int
    resumed_bytes: int
    """What the second process was told to be there; 0: it began anew."""
    said: str
    """The line about it."""
    code: int
    exact: bool
    """What the registry gives back is what was pushed, and its tag leads there."""
    left: int
    """Files in the state directory at the end."""
    seconds: float

    def again_bytes(self, size: int) -> int:
        """What was sent more often than once."""
        return max(0, self.first_bytes + self.second_bytes - size)


_IN_CHUNKS: Final = """
import sys
from regproto import Config
from regproto_sync import push
from regproto_sync.cli.output import Output
config = Config(chunk_bytes=int(sys.argv[3]))
push(sys.argv[1], sys.argv[2], resume=True, config=config, on_notice=Output(json=False, quiet=False).notice)
"""


def command(layout: Path, reference: str, driver: str, chunk_bytes: int | None) -> list[str]:
    """The command that pushes; with another size of chunks, which it has no option for, what does the same."""
    if chunk_bytes is not None:
        return [sys.executable, "-c", _IN_CHUNKS, str(layout), reference, str(chunk_bytes)]
    return [sys.executable, "-m", "regproto_sync", "push", "--resume", "--driver", driver, str(layout), reference]


def crash(
    registry: Registry,
    layout: Path,
    digest: str,
    repository: str,
    *,
    at_bytes: int,
    bytes_per_s: float,
    driver: str = "sync",
    chunk_bytes: int | None = None,
) -> Crash:
    """Push, kill -9 when `at_bytes` have passed, and give the same command again."""
    state = layout.parent / f"state-{repository.replace('/', '-')}"
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    begun = time.monotonic()
    with line(registry.host_and_port, bytes_per_s) as slow:
        push = command(layout, f"{slow.address}/{repository}:1.0", driver, chunk_bytes)
        first = subprocess.Popen(push, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def kill(sent: int) -> None:
            if sent >= at_bytes:
                first.send_signal(signal.SIGKILL)

        slow.on_sent = kill
        first.wait(TIMEOUT_S)
        slow.on_sent = lambda sent: None
        before = slow.sent
        second = subprocess.run(push, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        # What the line still carried when the first was killed counts as its own.
        after = slow.sent
    found = re.search(r"^(sha256:\S+ (?:resumed|restarted|not resumed)\b.*)$", second.stderr, re.MULTILINE)
    resumed = re.search(r"resumed: ([0-9.]+) MB of", second.stderr)
    return Crash(
        first_bytes=before,
        second_bytes=after - before,
        resumed_bytes=int(float(resumed[1]) * 1e6) if resumed else 0,
        said=found[1] if found else "",
        code=second.returncode,
        exact=second.returncode == 0 and is_there(registry.address, repository, "1.0", digest),
        left=len([path for path in state.rglob("*") if path.is_file()]),
        seconds=time.monotonic() - begun,
    )


def is_there(address: str, repository: str, tag: str, digest: str) -> bool:
    """Whether the tag's manifest names this blob, and the blob's bytes have this digest."""

    def get(path: str) -> urllib.request.Request:
        return urllib.request.Request(f"http://{address}/v2/{repository}/{path}", headers={"Accept": MANIFEST_TYPE})

    with urllib.request.urlopen(get(f"manifests/{tag}"), timeout=TIMEOUT_S) as answer:
        if digest not in answer.read().decode():
            return False
    hashed = hashlib.sha256()
    with urllib.request.urlopen(get(f"blobs/{digest}"), timeout=TIMEOUT_S) as answer:
        while piece := answer.read(1 << 20):
            hashed.update(piece)
    return f"sha256:{hashed.hexdigest()}" == digest
