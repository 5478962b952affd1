"""The OCI layout directory as a source: what is taken, and every way it can be wrong."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images import (
    FOREIGN_LAYER,
    LAYER,
    LayoutBuilder,
    blob_path,
    edit_index,
    image_layout,
    layer,
    layers_of,
    nested_layout,
    platforms_layout,
    root_digest,
    tar_names,
)
from regproto import ContentError, Digest, InvalidReferenceError, MountSource, RegistryError, RegistryErrorDetail
from regproto._model.manifest import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from regproto_sync import FileContent, SourceNotFound, open_layout, plan_source
from regproto_sync.sources.notation import split_source

ABSENT = "sha256:" + "0" * 64


def plan(path: Path, **options: Any) -> Any:
    return plan_source(str(path), "registry.example/team/app:1.0", **options).push


# --- what is taken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100, 1_600, 2_000, 70_000, 300_000])
def test_test_layers_have_the_size_asked_for_and_can_be_unpacked(size: int) -> None:
    content = layer(1, size)
    assert len(content) == size
    assert content == layer(1, size)
    assert size == 0 or content != layer(2, size)
    if size > 1_600:
        assert tar_names(content) == ["layer-1"]


def test_plan_of_an_image(tmp_path: Path) -> None:
    path = image_layout(tmp_path / "image", [2_000, 3_000])
    push = plan(path)
    digest = root_digest(path)
    assert (push.repository, push.root, push.tags) == ("team/app", digest, ("1.0",))
    assert push.manifests[0].content == blob_path(path, digest).read_bytes()
    config, *layers = push.blobs
    assert config.descriptor.media_type == OCI_CONFIG
    assert [blob.descriptor.digest for blob in layers] == layers_of(path, digest)
    for blob in push.blobs:
        assert blob.source == FileContent.of(blob_path(path, blob.descriptor.digest).resolve())


def test_plan_of_four_platforms_has_each_blob_once(tmp_path: Path) -> None:
    push = plan(platforms_layout(tmp_path / "platforms", own=[2_000], shared=[3_000, 4_000]))
    assert len(push.manifests) == 5
    digests = [blob.descriptor.digest for blob in push.blobs]
    assert len(digests) == len(set(digests)) == 4 + 4 + 2


def test_plan_of_a_nested_index(tmp_path: Path) -> None:
    push = plan(nested_layout(tmp_path / "nested", depth=3))
    assert [manifest.info.is_index for manifest in push.manifests].count(True) == 3
    assert len(push.manifests) == 6


def test_links_within_the_layout_and_to_it_are_followed(tmp_path: Path) -> None:
    path = image_layout(tmp_path / "image")
    blob = blob_path(path, layers_of(path, root_digest(path))[0])
    blob.rename(path / "layer")
    blob.symlink_to("../../layer")
    (tmp_path / "link").symlink_to("image")
    assert {blob.source.path.name for blob in plan(tmp_path / "link").blobs} >= {"layer"}


def test_content_in_descriptors_needs_no_file(tmp_path: Path) -> None:
    build = LayoutBuilder(tmp_path / "image")
    empty = {**build.blob(b"{}", "application/vnd.oci.empty.v1+json"), "data": "e30="}
    blob_path(build.path, empty["digest"]).unlink()
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": []}
    push = plan(build.entry(build.json(manifest, OCI_MANIFEST)))
    assert [(blob.descriptor.data, blob.source) for blob in push.blobs] == [(b"{}", None)]


def test_foreign_layers_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    build = LayoutBuilder(tmp_path / "image")
    path = build.entry(build.image([layer(1, 2_000), layer(2, 2_000)], media_types=[FOREIGN_LAYER]))
    assert [d.media_type for d in plan(path).skipped] == [FOREIGN_LAYER]
    assert plan(path, nondistributable=True).skipped == ()


def test_sparse_index(tmp_path: Path) -> None:
    path = platforms_layout(tmp_path / "platforms")
    missing = json.loads(blob_path(path, root_digest(path)).read_text())["manifests"][1]["digest"]
    blob_path(path, missing).unlink()
    with pytest.raises(ContentError, match=missing):
        plan(path)
    assert plan(path, sparse=True).omitted == {missing}


def test_missing_layer_that_can_be_mounted(tmp_path: Path) -> None:
    path = image_layout(tmp_path / "image")
    missing = layers_of(path, root_digest(path))[0]
    blob_path(path, missing).unlink()
    sources = {blob.descriptor.digest: blob.source for blob in plan(path, mount_from=["team/base"]).blobs}
    assert sources[missing] is None


# --- which entry ------------------------------------------------------------------------------------------------


def several(path: Path, names: list[str | None], *, distinct: bool = True) -> list[str]:
    """A layout with these entries; returns their digests."""
    build = LayoutBuilder(path)
    images = [build.image([layer(n if distinct else 0, 2_000)]) for n, _ in enumerate(names)]
    for image, name in zip(images, names, strict=True):
        build.entry(image, name)
    return [image["digest"] for image in images]


def test_name_picks_an_entry(tmp_path: Path) -> None:
    digests = several(tmp_path / "two", ["app:1", "docker.io/library/app:2", None])
    for name, digest in zip(["app:1", "docker.io/library/app:2"], digests, strict=False):
        push = plan_source(f"{tmp_path}/two:{name}", "registry.example/app").push
        assert push.root == digest


def test_one_image_under_several_names_needs_no_name(tmp_path: Path) -> None:
    digests = several(tmp_path / "two", ["1.0", "latest"], distinct=False)
    assert open_layout(tmp_path / "two").root.digest == digests[0]


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        (["a", "b"], None, r"2 entries; choose one as SOURCE:NAME, of: a, b"),
        (["a", None], None, r"of: a$"),
        ([None, None], None, r"of: none has a name"),
        (["a", "b"], "c", r"no entry is named 'c'; there are: a, b"),
        (["a"], "b", r"no entry is named 'b'; there are: a"),
        (["a"], "", r"no entry is named ''; there are: a"),
        ([None], "b", r"there are: none has a name"),
        (["a", "a"], "a", r"2 different entries are named 'a'"),
        (["\x1b[2J", "b"], None, r"of: \\x1b\[2J, b"),
        ([f"n{n}" for n in range(30)], None, r"n19, \.\.\.$"),
    ],
)
def test_entry_not_found(tmp_path: Path, names: list[str | None], name: str | None, expected: str) -> None:
    several(tmp_path / "layout", names)
    with pytest.raises(ContentError, match=expected):
        open_layout(tmp_path / "layout", name)


def test_source_with_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("plain", "a:b", "plain:c"):
        (tmp_path / name).mkdir()
    cases = {
        "plain": ("plain", None),
        "plain:": ("plain", ""),
        "plain:x": ("plain", "x"),
        "plain:x:1.0": ("plain", "x:1.0"),
        "a:b": ("a:b", None),
        "a:b:x": ("a:b", "x"),
        "plain:c": ("plain:c", None),
        "plain:c:d": ("plain:c", "d"),
        f"{tmp_path}/plain:x": (f"{tmp_path}/plain", "x"),
    }
    assert {text: split_source(text) for text in cases} == {k: (Path(p), n) for k, (p, n) in cases.items()}


@pytest.mark.parametrize("source", ["", "nowhere", "nowhere:name", ":", "a\0b", "x" * 5_000, "nowhere/plain:x"])
def test_source_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFound):
        plan_source(source, "registry.example/app")
    with pytest.raises(SourceNotFound):
        plan_source(tmp_path / "nowhere", "registry.example/app")


# --- what is wrong with it --------------------------------------------------------------------------------------


def first_layer(path: Path) -> Path:
    return blob_path(path, layers_of(path, root_digest(path))[0])


def config_of(path: Path) -> Path:
    return blob_path(path, json.loads(blob_path(path, root_digest(path)).read_text())["config"]["digest"])


def alter(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def replace_root(path: Path, content: bytes, media_type: str = OCI_MANIFEST) -> None:
    """Puts `content` in the place of the image, with a digest and size that fit."""
    digest = Digest.of(content)
    blob_path(path, digest).write_bytes(content)
    edit_index(path, manifests=[{"mediaType": media_type, "digest": str(digest), "size": len(content)}])


def entry(path: Path, **changes: Any) -> None:
    """Changes fields of the only entry of index.json; None takes a field out."""
    described = json.loads((path / "index.json").read_text())["manifests"][0] | changes
    edit_index(path, manifests=[{k: v for k, v in described.items() if v is not None}])


def described_layer(path: Path, **changes: Any) -> None:
    """Changes fields of the layer's descriptor in the manifest."""
    manifest = json.loads(blob_path(path, root_digest(path)).read_text())
    manifest["layers"][0] |= changes
    replace_root(path, json.dumps(manifest).encode())


