"""The public calls beside `push`, of both drivers and the command: a layer, a manifest, an artifact, many images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import regproto_sync
import regproto_trio
from archives import docker_save, layout_tar
from images import (
    FOREIGN_LAYER,
    LayoutBuilder,
    blob_path,
    image_layout,
    layer,
    layers_of,
    platforms_layout,
    root_digest,
)
from pushes import described
from regproto import Blob, ContentError, Digest, InvalidReferenceError, PushOutcome, RegistryError
from regproto._model.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from regproto.testing import FakeRegistry, RegistryOptions
from regproto_sync import Server, SourceNotFound, blob_of, bytes_blob
from regproto_sync.cli.main import main

LAYER = "application/vnd.oci.image.layer.v1.tar"
ABSENT = "sha256:" + "0" * 64


class Calls:
    """The public calls of one driver, as blocking functions."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._module, name)
        if self._module is regproto_sync:
            return call  # type: ignore[no-any-return]

        def run(*arguments: Any, **options: Any) -> Any:
            async def within() -> Any:
                with trio.fail_after(60):
                    return await call(*arguments, **options)

            return trio.run(within)

        return run


@pytest.fixture(params=[regproto_sync, regproto_trio], ids=["sync", "trio"])
def calls(request: pytest.FixtureRequest) -> Calls:
    return Calls(request.param)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry(RegistryOptions(log_max=1_000))


@pytest.fixture
def host(registry: FakeRegistry) -> Iterator[str]:
    with Server(registry) as server:
        yield f"127.0.0.1:{server.port}"


def requests(registry: FakeRegistry, method: str) -> list[str]:
    return [target for found, target, _ in registry.log if found == method]


# --- one layer --------------------------------------------------------------------------------------------------


def test_layer_alone(calls: Calls, registry: FakeRegistry, host: str, tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"layer")
    digest = Digest.of(b"layer")
    first = calls.push_layer(f"{tmp_path}/layer:{LAYER}", f"{host}/team/app")
    assert (first.outcome, first.digest, first.uploaded) == (PushOutcome.PUSHED, None, (digest,))
    assert registry.content(digest) == b"layer"
    there = calls.push_layer(bytes_blob(b"layer", LAYER), f"{host}/team/app", config=None, seed=1)
    assert there.outcome is PushOutcome.PUSHED
    mounted = calls.push_layer(tmp_path / "layer", f"{host}/team/copy", mount_from=["team/app"])
    assert mounted.mounted == (digest,)


def test_layer_of_no_bytes_and_of_sha512(calls: Calls, registry: FakeRegistry, host: str) -> None:
    for blob in (bytes_blob(b"", LAYER), bytes_blob(b"long digest", LAYER, algorithm="sha512")):
        assert calls.push_layer(blob, f"{host}/team/app").uploaded == (blob.descriptor.digest,)
        assert blob.descriptor.digest in registry.blobs("team/app")


def test_what_is_no_layer(calls: Calls, tmp_path: Path) -> None:
    for reference in ("registry.example/app:1", f"registry.example/app@{ABSENT}", "registry.example/"):
        with pytest.raises(InvalidReferenceError):
            calls.push_layer(bytes_blob(b"", LAYER), reference)
    with pytest.raises(SourceNotFound):
        calls.push_layer(str(tmp_path / "nothing"), "registry.example/app")
    with pytest.raises(ContentError, match="No such file"):
        calls.push_layer(tmp_path / "nothing", "registry.example/app")
    (tmp_path / "file").touch()
    with pytest.raises(ContentError, match="is not a media type"):
        calls.push_layer(f"{tmp_path}/file:x", "registry.example/app")


def test_altered_layer_is_named(calls: Calls, host: str) -> None:
    wrong = Blob(descriptor=bytes_blob(b"right", LAYER).descriptor, source=bytes_blob(b"wrong", LAYER).source)
    with pytest.raises(ContentError, match=f"the content of {wrong.descriptor.digest} does not match its digest"):
        calls.push_layer(wrong, f"{host}/team/app")


# --- one manifest -----------------------------------------------------------------------------------------------


def manifest_of(*layers: Blob, **extra: Any) -> bytes:
    config = bytes_blob(b"{}", OCI_CONFIG)
    fields = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config),
        "layers": [described(each) for each in layers],
        **extra,
    }
    return json.dumps(fields).encode()


def test_manifest_alone(calls: Calls, registry: FakeRegistry, host: str) -> None:
    content = manifest_of(bytes_blob(b"layer", LAYER))
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
        calls.put_manifest(content, f"{host}/team/app:1")
    for blob in (b"{}", b"layer"):
        registry.put_blob("team/app", blob)
    result = calls.put_manifest(content, f"{host}/team/app:1", tags=["2"])
    digest = Digest.of(content)
    assert (result.digest, result.tags) == (digest, ("1", "2"))
    assert registry.tags("team/app") == {"1": digest, "2": digest}
    assert registry.content(digest) == content
    assert requests(registry, "POST") == []


