"""The tar reader: every form of header, and that nothing malformed raises anything but our own error."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archives import hard_link, link, special, tar_bytes
from regproto import ContentError
from regproto_sync.sources.tar import Kind, Member, read_members

LONG = "folder/" * 20 + "x" * 120
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def read(content: bytes) -> list[Member]:
    return read_members(io.BytesIO(content), len(content))


def header(name: bytes = b"a", *, size: bytes = b"00000000000", kind: bytes = b"0") -> bytearray:
    made = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.USTAR_FORMAT))
    made[124:136] = size.ljust(12, b"\0")
    made[156:157] = kind
    return signed(made)


def signed(made: bytearray) -> bytearray:
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return made


# --- what is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS.keys())
def test_members_of_each_format(format: int) -> None:
    content = tar_bytes(
        [("a", b"one"), ("folder/b", b"x" * 2_000), special("folder", tarfile.DIRTYPE), ("empty", b"")], format
    )
    members = read(content)
    assert [(m.name, m.kind, m.size) for m in members] == [
        ("a", Kind.FILE, 3),
        ("folder/b", Kind.FILE, 2_000),
        ("folder/", Kind.FOLDER, 0),
        ("empty", Kind.FILE, 0),
    ]
    assert [content[m.offset : m.offset + m.size] for m in members][:2] == [b"one", b"x" * 2_000]


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_long_names_and_targets(format: str) -> None:
    members = read(tar_bytes([(LONG, b"1"), link("l" + LONG, "t" + LONG), ("é", b"2")], FORMATS[format]))
    assert [(m.name, m.target) for m in members] == [(LONG, ""), ("l" + LONG, "t" + LONG), ("é", "")]


def test_long_names_of_ustar() -> None:
    name = "f" * 90 + "/" + "x" * 99
    assert [m.name for m in read(tar_bytes([(name, b"1")], tarfile.USTAR_FORMAT))] == [name]


def test_kinds() -> None:
    members = read(
        tar_bytes(
            [
                link("s", "../t"),
                hard_link("h", "t"),
                special("pipe", tarfile.FIFOTYPE),
                special("device", tarfile.CHRTYPE),
            ]
        )
    )
    assert [(m.kind, m.target) for m in members] == [
        (Kind.LINK, "../t"),
        (Kind.HARD_LINK, "t"),
        (Kind.OTHER, ""),
        (Kind.OTHER, ""),
    ]
    old = read(bytes(header(b"folder/", kind=b"\0")))
    assert old[0].kind is Kind.FOLDER


def test_size_over_eight_gigabytes_in_both_forms(tmp_path: Path) -> None:
    size = 9 * 1024**3
    for made in (bytes(header(size=b"\x80" + size.to_bytes(11))), pax_size(size)):
        path = tmp_path / "sparse.tar"
        path.write_bytes(made)
        with path.open("r+b") as file:
            file.truncate(len(made) + size)
            assert [m.size for m in read_members(file, len(made) + size)] == [size]


def pax_size(size: int) -> bytes:
    record = b"size=%d\n" % size
    record = b"%d %s" % (len(record) + 3, record)
    return bytes(header(kind=b"x", size=b"%011o" % len(record))) + record.ljust(512, b"\0") + bytes(header())


def test_global_header_counts_for_all_that_follow() -> None:
    record = b"16 path=renamed\n"
    content = bytes(header(kind=b"g", size=b"%011o" % len(record))) + record.ljust(512, b"\0")
    content += bytes(header(b"1")) + bytes(header(b"2"))
    assert [m.name for m in read(content)] == ["renamed", "renamed"]


def test_end_without_empty_blocks_and_what_comes_after_them() -> None:
    content = tar_bytes([("a", b"one")])
    assert len(read(content[:1024])) == 1
    assert len(read(content + b"anything" * 100)) == 1


def test_signed_checksums_of_old_tars() -> None:
    made = header("é".encode())
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in made)
    assert [m.name for m in read(bytes(made))] == ["é"]


# --- what is refused ------------------------------------------------------------------------------------------

EXTENDED = bytes(header(kind=b"x", size=b"%011o" % 512))
BAD: dict[str, tuple[bytes, str]] = {
    "no tar": (b"not a tar at all" * 100, "is not a tar archive"),
    "short": (b"short", "is cut short"),
    "cut in data": (tar_bytes([("a", b"x" * 600)])[:1024], "a should end at byte 1112, the archive has 1024"),
    "cut in a header": (tar_bytes([("a", b"x"), ("b", b"y")])[:1200], "ends inside the header at byte 1024"),
    "cut in an extended header": (EXTENDED + b"5 a=b"[:3], "ends inside the header at byte 0"),
    "checksum": (tar_bytes([("a", b"x")])[:1024] + b"\1" * 512, "damaged: .* checksum|is no checksum"),
    "altered": (bytes(header(b"a")).replace(b"a\0", b"b\0", 1), "is not a tar archive"),
    "altered later": (
        tar_bytes([("a", b"x")])[:1024] + bytes(header(b"a")).replace(b"a\0", b"b\0", 1),
        "is damaged: the header at byte 1024 is not one",
    ),
    "size of letters": (bytes(header(size=b"hello")), "is no size"),
    "size not octal": (bytes(header(size=b"0000000009")), "is no size"),
    "size below zero": (bytes(header(size=b"\xff" * 12)), "is no size"),
    "size beyond the end": (bytes(header(size=b"\x80" + b"\xff" * 11)), "is cut short"),
    "extended header huge": (bytes(header(kind=b"L", size=b"77777777777")), "extended header of 8589934591 bytes"),
    "record malformed": (EXTENDED + b"hello world".ljust(512), "is no length"),
    "record without end": (EXTENDED + b"9999 path=a\n".ljust(512, b"\0"), "header is malformed"),
    "record of length zero": (EXTENDED + b"0 path=a\n".ljust(512, b"\0"), "header is malformed"),
    "record without equals": (EXTENDED + b"9 path a\n".ljust(512, b"\0"), "header is malformed"),
    "record size": (EXTENDED + b"12 size=-12\n".ljust(512, b"\0") + bytes(header()), "is no size"),
    "name not UTF-8": (
        EXTENDED + b"9 path=\xff\n".ljust(512, b"\0") + bytes(header()),
        "name is not UTF-8",
    ),
    "name too long": (tar_bytes([("x" * 5_000, b"")]), "over 4096 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged(case: str) -> None:
    content, expected = BAD[case]
    with pytest.raises(ContentError, match=expected):
        read(content)


def test_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regproto_sync.sources.tar.MEMBERS_MAX", 3)
    assert len(read(tar_bytes([(str(n), b"") for n in range(3)]))) == 3
    with pytest.raises(ContentError, match="over 3 members"):
        read(tar_bytes([(str(n), b"") for n in range(4)]))


def test_sparse_files_are_not_files() -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"GNU.sparse.major": "1"}
    assert [m.kind for m in read(tar_bytes([info]))] == [Kind.OTHER]


@st.composite
def damaged_tars(draw: st.DrawFn) -> bytes:
    """A sound tar with some bytes changed, the checksums of some headers made right again, and cut anywhere."""
    name = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150)
    members = draw(st.lists(st.tuples(name, st.binary(max_size=700)), max_size=4))
    links = draw(st.lists(st.builds(link, name, name), max_size=2))
    content = bytearray(tar_bytes([*members, *links], draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))))
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    for block in draw(st.lists(st.integers(0, len(content) // 512 - 1), max_size=3)):
        content[block * 512 : block * 512 + 512] = signed(content[block * 512 : block * 512 + 512])
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@settings(max_examples=300, deadline=None)
@given(st.one_of(damaged_tars(), st.binary(max_size=1_500)))
def test_nothing_malformed_raises_anything_else(content: bytes) -> None:
    try:
        members = read(content)
    except ContentError:
        return
    assert all(m.offset + m.size <= len(content) and m.size >= 0 for m in members)
