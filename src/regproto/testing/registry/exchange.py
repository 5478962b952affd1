"""One exchange with a fake registry: a head, a body in pieces, an answer, and the faults that befall it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from regproto._model.messages import Headers
from regproto.testing.registry.http import Content, Refused, Reply, ReplyBody, RequestHead, Wire, find_header, refusal
from regproto.testing.registry.options import Fault, FaultKind, RegistryOptions, When
from regproto.testing.registry.sinks import Sink

_CODES: Final = {
    400: "UNSUPPORTED",
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    413: "SIZE_INVALID",
    429: "TOOMANYREQUESTS",
}
"""The codes of an injected status without a body of its own; servers in trouble (5xx) send none."""


class Exchange:
    """A request in progress.

    Call `feed` with each piece of the body until it ends or `reply` is there, then `finish` once; or
    `interrupt` once if the body was cut. `feed` touches nothing but this exchange; a server with threads
    holds its lock around everything else.
    """

    def __init__(
        self,
        head: RequestHead,
        options: RegistryOptions,
        plan: Reply | Sink,
        fault: Fault | None,
        challenge: tuple[str, str] | None,
        done: Callable[[RequestHead, int, int], None],
    ) -> None:
        self.head = head
        self.reply: Reply | None = None
        """The answer, once it stands before the body was read to its end."""
        self._options = options
        self._fault = fault
        self._challenge = challenge
        self._done = done
        self._received = 0
        self._sink = None if isinstance(plan, Reply) else plan
        self._answer: Reply | None = None
        """The answer if it is known, whether the body may be cut short for it (`reply`) or not."""
        if fault is not None and fault.position is When.BEFORE:
            self._settle(self._faulty(fault, Reply(0)))
        elif isinstance(plan, Reply):
            self._settle(self._final(plan))

    def _settle(self, answer: Reply) -> None:
        self._answer = answer
        if self._options.early_refusals or answer.wire is not Wire.WHOLE:
            self.reply = answer

    def feed(self, data: bytes) -> None:
        """Take in the next piece of the body."""
        if self.reply is not None:
            return
        fault = self._fault
        cut = fault.after_bytes if fault is not None and fault.position is When.IN_BODY else None
        if cut is not None:
            data = data[: cut - self._received]
        self._received += len(data)
        if self._sink is not None and self._answer is None:
            refused = self._over_limit() or self._sink.feed(data)
            if refused is not None:
                self._settle(self._final(refused))
        if fault is not None and cut is not None and self._received >= cut:
            self._answer = self.reply = self._faulty(fault, Reply(0))

    def finish(self) -> Reply:
        """The body is complete, or `reply` is there: do the work. Returns the answer."""
        fault = self._fault
        if fault is not None and fault.position is When.IN_BODY:
            self._answer = self._faulty(fault, Reply(0))
        if self._answer is None:
            self._answer = self._final(self._work())
        elif self._sink is not None:
            self._sink.interrupt()
        self._done(self.head, self._received, self._answer.status)
        return self._answer

    def interrupt(self) -> None:
        """The connection broke inside the body."""
        if self._sink is not None:
            self._sink.interrupt()
        self._done(self.head, self._received, 0)

    def _work(self) -> Reply:
        assert self._sink is not None
        try:
            return self._sink.finish()
        except Refused as error:
            return error.reply

    def _over_limit(self) -> Reply | None:
        limit = self._options.max_body_bytes
        return too_large(limit) if limit and self._received > limit else None

    def _final(self, reply: Reply) -> Reply:
        answer = self._finished(reply)
        if self._fault is not None and self._fault.position is When.AFTER:
            return self._faulty(self._fault, answer)
        return answer

    def _faulty(self, fault: Fault, whole: Reply) -> Reply:
        match fault.kind:
            case FaultKind.STATUS:
                headers = fault.headers
                if fault.status == 401 and self._challenge and not find_header(headers, "www-authenticate"):
                    headers = (*headers, self._challenge)
                reply = Reply(fault.status, headers, fault.body)
                if not fault.body and fault.status in _CODES:
                    reply = refusal(fault.status, _CODES[fault.status], "injected fault", headers=headers)
                return self._finished(reply)
            case FaultKind.DROP:
                return Reply(0, wire=Wire.CLOSED)
            case FaultKind.TRUNCATE:
                return attrs.evolve(whole, wire=Wire.TRUNCATED, sent_bytes=fault.after_bytes)
            case FaultKind.GARBAGE:
                return Reply(0, body=fault.body, wire=Wire.GARBAGE)
            case FaultKind.SILENCE:
                return Reply(0, wire=Wire.SILENT)

    def _finished(self, reply: Reply) -> Reply:
        """The reply with the headers every answer has, and without a body where HTTP has none."""
        headers: Headers = reply.headers
        body: ReplyBody = reply.body
        size = body.size if isinstance(body, Content) else len(body)
        if reply.status not in (204, 304) and not find_header(headers, "content-length"):
            headers = (*headers, ("Content-Length", str(size)))
        if self._options.api_version and self.head.path.startswith("/v2/"):
            headers = (*headers, ("Docker-Distribution-Api-Version", "registry/2.0"))
        headers += tuple(("Warning", f'299 - "{text}"') for text in self._options.warnings)
        bodiless = self.head.method == "HEAD" or reply.status in (204, 304)
        return Reply(reply.status, headers, b"" if bodiless else body)


def too_large(limit: int) -> Reply:
    """413 for a body over the limit."""
    return refusal(413, "SIZE_INVALID", f"bodies of at most {limit} bytes are accepted")
