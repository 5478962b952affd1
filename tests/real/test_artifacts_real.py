"""Artifacts into real registries, pulled by oras."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import TIMEOUT_S, regproto
from registries import Registry, running, tool

import regproto_sync
from regproto import Digest


@pytest.fixture(scope="module", params=["docker-registry", "registry"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Distribution 2.8 and v3."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


def oras(*arguments: object, folder: Path) -> str:
    command = [tool("oras"), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to push from, with a file, an empty one and a folder, and the working directory there."""
    folder = tmp_path / "content"
    (folder / "dir" / "sub").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"hello\n")
    (folder / "empty").write_bytes(b"")
    (folder / "dir" / "sub" / "é").write_bytes(b"x" * 100_000)
    (folder / "dir" / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "dir" / "run").chmod(0o755)
    (folder / "dir" / "link").symlink_to("sub/é")
    monkeypatch.chdir(folder)
    return folder


def test_oras_pulls_the_artifact(registry: Registry, repository: str, tmp_path: Path, content: Path) -> None:
    image = f"{registry.address}/{repository}:1.0"
    done = regproto(
        "push-artifact",
        image,
        "a.txt:text/plain",
        "empty",
        "dir",
        *("--artifact-type", "application/vnd.example.thing", "--annotation", "org.example.key=value"),
    )
    assert done.returncode == 0, done.stderr
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    oras("pull", "--plain-http", image, folder=pulled)
    assert files_in(pulled) == files_in(content)
    assert (pulled / "dir" / "run").stat().st_mode & 0o777 == 0o755
    assert (pulled / "dir" / "link").readlink() == Path("sub/é")
    manifest = json.loads(oras("manifest", "fetch", "--plain-http", image, folder=pulled))
    assert manifest["artifactType"] == "application/vnd.example.thing"
    assert manifest["annotations"] == {"org.example.key": "value"}
    assert manifest["layers"][0]["mediaType"] == "text/plain"


def test_manifest_has_the_form_that_oras_gives_it(registry: Registry, repository: str, content: Path) -> None:
    """All but the time of creation, and the tar of the folder, which is oras's own."""
    ours, theirs = f"{registry.address}/{repository}:ours", f"{registry.address}/{repository}:theirs"
    files = ["a.txt:text/plain", "empty", "dir"]
    regproto_sync.push_artifact(files, ours, artifact_type="application/x.y", annotations={"k": "v"})
    oras(
        *("push", "--plain-http", theirs, *files, "--artifact-type", "application/x.y", "--annotation", "k=v"),
        folder=content,
    )
    made, wanted = (
        json.loads(oras("manifest", "fetch", "--plain-http", image, folder=content)) for image in (ours, theirs)
    )
    del wanted["annotations"]["org.opencontainers.image.created"]
    for manifest in (made, wanted):
        folder = manifest["layers"][2]
        assert Digest(folder.pop("digest")) and folder.pop("size")
        assert Digest(folder["annotations"].pop("io.deis.oras.content.digest"))
    assert made == wanted
    assert list(made) == list(wanted)


def test_empty_artifact(registry: Registry, repository: str, content: Path) -> None:
    image = f"{registry.address}/{repository}:1.0"
    regproto_sync.push_artifact([], image, artifact_type="application/x.y")
    manifest = json.loads(oras("manifest", "fetch", "--plain-http", image, folder=content))
    assert manifest["layers"] == [manifest["config"]]
