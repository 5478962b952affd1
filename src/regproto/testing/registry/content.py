"""What is in a repository: blobs, manifests, tags and referrers (distribution-spec, "Pull" to "Content
Management")."""

from __future__ import annotations

import re
from urllib.parse import quote

from regproto._model.digest import Digest
from regproto._model.errors import ContentError
from regproto._model.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    NONDISTRIBUTABLE_TYPES,
    OCI_INDEX,
    Descriptor,
    ManifestInfo,
    parse_json_object,
    parse_manifest,
)
from regproto._model.messages import Headers
from regproto.testing.registry.http import Content, Refused, Reply, json_reply, parse_digest, refused
from regproto.testing.registry.options import Etag
from regproto.testing.registry.sinks import Collect, Sink, Then
from regproto.testing.registry.state import Call, StoredManifest
from regproto.testing.registry.uploads import absolute

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_BYTE_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


# --- blobs --------------------------------------------------------------------------------------------------


def get_blob(call: Call) -> Reply:
    """GET and HEAD of a blob, whole or one range of it (RFC 9110, section 14)."""
    digest = parse_digest(call.argument)
    if not call.state.has_blob(call.name, digest):
        raise _missing(call, "BLOB_UNKNOWN", digest)
    size = call.state.repositories[call.name].blobs[digest]
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Accept-Ranges", "bytes"),
        *_digest_header(call, digest),
    )
    match = _BYTE_RANGE.fullmatch(call.head.header("range") or "")
    if match is None or call.head.method == "HEAD" or not (match[1] or match[2]):
        return Reply(200, headers, Content(digest, 0, size))
    if match[1]:
        first, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    else:
        first, end = max(size - int(match[2]), 0), size
    if first >= end:
        raise Refused(Reply(416, (("Content-Range", f"bytes */{size}"),)))
    content_range = ("Content-Range", f"bytes {first}-{end - 1}/{size}")
    return Reply(206, (*headers, content_range), Content(digest, first, end - first))


def delete_blob(call: Call) -> Sink:
    """DELETE of a blob."""
    digest = parse_digest(call.argument)
    return Then(lambda: _delete_blob(call, digest))


def _delete_blob(call: Call, digest: Digest) -> Reply:
    _check_deletes(call)
    if not call.state.has_blob(call.name, digest):
        raise _missing(call, "BLOB_UNKNOWN", digest)
    call.state.remove_blob(call.name, digest)
    return Reply(202)


def _missing(call: Call, code: str, what: str) -> Refused:
    if call.options.missing_status == 404:
        return refused(404, code, "not here", {"name": call.name, "reference": what})
    return refused(call.options.missing_status, "DENIED", "not here, or not for you")


def _check_deletes(call: Call) -> None:
    if not call.options.deletes:
        raise refused(405, "UNSUPPORTED", "deleting is disabled")


def _digest_header(call: Call, digest: str) -> Headers:
    return (("Docker-Content-Digest", digest),) if call.options.docker_content_digest else ()


# --- manifests ----------------------------------------------------------------------------------------------


def _check_reference(reference: str) -> str:
    if ":" in reference:
        return parse_digest(reference)
    if not _TAG.fullmatch(reference):
        raise refused(400, "NAME_INVALID", "neither a tag nor a digest", {"tag": reference})
    return reference


def get_manifest(call: Call) -> Reply:
    """GET and HEAD of a manifest, by tag or digest."""
    reference = _check_reference(call.argument)
    digest = call.state.digest_of(call.name, reference)
    if digest is None and call.options.digest_tags:
        digest = call.state.digest_of(call.name, reference.replace("sha256-", "sha256:", 1))
    if digest is None:
        if call.name not in call.state.repositories and call.options.missing_status == 404:
            raise refused(404, "NAME_UNKNOWN", "no such repository", {"name": call.name})
        raise _missing(call, "MANIFEST_UNKNOWN", reference)
    manifest = call.state.repositories[call.name].manifests[digest]
    if not _accepted(call, manifest.media_type):
        raise refused(404, "MANIFEST_UNKNOWN", f"there is one, but Accept does not name {manifest.media_type}")
    headers = (("Content-Type", manifest.media_type), *_digest_header(call, digest))
    if call.options.etag is not Etag.NONE:
        headers = (*headers, ("ETag", f'"{digest}"'))
        if call.head.header("if-none-match") == f'"{digest}"':
            return Reply(304, headers)
    return Reply(200, headers, Content(digest, 0, manifest.size))


