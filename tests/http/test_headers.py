"""Response headers: what is read, and that nothing a peer sends makes a parser raise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regproto._http import headers as _headers
from regproto._http.headers import Acknowledged, Challenge
from regproto._model.messages import Headers

REPEATABLE = settings(derandomize=True, deadline=None)
DATE = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")


def test_names_in_any_letter_case() -> None:
    headers = (("A", "1"), ("locaTION", "2"), ("location", "3"))
    assert _headers.get(headers, "location") == "2"
    assert _headers.get(headers, "range") is None
    assert _headers.get_all(headers, "location") == ("2", "3")
    assert _headers.get_all(headers, "range") == ()


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("0-1", 2),
        ("0-9", 10),
        (" 0-9 ", 10),
        ("bytes=0-9", 10),
        ("bytes 0-9", 10),
        ("Bytes=0-1048575", 1_048_576),
        (f"0-{2**63 - 2}", 2**63 - 1),
    ],
)
def test_range(text: str, offset: int) -> None:
    assert _headers.parse_range(text) == Acknowledged(offset=offset, ambiguous=False)


def test_one_byte_or_none() -> None:
    assert _headers.parse_range("0-0") == Acknowledged(offset=0, ambiguous=True)


@pytest.mark.parametrize(
    "text",
    [None, "", "0", "-", "0-", "-9", "1-9", "9-0", "0--1", "0-9-9", "0-9,20-29", "0 - 9", "0-x", "bytes", "0-\u0669"]
    + [f"0-{2**63 - 1}", "0-" + "9" * 5000, "bytes=bytes=0-9"],
)
def test_no_range(text: str | None) -> None:
    assert _headers.parse_range(text) is None


@pytest.mark.parametrize(
    ("text", "length"),
    [("1", 1), (" 5242880 ", 5_242_880), (str(2**63 - 1), 2**63 - 1)]
    + [(t, None) for t in (None, "", "0", "-1", "+1", "1.5", "1 2", "1_0", "x", "\u0661", str(2**63), "9" * 5000)],
)
def test_length(text: str | None, length: int | None) -> None:
    assert _headers.parse_length(text) == length


@pytest.mark.parametrize(
    ("value", "delay_s"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 2.5 ", 2.5),
        ("-5", 0.0),
        ("9" * 5000, _headers.RETRY_AFTER_CAP_S),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("sun, 06 nov 1994 08:50:07 gmt", 30.0),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", _headers.RETRY_AFTER_CAP_S),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 25:00:00 GMT", None),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("", None),
        ("soon", None),
        ("1e9", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_retry_after(value: str, delay_s: float | None) -> None:
    assert _headers.parse_retry_after((DATE, ("Retry-After", value))) == delay_s


@pytest.mark.parametrize("date", [(), (("Date", ""),), (("Date", "yesterday"),)])
def test_a_date_needs_the_answers_own_date(date: Headers) -> None:
    assert _headers.parse_retry_after((*date, ("Retry-After", DATE[1]))) is None
    assert _headers.parse_retry_after((*date, ("Retry-After", "7"))) == 7.0
    assert _headers.parse_retry_after(date) is None


HUB = 'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"'


@pytest.mark.parametrize(
    ("values", "challenges"),
    [
        ([], []),
        (
            [HUB],
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "registry",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (['bEARER ReAlM="X"'], [("bearer", {"realm": "X"})]),
        (['Basic realm="a", Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (['Basic realm="a"', 'Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (['Basic realm="a" Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (["Negotiate, Basic realm=a"], [("negotiate", {}), ("basic", {"realm": "a"})]),
        (["Negotiate YWJj==, Basic realm=a"], [("negotiate", {}), ("basic", {"realm": "a"})]),
        (["Negotiate YWJj==", "NTLM"], [("negotiate", {}), ("ntlm", {})]),
        ([r'Basic realm="say \"hi\", \\o/"'], [("basic", {"realm": r'say "hi", \o/'})]),
        (['Basic realm="x, Bearer realm=y"'], [("basic", {"realm": "x, Bearer realm=y"})]),
        (["Bearer realm=https://a/b?c=d,service=e"], [("bearer", {"realm": "https://a/b?c=d", "service": "e"})]),
        (['Bearer realm = "a" , service\t=\tb'], [("bearer", {"realm": "a", "service": "b"})]),
        (['Bearer ,, realm="a",, ,error=""'], [("bearer", {"realm": "a", "error": ""})]),
        (['Bearer realm="a",realm="b"'], [("bearer", {"realm": "a"})]),
        (['Bearer realm="a'], [("bearer", {"realm": "a"})]),
        (['Bearer realm="a\\'], [("bearer", {"realm": "a\\"})]),
        (["Bearer realm="], [("bearer", {})]),
        (["Bearer realm=,service=a"], [("bearer", {"service": "a"})]),
        (['realm="a", Bearer service="b"'], [("bearer", {"service": "b"})]),
        (['"quoted" Bearer realm="a"'], [("quoted", {}), ("bearer", {"realm": "a"})]),
        (["", ",", '"', "=", "\x00", "é"], []),
    ],
)
def test_challenges(values: list[str], challenges: list[tuple[str, dict[str, str]]]) -> None:
    headers = tuple(("WWW-Authenticate", value) for value in values)
    assert _headers.parse_challenges(headers) == tuple(Challenge(scheme=s, parameters=p) for s, p in challenges)


def test_challenges_are_bounded() -> None:
    many = tuple(("www-authenticate", "a, b, c") for _ in range(100))
    assert len(_headers.parse_challenges(many)) == _headers.CHALLENGES_MAX
    (long,) = _headers.parse_challenges((("www-authenticate", 'Basic realm="' + "x" * 100_000),))
    assert len(long.parameters["realm"]) < _headers.VALUE_MAX


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (['299 - "old"'], ("old",)),
        (['299 - "a"', '299 - "b"'], ("a", "b")),
        (['299 - "a, 299 - \\"b\\"", 299 - "c"'], ('a, 299 - "b"', "c")),
        (['299 registry.example:5000 "a" "Sun, 06 Nov 1994 08:49:37 GMT",299 - "b"'], ("a", "b")),
        (['199 - "x", 299 - "a", 110 - "y"'], ("a",)),
        ([r'299 - "back\\slash"'], ("back\\slash",)),
        (['299 - "\x1b[2J"'], ("\\x1b[2J",)),
        (['299 - ""'], ("",)),
        (['299 - "a" junk, 299 - "b"', '299 "a"', '299 - "open', "299", "", ",", 'x299 - "a"', "299 - bare"], ()),
    ],
)
def test_warnings(values: list[str], texts: tuple[str, ...]) -> None:
    assert _headers.parse_warnings(tuple(("Warning", value) for value in values)) == texts


def test_warnings_are_bounded() -> None:
    headers = tuple(("warning", f'299 - "{n}{"x" * 5000}"') for n in range(100))
    texts = _headers.parse_warnings(headers)
    assert len(texts) == _headers.WARNINGS_MAX
    assert all(len(text) <= 2001 for text in texts)
    assert _headers.parse_warnings((("warning", f'299 - "{"x" * 100_000}"'),)) == ()


_NAMES = st.sampled_from(["www-authenticate", "Warning", "Retry-After", "Date", "Range"]) | st.text(max_size=5)
_VALUES = st.text() | st.text(alphabet='aZ09=",\\ \t-:.') | st.sampled_from([HUB, DATE[1], '299 - "a"', "0-9"])
_PARSERS: list[Callable[[Headers], object]] = [
    _headers.parse_challenges,
    _headers.parse_warnings,
    _headers.parse_retry_after,
    lambda headers: _headers.parse_range(_headers.get(headers, "range")),
    lambda headers: _headers.parse_length(_headers.get(headers, "range")),
]


@REPEATABLE
@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=6).map(tuple))
def test_no_parser_raises(headers: Headers) -> None:
    for parse in _PARSERS:
        parse(headers)
    delay_s = _headers.parse_retry_after(headers)
    assert delay_s is None or (delay_s >= 0 and math.isfinite(delay_s))
    assert all(text.isprintable() for text in _headers.parse_warnings(headers))


@REPEATABLE
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=30), max_size=4))
def test_a_quoted_challenge_is_read_back(parameters: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    value = "Bearer " + ", ".join(f"{key}={quoted(text)}" for key, text in parameters.items())
    (challenge,) = _headers.parse_challenges((("www-authenticate", value),))
    assert challenge == Challenge(scheme="bearer", parameters=parameters)