def swap(file: Path, make: Callable[[Path], object]) -> None:
    file.unlink()
    make(file)


def link_away(file: Path) -> None:
    """Puts a link to a copy outside of the layout in the place of `file`."""
    outside = file.parents[3] / "outside"
    outside.write_bytes(file.read_bytes())
    swap(file, lambda f: f.symlink_to(outside))


def link_folder_away(path: Path) -> None:
    (path / "blobs").rename(path.parent / "blobs")
    (path / "blobs").symlink_to("../blobs")


MIB5 = 5 * 1024 * 1024

Damage = Callable[[Path], object]
BAD_LAYOUTS: dict[str, tuple[Damage, str]] = {
    "no oci-layout": (lambda p: (p / "oci-layout").unlink(), "oci-layout: is missing"),
    "oci-layout not JSON": (lambda p: (p / "oci-layout").write_text("1.0.0 {"), "oci-layout: is not JSON"),
    "oci-layout a list": (lambda p: (p / "oci-layout").write_text("[]"), "oci-layout: must be a JSON object"),
    "oci-layout empty": (lambda p: (p / "oci-layout").write_text("{}"), "imageLayoutVersion must be '1.0.0', not None"),
    "another version": (
        lambda p: (p / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}'),
        "imageLayoutVersion must be '1.0.0', not '2.0.0'",
    ),
    "oci-layout a folder": (lambda p: swap(p / "oci-layout", os.mkdir), "oci-layout: is not a regular file"),
    "oci-layout a pipe": (lambda p: swap(p / "oci-layout", os.mkfifo), "oci-layout: is not a regular file"),
    "no index.json": (lambda p: (p / "index.json").unlink(), "index.json: is missing"),
    "index.json not JSON": (lambda p: (p / "index.json").write_text("{"), "index.json: is not JSON"),
    "index.json not text": (lambda p: (p / "index.json").write_bytes(b"\xff\xfe{}"), "index.json: is not JSON"),
    "index.json nested deep": (lambda p: (p / "index.json").write_text("[" * 200_000), "index.json: is not JSON"),
    "index.json huge": (lambda p: (p / "index.json").write_bytes(b" " * MIB5), "index.json: .*at most 4194304"),
    "index.json a pipe": (lambda p: swap(p / "index.json", os.mkfifo), "index.json: is not a regular file"),
    "index.json a loop": (lambda p: swap(p / "index.json", lambda f: f.symlink_to(f)), "index.json: "),
    "index.json elsewhere": (
        lambda p: swap(p / "index.json", lambda f: f.symlink_to("/etc/passwd")),
        "index.json: is a link that leads out of the layout",
    ),
    "index schema 1": (lambda p: edit_index(p, schemaVersion=1), "index.json: "),
    "index schema 3": (lambda p: edit_index(p, schemaVersion=3), "index.json: schemaVersion must be 2, not 3"),
    "index without schema": (lambda p: edit_index(p, schemaVersion=None), "schemaVersion must be 2, not None"),
    "index of another type": (lambda p: edit_index(p, mediaType=OCI_MANIFEST), "is not the media type of an index"),
    "index of a list type": (lambda p: edit_index(p, mediaType=[]), "is not the media type of an index"),
    "no entries": (lambda p: edit_index(p, manifests=[]), "index.json: has no entry"),
    "entries not a list": (lambda p: edit_index(p, manifests={"a": 1}), "index.json: manifests must be a list"),
    "entry not an object": (lambda p: edit_index(p, manifests=["x"]), r"manifests\[0\]: a descriptor must be"),
    "entry without digest": (lambda p: entry(p, digest=None), "is not a digest"),
    "digest that is a path": (lambda p: entry(p, digest="sha256:../../../../etc/passwd"), "is not a digest"),
    "digest in capitals": (lambda p: entry(p, digest="sha256:" + "A" * 64), "64 lower-case hex digits"),
    "digest of md5": (lambda p: entry(p, digest="md5:" + "a" * 32), "'md5' is not supported"),
    "size not a number": (lambda p: entry(p, size="12"), "size '12' is not a byte count"),
    "size below zero": (lambda p: entry(p, size=-1), "size -1 is not a byte count"),
    "size over 4 MiB": (lambda p: entry(p, size=MIB5), "5242880 bytes; a manifest may have at most"),
    "type with a line break": (lambda p: entry(p, mediaType="a/b\r\nX: y"), r"is not a media type"),
    "type of a layer": (lambda p: entry(p, mediaType=LAYER), f"{re.escape(LAYER)} is not a manifest"),
    "type of schema 1": (
        lambda p: entry(p, mediaType="application/vnd.docker.distribution.manifest.v1+json"),
        "schema 1 manifests are not supported",
    ),
    "manifest missing": (lambda p: blob_path(p, root_digest(p)).unlink(), "root names the manifest sha256:"),
    "manifest altered": (lambda p: alter(blob_path(p, root_digest(p))), "does not match its digest"),
    "manifest short": (lambda p: entry(p, size=100_000), "is too short: .* described as 100000"),
    "manifest not JSON": (lambda p: replace_root(p, b"no"), "is not JSON"),
    "manifest over 4 MiB": (lambda p: replace_root(p, b" " * MIB5), "at most 4194304"),
    "manifest of schema 1": (lambda p: replace_root(p, b'{"schemaVersion":1}'), "schema 1 manifests"),
    "manifest of schema 7": (lambda p: replace_root(p, b'{"schemaVersion":7}'), "schemaVersion must be 2, not 7"),
    "manifest without config": (
        lambda p: replace_root(p, b'{"schemaVersion":2}', DOCKER_MANIFEST),
        "an image manifest needs a config",
    ),
    "config missing": (lambda p: config_of(p).unlink(), r"names sha256:\w+ \(.*config.*\), which is not in the source"),
    "config altered": (lambda p: alter(config_of(p)), r"blobs/sha256/\w+: the content of sha256:\w+ does not match"),
    "layer missing": (lambda p: first_layer(p).unlink(), r"names sha256:\w+ .* which is not in the source"),
    "layer short": (
        lambda p: os.truncate(first_layer(p), 1_999),
        r"blobs/sha256/\w+: the file is too short: 1999 bytes, but sha256:\w+ is described as 2000",
    ),
    "layer long": (
        lambda p: os.truncate(first_layer(p), 2_001),
        r"blobs/sha256/\w+: the file is too long: 2001 bytes, but sha256:\w+ is described as 2000",
    ),
    "layer a folder": (lambda p: swap(first_layer(p), os.mkdir), "is not a regular file"),
    "layer a pipe": (lambda p: swap(first_layer(p), os.mkfifo), "is not a regular file"),
    "layer a loop": (lambda p: swap(first_layer(p), lambda f: f.symlink_to(f)), r"blobs/sha256/\w+: "),
    "layer elsewhere": (lambda p: link_away(first_layer(p)), "is a link that leads out of the layout"),
    "layer that was elsewhere": (
        lambda p: swap(first_layer(p), lambda f: f.symlink_to("/nowhere/at/all")),
        "is a link that leads out of the layout",
    ),
    "blobs elsewhere": (link_folder_away, "is a link that leads out of the layout"),
    "blobs a file": (lambda p: ((p / "blobs").rename(p / "old"), (p / "blobs").touch()), "blobs/sha256/"),
    "layer that is a path": (
        lambda p: described_layer(p, digest="sha256:" + "../" * 21 + "x"),
        r"layers\[0\]: .* is not a digest",
    ),
    "layer size wrong": (lambda p: described_layer(p, size=1), "is too long: 2000 bytes"),
    "layer type wrong": (lambda p: described_layer(p, mediaType="tar"), r"layers\[0\]: mediaType: 'tar' is not"),
    "layer data wrong": (lambda p: described_layer(p, data="AAAA"), "data does not match its own digest"),
}


