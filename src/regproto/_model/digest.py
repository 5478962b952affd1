"""Digests: content addressed by its hash.

Source: image-spec, "Digests".
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from regproto._model.errors import InvalidReferenceError, printable

_DIGEST = re.compile(r"(?P<algorithm>[a-z0-9]+(?:[+._-][a-z0-9]+)*):(?P<encoded>[a-zA-Z0-9=_-]+)")

_HEX_LENGTH: Final = {"sha256": 64, "sha384": 96, "sha512": 128}

DIGEST_ALGORITHMS: Final = frozenset(_HEX_LENGTH)


class Digest(str):
    """A content digest, `algorithm:hex`, as a string that is known to be well formed.

    `Digest(text)` raises `InvalidReferenceError` for anything but sha256, sha384 or sha512 in lower-case hex of the
    right length, so a digest is always safe as part of a path or URL (image-spec, "Digests").
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if isinstance(text, Digest):
            return text
        match = _DIGEST.fullmatch(text)
        if match is None:
            raise InvalidReferenceError(f"{printable(text, 100)!r} is not a digest: expected algorithm:hex")
        length = _HEX_LENGTH.get(match["algorithm"])
        if length is None:
            raise InvalidReferenceError(
                f"digest algorithm {match['algorithm']!r} is not supported: use sha256 or sha512"
            )
        if len(match["encoded"]) != length or not re.fullmatch("[0-9a-f]+", match["encoded"]):
            raise InvalidReferenceError(
                f"{printable(text, 150)!r} is not a digest: {match['algorithm']} needs {length} lower-case hex digits"
            )
        return super().__new__(cls, text)

    def __getnewargs__(self) -> tuple[str]:
        return (str(self),)

    @property
    def algorithm(self) -> str:
        """`sha256`, `sha384` or `sha512`."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The encoded part, without the algorithm."""
        return self.partition(":")[2]

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")
