"""Layers and configs that belong together, of every source; archives that are an OCI layout and docker's at once."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import regproto_sync
import regproto_trio
from archives import OCI_LAYER, DockerSave, Json, Saved, diff_ids, path_of, plain_layer
from regproto import ContentError, Digest, PushPlan, PushResult
from regproto._model.manifest import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST
from regproto.testing import FakeRegistry
from regproto_sync import Server, image_of
from regproto_sync.sources.source import plan_source

FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
IN_TOTO = "application/vnd.in-toto+json"
TARS = [plain_layer(n) for n in range(3)]


def plan(source: Any, **options: Any) -> PushPlan:
    return plan_source(source, "registry.example/app:1", **options).push


# --- index.json and manifest.json -------------------------------------------------------------------------------


def made_layers(push: PushPlan) -> tuple[str, list[str]]:
    """The root's media type, and the digests of its layers."""
    [manifest] = push.manifests
    return manifest.info.media_type, [str(layer.digest) for layer in manifest.info.layers]


def test_both_agree(tmp_path: Path) -> None:
    build = Saved()
    root = build.list(build.image(TARS, "app:1"), "app:1")
    path = build.write(tmp_path / "image.tar")
    for name in ("", ":app:1", ":1", ":docker.io/library/app:1", ":@0"):
        assert plan(f"{path}{name}").root == root["digest"]
    assert made_layers(plan(f"docker-archive:{path}")) == (DOCKER_MANIFEST, diff_ids(TARS))
    assert plan(f"oci-archive:{path}").root == root["digest"]


def test_layers_in_another_order(tmp_path: Path) -> None:
    """As docker 25.0.0 saved: the layout's manifest has the layers in another order than manifest.json and config."""
    build = Saved()
    build.list(build.image(TARS, "app:1", order=(2, 0, 1)), "app:1")
    path = build.write(tmp_path / "image.tar")
    for source in (path, f"{path}:app:1", f"{path}:@0", f"docker-archive:{path}"):
        assert made_layers(plan(source)) == (DOCKER_MANIFEST, diff_ids(TARS))
    with pytest.raises(ContentError, match="layer 0 is not the one.*in another order than in the config"):
        plan(f"oci-archive:{path}")


def test_compressed_layers_in_another_order(tmp_path: Path) -> None:
    packed = [gzip.compress(layer, mtime=0) for layer in TARS]
    build = Saved()
    build.list(build.image(packed, ids=diff_ids(TARS), types=[f"{OCI_LAYER}+gzip"] * 3, order=(1, 0, 2)))
    path = build.write(tmp_path / "image.tar")
    assert made_layers(plan(path)) == (DOCKER_MANIFEST, diff_ids(packed))
    with pytest.raises(ContentError, match="in another order"):
        plan(f"oci-archive:{path}", verify=True)


def test_one_of_two_images_is_listed(tmp_path: Path) -> None:
    build = Saved()
    first = build.list(build.image(TARS[:1]))
    build.image(TARS[1:])
    path = build.write(tmp_path / "image.tar")
    with pytest.raises(ContentError, match=r"disagree about which images.*index\.json has 1.*manifest\.json 2.*@N"):
        plan(path)
    assert plan(f"{path}:@0").root == first["digest"]
    assert made_layers(plan(f"{path}:@1")) == (DOCKER_MANIFEST, diff_ids(TARS[1:]))
    with pytest.raises(ContentError, match="has 2 images, so there is no '@2'"):
        plan(f"{path}:@2")
    with pytest.raises(ContentError, match="SOURCE:@N"):
        plan(f"docker-archive:{path}")
    assert made_layers(plan(f"docker-archive:{path}:@1")) == (DOCKER_MANIFEST, diff_ids(TARS[1:]))


