"""Archives as sources: an OCI layout in a tar, docker-save tars of both forms, links in them, standard input."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tarfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archives import (
    DockerSave,
    docker_save,
    hard_link,
    layout_members,
    layout_tar,
    link,
    plain_layer,
    special,
    tar_bytes,
)
from images import LayoutBuilder, blob_path, edit_index, image_layout, layer, layers_of, platforms_layout, root_digest
from regproto import ContentError, Digest, PushPlan, RegistryError, RegistryErrorDetail
from regproto._model.manifest import DOCKER_CONFIG, DOCKER_MANIFEST
from regproto_sync import DockerImage, SourceNotFound, open_source, plan_source
from regproto_sync.sources.content import Content, digest_of
from regproto_sync.sources.docker_archive import Layer

REFERENCE = "registry.example/team/app:1.0"


def plan(source: str | Path) -> PushPlan:
    push = plan_source(source if isinstance(source, str) else str(source), REFERENCE).push
    for blob in push.blobs:
        assert isinstance(blob.source, Content)
        assert digest_of(blob.source, blob.descriptor.size) == blob.descriptor.digest
    return push


def refused(source: str | Path, expected: str) -> None:
    with pytest.raises(ContentError, match=expected) as caught:
        plan(source)
    assert not isinstance(caught.value, SourceNotFound)


# --- an OCI layout in a tar -------------------------------------------------------------------------------------


def test_layout_in_a_tar_is_the_layout(tmp_path: Path) -> None:
    layout = platforms_layout(tmp_path / "layout")
    archive = layout_tar(layout, tmp_path / "image.tar")
    folder = plan(layout)
    for source in (archive, f"oci-archive:{archive}"):
        push = plan(source)
        assert (push.manifests, push.root, push.tags) == (folder.manifests, folder.root, folder.tags)
        assert [blob.descriptor for blob in push.blobs] == [blob.descriptor for blob in folder.blobs]


def test_members_are_read_where_they_stand(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [5_000])
    blob = plan(layout_tar(layout, tmp_path / "image.tar")).blobs[-1]
    assert isinstance(blob.source, Content)
    with blob.source.open(100) as stream:
        assert isinstance(stream, io.FileIO), "so that drivers can use sendfile"
        assert stream.read(50) == blob_path(layout, blob.descriptor.digest).read_bytes()[100:150]


def test_archive_that_changes_is_noticed(tmp_path: Path) -> None:
    archive = layout_tar(image_layout(tmp_path / "layout"), tmp_path / "image.tar")
    blob = plan(archive).blobs[-1]
    assert isinstance(blob.source, Content)
    os.utime(archive, (1, 1))
    with pytest.raises(OSError, match="has changed"):
        blob.source.open()


def test_name_in_an_archive(tmp_path: Path) -> None:
    build = LayoutBuilder(tmp_path / "layout")
    images = [build.image([layer(n, 2_000)]) for n in range(2)]
    for n, image in enumerate(images):
        build.entry(image, f"v{n}")
    archive = layout_tar(build.path, tmp_path / "image.tar")
    for source in (f"{archive}:v1", f"oci-archive:{archive}:v1"):
        assert plan(source).root == images[1]["digest"]
    refused(archive, r"index.json: has 2 entries; choose one as SOURCE:NAME, of: v0, v1")
    refused(f"{archive}:v2", r"no entry is named 'v2'; there are: v0, v1")


@pytest.mark.parametrize("name", ["docker.io/library/alpine:3", "alpine:3", "3"])
def test_names_of_newer_docker_archives(tmp_path: Path, name: str) -> None:
    build = LayoutBuilder(tmp_path / "layout")
    images = [build.image([layer(n, 2_000)]) for n in range(2)]
    build.entry(images[0], "1")
    build.entry(images[1], "3")
    build.entries[1]["annotations"]["io.containerd.image.name"] = "docker.io/library/alpine:3"
    edit_index(build.path, manifests=build.entries)
    saved = []
    for image, tags in zip(images, (["other:1"], ["alpine:3"]), strict=True):
        manifest = json.loads(blob_path(build.path, image["digest"]).read_text())
        config, *layers = [f"blobs/sha256/{d['digest'][7:]}" for d in (manifest["config"], *manifest["layers"])]
        saved.append({"Config": config, "RepoTags": tags, "Layers": layers})
    members = {**layout_members(build.path), "manifest.json": json.dumps(saved).encode()}
    archive = tmp_path / "image.tar"
    archive.write_bytes(tar_bytes(members.items()))
    assert plan(f"{archive}:{name}").root == images[1]["digest"]
    refused(archive, "of: other:1, alpine:3")


@pytest.mark.parametrize("prefix", ["./", ".//", "x/../"])
def test_names_are_normalised(tmp_path: Path, prefix: str) -> None:
    layout = image_layout(tmp_path / "layout")
    members = [(prefix + name, content) for name, content in layout_members(layout).items()]
    (tmp_path / "image.tar").write_bytes(tar_bytes([special("./", tarfile.DIRTYPE), *members]))
    assert plan(tmp_path / "image.tar").root == root_digest(layout)


# --- links ------------------------------------------------------------------------------------------------------


def with_layer_as(tmp_path: Path, change: Callable[[str, bytes], Iterable[Any]]) -> Path:
    """An OCI archive whose layer is replaced by what `change` makes of its name and content."""
    layout = image_layout(tmp_path / "layout")
    digest = layers_of(layout, root_digest(layout))[0]
    members = layout_members(layout)
    name = f"blobs/sha256/{digest.hex}"
    content = members.pop(name)
    path = tmp_path / "image.tar"
    path.write_bytes(tar_bytes([*members.items(), *change(name, content)]))
    return path


GOOD_LINKS: dict[str, Callable[[str, bytes], Iterable[Any]]] = {
    "symlink": lambda name, content: [("shared/layer", content), link(name, "../../shared/layer")],
    "hard link": lambda name, content: [("shared/layer", content), hard_link(name, "shared/layer")],
    "hard link with a dot": lambda name, content: [("./layer", content), hard_link(name, "./layer")],
    "before its target": lambda name, content: [link(name, "../../layer"), ("layer", content)],
    "chain": lambda name, content: [
        link(name, "../../a"),
        link("a", "b/../c"),
        hard_link("c", "d"),
        ("d", content),
    ],
    "folder": lambda name, content: [("dir/layer", content), link("link", "dir"), link(name, "../../link/layer")],
    "to a folder that is no member": lambda name, content: [("x/y/layer", content), link(name, "../../x/y/layer")],
}


@pytest.mark.parametrize("case", GOOD_LINKS)
def test_links_are_followed(tmp_path: Path, case: str) -> None:
    assert len(plan(with_layer_as(tmp_path, GOOD_LINKS[case])).blobs) == 2


BAD_LINKS: dict[str, tuple[Callable[[str, bytes], Iterable[Any]], str]] = {
    "itself": (lambda name, content: [link(name, name.rpartition("/")[2])], "leads in a circle"),
    "hard link to itself": (lambda name, content: [hard_link(name, name)], "leads in a circle"),
    "two": (lambda name, content: [link(name, "../../a"), link("a", name)], "leads in a circle"),
    "folder in itself": (lambda name, content: [link("a", "a/b"), link(name, "../../a/c")], "leads in a circle"),
    "out": (lambda name, content: [link(name, "../../../etc/passwd")], "leads out of the archive"),
    "absolute": (lambda name, content: [link(name, "/etc/passwd")], "leads out of the archive"),
    "hard link out": (lambda name, content: [hard_link(name, "../etc/passwd")], "leads out of the archive"),
    "out through another": (
        lambda name, content: [link("up", ".."), link(name, "../../up/etc")],
        "leads out of the archive",
    ),
    "nowhere": (lambda name, content: [link(name, "nothing")], "which is not in the source"),
    "a folder": (lambda name, content: [special(name, tarfile.DIRTYPE)], "is not a regular file"),
    "a pipe": (lambda name, content: [special(name, tarfile.FIFOTYPE)], "is not a regular file"),
    "twice": (lambda name, content: [(name, content), (name, content)], "is in the archive more than once"),
    "twice behind a link": (
        lambda name, content: [("a", content), ("a", content), link(name, "../../a")],
        "a is in the archive more than once",
    ),
    "short": (lambda name, content: [(name, content[:-1])], "is too short"),
    "missing": (lambda name, content: [], "which is not in the source"),
    "a member that leads out": (
        lambda name, content: [(name, content), ("a/../../x", b"")],
        "leads out of the archive",
    ),
    "an absolute member": (lambda name, content: [(name, content), ("/x", b"")], "leads out of the archive"),
}


@pytest.mark.parametrize("case", BAD_LINKS)
def test_bad_links_and_members(tmp_path: Path, case: str) -> None:
    change, expected = BAD_LINKS[case]
    refused(with_layer_as(tmp_path, change), expected)


# --- what docker save writes ------------------------------------------------------------------------------------


def test_docker_save(tmp_path: Path) -> None:
    build = DockerSave()
    layers = [plain_layer(n) for n in range(2)]
    config = build.image(layers, "team/app:1")
    push = plan(build.write(tmp_path / "image.tar"))
    manifest = json.loads(push.manifests[0].content)
    assert (push.manifests[0].descriptor.media_type, push.root) == (
        DOCKER_MANIFEST,
        push.manifests[0].descriptor.digest,
    )
    assert manifest["config"]["mediaType"] == DOCKER_CONFIG
    assert manifest["config"]["digest"] == config
    assert [(each["mediaType"], each["digest"]) for each in manifest["layers"]] == [
        ("application/vnd.docker.image.rootfs.diff.tar", str(Digest.of(content))) for content in layers
    ]
    assert len(push.blobs) == 3


def test_layers_of_docker_save_know_what_they_are(tmp_path: Path) -> None:
    image = open_source(docker_save(tmp_path / "image.tar"))
    assert isinstance(image, DockerImage)
    for n, each in enumerate(image.layers):
        assert (each.describe().digest, each.diff_id) == (Digest.of(plain_layer(n)), Digest.of(plain_layer(n)))
        with each.open(512) as stream:
            assert stream.read(10) == plain_layer(n)[512:522]
            each.check(stream)


def test_same_archive_makes_the_same_manifest(tmp_path: Path) -> None:
    one, two = docker_save(tmp_path / "1.tar", 3), docker_save(tmp_path / "2.tar", 3)
    assert plan(one).manifests == plan(two).manifests


def test_compressed_layers_of_docker_save(tmp_path: Path) -> None:
    build = DockerSave()
    build.image([plain_layer(1)], pack=lambda content: gzip.compress(content, mtime=0))
    push = plan(build.write(tmp_path / "image.tar"))
    described = push.blobs[-1].descriptor
    assert described.media_type == "application/vnd.docker.image.rootfs.diff.tar.gzip"
    assert described.digest == Digest.of(gzip.compress(plain_layer(1), mtime=0))


def test_layers_shared_by_links(tmp_path: Path) -> None:
    build = DockerSave()
    build.image([plain_layer(1), plain_layer(2)])
    first, second = build.entries[0]["Layers"]
    build.members["shared.tar"] = build.members.pop(first)
    build.links = [link(first, "../shared.tar"), hard_link("hard.tar", second)]
    build.entries[0]["Layers"][1] = "hard.tar"
    assert len(plan(build.write(tmp_path / "image.tar")).blobs) == 3


def test_one_layer_twice_and_no_layer(tmp_path: Path) -> None:
    build = DockerSave()
    build.image([plain_layer(1), plain_layer(1)])
    push = plan(build.write(tmp_path / "twice.tar"))
    assert (len(push.manifests[0].info.layers), len(push.blobs)) == (2, 2)
    assert len(plan(docker_save(tmp_path / "none.tar", 0)).blobs) == 1


def test_one_of_several_images(tmp_path: Path) -> None:
    build = DockerSave()
    configs = [
        build.image([plain_layer(1)], "team/app:1", "team/app:latest"),
        build.image([plain_layer(1), plain_layer(2)], "registry.example/other:2"),
        build.image([plain_layer(3)]),
    ]
    archive = build.write(tmp_path / "image.tar")

    def config_of(name: str) -> str:
        return str(plan(f"{archive}:{name}").manifests[0].info.config.digest)  # type: ignore[union-attr]

    assert config_of("team/app:1") == configs[0]
    assert config_of("docker.io/team/app:latest") == config_of("team/app") == configs[0]
    assert config_of("registry.example/other:2") == configs[1]
    assert [config_of(f"@{n}") for n in range(3)] == configs
    refused(
        archive, r"has 3 images; choose one as SOURCE:NAME or SOURCE:@N \(from 0\), of: team/app:1, team/app:latest, "
    )
    for name in ("team/app:2", "app", "@3", "@99999999999", "@x", ""):
        refused(f"{archive}:{name}", "no image is named .*; there are: team/app:1, ")


def test_one_name_for_two_images_and_two_names_for_one(tmp_path: Path) -> None:
    build = DockerSave()
    build.image([plain_layer(1)], "team/app:1")
    build.image([plain_layer(2)], "team/app:1")
    refused(f"{build.write(tmp_path / 'two.tar')}:team/app:1", "2 different images are named 'team/app:1'")
    one = DockerSave()
    one.image([plain_layer(1)], "team/app:1")
    one.entries.append({**one.entries[0], "RepoTags": ["team/app:2"]})
    assert len(plan(one.write(tmp_path / "one.tar")).manifests) == 1


def described(build: DockerSave, **changes: Any) -> None:
    build.entries[0] |= changes


def config_name(build: DockerSave) -> str:
    name: str = build.entries[0]["Config"]
    return name


def first_layer(build: DockerSave) -> str:
    name: str = build.entries[0]["Layers"][0]
    return name


def plain_config(build: DockerSave, **fields: Any) -> None:
    """Puts another config in the place of the image's."""
    build.members["config"] = json.dumps(fields).encode()
    described(build, Config="config")


