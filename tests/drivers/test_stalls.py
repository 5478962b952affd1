"""A peer that stalls: no wait is endless in either driver, wherever it happens, and the error names the limit."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from fault_runs import Client, by_sync, by_trio
from images import image_layout
from regproto import Config

PATIENCE_S = 30.0
"""In which even a busy machine has met a limit of half a second."""
CONFIG = Config(
    attempts=1,
    small_blob_bytes=0,
    resumable_above_bytes=0,
    # The one limit that a test is about is made small: on a busy machine any other might be met first.
    connect_timeout_s=PATIENCE_S,
    response_timeout_s=PATIENCE_S,
    idle_timeout_s=PATIENCE_S,
    cleanup_timeout_s=1.0,
)
CLIENTS = [pytest.param(by_sync, id="sync"), pytest.param(by_trio, id="trio")]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer that is more than any socket takes in unread."""
    return image_layout(tmp_path_factory.mktemp("stalls") / "layout", [24_000_000])


def _absent(method: str) -> bytes:
    if method == "POST":
        return b"HTTP/1.1 202 Accepted\r\nLocation: /v2/team/app/blobs/uploads/1\r\nContent-Length: 0\r\n\r\n"
    return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def _no_answer(method: str) -> bytes | None:
    return b"" if method == "POST" else _absent(method)


def _half_an_answer(method: str) -> bytes | None:
    return b"HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nhalf" if method == "POST" else _absent(method)


def _half_a_head(method: str) -> bytes | None:
    return b"HTTP/1.1 202 Acc" if method == "POST" else _absent(method)


def _no_reading(method: str) -> bytes | None:
    return None if method == "PATCH" else _absent(method)


@contextmanager
def peer(answer: Callable[[str], bytes | None]) -> Iterator[str]:
    """Answers each request so, and reads no further once the answer is None. Gives its address."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            seen = b""
            while data := sock.recv(4_096):
                seen += data
                for method in re.findall(rb"(HEAD|POST|PATCH|PUT|GET|DELETE) /\S* HTTP/1.1\r\n", seen):
                    said = answer(method.decode())
                    if said is None:
                        over.wait(PATIENCE_S)
                        return
                    sock.sendall(said)
                    seen = b""

    def accept() -> None:
        while not over.is_set():
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), timeout=1).close()
        thread.join(5)
        listener.close()


NO_ANSWER = attrs.evolve(CONFIG, response_timeout_s=0.5)
NO_MOVEMENT = attrs.evolve(CONFIG, idle_timeout_s=0.6)
STALLS = [
    pytest.param(_no_answer, NO_ANSWER, "no answer within 0.5 s", id="no answer"),
    pytest.param(_half_a_head, attrs.evolve(NO_ANSWER, idle_timeout_s=0.6), "within 0.[56] s", id="half a head"),
    pytest.param(_half_an_answer, NO_MOVEMENT, "no byte moved within 0.6 s", id="half an answer"),
    pytest.param(_no_reading, NO_MOVEMENT, "no byte moved within 0.6 s", id="no reading"),
]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("answer", "config", "says"), STALLS)
def test_a_peer_that_stalls(
    client: Client, layout: Path, answer: Callable[[str], bytes | None], config: Config, says: str
) -> None:
    with peer(answer) as address:
        begun = time.monotonic()
        said = client(layout, f"{address}/team/app:1.0", config)
        assert time.monotonic() - begun < PATIENCE_S
    assert said.startswith("TransportError: ") and re.search(says, said), said


@pytest.mark.parametrize("client", CLIENTS)
def test_a_peer_that_does_not_even_accept(client: Client, layout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        address = listener.getsockname()
        for _ in range(8):  # its queue is full: who comes now hears nothing
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        config = attrs.evolve(CONFIG, connect_timeout_s=0.4)
        said = client(layout, f"127.0.0.1:{address[1]}/team/app:1.0", config)
    assert said.startswith("TransportError: ") and "no connection within 0.4 s" in said
