"""The registry's side of a scenario: it takes note of every request and answers by script, else as a fake registry.

The same player stands behind the core alone and behind sockets.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from conformance._answers import Answer, Scripted
from conformance._names import Names
from conformance._requests import Seen
from conformance._scenario import Scenario
from conformance._switches import furnish, make_options
from regproto.testing import Exchange, FakeRegistry, Fault, Reply, RequestHead
from regproto.testing.registry.http import Content


class Player(FakeRegistry):
    """Plays the registry of one scenario.

    Attributes:
        seen: every request, in the order they came.
    """

    def __init__(self, scenario: Scenario, names: Names) -> None:
        super().__init__(make_options(scenario.switches, names))
        furnish(self, scenario.has, names)
        for repository, tags in scenario.tags.items():
            for tag, name in tags.items():
                self.put_manifest(names.fill(repository), names.contents[name].content, names.fill(tag))
        self.names = names
        self.seen: list[Seen] = []
        self._script = [(entry, _turns(entry)) for entry in scenario.answers]
        self._used: set[int] = set()
        # A kept connection that ends without an answer is nobody's fault and is not counted (a driver says so): whether
        # one was kept is chance over real sockets, so where connections break none is.
        answers = [answer for entry in scenario.answers for answer in (*entry.answers, entry.always) if answer]
        self._closes = any(answer.breaks_the_connection for answer in answers)

    def open(self, head: RequestHead, now: float = 0.0, fault: Fault | None = None) -> Exchange:
        """Begin a request: takes note of it, and finds its answer."""
        seen = Seen(method=head.method, url=head.origin + head.target, headers=head.headers)
        self.seen.append(seen)
        answer = self._answer_to(seen)
        exchange = super().open(head, now, answer.fault(self.names) if answer else None)
        return Played(exchange, seen, answer, self)

    def _answer_to(self, seen: Seen) -> Answer | None:
        for number, (entry, turns) in enumerate(self._script):
            if entry.to.fits(seen, self.names):
                answer = next(turns, None)
                if answer is not None:
                    self._used.add(number)
                    return answer
        return None

    def unasked(self) -> list[str]:
        """The entries of the script that nothing came for, or with answers left over."""
        left = [entry.to.text for n, (entry, _) in enumerate(self._script) if n not in self._used]
        for number, (entry, turns) in enumerate(self._script):
            if number in self._used and entry.always is None and next(turns, None) is not None:
                left.append(entry.to.text)
        return left

    def last_touch(self, reply: Reply, answer: Answer | None) -> Reply:
        """A reply as the script changes it."""
        headers = reply.headers
        if answer is not None and answer.kind == "registry":
            without = {name.lower() for name in (*answer.without, *answer.headers)}
            headers = tuple((n, v) for n, v in headers if n.lower() not in without) + answer.more_headers(self.names)
        if self._closes:
            headers = (*headers, ("Connection", "close"))
        return attrs.evolve(reply, headers=headers)

    def with_content(self, reply: Reply) -> Reply:
        """A reply with the stored content that it refers to in it."""
        body = reply.body
        if isinstance(body, Content):
            body = self.storage.read(body.digest, body.offset, body.size)
        return attrs.evolve(reply, body=body)


def _turns(entry: Scripted) -> Iterator[Answer]:
    yield from entry.answers
    while entry.always is not None:
        yield entry.always


class Played(Exchange):
    """An exchange of the fake registry that is watched, and that ends the way the script wants it."""

    def __init__(self, inner: Exchange, seen: Seen, answer: Answer | None, player: Player) -> None:
        self.head = inner.head
        self.reply: Reply | None = None
        self.seen = seen
        self.answer = answer
        self._inner = inner
        self._player = player
        # Without a `cut` the body is taken to its end before a connection breaks: the client has sent all of it.
        self._to_the_end = answer is not None and answer.breaks_the_connection and answer.cut is None
        self._look()

    def _look(self) -> None:
        if self._inner.reply is not None and not self._to_the_end and not self.seen.whole:
            self.reply = self._player.last_touch(self._inner.reply, self.answer)

    def feed(self, data: bytes) -> None:
        """Take in the next piece of the body."""
        if self.reply is None:
            cut = self.answer.cut if self.answer is not None else None
            self.seen.body += data if cut is None else data[: max(0, cut - len(self.seen.body))]
            self._inner.feed(data)
            self._look()

    def finish(self) -> Reply:
        """The body is complete, or `reply` is there. Returns the answer."""
        self.seen.whole = self.reply is None
        return self._player.last_touch(self._inner.finish(), self.answer)

    def interrupt(self) -> None:
        """The connection broke inside the body."""
        self._inner.interrupt()
