"""What the README shows is run here as it stands there."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import regproto
from regproto.testing import FakeRegistry, Request

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def python_with(text: str) -> str:
    """The README's one Python block that contains `text`."""
    [block] = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if text in b]
    return str(block)


def small_push() -> regproto.PushPlan:
    content = [b"{}", b"hello\n"]
    config, layer = (
        regproto.Descriptor(media_type="application/octet-stream", digest=regproto.Digest.of(c), size=len(c))
        for c in content
    )
    named = [{"mediaType": d.media_type, "digest": d.digest, "size": d.size} for d in (config, layer)]
    fields = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    manifest = regproto.Manifest.of(json.dumps({**fields, "config": named[0], "layers": named[1:]}).encode())
    return regproto.PushPlan(
        repository="team/app",
        blobs=tuple(regproto.Blob(descriptor=d, source=c) for d, c in zip((config, layer), content, strict=True)),
        manifests=(manifest,),
        root=manifest.descriptor.digest,
        tags=("1.0",),
    )


def test_ten_line_driver_pushes() -> None:
    registry = FakeRegistry()
    names: dict[str, Any] = {}
    exec(python_with("def drive"), names)

    def perform(send: regproto.Send) -> regproto.Response:
        body = send.body if isinstance(send.body, bytes) else send.body.source
        assert isinstance(body, bytes)
        reply = registry.handle(Request.to(send.method, send.url, send.headers, body))
        return regproto.Response(id=send.id, status=reply.status, headers=reply.headers, body=reply.content)

    session = regproto.Session("http://registry.example", now=time.monotonic())
    push = small_push()
    session.submit(push)
    result = names["drive"](session, perform)
    assert (result.outcome, result.digest) == (regproto.PushOutcome.PUSHED, push.root)
    assert result.requests == registry.requests
    url = "http://registry.example/v2/team/app/manifests/1.0"
    assert registry.handle(Request.to("GET", url)).content == push.manifests[0].content


def test_commands_and_files_it_names_are_there() -> None:
    for name in re.findall(r"(?:scripts|docs|tests)/[a-z_./-]*[a-z]", README):
        assert (ROOT / name).exists(), name
    for script in re.findall(r"scripts/[a-z-]+", README):
        assert os.access(ROOT / script, os.X_OK), script
