"""What must be asked, in order where that matters.

A list is an order: each entry comes after the one before it. `{"any_order": [...]}` leaves the order of its entries
open; an entry that is a list keeps its own order among the others. What was asked is followed step by step through
all that may come next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import attrs

from conformance._fields import Fields, Invalid, anything, as_list, as_text
from conformance._fields import as_range as as_times
from conformance._names import Names
from conformance._requests import Expected, Pattern, Seen, described_body, target_of


@attrs.frozen(cache_hash=True)
class InOrder:
    """One after the other."""

    items: tuple[Node, ...]


@attrs.frozen(cache_hash=True)
class AnyOrder:
    """All of these, interleaved in any way."""

    items: tuple[Node, ...]


@attrs.frozen(cache_hash=True)
class Times:
    """One request, so many more times."""

    index: int
    """Of the request in `Asked.requests`."""
    least: int
    most: int


Node: TypeAlias = InOrder | AnyOrder | Times


@attrs.frozen
class Asked:
    """What a scenario says must be asked."""

    root: Node
    requests: tuple[Expected, ...]
    others: bool
    """Further requests may come in between."""


def read_asked(raw: object, where: str, others: bool) -> Asked:
    """`asked` of a scenario. Raises `Invalid`."""
    requests: list[Expected] = []

    def node(entry: object, where: str) -> Node:
        if isinstance(entry, list):
            return InOrder(tuple(node(item, f"{where}[{n}]") for n, item in enumerate(entry)))
        if isinstance(entry, dict) and "any_order" in entry:
            fields = Fields(entry, where)
            items = fields.take("any_order", as_list)
            fields.end()
            return AnyOrder(tuple(node(item, f"{where}.any_order[{n}]") for n, item in enumerate(items)))
        expected = read_expected(entry, where)
        requests.append(expected)
        return Times(len(requests) - 1, expected.least, expected.most)

    root = node(as_list(raw, where), where)
    return Asked(root, tuple(requests), others)


def read_expected(raw: object, where: str) -> Expected:
    """One request: a line, or an object with `request`, `headers`, `times` and `json`."""
    if isinstance(raw, str):
        return Expected(pattern=Pattern.read(raw, where))
    fields = Fields(raw, where)
    pattern = Pattern.read(fields.take("request", as_text), where)
    headers = fields.mapping("headers", _header)
    least, most = fields.take("times", as_times, (1, 1))
    document = fields.maybe("json", anything)
    fields.end()
    if most < 1:
        raise Invalid(f"{where}: what must not be asked stands in not_asked")
    return Expected(pattern=pattern, headers=headers, least=least, most=most, document=document)


def _header(raw: object, where: str) -> str | None:
    if raw is not None and not isinstance(raw, str):
        raise Invalid(f"{where} must be a string, or null for a header that must not be there")
    return raw


# --- following --------------------------------------------------------------------------------------------------


def _may_end(node: Node) -> bool:
    if isinstance(node, Times):
        return node.least <= 0
    return all(_may_end(item) for item in node.items)


def _next(node: Node) -> Iterator[int]:
    """The requests that may come next."""
    if isinstance(node, Times):
        yield node.index
    elif isinstance(node, AnyOrder):
        for item in node.items:
            yield from _next(item)
    else:
        for item in node.items:
            yield from _next(item)
            if not _may_end(item):
                return


def _after(node: Node, fitting: frozenset[int]) -> Iterator[Node | None]:
    """What is left after a request that is one of `fitting`, in every way it can be taken; None: nothing."""
    if isinstance(node, Times):
        if node.index in fitting:
            yield Times(node.index, node.least - 1, node.most - 1) if node.most > 1 else None
    elif isinstance(node, AnyOrder):
        for n, item in enumerate(node.items):
            for left in _after(item, fitting):
                rest = (*node.items[:n], *((left,) if left else ()), *node.items[n + 1 :])
                yield AnyOrder(rest) if rest else None
    else:
        for n, item in enumerate(node.items):
            for left in _after(item, fitting):
                rest = (*((left,) if left else ()), *node.items[n + 1 :])
                yield InOrder(rest) if rest else None
            if not _may_end(item):
                return


_NOTHING = InOrder(())


def difference(asked: Asked, seen: Sequence[Seen], names: Names) -> str | None:
    """How what was asked differs from what must be; None if it does not."""
    possible: set[Node] = {asked.root}
    for number, request in enumerate(seen):
        fitting = frozenset(n for n, expected in enumerate(asked.requests) if expected.fits(request, names))
        after = {left or _NOTHING for node in possible for left in _after(node, fitting)}
        if asked.others:
            after |= possible
        if not after:
            return _report(asked, possible, seen, number, names)
        possible = after
    if any(_may_end(node) for node in possible):
        return None
    return _report(asked, possible, seen, len(seen), names)


def _report(asked: Asked, possible: set[Node], seen: Sequence[Seen], at: int, names: Names) -> str:
    """What was asked, up to where it went another way, and what could have come there."""
    lines = ["asked:"]
    for number, request in enumerate(seen):
        mark = "  ok " if number < at else "  >> " if number == at else "     "
        body = f" <- {described_body(request)}" if request.body or request.method in ("POST", "PUT", "PATCH") else ""
        lines.append(f"{mark}{request.method} {target_of(request.url, names)}{body}")
    if at == len(seen):
        lines.append("  >> (nothing more)")
    coming = sorted({n for node in possible for n in _next(node)})
    ends = any(_may_end(node) for node in possible)
    lines.append("must come there:" if coming else "must come there: nothing more")
    for n in coming:
        expected = asked.requests[n]
        lines.append(f"     {expected.pattern.method} {names.fill(str(expected).partition(' ')[2])}")
        if at < len(seen) and expected.pattern.fits(seen[at], names):
            lines.append(f"        but {expected.why_not(seen[at], names)}")
    if coming and ends:
        lines.append("     or nothing more")
    return "\n".join(lines)
