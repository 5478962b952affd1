"""Compression of layers on their way: gzip and zstd, the same bytes for the same input.

Python's zlib writes no name and no time into a gzip header. What zlib and zstd make of some input may depend on where
it was cut, so it is always cut into blocks of the same size, however it came.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import Any, Final, Protocol

from regproto._errors import ContentError, LocalProtocolError

BLOCK_BYTES: Final = 256 * 1024
"""Read and compressed at a time."""
LEVELS: Final = {"none": (0, 0, 0), "gzip": (0, 6, 9), "zstd": (1, 3, 22)}
"""The lowest level, the default and the highest, by compression. The defaults are the tools' own."""
_GZIP_WINDOW: Final = 31
"""zlib's notation for the largest window (15) in gzip's format (+ 16)."""
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class CompressionUnavailable(ContentError):
    """What a compression needs is not installed."""


class Compressor(Protocol):
    """What zlib's and zstd's compressors have in common."""

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
    try:
        made: Compressor = import_module("compression.zstd").ZstdCompressor(level=level)  # from Python 3.14 on
    except ModuleNotFoundError:
        try:
            module = import_module("zstandard")
        except ModuleNotFoundError:
            raise CompressionUnavailable("zstd needs the package zstandard: pip install 'regproto[zstd]'") from None
        made = module.ZstdCompressor(level=level).compressobj()
    return made


def compression_of(start: bytes | memoryview) -> str:
    """The compression that content which starts so has already; "none" if it is none we know."""
    return next((name for magic, name in _MAGIC.items() if bytes(start[: len(magic)]) == magic), "none")
