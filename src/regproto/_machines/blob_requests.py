"""Bodies, headers and verdicts that requests about a blob have in common, whichever machine makes them.

Source: distribution-spec "Pulling blobs", "Pushing blobs".
"""

from __future__ import annotations

from typing import Final

from regproto._http.evidence import holds_blob, shows_blob
from regproto._http.registry_errors import error_codes, refusal
from regproto._machines.base import (
    Details,
    Machine,
    Outcome,
    Verdict,
    members,
)
from regproto._machines.verdicts import refused, wrong_digest
from regproto._model.config import TRANSIENT
from regproto._model.digest import Digest
from regproto._model.messages import BlobSlice, Body, Headers, Response
from regproto._model.plan import Blob

_O: Final = members(Outcome)

CONTENT_CODES: Final = frozenset({"DIGEST_INVALID", "SIZE_INVALID"})
SHORT_CUT_FAULTS_MAX: Final = 1
"""A mount, and a question before one, is a short cut: tried again once, then the blob goes the plain way."""
OCTETS: Final[Headers] = (("Content-Type", "application/octet-stream"),)
START_HEADERS: Final[Headers] = (("Content-Type", "application/json"),)
FIRST_BYTE: Final[Headers] = (("Range", "bytes=0-0"),)
"""A request for the least that proves a blob: the answer says its size."""


def blob_body(blob: Blob, offset: int, size: int) -> Body:
    """`size` bytes of a blob from `offset` on, as a driver gets them."""
    data = blob.descriptor.data
    if data is not None:
        return data[offset : offset + size]
    if size == 0:
        return b""
    return BlobSlice(source=blob.source, digest=blob.descriptor.digest, offset=offset, size=size)


def look_verdict(machine: Machine, response: Response, url: str, digest: Digest, size: int) -> Verdict:
    """The verdict for an answer to a HEAD of a blob. INCONCLUSIVE: it does not say, but a GET may."""
    status = response.status
    if status == 200:
        wrong = wrong_digest(machine, "HEAD", url, response, digest)
        return wrong or ((_O.PRESENT if shows_blob(response, digest, size) else _O.INCONCLUSIVE), None)
    if status == 401 or status in TRANSIENT:
        return refused(machine.describe(), "HEAD", url, response)
    # 404 says so; some registries answer 403 for what is missing, and whatever else is no reason not to push.
    return (_O.INCONCLUSIVE if status == 405 else _O.ABSENT), None


def proof_verdict(machine: Machine, response: Response, url: str, digest: Digest, size: int) -> Verdict:
    """The verdict for an answer to a GET of a blob's first byte."""
    status = response.status
    if status == 401 or status in TRANSIENT:
        return refused(machine.describe(), "GET", url, response)
    wrong = wrong_digest(machine, "GET", url, response, digest) if status in (200, 206) else None
    return wrong or ((_O.PRESENT if holds_blob(response, digest, size) else _O.ABSENT), None)


def content_refused(what: str, method: str, url: str, response: Response) -> Verdict | None:
    """The verdict for an answer that says the content is not what its digest says; None for any other."""
    if response.status in (400, 422) and error_codes(response) & CONTENT_CODES:
        return _O.REJECTED, Details(error=refusal(what, method, url, response))
    return None
