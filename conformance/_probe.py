"""What a real registry supports, found out by plain requests before anything is played against it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs

from conformance._content import CONFIG, INDEX, MANIFEST
from regproto import Digest, Headers

TIMEOUT_S: Final = 30.0
BODY_MAX: Final = 8 * 1024 * 1024
_CONTENT: Final = b"probe"
_OCTETS: Final = {"Content-Type": "application/octet-stream"}


@attrs.frozen
class Answered:
    """An answer to a plain request."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """The first header of this name; empty if there is none."""
        return next((value for key, value in self.headers if key.lower() == name), "")


def ask(method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answered:
    """One plain request, without redirects or credentials. Raises `OSError`."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=TIMEOUT_S)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        return Answered(response.status, tuple(response.getheaders()), response.read(BODY_MAX))
    except http.client.HTTPException as error:
        raise OSError(f"{method} {url}: {error!r}") from error
    finally:
        connection.close()


@attrs.frozen
class Probe:
    """Asks one registry.

    Args:
        registry: its URL.
        prefix: of the repositories that are used up for it, each different from every earlier run's.
    """

    registry: str
    prefix: str

    def features(self) -> frozenset[str]:
        """Which of `PROBES` it supports. Raises `OSError` if it can't be reached."""
        return frozenset(name for name, supports in PROBES.items() if supports(self))

    def uploads(self, name: str) -> str:
        """The URL sessions are opened at."""
        return f"{self.registry}/v2/{self.prefix}{name}/blobs/uploads/"

    def _session(self, name: str, query: str = "") -> str:
        """A session's URL; empty if none was opened."""
        opened = ask("POST", self.uploads(name) + query, b"")
        return self._resolved(opened.header("location")) if opened.status == 202 else ""

    def _resolved(self, location: str) -> str:
        return location if "://" in location else self.registry + location

    def _commit(self, location: str, body: bytes, digest: Digest) -> bool:
        joined = "&" if "?" in location else "?"
        return ask("PUT", f"{location}{joined}digest={digest}", body, _OCTETS).status == 201

    def _put_blob(self, name: str, body: bytes, algorithm: str = "sha256") -> bool:
        query = "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"
        location = self._session(name, query)
        return bool(location) and self._commit(location, body, Digest.of(body, algorithm))

    def single_post(self) -> bool:
        """A POST with the body and its digest."""
        return ask("POST", f"{self.uploads('single')}?digest={Digest.of(_CONTENT)}", _CONTENT, _OCTETS).status == 201

    def mount(self) -> bool:
        """A mount from a repository that has the blob."""
        query = f"?mount={Digest.of(_CONTENT)}&from={self.prefix}source"
        return self._put_blob("source", _CONTENT) and ask("POST", self.uploads("mount") + query, b"").status == 201

    def patch(self) -> bool:
        """A body in two pieces."""
        location = self._session("patch")
        for first, last in ((0, 1), (2, 4)):
            headers = {**_OCTETS, "Content-Range": f"{first}-{last}"}
            answered = ask("PATCH", location, _CONTENT[first : last + 1], headers) if location else None
            if answered is None or answered.status not in (200, 201, 202, 204):
                return False
            location = self._resolved(answered.header("location"))
        return self._commit(location, b"", Digest.of(_CONTENT))

    def sha512(self) -> bool:
        """A blob whose digest is a sha512 one."""
        return self._put_blob("sha512", _CONTENT, "sha512")

    def _put_image(self, name: str, *layers: dict[str, object]) -> bytes | None:
        """The manifest of an image put under the tag `latest`; None if it was refused."""
        config = {"mediaType": CONFIG, "digest": Digest.of(b"{}"), "size": 2}
        image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        manifest = json.dumps(image).encode()
        taken = self._put_blob(name, b"{}")
        taken = taken and ask("PUT", self._latest(name), manifest, {"Content-Type": MANIFEST}).status in (200, 201, 202)
        return manifest if taken else None

    def _latest(self, name: str) -> str:
        return f"{self.registry}/v2/{self.prefix}{name}/manifests/latest"

    def digest_header(self) -> bool:
        """Docker-Content-Digest in the answer to a HEAD of a tag."""
        manifest = self._put_image("digest")
        head = ask("HEAD", self._latest("digest"), headers={"Accept": MANIFEST})
        return manifest is not None and head.header("docker-content-digest") == Digest.of(manifest)

    def foreign_layers(self) -> bool:
        """A manifest with a layer that is served elsewhere (distribution takes one from allowed hosts only)."""
        foreign: dict[str, object] = {
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": Digest.of(b"served elsewhere"),
            "size": 16,
            "urls": ["https://layers.example/1"],
        }
        return self._put_image("foreign", foreign) is not None

    def referrers_api(self) -> bool:
        """The list of what refers to a digest."""
        answered = ask("GET", f"{self.registry}/v2/{self.prefix}digest/referrers/{Digest.of(_CONTENT)}")
        return answered.status == 200 and answered.header("content-type").startswith(INDEX)


PROBES: Final = {
    "digest-header": Probe.digest_header,
    "foreign-layers": Probe.foreign_layers,
    "mount": Probe.mount,
    "patch": Probe.patch,
    "referrers-api": Probe.referrers_api,
    "sha512": Probe.sha512,
    "single-post": Probe.single_post,
}
"""What a scenario for any registry may ask for in `any_registry`."""
