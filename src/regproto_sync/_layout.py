"""An OCI image layout directory as the source of a push.

Source: image-spec, "OCI Image Layout". Everything is checked before it is opened: where its path leads, that it is
a regular file, how long it is. Manifests and configs are checked against their digests; layers are left to the
registry, which does it anyway, and `Layout.altered` finds the culprit when it refuses one.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from regproto._content import (
    DOCKER_LIST,
    MANIFEST_MAX_BYTES,
    OCI_INDEX,
    Descriptor,
    Digest,
    parse_json_object,
    parse_manifest,
)
from regproto._errors import ContentError, printable
from regproto._plan import Blob, MountSource, Push, plan_push
from regproto_sync._content import FileContent

REF_NAME: Final = "org.opencontainers.image.ref.name"
LAYOUT_VERSION: Final = "1.0.0"
NAMES_SHOWN_MAX: Final = 20
"""Names listed in an error: a screenful."""


class SourceNotFound(ContentError):
    """There is nothing at the path of the source."""


def split_source(text: str) -> tuple[Path, str | None]:
    """The path and name that `PATH` or `PATH:NAME` means.

    Both may hold colons. A path that exists as it stands wins; else the longest part before a colon that exists.

    Raises:
        SourceNotFound: no part of it is an existing path.
    """
    path: str = text
    name: str | None = None
    while path:
        try:
            if Path(path).exists():
                return Path(path), name
        except (OSError, ValueError):
            pass  # Too long for a path, or with a zero byte in it; what stands before the colon may be one.
        path, _, rest = path.rpartition(":")
        name = rest if name is None else f"{rest}:{name}"
    raise SourceNotFound(f"{printable(text)}: no such file or directory")


@attrs.frozen(kw_only=True)
class Layout:
    """An OCI layout, and the one entry of its index.json that is to be pushed."""

    path: Path
    """The folder, with every link resolved."""
    root: Descriptor

    def plan(
        self,
        repository: str,
        *,
        tags: Sequence[str] = (),
        mount_from: Sequence[MountSource] = (),
        nondistributable: bool = False,
        sparse: bool = False,
    ) -> Push:
        """The plan that pushes the entry and everything below it; the arguments are those of `regproto.plan_push`.

        Raises:
            ContentError: something is missing, malformed, or not what its descriptor says.
        """
        with _within(self.path):
            push = plan_push(
                repository,
                self.root,
                read_manifest=self._read_manifest,
                find_content=self._find_content,
                tags=tags,
                mount_from=mount_from,
                nondistributable=nondistributable,
                sparse=sparse,
            )
            configs = {m.info.config.digest for m in push.manifests if m.info.config is not None}
            for blob in push.blobs:
                # Of a config's size; a "config" of gigabytes is content like any other, for the registry to check.
                if blob.descriptor.digest in configs and blob.descriptor.size <= MANIFEST_MAX_BYTES:
                    self._check(blob)
        return push

    def altered(self, push: Push) -> ContentError | None:
        """The error that names a blob of `push` whose file is not what its digest says; None if all are right.

        Reads them all: for after a registry refused one.
        """
        try:
            with _within(self.path):
                for blob in push.blobs:
                    self._check(blob)
        except ContentError as error:
            return error
        return None

    def _check(self, blob: Blob) -> None:
        if not isinstance(blob.source, FileContent):
            return
        digest = blob.descriptor.digest
        try:
            with open(blob.source.path, "rb") as file:
                found = hashlib.file_digest(file, digest.algorithm).hexdigest()
        except OSError as error:
            raise ContentError(f"{_blob_path(digest)}: {_reason(error)}") from error
        if found != digest.hex:
            raise ContentError(
                f"{_blob_path(digest)}: the content of {digest} does not match its digest (it is "
                f"{digest.algorithm}:{found}): the layout is damaged, make it again"
            )

    def _read_manifest(self, descriptor: Descriptor) -> bytes | None:
        where = _blob_path(descriptor.digest)
        if descriptor.size > MANIFEST_MAX_BYTES:
            raise ContentError(
                f"{where}: {descriptor.size} bytes; a manifest may have at most {MANIFEST_MAX_BYTES} (4 MiB)"
            )
        path = self._described(descriptor)
        return None if path is None else _read(path, where)

    def _find_content(self, descriptor: Descriptor) -> FileContent | None:
        path = self._described(descriptor)
        if path is None:
            return None
        try:
            return FileContent.of(path)
        except OSError as error:
            raise ContentError(f"{_blob_path(descriptor.digest)}: {_reason(error)}") from error

    def _described(self, descriptor: Descriptor) -> Path | None:
        """The file of what is described, None if it is missing. Raises `ContentError` if it has another size."""
        where = _blob_path(descriptor.digest)
        found = _find(self.path, where)
        if found is None:
            return None
        path, size = found
        if size != descriptor.size:
            fault = "short" if size < descriptor.size else "long"
            raise ContentError(
                f"{where}: the file is too {fault}: {size} bytes, but {descriptor.digest} is described as "
                f"{descriptor.size}"
            )
        return path


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
    with _within(root):
        if not root.is_dir():
            raise ContentError("is not a folder: expected an OCI layout (oci-layout, index.json, blobs)")
        _check_version(root)
        content = _required(root, "index.json")
        own = parse_json_object(content, "index.json").get("mediaType", OCI_INDEX)
        if own not in (OCI_INDEX, DOCKER_LIST):
            raise ContentError(f"index.json: {printable(repr(own), 100)} is not the media type of an index")
        return Layout(path=root, root=_select(parse_manifest(content, own, "index.json").manifests, name))


@contextlib.contextmanager
def _within(path: Path) -> Iterator[None]:
    """Errors inside say what is wrong where in the layout; this says in which one."""
    try:
        yield
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from error


def _check_version(root: Path) -> None:
    version = parse_json_object(_required(root, "oci-layout"), "oci-layout").get("imageLayoutVersion")
    if version != LAYOUT_VERSION:
        raise ContentError(
            f"oci-layout: imageLayoutVersion must be {LAYOUT_VERSION!r}, not {printable(repr(version), 60)}"
        )


def _select(entries: tuple[Descriptor, ...], name: str | None) -> Descriptor:
    named = [entry for entry in entries if name is None or entry.annotations.get(REF_NAME) == name]
    # Several names for one image are several entries with the same digest.
    chosen = {entry.digest: entry for entry in named}
    if len(chosen) == 1:
        return named[0]
    if not entries:
        raise ContentError("index.json: has no entry, so there is nothing to push")
    if named and name is not None:
        raise ContentError(f"index.json: {len(chosen)} different entries are named {printable(repr(name), 100)}")
    names = list(dict.fromkeys(entry.annotations[REF_NAME] for entry in entries if REF_NAME in entry.annotations))
    shown = ", ".join(printable(text, 200) for text in names[:NAMES_SHOWN_MAX])
    listed = (shown + (", ..." if len(names) > NAMES_SHOWN_MAX else "")) if names else "none has a name"
    if name is not None:
        raise ContentError(f"index.json: no entry is named {printable(repr(name), 100)}; there are: {listed}")
    raise ContentError(f"index.json: has {len(chosen)} entries; choose one as SOURCE:NAME, of: {listed}")


# --- files ----------------------------------------------------------------------------------------------------


def _blob_path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _find(root: Path, relative: str) -> tuple[Path, int] | None:
    """The regular file at this path, links resolved, and its size; None if nothing is there.

    Raises:
        ContentError: it is something else, can't be reached, or is outside of `root`.
    """
    try:
        path = (root / relative).resolve()
        if not path.is_relative_to(root):
            raise ContentError(f"{relative}: is a link that leads out of the layout")
        status = path.stat()
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        raise ContentError(f"{relative}: {_reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ContentError(f"{relative}: is not a regular file")
    return path, status.st_size


def _required(root: Path, relative: str) -> bytes:
    found = _find(root, relative)
    if found is None:
        raise ContentError(f"{relative}: is missing, so this is not an OCI layout")
    return _read(found[0], relative)


def _read(path: Path, where: str) -> bytes:
    try:
        with open(path, "rb") as file:
            # One byte more than is allowed, so that parsing sees what is too long without it being read whole.
            return file.read(MANIFEST_MAX_BYTES + 1)
    except OSError as error:
        raise ContentError(f"{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or printable(str(error), 200)
