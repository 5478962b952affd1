"""Compression of layers on their way: gzip and zstd, the same bytes for the same input.

Python's zlib writes no name and no time into a gzip header. What zlib and zstd make of some input may depend on where
it was cut, so it is always cut into blocks of the same size, however it came.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from importlib import import_module
from typing import Any, Final, Protocol

from regproto._model.errors import ContentError, LocalProtocolError

BLOCK_BYTES: Final = 256 * 1024
"""Read and compressed at a time."""
LEVELS: Final = {"none": (0, 0, 0), "gzip": (0, 6, 9), "zstd": (1, 3, 22)}
"""The lowest level, the default and the highest, by compression. The defaults are the tools' own."""
_GZIP_WINDOW: Final = 31
"""zlib's notation for the largest window (15) in gzip's format (+ 16)."""
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_GZIP_PADDING: Final = b"\0"
"""Padding after a gzip file's end, as on tapes; gzip itself ignores it."""
_ZSTD_FED_BYTES: Final = 1024
"""Given to zstd at once: it makes at most some 30,000 bytes of one (a repeated byte: 128 kB from a block of 4), and
one of its two interfaces returns all of that in one piece."""


class CompressionUnavailable(ContentError):
    """The library that a compression needs is not installed."""


class Compressor(Protocol):
    """The methods that zlib's and zstd's compressors have in common."""

    def compress(self, data: Any, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: Any, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


def check_compression(compression: str, level: int | None) -> int:
    """The level to compress with.

    Raises:
        LocalProtocolError: there is no such compression or level.
    """
    found = LEVELS.get(compression)
    if found is None:
        raise LocalProtocolError(f"compression {compression!r}: expected one of {', '.join(LEVELS)}")
    lowest, default, highest = found
    if level is None:
        return default
    if not lowest <= level <= highest:
        raise LocalProtocolError(f"{compression} has the levels {lowest} to {highest}, not {level}")
    return level


def compressor(compression: str, level: int) -> Compressor:
    """A new compressor. Raises `CompressionUnavailable`."""
    if compression == "gzip":
        return zlib.compressobj(level, zlib.DEFLATED, _GZIP_WINDOW)
    return _zstd(level) if compression == "zstd" else _Plain()


def _zstd(level: int) -> Compressor:
    module = _zstd_module()
    compressor = module.ZstdCompressor(level=level)
    stream: Compressor = compressor.compressobj() if module.__name__ == "zstandard" else compressor
    return stream


def _zstd_module() -> Any:
    """The standard library's module (from Python 3.14 on), or `zstandard`. Raises `CompressionUnavailable`."""
    for name in ("compression.zstd", "zstandard"):
        try:
            return import_module(name)
        except ModuleNotFoundError:
            pass
    raise CompressionUnavailable("zstd needs the package zstandard: pip install 'regproto[zstd]'")


class Unpacker:
    """The plain bytes of content that comes in pieces: of all its members, if there are several.

    Args:
        compression: `none`, `gzip` or `zstd`.

    Raises:
        CompressionUnavailable: zstd is not installed.
    """

    def __init__(self, compression: str) -> None:
        self._compression = compression
        self._begun = False
        """Inside a member."""
        self._ended = compression == "none"
        """At least one member has ended, and none has begun since."""
        self._module = _zstd_module() if compression == "zstd" else None
        self._member: Any = None

    def feed(self, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """The plain bytes of `data`. Raises `ContentError` if it is damaged."""
        if self._compression == "none":
            yield data
            return
        step = _ZSTD_FED_BYTES if self._module is not None else BLOCK_BYTES
        for at in range(0, len(data), step):
            rest = bytes(data[at : at + step])
            while rest:
                if not self._begun and self._compression == "gzip" and self._ended:
                    rest = rest.lstrip(_GZIP_PADDING)
                    if not rest:
                        break
                try:
                    rest = yield from self._unpack(rest)
                except Exception as error:  # zlib.error, and those of two zstd modules
                    raise ContentError(f"is damaged: not {self._compression}, or not all of it is") from error

    def _unpack(self, data: bytes) -> Generator[bytes, None, bytes]:
        """Unpacks of one member; returns what is left after its end."""
        if not self._begun:
            self._member = self._new()
            self._begun, self._ended = True, False
        member = self._member
        if self._compression == "gzip":
            while True:
                if plain := member.decompress(data, BLOCK_BYTES):
                    yield plain
                data = member.unconsumed_tail
                if member.eof or not (data or len(plain) == BLOCK_BYTES):
                    break
        elif plain := member.decompress(data):
            yield plain
        if not member.eof:
            return b""
        self._begun, self._ended = False, True
        left: bytes = member.unused_data
        return left

    def _new(self) -> Any:
        if self._module is None:
            return zlib.decompressobj(_GZIP_WINDOW)
        decompressor = self._module.ZstdDecompressor()
        return decompressor.decompressobj() if self._module.__name__ == "zstandard" else decompressor

    def end(self) -> None:
        """Raises `ContentError` unless all that came is whole."""
        if not self._ended:
            raise ContentError(f"is cut short: the {self._compression} in it has no end")


def compression_of(start: bytes | memoryview) -> str:
    """The compression of content that starts so, bzip2 and xz too; "none" if it is none we know."""
    return next((name for magic, name in _MAGIC.items() if bytes(start[: len(magic)]) == magic), "none")
