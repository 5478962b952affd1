"""Other people's eyes: plain HTTP GETs, crane and skopeo, each saying what a registry holds."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Final

from registries import PASSWORD, USER, tool

TIMEOUT_S: Final = 120
_MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

Content = dict[str, bytes]
"""Digest to bytes: every manifest, config and layer of an image."""


# Warnings are errors, so that an unclosed file or socket shows up on standard error.
_REGPROTO: Final = (sys.executable, "-X", "dev", "-W", "error", "-m", "regproto_sync")


def regproto(*args: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [*_REGPROTO, *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S)


def started(*args: object) -> subprocess.Popen[str]:
    """Start the command."""
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen([*_REGPROTO, *map(str, args)], stdin=nothing, stdout=pipe, stderr=pipe, text=True)


def in_layout(layout: Path) -> Content:
    """Every blob of an OCI layout."""
    return {f"{path.parent.name}:{path.name}": path.read_bytes() for path in layout.glob("blobs/*/*")}


def by_http(address: str, repository: str, reference: str, *, password: bool = False) -> Content:
    """Everything a reference leads to, by GET alone, each checked against its digest."""

    def get(path: str) -> bytes:
        request = urllib.request.Request(f"http://{address}/v2/{repository}/{path}")
        request.add_header("Accept", ", ".join(_MANIFEST_TYPES))
        if password:
            basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            request.add_header("Authorization", f"Basic {basic}")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read()
        return content

    content: Content = {}

    def walk(name: str) -> None:
        manifest = get(f"manifests/{name}")
        content[f"sha256:{hashlib.sha256(manifest).hexdigest()}"] = manifest
        fields: dict[str, Any] = json.loads(manifest)
        for child in fields.get("manifests", []):
            walk(child["digest"])
        for blob in [*filter(None, [fields.get("config")]), *fields.get("layers", [])]:
            content[blob["digest"]] = get(f"blobs/{blob['digest']}")

    walk(reference)
    assert all(digest == f"sha256:{hashlib.sha256(body).hexdigest()}" for digest, body in content.items())
    return content


def _run(*command: str | Path) -> bytes:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def by_crane(image: str, folder: Path, *, validate: bool = True) -> Content:
    """What `crane pull` makes of an image or index, after `crane validate` found it sound.

    `crane validate` takes every layer for gzipped, so it is not asked about images with plain ones.
    """
    crane = tool("crane")
    if validate:
        _run(crane, "validate", "--remote", image)
    _run(crane, "pull", "--format=oci", image, folder)
    return in_layout(folder)


def manifest_by_crane(image: str) -> bytes:
    """The manifest's bytes as `crane manifest` prints them."""
    return _run(tool("crane"), "manifest", image)


def by_skopeo(image: str, folder: Path, root: str) -> Content:
    """What `skopeo copy --all` makes of an image or index; `root` is the digest that `image` should have."""
    source, target = f"docker://{image}", f"dir:{folder}"
    _run(tool("skopeo"), "copy", "--all", "--quiet", "--src-tls-verify=false", source, target)
    (folder / "version").unlink()
    content = {}
    for path in folder.iterdir():
        name = root if path.name == "manifest.json" else f"sha256:{path.name.removesuffix('.manifest.json')}"
        content[name] = path.read_bytes()
    return content