def _accepted(call: Call, media_type: str) -> bool:
    """No Accept takes everything (RFC 9110, section 12.5.1); a type that is not named is not given."""
    values = [value for name, value in call.head.headers if name.lower() == "accept"]
    ranges = {part.partition(";")[0].strip() for value in values for part in value.split(",")}
    return not values or not ranges.isdisjoint({media_type, "*/*", "application/*"})


def put_manifest(call: Call) -> Sink:
    """PUT of a manifest, by tag or digest, in its exact bytes."""
    _check_reference(call.argument)
    return Collect(call.options.manifest_max_bytes, lambda body: _put_manifest(call, body))


def _put_manifest(call: Call, body: bytes) -> Reply:
    options, state = call.options, call.state
    if not options.create_repositories and call.name not in state.repositories:
        raise refused(404, "NAME_UNKNOWN", "repository does not exist", {"name": call.name})
    info = _parse(call, body)
    _check_named(call, info)
    by_digest = ":" in call.argument
    wanted = parse_digest(call.argument) if by_digest else None
    digest = Digest.of(body, wanted.algorithm if wanted else "sha256")
    if wanted is not None and wanted != digest:
        raise refused(400, "DIGEST_INVALID", "content does not match the digest", {"digest": wanted, "actual": digest})
    tags = [call.argument] if not by_digest else call.query.get("tag", []) if options.tag_params else []
    for tag in tags:
        _check_tag(call, tag)
    _check_conditions(call)
    state.add_manifest(call.name, digest, stored(info, len(body)), body)
    for tag in tags:
        state.set_tag(call.name, tag, digest)
    headers = (
        ("Location", absolute(call, f"/v2/{call.name}/manifests/{digest}")),
        *_digest_header(call, digest),
        *((("OCI-Tag", ", ".join(tags)),) if by_digest and tags else ()),
        *((("ETag", f'"{digest}"'),) if options.etag is not Etag.NONE else ()),
    )
    handled = options.referrers_api if options.oci_subject is None else options.oci_subject
    if info.subject is not None and handled:
        headers = (*headers, ("OCI-Subject", info.subject.digest))
    return Reply(options.manifest_status, headers)


def _parse(call: Call, body: bytes) -> ManifestInfo:
    """The media type in the head must be the one in the manifest ("Pushing Manifests")."""
    content_type = (call.head.header("content-type") or "").partition(";")[0].strip()
    try:
        own = parse_json_object(body, "manifest").get("mediaType")
        if own is not None and own != content_type:
            raise ContentError(f"Content-Type is {content_type or 'missing'}, mediaType is {own}")
        return parse_manifest(body, content_type)
    except ContentError as error:
        raise refused(400, "MANIFEST_INVALID", str(error)) from None


def _check_named(call: Call, info: ManifestInfo) -> None:
    """Everything a manifest names must be there in the size it says; the subject alone may be absent."""
    repository = call.state.repositories.get(call.name)
    blobs = repository.blobs if repository else {}
    manifests = repository.manifests if repository else {}

    def size_of(named: Descriptor) -> int | None:
        if info.is_index and named.media_type in MANIFEST_TYPES | INDEX_TYPES:
            return manifests[named.digest].size if named.digest in manifests else None
        return blobs.get(named.digest)

    config = (info.config,) if info.config else ()
    for named in (*config, *info.layers, *info.manifests):
        size = size_of(named)
        optional = named.media_type in NONDISTRIBUTABLE_TYPES or (info.is_index and call.options.sparse_indexes)
        if size is None and not optional:
            raise refused(400, "MANIFEST_BLOB_UNKNOWN", "not in this repository", {"digest": named.digest})
        if size is not None and size != named.size:
            detail = {"digest": named.digest, "size": named.size, "actual": size}
            raise refused(400, "SIZE_INVALID", "a descriptor has the wrong size", detail)


def _check_tag(call: Call, tag: str) -> None:
    if not _TAG.fullmatch(tag):
        raise refused(400, "NAME_INVALID", "invalid tag", {"tag": tag})
    if call.options.immutable_tags and call.state.digest_of(call.name, tag) is not None:
        raise refused(call.options.immutable_tags, "DENIED", "tags are immutable here", {"tag": tag})


