"""The base of every machine: outcomes, requests, details, the registry's capabilities, and `advance`.

A machine is one thing with a life at the registry (a blob, an upload session, a token), a table, and these methods:

    TABLE[state][outcome] -> state            every legal transition
    request() -> Request                      the request of the present state; pure, it may be made and never sent
    note_sent(request)                        keep what a request that is handed out claims (an end offset, a body)
    classify(response, url, proven)           the verdict for an answer, (Outcome, Details | None); pure
    decide(capabilities, config) -> Outcome   the choice in a state that DECIDES
    update(outcome, details)                  keep what an outcome brings, before the state changes

All knowledge of statuses is in `classify`, but for evidence that a registry answers (`evidence.py`).

A state is of one of four kinds: it ASKS (a request is due), it DECIDES (the next outcome follows from what is
known, without asking), it ENDS, or else it waits for another machine. `advance` is the one place where a state is
set; a transition that is not in the table is our own mistake and fails loudly.

A machine knows nothing of tokens, other machines, time or attempts: those are the engine's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeAlias, TypeVar, cast

import attrs

from regproto._http.referrers_list import Listing
from regproto._model.config import ERROR_BODY_MAX_BYTES, Config
from regproto._model.digest import Digest
from regproto._model.errors import RegprotoError
from regproto._model.manifest import Descriptor
from regproto._model.messages import Body, Headers, Response, redacted
from regproto._model.plan import MountSource

E = TypeVar("E", bound=enum.Enum)


def members(kind: type[E]) -> type[E]:
    """A plain class with the members of an enum as attributes.

    A step looks up some forty members, and CPython 3.11 takes five times as long to find one on the enum class itself,
    because of its metaclass.
    """
    return cast("type[E]", type(kind.__name__, (), dict(kind.__members__)))


class Outcome(enum.Enum):
    """The meaning of an answer, a decision or an event to a machine; each table uses some of them."""

    # What an answer says.
    PRESENT = "present"
    ABSENT = "absent"
    CREATED = "created"
    STARTED = "started"  # an upload session was opened
    ACCEPTED = "accepted"  # a part of the body was taken
    OFFSET_KNOWN = "offset known"  # the registry says how far it is
    LIST_READ = "list read"  # a list, or a page of one
    NO_OFFSET = "no offset"  # an upload status without a usable offset
    GONE = "gone"  # the upload session is unknown to the registry
    OUT_OF_ORDER = "out of order"  # out of order, and the answer does not say where to go on
    TOO_LARGE = "too large"  # this body is more than a proxy lets through
    INCONCLUSIVE = "inconclusive"  # a success that does not say what we need to know
    DELETED = "deleted"
    GRANTED = "granted"
    REJECTED = "rejected"  # this way is refused; another may work
    REFUSED = "refused"  # for good
    BROKEN = "broken"  # the registry broke the protocol
    MISSING = "missing"  # the registry does not have what was thought to be there
    # What is not an answer, or not one yet: the matrix "what to do with each answer" is these columns.
    CHALLENGED = "challenged"  # 401; the session gets a token
    NOT_SENT = "not sent"
    LOST = "lost"  # sent, at least in part, and no answer
    UNAVAILABLE = "unavailable"  # 5xx, 408, 429 and their like
    NOT_YET = "not yet"  # looked for after a commit, and not found
    UNSURE = "unsure"  # the work may still be going on over there: look again later
    # What the session adds.
    GAVE_UP = "gave up"  # as often as is allowed
    RETRIES_EXHAUSTED = "retries exhausted"  # the same, but there were answers: the registry only can't say
    CONTENT = "content"  # our own content can't be read, or has changed
    DENIED = "denied"  # no token for this
    CANCEL = "cancel"  # nobody wants it any more
    READY = "ready"  # all that this names is there
    UPLOADED = "uploaded"
    SESSION_LOST = "session lost"
    FAILED = "failed"  # the upload on this blob's behalf failed
    KNOWN = "known"  # the keychain has answered
    EXPIRED = "expired"  # a token is refused, too narrow or about to expire
    NARROWED = "narrowed"  # a token for less was asked for instead
    # Decisions.
    LOOK = "look"
    MOUNT = "mount"
    POST = "post"
    UPLOAD = "upload"
    PATCH = "patch"
    PUT = "put"
    COMMIT = "commit"
    KEEP = "keep"  # leave the upload session open, for a later process to go on with
    DISCARD = "discard"
    TAG = "tag"
    SHARE = "share"
    FETCH = "fetch"
    EXCHANGE = "exchange"
    USE = "use"
    ASK = "ask"  # the registry itself, for its list
    FOLLOW = "follow"  # the same content, on its way elsewhere
    CHECK = "check"  # whether something is there that is others'
    SETTLED = "settled"

    # Looked up in a table at every step; the members are singletons, so identity is enough (and four times as quick).
    __hash__ = object.__hash__


_O: Final = members(Outcome)

DELAYED = frozenset({_O.NOT_SENT, _O.LOST, _O.UNAVAILABLE, _O.UNSURE})
"""Outcomes that are waited out with backoff before the same machine asks again."""
FAULTS = DELAYED | {_O.OUT_OF_ORDER, _O.NOT_YET}
"""Outcomes that are counted; so many in a row, and the machine gives up."""


NO_PROGRESS = FAULTS | {_O.CHALLENGED, _O.GAVE_UP, _O.ABSENT, _O.INCONCLUSIVE}
"""Outcomes that are no progress, so the count of faults stands: a tag that is put, lost and not found, again and again,
comes to an end."""


class State(enum.Enum):
    """The base of every machine's states."""

    __hash__ = object.__hash__


