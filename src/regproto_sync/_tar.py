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

from regproto._errors import ContentError, printable

BLOCK: Final = 512
EXTENDED_MAX: Final = 1024 * 1024
"""Bytes of one extended header; a path of the longest length that systems know has 4 kB."""
MEMBERS_MAX: Final = 100_000
"""Members in one archive: a hundred times what the largest multi-platform image has as layout."""
PATH_MAX: Final = 4096
"""Bytes of a name or of a link's target: what Linux allows."""


class Kind(enum.Enum):
    """What a member is."""

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
_WITHOUT_DATA: Final = frozenset(b"123456")
"""Types that have no data, whatever their size says."""


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
        length = _decimal(whole["size"], "size") if "size" in whole else _number(header[124:136], "size")
        start = offset + BLOCK
        if kind in (b"L", b"K", b"x", b"g"):
            if length > EXTENDED_MAX:
                raise ContentError(f"has an extended header of {length} bytes at byte {offset}")
            data = file.read(length)
            if len(data) < length:
                raise ContentError(f"is cut short: ends inside the header at byte {offset}")
            _extend(kind, data, extended, shared)
        else:
            length = 0 if kind[0] in _WITHOUT_DATA else length
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
    told = _number(header[148:156], "checksum")
    blanked = header[:148] + b" " * 8 + header[156:]
    signed = sum(blanked) - 256 * sum(byte > 127 for byte in blanked)
    if told not in (sum(blanked), signed):  # Some old tars add up signed bytes.
        where = "is not a tar archive" if offset == 0 else f"is damaged: the header at byte {offset} is not one"
        raise ContentError(where)


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