def _check_conditions(call: Call) -> None:
    if call.options.etag is not Etag.ENFORCED:
        return
    digest = call.state.digest_of(call.name, call.argument)
    for header, holds_if_equal in (("if-match", True), ("if-none-match", False)):
        value = call.head.header(header)
        if value is not None:
            equal = digest is not None and value in ("*", f'"{digest}"')
            if equal is not holds_if_equal:
                raise refused(412, "DENIED", "precondition failed", {"header": header})


def stored(info: ManifestInfo, size: int) -> StoredManifest:
    """What a registry remembers of a manifest; an image's artifact type falls back to its config's media
    type."""
    return StoredManifest(
        media_type=info.media_type,
        size=size,
        subject=info.subject.digest if info.subject else "",
        artifact_type=info.artifact_type or (info.config.media_type if info.config else ""),
        annotations=tuple(info.annotations.items()),
    )


def delete_manifest(call: Call) -> Sink:
    """DELETE of a tag, or of a manifest with its tags."""
    reference = _check_reference(call.argument)
    return Then(lambda: _delete_manifest(call, reference))


def _delete_manifest(call: Call, reference: str) -> Reply:
    _check_deletes(call)
    digest = call.state.digest_of(call.name, reference)
    if digest is None:
        raise _missing(call, "MANIFEST_UNKNOWN", reference)
    if reference == digest:
        call.state.remove_manifest(call.name, digest)
    else:
        call.state.remove_tag(call.name, reference)
    return Reply(202)


# --- lists --------------------------------------------------------------------------------------------------


def list_tags(call: Call) -> Reply:
    """GET of the tags, in pages where asked for ("Listing Tags")."""
    repository = call.state.repositories.get(call.name)
    if repository is None:
        raise refused(404, "NAME_UNKNOWN", "no such repository", {"name": call.name})
    count = call.param("n")
    if count is not None and not (count.isascii() and count.isdigit()):
        raise refused(400, "UNSUPPORTED", "n must be a number")
    asked = int(count) if count is not None else len(repository.tags)
    most = min(asked, call.options.tags_page or asked)
    last = call.param("last")
    left = [tag for tag in sorted(repository.tags) if last is None or tag > last]
    page = left[:most]
    headers: Headers = ()
    if page and len(left) > len(page):
        size = f"n={count}&" if count is not None else ""
        headers = (("Link", f'</v2/{call.name}/tags/list?{size}last={quote(page[-1])}>; rel="next"'),)
    return json_reply({"name": call.name, "tags": page}, headers=headers)


def list_referrers(call: Call) -> Reply:
    """GET of what has a digest as its subject; a repository that is not there has none ("Listing
    Referrers")."""
    if not call.options.referrers_api:
        raise refused(404, "UNSUPPORTED", "there is no referrers API here")
    subject = parse_digest(call.argument)
    repository = call.state.repositories.get(call.name)
    known = repository.manifests.items() if repository else ()
    left = [(digest, m) for digest, m in sorted(known, key=lambda item: item[0]) if m.subject == subject]
    headers: Headers = ()
    artifact_type = call.param("artifactType")
    query = ""
    if artifact_type is not None and call.options.referrers_filter:
        left = [(digest, m) for digest, m in left if m.artifact_type == artifact_type]
        headers = (("OCI-Filters-Applied", "artifactType"),)
        query = f"artifactType={quote(artifact_type, safe='')}&"
    last = call.param("last")
    left = [(digest, m) for digest, m in left if last is None or digest > last]
    page = left[: call.options.referrers_page or len(left)]
    if len(page) < len(left):
        link = f'</v2/{call.name}/referrers/{subject}?{query}last={quote(page[-1][0])}>; rel="next"'
        headers = (*headers, ("Link", link))
    entries = [entry(digest, manifest) for digest, manifest in page]
    return json_reply({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, OCI_INDEX, headers)


def entry(digest: str, manifest: StoredManifest) -> dict[str, object]:
    """A manifest as it stands in a referrers list."""
    fields: dict[str, object] = {"mediaType": manifest.media_type, "digest": digest, "size": manifest.size}
    if manifest.artifact_type:
        fields["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        fields["annotations"] = dict(manifest.annotations)
    return fields
