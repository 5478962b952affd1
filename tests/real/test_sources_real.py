"""Every kind of source into real registries, and back with crane and skopeo, byte for byte."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import trio
from clients import TIMEOUT_S, Content, by_crane, by_http, by_skopeo, in_layout, regproto
from registries import Registry, running, tool

import regproto_sync
import regproto_trio
from archives import docker_save, layout_tar
from images import image_layout, platforms_layout, root_digest
from regproto import Blob, Descriptor, Digest
from regproto_sync import file_blob, image_of, open_source, plan_source

KB = 1_000
LAYER_TAR = '"application/vnd.docker.image.rootfs.diff.tar"'
LAYERS = [2 * KB, 300 * KB, 20 * KB, 2 * KB]


@pytest.fixture(scope="module", params=["docker-registry", "registry"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Distribution 2.8 and v3."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


def run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def push(source: object, image: str, *more: object, stdin: Path | None = None) -> str:
    """Run `regproto push`; the digest that it prints."""
    if stdin is None:
        done = regproto("push", source, image, *more)
        assert done.returncode == 0, done.stderr
        out = done.stdout
    else:
        with stdin.open("rb") as file:
            command = ["-m", "regproto_sync", "push", str(source), image, *map(str, more)]
            ran = subprocess.run([sys.executable, *command], stdin=file, capture_output=True, timeout=TIMEOUT_S)
        assert ran.returncode == 0, ran.stderr.decode()
        out = ran.stdout.decode()
    return out.strip().rpartition("@")[2]


def in_source(source: str) -> Content:
    """What a source should put into a registry: the plan's manifests and what its blobs read."""
    plan = plan_source(source, "registry.example/app").push
    content = {str(m.descriptor.digest): m.content for m in plan.manifests}
    for blob in plan.blobs:
        with blob.source.open() as stream:  # type: ignore[attr-defined]
            content[blob.descriptor.digest] = stream.read(blob.descriptor.size)
    return content


# --- OCI layouts ------------------------------------------------------------------------------------------------


def as_folder(layout: Path, _folder: Path) -> str:
    return f"oci:{layout}"


def as_tar(layout: Path, folder: Path) -> str:
    return str(layout_tar(layout, folder / "image.tar"))


def as_gzipped_tar(layout: Path, folder: Path) -> str:
    path = layout_tar(layout, folder / "image.tar")
    path.write_bytes(gzip.compress(path.read_bytes()))
    return f"oci-archive:{path}"


def by_skopeo_itself(layout: Path, folder: Path) -> str:
    run(tool("skopeo"), "copy", "--quiet", "--all", f"oci:{layout}", f"oci-archive:{folder}/image.tar:v1")
    return f"oci-archive:{folder}/image.tar:v1"


@pytest.mark.parametrize("make", [as_folder, as_tar, as_gzipped_tar, by_skopeo_itself])
@pytest.mark.parametrize("shape", ["image", "platforms"])
def test_oci_layouts(
    registry: Registry, repository: str, tmp_path: Path, make: Callable[[Path, Path], str], shape: str
) -> None:
    path = tmp_path / "layout"
    layout = image_layout(path, LAYERS) if shape == "image" else platforms_layout(path)
    image = f"{registry.address}/{repository}:1.0"
    digest = push(make(layout, tmp_path), image)
    assert digest == root_digest(layout)
    content = in_layout(layout)
    assert by_http(registry.address, repository, "1.0") == content
    assert by_crane(image, tmp_path / "crane") == content
    assert by_skopeo(image, tmp_path / "skopeo", digest) == content


# --- what docker save writes ------------------------------------------------------------------------------------


def docker_by_skopeo(image: str, path: Path) -> None:
    run(
        tool("skopeo"), "copy", "-q", "--src-tls-verify=false", f"docker://{image}", f"docker-archive:{path}:team/app:1"
    )


def docker_by_crane_legacy(image: str, path: Path) -> None:
    run(tool("crane"), "pull", "--format=legacy", image, path)


def docker_by_crane_tarball(image: str, path: Path) -> None:
    run(tool("crane"), "pull", "--format=tarball", image, path)


