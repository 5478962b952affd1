"""The life of a repository's authorization: credentials are asked for, exchanged for a token, used, renewed.

One machine per target repository covers a Basic registry (the header is made of the credentials), a bearer registry
(FETCHING, a GET, or EXCHANGING, an OAuth2 POST with an identity token), and a registry token used as it is. A token is
asked for everything the push will need; where the token server refuses the mount sources, or what a challenge asked
for beside, it is asked again without them (NARROWED). A token that expires, or is refused or too narrow, makes it
choose again.

Source: distribution's "Token Authentication Specification" and "OAuth2 Token Authentication"; RFC 6750 for
`insufficient_scope`.
"""

from __future__ import annotations

import base64
import json
import re
from typing import ClassVar, Final
from urllib.parse import quote, urlencode

import attrs

from regproto._http.url import shown
from regproto._machines.base import (
    Details,
    Machine,
    Outcome,
    RegistryCapabilities,
    Request,
    State,
    Table,
    Verdict,
    members,
)
from regproto._machines.verdicts import refused
from regproto._model.config import TOKEN_BODY_MAX_BYTES, TOKEN_LIFETIME_MAX_S, TOKEN_LIFETIME_MIN_S, Config
from regproto._model.errors import AuthenticationError, RemoteProtocolError
from regproto._model.messages import Credentials, Headers, Response


class TokenState(State):
    """The states of a repository's authorization."""

    AWAITING_CREDENTIALS = "awaiting credentials"
    CHOOSING = "choosing"
    EXCHANGING = "exchanging"
    FETCHING = "fetching"
    VALID = "valid"
    DENIED = "denied"


_S: Final = members(TokenState)
_O: Final = members(Outcome)

TABLE: Final[Table] = {
    _S.AWAITING_CREDENTIALS: {_O.KNOWN: _S.CHOOSING, _O.DENIED: _S.DENIED, _O.CANCEL: _S.DENIED},
    _S.CHOOSING: {
        _O.USE: _S.VALID,
        _O.EXCHANGE: _S.EXCHANGING,
        _O.FETCH: _S.FETCHING,
        _O.DENIED: _S.DENIED,
    },
    _S.EXCHANGING: {
        _O.GRANTED: _S.VALID,
        _O.REJECTED: _S.FETCHING,
        _O.NARROWED: _S.CHOOSING,
        _O.NOT_SENT: _S.EXCHANGING,
        _O.LOST: _S.EXCHANGING,
        _O.UNAVAILABLE: _S.EXCHANGING,
        _O.GAVE_UP: _S.DENIED,
        _O.REFUSED: _S.DENIED,
        _O.BROKEN: _S.DENIED,
        _O.CANCEL: _S.DENIED,
    },
    _S.FETCHING: {
        _O.GRANTED: _S.VALID,
        _O.NARROWED: _S.CHOOSING,
        _O.NOT_SENT: _S.FETCHING,
        _O.LOST: _S.FETCHING,
        _O.UNAVAILABLE: _S.FETCHING,
        _O.GAVE_UP: _S.DENIED,
        _O.REFUSED: _S.DENIED,
        _O.BROKEN: _S.DENIED,
        _O.CANCEL: _S.DENIED,
    },
    _S.VALID: {_O.EXPIRED: _S.CHOOSING},
    _S.DENIED: {},
}

CLIENT_ID: Final = "regproto"
_POST_REFUSALS: Final = frozenset({400, 401, 404, 405})
"""Statuses with which token servers without the OAuth2 form were seen to answer its POST (GCR, ACR, Artifactory)."""
_RENEW_AT: Final = 0.9
"""The part of its lifetime that a token is used: the rest covers clocks that differ and requests on their way."""
_UNSENDABLE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and the lone surrogates that Python decodes bytes to that are no text."""


def scope(repository: str, actions: str) -> str:
    """A token scope in the form registries use."""
    return f"repository:{repository}:{actions}"


def basic(username: str, password: str) -> str:
    """The value of a Basic Authorization header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@attrs.define(kw_only=True, eq=False, repr=False)