def test_one_of_two_images_is_saved(tmp_path: Path) -> None:
    build = Saved()
    build.list(build.image(TARS[:1], "app:1"), "app:1")
    second = build.list(build.image(TARS[1:], saved=False), "app:2")
    path = build.write(tmp_path / "image.tar")
    with pytest.raises(ContentError, match=r"index\.json has 2 \(.*app:1.*app:2\), manifest\.json 1 \(app:1\)"):
        plan(path)
    assert plan(f"{path}:app:2").root == second["digest"]
    with pytest.raises(ContentError, match=r"there are: app:1, docker\.io/library/app:2"):
        plan(f"{path}:app:3")


def test_one_name_for_two_images(tmp_path: Path) -> None:
    build = Saved()
    build.list(build.image(TARS[:1], "app:1"), "app:2")
    build.list(build.image(TARS[1:], "app:2"), "app:1")
    path = build.write(tmp_path / "image.tar")
    with pytest.raises(ContentError, match="disagree about which image 'app:1' is"):
        plan(f"{path}:app:1")
    with pytest.raises(ContentError, match="has 2 images; choose one"):
        plan(path)


def test_no_images_and_two_of_the_same_name(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="have no image"):
        plan(Saved().write(tmp_path / "empty.tar"))
    build = Saved()
    for layer in TARS[:2]:
        build.list(build.image([layer], "app:1"), "app:1")
    with pytest.raises(ContentError, match="2 different images are named 'app:1'"):
        plan(f"{build.write(tmp_path / 'image.tar')}:app:1")


def test_one_platform_of_an_index(tmp_path: Path) -> None:
    """As docker saves with containerd's store what it pulled: the whole index, of which one platform is there."""
    build = Saved()
    here = build.image(TARS, "app:1")
    gone = [build.without(build.json({"schemaVersion": 2, "n": n}, OCI_MANIFEST)) for n in range(2)]
    build.list(build.index([gone[0], here, gone[1]]), "app:1")
    path = build.write(tmp_path / "image.tar")
    for source in (path, f"{path}:app:1", f"{path}:@0"):
        assert plan(source).root == here["digest"]
    assert made_layers(plan(f"docker-archive:{path}")) == (DOCKER_MANIFEST, diff_ids(TARS))
    with pytest.raises(ContentError, match="which is not in the source"):
        plan(f"oci-archive:{path}")
    assert len(plan(path, sparse=True).skipped) == 2


def test_layers_of_the_other_platforms_are_gone(tmp_path: Path) -> None:
    build = Saved()
    here = build.image(TARS[:1], "app:1")
    other = build.image(TARS[1:], saved=False)
    build.list(build.index([here, other]), "app:1")
    whole = build.write(tmp_path / "whole.tar")
    assert plan(whole).root == build.listed[0]["digest"]
    build.without(build.blob(TARS[2], OCI_LAYER))
    assert plan(build.write(tmp_path / "part.tar")).root == here["digest"]


def test_an_index_whose_image_has_other_layers(tmp_path: Path) -> None:
    packed = [gzip.compress(layer, mtime=0) for layer in TARS]
    build = Saved()
    image = build.image(packed, ids=diff_ids(TARS), types=[f"{OCI_LAYER}+gzip"] * 3, order=(1, 0, 2))
    build.list(build.index([image]))
    path = build.write(tmp_path / "image.tar")
    with pytest.raises(ContentError, match="disagree about the layers"):
        plan(path)
    build.list(build.index([image, build.without(build.json({"gone": 1}, OCI_MANIFEST))]))
    del build.listed[0]
    assert made_layers(plan(build.write(path))) == (DOCKER_MANIFEST, diff_ids(packed))


def test_several_platforms_are_one_image(tmp_path: Path) -> None:
    build = Saved()
    build.list(build.index([build.image([layer], "app:1") for layer in TARS]), "app:1")
    path = build.write(tmp_path / "image.tar")
    assert plan(path).root == build.listed[0]["digest"]


def test_manifest_json_of_another_kind(tmp_path: Path) -> None:
    build = Saved()
    root = build.list(build.image(TARS))
    build.saved = {"not": "docker's"}  # type: ignore[assignment]
    path = build.write(tmp_path / "image.tar")
    with pytest.raises(ContentError, match="must be a list"):
        plan(path)
    assert plan(f"oci-archive:{path}").root == root["digest"]


