"""Reading from what others give: files, pipes, sockets, and objects of an embedder's own.

Only no bytes at all are the end. `read` may also give fewer bytes than asked for; and, on what does not block, nothing
yet: None, or BlockingIOError. Then it is waited for. Text, or more than was asked for, is an error.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, Protocol, TypeVar

EMPTY_MAX: Final = 1_000
"""How often in a row something may be ready to be read and then give nothing, as a pipe does that several read from.
After so many it is no accident, and a loop without an end."""

T = TypeVar("T")


class Source(Protocol):
    """The origin of a stream: a file, or anything with these two. It may have `readinto` as well."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes; none: it has ended; None: there is nothing yet."""
        ...

    def close(self) -> None: ...


def read_some(source: Source | BinaryIO, size: int) -> bytes:
    """At least one byte and at most `size`; none: the source has ended. May block.

    Raises:
        OSError: it can't be read, or gives what is no bytes, or too many.
    """
    data = _when_ready(source, lambda: source.read(size))
    if not isinstance(data, bytes | bytearray | memoryview):
        raise OSError(errno.EINVAL, f"gives {type(data).__name__}, not bytes: open it in binary mode")
    if len(data) > size:
        raise OSError(errno.EINVAL, f"gives {len(data)} bytes where {size} were asked for")
    return bytes(data)


def read_into(source: Source | BinaryIO, room: memoryview) -> int:
    """Read into the beginning of `room`; the number of bytes, 0 at the end. May block. Raises as `read_some` does."""
    readinto: Callable[[memoryview], Any] | None = getattr(source, "readinto", None)
    if readinto is None:
        data = read_some(source, len(room))
        room[: len(data)] = data
        return len(data)
    count = _when_ready(source, lambda: readinto(room))
    if not isinstance(count, int) or not 0 <= count <= len(room):
        raise OSError(errno.EINVAL, f"says that {count!r} of {len(room)} bytes were read")
    return count


def read_at_most(source: Source | BinaryIO, size: int) -> bytes:
    """All there is up to `size` bytes. May block. Raises as `read_some` does."""
    pieces = bytearray()
    while len(pieces) < size and (data := read_some(source, size - len(pieces))):
        pieces += data
    return bytes(pieces)


def pieces(source: Source | BinaryIO, size: int) -> Iterator[bytes]:
    """All there is, at most `size` bytes at a time. May block. Raises as `read_some` does."""
    while data := read_some(source, size):
        yield data


def is_measured(source: object) -> bool:
    """True if the source's end is known beforehand, as a file's is; of a pipe anything may be the end."""
    try:
        return bool(source.seekable())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


def _when_ready(source: object, call: Callable[[], T | None]) -> T:
    for _ in range(EMPTY_MAX):
        try:
            found = call()
        except InterruptedError:
            continue
        except BlockingIOError:
            found = None
        if found is not None:
            return found
        _wait(source)
    raise OSError(errno.EAGAIN, "says again and again that there is something to read, and gives nothing")


def _wait(source: object) -> None:
    """Returns when there is something to read, or an end or error to be met by reading."""
    try:
        descriptor: int = source.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        raise OSError(errno.EAGAIN, "has nothing to read yet, and can't be waited for: give one that blocks") from None
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.poll()
