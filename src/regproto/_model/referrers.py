"""Attachments as a caller sees them: the questions about them, and how sure a push is that they are listed.

A manifest with a `subject` is an attachment of it. Source: distribution-spec "Listing Referrers" and "Referrers Tag
Schema".
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs

from regproto._model.digest import Digest
from regproto._model.manifest import Descriptor


class Guarantee(enum.Enum):
    """How a push knows that its attachments are in their subject's list, the strongest first."""

    API = "api"
    """The registry makes the list itself (referrers API)."""
    CONDITIONAL = "conditional"
    """The list was written on the condition that nobody had changed it, by a registry that was seen to refuse
    otherwise. A client that writes without a condition can still overwrite it."""
    VERIFIED = "verified"
    """The list was looked at until it had come to rest with all entries in it. Nothing is lost as long as no client
    waits longer than `Config.referrers_window_s` between reading and writing, and no write takes effect later than
    `Config.referrers_settle_s` after it was sent."""
    CONTENDED = "contended"
    """Everything was there at the last look, but others kept changing the list for as long as was looked."""
    WRITTEN = "written"
    """The list was written, or had everything, and was not looked at again: `Config.referrers_look_again` is off."""
    UNLISTED = "unlisted"
    """The registry has no referrers API, and `Config.referrers_fallback` is off: nothing lists them."""


@attrs.frozen(kw_only=True)
class ReferrersUpdate:
    """The outcome of a push for the list of one subject."""

    subject: Digest
    attached: tuple[Digest, ...]
    """The push's manifests that have this subject."""
    guarantee: Guarantee
    tag: str = ""
    """Where the list is; empty where the registry makes it, or there is none."""
    unsure: bool = False
    """A write of ours got no clear answer within `Config.referrers_settle_s`, or the registry is too slow for the time
    that others wait. If it took effect later than that, which nobody can tell, it may have overwritten what others
    wrote meanwhile: list the referrers again."""


# --- what can be asked ------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ResolveReference:
    """Asks what a tag or digest is on. Answered by a `Descriptor`; the push fails if there is nothing."""

    reference: str
    """A tag or a digest."""
    content: bool = False
    """Read the manifest too: its bytes are the answer's `data`."""


@attrs.frozen(kw_only=True)
class ListReferrers:
    """Asks what is attached to a manifest, which may be absent. Answered by `Referrers`."""

    subject: Digest
    artifact_type: str = ""
    """Only those of this type; empty: all."""


@attrs.frozen(kw_only=True)
class Referrers:
    """The attachments of a manifest."""

    subject: Digest
    entries: tuple[Descriptor, ...]
    """Sorted by digest, with their artifact types and annotations as the list has them."""
    tag: str = ""
    """The tag that was read, in a registry without the referrers API; empty: the API."""


Query: TypeAlias = ResolveReference | ListReferrers
QueryResult: TypeAlias = Descriptor | Referrers