# --- docker archives --------------------------------------------------------------------------------------------


def packed_by_zstd(content: bytes) -> bytes:
    packed: bytes = pytest.importorskip("zstandard").ZstdCompressor().compress(content)
    return packed


def test_a_layer_that_is_zstd(tmp_path: Path) -> None:
    build = DockerSave()
    build.image([TARS[0]], pack=packed_by_zstd)
    build.image([TARS[1]], pack=gzip.compress)
    build.image([TARS[2]])
    merged = {
        "rootfs": {"type": "layers", "diff_ids": diff_ids(TARS)},
        "os": "linux",
    }
    build.members["config.json"] = json.dumps(merged).encode()
    layers = [entry["Layers"][0] for entry in build.entries]
    build.entries = [{"Config": "config.json", "RepoTags": None, "Layers": layers}]
    push = plan(build.write(tmp_path / "image.tar"), verify=True)
    [manifest] = push.manifests
    assert manifest.info.media_type == OCI_MANIFEST and manifest.info.config is not None
    assert manifest.info.config.media_type == OCI_CONFIG
    assert [layer.media_type for layer in manifest.info.layers] == [f"{OCI_LAYER}+zstd", f"{OCI_LAYER}+gzip", OCI_LAYER]


def test_a_zstd_layer_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = DockerSave()
    build.image([TARS[0]], pack=lambda layer: packed_by_zstd(layer)[:-5])
    with pytest.raises(ContentError, match="zstd in it has no end"):
        plan(build.write(tmp_path / "image.tar"))
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ContentError, match="zstd needs the package"):
        plan(tmp_path / "image.tar")


@pytest.mark.parametrize("kind", ["xz", "bzip2"])
def test_a_layer_that_no_image_can_have(tmp_path: Path, kind: str) -> None:
    build = DockerSave()
    build.image([TARS[0]], pack=lzma.compress if kind == "xz" else bz2.compress)
    with pytest.raises(ContentError, match=f"is {kind}, which no image's layer can be"):
        plan(build.write(tmp_path / "image.tar"))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_zstd_layer_and_others_that_are_compressed_on_their_way(tmp_path: Path, compression: str) -> None:
    build = DockerSave()
    build.image([TARS[0]], pack=packed_by_zstd)
    build.members["config.json"] = json.dumps({"rootfs": {"type": "layers", "diff_ids": diff_ids(TARS[:2])}}).encode()
    build.members["plain.tar"] = TARS[1]
    build.entries = [{"Config": "config.json", "Layers": [*build.entries[0]["Layers"], "plain.tar"]}]
    path = build.write(tmp_path / "image.tar")
    registry = FakeRegistry()
    with Server(registry) as server:
        results = [
            regproto_sync.push(path, f"127.0.0.1:{server.port}/app:1", compression=compression, spool=spool)
            for spool in (False, True)
        ]
    assert results[0].digest == results[1].digest is not None
    manifest = json.loads(registry.content(results[0].digest))  # type: ignore[arg-type]
    types = [layer["mediaType"] for layer in manifest["layers"]]
    assert (manifest["mediaType"], types) == (OCI_MANIFEST, [f"{OCI_LAYER}+zstd", f"{OCI_LAYER}+{compression}"])


# --- every source -------------------------------------------------------------------------------------------------


def in_folder(build: Saved, path: Path) -> str:
    for name, content in build.blobs.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": build.listed}))
    return f"oci:{path}"


def in_tar(build: Saved, path: Path) -> str:
    return f"oci-archive:{build.write(path.with_suffix('.tar'), 'index.json')}"


def in_saved_tar(build: Saved, path: Path) -> str:
    return str(build.write(path.with_suffix(".tar")))