def test_manifest_by_digest(calls: Calls, registry: FakeRegistry, host: str) -> None:
    registry.put_blob("team/app", b"{}")
    content = manifest_of()
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(content, algorithm)
        assert calls.put_manifest(content, f"{host}/team/app@{digest}").digest == digest
        assert digest in registry.manifests("team/app")
    assert registry.tags("team/app") == {}
    with pytest.raises(ContentError, match=f"asks for {ABSENT}, but the manifest is"):
        calls.put_manifest(content, f"{host}/team/app@{ABSENT}")


@pytest.mark.parametrize(
    ("content", "media_type", "expected"),
    [
        (b"no", "", "is not JSON"),
        (b"{}", "text", "media type: 'text' is not a media type"),
        (b'{"schemaVersion":2}', OCI_MANIFEST, "needs a config"),
        (b'{"schemaVersion":1}', "", "schema 1"),
        (b" " * 5_000_000, "", "at most 4194304"),
    ],
)
def test_what_is_no_manifest(calls: Calls, content: bytes, media_type: str, expected: str) -> None:
    with pytest.raises(ContentError, match=expected):
        calls.put_manifest(content, "registry.example/app:1", media_type=media_type)


def test_media_type_that_is_told(calls: Calls, registry: FakeRegistry, host: str) -> None:
    content = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    calls.put_manifest(content, f"{host}/team/app:1", media_type=OCI_INDEX)
    assert registry.tags("team/app") == {"1": Digest.of(content)}


# --- tags -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [["2"], ["2", "3", "4"]])
def test_tags_for_what_is_there(
    calls: Calls, registry: FakeRegistry, host: str, tmp_path: Path, tags: list[str]
) -> None:
    digest = root_digest(image_layout(tmp_path / "layout"))
    calls.push(tmp_path / "layout", f"{host}/team/app:1")
    registry.log.clear()
    assert calls.tag(f"{host}/team/app:1", tags).digest == digest
    assert registry.tags("team/app") == dict.fromkeys(["1", *tags], digest)
    assert requests(registry, "GET") == ["/v2/team/app/manifests/1"]
    assert len(requests(registry, "PUT")) == 1 and requests(registry, "POST") == []
    assert calls.tag(f"{host}/team/app@{digest}", ["5"]).digest == digest
    assert registry.tags("team/app")["5"] == digest
    calls.tag(f"{host}/team/app:1", tags)
    assert len(requests(registry, "PUT")) == 2, "what is on it already is not put again"


def test_tags_for_an_index_and_what_can_not_be_tagged(
    calls: Calls, registry: FakeRegistry, host: str, tmp_path: Path
) -> None:
    digest = root_digest(platforms_layout(tmp_path / "layout"))
    calls.push(tmp_path / "layout", f"{host}/team/app")
    calls.tag(f"{host}/team/app", ["other"])
    assert registry.tags("team/app") == {"latest": digest, "other": digest}
    with pytest.raises(RegistryError, match="nothing of this name"):
        calls.tag(f"{host}/team/app:none", ["other"])
    with pytest.raises(RegistryError, match="nothing of this name"):
        calls.tag(f"{host}/team/app@{ABSENT}", ["other"])
    for tags in ([], ["a b"]):
        with pytest.raises(InvalidReferenceError):
            calls.tag(f"{host}/team/app", tags)


# --- artifacts --------------------------------------------------------------------------------------------------


