"""A tar as a place to read from: its members are found by name, and read where they stand.

Nothing is unpacked. Links among members are followed, as unpacking would make them; a link or name that leads out
of the archive is refused.
"""

from __future__ import annotations

import gzip
import posixpath
import stat
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from regproto._model.errors import ContentError, printable
from regproto_sync.sources.content import Content, FileContent, SliceContent
from regproto_sync.sources.notation import SourceNotFound
from regproto_sync.sources.reading import pieces
from regproto_sync.sources.spool import COPY_BYTES, SpooledContent, spool
from regproto_sync.sources.tar import Kind, Member, read_members

HOPS_MAX: Final = 40
"""Links followed on the way to one member: what Linux allows on a path."""

GZIP_MAGIC: Final = b"\x1f\x8b"
_OTHER_MAGIC: Final = {
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"BZh": "bzip2 -d",
    b"\xfd7zXZ\0": "xz -d",
}


@attrs.frozen(kw_only=True)
class Archive:
    """A tar and where its members are."""

    name: str
    """How errors call it."""
    content: Content
    members: dict[str, list[Member]] = attrs.field(repr=False)
    """By name, in the form `a/b`; more than one for a name that is there twice."""

    def find(self, relative: str) -> SliceContent | None:
        """The file with this name, links followed; None if there is none.

        Raises:
            ContentError: it is no file, is there twice, or the way to it leads in a circle or out of the archive.
        """
        where, hops = relative, 0
        waiting = relative.split("/")[::-1]
        done: list[str] = []
        found: list[Member] = []
        while waiting:
            part = waiting.pop()
            if part == "..":
                if not done:
                    raise ContentError(f"{where}: is a link that leads out of the archive")
                done.pop()
            elif part not in ("", "."):
                done.append(part)
            found = self.members.get("/".join(done), [])
            if len(found) > 1 and any(member.kind is not Kind.FOLDER for member in found):
                raise ContentError(f"{where}: {printable('/'.join(done), 200)} is in the archive more than once")
            if not found or found[0].kind not in (Kind.LINK, Kind.HARD_LINK):
                continue
            hops += 1
            if hops > HOPS_MAX:
                raise ContentError(f"{where}: is a link that leads in a circle")
            if found[0].target.startswith("/"):
                raise ContentError(f"{where}: is a link that leads out of the archive")
            done = done[:-1] if found[0].kind is Kind.LINK else []
            waiting += found[0].target.split("/")[::-1]
            found = []
        if not found:
            return None
        if found[0].kind is not Kind.FILE:
            raise ContentError(f"{where}: is not a regular file")
        return SliceContent(self.content, found[0].offset, found[0].size)


def open_archive(path: Path | None) -> Archive:
    """The archive in this file, or on standard input.

    What is gzipped, a pipe or standard input is first put into a private temporary file, as a plain tar.

    Raises:
        SourceNotFound: there is nothing at `path`.
        ContentError: it can't be read, or is not a tar.
    """
    name = "standard input" if path is None else str(path)
    try:
        content, size = _plain_content(path)
        with content.open() as file:
            members = read_members(file, size)
            content.check(file)
    except FileNotFoundError as error:
        raise SourceNotFound(f"{printable(name)}: no such file or directory") from error
    except (OSError, EOFError, zlib.error) as error:
        words = error.strerror if isinstance(error, OSError) else None
        raise ContentError(f"{printable(name)}: {words or printable(str(error), 200)}") from error
    except ContentError as error:
        raise ContentError(f"{printable(name)}: {error}") from error
    by_name: dict[str, list[Member]] = {}
    for member in members:
        key = posixpath.normpath(member.name)
        if key.startswith(("/", "../")) or key == "..":
            raise ContentError(f"{printable(name)}: {printable(member.name, 200)}: leads out of the archive")
        by_name.setdefault(key, []).append(member)
    return Archive(name=name, content=content, members=by_name)


def _plain_content(path: Path | None) -> tuple[FileContent | SpooledContent, int]:
    """The archive as a plain tar that can be read anywhere and again, and its size."""
    content: FileContent | SpooledContent
    if path is None:
        if sys.stdin is None:
            raise ContentError("there is none")
        if sys.stdin.isatty():
            raise ContentError("is a terminal: expected an archive, as in `docker save app | regproto push - ...`")
        content = _spooled(sys.stdin.buffer)
    elif stat.S_ISFIFO(path.stat().st_mode):
        with path.open("rb") as file:
            content = _spooled(file)
    else:
        content = FileContent.of(path)
    with content.open() as file:
        magic = file.read(6)
        if not magic:
            raise ContentError("is empty")
        if magic.startswith(GZIP_MAGIC):
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as plain:
                content = _spooled(plain)
    for known, command in _OTHER_MAGIC.items():
        if magic.startswith(known):
            raise ContentError(f"is compressed: decompress it first, with `{command}`")
    return content, content.size


def _spooled(file: Any) -> SpooledContent:
    def copy(to: BinaryIO) -> None:
        for piece in pieces(file, COPY_BYTES):
            to.write(piece)

    return spool(copy)[0]
