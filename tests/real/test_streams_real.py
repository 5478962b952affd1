"""Layers made on their way, pushed into real registries and pulled by other clients: the same tars, byte for byte."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import attrs
import pytest
from clients import TIMEOUT_S, by_crane, by_http, by_skopeo, manifest_by_crane, regproto
from registries import Registry, tool
from relay import relay

import regproto_sync
from regproto import Config, RegprotoError
from regproto_sync import Layer, push_image, push_planned
from regproto_sync.sources.plans import plan_layer

MB = 1_000_000


def tar(seed: int, size: int) -> bytes:
    """A plain tar of about this size that compresses a little."""
    noise = random.Random(seed)
    content = b"".join(b"%d %s\n" % (n, noise.randbytes(20).hex().encode()) for n in range(size // 48))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        entry = tarfile.TarInfo(f"folder/file-{seed}")
        entry.size = len(content)
        made.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def plain(content: bytes) -> bytes:
    """A layer's tar."""
    if content[:2] == b"\x1f\x8b":
        return gzip.decompress(content)
    if content[:4] == b"\x28\xb5\x2f\xfd":
        zstandard = pytest.importorskip("zstandard")
        whole: bytes = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        return whole
    return content


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_a_streamed_image_is_what_everyone_reads(
    registry: Registry, repository: str, tmp_path: Path, driver: str
) -> None:
    tars = [tar(1, 12 * MB), tar(2, 1_000), tar(3, 3 * MB)]
    paths = [tmp_path / f"{n}.tar" for n in range(3)]
    for path, content in zip(paths, tars, strict=True):
        path.write_bytes(content)
    image = f"{registry.address}/{repository}:1.0"
    done = regproto("push-image", image, *paths, "--driver", driver, "--quiet")
    assert done.returncode == 0 and "ResourceWarning" not in done.stderr, done.stderr
    digest = done.stdout.strip().partition("@")[2]

    content = by_http(registry.address, repository, "1.0")
    manifest = json.loads(content[digest])
    layers = [layer["digest"] for layer in manifest["layers"]]
    assert [plain(content[layer]) for layer in layers] == tars
    config = json.loads(content[manifest["config"]["digest"]])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in tars]
    assert manifest_by_crane(image) == content[digest]
    # `crane validate` unpacks every layer and compares it with its diff_id.
    assert by_crane(image, tmp_path / "crane") == content
    assert by_skopeo(image, tmp_path / "skopeo", digest) == content


def test_from_standard_input(registry: Registry, repository: str, tmp_path: Path) -> None:
    content = tar(4, 5 * MB)
    image = f"{registry.address}/{repository}:1.0"
    layer = tmp_path / "layer.tar"
    layer.write_bytes(content)
    with layer.open("rb") as file:
        fed = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        command = [sys.executable, "-m", "regproto_sync", "push-image", image, "-", "--quiet"]
        subprocess.run(command, stdin=fed.stdout, timeout=TIMEOUT_S, check=True, stdout=subprocess.DEVNULL)
        assert fed.stdout is not None
        fed.stdout.close()
        fed.wait()
    made = by_crane(image, tmp_path / "crane")
    assert content in {plain(each) for each in made.values()}


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_other_compressions(registry: Registry, repository: str, tmp_path: Path, compression: str) -> None:
    if compression == "zstd":
        pytest.importorskip("zstandard")
    tars = [tar(5, 2 * MB), tar(6, 1_000)]
    layers = [Layer.stream(io.BytesIO(content), compression=compression) for content in tars]
    result = push_image({"architecture": "arm64"}, layers, f"{registry.address}/{repository}:1.0")
    content = by_skopeo(f"{registry.address}/{repository}:1.0", tmp_path / "skopeo", str(result.digest))
    manifest = json.loads(content[str(result.digest)])
    assert [plain(content[layer["digest"]]) for layer in manifest["layers"]] == tars


def test_what_docker_saves_compressed_on_its_way(registry: Registry, repository: str, tmp_path: Path) -> None:
    layers = [Layer.stream(io.BytesIO(tar(n, 2 * MB))) for n in (7, 8)]
    first = push_image({}, layers, f"{registry.address}/{repository}:1.0")
    saved = tmp_path / "saved.tar"
    source, target = f"docker://{registry.address}/{repository}:1.0", f"docker-archive:{saved}:x:1"
    subprocess.run(
        [tool("skopeo"), "copy", "--quiet", "--src-tls-verify=false", source, target], check=True, timeout=TIMEOUT_S
    )
    image = f"{registry.address}/{repository}:2.0"
    results = [
        regproto_sync.push(saved, image, compression="gzip", spool=spool, level=level)
        for spool, level in ((False, 6), (True, 6))
    ]
    assert results[0].digest == results[1].digest != first.digest
    # The layers are those of the image that was saved, made again.
    there = by_crane(image, tmp_path / "crane")
    manifest = json.loads(there[str(results[0].digest)])
    before = json.loads(by_http(registry.address, repository, "1.0")[str(first.digest)])
    assert [layer["digest"] for layer in manifest["layers"]] == [layer["digest"] for layer in before["layers"]]
    assert by_skopeo(image, tmp_path / "skopeo", str(results[0].digest)) == there


def test_by_ranges(registry: Registry, repository: str, tmp_path: Path) -> None:
    content = tar(9, 7 * MB)
    config = Config(chunk_bytes=1_000_000)
    result = push_image({}, [Layer.stream(io.BytesIO(content))], f"{registry.address}/{repository}:1.0", config=config)
    there = by_crane(f"{registry.address}/{repository}:1.0", tmp_path / "crane")
    manifest = json.loads(there[str(result.digest)])
    assert plain(there[manifest["layers"][0]["digest"]]) == content


def test_a_connection_that_breaks(registry: Registry, repository: str) -> None:
    content = tar(10, 30 * MB)
    quick = Config(backoff_base_s=0.01)
    if registry.kind == "registry":
        # What the sockets on the way hold may be lost with the connection, and that is more than the default keeps.
        quick = attrs.evolve(quick, stream_buffer_bytes=32 * MB)
    cuts: list[int] = []

    def cut(total: int) -> None:
        if total > 20 * MB and not cuts:
            cuts.append(total)
            raise ConnectionResetError

    with relay(registry.host_and_port, cut) as between:
        plan = plan_layer(Layer.stream(io.BytesIO(content), compression="none"), f"{between.address}/{repository}")
        [result] = push_planned([plan], config=quick)
    assert cuts
    if registry.kind == "docker-registry":
        # It loses an upload whose request was cut, and more was sent than is kept.
        assert isinstance(result.error, RegprotoError) and "can't be sent again" in str(result.error)
        assert "spool it to a file first" in str(result.error)
    elif registry.kind == "registry":
        # It has what it was sent, but for the end of it, and that is kept.
        assert result.error is None, result.error
        assert result.streamed[0].descriptor.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    else:
        assert result.error is None or "can't be sent again" in str(result.error)
