"""Attachments on real registries: raced for, and read and written by other clients too."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from clients import TIMEOUT_S, manifest_by_crane
from races import SBOM, WAYS, entries, race, subject
from registries import Registry, running, tool
from relay import relay

import regproto_sync
import regproto_trio
from regproto import Descriptor, Digest, Guarantee, Session, registry_url
from regproto._model.manifest import OCI_MANIFEST

WITHOUT_API = ("docker-registry", "registry")
ATTACHERS = 20


@pytest.fixture(scope="module", params=WITHOUT_API)
def by_tag(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that has no referrers API."""
    kind: str = request.param
    with running(kind, tmp_path_factory.mktemp(kind)) as started:
        yield started


def oras(*arguments: object) -> str:
    """Run oras and return what it prints."""
    command = [tool("oras"), *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def discovered(image: str) -> dict[str, dict[str, Any]]:
    """What `oras discover` finds attached to an image, by digest."""
    found = json.loads(oras("discover", "--plain-http", "--format", "json", image))
    entries = found.get("referrers", found.get("manifests")) or []
    return {entry["digest"]: entry for entry in entries}


def oras_attaches(image: str, folder: Path, name: str) -> None:
    """Have oras attach a file to an image."""
    (folder / name).write_text(name)
    options = ["--plain-http", "--artifact-type", "application/x.oras", "--annotation", f"by={name}"]
    command = [tool("oras"), "attach", *options, image, f"{name}:text/plain"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", WAYS)
def test_twenty_attachers_at_once(by_tag: Registry, repository: str, tmp_path: Path, how: str) -> None:
    found = race(by_tag, how, ATTACHERS, repository, tmp_path / "race")
    assert (found.listed, found.complete) == (ATTACHERS, ATTACHERS), found
    if how == "command":
        assert found.writes == 1


def by_sync(reference: str) -> regproto_sync.Attached:
    """Attach nothing but an annotation with the blocking driver."""
    return regproto_sync.attach(reference, [], artifact_type=SBOM, annotations={"by": "sync"})


def by_trio(reference: str) -> regproto_sync.Attached:
    """The same with the other."""
    return trio.run(lambda: regproto_trio.attach(reference, [], artifact_type=SBOM, annotations={"by": "trio"}))


@pytest.mark.parametrize("attach", [by_sync, by_trio])
def test_a_registry_whose_round_trips_outlast_the_window(
    attach: Callable[[str], regproto_sync.Attached], repository: str, tmp_path: Path
) -> None:
    with running("registry", tmp_path) as slow, relay(slow.host_and_port, delay_s=0.6) as between:
        digest = subject(slow, repository, tmp_path)
        done = attach(f"{between.address}/{repository}@{digest}")
        at_list = [line.split()[0] for line in between.requests if line.endswith(digest.replace(":", "-"))]
        found = entries(slow.address, repository, digest)
    assert [entry["digest"] for entry in found] == list(done.digests)
    assert at_list == ["GET", "GET", "GET", "PUT", "GET"], "two come too late"
    assert len(between.requests) <= 12
    assert done.result.listed[0].guarantee is Guarantee.VERIFIED and not done.result.listed[0].unsure


def test_others_read_our_list_and_theirs_stays(registry: Registry, repository: str, tmp_path: Path) -> None:
    digest = subject(registry, repository, tmp_path)
    image = f"{registry.address}/{repository}@{digest}"
    oras_attaches(image, tmp_path, "before")
    sbom = tmp_path / "sbom.json"
    sbom.write_text("{}")
    done = regproto_sync.attach(image, [sbom], artifact_type=SBOM, annotations={"by": "us"})
    oras_attaches(image, tmp_path, "after")
    found = discovered(image)
    assert len(found) == 3 and done.digests[0] in found
    types = {entry.get("artifactType") for entry in found.values()}
    if registry.kind != "ggcr-registry":  # which lists the config's media type, whatever the artifact's own is
        assert types == {SBOM, "application/x.oras"}
        assert found[done.digests[0]]["annotations"] == {"by": "us"}
    ours = regproto_sync.referrers(image)
    assert {entry.digest for entry in ours.entries} == found.keys()
    assert {entry["digest"] for entry in entries(registry.address, repository, digest)} == found.keys()
    has_api = registry.kind not in WITHOUT_API
    assert (ours.tag == "") is has_api
    assert done.result.listed[0].guarantee is (Guarantee.API if has_api else Guarantee.VERIFIED)


def test_crane_reads_the_list(by_tag: Registry, repository: str, tmp_path: Path) -> None:
    digest = subject(by_tag, repository, tmp_path)
    image = f"{by_tag.address}/{repository}"
    done = regproto_sync.attach(f"{image}@{digest}", [], artifact_type=SBOM, annotations={"by": "us"})
    index = json.loads(manifest_by_crane(f"{image}:{digest.replace(':', '-')}"))
    (entry,) = index["manifests"]
    assert entry["digest"] == done.digests[0] and entry["artifactType"] == SBOM
    assert entry["annotations"] == {"by": "us"}
    attached = json.loads(manifest_by_crane(f"{image}@{done.digests[0]}"))
    assert attached["subject"]["digest"] == digest


def test_attached_twice_is_listed_once(registry: Registry, repository: str, tmp_path: Path) -> None:
    digest = subject(registry, repository, tmp_path)
    image = f"{registry.address}/{repository}@{digest}"
    first, second = (regproto_sync.attach(image, [], artifact_type=SBOM) for _ in range(2))
    assert first.digests == second.digests
    assert [entry["digest"] for entry in entries(registry.address, repository, digest)] == list(first.digests)


def test_a_sha512_subject_is_listed_by_what_fits_a_tag(by_tag: Registry, repository: str) -> None:
    # These registries have no sha512 manifests; an attachment may come before its subject.
    far = Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(b"far", "sha512"), size=3)
    made = regproto_sync.artifact([], SBOM, subject=far)
    session = Session(registry_url(by_tag.address), now=time.monotonic())
    push_id = session.submit(made.push(repository))
    result = regproto_sync.run_session(session, {push_id}, keychain=regproto_sync.static_keychain("no", "body"))[
        push_id
    ]
    tag = f"sha512-{far.digest.hex[:64]}"
    assert result.error is None and result.listed[0].tag == tag
    index = json.loads(manifest_by_crane(f"{by_tag.address}/{repository}:{tag}"))
    assert [entry["digest"] for entry in index["manifests"]] == [result.digest]
    assert regproto_sync.referrers(f"{by_tag.address}/{repository}@{far.digest}").tag == tag
