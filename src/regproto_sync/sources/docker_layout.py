"""The archive that docker 25, containerd, buildx and regctl save: an OCI layout with a manifest.json beside it.

Both list images, and they may disagree: docker 25.0.0 wrote the layers of the layout in another order than
manifest.json and the configs have; a layout may list an index of which one platform was ever pulled. Other
clients read manifest.json alone, so that decides which image it is and which layers it has; where the layout has a
manifest of just that image, this is pushed as it is, else one is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from regproto._model.errors import ContentError, printable
from regproto._model.manifest import (
    INDEX_TYPES,
    MANIFEST_MAX_DEPTH,
    MANIFEST_TYPES,
    NONDISTRIBUTABLE_TYPES,
    Descriptor,
    parse_manifest,
)
from regproto._model.plan import MANIFESTS_MAX
from regproto_sync.sources.archive import Archive
from regproto_sync.sources.content import SliceContent
from regproto_sync.sources.docker_archive import SavedImage, find_saved, number_of, open_saved, saved_images
from regproto_sync.sources.image import ImageSource, named
from regproto_sync.sources.layout import NAMES_SHOWN_MAX, Layout, entry_names, layout_entries, listed_names, same_name

Parts = tuple[SliceContent | None, ...]
"""The members of the archive that an image's layers are; None: one is not here."""


@attrs.frozen(kw_only=True)
class _Found:
    """An image manifest of the layout."""

    descriptor: Descriptor
    config: SliceContent | None
    layers: Parts


@attrs.frozen(kw_only=True, eq=False)
class _Root:
    """An entry of index.json."""

    layout: Layout
    images: tuple[_Found, ...]
    """The image manifests that it is, or that are below it, as far as they are here."""
    whole: bool
    """All that is below it is here."""

    @property
    def is_index(self) -> bool:
        return self.layout.root.media_type in INDEX_TYPES


@attrs.frozen(kw_only=True)
class _Pair:
    """An image that is to be pushed, in one of the two files or in both."""

    saved: SavedImage | None = None
    root: _Root | None = None
    found: _Found | None = None
    """The manifest with the config of `saved`."""
    same: bool = False
    """It has the layers of `saved` too."""


def open_docker_layout(archive: Archive, name: str | None = None, *, sparse: bool = False) -> ImageSource:
    """The image called `name`, or the archive's only one.

    Args:
        archive: with both index.json and manifest.json.
        name: as in either of the two, or `@N` for the Nth of manifest.json, from 0.
        sparse: an index whose other platforms are not all here is wanted as it is.

    Raises:
        ContentError: there is no such image, or several (then it lists the names there are); the two files disagree
            about it; or something is missing, malformed or not what it has to be.
    """
    with named(archive.name):
        roots = _walk(archive)
        pairs = _pairs(archive, saved_images(archive), roots)
        return _open(archive, _only(pairs, roots) if name is None else _named(name, pairs, roots), sparse)


def _walk(archive: Archive) -> list[_Root]:
    """The entries of index.json, several names for one image as one, and what is below them."""
    entries = {entry.digest: entry for entry in reversed(layout_entries(archive))}
    roots: list[_Root] = []
    count = 0
    for entry in reversed(entries.values()):
        layout = Layout(files=archive, entry=entry)
        images: list[_Found] = []
        whole = True
        waiting, seen = [(entry, 1)], set()
        while waiting:
            descriptor, depth = waiting.pop()
            if descriptor.digest in seen:
                continue
            seen.add(descriptor.digest)
            count += 1
            if depth > MANIFEST_MAX_DEPTH or count > MANIFESTS_MAX:
                limits = f"nested over {MANIFEST_MAX_DEPTH} deep, or over {MANIFESTS_MAX} manifests"
                raise ContentError(f"index.json: {limits}")
            content = descriptor.data if descriptor.data is not None else layout.read_manifest(descriptor)
            if content is None:
                whole = False
                continue
            info = parse_manifest(content, descriptor.media_type, str(descriptor.digest))
            below = MANIFEST_TYPES | INDEX_TYPES
            waiting += [(each, depth + 1) for each in info.manifests if each.media_type in below]
            blobs = [each for each in info.manifests if each.media_type not in below]
            if info.config is not None:
                blobs += [info.config, *info.layers]
                config, *layers = (archive.find(layout.where(each.digest)) for each in blobs)
                images.append(_Found(descriptor=descriptor, config=config, layers=tuple(layers)))
            whole = whole and all(_is_here(layout, blob) for blob in blobs)
        roots.append(_Root(layout=layout, images=tuple(images), whole=whole))
    return roots


def _is_here(layout: Layout, blob: Descriptor) -> bool:
    if blob.data is not None or blob.media_type in NONDISTRIBUTABLE_TYPES:
        return True
    return layout.find_content(blob) is not None


