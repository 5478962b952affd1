"""Single files, folders and bytes as the blobs of a push."""

from __future__ import annotations

import gzip
import hashlib
import os
import posixpath
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final

from regproto._model.digest import Digest
from regproto._model.errors import ContentError, printable
from regproto._model.manifest import Descriptor, check_media_type
from regproto._model.plan import Blob
from regproto_sync.sources.artifact import TITLE
from regproto_sync.sources.content import BytesContent, ContentChanged, FileContent, digest_of
from regproto_sync.sources.spool import COPY_BYTES, spool
from regproto_sync.sources.tar import BLOCK

FILE_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
"""The media type that oras gives a file that comes without one."""
FOLDER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
UNPACK: Final = "io.deis.oras.content.unpack"
"""Tells oras to unpack the layer when it is pulled."""
GZIP_LEVEL: Final = 6
"""zlib's own default: what comes after it takes twice the time for a hundredth of the size."""
TAR_DIGEST: Final = "io.deis.oras.content.digest"
"""The digest of a folder's tar before compression, which oras checks."""


def bytes_blob(
    content: bytes,
    media_type: str,
    *,
    title: str = "",
    annotations: Mapping[str, str] | None = None,
    algorithm: str = "sha256",
) -> Blob:
    """A blob of bytes in memory; `title` is the name that oras saves it under. Raises `ContentError`."""
    descriptor = Descriptor(
        media_type=check_media_type(media_type, printable(title, 200) or "content"),
        digest=Digest.of(content, algorithm),
        size=len(content),
        annotations={**({TITLE: title} if title else {}), **(annotations or {})},
    )
    return Blob(descriptor=descriptor, source=BytesContent(content))


def file_blob(
    path: str | os.PathLike[str],
    media_type: str = FILE_TYPE,
    *,
    title: str | None = None,
    annotations: Mapping[str, str] | None = None,
    algorithm: str = "sha256",
) -> Blob:
    """A blob of a file, which is read once to digest it, and again to send it.

    Args:
        path: a regular file, or a link to one.
        media_type: what is in it.
        title: the name that oras saves it under; by default see `title_of`, and with "" none.
        annotations: of the descriptor.
        algorithm: of the digest, `sha256` or `sha512`.

    Raises:
        ContentError: there is no such file, it can't be read or changes meanwhile, or `media_type` is none.
    """
    check_media_type(media_type, printable(os.fspath(path)))
    try:
        content = FileContent.of(path)
        digest = digest_of(content, content.size, algorithm)
    except OSError as error:
        raise ContentError(f"{printable(os.fspath(path))}: {_reason(error)}") from error
    descriptor = Descriptor(
        media_type=media_type,
        digest=digest,
        size=content.size,
        annotations={**_titled(title_of(path) if title is None else title), **(annotations or {})},
    )
    return Blob(descriptor=descriptor, source=content)


def folder_blob(
    path: str | os.PathLike[str],
    media_type: str = FOLDER_TYPE,
    *,
    title: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Blob:
    """A blob of a folder: a gzipped tar, the same for the same names, content and executable bits.

    In it everything is sorted, and belongs to nobody at no time. It is made now, in a private temporary file.

    Args:
        path: the folder.
        media_type: what is in it.
        title: the folder's name when oras unpacks it; by default see `title_of`.
        annotations: of the descriptor, beside those that tell oras to unpack it.

    Raises:
        ContentError: there is no such folder, something in it can't be read, is neither file, folder nor link, or is
            a link that leads out of it.
    """
    check_media_type(media_type, printable(os.fspath(path)))
    title = title_of(path) if title is None else title
    try:
        root = Path(path).resolve(strict=True)
        content, (digest, tar_digest) = spool(lambda file: _write_folder(root, title or root.name, file))
    except (OSError, RuntimeError) as error:
        named = error.filename if isinstance(error, OSError) else None
        where = named if isinstance(named, str) else os.fspath(path)
        raise ContentError(f"{printable(where)}: {_reason(error)}") from error
    packed = {TAR_DIGEST: f"sha256:{tar_digest}", UNPACK: "true", **_titled(title)}
    descriptor = Descriptor(
        media_type=media_type,
        digest=Digest(f"sha256:{digest}"),
        size=content.size,
        annotations={**packed, **(annotations or {})},
    )
    return Blob(descriptor=descriptor, source=content)


def title_of(path: str | os.PathLike[str]) -> str:
    """The title of a file given by this path: the path, if it is a plain way down from here; else its last part.

    So that pulling can't write anywhere but below where it is asked to.
    """
    parts = PurePath(path).parts
    if not parts or PurePath(path).is_absolute() or ".." in parts:
        return os.path.basename(os.path.abspath(path))
    return "/".join(parts)


def _titled(title: str) -> dict[str, str]:
    return {TITLE: title} if title else {}


class _Hashing:
    """Writes on, and hashes what it writes."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._hash.update(data)
        written: int = self._file.write(data)
        return written

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _write_folder(root: Path, title: str, file: BinaryIO) -> tuple[str, str]:
    """Writes a folder's gzipped tar; the hex digests of what was written, and of the tar before compression."""
    whole: Any = _Hashing(file)
    with gzip.GzipFile(filename="", fileobj=whole, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as packed:
        tar = _Hashing(packed)
        waiting = [(root, title)]
        while waiting:
            path, name = waiting.pop()
            if _add(tar, path, name, title):
                children = sorted(os.listdir(path), reverse=True)
                waiting += [(path / child, f"{name}/{child}") for child in children]
        # Not filled up to a record, as the standard library does: oras reads, and digests, up to here.
        tar.write(bytes(2 * BLOCK))
    return whole.hexdigest(), tar.hexdigest()


def _add(tar: _Hashing, path: Path, name: str, top: str) -> bool:
    """Adds a file, a link or a folder without what is in it; True if it is a folder."""
    shown = printable(name, 200)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ContentError(f"{shown}: the name is not valid Unicode") from None
    mode = path.lstat().st_mode
    entry = tarfile.TarInfo(name)
    if stat.S_ISREG(mode):
        content = FileContent.of(path)
        entry.mode, entry.size = 0o755 if mode & 0o100 else 0o644, content.size
        _write_header(tar, entry)
        with content.open() as stream:
            left = content.size
            while left:
                data = stream.read(min(left, COPY_BYTES))
                if not data:
                    raise ContentChanged(f"{path} ends {left} bytes too early")
                tar.write(data)
                left -= len(data)
            content.check(stream)
        tar.write(bytes(-content.size % BLOCK))
    elif stat.S_ISLNK(mode):
        entry.type, entry.mode, entry.linkname = tarfile.SYMTYPE, 0o777, os.readlink(path)
        leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.linkname))
        if leads_to != top and not leads_to.startswith(f"{top}/"):
            raise ContentError(f"{shown}: is a link that leads out of the folder, to {printable(entry.linkname, 200)}")
        _write_header(tar, entry)
    elif stat.S_ISDIR(mode):
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        _write_header(tar, entry)
        return True
    else:
        raise ContentError(f"{shown}: is neither a file, a folder nor a link")
    return False


def _write_header(tar: _Hashing, entry: tarfile.TarInfo) -> None:
    tar.write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or printable(str(error), 200)