@pytest.mark.parametrize("case", BAD_LAYOUTS)
def test_bad_layout(tmp_path: Path, case: str) -> None:
    damage, expected = BAD_LAYOUTS[case]
    path = image_layout(tmp_path / "image")
    damage(path)
    with pytest.raises(ContentError, match=expected) as caught:
        plan(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert not isinstance(caught.value, SourceNotFound)


def test_source_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "image.tar").touch()
    with pytest.raises(ContentError, match="is not a folder: expected an OCI layout"):
        plan_source(f"oci:{tmp_path}/image.tar", "registry.example/app")
    with pytest.raises(ContentError, match="is empty"):
        plan(tmp_path / "image.tar")


def test_source_that_is_a_loop(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ContentError):
        open_layout(tmp_path / "loop")


def test_index_nested_too_deep(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="nested over 16 deep"):
        plan(nested_layout(tmp_path / "nested", depth=17))


def test_child_of_an_odd_type_is_a_blob_like_any_other(tmp_path: Path) -> None:
    build = LayoutBuilder(tmp_path / "odd")
    odd = build.blob(b"odd", "application/x.odd")
    push = plan(build.entry(build.index([odd])))
    assert [blob.descriptor.digest for blob in push.blobs] == [odd["digest"]]
    blob_path(build.path, odd["digest"]).unlink()
    with pytest.raises(ContentError, match=r"application/x\.odd"):
        plan(build.path)


