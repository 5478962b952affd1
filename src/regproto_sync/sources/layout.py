"""An OCI image layout as the source of a push, in a folder or an archive.

Source: image-spec, "OCI Image Layout". Everything is checked before it is opened: where its path leads, that it is
a regular file, how long it is.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import attrs

from regproto._model.digest import Digest
from regproto._model.errors import ContentError, InvalidReferenceError, printable
from regproto._model.manifest import (
    DOCKER_LIST,
    MANIFEST_MAX_BYTES,
    OCI_INDEX,
    Descriptor,
    parse_json_object,
    parse_manifest,
)
from regproto._model.reference import Reference
from regproto_sync.sources.content import FileContent, SliceContent
from regproto_sync.sources.image import ImageSource, named
from regproto_sync.sources.notation import SourceNotFound

REF_NAME: Final = "org.opencontainers.image.ref.name"
DOCKER_NAME: Final = "io.containerd.image.name"
"""The whole name, as `docker save` writes it; the other one is then the tag alone."""
LAYOUT_VERSION: Final = "1.0.0"
NAMES_SHOWN_MAX: Final = 20
"""Names listed in an error: a screenful."""


class Files(Protocol):
    """A place where a layout is kept: a folder or an archive."""

    @property
    def name(self) -> str:
        """How errors call it."""
        ...

    def find(self, relative: str) -> FileContent | SliceContent | None:
        """The file with this name, None if nothing is there.

        Raises:
            ContentError: it is no regular file, can't be reached, or is outside.
        """
        ...


@attrs.frozen(kw_only=True)
class Layout(ImageSource):
    """An OCI layout, and the one entry of its index.json that is to be pushed."""

    files: Files
    entry: Descriptor

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.files.name

    @property
    def root(self) -> Descriptor:
        return self.entry

    def where(self, digest: Digest) -> str:
        return f"blobs/{digest.algorithm}/{digest.hex}"

    def read_manifest(self, descriptor: Descriptor) -> bytes | None:
        where = self.where(descriptor.digest)
        if descriptor.size > MANIFEST_MAX_BYTES:
            raise ContentError(
                f"{where}: {descriptor.size} bytes; a manifest may have at most {MANIFEST_MAX_BYTES} (4 MiB)"
            )
        found = self.find_content(descriptor)
        return None if found is None else read_small(found, where)

    def find_content(self, descriptor: Descriptor) -> FileContent | SliceContent | None:
        """Raises `ContentError` if what is there has another size."""
        where = self.where(descriptor.digest)
        found = self.files.find(where)
        if found is not None and found.size != descriptor.size:
            fault = "short" if found.size < descriptor.size else "long"
            raise ContentError(
                f"{where}: the file is too {fault}: {found.size} bytes, but {descriptor.digest} is described as "
                f"{descriptor.size}"
            )
        return found


def open_layout(path: Path, name: str | None = None) -> Layout:
    """The layout in this folder, with the entry called `name`, or its only one.

    Raises:
        SourceNotFound: there is nothing at `path`.
        ContentError: it is not an OCI layout, or doesn't have that one entry; then it lists the names there are.
    """
    try:
        root = path.resolve(strict=True)
    except FileNotFoundError:
        raise SourceNotFound(f"{path}: no such file or directory") from None
    except (OSError, RuntimeError) as error:
        raise ContentError(f"{path}: {_reason(error)}") from error
    if not root.is_dir():
        raise ContentError(f"{path}: is not a folder: expected an OCI layout (oci-layout, index.json, blobs)")
    return layout_of(Folder(root), name)


def layout_of(files: Files, name: str | None) -> Layout:
    """The layout that is kept there. Raises `ContentError`, as `open_layout` does."""
    with named(files.name):
        return Layout(files=files, entry=_select(layout_entries(files), name))


def layout_entries(files: Files) -> tuple[Descriptor, ...]:
    """The entries of index.json. Raises `ContentError`, also if it is no layout."""
    _check_version(files)
    content = _required(files, "index.json")
    own = parse_json_object(content, "index.json").get("mediaType", OCI_INDEX)
    if own not in (OCI_INDEX, DOCKER_LIST):
        raise ContentError(f"index.json: {printable(repr(own), 100)} is not the media type of an index")
    return parse_manifest(content, own, "index.json").manifests


def _check_version(files: Files) -> None:
    version = parse_json_object(_required(files, "oci-layout"), "oci-layout").get("imageLayoutVersion")
    if version != LAYOUT_VERSION:
        raise ContentError(
            f"oci-layout: imageLayoutVersion must be {LAYOUT_VERSION!r}, not {printable(repr(version), 60)}"
        )


def _required(files: Files, relative: str) -> bytes:
    found = files.find(relative)
    if found is None:
        raise ContentError(f"{relative}: is missing, so this is not an OCI layout")
    return read_small(found, relative)


def read_small(content: FileContent | SliceContent, where: str) -> bytes:
    """The bytes of something that is parsed; of what is too large for that, one more than is allowed."""
    try:
        with content.open() as file:
            return file.read(min(content.size, MANIFEST_MAX_BYTES + 1))
    except OSError as error:
        raise ContentError(f"{where}: {_reason(error)}") from error


# --- which entry ----------------------------------------------------------------------------------------------


def _select(entries: tuple[Descriptor, ...], name: str | None) -> Descriptor:
    matching = [entry for entry in entries if name is None or any(same_name(n, name) for n in entry_names(entry))]
    # Several names for one image are several entries with the same digest.
    chosen = {entry.digest: entry for entry in matching}
    if len(chosen) == 1:
        return matching[0]
    if not entries:
        raise ContentError("index.json: has no entry, so there is nothing to push")
    if matching and name is not None:
        raise ContentError(f"index.json: {len(chosen)} different entries are named {printable(repr(name), 100)}")
    names = list(dict.fromkeys(entry_names(entry)[-1] for entry in entries if entry_names(entry)))
    if name is not None:
        raise ContentError(
            f"index.json: no entry is named {printable(repr(name), 100)}; there are: {listed_names(names)}"
        )
    raise ContentError(f"index.json: has {len(chosen)} entries; choose one as SOURCE:NAME, of: {listed_names(names)}")


def entry_names(entry: Descriptor) -> list[str]:
    """The names of an entry: by the image-spec, and by docker, whose name says more."""
    return [entry.annotations[key] for key in (REF_NAME, DOCKER_NAME) if key in entry.annotations]


def same_name(one: str, other: str) -> bool:
    """True if both mean the same image, as `alpine:3` and `docker.io/library/alpine:3` do."""
    if one == other:
        return True
    try:
        return _reference(one) == _reference(other)
    except InvalidReferenceError:
        return False


def _reference(text: str) -> Reference:
    # What has no `:` and no `/` is a tag; as a repository it would match images of that name with any tag.
    if not any(mark in text for mark in ":/"):
        raise InvalidReferenceError("a bare name")
    return Reference.parse(text).with_default_tag()


def listed_names(names: Sequence[str]) -> str:
    """Names for an error."""
    shown = ", ".join(printable(text, 200) for text in names[:NAMES_SHOWN_MAX])
    return (shown + (", ..." if len(names) > NAMES_SHOWN_MAX else "")) if names else "none has a name"


# --- a folder -------------------------------------------------------------------------------------------------


@attrs.frozen
class Folder:
    """A folder, its links resolved, as the place where a layout is kept."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def find(self, relative: str) -> FileContent | None:
        """The regular file at this path, links followed as long as they stay in the folder. Raises `ContentError`."""
        try:
            path = (self.path / relative).resolve()
            if not path.is_relative_to(self.path):
                raise ContentError(f"{relative}: is a link that leads out of the layout")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ContentError(f"{relative}: is not a regular file")
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError) as error:
            raise ContentError(f"{relative}: {_reason(error)}") from error
        return FileContent.described(path, status)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or printable(str(error), 200)
