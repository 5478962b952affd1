"""Files from anywhere, damaged in any way: a layout ends in a plan or a `ContentError`, credentials in an answer.

Archives, tars, headers, references, URLs, manifests and what is kept for after a crash have tests of this kind beside
their own.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from images import image_layout
from regproto import ContentError, Credentials, InvalidReferenceError, NeedCredentials, NoCredentials
from regproto_sync.credentials.keychain import docker_keychain
from regproto_sync.sources.source import plan_source

EXAMPLES = int(os.environ.get("REGPROTO_FUZZ_EXAMPLES", "0"))
SETTINGS = settings(
    max_examples=EXAMPLES or 60, deadline=None, derandomize=not EXAMPLES, suppress_health_check=list(HealthCheck)
)
SCALARS = st.sampled_from(
    [None, True, 0, -1, 2**70, 1.5, "", "x", "sha256:" + "0" * 64, "../../etc/passwd", "\x00", "é"]
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
JUNK = st.sampled_from([b"", b"{", b"[" * 3_000, b"\xff\xfe", b"null", b"7", b'"x"', b"{}", b"[]"]) | st.binary(
    max_size=20
)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, part in inner for path in _paths(part, (*at, key)))]


def _changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _changed(value[path[0]], path[1:], new)
    return copy


@given(st.data())
@SETTINGS
def test_a_damaged_layout_is_a_content_error(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layout = image_layout(Path(folder, "layout"), [300], name="1.0")
        files = [path for path in layout.rglob("*") if path.is_file()]
        for path in data.draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True)):
            how = data.draw(st.sampled_from(["edit", "junk", "cut", "gone", "folder", "link"]))
            content = path.read_bytes()
            path.unlink()
            if how == "edit" and content[:1] == b"{":
                value = json.loads(content)
                spot = data.draw(st.sampled_from(_paths(value)))
                path.write_text(json.dumps(_changed(value, spot, data.draw(JSON))))
            elif how == "cut":
                path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
            elif how == "folder":
                path.mkdir()
            elif how == "link":
                path.symlink_to(data.draw(st.sampled_from(["/dev/zero", "/etc/hostname", "nowhere", "."])))
            elif how != "gone":
                path.write_bytes(data.draw(JUNK))
        source = data.draw(st.sampled_from([str(layout), f"{layout}:1.0", f"{layout}:other"]))
        try:
            planned = plan_source(source, "registry.example/team/app:1.0")
        except (ContentError, InvalidReferenceError) as error:
            assert str(error)
        else:
            assert planned.push.root is not None
        shutil.rmtree(layout)


CONFIG = {
    "auths": {
        "registry.example": {"auth": "dXNlcjpwYXNz", "identitytoken": "", "registrytoken": ""},
        "https://registry.example/v1/": {"username": "user", "password": "pass"},
        "registry.example/team": {},
    },
    "credsStore": "",
    "credHelpers": {"other.example": "none-such"},
}


@given(st.data())
@SETTINGS
def test_damaged_credentials_are_an_answer(data: st.DataObject) -> None:
    need = NeedCredentials(id=1, registry="registry.example", repository="team/app")
    if data.draw(st.booleans()):
        spot = data.draw(st.sampled_from(_paths(CONFIG)))
        content = json.dumps(_changed(CONFIG, spot, data.draw(JSON))).encode()
    else:
        content = data.draw(JUNK)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_bytes(content)
        environ = {"DOCKER_CONFIG": folder, "PATH": folder}
        if data.draw(st.booleans()):
            environ["DOCKER_AUTH_CONFIG"] = content.decode("utf-8", "replace").replace("\x00", "")
        answer = docker_keychain(environ, Path(folder))(need)
    assert isinstance(answer, Credentials | NoCredentials) and answer.id == 1
    if isinstance(answer, NoCredentials):
        assert "dXNlcjpwYXNz" not in answer.error
