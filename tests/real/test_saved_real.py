"""Archives that are an OCI layout and docker's at once: skopeo pulls the layers of the config from real registries."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients import TIMEOUT_S, by_skopeo, regproto
from registries import Registry, running

from archives import OCI_LAYER, DockerSave, Saved, diff_ids, plain_layer
from regproto import Digest
from regproto._model.manifest import OCI_MANIFEST

TARS = [plain_layer(n) for n in range(3)]
ZSTD = b"\x28\xb5\x2f\xfd"


@pytest.fixture(scope="module", params=["docker-registry", "registry"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Distribution 2.8 and v3."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


def unpacked(layer: bytes) -> bytes:
    if layer[:4] == ZSTD:
        whole: bytes = pytest.importorskip("zstandard").ZstdDecompressor().decompress(layer)
        return whole
    return gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer


def in_another_order(path: Path) -> str:
    build = Saved()
    build.list(build.image(TARS, "app:1", order=(1, 0, 2)), "app:1")
    return str(build.write(path))


def compressed_in_another_order(path: Path) -> str:
    packed = [gzip.compress(layer, mtime=0) for layer in TARS]
    build = Saved()
    build.list(build.image(packed, ids=diff_ids(TARS), types=[f"{OCI_LAYER}+gzip"] * 3, order=(1, 0, 2)))
    return str(build.write(path))


def not_listed(path: Path) -> str:
    build = Saved()
    build.list(build.image(TARS[:1]))
    build.image(TARS)
    return f"{build.write(path)}:@1"


def one_platform(path: Path) -> str:
    build = Saved()
    here = build.image(TARS, "app:1")
    gone = build.without(build.json({"schemaVersion": 2}, OCI_MANIFEST))
    build.list(build.index([here, gone]), "app:1")
    return str(build.write(path))


def by_manifest_json(path: Path) -> str:
    return f"docker-archive:{one_platform(path)}"


def with_zstd(path: Path) -> str:
    pack = pytest.importorskip("zstandard").ZstdCompressor().compress
    build = DockerSave()
    build.image(TARS, pack=pack)
    return str(build.write(path))


MADE = [in_another_order, compressed_in_another_order, not_listed, one_platform, by_manifest_json, with_zstd]


@pytest.mark.parametrize("driver", ["sync", "trio"])
@pytest.mark.parametrize("make", MADE)
def test_skopeo_pulls_the_layers_of_the_config(
    registry: Registry, repository: str, tmp_path: Path, make: Callable[[Path], str], driver: str
) -> None:
    image = f"{registry.address}/{repository}:1.0"
    done = regproto("push", make(tmp_path / "image.tar"), image, "--driver", driver, "--verify")
    assert done.returncode == 0, done.stderr
    digest = done.stdout.strip().rpartition("@")[2]
    content = by_skopeo(image, tmp_path / "pulled", digest)
    manifest = json.loads(content[digest])
    layers = [unpacked(content[layer["digest"]]) for layer in manifest["layers"]]
    assert layers == TARS
    assert json.loads(content[manifest["config"]["digest"]])["rootfs"]["diff_ids"] == diff_ids(layers)


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_what_is_refused(registry: Registry, repository: str, tmp_path: Path, driver: str) -> None:
    image = f"{registry.address}/{repository}:1.0"
    sources = [f"oci-archive:{in_another_order(tmp_path / 'order.tar')}", not_listed(tmp_path / "two.tar")[:-3]]
    for name, layers, ids in (("none", [], diff_ids(TARS)), ("more", TARS, diff_ids(TARS[:1]))):
        build = Saved()
        build.list(build.image(layers, ids=ids))
        sources.append(str(build.write(tmp_path / f"{name}.tar", "index.json")))
    for source in sources:
        done = regproto("push", source, image, "--driver", driver)
        assert (done.returncode, done.stdout) == (1, ""), source


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_a_pipe_whose_maker_fails(registry: Registry, repository: str, tmp_path: Path, driver: str) -> None:
    whole = tmp_path / "whole.tar"
    whole.write_bytes(TARS[0])
    image = f"{registry.address}/{repository}:1.0"
    command = f"{sys.executable} -m regproto_sync push-image {image} - --driver {driver}"
    for maker, code in ((f"cat {whole}", 0), ("false", 1), (f"head -c 1000 {whole}", 1), (f"gzip -c {whole}", 1)):
        done = subprocess.run(["sh", "-c", f"{maker} | {command}"], capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == code, done.stderr
    digest = Digest(by_skopeo_tag(image, tmp_path / "pulled"))
    assert digest == Digest.of(TARS[0])


def by_skopeo_tag(image: str, folder: Path) -> str:
    """The digest of the tar of an image's only layer."""
    root = "sha256:" + "0" * 64
    content = by_skopeo(image, folder, root)
    [layer] = json.loads(content[root])["layers"]
    return str(Digest.of(unpacked(content[layer["digest"]])))
