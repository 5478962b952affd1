"""What layers are made of: pipes that do not block, objects of every kind, and what is no tar or not all of one."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from archives import plain_layer, tar_bytes
from calls import calling
from regproto import ContentError, Descriptor, Digest, PushResult
from regproto.testing import FakeRegistry
from regproto_sync import Layer, Server
from regproto_sync.sources.tar import TarCheck

TAR = tar_bytes([(f"file-{n}", bytes([n]) * 5_000) for n in range(60)])
OCI = "application/vnd.oci.image.layer.v1.tar"
REPO = "team/app"


def where(server: Server) -> str:
    return f"127.0.0.1:{server.port}/{REPO}"


# --- how it is read -------------------------------------------------------------------------------------------


def slow_pipe(content: bytes, buffering: int) -> BinaryIO:
    """A pipe that does not block, into which content comes in parts."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def feed() -> None:
        for at in range(0, len(content), 60_000):
            time.sleep(0.02)
            view = memoryview(content)[at : at + 60_000]
            while view:
                view = view[os.write(writing, view) :]
        os.close(writing)

    threading.Thread(target=feed, daemon=True).start()
    return os.fdopen(reading, "rb", buffering=buffering)  # type: ignore[return-value]


@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.parametrize("buffering", [0, -1])
def test_a_pipe_that_does_not_block_is_waited_for(
    driver: str, buffering: int, spool: bool, registry: FakeRegistry, server: Server
) -> None:
    layer = Layer.stream(slow_pipe(TAR, buffering), compression="none")
    calling(driver, "push_layer")(layer, where(server), spool=spool)
    assert registry.content(Digest.of(TAR)) == TAR


class Reader:
    """An object with `read` alone, which tells what comes of each call."""

    def __init__(self, *script: Any, content: bytes = TAR, piece: int = 7_777) -> None:
        self.script, self.content, self.piece = list(script), io.BytesIO(content), piece

    def read(self, size: int, /) -> Any:
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            return step
        return self.content.read(min(size, self.piece))

    def close(self) -> None:
        pass


class PollableReader(Reader):
    """One that can be waited for: a file stands for it that is always ready."""

    descriptor: int | None = None

    def fileno(self) -> int:
        if self.descriptor is None:
            self.descriptor = os.open(os.devnull, os.O_RDONLY)
        return self.descriptor

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


READ: dict[str, tuple[Callable[[], Reader], str]] = {
    "short reads": (lambda: Reader(), ""),
    "nothing yet": (lambda: PollableReader(None, None), ""),
    "it would block": (lambda: PollableReader(BlockingIOError()), ""),
    "interrupted": (lambda: Reader(InterruptedError()), ""),
    "bytearrays": (lambda: Reader(bytearray(TAR[:100_000]), content=TAR[100_000:]), ""),
    "nothing yet, and no file": (lambda: Reader(None), "can't be waited for"),
    "would block, and no file": (lambda: Reader(BlockingIOError()), "can't be waited for"),
    "never anything": (lambda: PollableReader(*[None] * 2_000), "again and again"),
    "text": (lambda: Reader("text"), "gives str, not bytes"),
    "too much": (lambda: Reader(bytes(300_000)), "gives 300000 bytes where"),
    "breaks": (lambda: Reader(OSError(5, "Input/output error")), "Input/output error"),
}


@pytest.mark.parametrize("case", READ)
def test_objects_that_can_be_read(driver: str, case: str, registry: FakeRegistry, server: Server) -> None:
    make, says = READ[case]
    layer = Layer.stream(make(), compression="none")  # type: ignore[arg-type]
    push_layer = calling(driver, "push_layer")
    if says:
        with pytest.raises(ContentError, match=says):
            push_layer(layer, where(server))
        assert not registry.blobs(REPO)
    else:
        push_layer(layer, where(server))
        assert registry.content(Digest.of(TAR)) == TAR


def test_a_file_in_text_mode(driver: str, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(b"text")
    with path.open("r") as file, pytest.raises(ContentError, match="open it in binary mode"):
        calling(driver, "push_layer")(Layer.stream(file, compression="none"), where(server))  # type: ignore[arg-type]


class Stored:
    """Content of an embedder's own, whose stream gives what it likes."""

    def __init__(self, *script: Any) -> None:
        self.script = script

    def describe(self) -> Descriptor:
        return Descriptor(media_type="a/b", digest=Digest.of(TAR), size=len(TAR))

    def open(self, offset: int = 0) -> Any:
        return Reader(*self.script, content=TAR[offset:])

    def check(self, stream: BinaryIO) -> None:
        """It never changes."""


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ((), ""),
        ((InterruptedError(),), ""),
        ((None,), "can't be waited for"),
        (("text",), "gives str, not bytes"),
        ((bytes(len(TAR) + 1),), f"gives {len(TAR) + 1} bytes where"),
    ],
)
def test_content_of_an_embedders_own(
    driver: str, script: tuple[Any, ...], says: str, registry: FakeRegistry, server: Server
) -> None:
    push_layer = calling(driver, "push_layer")
    if says:
        with pytest.raises(ContentError, match=says):
            push_layer(Stored(*script), where(server))
        assert not registry.blobs(REPO)
    else:
        push_layer(Stored(*script), where(server))
        assert registry.content(Digest.of(TAR)) == TAR


