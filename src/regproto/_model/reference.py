"""References: `host[:port]/repository[:tag][@digest]`, and the checks of their parts.

Source: distribution-spec, "Pulling manifests" (the grammar of names and tags). What a missing host or tag
means is not in the spec; here it is what every common tool takes it to be.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import attrs

from regproto._model.digest import Digest
from regproto._model.errors import InvalidReferenceError, printable

DOCKER_HUB: Final = "index.docker.io"
"""The registry of a reference without a host; also the key of its credentials in docker's configuration."""

NAME_MAX: Final = 255
"""Characters of `host/repository` that clients may rely on (distribution-spec, "Pulling manifests")."""
REFERENCE_MAX: Final = 600
"""Characters of a whole reference: host and name, a tag of 128 and a sha512 digest of 135, rounded up."""

_DOCKER_HUB_API: Final = "registry-1.docker.io"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_REGISTRY: Final = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def check_repository(name: str, registry: str = "") -> str:
    """`name`, if it is a repository name that a registry (at this host, if given) has to take.

    Raises:
        InvalidReferenceError: it breaks the spec's grammar, or is too long together with the host.
    """
    whole = f"{registry}/{name}" if registry else name
    if len(whole) > NAME_MAX:
        raise InvalidReferenceError(
            f"repository {printable(whole, 60)!r} has {len(whole)} characters, host included; "
            f"at most {NAME_MAX} are allowed"
        )
    if not _REPOSITORY.fullmatch(name):
        raise InvalidReferenceError(
            f"{printable(name)!r} is not a repository name: expected lower-case letters and digits, "
            "joined by '.', '_', '__' or dashes, in parts separated by '/'"
        )
    return name


def check_tag(tag: str) -> str:
    """`tag`, if it is one. Raises `InvalidReferenceError` otherwise."""
    if not _TAG.fullmatch(tag):
        raise InvalidReferenceError(
            f"{printable(tag, 140)!r} is not a tag: expected 1 to 128 letters, digits, '_', '.' or '-', "
            "not beginning with '.' or '-'"
        )
    return tag


def check_reference(text: str) -> str:
    """`text`, if it is a tag or a digest. Raises `InvalidReferenceError` otherwise."""
    return Digest(text) if ":" in text else check_tag(text)


def check_registry(host: str) -> str:
    """`host[:port]` in lower case, the host being a name, an IPv4 address or an IPv6 address in brackets.

    Raises:
        InvalidReferenceError: it is something else, or the port is not in 1 to 65535.
    """
    match = _REGISTRY.fullmatch(host)
    if match is None or not _is_host(match["host"].lower()):
        raise InvalidReferenceError(
            f"{printable(host, 100)!r} is not a registry: expected host or host:port, the host being a name, "
            "an IPv4 address or an IPv6 address in [brackets]"
        )
    if match["port"] is not None and not 1 <= int(match["port"]) <= 65535:
        raise InvalidReferenceError(f"{printable(host, 100)!r} is not a registry: the port must be in 1 to 65535")
    return host.lower()


def _is_host(host: str) -> bool:
    labels = host.split(".")
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
        elif labels[-1].isdigit():
            # No name ends in a number; resolvers read `127.1` as an address; only the plain form is taken.
            ipaddress.IPv4Address(host)
        else:
            return len(host) <= 253 and all(map(_LABEL.fullmatch, labels))
    except ValueError:
        return False
    return True


def _canonical_registry(host: str) -> str:
    registry = check_registry(host)
    return DOCKER_HUB if registry == "docker.io" else registry


def _names_host(component: str) -> bool:
    return "." in component or ":" in component or component.lower() == "localhost"


@attrs.frozen(kw_only=True)
class Reference:
    """The place of something in a registry. Always canonical: `Reference.parse(str(reference)) == reference`.

    Raises `InvalidReferenceError` when a part is malformed.
    """

    registry: str = attrs.field(converter=_canonical_registry)
    """`host[:port]` in lower case, with a dot or a port, or `localhost`; `index.docker.io` for Docker Hub."""
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __attrs_post_init__(self) -> None:
        check_repository(self.repository, self.registry)
        if not _names_host(self.registry):
            raise InvalidReferenceError(
                f"registry {self.registry!r} would be read as part of the name: write it with its port, "
                f"as {self.registry}:443"
            )
        if self.registry == DOCKER_HUB and "/" not in self.repository:
            raise InvalidReferenceError(
                f"{self.repository!r} is not a Docker Hub repository: expected library/{self.repository}"
            )
        if self.tag:
            check_tag(self.tag)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference that `host[:port]/repository[:tag][@digest]` means.

        The first part is a host if it has a dot or a port or is `localhost`; without one Docker Hub is meant,
        where a name of one part gets `library/` before it. Without tag and digest `tag` stays empty: see
        `with_default_tag`.

        Raises:
            InvalidReferenceError: what is wrong, and what was expected.
        """
        if len(text) > REFERENCE_MAX:
            raise InvalidReferenceError(
                f"reference {printable(text, 60)!r} has {len(text)} characters; at most {REFERENCE_MAX} are allowed"
            )
        if "://" in text:
            raise InvalidReferenceError(f"{printable(text)!r} is a URL: a reference has no scheme, as in host/name:tag")
        named, at, digest = text.partition("@")
        registry, slash, rest = named.partition("/")
        if not slash or not _names_host(registry):
            registry, rest = DOCKER_HUB, named
        repository, colon, tag = rest.partition(":")
        if _canonical_registry(registry) == DOCKER_HUB and "/" not in repository:
            repository = f"library/{check_repository(repository)}"
        return cls(
            registry=registry,
            repository=repository,
            tag=check_tag(tag) if colon else "",
            digest=Digest(digest) if at else None,
        )

    def with_default_tag(self) -> Reference:
        """This reference, with the tag `latest` if it has neither tag nor digest."""
        return self if self.tag or self.digest else attrs.evolve(self, tag="latest")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def default_scheme(registry: str) -> str:
    """`http` for this machine's own names and loopback addresses, else `https`. Raises `InvalidReferenceError`."""
    match = _REGISTRY.fullmatch(check_registry(registry))
    assert match is not None
    host = match["host"].strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return "http"
    try:
        return "http" if ipaddress.ip_address(host).is_loopback else "https"
    except ValueError:
        return "https"


def registry_url(registry: str, plain_http: bool = False) -> str:
    """The base URL of a registry's API, `scheme://host[:port]`, for the registry part of a reference.

    `plain_http` asks for http where `default_scheme` would not. Raises `InvalidReferenceError`.
    """
    host = _canonical_registry(registry)
    scheme = "http" if plain_http else default_scheme(host)
    return f"{scheme}://{_DOCKER_HUB_API if host == DOCKER_HUB else host}"
