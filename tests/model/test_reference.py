"""References and their parts: what is taken, what it means, and what is refused in which words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regproto._model.digest import Digest
from regproto._model.errors import InvalidReferenceError
from regproto._model.reference import (
    Reference,
    check_registry,
    check_repository,
    check_tag,
    default_scheme,
    registry_url,
)

REPEATABLE = settings(derandomize=True, deadline=None)
SHA256 = Digest("sha256:" + "a1" * 32)
SHA512 = Digest("sha512:" + "0f" * 64)


@pytest.mark.parametrize("name", ["a", "0", "team/app", "a.b/c_d/e__f/g-h/i---j", "library/ubuntu", "a" * 255, "1/2/3"])
def test_repository_taken(name: str) -> None:
    assert check_repository(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "/a", "a/", "a//b", "A", "a..b", "a___b", "a_-b", "-a", "a-", ".a", "a.", "..", "a/../b"]
    + ["a:b", "a b", "a\n", "a%2fb", "a?b", "ä", "a\u0661", "a" * 256],
)
def test_repository_refused(name: str) -> None:
    with pytest.raises(InvalidReferenceError):
        check_repository(name)


def test_the_host_counts_towards_the_length_of_a_name() -> None:
    assert check_repository("a" * 238, "registry.example")
    with pytest.raises(InvalidReferenceError, match="256 characters, host included; at most 255"):
        check_repository("a" * 239, "registry.example")


@pytest.mark.parametrize("tag", ["latest", "1.0", "_", "A-b.C_d", "v" * 128, "sha256-" + "a" * 64])
def test_tag_taken(tag: str) -> None:
    assert check_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a b", "a/b", "a:b", "a\n", "a+b", "é", "v" * 129])
def test_tag_refused(tag: str) -> None:
    with pytest.raises(InvalidReferenceError, match="is not a tag"):
        check_tag(tag)


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        ("registry.example", "registry.example"),
        ("Registry.Example:5000", "registry.example:5000"),
        ("localhost", "localhost"),
        ("a", "a"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]", "[::1]"),
        ("[2001:DB8::1]:65535", "[2001:db8::1]:65535"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_registry_taken(host: str, canonical: str) -> None:
    assert check_registry(host) == canonical


@pytest.mark.parametrize(
    "host",
    ["", ".", "a.", ".a", "a..b", "-a", "a-", "a_b", "bücher.example", "a" * 64, "a." * 126 + "ab"]
    + ["a:", "a:0", "a:65536", "a:99999", "a:123456", "a:b", "a:1:2", "a:-1", "a: 1"]
    + ["user@a", "user:pw@a", "https://a", "a/b", "a?b", "a#b", "a b", "a\n", "a\x00", "a\r\nX: y", "a%41"]
    + ["127.1", "1", "256.1.1.1", "1.2.3.4.5", "010.0.0.1", "0x7f.1"]
    + ["::1", "[]", "[::1", "[::1]5", "[fe80::1%25eth0]", "[1.2.3.4]", "[:::1]"],
)
def test_registry_refused(host: str) -> None:
    with pytest.raises(InvalidReferenceError, match="is not a registry"):
        check_registry(host)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ubuntu", "index.docker.io/library/ubuntu"),
        ("ubuntu:22.04", "index.docker.io/library/ubuntu:22.04"),
        ("team/app", "index.docker.io/team/app"),
        ("docker.io/ubuntu", "index.docker.io/library/ubuntu"),
        ("index.docker.io/ubuntu", "index.docker.io/library/ubuntu"),
        ("localhost:5000", "index.docker.io/library/localhost:5000"),
        ("localhost/app", "localhost/app"),
        ("localhost:5000/team/app:1.0", "localhost:5000/team/app:1.0"),
        ("[::1]:5000/app", "[::1]:5000/app"),
        ("Quay.io/a/b:v1", "quay.io/a/b:v1"),
        (f"quay.io/a/b@{SHA256}", f"quay.io/a/b@{SHA256}"),
        (f"quay.io/a/b:v1@{SHA512}", f"quay.io/a/b:v1@{SHA512}"),
        (f"ubuntu@{SHA256}", f"index.docker.io/library/ubuntu@{SHA256}"),
    ],
)
def test_what_a_reference_means(text: str, canonical: str) -> None:
    assert str(Reference.parse(text)) == canonical


def test_the_parts_of_a_reference() -> None:
    reference = Reference.parse(f"localhost:5000/team/app:1.0@{SHA256}")
    assert (reference.registry, reference.repository) == ("localhost:5000", "team/app")
    assert (reference.tag, reference.digest) == ("1.0", SHA256)
    assert isinstance(reference.digest, Digest)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a repository name"),
        ("quay.io/", "is not a repository name"),
        ("quay.io/A", "is not a repository name"),
        ("quay.io/a:", "is not a tag"),
        ("quay.io/a:b:c", "is not a tag"),
        ("quay.io/a@", "is not a digest"),
        ("quay.io/a@sha256:abc", "64 lower-case hex"),
        (f"quay.io/a@{SHA256}@{SHA256}", "is not a digest"),
        ("quay.io:0/a", "port must be in 1 to 65535"),
        ("user@quay.io/a", "is not a digest"),
        ("user:pw@quay.io/a", "is not a digest"),
        ("https://quay.io/a", "a reference has no scheme"),
        ("quay.io/a\nb", "is not a repository name"),
        ("quay.io/" + "a" * 250, "258 characters"),
        ("a" * 601, "at most 600"),
    ],
)
def test_a_reference_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidReferenceError, match=says):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("registry", "repository", "tag"),
    [
        ("quay.io", "A", ""),
        ("quay.io", "a", ".b"),
        ("user@quay.io", "a", ""),
        ("registry", "a", ""),
        ("index.docker.io", "ubuntu", ""),
    ],
)
def test_a_reference_that_would_not_be_read_back_is_not_made(registry: str, repository: str, tag: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Reference(registry=registry, repository=repository, tag=tag)


def test_errors_are_safe_to_print() -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        Reference.parse("quay.io/\x1b[2Jboo")
    assert "\x1b" not in str(caught.value)


def test_the_default_tag() -> None:
    assert Reference.parse("quay.io/a").with_default_tag().tag == "latest"
    assert Reference.parse("quay.io/a:b").with_default_tag().tag == "b"
    pinned = Reference.parse(f"quay.io/a@{SHA256}")
    assert pinned.with_default_tag() == pinned


@pytest.mark.parametrize(
    ("registry", "scheme"),
    [
        ("localhost", "http"),
        ("LOCALHOST:5000", "http"),
        ("kind.localhost:5000", "http"),
        ("127.0.0.1", "http"),
        ("127.9.9.9:443", "http"),
        ("[::1]:5000", "http"),
        ("registry.example", "https"),
        ("localhost.example", "https"),
        ("notlocalhost:80", "https"),
        ("10.0.0.1", "https"),
        ("[fd00::1]", "https"),
    ],
)
def test_http_is_for_this_machine_only(registry: str, scheme: str) -> None:
    assert default_scheme(registry) == scheme
    assert registry_url(registry) == f"{scheme}://{registry.lower()}"


def test_registry_url() -> None:
    assert registry_url("registry.example:80", plain_http=True) == "http://registry.example:80"
    assert registry_url("index.docker.io") == registry_url("docker.io") == "https://registry-1.docker.io"
    with pytest.raises(InvalidReferenceError):
        registry_url("user@registry.example")


@REPEATABLE
@given(st.text() | st.text(alphabet="aZ0.:/@-_[]%\n"))
def test_parsing_raises_nothing_else_and_is_canonical(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReferenceError:
        return
    assert Reference.parse(str(reference)) == reference


_COMPONENT = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,2})[a-z0-9]{1,5}){0,2}", fullmatch=True)
_HOSTS = st.sampled_from(["localhost", "registry.example", "10.0.0.1", "[::1]", "a.b", "docker.io"])
_PORTS = st.sampled_from(["", ":1", ":5000", ":65535"])


@REPEATABLE
@given(
    registry=st.builds(str.__add__, _HOSTS, _PORTS),
    components=st.lists(_COMPONENT, min_size=2, max_size=4),
    tag=st.just("") | st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True),
    digest=st.sampled_from([None, SHA256, SHA512]),
)
def test_every_reference_is_read_back(registry: str, components: list[str], tag: str, digest: Digest | None) -> None:
    reference = Reference(registry=registry, repository="/".join(components), tag=tag, digest=digest)
    assert Reference.parse(str(reference)) == reference
