"""What a request must look like: one line, and the headers that matter.

    PUT /v2/{repo}/manifests/1.0 <- image      with this body
    PATCH {elsewhere}/upload/1 <- layer[5:10]  with these bytes of it
    PUT /v2/{repo}/blobs/uploads/** <- nothing
    * /v2/                                     any method, exactly this path

`*` stands for any characters but `/`, `?` and `&`; `**` for any at all. What begins with `/` is at the registry itself;
a query is compared byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from conformance._content import Contents, with_descriptors
from conformance._fields import Invalid, as_text
from conformance._names import Names
from regproto import Headers

_LINE: Final = re.compile(r"(?P<method>[A-Z]+|\*) (?P<target>\S+)(?: <- (?P<body>.+))?")
_BODY: Final = re.compile(r"(?P<name>[a-z][a-z0-9_.-]*)(?:\[(?P<start>[0-9]*):(?P<end>[0-9]*)\])?")


@attrs.define(kw_only=True)
class Seen:
    """A request as it was made."""

    method: str
    url: str
    headers: Headers = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    """As much of it as was taken."""
    whole: bool = False
    """The body was taken to its end."""

    def header(self, name: str) -> str | None:
        """The first header of this name, in any letter case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def target_of(url: str, names: Names) -> str:
    """How a URL is written in a scenario: at the registry itself without its origin."""
    rest = url.removeprefix(names.registry)
    return rest if rest != url and rest.startswith("/") else url


@attrs.frozen
class Pattern:
    """A request line of a scenario."""

    text: str
    method: str
    target: str
    body: str | None

    @classmethod
    def read(cls, text: str, where: str) -> Pattern:
        """The pattern of a line. Raises `Invalid`."""
        match = _LINE.fullmatch(text)
        if match is None:
            raise Invalid(f"{where}: {text!r} is not `METHOD target` or `METHOD target <- body`")
        return cls(text, match["method"], match["target"], match["body"])

    @classmethod
    def read_text(cls, raw: object, where: str) -> Pattern:
        """The pattern of a line in JSON. Raises `Invalid`."""
        return cls.read(as_text(raw, where), where)

    def fits(self, seen: Seen, names: Names) -> bool:
        """Whether method and target are these."""
        if self.method not in ("*", seen.method):
            return False
        target = target_of(names.fill(self.target, self.text), names)
        return wildcard(target).fullmatch(target_of(seen.url, names)) is not None

    def body_bytes(self, contents: Contents) -> bytes | None:
        """The body that is asked for; None if any will do."""
        if self.body is None:
            return None
        if self.body == "nothing":
            return b""
        match = _BODY.fullmatch(self.body)
        if match is None or match["name"] not in contents:
            raise Invalid(f"{self.text!r}: there is no content {self.body!r}")
        content = contents[match["name"]].content
        return content[int(match["start"] or 0) : int(match["end"] or len(content))]


def wildcard(text: str) -> re.Pattern[str]:
    """`*` and `**` as a regular expression."""
    parts = re.split(r"(\*\*|\*)", text)
    special = {"**": ".*", "*": "[^/?&]*"}
    return re.compile("".join(special.get(part, re.escape(part)) for part in parts), re.DOTALL)


@attrs.frozen(kw_only=True)
class Expected:
    """A request that must be made, and how often."""

    pattern: Pattern
    headers: Mapping[str, str | None] = attrs.field(factory=dict)
    """Values may have wildcards; None: there must be no such header."""
    least: int = 1
    most: int = 1
    document: Any = None
    """What the body is as JSON, whatever its serialization; None: that is not looked at."""

    def why_not(self, seen: Seen, names: Names) -> str | None:
        """Why a request with this method and target is another one all the same; None if it is this."""
        for name, wanted in self.headers.items():
            value = seen.header(name)
            if wanted is None and value is not None:
                return f"it has a header {name}, which must not be there"
            if wanted is not None and (
                value is None or not wildcard(names.fill(wanted, self.pattern.text)).fullmatch(value)
            ):
                return f"{name} is {value!r}, not {names.fill(wanted)!r}"
        body = self.pattern.body_bytes(names.contents)
        if body is not None and (seen.body != body if seen.whole else not body.startswith(seen.body)):
            return f"the body is {described_body(seen)}, not {self.pattern.body} ({len(body)} bytes)"
        if self.document is not None and seen.whole:
            return self._why_not_document(seen.body, names)
        return None

    def _why_not_document(self, body: bytes, names: Names) -> str | None:
        wanted = with_descriptors(self.document, self.pattern.text, names.contents)
        try:
            found = json.loads(body)
        except ValueError:
            return "the body is not JSON"
        return None if found == wanted else f"the body is {found}, not {wanted}"

    def fits(self, seen: Seen, names: Names) -> bool:
        """Whether this is the request."""
        return self.pattern.fits(seen, names) and self.why_not(seen, names) is None

    def __str__(self) -> str:
        often = "" if (self.least, self.most) == (1, 1) else f"  ({self.least} to {self.most} times)"
        headers = "".join(f"\n        {name}: {value or '(none)'}" for name, value in self.headers.items())
        return f"{self.pattern.text}{often}{headers}"


def described_body(seen: Seen) -> str:
    """A body in a few words."""
    some = "" if seen.whole else "(cut) "
    text = seen.body[:24].decode("latin-1")
    return f"{some}{len(seen.body)} bytes" + (f" {text!r}" if seen.body else "")