# --- after a refusal --------------------------------------------------------------------------------------------


def refused(code: str) -> RegistryError:
    return RegistryError("refused", status=400, errors=(RegistryErrorDetail(code),))


def test_altered_layer_is_named_after_the_registry_refused_it(tmp_path: Path) -> None:
    path = image_layout(tmp_path / "image", [2_000, 2_000])
    planned = plan_source(path, "registry.example/app")
    damaged = layers_of(path, root_digest(path))[1]
    error = refused("DIGEST_INVALID")
    assert planned.explain(error) is error
    alter(blob_path(path, damaged))
    found = planned.explain(error)
    assert isinstance(found, ContentError)
    assert str(found).startswith(f"{path}: blobs/sha256/{damaged.hex}: the content of {damaged} does not match")
    other = refused("DENIED")
    assert planned.explain(other) is other
    blob_path(path, damaged).unlink()
    assert "No such file" in str(planned.explain(error))


# --- references, tags, mount sources ----------------------------------------------------------------------------


def test_reference_by_digest(tmp_path: Path) -> None:
    path = image_layout(tmp_path / "image")
    digest = root_digest(path)
    planned = plan_source(path, f"registry.example/app@{digest}")
    assert (planned.push.tags, planned.push.root) == ((), digest)
    assert plan_source(path, f"registry.example/app:1@{digest}", tags=["2", "1"]).push.tags == ("1", "2")
    with pytest.raises(ContentError, match=f"asks for {ABSENT}, but the source is {digest}"):
        plan_source(path, f"registry.example/app@{ABSENT}")