BAD_SAVES: dict[str, tuple[Callable[[DockerSave], object], str]] = {
    "no images": (lambda b: b.entries.clear(), "has no image"),
    "entry not an object": (lambda b: b.entries.append("x"), r"manifest.json: \[1\]: must be an object"),  # type: ignore[arg-type]
    "config not a string": (lambda b: described(b, Config=1), "must be an object with Config"),
    "layers not a list": (lambda b: described(b, Layers={}), "names 0 layers, but the config"),
    "layers not strings": (lambda b: described(b, Layers=[1]), "must be an object with Config"),
    "names not strings": (lambda b: described(b, RepoTags=[None]), "must be an object with Config"),
    "too many layers": (lambda b: described(b, Layers=["x"] * 1_001), "has 1001 layers"),
    "config missing": (lambda b: b.members.pop(config_name(b)), "which is not in the archive"),
    "config out": (lambda b: described(b, Config="../config.json"), "leads out of the archive"),
    "config absolute": (lambda b: described(b, Config="/etc/passwd"), "leads out of the archive"),
    "config altered": (
        lambda b: b.members.update({config_name(b): b.members[config_name(b)].replace(b"linux", b"other")}),
        "the config does not match its digest",
    ),
    "config not JSON": (lambda b: (b.members.update(c=b"{"), described(b, Config="c")), "c: is not JSON"),
    "config too large": (
        lambda b: (b.members.update(c=b" " * (5 * 1024 * 1024)), described(b, Config="c")),
        "c: 4194305 bytes",
    ),
    "no diff_ids": (lambda b: plain_config(b), "names 1 layers, but the config config has 0 diff_ids"),
    "rootfs a list": (lambda b: plain_config(b, rootfs=[]), "has 0 diff_ids"),
    "diff_ids an object": (lambda b: plain_config(b, rootfs={"diff_ids": {"a": 1}}), "must be a list of digests"),
    "diff_id no digest": (
        lambda b: plain_config(b, rootfs={"diff_ids": ["x"]}),
        "rootfs.diff_ids: 'x' is not a digest",
    ),
    "layer missing": (lambda b: b.members.pop(first_layer(b)), "which is not in the archive"),
    "layer out": (lambda b: described(b, Layers=["a/../../b"]), "leads out of the archive"),
    "layer altered": (
        lambda b: b.members.update({first_layer(b): plain_layer(9)}),
        r"layer.tar: the layer is not the one that the config names: it should be sha256:\w+, and is sha256:",
    ),
    "layer another's content packed": (
        lambda b: b.members.update({first_layer(b): gzip.compress(plain_layer(9))}),
        "is not the one that the config names",
    ),
    "layer cut": (
        lambda b: b.members.update({first_layer(b): gzip.compress(plain_layer(0))[:-20]}),
        "layer.tar: ",
    ),
    "layer packed badly": (
        lambda b: b.members.update({first_layer(b): b"\x1f\x8b" + b"\xff" * 100}),
        "layer.tar: ",
    ),
    "layer in a circle": (
        lambda b: (b.members.pop(first_layer(b)), b.links.append(link(first_layer(b), "layer.tar"))),
        "leads in a circle",
    ),
}


