"""Pushes into real registries, read back byte for byte and pulled by other clients."""

from __future__ import annotations

import base64
import json
import signal
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients import (
    TIMEOUT_S,
    by_crane,
    by_http,
    by_skopeo,
    in_layout,
    manifest_by_crane,
    regproto,
    started,
)
from registries import PASSWORD, USER, Registry, running
from relay import relay

import regproto_sync
from images import image_layout, layers_of, platforms_layout, root_digest
from regproto import Config, TransportError

KB, MB = 1_000, 1_000_000

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "one-layer": lambda path: image_layout(path, [20 * KB]),
    "ten-layers": lambda path: image_layout(path, [5 * KB] * 9 + [400 * KB]),
    "four-platforms": lambda path: platforms_layout(path, own=[2 * KB, 300 * KB], shared=[30 * KB]),
}


def pushed(*arguments: object, stdin: str = "") -> str:
    """Run `regproto push` and return what it prints last: the image by digest. It leaves nothing open."""
    done = regproto("push", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert "ResourceWarning" not in done.stderr
    return done.stdout.splitlines()[-1]


def refused(*arguments: object, stdin: str = "") -> str:
    """Run a `regproto push` that has to fail, and return what it says: a message, not a traceback."""
    done = regproto("push", *arguments, stdin=stdin)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "ResourceWarning" not in done.stderr
    return done.stderr


# --- what is pushed is there -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", LAYOUTS)
def test_pushed_content_is_what_everyone_reads(registry: Registry, repository: str, tmp_path: Path, shape: str) -> None:
    layout = LAYOUTS[shape](tmp_path / "layout")
    image = f"{registry.address}/{repository}:1.0"
    digest = root_digest(layout)
    assert pushed(layout, image) == f"{registry.address}/{repository}@{digest}"

    content = in_layout(layout)
    assert by_http(registry.address, repository, "1.0") == content
    assert manifest_by_crane(image) == content[digest]
    assert by_crane(image, tmp_path / "crane") == content
    assert by_skopeo(image, tmp_path / "skopeo", digest) == content


def test_large_layers(registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [300 * KB, 5 * MB, 20 * MB])
    result = regproto_sync.push(layout, f"{registry.address}/{repository}:1.0")
    assert {*result.uploaded} >= {*layers_of(layout, root_digest(layout))}
    assert by_http(registry.address, repository, "1.0") == in_layout(layout)


def test_more_tags_name_the_same_manifest(registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [KB])
    pushed(layout, f"{registry.address}/{repository}:1.0", "-t", "1", "--tag", "latest")
    for tag in ("1.0", "1", "latest"):
        assert by_http(registry.address, repository, tag) == in_layout(layout)


# --- what is there is not sent again -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", LAYOUTS)
def test_second_push_is_one_request(registry: Registry, repository: str, tmp_path: Path, shape: str) -> None:
    layout = LAYOUTS[shape](tmp_path / "layout")
    with relay(registry.host_and_port) as between:
        image = f"{between.address}/{repository}:1.0"
        pushed(layout, image)
        first = len(between.requests)
        events = regproto("push", "--json", layout, image)
        assert between.requests[first:] == [f"HEAD /v2/{repository}/manifests/1.0"]
    assert events.returncode == 0, events.stderr
    result = json.loads(events.stdout.splitlines()[-1])
    assert (result["digest"], result["requests"]) == (root_digest(layout), 1)


def test_nothing_is_asked_before_the_work(registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [KB])
    with relay(registry.host_and_port) as between:
        pushed(layout, f"{between.address}/{repository}:1.0")
        assert "GET /v2/" not in between.requests
        uploads = [line for line in between.requests if line.startswith("POST ")]
    assert len(uploads) == 2, "one for the config, one for the layer"


def test_blobs_are_mounted_from_another_repository(registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [KB, 2 * MB])
    pushed(layout, f"{registry.address}/{repository}/base:1.0")
    with relay(registry.host_and_port) as between:
        image = f"{between.address}/{repository}/copy:1.0"
        result = regproto_sync.push(layout, image, mount_from=[f"{repository}/base"])
        assert not [line for line in between.requests if line.startswith(("PATCH", "PUT")) and "/blobs/" in line]
    # All repositories of ggcr's registry share their blobs: there is nothing to mount.
    found = result.existing if registry.kind == "ggcr-registry" else result.mounted
    assert {*found} >= {*layers_of(layout, root_digest(layout))}
    assert result.uploaded == (root_digest(layout),)
    assert by_http(registry.address, f"{repository}/copy", "1.0") == in_layout(layout)


def test_mount_source_without_the_blobs_costs_no_push(registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [KB, 2 * MB])
    image = f"{registry.address}/{repository}/copy:1.0"
    pushed(layout, image, "--mount-from", f"{repository}/nothing", "--mount-from", f"{repository}/nowhere")
    assert by_http(registry.address, f"{repository}/copy", "1.0") == in_layout(layout)


def test_layer_of_an_earlier_image_is_found(registry: Registry, repository: str, tmp_path: Path) -> None:
    base = image_layout(tmp_path / "base", [2 * MB])
    more = image_layout(tmp_path / "more", [2 * MB, 1 * MB])
    shared = {*layers_of(base, root_digest(base))}
    assert shared < {*layers_of(more, root_digest(more))}
    regproto_sync.push(base, f"{registry.address}/{repository}:1.0")
    result = regproto_sync.push(more, f"{registry.address}/{repository}:1.1")
    assert shared <= {*result.existing}
    assert not shared & {*result.uploaded}
    assert by_http(registry.address, repository, "1.1") == in_layout(more)


# --- passwords ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["docker-registry", "registry"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for a password."""
    with running(request.param, tmp_path_factory.mktemp("guarded"), password=True) as started:
        yield started


def test_password_from_standard_input(guarded: Registry, repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [KB, 2 * MB])
    image = f"{guarded.address}/{repository}:1.0"
    pushed(layout, image, "--username", USER, "--password-stdin", stdin=PASSWORD + "\n")
    assert by_http(guarded.address, repository, "1.0", password=True) == in_layout(layout)


def test_password_from_docker_config(
    guarded: Registry, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = image_layout(tmp_path / "layout", [KB])
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {guarded.address: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    pushed(layout, f"{guarded.address}/{repository}:1.0")
    assert by_http(guarded.address, repository, "1.0", password=True) == in_layout(layout)


@pytest.mark.parametrize("wrong", [(), ("--username", USER, "--password-stdin")], ids=["none", "wrong"])
def test_without_the_password_nothing_is_put(
    guarded: Registry, repository: str, tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    layout = image_layout(tmp_path / "layout", [KB])
    said = refused(layout, f"{guarded.address}/{repository}:1.0", *wrong, stdin="not it\n")
    assert guarded.address in said
    assert "not it" not in said
    with pytest.raises(urllib.error.HTTPError, match="404"):
        by_http(guarded.address, repository, "1.0", password=True)


# --- a registry that goes away -----------------------------------------------------------------------------

IMPATIENT = Config(attempts=2, backoff_base_s=0.01)


@pytest.mark.parametrize("kind", ["docker-registry", "registry", "ggcr-registry", "fake"])
def test_registry_killed_in_the_middle_of_a_layer(kind: str, repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [20 * MB])
    (tmp_path / "registry").mkdir()
    with running(kind, tmp_path / "registry") as registry:

        def kill(sent: int) -> None:
            if sent > 2 * MB:
                registry.stop()

        with relay(registry.host_and_port, kill) as between, pytest.raises(TransportError) as told:
            regproto_sync.push(layout, f"{between.address}/{repository}:1.0", config=IMPATIENT)
        assert between.address in str(told.value)
        assert not [line for line in between.requests if line.startswith("PUT") and "/manifests/" in line]


def test_registry_gone_between_two_pushes(repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [KB])
    (tmp_path / "registry").mkdir()
    with running("docker-registry", tmp_path / "registry") as registry:
        pushed(layout, f"{registry.address}/{repository}:1.0")
        registry.stop()
        said = refused("--quiet", layout, f"{registry.address}/{repository}:1.0")
    assert registry.address in said
    assert len(said.splitlines()) == 1


def test_interrupted_in_the_middle_of_a_layer(registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", [20 * MB])
    reached = threading.Event()
    with relay(registry.host_and_port, lambda sent: reached.set() if sent > 2 * MB else None) as between:
        with started("push", layout, f"{between.address}/{repository}:1.0") as process:
            assert reached.wait(TIMEOUT_S)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130, said
        assert "Traceback" not in said
        assert not [line for line in between.requests if line.startswith("PUT") and "/manifests/" in line]
