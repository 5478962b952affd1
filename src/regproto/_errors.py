"""The errors.

`LocalProtocolError` is our caller's mistake and is raised. What a registry, a network or the content does is data:
it stands in `PushResult.error`, and the bundled drivers raise it from there.
"""

from __future__ import annotations

import attrs

ERROR_TEXT_MAX = 2_000
"""Characters of a registry's own words that are kept: enough for a handful of errors, too few to flood a terminal."""


class RegprotoError(Exception):
    """The base of every error this package makes."""


class LocalProtocolError(RegprotoError):
    """The driver or embedder broke the contract (unknown id, a second answer). Nothing has changed."""


class InvalidReference(RegprotoError, ValueError):
    """A reference, repository name, tag or digest that is not well formed."""


class ContentError(RegprotoError):
    """The content to be pushed is not what it says: a manifest that is not JSON, a blob that is short or missing,
    a layout that is not one."""


class TransportError(RegprotoError):
    """The registry could not be reached, or went silent, for longer than the limits allow."""


class PushTimeout(TransportError):
    """The push was not over within `Config.push_timeout_s`.

    Attributes:
        timeout_s: that limit, in seconds.
    """

    def __init__(self, message: str, *, timeout_s: float) -> None:
        super().__init__(message)
        self.timeout_s = timeout_s

    def __reduce__(self) -> tuple[object, ...]:
        return _push_timeout, (str(self), self.timeout_s)


def _push_timeout(message: str, timeout_s: float) -> PushTimeout:
    return PushTimeout(message, timeout_s=timeout_s)


class RemoteProtocolError(RegprotoError):
    """The registry broke the protocol: no Location, a digest that is not ours, a redirect loop, garbage."""


class AuthenticationError(RegprotoError):
    """No token or credentials that the registry accepts."""


@attrs.frozen
class RegistryErrorDetail:
    """One entry of a registry's `errors` list (distribution-spec, "Error codes")."""

    code: str
    message: str = ""
    detail: str = ""


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


def printable(text: str, limit: int = ERROR_TEXT_MAX) -> str:
    """`text` with control characters escaped and cut to `limit` characters, safe to print on a terminal."""
    if len(text) <= limit and text.isprintable():
        return text
    cut = text[: limit + 1]
    out = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut[:limit])
    return out + "…" if len(cut) > limit else out
