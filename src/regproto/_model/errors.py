"""The errors.

`LocalProtocolError` is our caller's mistake and is raised. What a registry, a network or the content does is data:
it stands in `PushResult.error`, and the bundled drivers raise it from there.
"""

from __future__ import annotations

import attrs

ERROR_TEXT_MAX = 2_000
"""Characters of a registry's own words that are kept: enough for a handful of errors, too few to flood a terminal."""


def escaped(text: str) -> str:
    """`text` as one line that is safe to print on a terminal: control and format characters, line breaks and lone
    surrogates are escaped. What is escaped already stays as it is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(text: str, limit: int = ERROR_TEXT_MAX) -> str:
    """`text` cut to `limit` characters, and `escaped`."""
    return escaped(text) if len(text) <= limit else escaped(text[:limit]) + "…"


class RegprotoError(Exception):
    """The base of every error this package makes.

    Its text is one printable line, whatever went into it: names, headers and bodies are others', and an error ends up
    on a terminal. It is escaped here, so that no message can forget it.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(escaped(str(arg)) for arg in args))


class LocalProtocolError(RegprotoError):
    """The driver or embedder broke the contract (unknown id, a second answer). Nothing has changed."""


class InvalidReferenceError(RegprotoError, ValueError):
    """A reference, repository name, tag or digest that is not well formed."""


class ContentError(RegprotoError):
    """The content to be pushed is not what it says: a manifest that is not JSON, a blob that is short or missing,
    a layout that is not one."""


class TransportError(RegprotoError):
    """The registry could not be reached, or went silent, for longer than the limits allow."""


class PushTimeoutError(TransportError):
    """The push was not over within `Config.push_timeout_s`.

    Attributes:
        timeout_s: that limit, in seconds.
    """

    def __init__(self, message: str, *, timeout_s: float) -> None:
        super().__init__(message)
        self.timeout_s = timeout_s

    def __reduce__(self) -> tuple[object, ...]:
        return _push_timeout, (str(self), self.timeout_s)


def _push_timeout(message: str, timeout_s: float) -> PushTimeoutError:
    return PushTimeoutError(message, timeout_s=timeout_s)


class RemoteProtocolError(RegprotoError):
    """The registry broke the protocol: no Location, a digest that is not ours, a redirect loop, garbage."""


class AuthenticationError(RegprotoError):
    """No token or credentials that the registry accepts."""


@attrs.frozen
class RegistryErrorDetail:
    """One entry of a registry's `errors` list (distribution-spec, "Error codes")."""

    code: str = attrs.field(converter=escaped)
    message: str = attrs.field(default="", converter=escaped)
    detail: str = attrs.field(default="", converter=escaped)


class RegistryError(RegprotoError):
    """The registry refused: its status, and its own codes and messages.

    Attributes:
        status: the HTTP status.
        errors: the registry's own errors, bounded and with control characters escaped.
    """

    def __init__(self, message: str, *, status: int, errors: tuple[RegistryErrorDetail, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors

    def __reduce__(self) -> tuple[object, ...]:
        return _registry_error, (str(self), self.status, self.errors)

    @property
    def codes(self) -> frozenset[str]:
        """The registry's error codes, e.g. `{"DENIED"}`."""
        return frozenset(e.code for e in self.errors)


def _registry_error(message: str, status: int, errors: tuple[RegistryErrorDetail, ...]) -> RegistryError:
    return RegistryError(message, status=status, errors=errors)