Table: TypeAlias = Mapping[State, Mapping[Outcome, State]]


@attrs.define(eq=False)
class Request:
    """A request as a machine puts it; the session makes a `Send` of it."""

    method: str
    url: str = attrs.field(repr=lambda url: repr(url.partition("?")[0]))
    headers: Headers = attrs.field(default=(), repr=redacted)
    body: Body = attrs.field(default=b"", repr=False)
    max_body_bytes: int = ERROR_BODY_MAX_BYTES
    not_after: float | None = None
    """Begun later, it must not be sent."""
    deadline_s: float | None = None
    """The whole exchange; None: as the configuration has it."""
    end: int | None = None
    """The offset in the blob after the body's last byte; None: it is no part of a blob."""


@attrs.frozen(kw_only=True)
class Details:
    """The details of an answer beside its outcome."""

    error: RegprotoError | None = None
    location: str = attrs.field(default="", repr=False)
    """The newest URL of an upload session, resolved and checked."""
    offset: int | None = None
    """The number of bytes of the blob that the registry has."""
    chunk_min_bytes: int = 0
    chunk_bytes: int | None = None
    """With Outcome.TOO_LARGE: the size to try instead."""
    single_post: bool | None = None
    """The registry was learned to take (or not) a blob in a single POST."""
    chunked: bool | None = None
    """False: the registry was learned to take no body without a length."""
    cut: bool = False
    """With Outcome.LOST: the request was not sent whole, so it can't have taken effect."""
    late: bool = False
    """With Outcome.NOT_SENT: `Request.not_after` had passed, so it says nothing about the registry."""
    token: str = attrs.field(default="", repr=False)
    lifetime_s: float = 0.0
    tag_params: bool | None = None
    """The registry was learned to take tags as parameters (or not)."""
    tags: tuple[str, ...] = ()
    """The tags it put."""
    missing: tuple[Digest, ...] = ()
    """The digests that the registry says it does not have; empty with Outcome.MISSING: it names none."""
    subject_handled: bool = False
    """The registry put a manifest into its subject's list itself."""
    listing: Listing | None = None
    """A referrers list, or a page of one."""
    found: Descriptor | None = None
    """The manifest that a reference points to."""
    referrers_api: bool | None = None
    """The registry was learned to have (or not) a referrers API."""
    conditional_put: bool | None = None
    """The registry was seen to refuse a write whose condition did not hold."""
    sources: tuple[MountSource | None, ...] = ()
    """The mount sources that are left, in the order they are to be tried in."""
    cleared: frozenset[str] = frozenset()
    """The repositories among `sources` that were asked and not ruled out."""


Verdict: TypeAlias = tuple[Outcome, Details | None]


@attrs.define(kw_only=True)
class RegistryCapabilities:
    """The capabilities learned of the registry: once, not once a push."""

    single_post: bool | None = None
    tag_params: bool | None = None
    referrers_api: bool | None = None
    conditional_put: bool = False
    chunked: bool | None = None
    """False: bodies need a length."""

    def learn(self, details: Details) -> None:
        """Keep what an answer says of the registry as such."""
        if details.single_post is not None:
            self.single_post = details.single_post
        if details.tag_params is not None:
            self.tag_params = details.tag_params
        if details.referrers_api is not None:
            self.referrers_api = details.referrers_api
        if details.conditional_put is not None:
            self.conditional_put = details.conditional_put
        if details.chunked is not None:
            self.chunked = details.chunked


class QueueState(enum.Enum):
    """Where the session keeps a machine at the moment."""

    IDLE = "idle"
    QUEUED = "queued"
    DELAYED = "delayed"
    IN_FLIGHT = "in flight"

    __hash__ = object.__hash__


