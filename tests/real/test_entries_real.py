"""The calls beside `push` against real registries, and what crane then reads there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import TIMEOUT_S, by_crane, by_http, in_layout, regproto
from registries import Registry, running, tool
from relay import relay

import regproto_sync
from archives import docker_save
from images import blob_path, image_layout, layers_of, platforms_layout, root_digest
from regproto import Digest, RegistryError
from regproto_sync import bytes_blob

KB = 1_000
LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(scope="module", params=["docker-registry", "registry"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Distribution 2.8 and v3."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


def crane(*arguments: object) -> str:
    done = subprocess.run([tool("crane"), *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_layer_and_manifest_one_by_one(registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [2 * KB, 300 * KB])
    digest = root_digest(layout)
    image = f"{registry.address}/{repository}"
    manifest = blob_path(layout, digest).read_bytes()
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
        regproto_sync.put_manifest(manifest, f"{image}:1.0")
    for blob, content in in_layout(layout).items():
        if blob != digest:
            assert regproto_sync.push_layer(bytes_blob(content, LAYER), image).uploaded == (blob,)
    assert regproto_sync.put_manifest(manifest, f"{image}:1.0").digest == digest
    assert by_crane(f"{image}:1.0", tmp_path / "crane") == in_layout(layout)


def test_layer_of_no_bytes(registry: Registry, repository: str) -> None:
    empty = bytes_blob(b"", LAYER)
    image = f"{registry.address}/{repository}"
    assert regproto_sync.push_layer(empty, image).uploaded == (Digest.of(b""),)
    assert regproto_sync.push_layer(empty, image).outcome.value == "pushed"


@pytest.mark.parametrize("make", [image_layout, platforms_layout])
def test_tags_for_what_is_there(registry: Registry, repository: str, tmp_path: Path, make: object) -> None:
    layout = make(tmp_path / "layout")  # type: ignore[operator]
    with relay(registry.host_and_port) as between:
        image = f"{between.address}/{repository}"
        regproto_sync.push(layout, f"{image}:1.0")
        before = len(between.requests)
        done = regproto("tag", f"{image}:1.0", "1", "2", "latest")
        assert (done.returncode, done.stdout) == (0, f"{image}@{root_digest(layout)}\n"), done.stderr
        asked = between.requests[before:]
    assert sorted(crane("ls", f"{registry.address}/{repository}").split()) == ["1", "1.0", "2", "latest"]
    for tag in ("1", "2", "latest"):
        assert crane("digest", f"{registry.address}/{repository}:{tag}").strip() == root_digest(layout)
    # One GET and one HEAD; neither registry takes tags as parameters, so the try at that and one PUT each.
    assert len(asked) == 6 and not [line for line in asked if "/blobs/" in line]


def test_three_tags_ask_a_registry_that_has_no_tag_parameters_no_more_than_alone(
    registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = image_layout(tmp_path / "layout", [2 * KB])
    with relay(registry.host_and_port) as between:
        regproto_sync.push(layout, f"{between.address}/{repository}:1.0", tags=["1", "latest"])
        about_tags = [line for line in between.requests if "/manifests/" in line]
    assert len(about_tags) == 5, about_tags
    assert by_http(registry.address, repository, "latest") == in_layout(layout)


def test_several_references_in_one_push(registry: Registry, repository: str, tmp_path: Path) -> None:
    base = image_layout(tmp_path / "base", [200 * KB])
    more = image_layout(tmp_path / "more", [200 * KB, 3 * KB])
    archive = docker_save(tmp_path / "image.tar")
    with relay(registry.host_and_port) as between:
        image = f"{between.address}/{repository}"
        results = regproto_sync.push_many(
            [(base, f"{image}/app:1"), (more, f"{image}/app:2"), (archive, f"{image}/b:1")]
        )
        (shared,) = layers_of(base, root_digest(base))
        commits = [line for line in between.requests if line.startswith("PUT") and shared.hex in line]
    assert [result.digest for result in results[:2]] == [root_digest(base), root_digest(more)]
    assert len(commits) == 1, commits
    for name, reference, layout in (("app", "1", base), ("app", "2", more)):
        assert by_http(registry.address, f"{repository}/{name}", reference) == in_layout(layout)
