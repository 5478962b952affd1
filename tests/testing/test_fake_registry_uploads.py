"""The fake registry's upload sessions: what is in order, what is refused, and what registries differ in."""

from __future__ import annotations

from typing import Any

import pytest

from fake_requests import ABSENT, HOST, REPO, UPLOADS, Client
from regproto._model.digest import Digest
from regproto.testing import Fault, FaultKind, LocationStyle, RequestHead, When, Wire

CUT = Fault(kind=FaultKind.DROP, when=When.IN_BODY, after_bytes=3)
LOST_ANSWER = Fault(kind=FaultKind.DROP, when=When.AFTER)
DIGEST = Digest.of(b"abcdef")


def test_post_then_put() -> None:
    client = Client()
    assert client.open().status == 202
    reply = client.commit(DIGEST, b"abcdef")
    assert (reply.status, reply.header("location")) == (201, f"/v2/{REPO}/blobs/{DIGEST}")
    assert client.registry.content(DIGEST) == b"abcdef"
    assert client.registry.sessions(REPO) == ()


def test_an_empty_blob() -> None:
    client = Client()
    client.open()
    assert client.commit(Digest.of(b"")).status == 201


def test_chunks_in_order() -> None:
    client = Client()
    client.open()
    assert client.patch(b"ab", 0).header("range") == "0-1"
    assert client.patch(b"cd").header("range") == "0-3"
    assert client("GET", client.url).header("range") == "0-3"
    reply = client.commit(DIGEST, b"ef", {"Content-Range": "4-5"})
    assert reply.status == 201


@pytest.mark.parametrize(
    ("method", "query", "body", "headers", "status", "code", "known"),
    [
        ("PATCH", "", b"cd", {"Content-Range": "3-4"}, 416, "BLOB_UPLOAD_INVALID", "0-1"),
        ("PATCH", "", b"cd", {"Content-Range": "0-1"}, 416, "BLOB_UPLOAD_INVALID", "0-1"),
        ("PATCH", "", b"cd", {"Content-Range": "2-9"}, 400, "SIZE_INVALID", None),
        ("PATCH", "", b"cd", {"Content-Range": "bytes 2-3"}, 400, "BLOB_UPLOAD_INVALID", None),
        ("PATCH", "", b"cd", {"Content-Type": "text/plain"}, 415, "UNSUPPORTED", None),
        ("PUT", "", b"", {}, 400, "DIGEST_INVALID", None),
        ("PUT", "&digest=md5:abc", b"", {}, 400, "DIGEST_INVALID", None),
        ("PUT", f"&digest={DIGEST}", b"ef", {"Content-Range": "4-5"}, 416, "BLOB_UPLOAD_INVALID", "0-1"),
    ],
)
def test_pieces_that_are_refused(
    method: str, query: str, body: bytes, headers: dict[str, str], status: int, code: str, known: str | None
) -> None:
    """A refused piece changes nothing: the session goes on at the same Location."""
    client = Client()
    client.open()
    client.patch(b"ab")
    location = client.url
    reply = client(method, location + query, body, headers)
    assert (reply.status, reply.codes, reply.header("range")) == (status, (code,), known)
    client.url = location
    assert client.commit(DIGEST, b"cdef").status == 201


def test_a_wrong_digest_ends_the_session() -> None:
    client = Client()
    client.open()
    location = client.url
    assert client.commit(ABSENT, b"abcdef").codes == ("DIGEST_INVALID",)
    client.url = location
    assert client.commit(DIGEST, b"abcdef").codes == ("BLOB_UPLOAD_UNKNOWN",)
    assert client.registry.blobs(REPO) == frozenset()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda url: url.partition("?")[0], 400),
        (lambda url: url.replace("%2B", "+"), 400),
        (lambda url: url.replace("_state=", "_state=9"), 400),
        (lambda url: url.replace(REPO, "other"), 404),
        (lambda url: url.replace("uploads/", "uploads/0"), 404),
        (lambda url: url + "&more=1", 204),
    ],
)
def test_a_location_that_was_changed(change: Any, status: int) -> None:
    client = Client()
    client.open()
    changed = change(client.url)
    assert client("GET", changed).status == status
    if status != 204:
        assert client("PATCH", changed, b"x").status == status
        assert client("DELETE", changed).status == status


@pytest.mark.parametrize(("stale_status", "asked"), [(True, 204), (False, 416)])
def test_an_older_location_is_good_for_asking_at_most(stale_status: bool, asked: int) -> None:
    client = Client(stale_status=stale_status)
    client.open()
    old = client.url
    client.patch(b"abc")
    assert client("DELETE", old).status == 416
    assert client("PATCH", old, b"def").header("range") == "0-2"
    assert client("GET", old).status == asked
    if asked == 204:
        assert client.commit(DIGEST, b"def").status == 201