def test_artifact(calls: Calls, registry: FakeRegistry, host: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    (tmp_path / "dir").mkdir()
    files = [f"{tmp_path}/a.txt:text/plain", tmp_path / "dir", bytes_blob(b"", "text/x", title="empty")]
    result = calls.push_artifact(
        files, f"{host}/team/art:1", artifact_type="application/x", annotations={"k": "v"}, tags=["2"]
    )
    manifest = json.loads(registry.content(result.digest))
    assert (manifest["artifactType"], manifest["annotations"]) == ("application/x", {"k": "v"})
    assert [each["mediaType"] for each in manifest["layers"]] == ["text/plain", f"{LAYER}+gzip", "text/x"]
    assert registry.tags("team/art") == {"1": result.digest, "2": result.digest}
    again = calls.push_artifact(
        files, f"{host}/team/art@{result.digest}", artifact_type="application/x", annotations={"k": "v"}
    )
    assert again.digest == result.digest
    with pytest.raises(ContentError, match=f"asks for {ABSENT}, but the artifact is"):
        calls.push_artifact(files, f"{host}/team/art@{ABSENT}")


def test_artifact_with_a_file_that_is_not_there(calls: Calls) -> None:
    with pytest.raises(SourceNotFound):
        calls.push_artifact(["nothing:text/plain"], "registry.example/art")


def test_path_with_a_colon_is_no_media_type(tmp_path: Path) -> None:
    (tmp_path / "a:text").mkdir()
    (tmp_path / "a:text" / "plain").touch()
    (tmp_path / "a").touch()
    assert blob_of(f"{tmp_path}/a:text/plain").descriptor.media_type == LAYER
    assert blob_of(f"{tmp_path}/a:text/html").descriptor.media_type == "text/html"


# --- several images ---------------------------------------------------------------------------------------------


def test_many_images_share_what_they_have_in_common(
    calls: Calls, registry: FakeRegistry, host: str, tmp_path: Path
) -> None:
    base = image_layout(tmp_path / "base", [2_000])
    more = image_layout(tmp_path / "more", [2_000, 3_000])
    archive = docker_save(tmp_path / "save.tar")
    results = calls.push_many(
        [(base, f"{host}/team/app:base"), (more, f"{host}/team/app:more"), (archive, f"{host}/team/other:1")]
    )
    assert [result.digest for result in results[:2]] == [root_digest(base), root_digest(more)]
    assert registry.tags("team/app") == {"base": root_digest(base), "more": root_digest(more)}
    assert registry.tags("team/other") == {"1": results[2].digest}
    (shared,) = layers_of(base, root_digest(base))
    assert [target for target in requests(registry, "POST") if shared.hex in target][1:] == []


def test_large_layers_are_mounted_from_one_repository_to_the_next(
    calls: Calls, registry: FakeRegistry, host: str, tmp_path: Path
) -> None:
    layout = image_layout(tmp_path / "layout", [400_000, 2_000])
    references = [f"{host}/team/{name}:1" for name in ("a", "b", "c")]
    results = calls.push_many([(layout, reference) for reference in references])
    large, small = layers_of(layout, root_digest(layout))
    assert large in results[0].uploaded
    assert results[1].mounted == results[2].mounted == (large,)
    assert all(small in result.uploaded for result in results)


def test_one_that_fails_stops_no_other(calls: Calls, registry: FakeRegistry, host: str, tmp_path: Path) -> None:
    good, bad = image_layout(tmp_path / "good", [2_000]), image_layout(tmp_path / "bad", [3_000])
    (damaged,) = layers_of(bad, root_digest(bad))
    blob_path(bad, damaged).write_bytes(b"x" * 3_000)
    with pytest.raises(ContentError, match=f"blobs/sha256/{damaged.hex}: the content .* does not match"):
        calls.push_many([(bad, f"{host}/team/app:bad"), (good, f"{host}/team/app:good")])
    assert registry.tags("team/app") == {"good": root_digest(good)}


def test_many_images_of_two_registries(calls: Calls, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    with pytest.raises(InvalidReferenceError, match="to one registry, not to one.example and two.example"):
        calls.push_many([(layout, "one.example/app"), (layout, "two.example/app")])
    assert calls.push_many([]) == []


# --- kinds of content -------------------------------------------------------------------------------------------


def test_foreign_layers_and_sparse_indexes(calls: Calls, host: str, tmp_path: Path) -> None:
    build = LayoutBuilder(tmp_path / "foreign")
    path = build.entry(build.image([layer(1, 2_000), layer(2, 2_000)], media_types=[FOREIGN_LAYER]))
    foreign = layers_of(path, root_digest(path))[0]
    skipped = calls.push(path, f"{host}/team/app:1").skipped
    assert [each.digest for each in skipped] == [foreign]
    sent = calls.push(path, f"{host}/team/all:1", nondistributable=True)
    assert foreign in sent.uploaded


def test_sparse_index(calls: Calls, tmp_path: Path) -> None:
    path = platforms_layout(tmp_path / "platforms")
    missing = json.loads(blob_path(path, root_digest(path)).read_text())["manifests"][1]["digest"]
    blob_path(path, missing).unlink()
    registry = FakeRegistry(RegistryOptions(sparse_indexes=True))
    with Server(registry) as server:
        result = calls.push(path, f"127.0.0.1:{server.port}/team/app:1", sparse=True)
    assert [each.digest for each in result.skipped] == [missing]
    assert missing not in registry.manifests("team/app")


@pytest.mark.parametrize("many", [False, True])
def test_damaged_layers_are_found_before_anything_is_sent_where_asked_for(
    calls: Calls, registry: FakeRegistry, host: str, tmp_path: Path, many: bool
) -> None:
    layout = image_layout(tmp_path / "layout", [3_000])
    archive = layout_tar(layout, tmp_path / "good.tar")
    calls.push(archive, f"{host}/team/app:1", verify=True)
    asked = registry.requests
    (damaged,) = layers_of(layout, root_digest(layout))
    blob_path(layout, damaged).write_bytes(b"x" * 3_000)
    for source in (layout, layout_tar(layout, tmp_path / "bad.tar")):
        with pytest.raises(ContentError, match=f"blobs/sha256/{damaged.hex}: the content .* does not match"):
            if many:
                calls.push_many([(source, f"{host}/team/app:2"), (source, f"{host}/team/b:2")], verify=True)
            else:
                calls.push(source, f"{host}/team/app:2", verify=True)
    assert registry.requests == asked


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_commands(
    registry: FakeRegistry, host: str, run: Any, tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "layer").write_bytes(b"layer")
    (tmp_path / "config").write_bytes(b"{}")
    (tmp_path / "manifest").write_bytes(manifest_of(bytes_blob(b"layer", LAYER)))
    digest = Digest.of((tmp_path / "manifest").read_bytes())
    options = ("--quiet", "--driver", driver)
    for _ in range(2):
        pushed = run("push-layer", tmp_path / "layer", f"{host}/team/app", *options)
        assert pushed == (0, f"{host}/team/app@{Digest.of(b'layer')}\n", "")
    assert run("push-layer", f"{tmp_path}/config:{OCI_CONFIG}", f"{host}/team/app", *options)[0] == 0
    named = f"{host}/team/app@{digest}\n"
    assert run("put-manifest", tmp_path / "manifest", f"{host}/team/app:1", "-t", "2", *options) == (0, named, "")
    with (tmp_path / "manifest").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert run("put-manifest", "-", f"{host}/team/app:3", *options) == (0, named, "")
    assert registry.tags("team/app") == dict.fromkeys("123", digest)
    code, out, _ = run(
        "push-artifact",
        f"{host}/team/art:1",
        f"{tmp_path}/layer:text/plain",
        *("--artifact-type", "application/x", "-a", "k=v", "--annotation", "empty=", "-t", "2"),
        *options,
    )
    assert (code, registry.tags("team/art")) == (0, dict.fromkeys("12", Digest(out.strip().rpartition("@")[2])))
    manifest = json.loads(registry.content(registry.tags("team/art")["1"]))
    assert (manifest["artifactType"], manifest["annotations"]) == ("application/x", {"k": "v", "empty": ""})
    assert run("push-artifact", f"{host}/team/art:empty", *options)[0] == 0
    assert run("tag", f"{host}/team/app:1", "4", "5", *options) == (0, named, "")
    assert registry.tags("team/app") == dict.fromkeys("12345", digest)


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_push_command_with_several_references(
    registry: FakeRegistry, host: str, run: Any, tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = image_layout(tmp_path / "layout", [2_000])
    digest = root_digest(layout)
    references = [f"{host}/team/app:1", f"{host}/team/app:2", f"{host}/team/other:1"]
    with layout_tar(layout, tmp_path / "image.tar").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        done = run("push", "-", *references, "--quiet", "--driver", driver)
    assert run("push", layout, references[0], "--verify", "--quiet", "--driver", driver)[0] == 0
    lines = [f"{host}/team/app@{digest}"] * 2 + [f"{host}/team/other@{digest}"]
    assert done == (0, "".join(f"{line}\n" for line in lines), "")
    assert registry.tags("team/app") == {"1": digest, "2": digest}
    assert registry.tags("team/other") == {"1": digest}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["push-artifact", "registry.example/art", "-a", "novalue"], "novalue: expected KEY=VALUE"),
        (["push-artifact", "registry.example/art", "-a", "=v"], "=v: expected KEY=VALUE"),
        (["push-artifact", "registry.example/art", "nothing"], "nothing: no such file"),
        (["push-layer", "nothing", "registry.example/art"], "nothing: no such file"),
        (["push-layer", "/dev/null", "registry.example/art:1"], "without tag or digest"),
        (["push", "/dev/null", "registry.example/a", "registry.example/b", "--resume"], "takes one reference"),
        (["tag", "registry.example/art:1", "a b"], "is not a tag"),
        (["put-manifest", "nothing", "registry.example/art:1"], "nothing: No such file"),
        (["put-manifest", "a\0b", "registry.example/art:1"], "no such file"),
        (
            ["put-manifest", "-", "registry.example/a:1", "--username", "u", "--password-stdin"],
            "can't be both the password and the manifest",
        ),
    ],
)
def test_commands_used_wrongly(run: Any, arguments: list[str], expected: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert expected in err
