"""Attaching and listing, through both drivers and the command, against the embedded registry over real HTTP."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import regproto_sync
import regproto_trio
from images import image_layout, root_digest
from regproto import Blob, Config, ContentError, Descriptor, Digest, Guarantee, InvalidReferenceError, RegistryError
from regproto.testing import FakeRegistry, RegistryOptions
from regproto_sync import Server, SourceNotFound, bytes_blob
from regproto_sync.cli.main import main

REPO = "team/app"
SBOM = "application/spdx+json"
QUICK = Config(referrers_window_s=0.05, referrers_settle_s=0.05)
ONCE = Config(referrers_window_s=30.0, referrers_settle_s=30.0, referrers_look_again=False)
"""One write of the list, however busy the machine is."""


def on_trio(call: Callable[..., Any]) -> Callable[..., Any]:
    """The trio driver's call, as one that waits for it."""

    def run(*arguments: Any, **options: Any) -> Any:
        async def limited() -> Any:
            with trio.fail_after(30):
                return await call(*arguments, **options)

        return trio.run(limited)

    return run


@attrs.frozen
class Driver:
    """The calls of one driver."""

    attach: Callable[..., Any]
    referrers: Callable[..., Any]


@pytest.fixture(params=["sync", "trio"])
def driver(request: pytest.FixtureRequest) -> Driver:
    if request.param == "trio":
        return Driver(on_trio(regproto_trio.attach), on_trio(regproto_trio.referrers))
    return Driver(regproto_sync.attach, regproto_sync.referrers)


@attrs.frozen
class Registry:
    """A served registry with an image in it."""

    fake: FakeRegistry
    host: str
    digest: Digest

    @property
    def tagged(self) -> str:
        return f"{self.host}/{REPO}:1.0"

    @property
    def by_digest(self) -> str:
        return f"{self.host}/{REPO}@{self.digest}"

    def listed(self) -> dict[str, dict[str, Any]]:
        return self.fake.referrers(REPO, self.digest)

    def puts(self, tag: str) -> int:
        return sum(method == "PUT" and target.endswith(tag) for method, target, _ in self.fake.log)


@contextlib.contextmanager
def serving(tmp_path: Path, **options: Any) -> Iterator[Registry]:
    fake = FakeRegistry(RegistryOptions(log_max=1_000, **options))
    layout = image_layout(tmp_path / "layout")
    with Server(fake) as server:
        host = f"127.0.0.1:{server.port}"
        regproto_sync.push(layout, f"{host}/{REPO}:1.0")
        yield Registry(fake, host, Digest(root_digest(layout)))


@pytest.fixture
def sbom(tmp_path: Path) -> Path:
    path = tmp_path / "sbom.json"
    path.write_text("{}")
    return path


# --- the calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", [True, False])
def test_attached_and_listed(driver: Driver, tmp_path: Path, sbom: Path, api: bool) -> None:
    with serving(tmp_path, referrers_api=api) as registry:
        done = driver.attach(
            registry.tagged, [sbom], artifact_type=SBOM, media_type="a/b", annotations={"by": "us"}, config=QUICK
        )
        found = driver.referrers(registry.tagged)
        assert found == driver.referrers(registry.by_digest, artifact_type=SBOM)
        assert driver.referrers(registry.by_digest, artifact_type="x/y").entries == ()
        (entry,) = registry.listed().values()
        manifest = json.loads(registry.fake.content(done.digests[0]))
    assert done.subject.digest == registry.digest and entry["digest"] == done.digests[0]
    assert entry["artifactType"] == SBOM and entry["annotations"] == {"by": "us"}
    assert manifest["subject"]["digest"] == registry.digest and manifest["config"]["size"] == 2
    assert manifest["layers"][0]["mediaType"] == "a/b"
    assert manifest["layers"][0]["annotations"]["org.opencontainers.image.title"].endswith("sbom.json")
    assert [d.digest for d in found.entries] == list(done.digests) and (found.tag == "") is api
    (listed,) = done.result.listed
    assert listed.guarantee is (Guarantee.API if api else Guarantee.VERIFIED)


def test_one_attachment_of_many_files_or_many_of_one(driver: Driver, tmp_path: Path, sbom: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("[]")
    folder = tmp_path / "folder"
    folder.mkdir()
    files = [sbom, f"{other}:c/d", bytes_blob(b"in memory", "e/f"), folder]
    with serving(tmp_path, referrers_api=False) as registry:
        one = driver.attach(registry.by_digest, files, media_type="a/b", config=ONCE)
        layers = json.loads(registry.fake.content(one.digests[0]))["layers"]
        each = driver.attach(registry.by_digest, files, media_type="a/b", each=True, config=ONCE)
        writes = registry.puts(one.result.listed[0].tag)
        assert len(registry.listed()) == 5
    assert [layer["mediaType"] for layer in layers] == ["a/b", "c/d", "e/f", "a/b"]
    assert len(one.digests) == 1 and len(each.digests) == 4 and writes == 2


def test_an_attachment_without_files(driver: Driver, tmp_path: Path) -> None:
    with serving(tmp_path) as registry:
        done = driver.attach(registry.tagged, [], artifact_type=SBOM)
        assert registry.listed().keys() == set(done.digests)


def test_nothing_to_attach_to(driver: Driver, tmp_path: Path, sbom: Path) -> None:
    with serving(tmp_path) as registry:
        with pytest.raises(RegistryError, match="nothing of this name"):
            driver.attach(f"{registry.host}/{REPO}:2.0", [sbom])
        with pytest.raises(RegistryError, match="nothing of this name"):
            driver.referrers(f"{registry.host}/{REPO}:2.0")
        nobody = Digest.of(b"nobody")
        assert driver.referrers(f"{registry.host}/{REPO}@{nobody}").entries == ()


def test_a_list_that_is_refused(driver: Driver, tmp_path: Path, sbom: Path) -> None:
    with serving(tmp_path, referrers_api=False, immutable_tags=403) as registry:
        driver.attach(registry.tagged, [sbom], config=ONCE)
        with pytest.raises(RegistryError, match="immutable"):
            driver.attach(registry.tagged, [sbom], annotations={"another": "one"}, config=ONCE)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"reference": "UPPER/case:1"}, InvalidReferenceError),
        ({"files": ["no such file"]}, SourceNotFound),
        ({"artifact_type": "no type"}, ContentError),
        ({"media_type": "no type"}, ContentError),
        ({"annotations": {"a": "\ud800"}}, ContentError),
        ({"files": [], "each": True}, ContentError),
        (
            {"files": [Blob(descriptor=Descriptor(media_type="a/b", digest=Digest.of(b"x"), size=1), source=b"x")] * 2},
            None,
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    driver: Driver, sbom: Path, arguments: dict[str, Any], error: type[Exception] | None
) -> None:
    call = partial(driver.attach, **{"reference": "127.0.0.1:1/x/y:1", "files": [sbom], **arguments})
    with pytest.raises(error or Exception) as told:
        call(config=Config(attempts=1))
    if error is None:
        assert "could not be reached" in str(told.value)


