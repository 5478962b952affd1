"""Content that has to be made, or that can be read only once, in a private temporary file.

The file can be read by its owner alone, and goes when nobody holds it any more, or at the end of the process.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from regproto_sync.sources.content import FileContent

COPY_BYTES: Final = 1024 * 1024
"""Read at a time: large enough that calls cost nothing."""

T = TypeVar("T")


class SpooledContent:
    """Content in a temporary file of ours."""

    def __init__(self, path: Path) -> None:
        self.file = FileContent.of(path)
        self._remove = weakref.finalize(self, _remove, path)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.file.size

    def open(self, offset: int = 0) -> BinaryIO:
        """The file, standing at `offset`."""
        return self.file.open(offset)

    def check(self, stream: BinaryIO) -> None:
        """Raises `ContentChanged` if somebody wrote to it."""
        self.file.check(stream)


def spool(write: Callable[[BinaryIO], T]) -> tuple[SpooledContent, T]:
    """The content that `write` puts into a temporary file, and its result. Raises `OSError`, or as `write` does."""
    descriptor, name = tempfile.mkstemp(prefix="regproto-")
    path = Path(name)
    try:
        with open(descriptor, "wb") as file:
            result = write(file)
        return SpooledContent(path), result
    except BaseException:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
