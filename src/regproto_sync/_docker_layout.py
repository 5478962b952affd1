"""What docker 25 and later save, and containerd, buildx and regctl too: an OCI layout with a manifest.json beside it.

Both list images, and they may disagree: docker 25.0.0 wrote the layers of the layout in another order than
manifest.json and the configs have; a layout may list an index of which one platform was ever pulled. Other
clients read manifest.json alone, so that decides which image it is and which layers it has; where the layout has a
manifest of just that image, this is pushed as it is, else one is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from regproto._content import (
    INDEX_TYPES,
    MANIFEST_MAX_DEPTH,
    MANIFEST_TYPES,
    NONDISTRIBUTABLE_TYPES,
    Descriptor,
    ManifestInfo,
    parse_manifest,
)
from regproto._errors import ContentError, printable
from regproto._plan import MANIFESTS_MAX
from regproto_sync._archive import Archive
from regproto_sync._content import SliceContent
from regproto_sync._docker_archive import SavedImage, find_saved, number_of, open_saved, saved_images
from regproto_sync._image import ImageSource, named
from regproto_sync._layout import Layout, entry_names, layout_entries, listed_names, same_name


@attrs.frozen(kw_only=True)
class _Root:
    """An entry of index.json."""

    layout: Layout
    images: tuple[tuple[Descriptor, ManifestInfo], ...]
    """The image manifests that it is, or that are below it, as far as they are here."""
    whole: bool
    """All that is below it is here."""

    @property
    def is_index(self) -> bool:
        return self.layout.root.media_type in INDEX_TYPES

    def find(self, archive: Archive, saved: SavedImage) -> tuple[Descriptor, ManifestInfo] | None:
        """The manifest of an image that manifest.json lists: one with the same config, of them one with its layers."""
        config = find_saved(archive, saved.config)
        found = [image for image in self.images if _is_config(archive, self.layout, image[1], config)]
        return next((image for image in found if self.has_layers(archive, image[1], saved)), next(iter(found), None))

    def has_layers(self, archive: Archive, info: ManifestInfo, saved: SavedImage) -> bool:
        """True if a manifest names the same layers in the same order: the same members of the archive."""
        here = [archive.find(self.layout.where(layer.digest)) for layer in info.layers]
        return here == [find_saved(archive, path) for path in saved.layers]


def _is_config(archive: Archive, layout: Layout, info: ManifestInfo, config: SliceContent) -> bool:
    return info.config is not None and archive.find(layout.where(info.config.digest)) == config


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
        saved = saved_images(archive)
        roots = [_walk(Layout(files=archive, entry=entry)) for entry in _unlike(layout_entries(archive))]
        pairs = [(each, _above(archive, roots, each)) for each in saved]
        if name is None:
            chosen, root = _only(archive, pairs, roots)
        else:
            chosen, root = _named(archive, name, pairs, roots)
        return _open(archive, chosen, root, sparse)


Pair = tuple[SavedImage, _Root | None]
"""An image of manifest.json, and the entry of index.json that it is below."""
Choice = tuple[SavedImage | None, _Root | None]
"""An image that is to be pushed, in one of the two files or in both."""


def _unlike(entries: Sequence[Descriptor]) -> list[Descriptor]:
    """Several names for one image are several entries with the same digest; the first of each."""
    return list({entry.digest: entry for entry in reversed(entries)}.values())[::-1]


def _walk(layout: Layout) -> _Root:
    images: list[tuple[Descriptor, ManifestInfo]] = []
    whole = True
    waiting = [(layout.root, 1)]
    seen = set()
    while waiting:
        descriptor, depth = waiting.pop()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        if depth > MANIFEST_MAX_DEPTH or len(seen) > MANIFESTS_MAX:
            raise ContentError(f"{layout.root.digest}: is nested too deep, or has too many manifests")
        content = descriptor.data if descriptor.data is not None else layout.read_manifest(descriptor)
        if content is None:
            whole = False
            continue
        info = parse_manifest(content, descriptor.media_type, str(descriptor.digest))
        if not info.is_index:
            images.append((descriptor, info))
        blobs = [*([info.config] if info.config else []), *info.layers]
        for child in info.manifests:
            if child.media_type in MANIFEST_TYPES | INDEX_TYPES:
                waiting.append((child, depth + 1))
            else:
                blobs.append(child)
        whole = whole and all(_is_here(layout, blob) for blob in blobs)
    return _Root(layout=layout, images=tuple(images), whole=whole)


def _is_here(layout: Layout, blob: Descriptor) -> bool:
    if blob.data is not None or blob.media_type in NONDISTRIBUTABLE_TYPES:
        return True
    return layout.find_content(blob) is not None


def _above(archive: Archive, roots: Sequence[_Root], saved: SavedImage) -> _Root | None:
    return next((root for root in roots if root.find(archive, saved) is not None), None)


def _only(archive: Archive, pairs: Sequence[Pair], roots: Sequence[_Root]) -> Choice:
    """The only image there is."""
    reached = {root.layout.root.digest for _, root in pairs if root is not None}
    if any(root is None for _, root in pairs) or len(reached) < len(roots):
        raise _disagreement("which images there are", [saved for saved, _ in pairs], roots)
    if not pairs:
        raise ContentError("index.json and manifest.json: have no image, so there is nothing to push")
    if len({(saved.config, saved.layers) for saved, _ in pairs}) == 1:
        return pairs[0]
    if len(roots) == 1 and roots[0].whole:
        return None, roots[0]
    names = _names([saved for saved, _ in pairs], roots)
    raise ContentError(
        f"manifest.json: has {len(pairs)} images; choose one as SOURCE:NAME or SOURCE:@N (from 0), of: {names}"
    )


def _named(archive: Archive, name: str, pairs: Sequence[Pair], roots: Sequence[_Root]) -> Choice:
    """The image with this name, in either of the two files."""
    number = number_of(name)
    shown = printable(repr(name), 100)
    if number is not None:
        if number < len(pairs):
            return pairs[number]
        raise ContentError(f"manifest.json: has {len(pairs)} images, so there is no {shown}; the first is '@0'")
    found = {(s.config, s.layers): (s, root) for s, root in pairs if any(same_name(each, name) for each in s.names)}
    listed = [root for root in roots if any(same_name(each, name) for each in entry_names(root.layout.root))]
    if len(found) > 1 or len(listed) > 1:
        raise ContentError(
            f"index.json and manifest.json: {max(len(found), len(listed))} different images are named {shown}"
        )
    if found:
        [(saved, root)] = found.values()
        if listed and listed[0] is not root:
            raise _disagreement(f"which image {shown} is", [saved], listed)
        return saved, root
    if not listed:
        names = _names([saved for saved, _ in pairs], roots)
        raise ContentError(f"index.json and manifest.json: no image is named {shown}; there are: {names}")
    below = {(saved.config, saved.layers): saved for saved, root in pairs if root is listed[0]}
    return (next(iter(below.values())) if len(below) == 1 else None), listed[0]


def _open(archive: Archive, saved: SavedImage | None, root: _Root | None, sparse: bool) -> ImageSource:
    if root is None:
        assert saved is not None
        return open_saved(archive, saved)
    found = root.find(archive, saved) if saved is not None else None
    if saved is None or found is None:
        return root.layout
    descriptor, info = found
    same = root.has_layers(archive, info, saved)
    if root.is_index and (root.whole or sparse):
        if not same:
            raise _disagreement("the layers of an image", [saved], [root])
        return root.layout
    return attrs.evolve(root.layout, entry=descriptor) if same else open_saved(archive, saved)


def _disagreement(about: str, saved: Sequence[SavedImage], roots: Sequence[_Root]) -> ContentError:
    in_index = listed_names([each for root in roots for each in entry_names(root.layout.root)[-1:]])
    in_manifest = listed_names([each for image in saved for each in image.names])
    return ContentError(
        f"index.json and manifest.json disagree about {about}: index.json has {len(roots)} ({in_index}), "
        f"manifest.json {len(saved)} ({in_manifest}); choose one as SOURCE:NAME, or as SOURCE:@N the Nth of "
        "manifest.json, from 0, or have one of the files read alone: oci-archive:SOURCE, docker-archive:SOURCE"
    )


def _names(saved: Sequence[SavedImage], roots: Sequence[_Root]) -> str:
    names = [each for image in saved for each in image.names]
    listed = [each for root in roots for each in entry_names(root.layout.root)[-1:]]
    names += [each for each in listed if not any(same_name(each, other) for other in names)]
    return listed_names(list(dict.fromkeys(names)))
