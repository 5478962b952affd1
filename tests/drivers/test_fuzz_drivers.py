"""Bytes that are no HTTP, or not quite, into both drivers: each exchange has one answer, and nothing but typed errors.

A server answers with what Hypothesis makes of a real answer: cut, changed, doubled, in pieces, with bytes of its own. A
driver may say `Response` only where there was one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Phases

from fault_runs import by_sync, by_trio
from images import image_layout
from regproto import Config

EXAMPLES = int(os.environ.get("REGPROTO_FUZZ_EXAMPLES", "0"))
CONFIG = Config(
    attempts=2,
    backoff_base_s=0.001,
    connect_timeout_s=5.0,
    response_timeout_s=0.3,
    idle_timeout_s=0.3,
    retry_after_max_s=0.01,
    push_timeout_s=20.0,
    cleanup_timeout_s=0.5,
)

ANSWERS = [
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 202 Accepted\r\nLocation: /v2/team/app/blobs/uploads/1\r\nRange: 0-0\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
    b'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="http://127.0.0.1:1/token"\r\nContent-Length: 0\r\n\r\n',
    b"HTTP/1.1 301 Moved\r\nLocation: /v2/elsewhere\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 204 Nothing\r\n\r\n",
]
JUNK = st.sampled_from(
    [b"", b"\x00", b"\r\n", b"\r\n\r\n", b" ", b":", b"\xff\xfe", b"HTTP/1.1 ", b"HTTP/2 200\r\n", b"A" * 70_000]
    + [b"Content-Length: 99999999999999999999\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: junk\r\n"]
) | st.binary(max_size=12)


@st.composite
def garbled(draw: st.DrawFn) -> tuple[bytes, ...]:
    """An answer that something was done to, in pieces."""
    data = draw(st.sampled_from(ANSWERS))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        junk = draw(JUNK)
        data = draw(
            st.sampled_from([data[:at], data[:at] + junk + data[at:], data[:at] + junk + data[at + 1 :], data * 2])
        )
    cut = draw(st.integers(0, len(data)))
    return data[:cut], data[cut:]


class _Server:
    """Answers every request with the next of its answers, and closes when they are out."""

    def __init__(self) -> None:
        self.answers: list[tuple[bytes, ...]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._count = 0
        self._closed = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._closed:
            sock, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(2.0)
        with contextlib.suppress(OSError), sock:
            while sock.recv(65_536):
                self._count += 1
                answers = self.answers
                for piece in answers[self._count % len(answers)]:
                    if piece:
                        sock.sendall(piece)
                if self._count % 3 == 0:
                    return

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname(), timeout=1).close()
        self._thread.join(5)
        self._listener.close()


@pytest.fixture(scope="module")
def server() -> Iterator[_Server]:
    server = _Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_layout(tmp_path_factory.mktemp("fuzz") / "layout", [500])


@pytest.mark.parametrize("client", [by_sync, by_trio])
@given(answers=st.lists(garbled(), min_size=1, max_size=6))
@settings(
    max_examples=max(EXAMPLES // 10, 12),
    deadline=None,
    derandomize=not EXAMPLES,
    phases=[Phases.explicit, Phases.reuse, Phases.generate],
    suppress_health_check=list(HealthCheck),
)
def test_garbage_ends_in_a_typed_error(
    client: Callable[[Path, str, Config], str], server: _Server, layout: Path, answers: list[tuple[bytes, ...]]
) -> None:
    server.answers = answers
    # Whatever is no error of ours is raised through this call; it ends, and a success takes answers that say so.
    said = client(layout, f"{server.address}/team/app:1.0", CONFIG)
    assert said == "" or ": " in said
    if not said:
        assert any(b" 200" in b"".join(answer) or b" 20" in b"".join(answer) for answer in answers)