def test_the_type_that_is_listed_must_be_one(driver: Driver) -> None:
    with pytest.raises(ContentError):
        driver.referrers("127.0.0.1:1/x/y:1", artifact_type="no type")


# --- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "trio"])
def test_attach_and_referrers(capfd: pytest.CaptureFixture[str], tmp_path: Path, sbom: Path, how: str) -> None:
    with serving(tmp_path) as registry:
        options = ["--artifact-type", SBOM, "-a", "by=us", "-a", "line=1\n2", "--driver", how]
        assert main(["attach", registry.tagged, str(sbom), *options]) == 0
        out, said = capfd.readouterr()
        (digest,) = registry.listed()
        assert out == f"{registry.host}/{REPO}@{digest}\n"
        assert f"{registry.digest}: listed by the registry" in said
        assert main(["referrers", registry.tagged, "--driver", how]) == 0
        size = registry.listed()[digest]["size"]
        assert capfd.readouterr().out == f"{digest} {SBOM} {size} by=us line=1\\n2\n"
        assert main(["referrers", registry.by_digest, "--artifact-type", "x/y", "--driver", how]) == 0
        assert capfd.readouterr().out == ""


def test_each_file_by_itself_and_json(capfd: pytest.CaptureFixture[str], tmp_path: Path, sbom: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("[]")
    with serving(tmp_path, referrers_api=False) as registry:
        command = ["attach", registry.tagged, str(sbom), str(other), "--each", "--json", "--quiet", "--no-look-again"]
        assert main(command) == 0
        out, said = capfd.readouterr()
        (event,) = map(json.loads, out.splitlines())
        assert event["event"] == "result" and event["subject"]["digest"] == registry.digest
        assert event["references"] == [f"{registry.host}/{REPO}@{d}" for d in event["listed"][0]["attached"]]
        assert event["listed"][0]["guarantee"] == "written" and len(event["references"]) == 2
        assert "warning" in said and "was not looked at" in said
        assert main(["referrers", registry.tagged, "--json"]) == 0
        (listed,) = map(json.loads, capfd.readouterr().out.splitlines())
        assert listed["tag"].startswith("sha256-") and len(listed["entries"]) == 2
        assert registry.puts(listed["tag"]) == 1


def test_without_fallback_it_says_that_nothing_lists_it(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, sbom: Path
) -> None:
    with serving(tmp_path, referrers_api=False) as registry:
        assert main(["attach", registry.tagged, str(sbom), "--quiet", "--no-fallback"]) == 0
        assert "NOT listed" in capfd.readouterr().err
        assert registry.listed() == {}


def test_a_write_without_a_clear_answer_is_warned_of(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, sbom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def unsure(*arguments: Any, **options: Any) -> Any:
        done = regproto_sync.client.attach(*arguments, **options)
        listed = tuple(attrs.evolve(one, unsure=True) for one in done.result.listed)
        told.append(done)
        return attrs.evolve(done, result=attrs.evolve(done.result, listed=listed))

    monkeypatch.setattr(regproto_sync, "attach", unsure)
    with serving(tmp_path) as registry:
        assert main(["attach", registry.tagged, str(sbom), "--quiet"]) == 0
    assert told and "may yet overwrite" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["attach", "host/x:1", "no such file"], 2),
        (["attach", "UPPER/x:1"], 2),
        (["attach", "host/x:1", "-a", "nothing"], 2),
        (["referrers", "UPPER/x:1"], 2),
        (["attach", "host.invalid/x:1", "--artifact-type", "none"], 1),
        (["referrers", "host.invalid/x:1", "--artifact-type", "none"], 1),
    ],
)
def test_used_wrongly(capfd: pytest.CaptureFixture[str], arguments: list[str], code: int) -> None:
    assert main(arguments) == code
    out, said = capfd.readouterr()
    assert out == "" and said.startswith("regproto: ") and "Traceback" not in said


def test_help_states_what_is_assumed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["attach", "--help"])
    said = " ".join(capfd.readouterr().out.split())
    assert f"no client waits longer than {Config().referrers_window_s:g} seconds" in said
    assert f"no write takes effect later than {Config().referrers_settle_s:g} seconds" in said