# --- what it has to be ----------------------------------------------------------------------------------------

WITHOUT_END = TAR[: len(TAR.rstrip(b"\0")) + -len(TAR.rstrip(b"\0")) % 512]
BAD = {
    "nothing": (b"", "is empty"),
    "some bytes": (b"some text\n", "is not a tar archive"),
    "text": (b"some text\n" * 1_000, "is not a tar archive"),
    "gzip": (gzip.compress(TAR), "is gzip already"),
    "little gzip": (gzip.compress(b""), "is gzip already"),
    "xz": (lzma.compress(TAR), "is xz already"),
    "bzip2": (bz2.compress(TAR), "is bzip2 already"),
    "few zeros": (bytes(1_000), "is not a tar archive"),
    "zeros and text": (bytes(512) + b"x" * 512, "is not a tar archive"),
    "cut in a header": (TAR[:300], "is not a tar archive"),
    "cut in the first file": (TAR[:1_000], "is cut short"),
    "cut in a file": (TAR[:300_000], "is cut short"),
    "cut in a later header": (TAR[: 512 + 5_120 + 100], "is cut short"),
    "a damaged header": (TAR[: 512 + 5_120] + b"x" * 512 + TAR[512 + 5_120 + 512 :], "or damaged"),
}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_tar(driver: str, case: str, compression: str, registry: FakeRegistry, server: Server) -> None:
    content, says = BAD[case]
    push_image = calling(driver, "push_image")
    for spool in (False, True):
        layers = [Layer.stream(io.BytesIO(content), compression=compression)]
        with pytest.raises(ContentError, match=says):
            push_image({}, layers, f"{where(server)}:1.0", spool=spool)
    assert not registry.blobs(REPO) and not registry.tags(REPO)
    if len(content) < 200_000:  # seen at its beginning
        assert not registry.log


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_files_are_looked_at_before_anything_is_sent(
    driver: str, compression: str, registry: FakeRegistry, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "good.tar").write_bytes(TAR)
    (tmp_path / "bad.tar").write_bytes(b"some text\n" * 100_000)
    layers = [Layer.stream(tmp_path / name, compression=compression) for name in ("good.tar", "bad.tar")]
    with pytest.raises(ContentError, match=r"bad\.tar: is not a tar archive"):
        calling(driver, "push_image")({}, layers, f"{where(server)}:1.0")
    assert not registry.log


def test_empty_tars_and_tars_without_an_end(driver: str, registry: FakeRegistry, server: Server) -> None:
    # GNU tar takes a tar that ends after a member. Through a pipe nobody knows whether its maker died there.
    push_layer = calling(driver, "push_layer")
    for content in (bytes(1_024), bytes(10_240), WITHOUT_END, WITHOUT_END + bytes(512), TAR + b"whatever"):
        push_layer(Layer.stream(io.BytesIO(content), compression="none"), where(server))
        assert registry.content(Digest.of(content)) == content
    for content in (bytes(1_024), WITHOUT_END + bytes(512)):
        push_layer(Layer.stream(slow_pipe(content, 0), compression="none"), where(server))
    with pytest.raises(ContentError, match="without the empty blocks"):
        push_layer(Layer.stream(slow_pipe(WITHOUT_END, 0), compression="none"), where(server))


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_tars_that_are_compressed_already(driver: str, how: str, registry: FakeRegistry, server: Server) -> None:
    pack: Callable[[bytes], bytes] = partial(gzip.compress, mtime=0)
    if how == "zstd":
        pack = pytest.importorskip("zstandard").ZstdCompressor().compress
    push_image = calling(driver, "push_image")

    def pushed(content: bytes) -> PushResult:
        layer = Layer.stream(io.BytesIO(content), compression="none", media_type=f"{OCI}+{how}")
        return push_image({}, [layer], f"{where(server)}:1.0")

    result = pushed(pack(TAR))
    assert result.digest is not None
    manifest = json.loads(registry.content(result.digest))
    config = json.loads(registry.content(Digest(manifest["config"]["digest"])))
    assert config["rootfs"]["diff_ids"] == [Digest.of(TAR)]
    assert manifest["layers"][0]["digest"] == Digest.of(pack(TAR))
    for content, says in (
        (TAR, f"is not {how}"),
        (pack(TAR)[:-9], "is cut short"),
        (pack(TAR[:300_000]), "is cut short"),
        (pack(b"text" * 1_000), "is not a tar"),
        (b"", "is empty"),
    ):
        with pytest.raises(ContentError, match=says):
            pushed(content)


