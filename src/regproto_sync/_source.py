"""From a source and a reference, as a user names them, to a plan. For every driver; nothing here touches a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from regproto import (
    ContentError,
    Digest,
    InvalidReference,
    MountSource,
    Push,
    Reference,
    RegistryError,
    RegprotoError,
    registry_url,
)
from regproto._reference import check_tag
from regproto_sync._layout import Layout, open_layout, split_source

_CONTENT_CODES: Final = frozenset({"DIGEST_INVALID", "SIZE_INVALID"})


@attrs.frozen(kw_only=True)
class Planned:
    """A push that is ready to be submitted, and where to."""

    registry_url: str
    reference: Reference
    """With the tag that is put, or the digest that was asked for."""
    push: Push
    layout: Layout = attrs.field(repr=False)

    def explain(self, error: RegprotoError) -> RegprotoError:
        """The error to show for one that ended the push: after a refused digest, the one that names the damaged blob.

        May read the whole source.
        """
        if isinstance(error, RegistryError) and _CONTENT_CODES & {code.upper() for code in error.codes}:
            damaged = self.layout.altered(self.push)
            if damaged is not None:
                return damaged
        return error


def plan_source(
    source: str | os.PathLike[str],
    reference: str,
    *,
    tags: Sequence[str] = (),
    mount_from: Sequence[str] = (),
    plain_http: bool = False,
    nondistributable: bool = False,
    sparse: bool = False,
) -> Planned:
    """The plan that pushes `source` to `reference`. The arguments are those of `push`.

    Raises:
        InvalidReference: `reference`, a tag or a mount source is malformed.
        SourceNotFound: there is nothing at the source's path.
        ContentError: the source is not what it has to be.
    """
    target = Reference.parse(reference).with_default_tag()
    url = registry_url(target.registry, plain_http)
    named = tuple(dict.fromkeys([*([target.tag] if target.tag else []), *map(check_tag, tags)]))
    mounts = [mount_source(text, target.registry) for text in mount_from]
    path, name = split_source(source) if isinstance(source, str) else (Path(source), None)
    layout = open_layout(path, name)
    _check_digest(target.digest, layout)
    push = layout.plan(
        target.repository, tags=named, mount_from=mounts, nondistributable=nondistributable, sparse=sparse
    )
    return Planned(registry_url=url, reference=target, push=push, layout=layout)


def mount_source(text: str, registry: str) -> MountSource:
    """The mount source that `repository` or `host/repository` means for a push to `registry`.

    Raises:
        InvalidReference: it is neither, or has a tag or digest.
    """
    first, slash, _ = text.partition("/")
    has_host = slash and ("." in first or ":" in first or first == "localhost")
    found = Reference.parse(text if has_host else f"{registry}/{text}")
    if found.tag or found.digest:
        raise InvalidReference(f"{str(found)!r}: a repository to mount from has no tag or digest")
    foreign = found.registry != registry
    return MountSource(repository=found.repository, registry=found.registry if foreign else "", foreign=foreign)


def _check_digest(wanted: Digest | None, layout: Layout) -> None:
    if wanted is not None and wanted != layout.root.digest:
        raise ContentError(f"{layout.path}: the reference asks for {wanted}, but the source is {layout.root.digest}")