def docker_with_a_layout(image: str, path: Path) -> None:
    """The form of docker 25 and later: an OCI layout, and a manifest.json that names the same blobs."""
    folder = path.parent / "new"
    run(tool("crane"), "pull", "--format=oci", image, folder)
    index = json.loads((folder / "index.json").read_text())
    index["manifests"][0]["annotations"] = {
        "io.containerd.image.name": "docker.io/team/app:1",
        "org.opencontainers.image.ref.name": "1",
    }
    (folder / "index.json").write_text(json.dumps(index))
    manifest = json.loads((folder / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    layers = [f"blobs/sha256/{layer['digest'][7:]}" for layer in manifest["layers"]]
    entry = {"Config": f"blobs/sha256/{manifest['config']['digest'][7:]}", "RepoTags": ["team/app:1"], "Layers": layers}
    (folder / "manifest.json").write_text(json.dumps([entry]))
    layout_tar(folder, path)


def config_in(path: Path) -> bytes:
    """The config's bytes, by the standard library's reader."""
    with tarfile.open(path) as tar:
        entry: Any = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        file = tar.extractfile(entry[0]["Config"])
        assert file is not None
        return file.read()


@pytest.mark.parametrize(
    "make", [docker_by_skopeo, docker_by_crane_legacy, docker_by_crane_tarball, docker_with_a_layout]
)
def test_docker_archives(
    registry: Registry, repository: str, tmp_path: Path, make: Callable[[str, Path], None]
) -> None:
    layout = image_layout(tmp_path / "layout", LAYERS)
    first = f"{registry.address}/{repository}/first:1.0"
    push(layout, first)
    make(first, tmp_path / "image.tar")

    image = f"{registry.address}/{repository}/second:1.0"
    digest = push(f"docker-archive:{tmp_path}/image.tar", image)
    content = in_source(f"docker-archive:{tmp_path}/image.tar")
    assert by_http(registry.address, f"{repository}/second", "1.0") == content
    plain_layers = LAYER_TAR in content[digest].decode()
    assert plain_layers == (make in (docker_by_skopeo, docker_by_crane_legacy))
    assert by_crane(image, tmp_path / "crane", validate=not plain_layers) == content
    assert by_skopeo(image, tmp_path / "skopeo", digest) == content

    config = config_in(tmp_path / "image.tar")
    assert content[Digest.of(config)] == config, "byte for byte"
    diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    manifest = json.loads(content[digest])
    plain = [Digest.of(unpacked(content[layer["digest"]])) for layer in manifest["layers"]]
    assert plain == diff_ids == json.loads(in_layout(layout)[config_digest(layout)])["rootfs"]["diff_ids"]


def unpacked(layer: bytes) -> bytes:
    return gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer


def config_digest(layout: Path) -> str:
    found: str = json.loads(in_layout(layout)[root_digest(layout)])["config"]["digest"]
    return found


def test_docker_archive_of_several_images(registry: Registry, repository: str, tmp_path: Path) -> None:
    """crane writes several images into one archive; each is pushed by its name."""
    names = [f"{registry.address}/{repository}/first:{n}" for n in range(2)]
    for n, name in enumerate(names):
        push(image_layout(tmp_path / f"layout{n}", [2 * KB, 2 * KB], seed=n), name)
    archive = tmp_path / "image.tar"
    run(tool("crane"), "pull", "--format=tarball", *names, archive)
    for name in names:
        digest = push(f"docker-archive:{archive}:{name}", f"{registry.address}/{repository}/second:1.0")
        assert digest == open_source(f"{archive}:{name}").root.digest
    refused = regproto("push", archive, f"{registry.address}/{repository}/second:1.0")
    assert refused.returncode == 1
    assert all(name in refused.stderr for name in names)


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize("form", ["oci", "docker"])
def test_standard_input(
    registry: Registry, repository: str, tmp_path: Path, pack: Callable[[bytes], bytes], form: str
) -> None:
    archive = tmp_path / "image.tar"
    if form == "oci":
        layout_tar(image_layout(tmp_path / "layout", LAYERS), archive)
    else:
        docker_save(archive, 3)
    content = in_source(str(archive))
    archive.write_bytes(pack(archive.read_bytes()))
    image = f"{registry.address}/{repository}:1.0"
    digest = push("-", image, stdin=archive)
    assert by_crane(image, tmp_path / "crane", validate=form == "oci") == content
    assert by_skopeo(image, tmp_path / "skopeo", digest) == content


# --- an embedder's own ------------------------------------------------------------------------------------------


class Stored:
    """Content that describes itself, as an embedder may have it."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self.content, self.media_type = content, media_type

    def describe(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=Digest.of(self.content), size=len(self.content))

    def open(self, offset: int = 0) -> BinaryIO:
        return io.BytesIO(self.content[offset:])

    def check(self, stream: BinaryIO) -> None:
        """It never changes."""


def as_bytes(content: bytes, _media_type: str, _folder: Path) -> bytes:
    return content


def as_content_source(content: bytes, media_type: str, _folder: Path) -> Stored:
    return Stored(content, media_type)


def as_single_file(content: bytes, media_type: str, folder: Path) -> Blob:
    path = folder / Digest.of(content).hex
    path.write_bytes(content)
    return file_blob(path, media_type)


@pytest.mark.parametrize("make", [as_bytes, as_content_source, as_single_file])
@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_content_of_an_embedders_own(
    registry: Registry, repository: str, tmp_path: Path, make: Callable[[bytes, str, Path], Any], driver: str
) -> None:
    layout = image_layout(tmp_path / "layout", LAYERS)
    content = in_layout(layout)
    digest = root_digest(layout)
    manifest = json.loads(content[digest])
    named = [manifest["config"], *manifest["layers"]]
    source = image_of(content[digest], [make(content[d["digest"]], d["mediaType"], tmp_path) for d in named])
    image = f"{registry.address}/{repository}:1.0"
    result = regproto_sync.push(source, image) if driver == "sync" else trio.run(regproto_trio.push, source, image)
    assert result.digest == digest
    assert by_crane(image, tmp_path / "crane") == content
    assert by_skopeo(image, tmp_path / "skopeo", digest) == content


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_both_drivers_read_archives(registry: Registry, repository: str, tmp_path: Path, driver: str) -> None:
    layout = image_layout(tmp_path / "layout", [2 * KB, 5_000 * KB])
    archive = layout_tar(layout, tmp_path / "image.tar")
    push(archive, f"{registry.address}/{repository}:1.0", "--driver", driver)
    assert by_http(registry.address, repository, "1.0") == in_layout(layout)
