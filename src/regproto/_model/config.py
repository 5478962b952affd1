"""Every limit and choice of a session, in one place, each with the reason for its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from regproto._model.errors import LocalProtocolError

MIB: Final = 1024 * 1024

HEAD_MAX_BYTES: Final = 64 * 1024
"""A response head: four times what common servers send at most, room for long signed Locations and token challenges."""
ERROR_BODY_MAX_BYTES: Final = 64 * 1024
"""An error's body: the first few errors are what a person reads."""
ANSWER_BYTES_PER_S: Final = 8 * 1024
"""The slowest line on which an answer of the most bytes is still waited for: ISDN's 64 kbit/s. A peer that sends a byte
before each idle limit would hold an exchange for three weeks."""
TOKEN_BODY_MAX_BYTES: Final = 1 * MIB
"""A token answer: tokens of large organisations reach some tens of kB."""
REDIRECTS_MAX: Final = 5
"""Redirects of one request: registries use one or two (storage, region)."""
TOKEN_LIFETIME_MIN_S: Final = 60.0
"""A token that claims to live shorter is treated as living this long (token-auth document: 60 s is the default)."""
TOKEN_LIFETIME_MAX_S: Final = 365 * 86_400.0
"""A year; one that claims more is asked for again after that."""
KNOWN_MAX: Final = 100_000
"""Blobs, manifests and tags that a session remembers to be there from pushes that are over, for those that overlapped
them; beyond, the oldest is forgotten (and asked for again)."""
MOUNT_SOURCES_MAX: Final = 8
"""Mount candidates tried for one blob: each costs a round trip, the eighth rarely pays."""


TRANSIENT: Final = frozenset({408, 425, 429, 499, 500, 502, 503, 504, *range(520, 525), 527, 529, 530, 598})
"""Statuses that may pass by themselves: go-containerregistry's list and containers/image's together, and those that
Cloudflare (520 to 524, 527, 530) and other proxies (529, 598) have made up for a server that can't be reached."""


