"""The fake registry over real HTTP: framing, faults on the wire, big bodies, restarts."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import images
from regproto._model.digest import Digest
from regproto._model.errors import LocalProtocolError
from regproto.testing import (
    FakeRegistry,
    Fault,
    FaultKind,
    LocationStyle,
    RegistryOptions,
    When,
)
from regproto_sync.server.connection import DRAIN_MAX
from regproto_sync.server.disk import DiskStorage
from regproto_sync.server.server import Server

BLOBS = "/v2/team/app/blobs"
UPLOADS = f"{BLOBS}/uploads/"


@contextmanager
def serving(storage: DiskStorage | None = None, **options: Any) -> Iterator[Server]:
    with Server(FakeRegistry(RegistryOptions(**options), storage)) as server:
        yield server


@contextmanager
def connected(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        yield connection
    finally:
        connection.close()


def ask(
    connection: http.client.HTTPConnection, method: str, target: str, body: Any = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection.request(method, target, body, {n.replace("_", "-"): v for n, v in headers.items()})
    response = connection.getresponse()
    return response, response.read()


@contextmanager
def raw(server: Server, data: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(data)
        yield sock


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


# --- framing --------------------------------------------------------------------------------------------------


def test_one_connection_carries_many_requests() -> None:
    with serving() as server, connected(server) as connection:
        content = b"a layer"
        digest = Digest.of(content)
        response, _ = ask(connection, "POST", UPLOADS, b"")
        location = response.headers["Location"]
        response, _ = ask(connection, "PUT", f"{location}&digest={digest}", iter([b"a ", b"layer"]))  # chunked
        assert response.status == 201
        response, body = ask(connection, "HEAD", f"{BLOBS}/{digest}")
        assert (response.status, response.headers["Content-Length"], body) == (200, "7", b"")
        response, body = ask(connection, "GET", f"{BLOBS}/{digest}", Range="bytes=2-")
        assert (response.status, body) == (206, b"layer")
        assert server.accepted == 1
        assert server.registry.requests == 4


def test_expect_100_continue_is_answered_before_the_body() -> None:
    digest = Digest.of(b"hello")
    head = f"POST {UPLOADS}?digest={digest} HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with serving() as server, raw(server, head.encode()) as sock:
        assert sock.recv(65536).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"hello")
        assert sock.recv(65536).startswith(b"HTTP/1.1 201 ")


def test_an_early_refusal_comes_instead_of_100_continue() -> None:
    head = f"POST {UPLOADS} HTTP/1.1\r\nHost: r\r\nContent-Length: 500\r\nExpect: 100-continue\r\n\r\n"
    with serving(max_body_bytes=100, early_refusals=True) as server, raw(server, head.encode()) as sock:
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer


@pytest.mark.parametrize("size", [DRAIN_MAX, 8 * DRAIN_MAX])
def test_an_early_refusal_is_readable_while_the_body_is_being_sent(size: int) -> None:
    with serving(max_body_bytes=100, early_refusals=True) as server, connected(server) as connection:
        try:
            connection.request("POST", UPLOADS, bytes(size))
        except OSError:  # the server hung up inside the body: the answer is still to be read
            assert size > DRAIN_MAX
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["errors"][0]["code"] == "SIZE_INVALID"
        assert (response.headers["Connection"] == "close") is (size > DRAIN_MAX)
        if size <= DRAIN_MAX:
            assert ask(connection, "GET", "/v2/")[0].status == 200
            assert server.accepted == 1


@pytest.mark.parametrize("junk", [b"\x16\x03\x01 not http\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_not_http_is_answered_400_and_closed(junk: bytes) -> None:
    with serving() as server:
        with raw(server, junk) as sock:
            assert read_all(sock).startswith(b"HTTP/1.1 400 ")
        with connected(server) as connection:
            assert ask(connection, "GET", "/v2/")[0].status == 200


def test_tls() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    registry = FakeRegistry(RegistryOptions(location_style=LocationStyle.ABSOLUTE))
    with Server(registry, tls=server_side) as server:
        with raw(server, b"GET /v2/ HTTP/1.1\r\n\r\n") as sock:  # plain HTTP gets nowhere, and harms nobody
            with contextlib.suppress(ConnectionResetError):
                assert b"200" not in read_all(sock)
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=20, context=trust)
        response, _ = ask(connection, "POST", UPLOADS)
        connection.close()
        assert response.headers["Location"].startswith(server.url + UPLOADS)


def test_latency_delays_each_answer() -> None:
    with Server(FakeRegistry(), latency_s=0.03) as server, connected(server) as connection:
        start = time.monotonic()
        for _ in range(3):
            ask(connection, "GET", "/v2/")
        assert time.monotonic() - start >= 0.09


def test_many_connections_upload_at_once() -> None:
    contents = [bytes([number]) * 100_000 for number in range(16)]

    def upload(server: Server, content: bytes) -> int:
        with connected(server) as connection:
            location = ask(connection, "POST", UPLOADS)[0].headers["Location"]
            location = ask(connection, "PATCH", location, content[:70_000])[0].headers["Location"]
            put = f"{location}&digest={Digest.of(content)}"
            return ask(connection, "PUT", put, content[70_000:])[0].status

    with serving() as server:
        with ThreadPoolExecutor(len(contents)) as pool:
            statuses = list(pool.map(lambda content: upload(server, content), contents))
        assert set(statuses) == {201}
        assert server.registry.blobs("team/app") == set(map(Digest.of, contents))
        assert server.registry.bytes_received == sum(map(len, contents))


def test_close_ends_idle_connections_and_frees_the_port() -> None:
    with serving() as server:
        idle = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    with idle:
        assert idle.recv(1) == b""
    with Server(FakeRegistry(), port=server.port) as again, connected(again) as connection:
        assert ask(connection, "GET", "/v2/")[0].status == 200


# --- faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(kind=FaultKind.DROP), b""),
        (Fault(kind=FaultKind.DROP, when=When.AFTER), b""),
        (Fault(kind=FaultKind.GARBAGE, body=b"\0\0rubbish"), b"\0\0rubbish"),
        (Fault(kind=FaultKind.TRUNCATE, after_bytes=1), b"{"),
        (Fault(kind=FaultKind.STATUS, status=503, headers=(("Retry-After", "7"),)), b"retry-after: 7"),
    ],
)
def test_a_fault_on_the_wire(fault: Fault, expected: bytes) -> None:
    request = b"GET /v2/ HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"
    with serving(faults=[fault]) as server:
        with raw(server, request) as sock:
            answer = read_all(sock)
        assert expected.lower() in answer.lower() if expected else answer == b""
        assert not answer.endswith(b"{}")
        with raw(server, request) as sock:
            assert read_all(sock).endswith(b"{}")


def test_a_truncated_answer_without_a_body_ends_inside_its_head() -> None:
    with serving(faults=[Fault(kind=FaultKind.TRUNCATE)]) as server:
        with raw(server, b"HEAD /v2/ HTTP/1.1\r\nHost: r\r\n\r\n") as sock:
            answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\n\r\n" not in answer


def test_silence_lasts_until_the_client_goes() -> None:
    with serving(faults=[Fault(kind=FaultKind.SILENCE)]) as server:
        with raw(server, b"GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n") as sock:
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.recv(1)


@pytest.mark.parametrize("lost", [False, True])
def test_a_body_cut_by_the_client_is_kept_or_loses_the_session(lost: bool) -> None:
    with serving(lost_sessions=lost) as server, connected(server) as connection:
        location = ask(connection, "POST", UPLOADS)[0].headers["Location"]
        head = f"PATCH {location} HTTP/1.1\r\nHost: r\r\nContent-Length: 10\r\n\r\nabcd"
        with raw(server, head.encode()) as sock:
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""
        response, body = ask(connection, "GET", location)
        if lost:
            assert (response.status, json.loads(body)["errors"][0]["code"]) == (404, "BLOB_UPLOAD_INVALID")
        else:
            assert (response.status, response.headers["Range"]) == (204, "0-3")


# --- bytes ----------------------------------------------------------------------------------------------------


def test_large_bodies_do_not_sit_in_memory(tmp_path: Path) -> None:
    """The server runs in a process of its own, whose peak says what it held."""
    piece, count = b"\x5a" * 1_000_000, 200
    script = (
        "import sys\nfrom pathlib import Path\nfrom regproto_sync.server.server import serve\n"
        "serve('127.0.0.1', 0, Path(sys.argv[1]), None, lambda url: print(url, flush=True))\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "store"], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        response, _ = ask(connection, "POST", UPLOADS)
        response, _ = ask(connection, "PATCH", response.headers["Location"], iter([piece] * count))
        digest = f"sha256:{hashlib.sha256(piece * count).hexdigest()}"
        response, _ = ask(connection, "PUT", f"{response.headers['Location']}&digest={digest}")
        assert response.status == 201
        connection.request("GET", f"{BLOBS}/{digest}")
        download = connection.getresponse()
        assert sum(len(got) for got in iter(lambda: download.read(1_000_000), b"")) == len(piece) * count
        connection.close()
        process.send_signal(signal.SIGTERM)
        peak = int(process.stdout.readline())
        assert process.wait(20) == 0
    assert peak < 100_000, f"{peak} kB for a blob of 200 MB"


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    layout = images.image_layout(tmp_path / "layout")
    root = images.root_digest(layout)
    manifest = images.blob_path(layout, root).read_bytes()
    named = json.loads(manifest)
    storage = DiskStorage(tmp_path / "store")
    registry = FakeRegistry(storage=storage)
    for descriptor in (named["config"], *named["layers"]):
        registry.put_blob("team/app", images.blob_path(layout, descriptor["digest"]).read_bytes())
    registry.put_manifest("team/app", manifest, "v1")
    gone = registry.put_manifest("team/app", json.dumps(named, indent=1).encode(), "gone")
    with Server(registry) as server, connected(server) as connection:
        assert ask(connection, "DELETE", f"/v2/team/app/manifests/{gone}")[0].status == 202
        location = ask(connection, "POST", UPLOADS)[0].headers["Location"]
        location = ask(connection, "PATCH", location, b"half ")[0].headers["Location"]
    before = registry.fingerprint()
    with pytest.raises(LocalProtocolError, match="in use"):
        DiskStorage(tmp_path / "store")
    storage.close()

    storage = DiskStorage(tmp_path / "store")
    registry = FakeRegistry(storage=storage)
    assert registry.fingerprint() == before
    assert registry.tags("team/app") == {"v1": root}
    with Server(registry) as server, connected(server) as connection:
        digest = Digest.of(b"half and half")
        response, _ = ask(connection, "PUT", f"{location}&digest={digest}", b"and half", Content_Range="5-12")
        assert response.status == 201
        assert ask(connection, "GET", f"{BLOBS}/{digest}")[1] == b"half and half"
        assert ask(connection, "GET", "/v2/team/app/manifests/v1")[1] == manifest
    storage.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout", "store"]
    assert list((tmp_path / "store" / "uploads").iterdir()) == []


def test_a_process_that_ended_inside_a_body_leaves_a_session_that_goes_on(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    with serving(storage) as server, connected(server) as connection:
        location = ask(connection, "POST", UPLOADS)[0].headers["Location"]
    storage.close()
    (upload,) = (tmp_path / "uploads").iterdir()
    upload.write_bytes(b"abc")
    with (tmp_path / "journal.jsonl").open("a") as journal:  # closed on disk, but not yet in the journal
        journal.write('[["session","0"],{"repository":"team/app","algorithm":"sha256","offset":3}]\n')
    (tmp_path / "uploads" / "unknown").write_bytes(b"left over")
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('[["blob","team/app"')  # its last write was cut too

    storage = DiskStorage(tmp_path)
    with serving(storage) as server, connected(server) as connection:
        response, _ = ask(connection, "GET", location)
        assert (response.status, response.headers["Range"]) == (204, "0-2")
        digest = Digest.of(b"abcdef")
        response, _ = ask(connection, "PUT", f"{response.headers['Location']}&digest={digest}", b"def")
        assert response.status == 201
    storage.close()
    assert list((tmp_path / "uploads").iterdir()) == []
