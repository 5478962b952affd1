"""Where things are in a tar, read from its headers alone.

Written here because the standard library's reader is made for unpacking: it takes a damaged header for the archive's
end, reads extended headers of any size into memory, and raises whatever comes. This one reads headers of a bounded
size, keeps offsets, and refuses what is damaged.

Source: POSIX "pax Interchange Format" and "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import BinaryIO, Final

import attrs

from regproto._model.errors import ContentError, printable

BLOCK: Final = 512
EXTENDED_MAX: Final = 1024 * 1024
"""Bytes of one extended header; a path of the longest length that systems know has 4 kB."""
MEMBERS_MAX: Final = 100_000
"""Members in one archive: a hundred times what the largest multi-platform image has as layout."""
PATH_MAX: Final = 4096
"""Bytes of a name or of a link's target: what Linux allows."""


class Kind(enum.Enum):
    """Kinds of members."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    """A symbolic link: to a path from where it stands."""
    HARD_LINK = "hard link"
    """To another member, by its full name."""
    OTHER = "other"
    """A device, a pipe, or a file with holes."""


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.LINK,
    b"5": Kind.FOLDER,
}
_WITHOUT_DATA: Final = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
"""Types that have no data, whatever their size says."""
_EXTENDED: Final = frozenset((b"L", b"K", b"x", b"g"))
"""Types whose data says something of the next member, or of all that follow."""
_SPARSE: Final = b"S"
"""GNU's old form of a file with holes: more blocks of its map may follow the header."""
_SPARSE_GOES_ON: Final = {True: 482, False: 504}
"""Where a header, or a further block of the map, says that another block of it follows."""


@attrs.frozen(kw_only=True)
class Member:
    """One member of an archive."""

    name: str
    kind: Kind
    target: str = ""
    """Of a link."""
    offset: int
    """Of its data, from the archive's beginning."""
    size: int