def test_cancelling() -> None:
    client = Client()
    client.open()
    location = client.url
    assert client("DELETE", location).status == 204
    assert client("GET", location).codes == ("BLOB_UPLOAD_UNKNOWN",)


def test_a_second_writer_is_refused_while_the_first_writes() -> None:
    client = Client()
    client.open()
    location = client.url
    exchange = client.registry.open(RequestHead("PATCH", location.removeprefix(HOST)))
    exchange.feed(b"abc")
    assert client("PATCH", location, b"xyz").status == 416
    exchange.interrupt()
    assert client("GET", location).header("range") == "0-2"


# --- one request ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("single_post", "body", "status", "code"),
    [
        (201, b"abcdef", 201, None),
        (201, b"abcdeX", 400, "DIGEST_INVALID"),
        (202, b"abcdef", 202, None),
        (405, b"abcdef", 405, "UNSUPPORTED"),
    ],
)
def test_single_post(single_post: int, body: bytes, status: int, code: str | None) -> None:
    client = Client(single_post=single_post)
    reply = client("POST", f"{UPLOADS}?digest={DIGEST}", body)
    assert (reply.status, reply.codes) == (status, (code,) if code else ())
    assert (DIGEST in client.registry.blobs(REPO)) is (status == 201)
    assert len(client.registry.sessions(REPO)) == (status == 202)
    if status == 202:
        assert client.commit(DIGEST, body).status == 201


@pytest.mark.parametrize(
    ("options", "query", "status"),
    [
        ({}, "mount={}&from=source", 201),
        ({}, "mount={}&from=source&origin=registry.example", 201),
        ({}, "mount={}&from=elsewhere", 202),
        ({"mount": False}, "mount={}&from=source", 202),
        ({}, "mount={}", 202),
        ({"anonymous_mount": 201}, "mount={}", 201),
        ({"anonymous_mount": 201, "mount": False}, "mount={}", 202),
        ({"anonymous_mount": 400}, "mount={}", 400),
        ({}, "mount=sha256:1&from=source", 400),
        ({}, "mount={}&from=Not/Valid", 400),
        ({"create_repositories": False}, "mount={}&from=source", 404),
    ],
)
def test_mounts(options: dict[str, Any], query: str, status: int) -> None:
    client = Client(**options)
    digest = client.registry.put_blob("source", b"abcdef")
    reply = client("POST", f"{UPLOADS}?{query.format(digest)}")
    assert reply.status == status
    assert (digest in client.registry.blobs(REPO)) is (status == 201)
    if status == 201:
        assert reply.header("location") == f"/v2/{REPO}/blobs/{digest}"
        assert reply.header("docker-content-digest") == digest
    if status == 202:
        assert client.commit(DIGEST, b"abcdef").status == 201


@pytest.mark.parametrize(("announced", "status"), [("sha512", 202), ("sha256", 202), ("crc32", 400)])
def test_other_algorithms(announced: str, status: int) -> None:
    client = Client()
    assert client("POST", f"{UPLOADS}?digest-algorithm={announced}").status == status
    if status == 202:
        digest = Digest.of(b"abcdef", "sha512")
        client.patch(b"abc")
        assert client.commit(digest, b"def").status == 201
        assert client("HEAD", f"/v2/{REPO}/blobs/{digest}").status == 200


# --- switches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "location"),
    [
        (LocationStyle.PATH, f"{UPLOADS}ID"),
        (LocationStyle.ABSOLUTE, f"{HOST}{UPLOADS}ID"),
        (LocationStyle.RELATIVE, "ID"),
        (LocationStyle.OTHER_HOST, f"http://uploads.example{UPLOADS}ID"),
        (LocationStyle.MISSING, None),
    ],
)
@pytest.mark.parametrize("query", [True, False])
def test_locations(style: LocationStyle, location: str | None, query: bool) -> None:
    client = Client(location_style=style, location_query=query)
    reply = client.open()
    found, session_id = reply.header("location"), reply.header("docker-upload-uuid")
    assert session_id is not None
    if location is None:
        assert found is None
        return
    assert found is not None
    assert found.partition("?")[0] == location.replace("ID", session_id)
    assert ("?_state=" in found) is query
    assert client.patch(b"abc").status == 202
    assert client.commit(DIGEST, b"def").status == 201