class TokenMachine(Machine):
    """The authorization of one repository's requests."""

    NAME: ClassVar[str] = "token"
    TABLE: ClassVar[Table] = TABLE
    ASKS: ClassVar[frozenset[State]] = frozenset({_S.EXCHANGING, _S.FETCHING})
    DECIDES: ClassVar[frozenset[State]] = frozenset({_S.CHOOSING})
    ENDS: ClassVar[frozenset[State]] = frozenset({_S.VALID, _S.DENIED})

    state: State = _S.AWAITING_CREDENTIALS
    scheme: str
    """`basic` or `bearer`."""
    realm: str = ""
    service: str = ""
    credentials: Credentials | None = None
    actions: str = "pull,push"
    """The actions to be allowed in the target."""
    sources: tuple[str, ...] = ()
    """Mount sources the token is also asked for."""
    refused_sources: frozenset[str] = frozenset()
    extra_scopes: tuple[str, ...] = ()
    """Scopes that a challenge with insufficient_scope asked for beside."""
    header: str = attrs.field(default="", repr=False)
    """The Authorization header's value while VALID."""
    lifetime_s: float = float("inf")
    asked_at: float = 0.0
    serial: int = 0
    """The number of tokens so far, so that a 401 to an older one can be recognised."""
    accepted: bool = False
    """The registry has accepted a request with this header: a 401 after that may pass, one before is final."""
    covers: frozenset[str] = frozenset()
    """The mount sources that the present token was asked for."""

    @property
    def url_base(self) -> str:
        return self.realm

    @property
    def renew_at(self) -> float:
        """The time from which a new token should be asked for."""
        return self.asked_at + self.lifetime_s * _RENEW_AT

    def describe(self) -> str:
        return f"token for {self.repository}"

    def decide(self, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        known = self.credentials
        if known is not None and known.registry_token:
            return self._use("Bearer " + known.registry_token)
        if self.scheme == "basic":
            if known is None or not (known.username or known.password):
                self.error = AuthenticationError(
                    f"{shown(self.base)} wants a user and a password: log in to it, or give them"
                )
                return _O.DENIED
            return self._use(basic(known.username, known.password))
        if known is not None and known.identity_token:
            return _O.EXCHANGE
        return _O.FETCH

    def _use(self, header: str) -> Outcome:
        if header == self.header and not self.accepted:
            self.error = AuthenticationError(f"{shown(self.base)} does not accept the credentials given: log in again")
            return _O.DENIED
        self._hold(header, float("inf"))
        return _O.USE

    def _hold(self, header: str, lifetime_s: float) -> None:
        self.header = header
        self.lifetime_s = lifetime_s
        self.serial += 1
        self.accepted = False
        self.covers = frozenset(self.sources) - self.refused_sources

    def scopes(self) -> tuple[str, ...]:
        """The scopes to ask for; the target first, since some token servers read only the first."""
        wanted = [scope(self.repository, self.actions)]
        wanted += [scope(source, "pull") for source in self.sources if source not in self.refused_sources]
        return tuple(dict.fromkeys((*wanted, *self.extra_scopes)))

    def request(self) -> Request:
        if self.state is _S.EXCHANGING:
            assert self.credentials is not None
            form = {
                "grant_type": "refresh_token",
                "service": self.service,
                "client_id": CLIENT_ID,
                "scope": " ".join(self.scopes()),
                "refresh_token": self.credentials.identity_token,
            }
            headers: Headers = (("Content-Type", "application/x-www-form-urlencoded"),)
            return Request(
                "POST", self.realm, headers, urlencode(form, errors="replace").encode(), TOKEN_BODY_MAX_BYTES
            )
        # A challenge may hold anything: what is no text is replaced.
        query = [f"service={quote(self.service, safe='', errors='replace')}"] if self.service else []
        query += [f"scope={quote(s, safe=':,/', errors='replace')}" for s in self.scopes()]
        if self.credentials is not None and self.credentials.username:
            query.append(f"account={quote(self.credentials.username, safe='')}")
        url = self.realm + ("&" if "?" in self.realm else "?") + "&".join(query)
        return Request("GET", url, (), b"", TOKEN_BODY_MAX_BYTES)

    def request_header(self) -> str:
        """The Authorization header of the request to the token server; "" for none."""
        known = self.credentials
        if self.state is not _S.FETCHING or known is None:
            return ""
        return basic(known.username or "<token>", known.password or known.identity_token)

    def classify(self, response: Response, url: str, proven: bool) -> Verdict:
        method = "POST" if self.state is _S.EXCHANGING else "GET"
        status = response.status
        if status == 200:
            return self._read(response, method, url)
        if self.state is _S.EXCHANGING and status in _POST_REFUSALS:
            return _O.REJECTED, None
        outcome, details = refused(
            self.describe(), method, url, response, "check the credentials and what they may push to"
        )
        narrowable = self.covers_sources() or self.extra_scopes
        if outcome is _O.REFUSED and narrowable:
            return _O.NARROWED, None
        return outcome, details

    def covers_sources(self) -> bool:
        """True if the token is asked for mount sources too."""
        return any(source not in self.refused_sources for source in self.sources)

    def _read(self, response: Response, method: str, url: str) -> Verdict:
        try:
            answer = json.loads(response.body)
            token = answer.get("token") or answer.get("access_token")
            lifetime = answer.get("expires_in")
        except (ValueError, AttributeError, RecursionError):
            token = lifetime = None
        if not isinstance(token, str) or not _is_token(token) or response.truncated:
            text = f"{self.describe()}: {method} {shown(url)} was answered without a usable token"
            return _O.UNAVAILABLE, Details(error=RemoteProtocolError(text))
        if not isinstance(lifetime, (int, float)) or isinstance(lifetime, bool):
            lifetime = TOKEN_LIFETIME_MIN_S
        # In this order, what is no number (JSON's NaN, as Python reads it) is the least.
        lifetime_s = float(min(max(TOKEN_LIFETIME_MIN_S, lifetime), TOKEN_LIFETIME_MAX_S))
        return _O.GRANTED, Details(token=token, lifetime_s=lifetime_s)

    def update(self, outcome: Outcome, details: Details | None) -> None:
        Machine.update(self, outcome, details)
        if outcome is _O.GRANTED:
            assert details is not None
            self.error = None
            self._hold("Bearer " + details.token, details.lifetime_s)
        elif outcome is _O.NARROWED:
            # What a token was once given for is not at fault, as long as there is something else that may be.
            wanted = frozenset(self.sources) - self.refused_sources
            self.refused_sources |= (wanted - self.covers) or (frozenset() if self.extra_scopes else wanted)
            self.extra_scopes = ()


def unsendable(credentials: Credentials) -> str:
    """The part of credentials that no request can carry, in words; "" if all can be sent.

    Source: RFC 7617 section 2 (no control characters), RFC 6750 section 2.1.
    """
    if _UNSENDABLE.search(credentials.username + credentials.password):
        return "the user or password holds characters that can't be sent"
    if _UNSENDABLE.search(credentials.identity_token):
        return "the identity token holds characters that can't be sent"
    if credentials.registry_token and not _is_token(credentials.registry_token):
        return "the registry token holds characters that can't be sent"
    return ""


def _is_token(text: str) -> bool:
    return 0 < len(text) <= TOKEN_BODY_MAX_BYTES and text.isascii() and text.isprintable() and " " not in text
