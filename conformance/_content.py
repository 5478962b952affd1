"""What a scenario pushes: blobs by their text or by a pattern and a size, and the manifests that name them.

JSON content has exactly one serialization: keys in the order written, no spaces, everything beyond ASCII escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from conformance._fields import (
    Fields,
    Invalid,
    as_count,
    as_flag,
    as_list,
    as_object,
    as_text,
    list_of,
    one_of,
)
from regproto import Descriptor, Digest

LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
_KINDS: Final = ("text", "pattern", "json", "image", "index")
SIZE_MAX: Final = 8 * 1024 * 1024
"""Content is made in memory; nothing a scenario shows needs more."""


@attrs.frozen(kw_only=True)
class Item:
    """One piece of content."""

    descriptor: Descriptor
    content: bytes = attrs.field(repr=False)
    actual: bytes = attrs.field(repr=False)
    """What is found when it is read; the same, unless the scenario is about content that has changed."""
    is_manifest: bool

    @property
    def digest(self) -> Digest:
        """The digest of `content`."""
        return self.descriptor.digest


Contents = Mapping[str, Item]


def read_contents(raw: object, where: str, salt: str = "") -> dict[str, Item]:
    """All the content of a scenario; manifests may name what stands before them.

    Args:
        raw: from the scenario.
        where: how errors call it.
        salt: not empty: goes into everything that is not empty, so that no registry has any of it from elsewhere. Texts
            and patterns keep their size.
    """
    items: dict[str, Item] = {}
    for name, entry in as_object(raw, where).items():
        items[name] = _item(Fields(entry, f"{where}.{name}"), items, salt)
    return items


def _item(fields: Fields, known: Contents, salt: str) -> Item:
    kinds = [kind for kind in _KINDS if kind in fields]
    if len(kinds) != 1:
        raise Invalid(f"{fields.where} must have exactly one of {', '.join(_KINDS)}")
    kind = kinds[0]
    media_type, artifact_type = LAYER, ""
    if kind in ("text", "pattern"):
        content = _salted(_plain(fields), salt)
    elif kind == "json":
        media_type = CONFIG
        value = fields.take("json", lambda value, where: with_descriptors(value, where, known))
        content = serialized({**value, "salt": salt} if salt and isinstance(value, dict) and value else value)
    else:
        read = _image if kind == "image" else _index
        document = fields.take(kind, lambda value, where: read(Fields(value, where), known))
        media_type, artifact_type = document["mediaType"], document.get("artifactType", "")
        content = serialized(document)
    algorithm = fields.take("algorithm", one_of(("sha256", "sha384", "sha512")), "sha256")
    actual = fields.maybe("actual", lambda value, where: _whole(Fields(value, where)))
    descriptor = Descriptor(
        media_type=fields.take("media_type", as_text, media_type),
        digest=Digest.of(content, algorithm),
        size=len(content),
        artifact_type=artifact_type,
    )
    manifest = fields.take("manifest", as_flag, kind in ("image", "index"))
    fields.end()
    return Item(
        descriptor=descriptor,
        content=content,
        actual=content if actual is None else actual,
        is_manifest=manifest,
    )


def _salted(content: bytes, salt: str) -> bytes:
    """The same number of bytes, of which the first tell of the salt."""
    if not salt:
        return content
    head = hashlib.sha256(salt.encode() + content).hexdigest().encode()[: len(content)]
    return head + content[len(head) :]


def _whole(fields: Fields) -> bytes:
    content = _plain(fields)
    fields.end()
    return content


def _plain(fields: Fields) -> bytes:
    if "text" in fields:
        return fields.take("text", as_text).encode()
    pattern, size = fields.take("pattern", as_text).encode(), fields.take("size", as_count)
    if not pattern or size > SIZE_MAX:
        raise Invalid(f"{fields.where}: a pattern of at least one byte, repeated to at most {SIZE_MAX} bytes")
    return (pattern * (size // len(pattern) + 1))[:size]


def serialized(document: object) -> bytes:
    """The exact bytes of a JSON document."""
    return json.dumps(document, separators=(",", ":")).encode()


def _image(fields: Fields, known: Contents) -> dict[str, Any]:
    def named(raw: object, where: str) -> dict[str, Any]:
        return described(raw, where, known)

    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": fields.take("mediaType", as_text, MANIFEST)}
    document |= _optional(fields, "artifactType", as_text)
    document["config"] = fields.take("config", named)
    document["layers"] = list(fields.many("layers", named))
    return document | _tail(fields, known)


def _index(fields: Fields, known: Contents) -> dict[str, Any]:
    def named(raw: object, where: str) -> dict[str, Any]:
        return described(raw, where, known)

    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": fields.take("mediaType", as_text, INDEX)}
    document |= _optional(fields, "artifactType", as_text)
    document["manifests"] = list(fields.take("manifests", list_of(named)))
    return document | _tail(fields, known)


def _tail(fields: Fields, known: Contents) -> dict[str, Any]:
    tail = _optional(fields, "subject", lambda raw, where: described(raw, where, known))
    tail |= _optional(fields, "annotations", lambda raw, where: dict(as_object(raw, where)))
    fields.end()
    return tail


def _optional(fields: Fields, key: str, read: Any) -> dict[str, Any]:
    return {key: fields.take(key, read)} if key in fields else {}


def described(raw: object, where: str, known: Contents) -> dict[str, Any]:
    """The descriptor of a named piece of content: `"name"`, or `{"@": "name", ...}` with what is to be changed.

    `"data": true` embeds the content.
    """
    changes = dict(as_object(raw, where)) if not isinstance(raw, str) else {"@": raw}
    name = changes.pop("@", "")
    if not isinstance(name, str) or name not in known:
        raise Invalid(f"{where}: there is no content {name!r} before this")
    item = known[name]
    plain = {"mediaType": item.descriptor.media_type, "digest": str(item.digest), "size": item.descriptor.size}
    if changes.get("data") is True:
        changes["data"] = base64.b64encode(item.content).decode()
    return plain | changes


def with_descriptors(raw: Any, where: str, known: Contents) -> Any:
    """A JSON value with every `{"@": "name"}` in it made a descriptor."""
    if isinstance(raw, dict) and "@" in raw:
        return described(raw, where, known)
    if isinstance(raw, dict):
        return {key: with_descriptors(value, f"{where}.{key}", known) for key, value in raw.items()}
    if isinstance(raw, list):
        return [with_descriptors(value, f"{where}[{n}]", known) for n, value in enumerate(as_list(raw, where))]
    return raw