def test_the_upload_host_takes_no_authorization() -> None:
    client = Client(location_style=LocationStyle.OTHER_HOST)
    client.open()
    location = client.url
    assert client("PATCH", location, b"abcdef", {"Authorization": "Basic eDp5"}).status == 400
    client.url = location
    assert client.commit(DIGEST, b"abcdef").status == 201


def test_chunk_minimum() -> None:
    client = Client(chunk_min_bytes=3)
    assert client.open().header("oci-chunk-min-length") == "3"
    client.patch(b"abc")
    client.patch(b"de")
    location = client.url
    assert client.patch(b"f").codes == ("SIZE_INVALID",)
    client.url = location
    assert client.commit(DIGEST, b"f").codes == ("SIZE_INVALID",)
    client.url = location
    assert client.commit(Digest.of(b"abcde")).status == 201


def test_statuses_and_headers_that_differ() -> None:
    client = Client(patch_status=204, commit_status=204, commit_location=False, docker_content_digest=False)
    client.open()
    assert client.patch(b"abcdef").status == 204
    reply = client.commit(DIGEST)
    assert (reply.status, reply.header("location"), reply.header("docker-content-digest")) == (204, None, None)

    client = Client(upload_status=False, range_on_416=False)
    client.open()
    location = client.url
    assert client("GET", location).codes == ("BLOB_UPLOAD_UNKNOWN",)
    assert client("PATCH", location, b"x", {"Content-Range": "5-5"}).header("range") is None

    client = Client(stale_range=True)
    client.open()
    assert [client.patch(b"ab").header("range") for _ in range(3)] == ["0-0", "0-1", "0-3"]

    assert Client(create_repositories=False).open().codes == ("NAME_UNKNOWN",)


@pytest.mark.parametrize("early", [False, True])
def test_bodies_over_the_limit(early: bool) -> None:
    client = Client(max_body_bytes=4, early_refusals=early)
    client.open()
    location = client.url
    assert client.patch(b"abcdef").status == 413
    client.url = location
    assert client.patch(b"abc").status == 202
    chunked = (("Transfer-Encoding", "chunked"),)
    exchange = client.registry.open(RequestHead("PATCH", client.url.removeprefix(HOST), chunked))
    exchange.feed(b"de")
    assert exchange.reply is None
    exchange.feed(b"fgh")
    assert (exchange.reply is not None) is early
    assert exchange.finish().status == 413


@pytest.mark.parametrize("early", [False, True])
def test_refusals_come_before_the_body_only_where_asked(early: bool) -> None:
    registry = Client(early_refusals=early, single_post=405).registry
    exchange = registry.open(RequestHead("POST", f"{UPLOADS}?digest={DIGEST}", (("Content-Length", "6"),)))
    assert (exchange.reply is not None) is early
    assert exchange.finish().status == 405


# --- broken bodies ----------------------------------------------------------------------------------------------


def test_a_cut_body_is_kept_and_goes_on_after_asking() -> None:
    client = Client()
    client.open()
    location = client.url
    assert client.patch(b"abcdef", fault=CUT).wire is Wire.CLOSED
    assert client("PATCH", location, b"def", {"Content-Range": "3-5"}).status == 416  # an older Location
    assert client("GET", location).header("range") == "0-2"
    assert client.patch(b"def", 3).status == 202
    assert client.commit(DIGEST).status == 201


def test_a_cut_body_loses_the_session_on_distribution_2_8() -> None:
    client = Client(lost_sessions=True)
    client.open()
    location = client.url
    client.patch(b"abcdef", fault=CUT)
    for method in ("GET", "PATCH", "DELETE"):
        reply = client(method, location)
        assert (reply.status, reply.codes) == (404, ("BLOB_UPLOAD_INVALID",))


def test_a_session_is_untouched_by_a_request_without_a_body_byte() -> None:
    client = Client(lost_sessions=True)
    client.open()
    location = client.url
    client.patch(b"abcdef", fault=Fault(kind=FaultKind.DROP, when=When.IN_BODY, after_bytes=0))
    client.url = location
    assert client.patch(b"abcdef").status == 202


def test_lost_answers() -> None:
    client = Client()
    client.open()
    location = client.url
    client.patch(b"abc", fault=LOST_ANSWER)
    assert client("GET", location).header("range") == "0-2"
    location = client.url
    client.commit(DIGEST, b"def", fault=LOST_ANSWER)
    client.url = location
    assert client.commit(DIGEST, b"def").codes == ("BLOB_UPLOAD_UNKNOWN",)
    assert client("HEAD", f"/v2/{REPO}/blobs/{DIGEST}").status == 200