def test_a_media_type_that_says_something_else() -> None:
    for compression, media_type in (("gzip", OCI), ("gzip", f"{OCI}+zstd")):
        with pytest.raises(ContentError, match=f"is not what {compression} makes"):
            Layer.stream(io.BytesIO(TAR), compression=compression, media_type=media_type)


def test_what_is_no_layer_may_be_anything(driver: str, registry: FakeRegistry, server: Server) -> None:
    push_layer = calling(driver, "push_layer")
    for content in (b"text", gzip.compress(TAR), TAR[:1_000]):
        push_layer(Layer.stream(io.BytesIO(content), compression="none", media_type="a/b"), where(server))
        assert registry.content(Digest.of(content)) == content
    with pytest.raises(ContentError, match="is empty"):
        push_layer(Layer.stream(io.BytesIO(b""), compression="none", media_type="a/b"), where(server))


@pytest.mark.parametrize("command", ["push-layer", "push-image"])
@pytest.mark.parametrize("content", [b"", b"text", TAR[:1_000], gzip.compress(TAR)], ids=["none", "text", "cut", "gz"])
def test_the_command(driver: str, command: str, content: bytes, registry: FakeRegistry, server: Server) -> None:
    words = [command, "-", where(server)] if command == "push-layer" else [command, where(server), "-"]
    run = [sys.executable, "-m", "regproto_sync", *words, "--driver", driver]
    done = subprocess.run(run, input=content, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, b""), done.stderr
    assert b"Traceback" not in done.stderr
    assert not registry.log


def test_standard_input_that_is_closed(server: Server, tmp_path: Path) -> None:
    for words in ("push-layer -", "put-manifest -"):
        name, file = words.split()
        command = ["sh", "-c", '"$@" <&-', "sh", sys.executable, "-m", "regproto_sync", name, file, where(server)]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode in (1, 2) and b"is closed" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["push", "put-manifest"])
def test_standard_input_that_does_not_block(command: str, registry: FakeRegistry, server: Server) -> None:
    manifest = json.dumps({"schemaVersion": 2, "manifests": [], "annotations": {"a": "x" * 200_000}}).encode()
    manifest = manifest.replace(b'{"schema', b'{"mediaType": "application/vnd.oci.image.index.v1+json", "schema', 1)
    content = manifest
    if command == "push":
        digest = Digest.of(manifest)
        entry = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": len(manifest)}
        index = {"schemaVersion": 2, "manifests": [entry]}
        content = tar_bytes(
            [
                ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
                ("index.json", json.dumps(index).encode()),
                (f"blobs/sha256/{digest.hex}", manifest),
            ]
        )
    pipe = slow_pipe(content, 0)
    run = [sys.executable, "-m", "regproto_sync", command, "-", f"{where(server)}:1.0"]
    done = subprocess.run(run, stdin=pipe, capture_output=True, timeout=60)
    pipe.close()
    assert done.returncode == 0, done.stderr
    assert registry.tags(REPO) == {"1.0": Digest.of(manifest)}


# --- tars that pass by ----------------------------------------------------------------------------------------

LONG = "folder/" * 20 + "x" * 120


def check(content: bytes, piece: int) -> None:
    found = TarCheck()
    for at in range(0, len(content), piece):
        found.feed(content[at : at + piece])
    found.end(measured=False)


@pytest.mark.parametrize("piece", [1, 511, 4_096, 1_000_000])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_header(format: int, piece: int) -> None:
    long = [(LONG, b"1")] if format != tarfile.USTAR_FORMAT else []
    content = tar_bytes([("a", b"x" * 2_000), ("folder/", b""), ("empty", b""), *long], format)
    check(content, piece)
    with pytest.raises(ContentError, match="cut short"):
        check(content[:2_000], piece)


def test_a_size_in_an_extended_header() -> None:
    entry = tarfile.TarInfo("a")
    entry.pax_headers = {"size": "3000"}
    content = entry.tobuf(tarfile.PAX_FORMAT) + bytes(range(256)) * 12 + bytes(1_024)
    check(content, 512)
    with pytest.raises(ContentError, match="cut short"):
        check(content[:3_000], 512)


def test_the_map_of_a_file_with_holes() -> None:
    """GNU's old form: blocks of a map between header and data, which are no headers."""
    header = bytearray(tarfile.TarInfo("holes").tobuf(tarfile.GNU_FORMAT))
    header[124:136], header[156:157], header[482] = b"%011o\0" % 700, b"S", 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    more, last = bytearray(b"m" * 512), bytearray(b"l" * 512)
    more[504], last[504] = 1, 0
    content = bytes(header + more + last) + b"d" * 1_024 + plain_layer(1)
    check(content, 100)
    with pytest.raises(ContentError, match="cut short"):
        check(content[:1_100], 100)


def test_extended_headers_are_bounded() -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 2_000_000
    with pytest.raises(ContentError, match="extended header of 2000000 bytes"):
        check(entry.tobuf(tarfile.USTAR_FORMAT) + bytes(2_000_000), 4_096)