@pytest.mark.parametrize(
    ("reference", "plain_http", "url"),
    [
        ("registry.example/app", False, "https://registry.example"),
        ("registry.example:5000/app", True, "http://registry.example:5000"),
        ("localhost:5000/app", False, "http://localhost:5000"),
        ("127.0.0.1/app", False, "http://127.0.0.1"),
        ("[::1]:5000/app", False, "http://[::1]:5000"),
        ("app", False, "https://registry-1.docker.io"),
    ],
)
def test_registry_url(tmp_path: Path, reference: str, plain_http: bool, url: str) -> None:
    planned = plan_source(image_layout(tmp_path / "image"), reference, plain_http=plain_http)
    assert (planned.registry_url, planned.push.tags) == (url, ("latest",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("team/base", MountSource(repository="team/base")),
        ("registry.example/team/base", MountSource(repository="team/base")),
        ("other.example:5000/base", MountSource(repository="base", registry="other.example:5000", foreign=True)),
        ("docker.io/alpine", MountSource(repository="library/alpine", registry="index.docker.io", foreign=True)),
    ],
)
def test_mount_sources(tmp_path: Path, text: str, expected: MountSource) -> None:
    assert {blob.mount_from for blob in plan(image_layout(tmp_path / "image"), mount_from=[text]).blobs} == {
        (expected,)
    }


BAD_REFERENCES = [
    "",
    "/",
    "registry.example/",
    "registry.example/App",
    "registry.example/app:",
    "registry.example/app:-x",
    "registry.example/app:" + "x" * 129,
    "registry.example/app@sha256:abc",
    "registry.example/app@../../etc/passwd",
    "registry.example/app@md5:" + "a" * 32,
    "registry.example/../app",
    "registry.example/a//b",
    "registry.example:99999/app",
    "https://registry.example/app",
    "registry.example/app\r\nHost: x",
    "registry.example/" + "a" * 300,
    "user@registry.example/app",
]


@pytest.mark.parametrize("reference", BAD_REFERENCES)
def test_bad_reference(tmp_path: Path, reference: str) -> None:
    with pytest.raises(InvalidReferenceError):
        plan_source(image_layout(tmp_path / "image"), reference)


@pytest.mark.parametrize("tag", ["", ".x", "a/b", "a b", "a:b", "x" * 129, "é", "a\n"])
def test_bad_tag(tmp_path: Path, tag: str) -> None:
    with pytest.raises(InvalidReferenceError):
        plan(image_layout(tmp_path / "image"), tags=[tag])


@pytest.mark.parametrize("source", ["", "Team", "team/base:1.0", f"team/base@{ABSENT}", "../base", "a b", "/base"])
def test_bad_mount_source(tmp_path: Path, source: str) -> None:
    with pytest.raises(InvalidReferenceError):
        plan(image_layout(tmp_path / "image"), mount_from=[source])


def test_index_media_type_is_optional(tmp_path: Path) -> None:
    path = image_layout(tmp_path / "image")
    edit_index(path, mediaType=None)
    assert open_layout(path).root.digest == root_digest(path)
    edit_index(path, mediaType=OCI_INDEX)
    assert open_layout(path).root.digest == root_digest(path)
