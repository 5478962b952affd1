"""Artifacts: the manifest over single files, bytes and folders, and that the same content makes the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import attrs
import pytest

from core import Play
from regproto import Blob, ContentError, Descriptor, Digest, PushOutcome
from regproto._model.manifest import OCI_EMPTY, OCI_MANIFEST
from regproto_sync import artifact, bytes_blob, file_blob, folder_blob
from regproto_sync.sources.content import Content

TITLE = "org.opencontainers.image.title"
SUBJECT = Descriptor(
    media_type=OCI_MANIFEST, digest=Digest.of(b"subject"), size=7, annotations={"not": "taken along"}, data=b"subject"
)


def read(blob: Blob) -> bytes:
    assert isinstance(blob.source, Content)
    with blob.source.open() as stream:
        content = stream.read()
        blob.source.check(stream)
    assert (len(content), Digest.of(content)) == (blob.descriptor.size, blob.descriptor.digest)
    return content


def fields(*files: Blob, **options: Any) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(artifact(files, **options).manifest.content)
    return manifest


# --- the manifest -----------------------------------------------------------------------------------------------


def test_manifest_of_files() -> None:
    one, two = bytes_blob(b"1", "text/plain", title="one.txt"), bytes_blob(b"", "text/html", annotations={"k": "v"})
    assert fields(one, two, artifact_type="application/x", annotations={"a": "b"}) == {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/x",
        "config": {"mediaType": OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2, "data": "e30="},
        "layers": [
            {
                "mediaType": "text/plain",
                "digest": str(Digest.of(b"1")),
                "size": 1,
                "annotations": {TITLE: "one.txt"},
            },
            {"mediaType": "text/html", "digest": str(Digest.of(b"")), "size": 0, "annotations": {"k": "v"}},
        ],
        "annotations": {"a": "b"},
    }


def test_artifact_without_files_has_the_empty_descriptor_as_its_layer() -> None:
    made = fields()
    assert made["layers"] == [made["config"]]
    assert made["artifactType"] == "application/vnd.unknown.artifact.v1"
    assert "annotations" not in made


def test_subject_is_named_by_type_digest_and_size_alone() -> None:
    made = artifact((), "application/x", subject=SUBJECT)
    assert json.loads(made.manifest.content)["subject"] == {
        "mediaType": OCI_MANIFEST,
        "digest": str(SUBJECT.digest),
        "size": 7,
    }
    assert made.manifest.info.subject is not None


def test_plan_of_an_artifact() -> None:
    made = artifact([bytes_blob(b"1", "text/plain"), bytes_blob(b"1", "text/html")], "application/x")
    push = made.push("team/app", tags=["1.0"])
    assert (push.root, push.tags) == (made.manifest.descriptor.digest, ("1.0",))
    assert [blob.descriptor.digest for blob in push.blobs] == [Digest.of(b"{}"), Digest.of(b"1")]
    in_memory = attrs.evolve(push, blobs=[attrs.evolve(b, source=b"1") for b in push.blobs])
    assert Play().run(in_memory).outcome is PushOutcome.PUSHED


def test_two_files_with_one_title_are_refused() -> None:
    files = [bytes_blob(b"1", "text/plain", title="a"), bytes_blob(b"2", "text/plain", title="a")]
    with pytest.raises(ContentError, match="two files have the title 'a'"):
        artifact(files, "application/x")
    untitled = [bytes_blob(b"1", "text/plain"), bytes_blob(b"2", "text/plain")]
    assert len(artifact(untitled).manifest.info.layers) == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"artifact_type": ""}, "artifact type: '' is not a media type"),
        ({"artifact_type": "no type"}, "is not a media type"),
        ({"annotations": {"a": "\udcff"}}, "not valid Unicode"),
        ({"annotations": {"a": "x" * 5_000_000}}, "at most 4194304"),
        ({"annotations": {"a": 1}}, "must be an object of strings"),
    ],
)
def test_what_can_not_stand_in_a_manifest_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ContentError, match=expected):
        artifact((), **options)


# --- files ------------------------------------------------------------------------------------------------------


def test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_bytes(b"hello")
    blob = file_blob("./sub/a.txt", "text/plain", annotations={"k": "v"})
    assert read(blob) == b"hello"
    assert blob.descriptor.annotations == {TITLE: "sub/a.txt", "k": "v"}
    assert file_blob("sub/a.txt").descriptor.media_type == "application/vnd.oci.image.layer.v1.tar"
    assert file_blob("sub/a.txt", title="").descriptor.annotations == {}
    sha512 = file_blob("sub/a.txt", algorithm="sha512").descriptor.digest
    assert sha512 == Digest.of(b"hello", "sha512")


@pytest.mark.parametrize("path", ["{here}/a.txt", "../sub/a.txt"])
def test_title_never_leads_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").touch()
    monkeypatch.chdir(tmp_path / "sub")
    assert file_blob(path.format(here=tmp_path / "sub")).descriptor.annotations[TITLE] == "a.txt"


def test_file_that_can_not_be_sent(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="No such file"):
        file_blob(tmp_path / "nothing")
    with pytest.raises(ContentError, match="not a regular file"):
        file_blob(tmp_path)
    with pytest.raises(ContentError, match="not a media type"):
        file_blob(tmp_path / "nothing", "text")


# --- folders ----------------------------------------------------------------------------------------------------


def folder(path: Path, names: list[str]) -> Path:
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode() * 100)
    return path


def members(blob: Blob) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(read(blob)))) as tar:
        return tar.getmembers()


def test_folder_is_the_same_tar_for_the_same_content(tmp_path: Path) -> None:
    names = ["b/z", "b/a", "a", "c-long" * 30]
    one, two = folder(tmp_path / "1" / "dir", names), folder(tmp_path / "2" / "dir", names[::-1])
    os.utime(two / "a", (1, 1))
    (two / "a").chmod(0o600)
    made, again = folder_blob(one), folder_blob(two)
    assert read(made) == read(again)
    assert [m.name for m in members(made)] == ["dir", "dir/a", "dir/b", "dir/b/a", "dir/b/z", "dir/" + "c-long" * 30]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members(made)} == {(0, 0, "", "", 0)}
    assert {oct(m.mode) for m in members(made) if m.isreg()} == {"0o644"}
    (two / "a").chmod(0o700)
    assert {m.name for m in members(folder_blob(two)) if m.mode == 0o755} == {"dir", "dir/b", "dir/a"}


def test_folder_is_marked_for_unpacking(tmp_path: Path) -> None:
    blob = folder_blob(folder(tmp_path / "dir", ["a"]), title="name", annotations={"k": "v"})
    tar = gzip.decompress(read(blob))
    assert blob.descriptor.annotations == {
        TITLE: "name",
        "io.deis.oras.content.unpack": "true",
        "io.deis.oras.content.digest": f"sha256:{hashlib.sha256(tar).hexdigest()}",
        "k": "v",
    }
    assert [m.name for m in members(blob)] == ["name", "name/a"]
    untitled = folder_blob(tmp_path / "dir", title="")
    assert [m.name for m in members(untitled)] == ["dir", "dir/a"]
    assert TITLE not in untitled.descriptor.annotations


def test_links_in_a_folder(tmp_path: Path) -> None:
    path = folder(tmp_path / "dir", ["sub/a"])
    (path / "sub" / "up").symlink_to("../sub/a")
    (path / "top").symlink_to(".")
    (path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("dir")
    assert {m.name: m.linkname for m in members(folder_blob(tmp_path / "link"))} == {
        "link": "",
        "link/loop": "loop",
        "link/sub": "",
        "link/sub/a": "",
        "link/sub/up": "../sub/a",
        "link/top": ".",
    }


@pytest.mark.parametrize("target", ["..", "../dir2/a", "/etc/passwd", "sub/../../dir"])
def test_link_that_leads_out_of_a_folder(tmp_path: Path, target: str) -> None:
    path = folder(tmp_path / "dir", ["sub/a"])
    (path / "bad").symlink_to(target)
    if target == "sub/../../dir":  # back in, under a name that is another one where it is unpacked
        members(folder_blob(path, title="dir"))
        with pytest.raises(ContentError, match="leads out"):
            folder_blob(path, title="other")
        return
    with pytest.raises(ContentError, match="dir/bad: is a link that leads out of the folder"):
        folder_blob(path)


def test_what_a_folder_can_not_hold(tmp_path: Path) -> None:
    path = folder(tmp_path / "dir", ["a"])
    os.mkfifo(path / "pipe")
    with pytest.raises(ContentError, match="dir/pipe: is neither"):
        folder_blob(path)
    (path / "pipe").unlink()
    (path / os.fsdecode(b"\xff")).touch()
    with pytest.raises(ContentError, match="not valid Unicode"):
        folder_blob(path)
    with pytest.raises(ContentError, match="No such file"):
        folder_blob(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ContentError, match="loop"):
        folder_blob(tmp_path / "loop")


def test_temporary_file_of_a_folder_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    path = folder(tmp_path / "dir", ["a"])
    blob = folder_blob(path)
    (kept,) = (tmp_path / "spool").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    del blob
    os.mkfifo(path / "pipe")
    with pytest.raises(ContentError):
        folder_blob(path)
    assert list((tmp_path / "spool").iterdir()) == []
