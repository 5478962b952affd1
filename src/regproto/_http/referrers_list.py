"""A subject's referrers list as data: read from an answer, joined with what has to be in it, written again.

Nothing of a list that other clients wrote is thrown away: fields that are not known here stay as they are, and of
entries only what they lack is filled in.

Source: image-spec "Image Index"; distribution-spec "Referrers Tag Schema" and "Listing Referrers".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from regproto._http.headers import get, get_all
from regproto._model.digest import Digest
from regproto._model.errors import ContentError, InvalidReferenceError, printable
from regproto._model.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_MAX_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    parse_descriptor,
    parse_json_object,
)
from regproto._model.messages import Headers, Response
from regproto._model.plan import Manifest

ACCEPT_ANY: Final[Headers] = (("Accept", f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}, */*;q=0.1"),)
"""Every media type is wanted: a registry that hides what Accept does not name would make us overwrite it."""
ACCEPT_INDEX: Final[Headers] = (("Accept", OCI_INDEX),)

_ALGORITHM_MAX: Final = 32
_ENCODED_MAX: Final = 64
# RFC 8288: <target>; parameters, several in one header.
_LINK: Final = re.compile(r'<([^>]*)>((?:\s*;\s*[^=;,\s]+\s*(?:=\s*(?:"[^"]*"|[^",;\s]*))?)*)')
_NEXT: Final = re.compile(r';\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next\s*(?:;|$))', re.IGNORECASE)
_LINK_MAX: Final = 8 * 1024
"""Characters of a Link header that are read: what common servers let a header line have."""


def fallback_tag(subject: Digest) -> str:
    """The tag whose index lists a subject's referrers where there is no API; sha512 is cut to fit a tag."""
    return f"{subject.algorithm[:_ALGORITHM_MAX]}-{subject.hex[:_ENCODED_MAX]}"


@attrs.frozen(kw_only=True)
class Listing:
    """One list as it was read, or one page of it."""

    identity: str
    """The digest of its bytes; empty: there was none."""
    fields: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)
    """The index's fields beside `manifests`."""
    entries: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, repr=False, eq=False)
    """By digest, of several for one digest the first."""
    validator: str = ""
    """The ETag that a conditional PUT may name; empty: none."""
    next_url: str = ""
    """Where the next page is, as it was sent; empty: this is the last."""

    def descriptors(self) -> tuple[Descriptor, ...]:
        """The entries that are sound."""
        found = []
        for entry in self.entries.values():
            try:
                found.append(parse_descriptor(dict(entry), "referrer"))
            except ContentError:
                continue  # somebody else's mistake must not hide the others
        return tuple(found)


NESTING_MAX: Final = 100
"""Levels of nesting in a list that is read: it has to be written again, and the depth that can be is another."""
ABSENT: Final = Listing(identity="")
"""There is no list yet."""


def read_listing(response: Response) -> Listing:
    """The list in a 200 answer.

    Raises:
        ContentError: it is something else, and what.
    """
    if response.truncated:
        raise ContentError(f"it has more than {MANIFEST_MAX_BYTES} bytes")
    raw = parse_json_object(response.body, "it")
    own, media_type = raw.get("mediaType", OCI_INDEX), _content_type(response)
    if own != OCI_INDEX or media_type not in (OCI_INDEX, ""):
        raise ContentError(
            f"it is {printable(str(media_type if own == OCI_INDEX else own), 150)}, not an OCI image index"
        )
    entries = raw.pop("manifests", False)
    entries = [] if entries is None else entries  # so do clients that had nothing to list
    if raw.get("schemaVersion") != 2 or not isinstance(entries, list):
        raise ContentError("it is no image index of schema version 2")
    known: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("digest"), str):
            raise ContentError("it has an entry that is no descriptor")
        known.setdefault(entry["digest"], entry)
    if _is_deep([raw, *entries]):
        raise ContentError(f"it is nested deeper than {NESTING_MAX} levels")
    etag = get(response.headers, "etag") or ""
    return Listing(
        identity=Digest.of(response.body),
        fields=raw,
        entries=known,
        validator=etag if etag.startswith('"') and etag.isascii() and etag.isprintable() else "",
        next_url=next_link(response.headers),
    )


def _is_deep(level: list[Any]) -> bool:
    for _ in range(NESTING_MAX):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def is_index(response: Response) -> bool:
    """Whether an answer says that it is an OCI index, which is how a referrers API answers."""
    return _content_type(response) == OCI_INDEX


def _content_type(response: Response) -> str:
    return (get(response.headers, "content-type") or "").partition(";")[0].strip().lower()


def next_link(headers: Headers) -> str:
    """The target of `Link: <...>; rel="next"`; empty if there is none (distribution-spec, "Listing Referrers")."""
    for value in get_all(headers, "link"):
        for link in _LINK.finditer(value[:_LINK_MAX]):
            if _NEXT.search(link[2]):
                return link[1]
    return ""


def is_digest(text: str) -> bool:
    """Whether an entry's digest can stand in a URL; an entry whose digest can't is carried along, never asked for."""
    try:
        Digest(text)
    except InvalidReferenceError:
        return False
    return True


# --- entries ----------------------------------------------------------------------------------------------------


def entry_of(manifest: Manifest) -> dict[str, Any]:
    """The entry of an attachment: its type is its own, else its config's media type; an index may have none."""
    descriptor, info = manifest.descriptor, manifest.info
    entry: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    artifact_type = info.artifact_type or (info.config.media_type if info.config is not None else "")
    if artifact_type:
        entry["artifactType"] = artifact_type
    if info.annotations:
        entry["annotations"] = dict(info.annotations)
    return entry


def is_complete(entry: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether a listed entry lacks nothing that ours has; older clients leave out type or annotations."""
    if ours.get("artifactType") and not entry.get("artifactType"):
        return False
    return annotations_of(entry).items() >= annotations_of(ours).items()


def annotations_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's annotations; {} if it has none that are sound."""
    found = entry.get("annotations")
    return found if isinstance(found, dict) else {}


def completed(entry: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """A listed entry with what it lacks from ours."""
    filled = {**ours, **{key: value for key, value in entry.items() if value or key not in ours}}
    annotations = {**annotations_of(entry), **annotations_of(ours)}
    return {**filled, "annotations": annotations} if annotations else filled


def merged(listing: Listing, additions: Iterable[Mapping[str, Any]], left_out: frozenset[str]) -> bytes:
    """The list with these entries in it, as bytes.

    Args:
        listing: as it was read.
        additions: the entries it has to have.
        left_out: digests of entries to be dropped.
    """
    entries: dict[str, Mapping[str, Any]] = dict(listing.entries)
    for ours in additions:
        digest = ours["digest"]
        entries[digest] = completed(entries[digest], ours) if digest in entries else ours
    fields = {
        **listing.fields,
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [entries[digest] for digest in sorted(entries) if digest not in left_out],
    }
    return json.dumps(fields, separators=(",", ":")).encode()


NO_API: Final = frozenset({400, 404, 405, 406, 501})
"""Statuses that registries without the referrers API were seen to answer a GET of it with."""
PAGES_MAX: Final = 1_000
"""Pages of one list that are read: registries send 100 entries or more on each."""
