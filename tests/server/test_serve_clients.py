"""The field's own clients push to the served fake registry and pull back what they pushed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import images
from regproto.testing import Auth, FakeRegistry, LocationStyle, RegistryOptions
from regproto_sync.server.disk import DiskStorage
from regproto_sync.server.server import Server


def tool(name: str) -> str:
    """The path of a client; the test is skipped, by name, where there is none."""
    folders = (os.environ.get("PATH"), os.environ.get("REGPROTO_TOOLS"), str(Path.home() / "go" / "bin"))
    found = shutil.which(name, path=os.pathsep.join(filter(None, folders)))
    if found is None:
        pytest.skip(f"{name} is not installed (looked in PATH, $REGPROTO_TOOLS and ~/go/bin)")
    return found


def run(name: str, *arguments: str | Path, home: Path) -> None:
    command = [tool(name), *map(str, arguments)]
    environment = {**os.environ, "HOME": str(home), "DOCKER_CONFIG": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def push_and_pull(client: str, layout: Path, target: str, back: Path, home: Path) -> None:
    """One round trip of a layout, by each client's own commands."""
    match client:
        case "crane":
            run("crane", "push", layout, target, "--insecure", "--index", home=home)
            run("crane", "pull", "--format=oci", target, back, "--insecure", home=home)
        case "oras":
            run("oras", "cp", "--from-oci-layout", f"{layout}:v1", "--to-plain-http", target, home=home)
            run("oras", "cp", "--from-plain-http", target, "--to-oci-layout", f"{back}:v1", home=home)
        case "skopeo":
            copy = ("copy", "--all", "--insecure-policy", "--preserve-digests")
            run("skopeo", *copy, "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{target}", home=home)
            run("skopeo", *copy, "--src-tls-verify=false", f"docker://{target}", f"oci:{back}:v1", home=home)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "absolute": {"location_style": LocationStyle.ABSOLUTE, "single_post": 405, "mount": False},
    "relative": {"location_style": LocationStyle.RELATIVE, "early_refusals": True},
    "tokens": {"auth": Auth.BEARER, "early_refusals": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("client", ["crane", "oras", "skopeo"])
def test_real_clients_push_and_pull(client: str, variant: str, tmp_path: Path) -> None:
    tool(client)
    layout = images.platforms_layout(tmp_path / "layout", own=(40_000, 2_000), shared=(300_000,))
    images.edit_index(
        layout,
        manifests=[
            {**entry, "annotations": {images.REF_NAME: "v1"}}
            for entry in json.loads((layout / "index.json").read_text())["manifests"]
        ],
    )
    (tmp_path / "home").mkdir()
    storage = DiskStorage(tmp_path / "store")
    with Server(FakeRegistry(RegistryOptions(log_max=200, **VARIANTS[variant]), storage)) as server:
        push_and_pull(client, layout, f"127.0.0.1:{server.port}/team/app:v1", tmp_path / "back", tmp_path / "home")
        refused = [entry for entry in server.registry.log if entry[2] >= 400 and entry[2] not in (401, 404, 405)]
        assert refused == []
        assert server.registry.tags("team/app").keys() == {"v1"}
        assert server.registry.sessions("team/app") == ()
    storage.close()
    for path in (layout / "blobs" / "sha256").iterdir():
        assert (tmp_path / "back" / "blobs" / "sha256" / path.name).read_bytes() == path.read_bytes()
