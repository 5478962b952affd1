"""One transient fault at each request of a push of streams: borne, as long as all of a stream is kept."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import regproto_sync
import regproto_trio
from fault_runs import CONFIG, Runs, Tally, _keychain, fake
from faulty import Kind
from images import LayoutBuilder, layer
from regproto import Config, Descriptor, Digest, RegprotoError
from regproto._model.manifest import OCI_CONFIG, OCI_MANIFEST
from regproto_sync import Layer
from regproto_sync.sources.layers import OCI_LAYER, image_config, image_manifest

SIZES = (300_000, 20_000)


def streamed(path: Path) -> Path:
    """A folder with tars, and the blobs of the image that is made of them."""
    build = LayoutBuilder(path)
    described = []
    for number, size in enumerate(SIZES):
        content = zlib.decompress(layer(number, size), 31)
        (path / f"{number}.tar").write_bytes(content)
        described.append(build.blob(content, OCI_LAYER))
    config = image_config({}, [each["digest"] for each in described])
    build.blob(config, OCI_CONFIG)
    build.blob(image_manifest(config, [_descriptor(each) for each in described]).content, OCI_MANIFEST)
    return path


def _descriptor(described: dict[str, Any]) -> Descriptor:
    return Descriptor(media_type=OCI_LAYER, digest=Digest(described["digest"]), size=described["size"])


def _layers(path: Path) -> list[Layer]:
    return [Layer.stream(path / f"{number}.tar", compression="none") for number in range(len(SIZES))]


def by_sync(path: Path, reference: str, config: Config) -> str:
    """The blocking driver."""
    try:
        regproto_sync.push_image({}, _layers(path), reference, config=config, keychain=_keychain, seed=1)
    except RegprotoError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def by_trio(path: Path, reference: str, config: Config) -> str:
    """The trio driver."""

    async def push() -> None:
        layers = _layers(path)
        await regproto_trio.push_image({}, layers, reference, config=config, keychain=_keychain, seed=1)

    try:
        trio.run(push)
    except RegprotoError as error:
        return f"{type(error).__name__}: {error}"
    return ""


CLIENTS: dict[str, Callable[[Path, str, Config], str]] = {"sync": by_sync, "trio": by_trio}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with fake() as target:
        yield Runs(target, CLIENTS, {"streams": streamed(tmp_path_factory.mktemp("streams") / "image")}, jobs=8)


@pytest.mark.parametrize("client", CLIENTS)
def test_one_fault_anywhere_is_borne(runs: Runs, client: str) -> None:
    cells = runs.cells(client, "streams", step=3)
    assert {cell.kind for cell in cells} == set(Kind)
    tally = Tally(tuple(runs.run(cells)), 0.0)
    assert tally.lied == 0
    assert tally.succeeded == len(tally.counted), list(tally.failures())
    assert len(tally.counted) >= len(cells) - 6
    assert CONFIG.stream_buffer_bytes > sum(SIZES)
