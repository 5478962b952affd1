"""Many attachers of one subject at once, and what the list has in it afterwards. Used by scripts/race-attach too."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from registries import Registry
from relay import Relay, relay

import regproto_sync
import regproto_trio
from images import image_layout
from regproto import Session, registry_url

SBOM: Final = "application/spdx+json"
TIMEOUT_S: Final = 170

_CHILD: Final = """\
import sys
from regproto_sync import attach, docker_keychain
from regproto_sync.cli.main import main
print("ready", flush=True)
sys.stdin.readline()
sys.exit(main(sys.argv[1:]))
"""
"""The command, held back when everything is imported: what races is the attaching, not the starting."""


@attrs.frozen(kw_only=True)
class Race:
    """How one race went."""

    attachers: int
    listed: int
    """How many attachments the list has..."""
    complete: int
    """...and how many of them with their type and annotations."""
    writes: int
    """PUTs of the list."""
    seconds: float

    @property
    def lost(self) -> int:
        """Attachments that are not listed, or not whole."""
        return self.attachers - self.complete

    def __str__(self) -> str:
        return (
            f"{self.listed} of {self.attachers} listed, {self.complete} complete, "
            f"{self.writes} list writes, {self.seconds:.1f} s"
        )


def subject(registry: Registry, repository: str, folder: Path) -> str:
    """Push an image to attach to; its digest."""
    layout = image_layout(folder / "subject", [1_000])
    digest = regproto_sync.push(layout, f"{registry.address}/{repository}:1.0").digest
    assert digest is not None
    return str(digest)


def entries(address: str, repository: str, digest: str) -> list[dict[str, Any]]:
    """The list as anybody reads it: the API if there is one, else the tag."""
    for path in (f"referrers/{digest}", f"manifests/{digest.replace(':', '-')}"):
        request = urllib.request.Request(f"http://{address}/v2/{repository}/{path}")
        request.add_header("Accept", "application/vnd.oci.image.index.v1+json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found: list[dict[str, Any]] = json.loads(answer.read())["manifests"]
                return found
        except urllib.error.HTTPError as error:
            error.close()
            assert error.code == 404, error.code
    return []


def race(registry: Registry, how: str, attachers: int, repository: str, folder: Path) -> Race:
    """Attach this many files to one new subject at once, in one of `WAYS`."""
    folder.mkdir(parents=True)
    digest = subject(registry, repository, folder)
    files = []
    for number in range(attachers):
        files.append(folder / f"sbom-{number}.json")
        files[-1].write_text(json.dumps({"number": number}))
    with relay(registry.host_and_port) as between:
        begun = time.monotonic()
        WAYS[how](between, f"{between.address}/{repository}@{digest}", files)
        seconds = time.monotonic() - begun
        tag = digest.replace(":", "-")
        writes = sum(
            line.startswith("PUT ") and line.split()[1].endswith(f"/manifests/{tag}") for line in between.requests
        )
    found = entries(registry.address, repository, digest)
    whole = [e for e in found if e.get("artifactType") == SBOM and e.get("annotations", {}).get("by") == how]
    return Race(attachers=attachers, listed=len(found), complete=len(whole), writes=writes, seconds=seconds)


# --- the ways ---------------------------------------------------------------------------------------------------


def _processes(between: Relay, reference: str, files: list[Path]) -> None:
    options = ["--quiet", "--artifact-type", SBOM, "-a", "by=processes"]
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _CHILD, "attach", reference, str(file), *options],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for file in files
    ]
    try:
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            _, said = child.communicate(timeout=TIMEOUT_S)
            assert child.returncode == 0, said
    finally:
        for child in children:
            child.kill()
            child.wait()


def _threads(between: Relay, reference: str, files: list[Path]) -> None:
    failures: list[BaseException] = []
    together = threading.Barrier(len(files))

    def attach(file: Path) -> None:
        try:
            together.wait(TIMEOUT_S)
            regproto_sync.attach(reference, [file], artifact_type=SBOM, annotations={"by": "threads"})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=attach, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def _tasks(between: Relay, reference: str, files: list[Path]) -> None:
    plans = [
        regproto_sync.plan_attach(reference, [file], artifact_type=SBOM, annotations={"by": "tasks"}) for file in files
    ]

    async def run() -> None:
        session = Session(registry_url(between.address), now=trio.current_time())
        keychain = regproto_sync.static_keychain("nobody", "needed")

        async def attach(attaching: regproto_sync.Attaching) -> None:
            (found,) = (await driver.push(attaching.question)).found
            await driver.push(attaching.push(found)[0])

        async with regproto_trio.drive(session, keychain=keychain) as driver:
            async with trio.open_nursery() as nursery:
                for plan in plans:
                    nursery.start_soon(attach, plan)

    trio.run(run)


def _command(between: Relay, reference: str, files: list[Path]) -> None:
    options = ["--each", "--quiet", "--artifact-type", SBOM, "-a", "by=command"]
    command = [sys.executable, "-m", "regproto_sync", "attach", reference, *map(str, files), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(files)


WAYS: Final[dict[str, Callable[[Relay, str, list[Path]], None]]] = {
    "processes": _processes,
    "threads": _threads,
    "tasks": _tasks,
    "command": _command,
}
"""20 processes; 20 threads, each with a session of its own; 20 tasks in one trio session; one command with --each."""
