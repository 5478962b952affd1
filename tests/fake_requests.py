"""Short forms of requests to a fake registry, for tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

from regproto._model.digest import Digest
from regproto._model.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from regproto.testing import FakeRegistry, Fault, RegistryOptions, Reply, Request

HOST = "http://registry.example"
REPO = "team/app"
UPLOADS = f"/v2/{REPO}/blobs/uploads/"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ABSENT = Digest.of(b"never there")


class Client:
    """A registry with these switches, and the URL each Location resolves to."""

    def __init__(self, **options: Any) -> None:
        self.registry = FakeRegistry(RegistryOptions(**options))
        self.url = HOST
        """Of the newest request, or the Location it was answered with."""

    def __call__(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        now: float = 0.0,
        fault: Fault | None = None,
    ) -> Reply:
        self.url = urljoin(HOST, target)
        request = Request.to(method, self.url, tuple((headers or {}).items()), body)
        reply = self.registry.handle(request, now, fault)
        self.url = urljoin(self.url, reply.header("location") or "")
        return reply

    def open(self, **headers: str) -> Reply:
        """An upload session; its Location is `url`."""
        return self("POST", UPLOADS, b"", headers)

    def patch(self, body: bytes, first: int | None = None, **more: Any) -> Reply:
        """The next piece, at the newest Location; with Content-Range if `first` is given."""
        headers = {"Content-Range": f"{first}-{first + len(body) - 1}"} if first is not None else {}
        return self("PATCH", self.url, body, headers, **more)

    def commit(self, digest: str, body: bytes = b"", headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        """The end of the session at the newest Location."""
        query = f"{'&' if '?' in self.url else '?'}digest={digest}"
        return self("PUT", self.url + query, body, headers, **more)

    def put(self, reference: str, content: Mapping[str, Any] | bytes, kind: str | None = None, **headers: str) -> Reply:
        """A manifest; its Content-Type is its own media type unless told."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        if kind is None and not isinstance(content, bytes):
            kind = str(content["mediaType"])
        typed = {"Content-Type": kind} if kind else {}
        return self("PUT", f"/v2/{REPO}/manifests/{reference}", body, {**typed, **headers})

    def image(self, content: bytes = b"{}", **more: Any) -> dict[str, Any]:
        """An image manifest whose config is put in place."""
        return image(described(self.registry.put_blob(REPO, content), len(content)), **more)


def described(digest: str, size: int, media_type: str = OCI_CONFIG) -> dict[str, Any]:
    """A descriptor."""
    return {"mediaType": media_type, "digest": digest, "size": size}


def image(config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]] = (), **more: Any) -> dict[str, Any]:
    """An image manifest."""
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": list(layers), **more}


def index(*manifests: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """An index."""
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests), **more}


def as_bytes(content: Mapping[str, Any]) -> bytes:
    """The bytes `Client.put` sends."""
    return json.dumps(content).encode()