def read_members(file: BinaryIO, size: int) -> list[Member]:
    """All members, in order.

    Args:
        file: can be sought.
        size: the archive's bytes.

    Raises:
        ContentError: it is not a tar, is damaged, or ends too early.
        OSError: it can't be read.
    """
    members: list[Member] = []
    extended: dict[str, bytes] = {}
    shared: dict[str, bytes] = {}
    offset = 0
    while True:
        file.seek(offset)
        header = file.read(BLOCK)
        if not header.strip(b"\0"):
            break  # The end's two empty blocks, or an end without them.
        if len(header) < BLOCK:
            raise ContentError(f"is cut short: ends inside the header at byte {offset}")
        _check_sum(header, offset)
        kind = header[156:157]
        whole = {**shared, **extended}
        length = _size(header, whole)
        start = offset + BLOCK
        if kind in _EXTENDED:
            if length > EXTENDED_MAX:
                raise ContentError(f"has an extended header of {length} bytes at byte {offset}")
            data = file.read(length)
            if len(data) < length:
                raise ContentError(f"is cut short: ends inside the header at byte {offset}")
            _extend(kind, data, extended, shared)
        else:
            members.append(_member(header, kind, whole, start, length))
            if start + length > size:
                raise ContentError(
                    f"is cut short: {printable(members[-1].name, 200)} should end at byte {start + length}, "
                    f"the archive has {size}"
                )
            if len(members) > MEMBERS_MAX:
                raise ContentError(f"has over {MEMBERS_MAX} members")
            extended = {}
        offset = start + -(-length // BLOCK) * BLOCK
    return members


def _check_sum(header: bytes, offset: int) -> None:
    stated = _number(header[148:156], "checksum")
    blanked = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(blanked)
    # Some old tars add up signed bytes.
    if stated != unsigned and stated != unsigned - 256 * sum(byte > 127 for byte in blanked):
        where = "is not a tar archive" if offset == 0 else f"is damaged: the header at byte {offset} is not one"
        raise ContentError(where)


def _size(header: bytes, whole: Mapping[str, bytes]) -> int:
    """Bytes of a member's data, given what extended headers say of it."""
    kind = header[156:157]
    if kind in _WITHOUT_DATA:
        return 0
    # What is said of a member is not said of the extended headers before it.
    if "size" in whole and kind not in _EXTENDED:
        return _decimal(whole["size"], "size")
    return _number(header[124:136], "size")


def _number(field: bytes, what: str) -> int:
    """A number: octal digits, or in GNU's form a high bit and the number in binary."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0") or b"0"
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise ContentError(f"is not a tar archive, or damaged: {printable(repr(field), 60)} is no {what}")
    return int(digits, 8)


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 20:
        raise ContentError(f"is damaged: {printable(repr(value), 60)} is no {what}")
    return int(value)


def _extend(kind: bytes, data: bytes, extended: dict[str, bytes], shared: dict[str, bytes]) -> None:
    """Takes in what an extended header says of the next member, or of all that follow."""
    if kind == b"L":
        extended["path"] = data.rstrip(b"\0")
    elif kind == b"K":
        extended["linkpath"] = data.rstrip(b"\0")
    else:
        (shared if kind == b"g" else extended).update(_records(data))


def _records(data: bytes) -> Mapping[str, bytes]:
    """The records `length key=value` of a pax header."""
    records: dict[str, bytes] = {}
    while data.strip(b"\0"):
        digits, _, _ = data[:21].partition(b" ")
        length = _decimal(digits, "length")
        record, data = data[:length], data[length:]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if len(record) < length or not equals or not value.endswith(b"\n"):
            raise ContentError("is damaged: an extended header is malformed")
        records[key.decode("utf-8", "replace")] = value[:-1]
    return records


def _member(header: bytes, kind: bytes, extended: Mapping[str, bytes], start: int, length: int) -> Member:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    name = extended.get("path", name)
    target = extended.get("linkpath", header[157:257].partition(b"\0")[0])
    found = _KINDS.get(kind, Kind.OTHER)
    if found is Kind.FILE and name.endswith(b"/"):
        found = Kind.FOLDER
    if any(key.startswith("GNU.sparse.") for key in extended):
        found = Kind.OTHER
    if max(len(name), len(target)) > PATH_MAX:
        raise ContentError(f"has a member with a name or target of over {PATH_MAX} bytes")
    try:
        return Member(name=name.decode(), kind=found, target=target.decode(), offset=start, size=length)
    except UnicodeDecodeError:
        raise ContentError(f"has a member whose name is not UTF-8: {printable(repr(name), 200)}") from None


# --- a tar that passes by ---------------------------------------------------------------------------------------


class TarCheck:
    """Follows the headers of a tar that comes in pieces, to see that it is one and that it is whole.

    A tar should end with two empty blocks (POSIX, "ustar Interchange Format"), and all makers of tars write them; but
    there are tars without, which all readers take. So a tar that ends after a member is whole where its length was
    known beforehand; where it was not, as from a pipe, its maker may have died there.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._header = bytearray()
        self._wanted = BLOCK
        """Bytes of the header, or of what extends it."""
        self._data = 0
        self._padding = 0
        """Bytes of the present member that are yet to come."""
        self._kind = b""
        """Of the extended header whose data is read; empty: none is."""
        self._length = 0
        """Of that data."""
        self._map = False
        """Further blocks of a sparse file's map are read."""
        self._after_map = (0, 0)
        self._extended: dict[str, bytes] = {}
        self._shared: dict[str, bytes] = {}
        self.headers = 0
        """The headers that came so far."""
        self._empty_blocks = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Takes note of the next bytes. Raises `ContentError` if they belong to no tar, or a damaged one."""
        view = memoryview(data)
        while view and not self._is_over:
            if self._data or self._padding:
                count = min(len(view), self._data or self._padding)
                if self._data:
                    self._data -= count
                else:
                    self._padding -= count
            else:
                count = min(len(view), self._wanted - len(self._header))
                self._header += view[:count]
            self._offset += count
            view = view[count:]
            if len(self._header) == self._wanted:
                block, self._header, self._wanted = bytes(self._header), bytearray(), BLOCK
                self._take(block)

    @property
    def _is_over(self) -> bool:
        """The end of the archive is there: nothing after it has a meaning."""
        return self._empty_blocks >= (1 if self.headers else 2)

    def _take(self, block: bytes) -> None:
        if self._kind:
            kind, self._kind = self._kind, b""
            _extend(kind, block[: self._length], self._extended, self._shared)
        elif self._map:
            self._map = bool(block[_SPARSE_GOES_ON[False]])
            if not self._map:
                self._data, self._padding = self._after_map
        elif not block.strip(b"\0"):
            self._empty_blocks += 1
        else:
            self._begin(block)

    def _begin(self, header: bytes) -> None:
        offset = self._offset - BLOCK
        if self._empty_blocks:
            raise ContentError("is not a tar archive")
        _check_sum(header, offset)
        self.headers += 1
        kind = header[156:157]
        size = _size(header, {**self._shared, **self._extended})
        if kind in _EXTENDED:
            if size > EXTENDED_MAX:
                raise ContentError(f"has an extended header of {size} bytes at byte {offset}")
            if size:
                self._kind, self._length, self._wanted = kind, size, size + -size % BLOCK
            return
        self._extended = {}
        self._map = kind == _SPARSE and bool(header[_SPARSE_GOES_ON[True]])
        self._after_map = size, -size % BLOCK
        if not self._map:
            self._data, self._padding = self._after_map

    def end(self, measured: bool) -> None:
        """Raises `ContentError` unless what came is a whole tar.

        Args:
            measured: its length was known beforehand.
        """
        if not self._offset:
            raise ContentError("is empty: expected a tar")
        if self._is_over:
            return
        if not self.headers:
            raise ContentError("is not a tar archive")
        if self._data or self._header or self._kind or self._map:
            raise ContentError(f"is cut short: the tar ends at byte {self._offset}, inside a member")
        if not measured:
            raise ContentError(
                f"is cut short: the tar ends at byte {self._offset} without the empty blocks that mark its end, so its "
                "maker may have failed; if it is meant so, give it as a file"
            )