@attrs.define(kw_only=True, eq=False, repr=False)
class Machine:
    """The fields the engine keeps on every machine, and the methods it calls."""

    NAME: ClassVar[str]
    TABLE: ClassVar[Table]
    ASKS: ClassVar[frozenset[State]]
    DECIDES: ClassVar[frozenset[State]] = frozenset()
    ENDS: ClassVar[frozenset[State]]
    EXHAUSTED_AFTER: ClassVar[frozenset[Outcome]] = frozenset({Outcome.UNAVAILABLE})
    """Faults that end, after the last try, in `Outcome.RETRIES_EXHAUSTED` where the table has it."""

    state: State
    base: str
    """The registry's URL, without a slash at the end."""
    repository: str
    error: RegprotoError | None = None
    lane: int = 0
    """The push in whose turn it is sent; 0 for tokens."""
    node: Any = None
    """The node (`push_state.Node`) it brings about, or the push it is at work for; None: neither."""
    ends_for: Any = None
    """The push (`push_state.PushState`) that is over but for the end of this."""
    exchange: Any = None
    """The exchange (`scheduler.Exchange`) it has in flight."""
    place: QueueState = QueueState.IDLE
    due: float = 0.0
    """The end of its wait, when DELAYED."""
    begun_at: float = 0.0
    """When the exchange that was answered last was handed out..."""
    answered_at: float = 0.0
    """...and answered."""
    connected: bool = False
    """A new connection had to be made for that exchange."""
    faults: int = 0
    """Faults since the last progress."""
    challenges: int = 0
    """401s in a row that were sent with a token."""
    unauthorized: bool = False
    """A request without a token was answered 401; the next such answer is a refusal."""
    stale_connection: bool = False
    """A try since the last progress met a kept-alive connection that closed; the next such counts as a fault."""
    delay_s: float = 0.0
    """How long the next request is to wait."""
    redirect: tuple[Request, str, int, bool] | None = None
    """The request to be repeated at another URL instead of a new one, that URL, the number of redirects that led there,
    and whether any of them led from one origin to another."""
    content_failed: bool = False
    """Our own content failed, not the registry."""
    cancel_pending: bool = False
    """It is to be dropped as soon as the exchange in flight is answered."""
    expired: bool = False
    """No time is left to end in good order: no request is made any more."""
    prolonged: bool = False
    """Its time to end was extended once, because it had waited for a place."""

    @property
    def url_base(self) -> str:
        """A URL at the origin of the next request."""
        return self.base

    @property
    def body_bytes(self) -> int:
        """The size of the next request's body."""
        return 0

    @property
    def mount_source(self) -> str:
        """The repository of the same registry that the next request also reads from; "" for none."""
        return ""

    @property
    def holds_session(self) -> bool:
        """True while it has an open upload session that it has to end."""
        return False

    @property
    def cancels_upload(self) -> bool:
        """True if the next request serves to cancel such a session."""
        return False

    def may_open(self, capabilities: RegistryCapabilities) -> bool:
        """True if the next request, or the one in flight, may open an upload session whose URL only its answer has."""
        return False

    def max_faults(self, config: Config) -> int:
        """The number of faults in a row that are tolerated in this state."""
        return config.attempts - 1

    def classify(self, response: Response, url: str, proven: bool) -> Verdict:
        """The verdict for this answer. Pure.

        Args:
            response: the answer.
            url: the request's, for resolving a Location.
            proven: it is a registry that answers there (`evidence.py`).
        """
        raise NotImplementedError

    def request(self) -> Request:
        """The request of this state. Pure: it may be made and never sent."""
        raise NotImplementedError

    def note_sent(self, request: Request) -> None:
        """Keep what a request that is handed out claims."""

    def decide(self, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        """The next outcome in a state that DECIDES."""
        raise NotImplementedError

    def is_progress(self, outcome: Outcome, details: Details | None) -> bool:
        """Whether an outcome is progress."""
        return outcome not in NO_PROGRESS

    def reset_faults(self) -> None:
        """Reset the counts of faults after progress, and forgive one closed connection again.

        Nothing else does this, so that no loop of requests is endless.
        """
        self.faults = self.challenges = 0
        self.stale_connection = self.unauthorized = False

    def update(self, outcome: Outcome, details: Details | None) -> None:
        """Keep what an outcome brings; the state is still the one it came in."""
        if self.is_progress(outcome, details):
            self.reset_faults()
        if details is not None and details.error is not None:
            self.error = details.error
        if outcome is _O.CONTENT:
            self.content_failed = True

    def describe(self) -> str:
        """The machine in a few words, for errors and notices."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.describe()}: {self.state.value}>"


Edge: TypeAlias = tuple[str, State, Outcome]


def advance(
    machine: Machine,
    outcome: Outcome,
    details: Details | None,
    capabilities: RegistryCapabilities,
    config: Config,
    journal: list[Edge] | None = None,
) -> None:
    """Take one outcome, and then every decision that needs no further answer."""
    machine.update(outcome, details)
    machine.redirect = None
    while True:
        state = machine.state
        if journal is not None:
            journal.append((machine.NAME, state, outcome))
        try:
            machine.state = machine.TABLE[state][outcome]
        except KeyError:
            raise AssertionError(f"no transition: {machine.NAME} {state.value} --{outcome.value}-->") from None
        if machine.state not in machine.DECIDES:
            return
        outcome = machine.decide(capabilities, config)
