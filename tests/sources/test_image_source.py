"""Images of an embedder's own: bytes in memory, content that describes itself, a source of its own making."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, BinaryIO

import pytest
import trio

import regproto_sync
import regproto_trio
from pushes import described, image, index
from regproto import Blob, ContentError, Descriptor, Digest, PushResult, TransportError
from regproto._model.manifest import OCI_CONFIG, OCI_MANIFEST
from regproto.testing import FakeRegistry
from regproto_sync import Content, ContentChanged, ContentSource, ImageSource, Server, bytes_blob, image_of, plan_source

LAYER = "application/vnd.oci.image.layer.v1.tar"


class Stored:
    """Content that describes itself, and counts how often it was opened."""

    def __init__(self, content: bytes, *, changed: bool = False) -> None:
        self.content = content
        self.changed = changed
        self.opened: list[int] = []

    def describe(self) -> Descriptor:
        return Descriptor(media_type=LAYER, digest=Digest.of(self.content), size=len(self.content))

    def open(self, offset: int = 0) -> BinaryIO:
        self.opened.append(offset)
        return io.BytesIO(self.content[offset:] + b"what comes after it")

    def check(self, stream: BinaryIO) -> None:
        if self.changed:
            raise ContentChanged("changed in the database")


def sync_push(*arguments: Any, **options: Any) -> PushResult:
    return regproto_sync.push(*arguments, **options)


def trio_push(*arguments: Any, **options: Any) -> PushResult:
    async def run() -> PushResult:
        with trio.fail_after(30):
            return await regproto_trio.push(*arguments, **options)

    return trio.run(run)


DRIVERS = pytest.mark.parametrize("push", [sync_push, trio_push])


def image_bytes(*layers: bytes, config: bytes = b"{}", algorithm: str = "sha256") -> bytes:
    def describe(content: bytes, kind: str) -> dict[str, Any]:
        return described(bytes_blob(content, kind, algorithm=algorithm))

    fields = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": describe(config, OCI_CONFIG),
        "layers": [describe(content, LAYER) for content in layers],
    }
    return json.dumps(fields).encode()


@DRIVERS
def test_content_that_describes_itself(push: Callable[..., PushResult]) -> None:
    layer = Stored(b"from a database" * 20_000)
    assert isinstance(layer, ContentSource)
    registry = FakeRegistry()
    with Server(registry) as server:
        source = image_of(image_bytes(layer.content), [b"{}", layer])
        result = push(source, f"127.0.0.1:{server.port}/team/app:1")
    assert layer.opened
    assert registry.content(Digest.of(layer.content)) == layer.content
    assert registry.tags("team/app") == {"1": result.digest}


@DRIVERS
def test_content_that_has_changed_is_not_committed(push: Callable[..., PushResult]) -> None:
    layer = Stored(b"from a database", changed=True)
    registry = FakeRegistry()
    with Server(registry) as server:
        source = image_of(image_bytes(layer.content), [b"{}", layer])
        with pytest.raises((ContentError, TransportError), match="changed in the database"):
            push(source, f"127.0.0.1:{server.port}/team/app:1")
    assert registry.tags("team/app") == {}
    assert Digest.of(layer.content) not in registry.blobs("team/app")


@DRIVERS
def test_bytes_in_memory_by_sha512(push: Callable[..., PushResult]) -> None:
    content = image_bytes(b"layer", b"", algorithm="sha512")
    registry = FakeRegistry()
    with Server(registry) as server:
        source = image_of(content, [b"{}", b"layer", b""], algorithm="sha512")
        result = push(source, f"127.0.0.1:{server.port}/team/app:1")
    assert result.digest == Digest.of(content, "sha512")
    assert registry.blobs("team/app") == {Digest.of(c, "sha512") for c in (b"{}", b"layer", b"")}


@DRIVERS
def test_index_in_memory(push: Callable[..., PushResult]) -> None:
    whole = index(image(b"a", config=b"1"), image(b"b", config=b"2"))
    children = [child.manifest.content for child in whole.children]
    registry = FakeRegistry()
    with Server(registry) as server:
        source = image_of(whole.manifest.content, [b"a", b"b", b"1", b"2"], children=children)
        result = push(source, f"127.0.0.1:{server.port}/team/app:1")
    assert result.digest == whole.digest
    assert len(registry.manifests("team/app")) == 3


class Database(ImageSource):
    """A source of an embedder's own."""

    name = "database"

    def __init__(self, manifest: bytes, **contents: bytes) -> None:
        self.manifest = manifest
        self.contents = {Digest.of(content): content for content in contents.values()}

    @property
    def root(self) -> Descriptor:
        return Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(self.manifest), size=len(self.manifest))

    def read_manifest(self, descriptor: Descriptor) -> bytes | None:
        return self.manifest if descriptor.digest == self.root.digest else None

    def find_content(self, descriptor: Descriptor) -> Content | None:
        found = self.contents.get(descriptor.digest)
        return None if found is None else Stored(found)


@DRIVERS
def test_source_of_an_embedders_own(push: Callable[..., PushResult]) -> None:
    registry = FakeRegistry()
    with Server(registry) as server:
        source = Database(image_bytes(b"layer"), config=b"{}", layer=b"layer")
        result = push(source, f"127.0.0.1:{server.port}/team/app:1")
    assert result.digest == source.root.digest


def test_what_a_source_gives_is_checked() -> None:
    source = Database(image_bytes(b"layer"), config=b"{}")
    with pytest.raises(ContentError, match=r"^database: .* which is not in the source"):
        plan_source(source, "registry.example/app")
    wrong = Database(image_bytes(b"layer"), layer=b"layer")
    wrong.contents[Digest.of(b"{}")] = b"[]"
    with pytest.raises(ContentError, match="^database: .* does not match its digest"):
        plan_source(wrong, "registry.example/app")
    with pytest.raises(ContentError, match="which is not in the source"):
        plan_source(image_of(image_bytes(b"layer"), [b"{}"]), "registry.example/app")
    short = Database(image_bytes(b"layer", config=b"{ }"), layer=b"layer")
    short.contents[Digest.of(b"{ }")] = b""
    short.find_content = lambda d: Short() if d.media_type == OCI_CONFIG else Stored(b"layer")  # type: ignore[method-assign]
    with pytest.raises(ContentError, match="ends 3 bytes too early"):
        plan_source(short, "registry.example/app")
    with pytest.raises(ContentError, match="not JSON"):
        image_of(b"no")


class Short(Stored):
    def __init__(self) -> None:
        super().__init__(b"")

    def open(self, offset: int = 0) -> BinaryIO:
        return io.BytesIO()


def test_blobs_as_contents_of_an_image() -> None:
    there = Blob(descriptor=bytes_blob(b"{}", OCI_CONFIG).descriptor)
    source = image_of(image_bytes(b"layer"), [there, bytes_blob(b"layer", LAYER)])
    with pytest.raises(ContentError, match=f"{OCI_CONFIG.replace('+', '.')}.*, which is not in the source"):
        plan_source(source, "registry.example/app")
    planned = plan_source(source, "registry.example/app", mount_from=["team/base"])
    assert [blob.source is None for blob in planned.push.blobs] == [True, False]