def in_memory(build: Saved, _path: Path) -> Any:
    root = build.blobs[path_of(build.listed[0])]
    manifests = [content for content in build.blobs.values() if b'"manifests"' in content or b'"layers": [' in content]
    return image_of(root, list(build.blobs.values()), children=manifests)


SOURCES: list[Callable[[Saved, Path], Any]] = [in_folder, in_tar, in_memory]


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("below", ["root", "index"])
@pytest.mark.parametrize(
    ("image", "says"),
    [
        ({"layers": [], "ids": diff_ids(TARS)}, "has 0 layers, but its config has 3 diff_ids"),
        ({"layers": TARS[:2], "ids": diff_ids(TARS)}, "has 2 layers, but its config has 3 diff_ids"),
        ({"layers": TARS, "ids": diff_ids(TARS[:2])}, "has 3 layers, but its config has 2 diff_ids"),
        ({"layers": TARS, "ids": []}, "has 3 layers, but its config has 0 diff_ids"),
        ({"layers": TARS[:1], "config": {"rootfs": {"type": "layers", "diff_ids": None}}}, "but its config has 0"),
        ({"layers": TARS, "ids": diff_ids(TARS)[::-1]}, "layer 0 is not .* in another order"),
        ({"layers": TARS, "ids": [*diff_ids(TARS)[:2], "sha256:" + "0" * 64]}, "layer 2 is not .* the image is broken"),
        ({"layers": TARS, "ids": ["x", 1, None]}, "layer 0 is not the one .* should be x"),
        ({"layers": TARS[:2], "ids": diff_ids(TARS[1::-1]), "types": [DOCKER_LAYER, FOREIGN]}, "in another order"),
        ({"layers": [b"{}"], "ids": [], "types": [IN_TOTO]}, "has 1 layers, but its config has 0 diff_ids"),
        ({"layers": TARS[:1], "ids": [], "config_type": DOCKER_CONFIG}, "has 1 layers, but its config has 0"),
    ],
)
def test_layers_that_are_not_the_configs(
    tmp_path: Path, make: Callable[[Saved, Path], Any], below: str, image: Json, says: str
) -> None:
    build = Saved()
    made = build.image(**image)
    build.list(made if below == "root" else build.index([made]))
    with pytest.raises(ContentError, match=says):
        plan(make(build, tmp_path / "image"))


@pytest.mark.parametrize("make", [*SOURCES, in_saved_tar])
@pytest.mark.parametrize(
    "image",
    [
        {"layers": []},
        {"layers": [], "config": {"rootfs": {"type": "layers", "diff_ids": None}}},
        {"layers": TARS, "types": [FOREIGN]},
        {"layers": [TARS[0], TARS[0]]},
        {"layers": [gzip.compress(TARS[0])], "ids": diff_ids(TARS[:1]), "types": [f"{OCI_LAYER}+gzip"]},
        # Compressed, whatever its media type says: those who unpack it see that too.
        {"layers": [gzip.compress(TARS[0])], "ids": diff_ids(TARS[:1])},
        # Attestations name their statements so, artifacts leave out what they have no use for.
        {"layers": [b"{}"], "ids": [str(Digest.of(b"{}"))], "types": [IN_TOTO]},
        {"layers": [b"{}"], "config": {}, "types": ["a/b"]},
        {"layers": [b"{}"], "config": {"rootfs": {"type": "", "diff_ids": None}}, "types": ["a/b"]},
        {"layers": [b"{}"], "config": {"rootfs": None}, "types": ["a/b"]},
        {"layers": TARS, "config": [], "types": ["a/b"]},
        {"layers": TARS, "ids": [], "config_type": "application/vnd.cncf.helm.config.v1+json"},
        {"layers": [plain_layer(1)], "ids": ["sha512:" + "0" * 128]},  # only reading it would tell
    ],
)
def test_layers_that_are(tmp_path: Path, make: Callable[[Saved, Path], Any], image: Json) -> None:
    build = Saved()
    root = build.list(build.image(**image))
    assert plan(make(build, tmp_path / "image")).root == root["digest"]


