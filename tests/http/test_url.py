"""URLs: where a Location leads, byte for byte, and where a registry may not send us."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regproto._http import origin_policy as _origin_policy
from regproto._http import url as _url
from regproto._model.digest import Digest
from regproto._model.errors import LocalProtocolError, RemoteProtocolError

REPEATABLE = settings(derandomize=True, deadline=None)
BASE = "https://registry.example"
UPLOAD = f"{BASE}/v2/team/app/blobs/uploads/"
DIGEST = Digest("sha256:" + "0" * 64)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://registry.example", "https://registry.example:443"),
        ("HTTPS://Registry.Example/V2/?a=b", "https://registry.example:443"),
        ("http://registry.example?x=//y@z", "http://registry.example:80"),
        ("http://registry.example:/", "http://registry.example:80"),
        ("https://registry.example:0443/", "https://registry.example:443"),
        ("http://my_store:9000/a:b@c", "http://my_store:9000"),
        ("http://[::1]:5000/v2/", "http://[::1]:5000"),
        ("http://[2001:DB8:0::1]/", "http://[2001:db8::1]:80"),
    ],
)
def test_origin_of(url: str, origin: str) -> None:
    assert _url.origin_of(url) == origin


@pytest.mark.parametrize(
    "url",
    ["", "registry.example", "/v2/", "//registry.example", "https:/x", "https://", "https:///v2/", "file:///etc"]
    + ["ftp://a", "javascript:alert(1)", "https://user@a", "https://user:pw@a", "https://@a", "https://a@b@c"]
    + ["https://a:0", "https://a:65536", "https://a:123456", "https://a:b", "https://a:-1", "https://a:1:2"]
    + ["https://a b", "https://a\\@b", "https://a%2eb", "https://bücher.example", "https://a\n", "https://a\x00"]
    + ["http\u017f://a", "https://\u017fs.example", "https://\u212a.example"]
    + ["https://[::1", "https://[]", "https://[fe80::1%25eth0]", "https://[:::1]", "https://::1"],
)
def test_no_origin(url: str) -> None:
    with pytest.raises(RemoteProtocolError):
        _url.origin_of(url)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://registry.example", "https://registry.example"),
        ("HTTPS://Registry.example/", "https://registry.example"),
        ("http://localhost:5000/", "http://localhost:5000"),
        ("http://localhost:/", "http://localhost"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_base_url(text: str, base: str) -> None:
    assert _url.base_url(text) == base


@pytest.mark.parametrize(
    "text",
    ["", "registry.example", "registry.example:5000", "ftp://registry.example", "https://", "https:///"]
    + ["https://a/v2/", "https://a//", "https://a?b", "https://a/?b", "https://a#b", "https://u:pw@a", "https://a:0"]
    + ["http\u017f://a", "https://\u017fs.example", "https://\u212a.example"],
)
def test_base_url_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"expected https://host\[:port\]") as caught:
        _url.base_url(text)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("https://other.example/x?y=z", "https://other.example/x?y=z"),
        ("HTTPS://Other.example/X", "https://Other.example/X"),
        ("https://other.example", "https://other.example/"),
        ("https://other.example?y", "https://other.example/?y"),
        ("//other.example:8443/x", "https://other.example:8443/x"),
        ("/v2/team/app/blobs/uploads/7", UPLOAD + "7"),
        ("7?_state=a", UPLOAD + "7?_state=a"),
        ("./7", UPLOAD + "7"),
        ("../../7", f"{BASE}/v2/team/app/7"),
        ("../../../../../../7/.", f"{BASE}/7/"),
        ("/a/./b/../c", f"{BASE}/a/c"),
        ("/..", f"{BASE}/"),
        ("/a/.b/..c/...", f"{BASE}/a/.b/..c/..."),
        ("/a//b/", f"{BASE}/a//b/"),
        ("?a=b", UPLOAD + "?a=b"),
        ("?", UPLOAD + "?"),
        ("#top", UPLOAD + "?mount=a"),
        ("/x?a=b#c?d", f"{BASE}/x?a=b"),
        ("/x?u=https://user@other.example/../..", f"{BASE}/x?u=https://user@other.example/../.."),
        ("/x%2fy/%2e%2e/z+z;p=1@2:3?q=%2F+%20&&e=&f&g==", f"{BASE}/x%2fy/%2e%2e/z+z;p=1@2:3?q=%2F+%20&&e=&f&g=="),
    ],
)
def test_where_a_location_leads(location: str, leads_to: str) -> None:
    assert _url.resolve(UPLOAD + "?mount=a", location) == leads_to


def test_a_location_relative_to_a_request_without_path() -> None:
    assert _url.resolve("http://a", "b") == "http://a/b"
    assert _url.resolve("http://a", "?b") == "http://a/?b"


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("", "which is empty"),
        (" /x", "has spaces"),
        ("/x y", "has spaces"),
        ("/x\r\nSet-Cookie: a=b", "control characters"),
        ("/x\x00", "control characters"),
        ("/x\x7f", "control characters"),
        ("/bücher", "outside ASCII"),
        ("https://user:pw@registry.example/x", "user name or password"),
        ("//user@registry.example/x", "user name or password"),
        ("file:///etc/passwd", r"is not http\(s\)://host"),
        ("https:x", r"is not http\(s\)://host"),
        ("https:///x", r"is not http\(s\)://host"),
        ("///x", r"is not http\(s\)://host"),
        ("https://a:99999/", "port outside"),
        ("http://registry.example/x", "from https to plain http"),
        ("/" + "x" * 8192, "which is longer than 8192"),
        ("/x?" + "y" * 100_000, "which is longer than 8192"),
    ],
)
def test_a_location_refused(location: str, says: str) -> None:
    with pytest.raises(RemoteProtocolError, match=says) as caught:
        _url.resolve(UPLOAD, location)
    text = str(caught.value)
    assert text.isprintable()
    assert "pw" not in text
    assert len(text) < 500


def test_a_step_up_to_https_is_taken() -> None:
    assert _url.resolve("http://a/x", "https://a/y") == "https://a/y"


_QUERY = st.text(alphabet=[chr(c) for c in range(0x21, 0x7F) if chr(c) != "#"], max_size=60)
_FORMS = st.sampled_from(["", "7", "/v2/x/blobs/uploads/7", "//other.example/7", "https://other.example:1/7"])


@REPEATABLE
@given(form=_FORMS, query=_QUERY)
def test_a_query_is_kept_byte_for_byte(form: str, query: str) -> None:
    assert _url.resolve(UPLOAD, f"{form}?{query}").partition("?")[2] == query


@REPEATABLE
@given(query=_QUERY, value=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20))
def test_appending_leaves_the_rest_alone(query: str, value: str) -> None:
    url = _url.with_query(f"{BASE}/x?{query}", "key-of-ours", value)
    before, _, pair = url.rpartition("key-of-ours=")
    assert before.rstrip("&?") == f"{BASE}/x?{query}".rstrip("&?")
    assert "&" not in pair
    assert _url.resolve(BASE, url) == url


@REPEATABLE
@given(st.text() | st.text(alphabet="htps:/.@?#[]%0a\\\n"))
def test_nothing_else_is_raised(text: str) -> None:
    for call in (
        lambda: _url.origin_of(text),
        lambda: _url.resolve(UPLOAD, text),
        lambda: _origin_policy.check_origin(BASE, text, None),
    ):
        try:
            call()
        except RemoteProtocolError as error:
            assert str(error).isprintable()
    try:
        assert _url.base_url(text) == _url.base_url(_url.base_url(text))
    except LocalProtocolError:
        pass
    assert _url.shown(text).isprintable()


@REPEATABLE
@given(st.text(alphabet=[chr(c) for c in range(0x21, 0x7F)], min_size=1, max_size=60))
def test_where_a_location_leads_has_an_origin_and_stays_put(location: str) -> None:
    try:
        url = _url.resolve(UPLOAD, location)
    except RemoteProtocolError:
        return
    assert _url.origin_of(url).startswith("https://")
    assert _url.resolve(UPLOAD, url) == url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/u", "/u?digest=sha256:0"),
        ("/u?", "/u?digest=sha256:0"),
        ("/u?_state=a%2Bb+c==", "/u?_state=a%2Bb+c==&digest=sha256:0"),
        ("/u?a&&b=", "/u?a&&b=&digest=sha256:0"),
        ("/u?a=?b", "/u?a=?b&digest=sha256:0"),
        ("/u?digest=old", "/u?digest=sha256:0"),
        ("/u?a=1&digest=old&b=2", "/u?a=1&digest=sha256:0&b=2"),
        ("/u?digest&a=1&digest=old", "/u?digest=sha256:0&a=1"),
        ("/u?%64igest=old&a", "/u?digest=sha256:0&a"),
        ("/u?Digest=x&xdigest=y", "/u?Digest=x&xdigest=y&digest=sha256:0"),
    ],
)
def test_with_query(url: str, expected: str) -> None:
    assert _url.with_query(url, "digest", "sha256:0") == expected


def test_a_query_value_is_encoded() -> None:
    assert _url.with_query("/u", "from", "a/b&c=d +é?") == "/u?from=a/b%26c%3Dd%20%2B%C3%A9%3F"


# --- where a registry may send us ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "url"),
    [
        (BASE, f"{BASE}:8443/x"),
        (BASE, "https://REGISTRY.example/x"),
        (BASE, "https://storage.example/x"),
        (BASE, "https://8.8.8.8/x"),
        (BASE, "https://[2606:4700::1111]/x"),
        (BASE, "https://[::ffff:8.8.8.8]/x"),
        (BASE, "https://127.0.0.1.example/x"),
        ("http://registry.example", "http://storage.example/x"),
        ("http://registry.example", "https://storage.example/x"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/x"),
        ("http://localhost:5000", "http://localhost/x"),
        ("https://10.0.0.1", "https://10.0.0.1:444/x"),
        ("http://[::1]:5000", "http://[0:0::1]:5001/x"),
    ],
)
def test_origins_taken(base: str, url: str) -> None:
    _origin_policy.check_origin(base, url, None)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1.2.3", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"]
    + ["0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "127.0.0.1."]
    + ["2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "0", "1.2.3.4.5", "0x", "8.8.8"]
    + ["[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[fec0::1]", "[ff02::1]", "[ff0e::1]", "[2001:db8::1]"]
    + ["[::ffff:127.0.0.1]", "[::ffff:a00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"]
    + ["localhost", "LOCALHOST", "localhost.", "a.localhost", "localhost.localdomain", "ip6-loopback", "."],
)
@pytest.mark.parametrize("base", [BASE, "https://192.168.7.7"])
def test_origins_inside_are_refused(base: str, host: str) -> None:
    with pytest.raises(RemoteProtocolError, match="private network or this machine"):
        _origin_policy.check_origin(base, f"https://{host}:8443/latest/meta-data", lambda origin: True)


def test_a_loopback_registry_gets_no_other_loopback_host() -> None:
    with pytest.raises(RemoteProtocolError, match="private network or this machine"):
        _origin_policy.check_origin("http://localhost:5000", "http://127.0.0.1:5000/x", None)


@pytest.mark.parametrize("host", ["registry.example", "storage.example"])
def test_no_origin_in_the_clear_after_https(host: str) -> None:
    with pytest.raises(RemoteProtocolError, match="from https to plain http"):
        _origin_policy.check_origin(BASE, f"http://{host}/x", lambda origin: True)


@pytest.mark.parametrize(
    ("base", "url", "origin"),
    [
        (BASE, f"{BASE}:444/x", "https://registry.example:444"),
        (BASE, "https://Storage.example/x?y", "https://storage.example:443"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/x", "http://127.0.0.1:5001"),
        ("http://registry.example", "https://registry.example/x", "https://registry.example:443"),
        ("http://registry.example:443", "https://registry.example/x", "https://registry.example:443"),
    ],
)
def test_trust_is_asked_for_every_origin_but_the_registrys_own(base: str, url: str, origin: str) -> None:
    asked: list[str] = []
    _origin_policy.check_origin(base, url, lambda origin: not asked.append(origin))
    assert asked == [origin]
    with pytest.raises(RemoteProtocolError, match="not trusted"):
        _origin_policy.check_origin(base, url, lambda origin: False)
    _origin_policy.check_origin(base, url, None)


@pytest.mark.parametrize("url", [f"{BASE}/x", f"{BASE}:443/x", "HTTPS://Registry.Example/x"])
def test_trust_is_not_asked_for_the_registrys_own(url: str) -> None:
    _origin_policy.check_origin(BASE, url, lambda origin: False)


# --- endpoints and what is shown ----------------------------------------------------------------------------


def test_endpoints() -> None:
    assert _url.blob_url(BASE, "a/b", DIGEST) == f"{BASE}/v2/a/b/blobs/{DIGEST}"
    assert _url.uploads_url(BASE, "a/b") == f"{BASE}/v2/a/b/blobs/uploads/"
    assert _url.manifest_url(BASE, "a/b", "v1") == f"{BASE}/v2/a/b/manifests/v1"
    assert _url.manifest_url(BASE, "a/b", DIGEST) == f"{BASE}/v2/a/b/manifests/{DIGEST}"
    assert _url.referrers_url(BASE, "a/b", DIGEST) == f"{BASE}/v2/a/b/referrers/{DIGEST}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a/b?sig=secret#c", "https://a/b"),
        ("https://user:secret@a/b", "https://a/b"),
        ("//user:secret@a/b", "//a/b"),
        ("user:secret@a/b", "a/b"),
        ("https://u@secret@a/b@c", "https://a/b@c"),
        ("https://a/\x1b[2J\n", "https://a/\\x1b[2J\\n"),
        ("https://a/" + "b" * 1000, "https://a/" + "b" * 290 + "…"),
    ],
)
def test_shown(url: str, expected: str) -> None:
    assert _url.shown(url) == expected
