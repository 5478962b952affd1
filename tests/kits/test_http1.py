"""One exchange on h11, fed by hand: whole, byte by byte, and broken in every place."""

from __future__ import annotations

from typing import Any

import attrs
import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regproto import http1
from regproto._model.digest import Digest
from regproto._model.errors import RemoteProtocolError
from regproto._model.messages import BlobSlice, Body, Failed, FailureKind, Phase, Progress, Response, Send, Written

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BIG = 1_000_000


def send(method: str = "GET", url: str = "http://r.example:5000/v2/", body: Body = b"", **changes: Any) -> Send:
    plain = Send(
        id=7, method=method, url=url, headers=(("X-A", "b"),), body=body, max_head_bytes=1000, max_body_bytes=100
    )
    return attrs.evolve(plain, **changes)


def blob_slice(size: int, offset: int = 0) -> BlobSlice:
    return BlobSlice(source=None, digest=Digest.of(b""), offset=offset, size=size)


def start(request: Send) -> tuple[http1.Connection, http1.Exchange]:
    connection = http1.Connection()
    return connection, connection.start(request)


def write(exchange: http1.Exchange, limit: int = http1.PIECE_BYTES, pieces: int = -1) -> bytes:
    """Writes all there is (or so many pieces); a span's bytes show as its offset's."""
    out = b""
    while pieces and (piece := exchange.piece(limit)) is not None:
        out += bytes(piece) if isinstance(piece, memoryview) else b"x" * piece.size
        exchange.sent(len(piece))
        pieces -= 1
    return out


def test_a_connection_that_is_not_free_says_so() -> None:
    connection, _ = start(send())
    with pytest.raises(AssertionError, match="this connection can't carry another exchange"):
        connection.start(send())


