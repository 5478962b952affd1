"""Layers that are made while they are pushed: compression, images of them, spooling, and the command."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from calls import calling
from regproto import ContentError, Digest, LocalProtocolError, PushOutcome, RegistryError
from regproto._model.manifest import DOCKER_MANIFEST, OCI_MANIFEST
from regproto.testing import FakeRegistry, Fault, FaultKind, RegistryOptions, When
from regproto_sync import Layer, Server, SourceNotFound
from regproto_sync.cli.main import main
from regproto_sync.sources import compress as compress

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
REPO = "team/app"


@pytest.fixture(autouse=True)
def spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    path = tmp_path / "spools"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


def tar(seed: int, size: int = 100_000) -> bytes:
    """A plain tar that compresses."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        entry = tarfile.TarInfo(f"file-{seed}")
        entry.size = size
        made.addfile(entry, io.BytesIO((b"%d " % seed) * (size // 2 + 1)))
    return out.getvalue()


def reference(server: Server, name: str = "1.0") -> str:
    return f"127.0.0.1:{server.port}/{REPO}:{name}"


def manifest_of(registry: FakeRegistry, digest: Digest | None) -> dict[str, Any]:
    assert digest is not None
    found: dict[str, Any] = json.loads(registry.content(digest))
    return found


# --- compression --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_same_input_makes_the_same_bytes(compression: str) -> None:
    if compression == "zstd":
        pytest.importorskip("zstandard")
    content = tar(1)
    made = [_made(content, compression, level) for level in (None, None, 1)]
    assert made[0] == made[1] != made[2]


def _made(content: bytes, compression: str, level: int | None) -> bytes:
    from regproto_sync.sources.stream import CompressedStream

    return b"".join(CompressedStream(io.BytesIO(content), compression, level))


def test_gzip_tells_no_name_and_no_time() -> None:
    made = _made(tar(1), "gzip", None)
    # RFC 1952, 2.3: no flags, and MTIME 0.
    assert made[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
    assert gzip.decompress(made) == tar(1)


def test_zstd() -> None:
    zstandard = pytest.importorskip("zstandard")
    made = _made(tar(1), "zstd", 5)
    assert zstandard.ZstdDecompressor().decompressobj().decompress(made) == tar(1)
    assert compress.compression_of(made) == "zstd"


def test_zstd_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(compress.CompressionUnavailable, match=r"pip install 'regproto\[zstd\]'"):
        Layer.stream(io.BytesIO(b""), compression="zstd").content()


def test_the_standard_librarys_zstd_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        class ZstdCompressor:
            def __init__(self, level: int) -> None:
                self.level = level

            def compress(self, data: bytes) -> bytes:
                return b""

            def flush(self) -> bytes:
                return b"level %d" % self.level

    monkeypatch.setitem(sys.modules, "compression", Module)
    monkeypatch.setitem(sys.modules, "compression.zstd", Module)
    assert _made(b"x", "zstd", None) == b"level 3"


@pytest.mark.parametrize(
    ("compression", "level"), [("lzma", None), ("gzip", 10), ("gzip", -1), ("zstd", 0), ("none", 1)]
)
def test_what_there_is_not(compression: str, level: int | None) -> None:
    with pytest.raises(LocalProtocolError):
        Layer.stream(io.BytesIO(b""), compression=compression, level=level)


# --- images -------------------------------------------------------------------------------------------------


def test_an_image(driver: str, registry: FakeRegistry, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(tar(1))
    layers = [Layer.stream(path), Layer.stream(io.BytesIO(tar(2)), compression="none")]
    config = {"config": {"Cmd": ["/bin/sh"]}, "architecture": "arm64", "rootfs": "ignored"}
    result = calling(driver, "push_image")(config, layers, reference(server), tags=["2.0"])
    manifest = manifest_of(registry, result.digest)
    assert manifest["mediaType"] == OCI_MANIFEST
    assert [layer["mediaType"] for layer in manifest["layers"]] == [GZIP, GZIP.removesuffix("+gzip")]
    first, second = (registry.content(Digest(layer["digest"])) for layer in manifest["layers"])
    assert gzip.decompress(first) == tar(1) and second == tar(2)
    made = json.loads(registry.content(Digest(manifest["config"]["digest"])))
    assert made == {
        "architecture": "arm64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(tar(1)), Digest.of(tar(2))]},
    }
    assert registry.tags(REPO) == {"1.0": result.digest, "2.0": result.digest}


def test_spooled_it_is_the_same_image(driver: str, registry: FakeRegistry, server: Server, spools: Path) -> None:
    def layers() -> list[Layer]:
        return [Layer.stream(io.BytesIO(tar(n))) for n in range(3)]

    push_image = calling(driver, "push_image")
    streamed = push_image({}, layers(), reference(server))
    registry.log.clear()
    spooled = push_image({}, layers(), reference(server), spool=True)
    assert spooled.digest == streamed.digest and spooled.streamed == ()
    assert list(registry.log) == [("HEAD", f"/v2/{REPO}/manifests/1.0", 200)]
    del spooled
    assert os.listdir(spools) == []


def test_what_is_spooled_can_be_sent_again(driver: str, spools: Path) -> None:
    fault = Fault(kind=FaultKind.DROP, when=When.IN_BODY, path="blobs/uploads", method="P.*", after_bytes=1)
    registry = FakeRegistry(RegistryOptions(faults=(fault,), lost_sessions=True, single_post=202))
    with Server(registry) as server:
        layers = [Layer.stream(io.BytesIO(tar(1)))]
        result = calling(driver, "push_image")({}, layers, reference(server), spool=True)
    assert result.outcome is PushOutcome.PUSHED


def test_no_layers_at_all(driver: str, registry: FakeRegistry, server: Server) -> None:
    result = calling(driver, "push_image")({}, [], reference(server))
    assert manifest_of(registry, result.digest)["layers"] == []


def test_a_layer_alone(driver: str, registry: FakeRegistry, server: Server) -> None:
    push_layer = calling(driver, "push_layer")
    where = f"127.0.0.1:{server.port}/{REPO}"
    result = push_layer(Layer.stream(io.BytesIO(tar(1)), media_type="a/b"), where)
    [made] = result.streamed
    assert made.descriptor.media_type == "a/b" and result.uploaded == (made.descriptor.digest,)
    assert gzip.decompress(registry.content(made.descriptor.digest)) == tar(1)
    again = push_layer(Layer.stream(io.BytesIO(tar(1))), where, spool=True)
    assert again.existing == (made.descriptor.digest,) or again.uploaded == (made.descriptor.digest,)


def test_what_can_not_be(driver: str, server: Server, tmp_path: Path) -> None:
    push_image = calling(driver, "push_image")
    with pytest.raises(SourceNotFound):
        Layer.stream(tmp_path / "nowhere")
    with pytest.raises(ContentError, match="not known beforehand"):
        push_image({}, [], f"127.0.0.1/x@{Digest.of(b'')}")
    with pytest.raises(ContentError, match="can't be JSON"):
        push_image({"x": b""}, [], reference(server))
    with pytest.raises(ContentError, match="is gzip already"):
        push_image({}, [Layer.stream(io.BytesIO(gzip.compress(b"")))], reference(server))
    with pytest.raises(ContentError, match="the layer: is gzip already"):
        push_image({}, [Layer.stream(io.BytesIO(gzip.compress(b"")))], reference(server), spool=True)
    with pytest.raises(ContentError, match="media type"):
        Layer.stream(io.BytesIO(b""), media_type="no")


def test_a_refusal(driver: str) -> None:
    with Server(FakeRegistry(RegistryOptions(create_repositories=False))) as server:
        with pytest.raises(RegistryError, match="NAME_UNKNOWN"):
            calling(driver, "push_image")({}, [Layer.stream(io.BytesIO(tar(1)))], reference(server))


# --- docker archives ----------------------------------------------------------------------------------------


def docker_archive(path: Path, *layers: bytes) -> Path:
    """What docker save wrote before it had OCI layouts."""
    plain = [gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer for layer in layers]
    diff_ids = [Digest.of(content) for content in plain]
    config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}, indent=1).encode()
    names = [f"{n}/layer.tar" for n in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as made:
        files = {"manifest.json": manifest, "config.json": config, **dict(zip(names, layers, strict=True))}
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("spool", [False, True])
def test_the_plain_layers_of_an_archive(
    driver: str, spool: bool, registry: FakeRegistry, server: Server, tmp_path: Path
) -> None:
    there_already = gzip.compress(tar(3), mtime=0)
    source = docker_archive(tmp_path / "saved.tar", tar(1), there_already, tar(2))
    push = calling(driver, "push")
    result = push(source, reference(server), compression="gzip", level=9, spool=spool)
    manifest = manifest_of(registry, result.digest)
    assert manifest["mediaType"] == DOCKER_MANIFEST
    found = [registry.content(Digest(layer["digest"])) for layer in manifest["layers"]]
    assert [gzip.decompress(content) for content in found] == [tar(1), tar(3), tar(2)]
    assert found[1] == there_already
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}
    with tarfile.open(source) as archive:
        config = archive.extractfile("config.json")
        assert config is not None and registry.content(Digest(manifest["config"]["digest"])) == config.read()
    assert len(result.streamed) == (0 if spool else 2)


def test_zstd_makes_an_oci_image(driver: str, registry: FakeRegistry, server: Server, tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    source = docker_archive(tmp_path / "saved.tar", tar(1))
    result = calling(driver, "push")(source, reference(server), compression="zstd")
    manifest = manifest_of(registry, result.digest)
    assert manifest["mediaType"] == OCI_MANIFEST and manifest["layers"][0]["mediaType"] == ZSTD


def test_an_archive_without_a_plain_layer(driver: str, registry: FakeRegistry, server: Server, tmp_path: Path) -> None:
    source = docker_archive(tmp_path / "saved.tar", gzip.compress(tar(1)))
    push = calling(driver, "push")
    results = [push(source, reference(server), compression=how) for how in (None, "gzip", "none")]
    assert len({result.digest for result in results}) == 1


def test_a_layer_that_changed_since(registry: FakeRegistry, server: Server, tmp_path: Path) -> None:
    from regproto_sync import push_planned
    from regproto_sync.sources.source import plan_source

    source = docker_archive(tmp_path / "saved.tar", tar(1))
    planned = plan_source(source, reference(server), compression="gzip")
    times = source.stat()
    content = source.read_bytes()
    source.write_bytes(content.replace(b"1 1 1 1 ", b"1 1 1 2 ", 1))
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    [result] = push_planned([planned])
    assert "layer 0 has changed since it was read" in str(result.error)
    assert registry.tags(REPO) == {}


def test_other_sources_stay_as_they_are(driver: str, server: Server, tmp_path: Path) -> None:
    from images import image_layout

    push = calling(driver, "push")
    with pytest.raises(ContentError, match="only those of a docker archive"):
        push(image_layout(tmp_path / "layout"), reference(server), compression="gzip")
    with pytest.raises(LocalProtocolError, match="choose one"):
        push(image_layout(tmp_path / "layout2"), reference(server), spool=True)


# --- the command --------------------------------------------------------------------------------------------


def run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "regproto_sync", *arguments]
    return subprocess.run(command, input=given, capture_output=True, timeout=60)


def test_push_layer_from_standard_input(driver: str, registry: FakeRegistry, server: Server) -> None:
    where = f"127.0.0.1:{server.port}/{REPO}"
    done = run("push-layer", "-", where, "--compression", "gzip", "--driver", driver, "--json", given=tar(1))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    digest = Digest(result["streamed"][0]["descriptor"]["digest"])
    assert gzip.decompress(registry.content(digest)) == tar(1)
    assert result["reference"] == f"{where}@{digest}"
    plain = run("push-layer", "-", where, "--media-type", "a/b", "--spool", "--driver", driver, given=tar(2))
    assert plain.stdout.decode() == f"{where}@{Digest.of(tar(2))}\n"


def test_push_image(driver: str, registry: FakeRegistry, server: Server, tmp_path: Path) -> None:
    (tmp_path / "one.tar").write_bytes(tar(1))
    (tmp_path / "config.json").write_text('{"config": {"User": "me"}}')
    name = reference(server)
    more = ["--config", str(tmp_path / "config.json"), "-t", "2.0", "--driver", driver]
    done = run("push-image", name, str(tmp_path / "one.tar"), "-", *more, given=tar(2))
    assert done.returncode == 0, done.stderr
    assert set(registry.tags(REPO)) == {"1.0", "2.0"}
    manifest = manifest_of(registry, registry.tags(REPO)["1.0"])
    assert len(manifest["layers"]) == 2
    assert json.loads(registry.content(Digest(manifest["config"]["digest"])))["config"] == {"User": "me"}
    assert b"layer-0 uploaded" in done.stderr


def test_push_with_compression(server: Server, registry: FakeRegistry, tmp_path: Path) -> None:
    source = docker_archive(tmp_path / "saved.tar", tar(1))
    digests = {
        run("push", str(source), reference(server), "--compression", "gzip", "--quiet", *more).stdout
        for more in ((), ("--spool",), ("--driver", "trio"))
    }
    assert len(digests) == 1 and b"@sha256:" in digests.pop()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["push", "x", "localhost/y", "--level", "1"], "go with --compression"),
        (["push", "x", "localhost/y", "--spool"], "go with --compression"),
        (["push-layer", "x", "localhost/y", "--spool"], "go with --compression"),
        (["push-layer", "x", "localhost/y", "--media-type", "a/b"], "write FILE:MEDIA_TYPE"),
        (["push-layer", "nowhere", "localhost/y", "--compression", "gzip"], "nowhere: no such file"),
        (["push-layer", "-", "localhost/y", "--media-type", "ab"], "is not a media type"),
        (["push-layer", "-", "localhost/y", "--level", "1"], "none has the levels 0 to 0"),
        (["push-layer", "-", "localhost/y", "--username", "x", "--password-stdin"], "both the password and a layer"),
        (["push-image", "localhost/y", "-", "-"], "only one layer"),
        (["push-image", "localhost/y", "nowhere"], "nowhere: no such file"),
        (["push-image", "localhost/y", "-", "--level", "10"], "gzip has the levels 0 to 9"),
        (["push-image", "localhost/y", "-", "--config", "nowhere"], "nowhere: No such file"),
        (["push-image", "localhost/y", "-", "--config", __file__], "is not JSON"),
    ],
)
def test_misuse(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_a_config_that_is_no_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("[]")
    assert main(["push-image", "localhost/y", "-", "--config", str(tmp_path / "config.json")]) == 2
    assert "is not a JSON object" in capsys.readouterr().err


# --- memory -------------------------------------------------------------------------------------------------

FEED = """
import sys, tarfile
block, left = (b"".join(b"%d words " % (n * n) for n in range(200_000)))[:1_000_000], int(sys.argv[1])
entry = tarfile.TarInfo("words")
entry.size = left
sys.stdout.buffer.write(entry.tobuf())
while left > 0:
    sys.stdout.buffer.write(block)
    left -= len(block)
sys.stdout.buffer.write(bytes(1024))
"""
PEAK = """
import re, sys
from regproto_sync.cli.main import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1])
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_flat(driver: str, tmp_path: Path) -> None:
    size = 200_000_000
    kept = hashlib.sha256()
    registry = [sys.executable, "-m", "regproto_sync", "serve", "--port", "0", "--dir", str(tmp_path / "data")]
    with subprocess.Popen(registry, stderr=subprocess.PIPE) as serving:
        try:
            assert serving.stderr is not None
            address = serving.stderr.readline().decode().partition("http://")[2].partition(";")[0]
            feed = subprocess.Popen([sys.executable, "-c", FEED, str(size)], stdout=subprocess.PIPE)
            more = ["--compression", "gzip", "--level", "1", "--driver", driver]
            command = [sys.executable, "-c", PEAK, "push-layer", "-", f"{address}/{REPO}", *more, "--quiet"]
            done = subprocess.run(command, stdin=feed.stdout, stdout=subprocess.PIPE, timeout=120)
            assert feed.stdout is not None
            feed.stdout.close()
            assert feed.wait() == 0 and done.returncode == 0
        finally:
            serving.terminate()
    name, peak_kb = done.stdout.decode().split()
    with gzip.open(tmp_path / "data" / "blobs" / "sha256" / name.rpartition(":")[2]) as stored:
        while piece := stored.read(1 << 20):
            kept.update(piece)
    block = b"".join(b"%d words " % (n * n) for n in range(200_000))[:1_000_000]
    entry = tarfile.TarInfo("words")
    entry.size = size
    fed = hashlib.sha256(entry.tobuf() + block * (size // len(block)) + bytes(1024))
    assert kept.hexdigest() == fed.hexdigest()
    assert int(peak_kb) * 1024 <= 80_000_000
