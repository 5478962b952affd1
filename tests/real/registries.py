"""Real registries on loopback, each a process of its own with its own folder and port.

Each is told to listen on port 0 and says which port it got, so no two can ever want the same one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

ROOT: Final = Path(__file__).parents[2]
READY_TRIES: Final = 500
"""20 ms each: a Go registry is there after five, a loaded machine may take two hundred."""

USER: Final = "tester"
PASSWORD: Final = "s3cret-for-tests"
_HTPASSWD: Final = f"{USER}:$2b$04$3d/z7MoDiUc9yvbP4j1kZOV7UHt.6XCt5uLj3aiLrX3z0pS2S0R12\n"

_TOOL_FOLDERS: Final = (
    *filter(None, [os.environ.get("REGPROTO_TOOLS")]),
    str(ROOT / ".tools"),
    *os.get_exec_path(),
    str(Path.home() / "go" / "bin"),
)


def tool(name: str) -> str:
    """The path of a tool that scripts/install-tools gets; without it the test is skipped, and fails in CI."""
    path = shutil.which(name, path=os.pathsep.join(_TOOL_FOLDERS))
    if path is None:
        how = f"{name} is not here: scripts/install-tools gets it"
        if os.environ.get("CI"):
            pytest.fail(how)
        pytest.skip(how)
    return path


@attrs.define
class Registry:
    """A running registry."""

    kind: str
    address: str
    """Host and port, as in a reference."""
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def stop(self) -> None:
        """Kill it at once, as a crash would; a second time does nothing."""
        self.process.kill()
        self.process.wait()


def _command(kind: str, folder: Path, *, password: bool, port: int) -> list[str]:
    data = str(folder / "data")
    match kind:
        case "docker-registry" | "registry":
            config: dict[str, object] = {
                "version": "0.1",
                "log": {"level": "info", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": data}, "delete": {"enabled": True}},
                "http": {"addr": f"127.0.0.1:{port}", "secret": "one for all tests"},
            }
            if password:
                users = folder / "htpasswd"
                users.write_text(_HTPASSWD)
                config["auth"] = {"htpasswd": {"realm": "tests", "path": str(users)}}
            # JSON is YAML, which is what the registry reads.
            (folder / "config.yml").write_text(json.dumps(config))
            return [tool(kind), "serve", str(folder / "config.yml")]
        case "ggcr-registry":
            return [tool(kind), f"127.0.0.1:{port}"]
        case "fake":
            return [sys.executable, "-m", "regproto_sync", "serve", "--port", str(port), "--dir", data]
        case _:
            raise ValueError(kind)


@contextmanager
def running(kind: str, folder: Path, *, password: bool = False, port: int = 0) -> Iterator[Registry]:
    """Start a registry and stop it at the end.

    Args:
        kind: `docker-registry` (distribution 2.8), `registry` (distribution v3), `ggcr-registry` or `fake`.
        folder: an empty folder for its configuration, data and log.
        password: ask for `USER` and `PASSWORD` by Basic authentication; distribution only.
        port: that of a registry that was stopped, to come back where it was.
    """
    command = _command(kind, folder, password=password, port=port)
    env = {**os.environ, "OTEL_TRACES_EXPORTER": "none", "PYTHONUNBUFFERED": "1"}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
    registry = Registry(kind=kind, address="", process=process, log=log)
    try:
        registry.address = _wait_until_ready(registry)
        yield registry
    finally:
        registry.stop()


def _wait_until_ready(registry: Registry) -> str:
    for _ in range(READY_TRIES):
        said = re.search(rb"(?:listening on |http://)(127\.0\.0\.1:[0-9]+)", registry.log.read_bytes())
        if said is not None and _answers(address := said[1].decode()):
            return address
        if registry.process.poll() is not None:
            break
        time.sleep(0.02)
    pytest.fail(f"{registry.kind} did not start:\n{registry.log.read_text(errors='replace')}")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=5):
            return True
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code == 401
    except OSError:
        return False
