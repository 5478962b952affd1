"""Authorization: the header that each request gets, and the origins that may get one.

The one place where an Authorization header is attached (`header_for`), and where a 401 is read. A registry is asked
without any first; its challenge says what it wants. Tokens are one machine per target repository (`token.py`).

Source: RFC 9110 section 11, RFC 6750 section 3, distribution's "Token Authentication Specification".
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

import attrs

from regproto._http.headers import Challenge, parse_challenges
from regproto._http.origin_policy import check_origin
from regproto._http.registry_errors import refusal
from regproto._http.url import origin_of, resolve, shown
from regproto._machines.base import Details, Machine, Outcome, Verdict, members
from regproto._machines.token import TokenMachine, TokenState, unsendable
from regproto._model.errors import AuthenticationError, RegprotoError, RemoteProtocolError
from regproto._model.messages import Credentials, NoCredentials, Response

_O: Final = members(Outcome)

CHALLENGES_MAX: Final = 3
"""401s in a row for one request: a token that had expired, one that was too narrow, and then it is a refusal."""
SCOPES_MAX: Final = 16
"""Scopes that challenges may ask for beside a push's own: registries were seen to ask for one or two. Each lengthens
the URL of this token and of every later one."""
SOURCES_KEPT: Final = 16
"""Mount sources a token is asked for beside those of the newest push: 4 kB of URL if their names are as long as they
may be. A source that is needed and is not among them costs another token."""

IDLE_REPOSITORIES_MAX: Final = 256
"""Repositories without a push whose token is kept for the next: a token has a few kB, so this is a megabyte at most. A
forgotten one costs one request."""


class Gate(enum.Enum):
    """Whether a machine's request may go now."""

    OPEN = "open"
    WAIT = "wait"
    DENIED = "denied"


