"""The scheduler of requests: which are in flight, which are ready, which wait, and for how long.

One half of the engine (`graph.py` is the other). It owns limits, timers, backoff, redirects and the wait for tokens,
once, for all machines. It reads an answer only as far as these need; the verdict is the machine's.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import Any, Final

import attrs

from regproto._engine.authorizer import Authorizer, Gate
from regproto._engine.lanes import Lanes, Origin
from regproto._engine.notices import Notices
from regproto._engine.retry import Jitter, backoff_s
from regproto._http.evidence import is_evidence, unlike_a_registry
from regproto._http.headers import get, parse_retry_after, parse_warnings
from regproto._http.origin_policy import check_origin, check_upload_url
from regproto._http.registry_errors import failure_error
from regproto._http.url import NamedElsewhere, origin_of, resolve, shown
from regproto._machines.base import (
    DELAYED,
    FAULTS,
    Details,
    Edge,
    Machine,
    Outcome,
    QueueState,
    RegistryCapabilities,
    Request,
    Verdict,
    advance,
    members,
)
from regproto._machines.blob import BlobMachine
from regproto._machines.stream import StreamUpload, unreplayable_error
from regproto._machines.token import TokenMachine, TokenState
from regproto._machines.upload import UploadMachine
from regproto._machines.verdicts import failure
from regproto._model.config import ANSWER_BYTES_PER_S, HEAD_MAX_BYTES, REDIRECTS_MAX, TRANSIENT, Config
from regproto._model.errors import RemoteProtocolError, TransportError
from regproto._model.messages import (
    Abort,
    BlobSlice,
    Credentials,
    Failed,
    FailureKind,
    Headers,
    NeedCredentials,
    NeedManifests,
    NoCredentials,
    Notice,
    Phase,
    Progress,
    Response,
    Send,
    Status,
    Stream,
    Written,
    body_size,
)

_O: Final = members(Outcome)
_P: Final = members(QueueState)
_G: Final = members(Gate)

ORIGINS_MAX: Final = 64
"""Hosts that one session may be led to: a registry uses two or three; a registry that names more leads us around."""
WARNINGS_MAX: Final = 100
"""Different warning texts shown in one session."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_READS: Final = frozenset({"GET", "HEAD"})
SESSIONS_PER_PLACE: Final = 2
"""Upload sessions that may be open for each exchange that may be in flight: one being sent, one ready to be next."""


@attrs.define(eq=False, repr=False)
class Exchange:
    """A request that was handed out and not answered yet."""

    id: int
    machine: Machine
    ask: Request
    url: str
    origin: Origin
    size: int
    """Bytes of the body; of a stream, its share of the bytes in flight."""
    serial: int
    """Of the token it was sent with; 0 for none."""
    redirects: int
    named_elsewhere: bool
    """Another origin named its URL, by a redirect or a Location: it gets no authorization."""
    begun: float
    deadline: float
    limit: tuple[str, float]
    """The reason of the deadline, in words, and its seconds."""
    progress: Progress | None = None
    connected: bool = False
    """The driver reported that it had to make a connection."""
    own: Progress | None = None
    """The newest progress of the request, not of its answer..."""
    own_at: float = 0.0
    """...and when it was first reported: bytes of an answer in between do not extend its deadline."""
    heard_at: float = 0.0
    """When the answer began to arrive."""
    aborted: str = ""
    """Not empty: an Abort was handed out, and why."""
    ends_for: Any = None
    """The push (`push_state.PushState`) that is over but for this exchange, which reads its content for another."""
    opens: bool = False
    """It may open an upload session."""