@pytest.mark.parametrize("case", BAD_SAVES)
def test_bad_docker_save(tmp_path: Path, case: str) -> None:
    damage, expected = BAD_SAVES[case]
    build = DockerSave()
    build.image([plain_layer(0)])
    damage(build)
    archive = build.write(tmp_path / "image.tar")
    refused(archive, expected)
    with pytest.raises(ContentError) as caught:
        plan(archive)
    assert str(caught.value).startswith(f"{archive}: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{}", "must be a list"),
        (b"[", "is not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * 5_000_000, "over 4194304"),
    ],
)
def test_bad_manifest_json(tmp_path: Path, content: bytes, expected: str) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(tar_bytes([("manifest.json", content)]))
    refused(archive, f"manifest.json: .*{expected}")


def test_altered_layer_is_named_after_a_refusal(tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "image.tar")
    planned = plan_source(archive, REFERENCE)
    error = RegistryError("refused", status=400, errors=(RegistryErrorDetail("DIGEST_INVALID"),))
    assert planned.explain(error) is error
    os.utime(archive, (1, 1))
    assert "has changed since" in str(planned.explain(error))


# --- forms and files --------------------------------------------------------------------------------------------


def test_what_is_neither(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    archive.write_bytes(tar_bytes([("a", b"")]))
    refused(archive, "is neither an OCI layout .* nor what docker save writes")
    refused(f"oci-archive:{archive}", "oci-layout: is missing")
    refused(f"docker-archive:{archive}", "manifest.json: is missing")
    refused(f"oci:{archive}", "is not a folder")
    archive.write_bytes(b"text" * 1_000)
    refused(archive, "is not a tar archive")
    archive.write_bytes(b"")
    refused(archive, "is empty")
    (tmp_path / "folder").mkdir()
    refused(f"oci-archive:{tmp_path}/folder", "not a regular file")


@pytest.mark.parametrize(
    "source", ["oci:{}/none", "oci-archive:{}/none", "docker-archive:{}/none:x", "oci:", "{}/none"]
)
def test_not_there(tmp_path: Path, source: str) -> None:
    with pytest.raises(SourceNotFound):
        plan(source.format(tmp_path))


def test_path_that_looks_like_a_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image_layout(tmp_path / "oci:here")
    assert plan("./oci:here").root == plan_source(Path("oci:here"), REFERENCE).push.root
    with pytest.raises(SourceNotFound):
        plan("oci:here")


def test_gzipped_archive_is_unpacked_into_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    plain = docker_save(tmp_path / "image.tar")
    packed = tmp_path / "image.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    push = plan(packed)
    assert push.manifests == plan(plain).manifests
    (kept,) = (tmp_path / "spool").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    del push
    assert list((tmp_path / "spool").iterdir()) == []
    packed.write_bytes(packed.read_bytes()[:-20])
    refused(packed, f"{packed}: ")
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    ("magic", "command"), [(b"\x28\xb5\x2f\xfd", "zstd -d"), (b"BZh9", "bzip2 -d"), (b"\xfd7zXZ\0", "xz -d")]
)
def test_other_compressions_are_refused_with_what_to_do(tmp_path: Path, magic: bytes, command: str) -> None:
    (tmp_path / "image.tar").write_bytes(magic + b"x" * 1_000)
    refused(tmp_path / "image.tar", f"is compressed: decompress it first, with `{command}`")