def _pairs(archive: Archive, saved: Sequence[SavedImage], roots: Sequence[_Root]) -> list[_Pair]:
    """The images of manifest.json, each with what index.json has of it: the same members of the archive."""
    by_config: dict[SliceContent | None, tuple[_Root, _Found]] = {}
    by_all: dict[tuple[SliceContent | None, Parts], tuple[_Root, _Found]] = {}
    for root in roots:
        for found in root.images:
            by_config.setdefault(found.config, (root, found))
            by_all.setdefault((found.config, found.layers), (root, found))
    pairs = []
    for each in saved:
        config = find_saved(archive, each.config)
        same = by_all.get((config, tuple(find_saved(archive, path) for path in each.layers)))
        here = same or by_config.get(config)
        if here is None:
            pairs.append(_Pair(saved=each))
        else:
            pairs.append(_Pair(saved=each, root=here[0], found=here[1], same=same is not None))
    return pairs


def _images(pairs: Sequence[_Pair]) -> dict[object, _Pair]:
    """The pairs without those that are there twice."""
    return {(pair.saved.config, pair.saved.layers): pair for pair in reversed(pairs) if pair.saved is not None}


def _only(pairs: Sequence[_Pair], roots: Sequence[_Root]) -> _Pair:
    """The only image there is."""
    reached = {id(pair.root) for pair in pairs}
    if any(pair.root is None for pair in pairs) or len(reached) < len(roots):
        raise _disagreement("which images there are", pairs, roots)
    if not pairs:
        raise ContentError("index.json and manifest.json: have no image, so there is nothing to push")
    if len(_images(pairs)) == 1:
        return pairs[0]
    if len(roots) == 1 and roots[0].whole:
        return _Pair(root=roots[0])
    raise ContentError(
        f"manifest.json: has {len(pairs)} images; choose one as SOURCE:NAME or SOURCE:@N (from 0), of: "
        f"{_names(pairs, roots)}"
    )


def _named(name: str, pairs: Sequence[_Pair], roots: Sequence[_Root]) -> _Pair:
    """The image with this name, in either of the two files."""
    number, shown = number_of(name), printable(repr(name), 100)
    if number is not None:
        if number < len(pairs):
            return pairs[number]
        raise ContentError(f"manifest.json: has {len(pairs)} images, so there is no {shown}; the first is '@0'")
    saved = [pair for pair in pairs if pair.saved and any(same_name(each, name) for each in pair.saved.names)]
    found = list(_images(saved).values())
    listed = [root for root in roots if any(same_name(each, name) for each in entry_names(root.layout.root))]
    if len(found) > 1 or len(listed) > 1:
        count = max(len(found), len(listed))
        raise ContentError(f"index.json and manifest.json: {count} different images are named {shown}")
    if found and listed and found[0].root is not listed[0]:
        raise _disagreement(f"which image {shown} is", found, listed)
    if found:
        return found[0]
    if not listed:
        raise ContentError(
            f"index.json and manifest.json: no image is named {shown}; there are: {_names(pairs, roots)}"
        )
    below = list(_images([pair for pair in pairs if pair.root is listed[0]]).values())
    return below[0] if len(below) == 1 else _Pair(root=listed[0])


def _open(archive: Archive, pair: _Pair, sparse: bool) -> ImageSource:
    saved, root, found = pair.saved, pair.root, pair.found
    if root is None:
        assert saved is not None
        return open_saved(archive, saved)
    if saved is None or found is None:
        return root.layout
    if root.is_index and (root.whole or sparse):
        if not pair.same:
            raise _disagreement("the layers of an image", [pair], [root])
        return root.layout
    return attrs.evolve(root.layout, entry=found.descriptor) if pair.same else open_saved(archive, saved)


def _disagreement(about: str, pairs: Sequence[_Pair], roots: Sequence[_Root]) -> ContentError:
    return ContentError(
        f"index.json and manifest.json disagree about {about}: index.json has {len(roots)} "
        f"({listed_names(_index_names(roots))}), manifest.json {len(pairs)} ({listed_names(_saved_names(pairs))}); "
        "choose one as SOURCE:NAME, or as SOURCE:@N the Nth of manifest.json, from 0, or have one of the files read "
        "alone: oci-archive:SOURCE, docker-archive:SOURCE"
    )


def _names(pairs: Sequence[_Pair], roots: Sequence[_Root]) -> str:
    names = _saved_names(pairs)[: NAMES_SHOWN_MAX + 1]
    more = _index_names(roots)[: NAMES_SHOWN_MAX + 1]
    return listed_names([*names, *(each for each in more if not any(same_name(each, other) for other in names))])


def _saved_names(pairs: Sequence[_Pair]) -> list[str]:
    return list(dict.fromkeys(each for pair in pairs if pair.saved is not None for each in pair.saved.names))


def _index_names(roots: Sequence[_Root]) -> list[str]:
    return list(dict.fromkeys(each for root in roots for each in entry_names(root.layout.root)[-1:]))