@attrs.define(kw_only=True, eq=False, repr=False)
class Scheduler:
    """The exchanges of one session."""

    base: str
    registry: str
    config: Config
    auth: Authorizer
    capabilities: RegistryCapabilities = attrs.field(factory=RegistryCapabilities)
    jitter: Jitter
    now: float
    prefix: str = attrs.field(init=False)
    agent: Headers = attrs.field(init=False)
    home: Origin = attrs.field(init=False)
    """The registry's own origin."""
    sessions_max: int = attrs.field(init=False)
    """The most upload sessions that may be open."""
    first_limit: tuple[str, float] = attrs.field(init=False)
    """The first limit of every exchange."""
    journal: list[Edge] | None = None
    notices: Notices = attrs.field(factory=Notices)
    origins: dict[str, Origin] = attrs.field(factory=dict)
    in_flight: dict[int, Exchange] = attrs.field(factory=dict)
    outbox: deque[Abort | NeedCredentials | NeedManifests] = attrs.field(factory=deque)
    awaiting_token: dict[str, list[tuple[Lanes, int, deque[Machine]]]] = attrs.field(factory=dict)
    keychain: dict[int, TokenMachine] = attrs.field(factory=dict)
    """Questions to the keychain that are not answered yet."""
    sessions: set[Machine] = attrs.field(factory=set)
    """Machines that have an open upload session to end."""
    opening: int = 0
    """The number of requests in flight that may open one more."""
    timers: list[tuple[float, int, Machine]] = attrs.field(factory=list)
    next_id: int = 1
    next_deadline: float = math.inf
    """The earliest deadline in flight, or a time before it."""
    requests: int = 0
    sent_bytes: int = 0

    def __attrs_post_init__(self) -> None:
        self.prefix = self.base + "/"
        self.agent = (("User-Agent", self.config.user_agent),)
        self.sessions_max = SESSIONS_PER_PLACE * self.config.max_exchanges
        self.home = self.origins[self.auth.origin] = Origin(self.auth.origin)
        whole_s, connect_s = self.config.exchange_timeout_s, self.config.connect_timeout_s
        self.first_limit = ("no connection", connect_s)
        if whole_s is not None and whole_s < connect_s:
            self.first_limit = ("not over", whole_s)

    # --- towards the driver ---

    def tick(self, now: float) -> None:
        """Set the time: machines whose delay is over become ready, exchanges past their deadlines are aborted."""
        if now > self.now:
            self.now = now
        while self.timers and self.timers[0][0] <= self.now:
            due, _, machine = heapq.heappop(self.timers)
            if machine.place is _P.DELAYED and machine.due == due:
                machine.place = _P.IDLE
                if machine.state in machine.ASKS:  # else it was dropped while it waited
                    self.enqueue(machine)
        if self.next_deadline <= self.now:
            self._expire()

    def next_output(self) -> Send | Abort | NeedCredentials | NeedManifests | tuple[Machine, Verdict] | None:
        """The next thing to do: an output, or a machine whose request can't be authorized, with the verdict."""
        while self.outbox:
            found = self.outbox.popleft()
            if not isinstance(found, Abort) or found.id in self.in_flight:
                return found  # an Abort is void if the answer came before it was polled for
        for origin in tuple(self.origins.values()):
            # A request that ends an upload session never waits for room for one, so there may soon be one more.
            may_open = len(self.sessions) + self.opening < self.sessions_max
            while (lanes := origin.ready(self.config, self.now, may_open)) is not None:
                machine = lanes.first()
                if machine.state not in machine.ASKS:
                    lanes.pop().place = _P.IDLE  # dropped while it was queued
                    continue
                if not may_open and machine.may_open(self.capabilities):
                    origin.withheld.add(machine.lane, lanes.pop())
                    continue
                gate = self.auth.gate(machine, self.now) if self.auth.scheme else _G.OPEN
                if gate is _G.WAIT:
                    self._park(lanes, machine.repository)
                    if self.outbox:
                        return self.outbox.popleft()
                    continue
                lanes.pop()
                if gate is _G.DENIED:
                    machine.place = _P.IDLE
                    return machine, (_O.DENIED, None)
                if machine.redirect is not None:
                    return self._send(machine, *machine.redirect)
                named_elsewhere = isinstance(machine.url_base, NamedElsewhere)
                ask = machine.request()
                machine.note_sent(ask)
                return self._send(machine, ask, ask.url, 0, named_elsewhere)
        return None

    def note_session(self, machine: Machine) -> None:
        """Note whether a machine has an open upload session."""
        if machine.holds_session:
            self.sessions.add(machine)
        elif self.sessions:
            self.sessions.discard(machine)

    def is_crowded_out(self, machine: Machine) -> bool:
        """Whether a machine waits for nothing but a place among others."""
        if machine.place is not _P.QUEUED:
            return False
        origin = self._origin_at(machine.redirect[1] if machine.redirect is not None else machine.url_base)
        awaiting_token = (waiting for *_, waiting in self.awaiting_token.get(machine.repository, ()))
        return self.now >= origin.hold_until and not any(machine in waiting for waiting in awaiting_token)

    def wait_until(self) -> float:
        """The time before which there is nothing to do unless something is received."""
        until = min(self.next_deadline, self.timers[0][0] if self.timers else math.inf)
        for origin in self.origins.values():
            if origin.hold_until > self.now and origin.waits:
                until = min(until, origin.hold_until)
        return until

    def _send(self, machine: Machine, ask: Request, url: str, redirects: int, named_elsewhere: bool) -> Send:
        origin, now = self._origin_at(url), self.now
        number = self.next_id
        self.next_id += 1
        bare = named_elsewhere or not self.auth.scheme
        value, serial = ("", 0) if bare else self.auth.header_for(machine, origin.name)
        size = ask.body.keep_bytes if isinstance(ask.body, Stream) else body_size(ask.body)
        limit = self.first_limit
        deadline = now + limit[1]
        if deadline < self.next_deadline:
            self.next_deadline = deadline
        exchange = Exchange(
            number, machine, ask, url, origin, size, serial, redirects, named_elsewhere, now, deadline, limit
        )
        if ask.deadline_s is not None:
            self._hasten(exchange)
        if ask.method == "POST" and machine.may_open(self.capabilities):
            exchange.opens = True
            self.opening += 1
        origin.exchanges += 1
        origin.bodies += size > 0
        origin.body_bytes += size
        self.requests += 1
        machine.place = _P.IN_FLIGHT
        self.in_flight[number] = exchange
        machine.exchange = exchange
        headers = ask.headers + self.agent
        if value:
            headers += (("Authorization", value),)
        return Send(
            id=number,
            method=ask.method,
            url=url,
            headers=headers,
            body=ask.body,
            max_head_bytes=HEAD_MAX_BYTES,
            max_body_bytes=ask.max_body_bytes,
            not_after=ask.not_after,
        )

    # --- towards the machines ---

    def enqueue(self, machine: Machine) -> None:
        """Queue the request of a machine, at once or after its delay."""
        if machine.place is _P.QUEUED:
            return
        if machine.delay_s:
            machine.place = _P.DELAYED
            machine.due = self.now + machine.delay_s
            machine.delay_s = 0.0
            self.next_id += 1
            heapq.heappush(self.timers, (machine.due, self.next_id, machine))
            return
        machine.place = _P.QUEUED
        origin = self._origin_at(machine.redirect[1] if machine.redirect is not None else machine.url_base)
        lanes = origin.ending if machine.cancels_upload else origin.heavy if machine.body_bytes else origin.light
        lanes.add(machine.lane, machine)

    def _origin_at(self, url: str) -> Origin:
        """The origin a URL leads to: nearly always the registry's own."""
        if url is self.base or url.startswith(self.prefix):
            return self.home
        name = origin_of(url)
        origin = self.origins.get(name)
        if origin is None:
            origin = self.origins[name] = Origin(name)
        return origin

    def _admit(self, url: str) -> None:
        """Check a URL that an answer names, and make room for its origin."""
        check_origin(self.base, url, self.auth.trust)
        if len(self.origins) >= ORIGINS_MAX and origin_of(url) not in self.origins:
            spare = [o for o in self.origins.values() if o is not self.home]
            idle = [o.name for o in spare if not (o.exchanges or o.waits)]
            if not idle:
                raise RemoteProtocolError(f"the registry leads to more than {ORIGINS_MAX} hosts at once")
            del self.origins[idle[0]]

    def abort(self, machine: Machine) -> None:
        """Abort the exchange of this machine; its answer is still owed."""
        exchange: Exchange | None = machine.exchange
        if exchange is not None and not exchange.aborted:
            exchange.aborted = "cancelled"
            self.outbox.append(Abort(id=exchange.id))

    # --- from the driver ---

    def progress(self, progress: Progress) -> Exchange | None:
        """Take the progress of an exchange; None if it is being aborted already."""
        exchange = self.in_flight[progress.id]
        if exchange.aborted:
            return None
        if progress != exchange.progress:
            before, exchange.progress = exchange.progress, progress
            config, since = self.config, self.now
            whole_s = config.response_timeout_s + exchange.ask.max_body_bytes / ANSWER_BYTES_PER_S
            if progress.phase is Phase.RECEIVING:
                if before is None or before.phase is not Phase.RECEIVING:
                    exchange.heard_at = since
            elif progress == exchange.own:
                since = exchange.own_at
            else:
                exchange.own, exchange.own_at = progress, since
            if progress.phase is Phase.WAITING:
                exchange.limit = ("no answer", config.response_timeout_s)
            elif progress.phase is Phase.CONNECTING:
                exchange.limit = ("no connection", config.connect_timeout_s)
                exchange.connected = True
            elif progress.phase is Phase.READING:
                exchange.limit = ("", math.inf)
            else:
                exchange.limit = ("no byte moved", config.idle_timeout_s)
            exchange.deadline = since + exchange.limit[1]
            if progress.phase is Phase.RECEIVING and exchange.heard_at + whole_s < exchange.deadline:
                exchange.limit, exchange.deadline = ("no whole answer", whole_s), exchange.heard_at + whole_s
            self._hasten(exchange)
        return exchange

    def sends_content(self, number: int) -> bool:
        """Whether the body of an exchange in flight is read from the push's content."""
        return isinstance(self.in_flight[number].ask.body, (BlobSlice, Stream))

    def handle_answer(self, answer: Response | Failed) -> tuple[Machine, Verdict] | None:
        """End an exchange: gives its machine and the verdict. None: a redirect is followed first."""
        exchange = self.in_flight.pop(answer.id)
        machine, origin = exchange.machine, exchange.origin
        self.opening -= exchange.opens
        origin.exchanges -= 1
        origin.bodies -= exchange.size > 0
        origin.body_bytes -= exchange.size
        machine.exchange = None
        machine.place = _P.IDLE
        machine.begun_at, machine.answered_at, machine.connected = exchange.begun, self.now, exchange.connected
        sent_bytes = exchange.size
        if answer.stream is not None and isinstance(machine, StreamUpload) and isinstance(exchange.ask.body, Stream):
            machine.note_stream(answer.stream)
            sent_bytes = answer.stream.sent - exchange.ask.body.offset
        if isinstance(answer, Failed):
            return machine, self._failed(exchange, answer)
        origin.answered = True
        if not origin.proven:
            origin.proven = is_evidence(exchange.ask.method, exchange.ask.url, answer)
        # To another origin only the registry has led us, so its evidence counts there too.
        proven = origin.proven or self.home.proven
        self.sent_bytes += sent_bytes
        for text in parse_warnings(answer.headers):
            self.notices.warn(self.registry, text, WARNINGS_MAX)
        try:
            if answer.status in _REDIRECTS and self._redirect(exchange, answer):
                return None
            verdict = None
            if answer.status == 401 and not exchange.named_elsewhere:
                verdict = self.auth.challenged(machine, answer, exchange.ask.method, exchange.url, exchange.serial)
            elif exchange.serial:
                self.auth.accepted(machine.repository, exchange.serial)
            if verdict is None:
                verdict = machine.classify(answer, exchange.url, proven)
                if self.config.retry_statuses is not TRANSIENT:
                    verdict = self._by_choice(machine, answer.status, verdict)
                details = verdict[1]
                if details is not None and details.location:
                    verdict = verdict[0], self._located(exchange, details)
        except RemoteProtocolError as error:
            verdict = (
                _O.BROKEN,
                Details(
                    error=RemoteProtocolError(
                        f"{machine.describe()}: {exchange.ask.method} {shown(exchange.url)}: {error}"
                    )
                ),
            )
        details = verdict[1]
        if not proven and details is not None and details.error is not None and not isinstance(machine, TokenMachine):
            verdict = verdict[0], attrs.evolve(details, error=unlike_a_registry(details.error, answer.status))
        wait_s = 0.0
        if verdict[0] in FAULTS or answer.status == 429:
            wait_s = self._asked_to_wait(origin, answer)
        return machine, self._count(exchange, verdict, wait_s) if verdict[0] in FAULTS else verdict

    def _located(self, exchange: Exchange, details: Details) -> Details:
        """Check the Location or next page that an answer names, and mark one that another origin named."""
        machine, location = exchange.machine, details.location
        self._admit(location)
        if isinstance(machine, (BlobMachine, UploadMachine)):
            check_upload_url(self.base, machine.repository, location)
        if exchange.named_elsewhere or exchange.origin is not self.home:
            return attrs.evolve(details, location=NamedElsewhere(location))
        return details

    def _by_choice(self, machine: Machine, status: int, verdict: Verdict) -> Verdict:
        """The verdict by `Config.retry_statuses`."""
        retried, outcome = self.config.retry_statuses, verdict[0]
        row = machine.TABLE[machine.state]
        if outcome is _O.REFUSED and status in retried and _O.UNAVAILABLE in row:
            return _O.UNAVAILABLE, verdict[1]
        if outcome is _O.UNAVAILABLE and status in TRANSIENT - retried:
            unable = outcome in machine.EXHAUSTED_AFTER and _O.RETRIES_EXHAUSTED in row
            return (_O.RETRIES_EXHAUSTED if unable else _O.GAVE_UP), verdict[1]
        return verdict

    def _redirect(self, exchange: Exchange, response: Response) -> bool:
        """Follow a redirect; False if this status asks for none here."""
        location = get(response.headers, "location")
        method = exchange.ask.method
        if not location or (response.status < 307 and method not in _READS):
            return False
        if exchange.redirects >= REDIRECTS_MAX:
            raise RemoteProtocolError(f"redirected more than {REDIRECTS_MAX} times")
        if exchange.machine.cancel_pending or exchange.machine.expired:
            return False
        if isinstance(exchange.machine, StreamUpload) and exchange.machine.stream_status.kept > exchange.machine.offset:
            raise RemoteProtocolError(str(unreplayable_error("redirected: the stream", exchange.machine.stream_status)))
        url = resolve(exchange.url, location)
        self._admit(url)
        machine, ask = exchange.machine, exchange.ask
        elsewhere = origin_of(url) != exchange.origin.name
        if isinstance(machine, TokenMachine) and ask.body and elsewhere:
            raise RemoteProtocolError("the token server leads to another host, which gets no credentials of ours")
        if isinstance(machine, (BlobMachine, UploadMachine)) and not (
            method in _READS and machine.url_base == self.base
        ):
            check_upload_url(self.base, machine.repository, url)  # what is not about the blob is about its upload
        # With another push's content the request is made anew, not sent on.
        redirect = (ask, url, exchange.redirects + 1, exchange.named_elsewhere or elsewhere)
        machine.redirect = redirect if exchange.ends_for is None else None
        self.enqueue(machine)
        return True

    def _failed(self, exchange: Exchange, failed: Failed) -> Verdict:
        machine, outcome = exchange.machine, failure(failed)
        error = failure_error(machine.describe(), exchange.ask.method, exchange.url, failed, exchange.aborted)
        if exchange.ends_for is not None and failed.kind in (FailureKind.ABORTED, FailureKind.CONTENT):
            # It read the content of a push that is over: no fault of the one that goes on with its own.
            return _O.NOT_SENT if failed.written is Written.NONE else _O.LOST, Details(
                error=error, cut=failed.written is not Written.ALL
            )
        if outcome is _O.CONTENT:
            return outcome, Details(error=error)
        if failed.kind is FailureKind.TLS:
            return _O.GAVE_UP, Details(error=error)  # a certificate does not get better by asking again
        details = Details(error=error, cut=failed.written is not Written.ALL, late=failed.kind is FailureKind.NOT_SENT)
        if failed.reused and failed.kind is FailureKind.CLOSED and not machine.stale_connection:
            # The registry closed an idle connection: nobody's fault, so it does not count, once.
            machine.stale_connection = True
            return outcome, details
        return self._count(exchange, (outcome, details), 0.0)

    def _count(self, exchange: Exchange, verdict: Verdict, at_least_s: float) -> Verdict:
        """Count a fault: the verdict if there is another try, after a delay, or else the end of the tries."""
        machine, (outcome, details) = exchange.machine, verdict
        machine.faults += 1
        error = details.error if details is not None else None
        if machine.faults > machine.max_faults(self.config) or at_least_s > self.config.retry_after_max_s:
            if error is None:
                what = f"{machine.describe()}: {exchange.ask.method} {shown(exchange.url)}"
                error = TransportError(f"{what} got nowhere in {machine.faults} tries")
            unable = outcome in machine.EXHAUSTED_AFTER and _O.RETRIES_EXHAUSTED in machine.TABLE[machine.state]
            patient = at_least_s <= self.config.retry_after_max_s
            return (_O.RETRIES_EXHAUSTED if unable and patient else _O.GAVE_UP), Details(error=error)
        if outcome in DELAYED and not machine.cancel_pending:
            machine.delay_s = max(backoff_s(self.config, machine.faults, self.jitter), at_least_s)
            self.notices.add(
                Notice(
                    status=Status.RETRYING,
                    subject=machine.describe().rpartition(" ")[2],
                    text=str(error) if error is not None else f"{machine.describe()}: {outcome.value}",
                    delay_s=machine.delay_s,
                )
            )
        return verdict

    def _asked_to_wait(self, origin: Origin, response: Response) -> float:
        wait_s = parse_retry_after(response.headers) or 0.0
        if response.status == 429:
            # The limit is the client's, not this request's: everything at this origin waits.
            pause = min(wait_s, self.config.retry_after_max_s) or backoff_s(self.config, 1, self.jitter)
            origin.hold_until = max(origin.hold_until, self.now + pause)
        return wait_s

    # --- time ---

    def _hasten(self, exchange: Exchange) -> None:
        """Cut an exchange's deadline to that of the whole exchange, and note it for the next look."""
        whole, own = self.config.exchange_timeout_s, exchange.ask.deadline_s
        if own is not None and (whole is None or own < whole):
            whole = own
        if whole is not None and exchange.begun + whole < exchange.deadline:
            exchange.deadline = exchange.begun + whole
            exchange.limit = ("not over", whole)
        if exchange.deadline < self.next_deadline:
            self.next_deadline = exchange.deadline

    def _expire(self) -> None:
        """Abort exchanges past their deadlines. Some dozens are in flight, and this runs when one may have passed."""
        for exchange in self.in_flight.values():
            if exchange.deadline <= self.now and not exchange.aborted:
                what, limit_s = exchange.limit
                exchange.aborted = f"{what} within {limit_s:g} s"
                self.outbox.append(Abort(id=exchange.id))
        self.next_deadline = min((e.deadline for e in self.in_flight.values() if not e.aborted), default=math.inf)

    # --- tokens ---

    def _park(self, lanes: Lanes, repository: str) -> None:
        """Have the lane whose turn it is wait for its repository's token, which is asked for unless it already is."""
        lane, source = lanes.turn[0], lanes.first().mount_source
        self.awaiting_token.setdefault(repository, []).append((lanes, lane, lanes.take()))
        token = self.auth.token_for(repository)
        if token.state is TokenState.VALID:
            if source and source not in self.auth.sources.get(repository, ()):
                self.auth.keep_sources(repository, (source,))
            token.sources = self.auth.sources.get(repository, ())
            self.advance_token(token, (_O.EXPIRED, None))
        elif token.state is TokenState.AWAITING_CREDENTIALS and token not in self.keychain.values():
            self.keychain[self.next_id] = token
            self.outbox.append(NeedCredentials(id=self.next_id, registry=self.registry, repository=repository))
            self.next_id += 1

    def advance_token(self, token: TokenMachine, verdict: Verdict) -> None:
        """Give a token an outcome; once it is valid or denied, the machines that waited for it are ready."""
        if verdict[0] is _O.GRANTED:
            token.asked_at = self.now
        advance(token, *verdict, self.capabilities, self.config, self.journal)
        if token.state in token.ASKS:
            self.enqueue(token)
        elif token.state in token.ENDS:
            for lanes, lane, waiting in self.awaiting_token.pop(token.repository, ()):
                for machine in waiting:
                    lanes.add(lane, machine)

    def keychain_answered(self, token: TokenMachine, answer: Credentials | NoCredentials) -> None:
        """Take the keychain's answer for a token; ignored if the token is not needed any more."""
        if self.auth.tokens.get(token.repository) is token and token.state is TokenState.AWAITING_CREDENTIALS:
            self.advance_token(token, self.auth.known(token, answer))