def _positive(_instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise LocalProtocolError(f"{attribute.name} must be more than 0, not {value!r}")


def _refusals(_instance: object, attribute: attrs.Attribute[Any], value: frozenset[int]) -> None:
    wrong = sorted(status for status in value if not 400 <= status < 600 or status == 401)
    if wrong:
        raise LocalProtocolError(f"{attribute.name}: {wrong} are not statuses of refusals (401 has its own way)")


def _header_value(_instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if not value.isascii() or not value.isprintable():
        raise LocalProtocolError(f"{attribute.name} must be printable ASCII: it is sent in a header")


@attrs.frozen(kw_only=True)
class Config:
    """The choices of an embedder. The defaults are meant for a registry across the internet."""

    max_exchanges: int = attrs.field(default=32, validator=_positive)
    """Exchanges in flight per origin. Enough to fill one round trip with the checks of a large image; registries and
    their proxies take hundreds from one client. Upload sessions that are open are at most twice as many."""
    max_body_bytes: int = attrs.field(default=24 * MIB, validator=_positive)
    """Request-body bytes in flight per origin (one body is always allowed): many small layers go together, and of huge
    ones only so many that each still moves."""
    attempts: int = attrs.field(default=5, validator=_positive)
    """Tries of one request before it is given up. With the backoff below the last comes after about 15 s."""
    backoff_base_s: float = attrs.field(default=1.0, validator=_positive)
    """The first wait; doubled each time, and spread between half and the whole of itself."""
    backoff_max_s: float = attrs.field(default=30.0, validator=_positive)
    retry_after_max_s: float = attrs.field(default=120.0, validator=_positive)
    """The longest wait a registry may ask for (Retry-After); beyond it the request counts as refused."""
    connect_timeout_s: float = attrs.field(default=15.0, validator=_positive)
    response_timeout_s: float = attrs.field(default=90.0, validator=_positive)
    """From the last body byte to the first of the answer. Registries on object storage take tens of seconds to
    commit."""
    idle_timeout_s: float = attrs.field(default=30.0, validator=_positive)
    """Without a byte moving, while sending or receiving."""
    exchange_timeout_s: float | None = attrs.field(default=None, validator=_positive)
    """One whole exchange; None: as long as bytes move."""
    push_timeout_s: float | None = attrs.field(default=None, validator=_positive)
    """One whole push, from the first `poll` after it was submitted; None: as long as it moves. Beyond it the push ends
    with a `PushTimeoutError`."""
    cleanup_timeout_s: float = attrs.field(default=10.0, validator=_positive)
    """Time for a push that is over to end its requests and delete its upload sessions: two round trips for each on any
    registry that still answers. For a request that only waits for a place among others it runs from when that is sent;
    sessions that are not deleted by then are counted in `PushResult.left_open`."""
    retry_statuses: frozenset[int] = attrs.field(default=TRANSIENT, converter=frozenset, validator=_refusals)
    """Statuses that are worth another try. One that is left out is taken at its first word; one that is added is tried
    again where it would be a refusal (where a 404 only says that something is absent, it goes on saying so)."""
    small_blob_bytes: int = attrs.field(default=256 * 1024, validator=attrs.validators.ge(0))
    """Blobs up to this size skip the HEAD and go in a single POST while the registry is unknown or takes those: sending
    them costs less than asking on common links (256 kB are 20 ms at 100 Mbit/s)."""
    resumable_above_bytes: int = attrs.field(default=16 * MIB, validator=attrs.validators.ge(0))
    """Larger blobs go by PATCH, whose progress a registry can be asked for, instead of in one POST or PUT."""
    chunk_bytes: int | None = attrs.field(default=None, validator=_positive)
    """The largest body of one PATCH; None: the rest of the blob in one. Chunks cost a round trip each, and save only on
    registries that count whole requests alone (docs/resuming.md has the measurements)."""
    stream_buffer_bytes: int = attrs.field(default=8 * MIB, validator=_positive)
    """How much of a stream a driver keeps so that it can be sent again after a fault (more than the buffers between it
    and the registry hold on common links), and the largest range of one where a registry wants a length. It is held in
    memory, and is the share that a stream has of `max_body_bytes`: by default three are sent at a time."""
    anonymous_mount: bool = False
    """Ask for a mount without naming a source (the registry looks in all repositories); some registries answer 400."""
    check_existing: bool = True
    """Ask for manifests and tags before pushing what they name. Off: put at once (a simulator, a known-empty
    registry)."""
    referrers_fallback: bool = True
    """Keep the list of attachments in a tag where the registry has no referrers API. Off: nothing lists them there."""
    referrers_look_again: bool = True
    """After a write of such a list, look until it has come to rest. Off: two seconds sooner, and a client that wrote at
    the same time may have overwritten it."""
    referrers_window_s: float = attrs.field(default=0.5, validator=_positive)
    """Between reading such a list and sending its next version; later, it is read again. Half a second is several round
    trips across the world, and all that other clients do in between is one of those. Where every read takes longer it
    is widened, as far as the time below has room for it; beyond that the list is `ReferrersUpdate.unsure`."""
    referrers_settle_s: float = attrs.field(default=1.5, validator=_positive)
    """From sending a list to its effect, at the most; without an answer until then it is read again. Registries take
    some 10 to 500 ms. With the window above it is how long one attachment alone waits before its look: two seconds."""
    referrers_attempts: int = attrs.field(default=30, validator=_positive)
    """Writes, and looks, of one list before it is given up. In simulated races (benchmarks/simulated_races.py) none of
    20 or 100 sessions needed more than 5 writes; with what is waited in between, this bears a minute and more."""
    user_agent: str = attrs.field(default="regproto/0.1.0", validator=_header_value)
    trust_origin: Callable[[str], bool] | None = attrs.field(default=None, eq=False)
    """Asked for each origin (`https://host:port`) that a Location, redirect, realm, page or kept upload leads to, but
    for the registry's own; another port of its host is another origin, and so is https where it has http. False refuses
    it. None: the registry's host on any port, and every public one. On another host, address literals of private
    networks are always refused, and http after https everywhere."""
