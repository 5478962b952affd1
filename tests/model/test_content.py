"""Digests, descriptors and manifests: what is taken, and what is refused in words that name it."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushes import blob, described, image
from regproto import ContentError, Descriptor, Digest, InvalidReferenceError, Manifest, parse_manifest
from regproto._model.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_MAX_BYTES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    parse_descriptor,
)

CONTENT = b"0123456789"
HEX = "0123456789abcdef" * 4
CONFIG = described(blob(b"{}", media_type=OCI_CONFIG))
PLAIN: dict[str, Any] = {"schemaVersion": 2, "config": CONFIG, "layers": []}


def as_bytes(**fields: Any) -> bytes:
    """An image manifest with these fields changed; None takes one out."""
    return json.dumps({k: v for k, v in (PLAIN | fields).items() if v is not None}).encode()


# --- digests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "length"), [("sha256", 64), ("sha384", 96), ("sha512", 128)])
def test_a_digest(algorithm: str, length: int) -> None:
    digest = Digest.of(CONTENT, algorithm)
    assert digest.algorithm == algorithm and len(digest.hex) == length
    assert digest == f"{algorithm}:{digest.hex}" and Digest(digest) is digest
    assert copy.deepcopy(digest) == pickle.loads(pickle.dumps(digest)) == digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected algorithm:hex"),
        (HEX, "expected algorithm:hex"),
        (f"sha256:{HEX}\n", "expected algorithm:hex"),
        (f"SHA256:{HEX}", "expected algorithm:hex"),
        (f"sha256:{HEX}/../x", "expected algorithm:hex"),
        (f"md5:{HEX[:32]}", "not supported"),
        (f"sha256:{HEX.upper()}", "lower-case hex"),
        (f"sha256:{HEX[1:]}", "needs 64"),
        (f"sha512:{HEX}", "needs 128"),
        (f"sha256:{HEX[:-1]}g", "lower-case hex"),
    ],
)
def test_no_digest(text: str, says: str) -> None:
    with pytest.raises(InvalidReferenceError, match=says):
        Digest(text)


@given(st.text(max_size=200))
def test_a_digest_never_leaves_its_folder(text: str) -> None:
    try:
        digest = Digest(text)
    except InvalidReferenceError:
        return
    assert not set(digest) & set("/\\. \n")


# --- descriptors ------------------------------------------------------------------------------------------------


def test_a_descriptor() -> None:
    raw = {
        "mediaType": OCI_CONFIG,
        "digest": Digest.of(CONTENT),
        "size": 10,
        "data": base64.b64encode(CONTENT).decode(),
        "annotations": {"a": "b"},
        "artifactType": "application/vnd.example",
        "urls": ["https://elsewhere.example"],
    }
    assert parse_descriptor(raw, "here") == Descriptor(
        media_type=OCI_CONFIG,
        digest=Digest.of(CONTENT),
        size=10,
        data=CONTENT,
        annotations={"a": "b"},
        artifact_type="application/vnd.example",
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": None}, "not a byte count"),
        ({"size": -1}, "not a byte count"),
        ({"size": True}, "not a byte count"),
        ({"size": "10"}, "not a byte count"),
        ({"size": 2**63}, "not a byte count"),
        ({"size": 1.5}, "not a byte count"),
        ({"digest": None}, "expected algorithm:hex"),
        ({"digest": 7}, "expected algorithm:hex"),
        ({"digest": "sha256:../../etc"}, "expected algorithm:hex"),
        ({"mediaType": None}, "not a media type"),
        ({"mediaType": "text"}, "not a media type"),
        ({"mediaType": "a/b\r\nX-Evil: 1"}, "not a media type"),
        ({"artifactType": "x"}, "artifactType"),
        ({"artifactType": 7}, "artifactType"),
        ({"data": 7}, "not base64"),
        ({"data": "?"}, "not base64"),
        ({"data": "MDEyMw=="}, "does not match its own digest"),
        ({"annotations": []}, "object of strings"),
        ({"annotations": {"a": 1}}, "object of strings"),
    ],
)
def test_no_descriptor(change: dict[str, Any], says: str) -> None:
    raw = described(blob(CONTENT)) | change
    with pytest.raises(ContentError, match=f"^here: .*{says}"):
        parse_descriptor(raw, "here")


@pytest.mark.parametrize("raw", [None, [], "x", 7])
def test_a_descriptor_is_an_object(raw: object) -> None:
    with pytest.raises(ContentError, match="must be a JSON object"):
        parse_descriptor(raw, "here")


# --- manifests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_type", "own", "kind"),
    [
        (DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_MANIFEST),
        ("", OCI_MANIFEST, OCI_MANIFEST),
        ("", None, DOCKER_MANIFEST),
    ],
)
def test_whose_media_type_wins(given_type: str, own: str | None, kind: str) -> None:
    assert parse_manifest(as_bytes(mediaType=own), given_type).media_type == kind


def test_manifests_without_a_type_make_an_index() -> None:
    info = parse_manifest(b'{"schemaVersion": 2, "manifests": []}')
    assert info.media_type == OCI_INDEX and info.is_index and info.manifests == ()


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_an_index_names_manifests_only(kind: str) -> None:
    child = described(image().manifest)
    info = parse_manifest(as_bytes(mediaType=kind, manifests=[child], layers=[CONFIG]))
    assert info.config is None and info.layers == () and [m.digest for m in info.manifests] == [child["digest"]]


def test_what_a_manifest_says() -> None:
    info = parse_manifest(
        as_bytes(
            mediaType=OCI_MANIFEST,
            layers=[CONFIG, CONFIG],
            subject=CONFIG,
            artifactType="application/vnd.example",
            annotations={"a": "b"},
        )
    )
    assert info.config is not None and info.subject is not None and not info.is_index
    assert info.config.digest == info.subject.digest == info.layers[1].digest
    assert info.artifact_type == "application/vnd.example" and info.annotations == {"a": "b"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "must be a JSON object"),
        (b" " * (MANIFEST_MAX_BYTES + 1), "4 MiB"),
        (as_bytes(schemaVersion=1), "schema 1"),
        (as_bytes(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1"),
        (as_bytes(schemaVersion=None), "schemaVersion must be 2"),
        (as_bytes(schemaVersion="2"), "schemaVersion must be 2"),
        (as_bytes(mediaType="application/json"), "not a manifest or index media type"),
        (as_bytes(mediaType="no type"), "not a media type"),
        (as_bytes(mediaType=7), "not a media type"),
        (as_bytes(config=None), "needs a config"),
        (as_bytes(config={"size": -1}), "config: descriptor size"),
        (as_bytes(layers={"a": 1}), "layers must be a list"),
        (as_bytes(layers=[CONFIG, {}]), r"layers\[1\]: descriptor size"),
        (as_bytes(subject=[1]), "subject: a descriptor"),
        (as_bytes(artifactType="x"), "artifactType"),
        (as_bytes(annotations=7), "annotations must be"),
    ],
)
def test_no_manifest(content: bytes, says: str) -> None:
    with pytest.raises(ContentError, match=f"^thing: .*{says}"):
        parse_manifest(content, where="thing")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda c: (
            st.lists(c)
            | st.dictionaries(
                st.sampled_from(
                    ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "data"]
                ),
                c,
            )
        ),
    )
)
def test_nothing_else_is_raised(raw: object) -> None:
    for content in (json.dumps(raw).encode(), as_bytes(layers=raw, subject=raw)):
        try:
            parse_manifest(content)
        except ContentError as error:
            assert str(error).isprintable()


def test_a_manifest_from_its_bytes() -> None:
    whole = image(CONTENT)
    again = Manifest.of(whole.manifest.content, whole.manifest.descriptor)
    assert again.info == whole.manifest.info and again.descriptor.digest == Digest.of(again.content)
    assert [d.digest for d in again.names()] == [b.descriptor.digest for b in whole.blobs]


def test_a_manifest_that_is_not_what_its_descriptor_says() -> None:
    whole = image(CONTENT)
    with pytest.raises(ContentError, match="bytes long"):
        Manifest.of(whole.manifest.content + b" ", whole.manifest.descriptor)
    with pytest.raises(ContentError, match="does not match its digest"):
        Manifest.of(whole.manifest.content.replace(b"10", b"11"), whole.manifest.descriptor)