@pytest.mark.parametrize("make", [*SOURCES, in_saved_tar])
@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_verify_unpacks(tmp_path: Path, make: Callable[[Saved, Path], Any], how: str) -> None:
    pack = packed_by_zstd if how == "zstd" else gzip.compress
    types = [f"{OCI_LAYER}+{how}"] * 2
    build = Saved()
    good = build.image([pack(layer) for layer in TARS[:2]], ids=diff_ids(TARS[:2]), types=types, saved=False)
    build.list(build.index([good, good]))
    source = make(build, tmp_path / "good") if make is not in_saved_tar else in_tar(build, tmp_path / "good")
    assert plan(source, verify=True).root == build.listed[0]["digest"]

    for name, ids, layers, says in (
        ("order", diff_ids(TARS[1::-1]), TARS[:2], "in another order"),
        ("other", [diff_ids(TARS)[0], diff_ids(TARS)[2]], TARS[:2], "layer 1 is not the one .* the image is broken"),
        ("cut", diff_ids(TARS[:2]), None, "has no end"),
    ):
        build = Saved()
        packed = [pack(layer) for layer in layers] if layers else [pack(TARS[0]), pack(TARS[1])[:-9]]
        build.list(build.image(packed, ids=ids, types=types))
        source = make(build, tmp_path / name)
        assert plan(source).root == build.listed[0]["digest"]
        with pytest.raises(ContentError, match=says):
            plan(source, verify=True)


def test_verify_of_what_can_not_be_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Saved()
    build.list(build.image([packed_by_zstd(TARS[0])], ids=diff_ids(TARS[:1]), types=[f"{OCI_LAYER}+zstd"]))
    path = in_tar(build, tmp_path / "image")
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert plan(path).root
    with pytest.raises(ContentError, match="zstd needs the package"):
        plan(path, verify=True)


def test_content_that_is_not_at_hand_is_not_judged(tmp_path: Path) -> None:
    build = Saved()
    build.list(build.image(TARS))
    config = next(name for name, content in build.blobs.items() if b"diff_ids" in content)
    del build.blobs[config]
    path = in_tar(build, tmp_path / "image")
    assert plan(path, mount_from=["other"], verify=True).root == build.listed[0]["digest"]


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_nothing_is_sent(driver: str, tmp_path: Path) -> None:
    build = Saved()
    build.list(build.image(TARS[:2], ids=diff_ids(TARS)))
    registry = FakeRegistry()

    def push(reference: str) -> PushResult:
        source = in_tar(build, tmp_path / "image")
        if driver == "sync":
            return regproto_sync.push(source, reference)
        return trio.run(regproto_trio.push, source, reference)

    with Server(registry) as server, pytest.raises(ContentError, match="2 layers, but its config has 3"):
        push(f"127.0.0.1:{server.port}/app:1")
    assert not registry.log


def test_a_config_in_its_descriptor(tmp_path: Path) -> None:
    build = Saved()
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": diff_ids(TARS)}}).encode()
    described = {
        "mediaType": OCI_CONFIG,
        "digest": str(Digest.of(config)),
        "size": len(config),
        "data": base64.b64encode(config).decode(),
    }
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": []}
    build.list(build.json(manifest, OCI_MANIFEST))
    with pytest.raises(ContentError, match="has 0 layers, but its config has 3 diff_ids"):
        plan(in_tar(build, tmp_path / "image"))


def test_streams_are_those_of_the_config_that_is_made(tmp_path: Path) -> None:
    layer = regproto_sync.Layer.stream(io.BytesIO(TARS[0]))
    registry = FakeRegistry()
    with Server(registry) as server:
        done = regproto_sync.push_image({}, [layer], f"127.0.0.1:{server.port}/app:1")
    manifest = json.loads(registry.content(done.digest))  # type: ignore[arg-type]
    config = json.loads(registry.content(Digest(manifest["config"]["digest"])))
    assert config["rootfs"]["diff_ids"] == diff_ids(TARS[:1])