@attrs.define(kw_only=True, eq=False, repr=False)
class Authorizer:
    """The authorization of one registry's requests."""

    base: str
    trust: Callable[[str], bool] | None
    origin: str = attrs.field(init=False)
    scheme: str = ""
    """`basic` or `bearer` once the registry has asked for it."""
    realm: str = ""
    service: str = ""
    tokens: dict[str, TokenMachine] = attrs.field(factory=dict)
    sources: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    """For each target repository the mount sources its token should cover, the newest last."""
    actions: dict[str, str] = attrs.field(factory=dict)
    """For each target repository the actions its token is to allow there."""

    pushes: dict[str, int] = attrs.field(factory=dict)
    """The number of pushes under way to each target repository."""
    idle: dict[str, None] = attrs.field(factory=dict)
    """Target repositories without a push under way, the longest idle first: the next push to one may use its token."""

    def __attrs_post_init__(self) -> None:
        self.origin = origin_of(self.base)

    def begin(self, repository: str) -> None:
        """Note one more push to `repository`."""
        self.pushes[repository] = self.pushes.get(repository, 0) + 1
        self.idle.pop(repository, None)

    def end(self, repository: str) -> None:
        """Note the end of a push to `repository`; the repository that is idle longest may be forgotten."""
        self.pushes[repository] -= 1
        if self.pushes[repository]:
            return
        del self.pushes[repository]
        self.idle[repository] = None
        if len(self.idle) > IDLE_REPOSITORIES_MAX:
            oldest = next(iter(self.idle))
            del self.idle[oldest]
            for kept in (self.tokens, self.sources, self.actions):
                kept.pop(oldest, None)

    def note_needs(self, repository: str, sources: tuple[str, ...], actions: str = "pull,push") -> None:
        """Note what a push to `repository` needs: `actions` there, and to mount from `sources`."""
        self.keep_sources(repository, sources)
        token = self.tokens.get(repository)
        if self.actions.get(repository) != "pull,push":
            self.actions[repository] = actions
        if token is not None and token.actions != self.actions[repository]:
            token.actions = self.actions[repository]
            if token.state is TokenState.VALID and not self._allows_all(token):
                token.lifetime_s = 0.0  # it does not allow enough
        # What was refused to an earlier push may be granted to this one.
        if token is not None and token.state is TokenState.DENIED:
            del self.tokens[repository]
        elif token is not None and token.state is TokenState.VALID:
            token.refused_sources &= frozenset(self.sources[repository]) - frozenset(sources)

    def keep_sources(self, repository: str, sources: tuple[str, ...]) -> None:
        """Have the repository's next token cover these sources, and the newest of those before."""
        kept = (*(s for s in self.sources.get(repository, ()) if s not in sources), *sources)
        self.sources[repository] = kept[-max(SOURCES_KEPT, len(sources)) :]

    def token_for(self, repository: str) -> TokenMachine:
        """The repository's token machine, made if there is none."""
        token = self.tokens.get(repository)
        if token is None:
            token = self.tokens[repository] = TokenMachine(
                base=self.base,
                repository=repository,
                scheme=self.scheme,
                realm=self.realm,
                service=self.service,
                sources=self.sources.get(repository, ()),
                actions=self.actions.get(repository, "pull,push"),
            )
        return token

    def gate(self, machine: Machine, now: float) -> Gate:
        """Whether this machine's next request may go, as far as authorization is concerned.

        WAIT: its token has to be asked for first (`token_for` gives the machine, whose token may have expired).
        """
        if isinstance(machine, TokenMachine) or origin_of(machine.url_base) != self.origin:
            return Gate.OPEN
        token = self.tokens.get(machine.repository)
        if token is None:
            return Gate.WAIT
        if token.state is TokenState.DENIED:
            machine.error = token.error
            return Gate.DENIED
        source = machine.mount_source
        if source and source in token.refused_sources:
            return Gate.DENIED
        if token.state is not TokenState.VALID or now >= token.renew_at or (source and not self._covers(token, source)):
            return Gate.WAIT
        return Gate.OPEN

    def _covers(self, token: TokenMachine, source: str) -> bool:
        return self._allows_all(token) or source in token.covers

    def _allows_all(self, token: TokenMachine) -> bool:
        """Whether it allows all that the account may do, whatever it was asked for."""
        known = token.credentials
        return token.scheme == "basic" or (known is not None and bool(known.registry_token))

    def header_for(self, machine: Machine, origin: str) -> tuple[str, int]:
        """The Authorization header for a request to `origin` ("" for none), and the token's serial number.

        Only the registry's own origin ever gets one; a token server's comes from its machine, for the realm's origin.
        """
        if not self.scheme:
            return "", 0
        if isinstance(machine, TokenMachine):
            return (machine.request_header() if origin == origin_of(machine.realm) else ""), 0
        if origin != self.origin:
            return "", 0
        token = self.tokens.get(machine.repository)
        return (token.header, token.serial) if token is not None else ("", 0)

    def challenged(self, machine: Machine, response: Response, method: str, url: str, serial: int) -> Verdict | None:
        """The verdict for a 401; None if authorization can't help, and the answer is the machine's to classify.

        Args:
            machine: whose request was refused.
            response: the refusal.
            method: the request's, as is `url`.
            url: where it was sent.
            serial: of the token it was sent with; 0 for none.
        """
        if isinstance(machine, TokenMachine) or origin_of(url) != self.origin:
            return None
        if serial == 0:
            if machine.unauthorized:
                return None  # it led to where none of our tokens goes, so a token can't help
            machine.unauthorized = True
            error = self._adopt(machine, response, method, url) if not self.scheme else None
            return (_O.REFUSED, Details(error=error)) if error else (_O.CHALLENGED, None)
        machine.challenges += 1
        token = self.tokens.get(machine.repository)
        if token is None or token.serial != serial or token.state is not TokenState.VALID:
            return (_O.CHALLENGED, None) if machine.challenges < CHALLENGES_MAX else None
        wider = self._wider(token, response)
        if machine.challenges > 1 and not wider or machine.challenges >= CHALLENGES_MAX:
            if machine.mount_source:
                token.refused_sources |= {machine.mount_source}
            return None
        token.extra_scopes = (*token.extra_scopes, *wider)
        token.lifetime_s = 0.0  # whatever it said of itself, it is not accepted any more
        return _O.CHALLENGED, None

    def accepted(self, repository: str, serial: int) -> None:
        """Note that a request with this token was accepted."""
        token = self.tokens.get(repository)
        if token is not None and token.serial == serial:
            token.accepted = True

    def _wider(self, token: TokenMachine, response: Response) -> tuple[str, ...]:
        """The scopes an insufficient_scope challenge asks for beyond the token's."""
        have = token.scopes()
        for challenge in parse_challenges(response.headers):
            if challenge.scheme == "bearer" and challenge.parameters.get("error") == "insufficient_scope":
                wanted = challenge.parameters.get("scope", "").split()
                return tuple(s for s in wanted if s not in have)[: SCOPES_MAX - len(token.extra_scopes)]
        return ()

    def _adopt(self, machine: Machine, response: Response, method: str, url: str) -> RegprotoError | None:
        """Take the scheme the registry asks for; the error if there is none that may be used."""
        challenges = {c.scheme: c for c in reversed(parse_challenges(response.headers))}
        bearer, plain = challenges.get("bearer"), challenges.get("basic")
        if bearer is not None:
            try:
                self.realm = self._judged_realm(bearer, url)
            except RemoteProtocolError as error:
                return AuthenticationError(f"{shown(self.base)}: {error}")
            self.service = bearer.parameters.get("service", "")
            self.scheme = "bearer"
        elif plain is not None:
            self.scheme = "basic"
        else:
            return refusal(
                machine.describe(),
                method,
                url,
                response,
                "the registry asks for no scheme that is known here",
            )
        return None

    def _judged_realm(self, challenge: Challenge, url: str) -> str:
        realm = challenge.parameters.get("realm", "")
        if not realm.lower().startswith(("https://", "http://")):
            raise RemoteProtocolError("the Bearer challenge names no token server (realm)")
        realm = resolve(url, realm)
        check_origin(self.base, realm, self.trust)
        return realm

    def known(self, token: TokenMachine, answer: Credentials | NoCredentials) -> Verdict:
        """The verdict for the keychain's answer to a token's question."""
        wrong = unsendable(answer) if isinstance(answer, Credentials) else answer.error
        if wrong:
            return _O.DENIED, Details(error=AuthenticationError(f"the credentials for {shown(self.base)}: {wrong}"))
        if isinstance(answer, Credentials):
            token.credentials = answer
        return _O.KNOWN, None
