"""Bodies whose sources are bytes in memory, as a driver would send them; for the explorer and for tests."""

from __future__ import annotations

from regproto._model.digest import Digest
from regproto._model.messages import BlobSlice, Headers, Send, Stream, StreamStatus
from regproto.testing.registry.http import Request


def content_of(send: Send) -> bytes:
    """A request's body."""
    body = send.body
    if isinstance(body, bytes):
        return body
    assert isinstance(body.source, bytes), "its source is to be bytes"
    if isinstance(body, BlobSlice):
        return body.source[body.offset : body.offset + body.size]
    return body.source[body.offset :][: body.limit_bytes]


def told_of(send: Send, sent: int | None = None) -> StreamStatus | None:
    """How the stream stands after so many bytes of this body (by default all) were sent; None for other bodies.

    The driver this stands for reads no further ahead than one byte, which is how it finds the end.
    """
    body = send.body
    if not isinstance(body, Stream):
        return None
    assert isinstance(body.source, bytes)
    after = body.offset + (len(content_of(send)) if sent is None else sent)
    ended = after >= len(body.source)
    return StreamStatus(
        sent=after,
        kept=max(0, after - body.keep_bytes),
        digest=Digest.of(body.source, body.algorithm) if ended else None,
        size=len(body.source) if ended else 0,
    )


def request_of(send: Send) -> Request:
    """The request, framed as `regproto.http1` does it where that matters to a registry."""
    content = content_of(send)
    framing: Headers = ()
    body = send.body
    if isinstance(body, Stream):
        if body.limit_bytes is None:
            framing = (("Transfer-Encoding", "chunked"),)
        elif content:
            framing = (("Content-Range", f"{body.offset}-{body.offset + len(content) - 1}"),)
    return Request.to(send.method, send.url, (*send.headers, *framing), content)
