"""Response headers: what a registry says beside its status.

Every parser here takes whatever a peer may send and never raises: garbage is None, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import attrs

from regproto._model.errors import printable
from regproto._model.messages import Headers

CHALLENGES_MAX: Final = 16
"""Challenges that are read: registries send one or two."""
WARNINGS_MAX: Final = 16
"""Warnings of one answer that are read: more is noise to the person who sees them."""
VALUE_MAX: Final = 8 * 1024
"""Characters of one header that are read: what common servers let a whole header line have."""
RETRY_AFTER_CAP_S: Final = 366 * 86_400.0
"""Nobody waits a year: keeps absurd delays finite, so that clocks can be added to them."""
_SIZE_MAX: Final = 2**63 - 1

_RANGE: Final = re.compile(r"(?:bytes[= ])?0-([0-9]{1,19})", re.IGNORECASE)
_SECONDS: Final = re.compile(r"(-?)([0-9]+(?:\.[0-9]*)?)")
# RFC 9110, section 5.6.7: IMF-fixdate. The two obsolete forms count as no date.
_DATE: Final = re.compile(r"[a-z]{3}, ([0-9]{2}) ([a-z]{3}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) gmt")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 9110, section 11.6.1: a scheme is told from a parameter by the `=` that follows. Unquoted values may be
# anything (realms are), a quote may be left open, and a token68 is passed over.
_CHALLENGE: Final = re.compile(
    rf"""
      (?P<key>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\(?:.|$))*)(?:"|$)|(?P<plain>[^\s,"]*))
    | (?P<scheme>{_TOKEN})(?:\s+[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$)))?
    """,
    re.VERBOSE | re.DOTALL,
)
# RFC 7234, section 5.5: code, agent, quoted text, and maybe a quoted date.
_WARNING: Final = re.compile(r"""[\s,]*([0-9]{3})\s+\S+\s+"((?:[^"\\]|\\.)*)"(?:\s+"[^"]*")?\s*(?=,|$)""", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def get(headers: Headers, name_lower: str) -> str | None:
    """The first value of a header, given its name in lower case."""
    for name, value in headers:
        if name == name_lower or name.lower() == name_lower:
            return value
    return None


def get_all(headers: Headers, name_lower: str) -> tuple[str, ...]:
    """Every value of a header, given its name in lower case."""
    return tuple(value for name, value in headers if name.lower() == name_lower)


@attrs.frozen(kw_only=True)
class Acknowledged:
    """The part of an upload that a registry says it holds."""

    offset: int
    """Bytes it surely holds: where to go on from."""
    ambiguous: bool
    """True for `0-0`, which registries send for one byte and for none: `offset` is 0, one may be there."""


def parse_range(text: str | None) -> Acknowledged | None:
    """The `Range: 0-<last>` of an upload's answer (distribution-spec, "Pushing a blob in chunks").

    `bytes=0-9` and `bytes 0-9` are taken as well.
    """
    match = _RANGE.fullmatch(text.strip()) if text else None
    last = int(match[1]) if match else _SIZE_MAX
    if last >= _SIZE_MAX:
        return None
    return Acknowledged(offset=last + 1 if last else 0, ambiguous=last == 0)


def parse_length(text: str | None) -> int | None:
    """A positive number of bytes, as in `OCI-Chunk-Min-Length`."""
    if text is None or not re.fullmatch("[0-9]{1,19}", text.strip()):
        return None
    length = int(text)
    return length if 0 < length <= _SIZE_MAX else None


def parse_retry_after(headers: Headers) -> float | None:
    """Seconds to wait by `Retry-After`, at least 0 and at most `RETRY_AFTER_CAP_S`.

    A date is taken against the answer's own `Date`, so that no clock but the registry's counts; without one,
    None.
    """
    text = (get(headers, "retry-after") or "").strip()[:VALUE_MAX]
    if seconds := _SECONDS.fullmatch(text):
        return 0.0 if seconds[1] else min(float(seconds[2]), RETRY_AFTER_CAP_S)
    until, now = _parse_date(text), _parse_date(get(headers, "date") or "")
    if until is None or now is None:
        return None
    return min(max((until - now).total_seconds(), 0.0), RETRY_AFTER_CAP_S)


def _parse_date(text: str) -> datetime | None:
    match = _DATE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[n]) for n in (1, 3, 4, 5, 6))
    try:
        return datetime(year, _MONTHS.index(match[2]) + 1, day, hour, minute, second)
    except ValueError:
        return None


@attrs.frozen(kw_only=True)
class Challenge:
    """One way to authorize that a registry offers (RFC 9110, section 11.3)."""

    scheme: str
    """In lower case: `bearer`, `basic`."""
    parameters: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    """By name in lower case; of a name given twice the first counts."""


def parse_challenges(headers: Headers) -> tuple[Challenge, ...]:
    """The challenges of all `WWW-Authenticate` headers, in their order."""
    challenges: list[Challenge] = []
    for value in get_all(headers, "www-authenticate"):
        parameters: dict[str, str] | None = None
        for item in _CHALLENGE.finditer(value[:VALUE_MAX]):
            if item["scheme"]:
                if len(challenges) == CHALLENGES_MAX:
                    return tuple(challenges)
                parameters = {}
                challenges.append(Challenge(scheme=item["scheme"].lower(), parameters=parameters))
            elif parameters is not None:
                quoted = item["quoted"]
                text = item["plain"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
                parameters.setdefault(item["key"].lower(), text)
    return tuple(challenges)


def parse_warnings(headers: Headers) -> tuple[str, ...]:
    """The texts of all `Warning: 299 - "..."` headers (distribution-spec, "Warnings"), printable, bounded."""
    values = [value for name, value in headers if len(name) == 7 and name.lower() == "warning"]
    if not values:
        return ()
    texts: list[str] = []
    for value in values:
        position = 0
        value = value[:VALUE_MAX]
        while match := _WARNING.match(value, position):
            position = match.end()
            if match[1] == "299":
                texts.append(printable(_ESCAPED.sub(r"\1", match[2])))
    return tuple(texts[:WARNINGS_MAX])