@pytest.mark.parametrize("source", ["-", "docker-archive:-", "-:team/app:1", "docker-archive:-:@0"])
def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    archive = docker_save(tmp_path / "image.tar", 2, "team/app:1")
    with archive.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert plan(source).manifests == plan(archive).manifests


def test_standard_input_that_can_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    refused("oci:-", "standard input can't be a folder: oci-archive:-")
    monkeypatch.setattr(sys, "stdin", None)
    refused("-", "standard input: there is none")
    master, terminal = os.openpty()
    with open(master, "rb"), open(terminal) as file:
        monkeypatch.setattr(sys, "stdin", file)
        refused("-", "standard input: is a terminal")
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        refused("-", "standard input: is empty")


def test_named_pipe(tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "image.tar")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(archive.read_bytes()))
    writer.start()
    try:
        assert plan_source(pipe, REFERENCE).push.manifests == plan(archive).manifests
    finally:
        writer.join(10)


# --- anything at all --------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["a", "b", "sha256:" + "0" * 64]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Config", "Layers", "RepoTags", "rootfs", "diff_ids", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(["manifest.json", "a", "b", "a/b", "index.json", "oci-layout", "../a", "/a", "."])
MEMBERS = st.one_of(
    st.tuples(NAMES, st.one_of(st.binary(max_size=50), JSON.map(lambda each: json.dumps(each).encode()))),
    st.builds(link, NAMES, NAMES),
    st.builds(hard_link, NAMES, NAMES),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(MEMBERS, max_size=6), JSON)
def test_nothing_in_an_archive_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, members: list[Any], manifest: Any
) -> None:
    archive = tmp_path_factory.mktemp("any") / "image.tar"
    archive.write_bytes(tar_bytes([("manifest.json", json.dumps(manifest).encode()), *members]))
    for source in (f"docker-archive:{archive}", f"oci-archive:{archive}"):
        try:
            plan(source)
        except ContentError as error:
            assert str(error).startswith(f"{archive}: ")


def test_layer_is_content_that_describes_itself(tmp_path: Path) -> None:
    from regproto_sync import ContentSource

    image = open_source(docker_save(tmp_path / "image.tar", 1))
    assert isinstance(image, DockerImage) and isinstance(image.layers[0], Layer)
    assert isinstance(image.layers[0], ContentSource)
