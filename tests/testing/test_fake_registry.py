"""The fake registry keeps to the distribution-spec: blobs, manifests, tags, referrers, faults, copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fake_requests import ABSENT, LAYER, REPO, UPLOADS, Client, as_bytes, described, image, index
from regproto._model.digest import Digest
from regproto._model.errors import LocalProtocolError
from regproto._model.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from regproto.testing import Etag, FakeRegistry, Fault, FaultKind, Request, When, Wire
from regproto_sync.server.disk import DiskStorage

MANIFESTS = f"/v2/{REPO}/manifests"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
SUBJECT = described(ABSENT, 7, OCI_MANIFEST)
TOO_LARGE = b'{"schemaVersion": 2}'.ljust(4 * 1024 * 1024 + 1)


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/v2/", 200, None),
        ("GET", "/v1/", 404, "UNSUPPORTED"),
        ("GET", "/token", 404, "UNSUPPORTED"),
        ("POST", "/v2/", 405, "UNSUPPORTED"),
        ("POST", f"/v2/{REPO}/tags/list", 405, "UNSUPPORTED"),
        ("PUT", UPLOADS, 405, "UNSUPPORTED"),
        ("BREW", f"{MANIFESTS}/v1", 405, "UNSUPPORTED"),
        ("POST", "/v2/Team/app/blobs/uploads/", 400, "NAME_INVALID"),
        ("POST", "/v2/a..b/blobs/uploads/", 400, "NAME_INVALID"),
        ("GET", f"/v2/{'a' * 256}/tags/list", 400, "NAME_INVALID"),
        ("GET", f"/v2/{REPO}/blobs/sha256:123", 400, "DIGEST_INVALID"),
        ("GET", f"/v2/{REPO}/blobs/uploads", 400, "DIGEST_INVALID"),
        ("GET", f"/v2/{REPO}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
        ("DELETE", f"/v2/{REPO}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
        ("GET", f"{MANIFESTS}/v1", 404, "NAME_UNKNOWN"),
        ("GET", f"{MANIFESTS}/.hidden", 400, "NAME_INVALID"),
        ("PUT", f"{MANIFESTS}/sha256:123", 400, "DIGEST_INVALID"),
        ("GET", f"/v2/{REPO}/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", f"/v2/{REPO}/referrers/sha256:x", 400, "DIGEST_INVALID"),
        ("GET", f"/v2/{REPO}/referrers/{ABSENT}", 200, None),
    ],
)
def test_endpoints_of_an_empty_registry(method: str, target: str, status: int, code: str | None) -> None:
    reply = Client()(method, target)
    assert (reply.status, reply.codes) == (status, (code,) if code else ())


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("", 200, b"0123456789", None),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-99", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=4-2", 416, b"", "bytes */10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_ranges_of_a_blob(asked: str, status: int, body: bytes, content_range: str | None) -> None:
    client = Client()
    digest = client.registry.put_blob(REPO, b"0123456789")
    reply = client("GET", f"/v2/{REPO}/blobs/{digest}", b"", {"Range": asked})
    assert (reply.status, reply.content, reply.header("content-range")) == (status, body, content_range)
    assert reply.header("content-length") == str(len(body))


def test_a_blob_is_there_until_it_is_deleted_from_its_last_repository() -> None:
    client = Client()
    digest = client.registry.put_blob(REPO, b"layer")
    client.registry.put_blob("other", b"layer")
    head = client("HEAD", f"/v2/{REPO}/blobs/{digest}")
    assert (head.status, head.content, head.header("content-length")) == (200, b"", "5")
    assert head.header("docker-content-digest") == digest
    assert client("DELETE", f"/v2/{REPO}/blobs/{digest}").status == 202
    assert client("HEAD", f"/v2/{REPO}/blobs/{digest}").status == 404
    assert client.registry.content(digest) == b"layer"
    assert client("DELETE", f"/v2/other/blobs/{digest}").status == 202
    with pytest.raises(KeyError):
        client.registry.content(digest)


CONFIG = described(Digest.of(b"{}"), 2)


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (image(CONFIG), OCI_MANIFEST, 201, None),
        (image(CONFIG), f"{OCI_MANIFEST}; charset=utf-8", 201, None),
        (image(CONFIG, subject=SUBJECT), OCI_MANIFEST, 201, None),
        (image(CONFIG, [described(ABSENT, 1, FOREIGN)]), OCI_MANIFEST, 201, None),
        (index(), OCI_INDEX, 201, None),
        (image(CONFIG), OCI_INDEX, 400, "MANIFEST_INVALID"),
        (image(CONFIG), "", 400, "MANIFEST_INVALID"),
        (b"not JSON", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"[]", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b'{"schemaVersion": 2}', "text/plain", 400, "MANIFEST_INVALID"),
        ({**image(CONFIG), "schemaVersion": 1}, OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (TOO_LARGE, OCI_INDEX, 413, "SIZE_INVALID"),
        (image(described(ABSENT, 2)), OCI_MANIFEST, 400, "MANIFEST_BLOB_UNKNOWN"),
        (image(CONFIG, [described(ABSENT, 1, LAYER)]), OCI_MANIFEST, 400, "MANIFEST_BLOB_UNKNOWN"),
        (index(described(ABSENT, 1, OCI_MANIFEST)), OCI_INDEX, 400, "MANIFEST_BLOB_UNKNOWN"),
        (index(described(Digest.of(b"{}"), 2, OCI_MANIFEST)), OCI_INDEX, 400, "MANIFEST_BLOB_UNKNOWN"),
        (index(described(Digest.of(b"{}"), 2, "application/x-model")), OCI_INDEX, 201, None),
        (image({**CONFIG, "size": 3}), OCI_MANIFEST, 400, "SIZE_INVALID"),
    ],
)
def test_manifests_that_are_taken_and_refused(content: Any, kind: str, status: int, code: str | None) -> None:
    client = Client()
    client.registry.put_blob(REPO, b"{}")
    reply = client.put("v1", content, kind)
    assert (reply.status, reply.codes) == (status, (code,) if code else ())
    assert bool(client.registry.tags(REPO)) is (status == 201)


def test_an_unknown_blob_is_named() -> None:
    errors = json.loads(Client().put("v1", image(described(ABSENT, 2))).content)["errors"]
    assert errors[0]["detail"] == {"digest": ABSENT}


def test_a_manifest_comes_back_byte_for_byte_by_tag_and_digest() -> None:
    client = Client()
    manifest = client.image()
    body, digest = as_bytes(manifest), Digest.of(as_bytes(manifest))
    reply = client.put("v1", manifest)
    assert reply.header("location") == f"{MANIFESTS}/{digest}"
    for reference in ("v1", digest):
        reply = client("GET", f"{MANIFESTS}/{reference}", b"", {"Accept": f"text/plain, {OCI_MANIFEST};q=0.5"})
        assert (reply.status, reply.content, reply.header("content-type")) == (200, body, OCI_MANIFEST)
        assert reply.header("docker-content-digest") == digest
    assert client("GET", f"{MANIFESTS}/v1", b"", {"Accept": OCI_INDEX}).codes == ("MANIFEST_UNKNOWN",)
    assert client("DELETE", f"{MANIFESTS}/v1").status == 202
    assert client("HEAD", f"{MANIFESTS}/v1").status == 404
    client.put("v2", manifest)
    assert client("DELETE", f"{MANIFESTS}/{digest}").status == 202
    assert (client.registry.tags(REPO), client.registry.manifests(REPO)) == ({}, frozenset())
    assert client("DELETE", f"{MANIFESTS}/{digest}").codes == ("MANIFEST_UNKNOWN",)


def test_tags_with_a_put_by_digest() -> None:
    client = Client()
    manifest = client.image()
    digest = Digest.of(as_bytes(manifest))
    assert client.put(f"{ABSENT}", manifest).codes == ("DIGEST_INVALID",)
    assert client.put(f"{digest}?tag=a&tag=.b", manifest).codes == ("NAME_INVALID",)
    assert client.registry.manifests(REPO) == frozenset()
    assert client.put(f"{digest}?tag=a&tag=b", manifest).header("oci-tag") == "a, b"
    assert client.registry.tags(REPO) == {"a": digest, "b": digest}
    sha512 = Digest.of(as_bytes(manifest), "sha512")
    assert client.put(sha512, manifest).header("docker-content-digest") == sha512


@pytest.mark.parametrize(
    ("query", "page", "tags", "link"),
    [
        ("", 0, ["a", "b", "c"], None),
        ("?n=2", 0, ["a", "b"], "n=2&last=b"),
        ("?n=2&last=b", 0, ["c"], None),
        ("?last=a", 0, ["b", "c"], None),
        ("?n=0", 0, [], None),
        ("", 2, ["a", "b"], "last=b"),
        ("?n=9", 2, ["a", "b"], "n=9&last=b"),
    ],
)
def test_tags_in_pages(query: str, page: int, tags: list[str], link: str | None) -> None:
    client = Client(tags_page=page)
    for tag in "cab":
        client.put(tag, client.image())
    reply = client("GET", f"/v2/{REPO}/tags/list{query}")
    assert json.loads(reply.content) == {"name": REPO, "tags": tags}
    assert reply.header("link") == (f'</v2/{REPO}/tags/list?{link}>; rel="next"' if link else None)
    assert client("GET", f"/v2/{REPO}/tags/list?n=x").status == 400


def test_referrers() -> None:
    client = Client(referrers_page=1)
    plain = client.image(subject=SUBJECT)
    typed = client.image(subject=SUBJECT, artifactType="application/x-sbom", annotations={"k": "v"})
    for manifest in (plain, typed, index(subject=SUBJECT)):
        assert client.put(Digest.of(as_bytes(manifest)), manifest).header("oci-subject") == ABSENT
    entries, target = [], f"/v2/{REPO}/referrers/{ABSENT}"
    while target:
        reply = client("GET", target)
        assert reply.header("content-type") == OCI_INDEX
        entries += json.loads(reply.content)["manifests"]
        target = (reply.header("link") or "").partition(">")[0].lstrip("<")
    assert [entry["digest"] for entry in entries] == sorted(client.registry.manifests(REPO))
    assert {entry.get("artifactType") for entry in entries} == {OCI_CONFIG, "application/x-sbom", None}
    reply = client("GET", f"/v2/{REPO}/referrers/{ABSENT}?artifactType=application%2Fx-sbom")
    assert reply.header("oci-filters-applied") == "artifactType"
    assert json.loads(reply.content)["manifests"] == [
        {
            "mediaType": OCI_MANIFEST,
            "digest": Digest.of(as_bytes(typed)),
            "size": len(as_bytes(typed)),
            "artifactType": "application/x-sbom",
            "annotations": {"k": "v"},
        }
    ]


# --- switches ---------------------------------------------------------------------------------------------------


def test_switches_of_manifests_and_answers() -> None:
    client = Client(referrers_api=False, oci_subject=True, docker_content_digest=False, warnings=("old",))
    reply = client.put("v1", client.image(subject=SUBJECT))
    assert (reply.header("oci-subject"), reply.header("docker-content-digest")) == (ABSENT, None)
    assert reply.header("warning") == '299 - "old"'
    assert client("GET", f"/v2/{REPO}/referrers/{ABSENT}").status == 404

    client = Client(tag_params=False, sparse_indexes=True, missing_status=403, manifest_status=202)
    sparse = index(described(ABSENT, 1, OCI_MANIFEST))
    reply = client.put(f"{Digest.of(as_bytes(sparse))}?tag=a", sparse)
    assert (reply.status, reply.header("oci-tag"), client.registry.tags(REPO)) == (202, None, {})
    assert client("HEAD", f"/v2/{REPO}/blobs/{ABSENT}").status == 403
    assert client("GET", f"{MANIFESTS}/a").codes == ("DENIED",)

    client = Client(create_repositories=False)
    assert client.put("v1", index()).codes == ("NAME_UNKNOWN",)

    client = Client(deletes=False, immutable_tags=409, referrers_filter=False)
    assert client.put("v1", client.image()).status == 201
    assert client.put("v1", client.image()).status == 409
    assert client("DELETE", f"{MANIFESTS}/v1").status == 405
    reply = client("GET", f"/v2/{REPO}/referrers/{ABSENT}?artifactType=x")
    assert reply.header("oci-filters-applied") is None


@pytest.mark.parametrize(("etag", "status"), [(Etag.NONE, 201), (Etag.SENT, 201), (Etag.ENFORCED, 412)])
def test_conditional_puts(etag: Etag, status: int) -> None:
    client = Client(etag=etag)
    first, second = client.image(b"{}"), client.image(b"[]")
    assert client.put("v1", first, **{"If-None-Match": "*"}).status == 201
    assert client.put("v1", second, **{"If-None-Match": "*"}).status == status
    client.put("v1", first)
    assert client.put("v1", second, **{"If-Match": f'"{ABSENT}"'}).status == status
    assert client.put("new", second, **{"If-Match": "*"}).status == status
    current = f'"{Digest.of(as_bytes(first))}"'
    client.put("v1", first)
    reply = client("GET", f"{MANIFESTS}/v1", b"", {"If-None-Match": current})
    assert (reply.status, reply.header("etag")) == ((200, None) if etag is Etag.NONE else (304, current))
    assert client.put("v1", second, **{"If-Match": current}).status == 201


# --- faults -----------------------------------------------------------------------------------------------------


def test_faults_by_position() -> None:
    faults = [
        Fault(kind=FaultKind.STATUS, method="POST", at=2, status=429, headers=(("Retry-After", "3"),)),
        Fault(kind=FaultKind.DROP, method="HEAD", path="/blobs/", count=2),
    ]
    client = Client(faults=faults, log_max=3)
    statuses = [client("POST", UPLOADS).status for _ in range(3)]
    assert statuses == [202, 429, 202]
    assert [client("HEAD", f"/v2/{REPO}/blobs/{ABSENT}").wire for _ in range(3)] == [
        Wire.CLOSED,
        Wire.CLOSED,
        Wire.WHOLE,
    ]
    assert [status for _, _, status in client.registry.log] == [0, 0, 404]
    assert client.registry.requests == 6


@pytest.mark.parametrize(
    ("kind", "when", "wire", "stored", "received"),
    [
        (FaultKind.DROP, When.BEFORE, Wire.CLOSED, False, 0),
        (FaultKind.DROP, When.IN_BODY, Wire.CLOSED, False, 2),
        (FaultKind.DROP, When.AFTER, Wire.CLOSED, True, 5),
        (FaultKind.SILENCE, When.AFTER, Wire.SILENT, True, 5),
        (FaultKind.GARBAGE, When.BEFORE, Wire.GARBAGE, False, 0),
        (FaultKind.STATUS, When.BEFORE, Wire.WHOLE, False, 5),
        (FaultKind.STATUS, When.IN_BODY, Wire.WHOLE, False, 2),
        (FaultKind.STATUS, When.AFTER, Wire.WHOLE, True, 5),
        (FaultKind.TRUNCATE, When.BEFORE, Wire.TRUNCATED, True, 5),
    ],
)
def test_what_a_fault_leaves_behind(kind: FaultKind, when: When, wire: Wire, stored: bool, received: int) -> None:
    client = Client()
    digest = Digest.of(b"layer")
    fault = Fault(kind=kind, when=when, after_bytes=2, status=504)
    reply = client("POST", f"{UPLOADS}?digest={digest}", b"layer", fault=fault)
    assert reply.wire is wire
    assert (digest in client.registry.blobs(REPO)) is stored
    assert client.registry.sessions(REPO) == ()
    assert client.registry.bytes_received == received


@pytest.mark.parametrize("early", [False, True])
def test_a_lost_refusal(early: bool) -> None:
    """The answer that is lost may also be an early one."""
    client = Client(early_refusals=early)
    fault = Fault(kind=FaultKind.DROP, when=When.AFTER)
    assert client("GET", f"/v2/{REPO}/blobs/{ABSENT}", fault=fault).wire is Wire.CLOSED


# --- for explorers ----------------------------------------------------------------------------------------------


def test_copies_are_independent() -> None:
    client = Client(faults=[Fault(kind=FaultKind.DROP, method="HEAD")])
    client.registry.put_blob(REPO, b"there before")
    client.open()
    twin = Client()
    twin.registry, twin.url = client.registry.copy(), client.url
    assert twin.registry.fingerprint() == client.registry.fingerprint()
    client.patch(b"ab")
    twin.patch(b"cd")
    assert twin.registry.fingerprint() != client.registry.fingerprint()
    assert client.commit(Digest.of(b"ab")).status == 201
    assert twin.commit(Digest.of(b"cd")).status == 201
    assert (len(client.registry.blobs(REPO)), len(twin.registry.blobs(REPO))) == (2, 2)
    assert twin("HEAD", "/v2/").wire is Wire.CLOSED
    assert client("HEAD", "/v2/").wire is Wire.CLOSED


def test_fingerprints_see_through_session_ids() -> None:
    one, other = Client(), Client()
    other.open()
    other("DELETE", other.url)
    for client in (one, other):
        client.open()
    assert one.url != other.url
    assert one.registry.fingerprint() == other.registry.fingerprint()
    assert one.registry.normalised(one.url) == other.registry.normalised(other.url)
    old = one.url
    one.patch(b"x")
    assert one.registry.fingerprint() != other.registry.fingerprint()
    assert one.registry.normalised(f"GET {old}").endswith("uploads/0/stale")
    assert one.registry.normalised(one.url).endswith("uploads/0/newest")
    assert one.registry.normalised(old.partition("?")[0]).endswith("uploads/0/unsure")
    newest = one.url
    one.commit(Digest.of(b"x"))
    assert one.registry.normalised(newest).endswith("uploads/gone")


def test_misuse(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    with pytest.raises(LocalProtocolError, match="memory"):
        FakeRegistry(storage=storage).copy()
    storage.close()
    registry = FakeRegistry()
    with pytest.raises(LocalProtocolError, match="Content-Length"):
        registry.handle(Request("POST", UPLOADS, (("Content-Length", "3"),), body=b"ab"))
    assert (registry.requests, registry.blobs("none"), registry.tags("none")) == (0, frozenset(), {})