def parse(request: bytes) -> tuple[h11.Request, bytes]:
    """What a server makes of it."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(request)
    head, body = server.next_event(), b""
    assert isinstance(head, h11.Request)
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return head, body


def failed(exchange: http1.Exchange) -> Failed:
    assert isinstance(exchange.outcome, Failed)
    return exchange.outcome


def answered(exchange: http1.Exchange) -> Response:
    assert isinstance(exchange.outcome, Response)
    return exchange.outcome


# --- requests ----------------------------------------------------------------------------------------------------


def test_a_get_has_host_and_agent_and_no_length() -> None:
    _, exchange = start(send())
    head, body = parse(write(exchange))
    assert (head.method, head.target, body) == (b"GET", b"/v2/", b"")
    assert dict(head.headers) == {b"host": b"r.example:5000", b"x-a": b"b", b"user-agent": b"regproto"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_an_empty_body_is_declared(method: str) -> None:
    _, exchange = start(send(method))
    head, _ = parse(write(exchange))
    assert dict(head.headers)[b"content-length"] == b"0"


def test_the_cores_user_agent_stays() -> None:
    _, exchange = start(send(headers=(("user-AGENT", "mine"),)))
    head, _ = parse(write(exchange))
    assert [v for n, v in head.headers if n == b"user-agent"] == [b"mine"]


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("https://r/a?b=%2F/?c#d/e?f", b"r", b"/a?b=%2F/?c"),
        ("https://r", b"r", b"/"),
        ("https://r?x=/y", b"r", b"/?x=/y"),
        ("http://[::1]:5000/v2/?", b"[::1]:5000", b"/v2/?"),
    ],
)
def test_the_target_is_the_urls_own_bytes(url: str, host: bytes, target: bytes) -> None:
    _, exchange = start(send(url=url))
    head, _ = parse(write(exchange))
    assert (dict(head.headers)[b"host"], head.target) == (host, target)


@pytest.mark.parametrize("limit", [1, 50, http1.PIECE_BYTES])
def test_small_bodies_travel_in_pieces_of_any_size(limit: int) -> None:
    connection, exchange = start(send("PUT", body=b"manifest"))
    head, body = parse(write(exchange, limit))
    assert (dict(head.headers)[b"content-length"], body) == (b"8", b"manifest")
    exchange.receive(OK)
    assert answered(exchange).body == b"ok" and connection.reusable


def test_a_slice_is_offered_as_spans_and_again_from_where_it_was_taken() -> None:
    _, exchange = start(send("PATCH", body=blob_slice(100, offset=1000)))
    write(exchange, pieces=1)
    assert exchange.piece(60) == http1.Span(1000, 60, last=False)
    exchange.sent(45)
    assert exchange.piece(60) == http1.Span(1045, 55, last=True)
    exchange.sent(0)
    assert exchange.piece(20) == http1.Span(1045, 20, last=False)
    assert (exchange.written, exchange.phase) == (Written.SOME, Phase.SENDING)
    exchange.sent(20)
    assert exchange.piece() == http1.Span(1065, 35, last=True)
    exchange.sent(35)
    assert exchange.piece() is None
    assert (exchange.written, exchange.phase) == (Written.ALL, Phase.WAITING)


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": (("Authorization", "Bearer sec\nret"),)},
        {"headers": (("X", "secr\xe9t"),)},
        {"url": "http://r/secret path"},
    ],
)
def test_what_http_cannot_carry_is_answered_and_not_quoted(changes: dict[str, Any]) -> None:
    connection, exchange = start(send(**changes))
    outcome = failed(exchange)
    assert (outcome.kind, outcome.written) == (FailureKind.PROTOCOL, Written.NONE)
    assert "sec" not in outcome.detail
    assert not connection.reusable and exchange.piece() is None


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://R.example/x", http1.Origin("https", "r.example", 443)),
        ("http://[::1]:5000/x", http1.Origin("http", "::1", 5000)),
    ],
)
def test_origins(url: str, origin: http1.Origin) -> None:
    assert http1.Origin.of(url) == origin


def test_no_origin() -> None:
    with pytest.raises(RemoteProtocolError):
        http1.Origin.of("ftp://r/x")


# --- answers -----------------------------------------------------------------------------------------------------

ANSWERS = {
    "length": (OK, 200, b"ok", True),
    "none": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\no\r\n1\r\nk\r\n0\r\nT: t\r\n\r\n",
        200,
        b"ok",
        True,
    ),
    "1xx": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, 200, b"ok", True),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "http/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "bare newlines": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, b"ok", True),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_answers_of_every_framing(name: str, step: int) -> None:
    wire, status, body, reusable = ANSWERS[name]
    connection, exchange = start(send())
    write(exchange)
    for at in range(0, len(wire), step):
        assert exchange.outcome is None and exchange.wants_read
        exchange.receive(wire[at : at + step])
    outcome = answered(exchange)
    assert (outcome.id, outcome.status, outcome.body, outcome.truncated) == (7, status, body, False)
    assert connection.reusable is reusable


def test_a_head_answer_has_no_body() -> None:
    connection, exchange = start(send("HEAD"))
    write(exchange)
    exchange.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX: \xe9\r\n\r\n")
    assert answered(exchange).headers == (("content-length", "12345"), ("x", "\xe9"))
    assert answered(exchange).body == b"" and connection.reusable


def test_a_body_up_to_the_end_of_the_stream() -> None:
    connection, exchange = start(send())
    write(exchange)
    exchange.receive(b"HTTP/1.1 200 OK\r\n\r\no")
    exchange.receive(b"k")
    assert exchange.outcome is None
    exchange.receive(b"")
    assert answered(exchange).body == b"ok" and not connection.reusable


def test_a_reset_does_not_end_a_body_well() -> None:
    _, exchange = start(send())
    write(exchange)
    exchange.receive(b"HTTP/1.1 200 OK\r\n\r\nok")
    exchange.fail(FailureKind.CLOSED, "reset")
    assert failed(exchange).detail == "reset"


@pytest.mark.parametrize(
    ("wire", "where"),
    [
        (b"", "before any answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "before any answer"),
        (b"HTTP/1.1 20", "in the middle of the answer's head"),
        (OK[:-1], "in the middle of the answer's body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "in the middle of the answer's body"),
    ],
)
def test_an_answer_that_is_cut_short(wire: bytes, where: str) -> None:
    connection, exchange = start(send())
    write(exchange)
    if wire:
        exchange.receive(wire)
    exchange.receive(b"")
    outcome = failed(exchange)
    assert (outcome.kind, outcome.written, outcome.reused) == (FailureKind.CLOSED, Written.ALL, False)
    assert where in outcome.detail
    assert not connection.reusable


@pytest.mark.parametrize(
    "wire",
    [
        b"\x16\x03\x01garbage",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
    ],
)
def test_what_is_not_http(wire: bytes) -> None:
    connection, exchange = start(send())
    write(exchange)
    exchange.receive(wire)
    assert failed(exchange).kind is FailureKind.PROTOCOL
    assert not connection.reusable


def test_a_broken_header_line_is_not_quoted() -> None:
    _, exchange = start(send())
    write(exchange)
    exchange.receive(b"HTTP/1.1 200 OK\r\nLocation : /signed?secret\r\n\r\n")
    assert failed(exchange).detail == "illegal header line"


# --- limits ------------------------------------------------------------------------------------------------------


def head_of(size: int) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: "
    return head + b"x" * (size - len(head) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("step", [1, 1000, 10_000])
def test_a_head_up_to_the_limit(step: int) -> None:
    wire = head_of(1000) + b"ok"
    connection, exchange = start(send())
    write(exchange)
    for at in range(0, len(wire), step):
        exchange.receive(wire[at : at + step])
    assert answered(exchange).body == b"ok" and connection.reusable


@pytest.mark.parametrize("step", [1, 1000, 10_000])
@pytest.mark.parametrize("wire", [head_of(1001), b"HTTP/1.1 102 Wait\r\n\r\n" * 60])
def test_a_head_over_the_limit(wire: bytes, step: int) -> None:
    _, exchange = start(send())
    write(exchange)
    for at in range(0, len(wire), step):
        exchange.receive(wire[at : at + step])
    assert failed(exchange).kind is FailureKind.PROTOCOL
    assert "1000 bytes" in failed(exchange).detail


@pytest.mark.parametrize("step", [1, 10_000])
@pytest.mark.parametrize(("size", "truncated"), [(100, False), (101, True), (5000, True)])
def test_a_body_over_the_limit_is_cut(size: int, truncated: bool, step: int) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    connection, exchange = start(send())
    write(exchange)
    for at in range(0, len(wire), step):
        exchange.receive(wire[at : at + step])
    assert (answered(exchange).body, answered(exchange).truncated) == (b"x" * 100, truncated)
    assert connection.reusable is not truncated


# --- answers before the body is sent -----------------------------------------------------------------------------


def test_a_small_rest_is_finished_and_the_connection_kept() -> None:
    connection, exchange = start(send("PUT", body=blob_slice(BIG)))
    write(exchange, pieces=1)
    exchange.piece(BIG - http1.EARLY_REST_MAX_BYTES)
    exchange.sent(BIG - http1.EARLY_REST_MAX_BYTES)
    exchange.receive(OK)
    assert exchange.outcome is None and not exchange.wants_read and exchange.wants_write
    assert len(write(exchange)) == http1.EARLY_REST_MAX_BYTES
    assert answered(exchange).status == 200 and connection.reusable


def test_a_large_rest_is_not() -> None:
    connection, exchange = start(send("PUT", body=blob_slice(BIG)))
    write(exchange, pieces=1)
    exchange.piece(BIG - http1.EARLY_REST_MAX_BYTES - 1)
    exchange.sent(BIG - http1.EARLY_REST_MAX_BYTES - 1)
    exchange.receive(OK[:-1])
    assert exchange.piece() is None and not exchange.wants_write and exchange.wants_read
    exchange.receive(OK[-1:])
    assert answered(exchange).status == 200 and not connection.reusable


def test_what_was_offered_counts_as_gone_until_known_better() -> None:
    # A task that writes may be told of its success after another has read the answer.
    connection, exchange = start(send("PUT", body=blob_slice(BIG)))
    write(exchange, pieces=1)
    exchange.piece()
    exchange.receive(OK)
    assert exchange.outcome is None and exchange.wants_write
    exchange.sent(BIG)
    assert answered(exchange).status == 200 and connection.reusable


@pytest.mark.parametrize("wire", [ANSWERS["close"][0], ANSWERS["http/1.0"][0]])
def test_no_rest_is_finished_for_a_connection_that_ends(wire: bytes) -> None:
    connection, exchange = start(send("PUT", body=blob_slice(1000)))
    write(exchange, pieces=1)
    exchange.receive(wire)
    assert answered(exchange).status == 200 and not connection.reusable


@pytest.mark.parametrize("how", ["eof", "write_failed", "fail"])
def test_a_whole_answer_survives_what_comes_after(how: str) -> None:
    connection, exchange = start(send("PUT", body=blob_slice(1000)))
    write(exchange, pieces=1)
    exchange.receive(OK)
    match how:
        case "eof":
            exchange.receive(b"")
        case "write_failed":
            exchange.write_failed("broken pipe")
        case _:
            exchange.fail(FailureKind.ABORTED, "aborted")
    assert answered(exchange).status == 200 and not connection.reusable


def test_an_answer_is_looked_for_after_a_write_error() -> None:
    connection, exchange = start(send("PUT", body=blob_slice(BIG)))
    write(exchange, pieces=1)
    exchange.write_failed("broken pipe")
    assert exchange.wants_read and exchange.piece() is None
    exchange.receive(OK)
    exchange.receive(b"")
    assert answered(exchange).status == 200 and not connection.reusable


def test_both_errors_are_told_when_there_was_none() -> None:
    _, exchange = start(send("PUT", body=blob_slice(BIG)))
    write(exchange, pieces=1)
    exchange.write_failed("broken pipe")
    exchange.receive(b"")
    outcome = failed(exchange)
    assert (outcome.kind, outcome.written) == (FailureKind.CLOSED, Written.SOME)
    assert outcome.detail == "the connection was closed before any answer (after: broken pipe)"


def test_nothing_written() -> None:
    _, exchange = start(send())
    exchange.piece()
    exchange.sent(0)
    exchange.write_failed("broken pipe")
    exchange.receive(b"")
    assert failed(exchange).written is Written.NONE


# --- keep-alive --------------------------------------------------------------------------------------------------


def test_one_connection_carries_many() -> None:
    connection, exchange = start(send())
    for _ in range(3):
        write(exchange)
        exchange.receive(OK)
        assert answered(exchange).status == 200 and connection.reusable
        exchange = connection.start(send("PUT", body=b"x"))
    write(exchange)
    exchange.receive(b"")
    assert failed(exchange).reused


def test_a_busy_connection_takes_no_other() -> None:
    connection, exchange = start(send())
    write(exchange)
    exchange.receive(OK[:-1])
    assert not connection.reusable


@pytest.mark.parametrize("surplus", [b"x", OK])
@pytest.mark.parametrize("together", [True, False])
def test_a_connection_with_surplus_is_not_kept(surplus: bytes, together: bool) -> None:
    connection, exchange = start(send())
    write(exchange)
    for data in [OK + surplus] if together else [OK, surplus]:
        exchange.receive(data)
    assert answered(exchange).body == b"ok" and not connection.reusable


@pytest.mark.parametrize("data", [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_farewell_to_an_idle_connection_is_no_answer(data: bytes) -> None:
    _, exchange = start(send())
    exchange.receive(data)
    assert (failed(exchange).kind, failed(exchange).written) == (FailureKind.CLOSED, Written.NONE)


# --- progress ----------------------------------------------------------------------------------------------------


def test_reports_come_with_phases_and_at_most_ten_a_second() -> None:
    _, exchange = start(send("PUT", body=blob_slice(BIG)))
    write(exchange, pieces=1)
    assert exchange.report(0.0) == Progress(id=7, phase=Phase.SENDING, bytes=0)
    write(exchange, limit=1000, pieces=1)
    assert exchange.report(0.05) is None
    assert exchange.report(0.1) == Progress(id=7, phase=Phase.SENDING, bytes=1000)
    assert exchange.report(9.0) is None, "nothing has moved"
    write(exchange)
    assert exchange.report(9.0) == Progress(id=7, phase=Phase.WAITING, bytes=BIG)
    exchange.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert exchange.phase is Phase.WAITING
    exchange.receive(OK[:5])
    assert exchange.report(9.0) == Progress(id=7, phase=Phase.RECEIVING, bytes=0)
    exchange.receive(OK[5:-1])
    assert exchange.report(9.2) == Progress(id=7, phase=Phase.RECEIVING, bytes=1)
    exchange.receive(OK[-1:])
    assert exchange.report(99.0) is None


# --- anything ----------------------------------------------------------------------------------------------------

_BITS = st.sampled_from(
    [
        OK,
        b"HTTP/1.1 ",
        b"200 OK\r\n",
        b"100 Continue\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"\r\n",
        b"0\r\n\r\n",
        b"5\r\n",
    ]
    + [b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"hello", b"\x00", b"\n"]
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(_BITS | st.binary(max_size=20), max_size=12), st.booleans())
def test_whole_or_byte_by_byte_makes_no_difference(bits: list[bytes], chunky: bool) -> None:
    wire = b"".join(bits)
    if chunky:
        wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + wire
    outcomes = []
    for step in (1, max(1, len(wire))):
        _, exchange = start(send())
        write(exchange)
        for at in range(0, len(wire), step):
            exchange.receive(wire[at : at + step])
        exchange.receive(b"")
        assert exchange.outcome is not None
        outcomes.append(exchange.outcome)
    kinds = [o.kind if isinstance(o, Failed) else attrs.evolve(o) for o in outcomes]
    assert kinds[0] == kinds[1]
