"""The `regproto` command, as its user meets it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import attrs
import pytest

import regproto
from archives import layout_tar
from images import blob_path, image_layout, layers_of, nested_layout, platforms_layout, root_digest
from regproto.testing import (
    Auth,
    Exchange,
    FakeRegistry,
    Fault,
    FaultKind,
    LocationStyle,
    RegistryOptions,
    RequestHead,
)
from regproto_sync import Server
from regproto_sync.cli.main import main
from regproto_sync.cli.output import say

COMMAND = [sys.executable, "-m", "regproto_sync"]


@attrs.frozen
class Registry:
    """A fake registry that is being served."""

    fake: FakeRegistry
    server: Server

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.port}"


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Registry]:
    fake = FakeRegistry(RegistryOptions(log_max=1_000, **options))
    with Server(fake) as server:
        yield Registry(fake, server)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as registry:
        yield registry


@attrs.frozen
class Run:
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process."""

    def run(*arguments: str | Path) -> Run:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        captured = capfd.readouterr()
        return Run(code, captured.out, captured.err)

    return run


# --- what it does -----------------------------------------------------------------------------------------------


def test_push_of_an_archive_on_standard_input(
    tmp_path: Path, registry: Registry, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = layout_tar(image_layout(tmp_path / "layout"), tmp_path / "image.tar")
    for quiet in ([], ["--quiet"]):
        with archive.open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            done = run("push", "-", f"{registry.host}/team/app:1.0", *quiet)
        assert (done.code, "standard input is kept in a temporary file" in done.err) == (0, not quiet)
    assert registry.fake.tags("team/app") == {"1.0": root_digest(tmp_path / "layout")}


def test_standard_input_can_not_be_two_things(registry: Registry, run: Any) -> None:
    done = run("push", "-", f"{registry.host}/team/app:1.0", "--username", "me", "--password-stdin")
    assert (done.code, "can't be both the password and the archive" in done.err) == (2, True)


@pytest.mark.parametrize("driver", ["sync", "trio"])
@pytest.mark.parametrize("make", [image_layout, platforms_layout, nested_layout])
def test_push_and_push_again(tmp_path: Path, registry: Registry, run: Any, driver: str, make: Any) -> None:
    path = make(tmp_path / "layout")
    digest = root_digest(path)
    first = run("push", "--driver", driver, path, f"{registry.host}/team/app:1.0")
    assert (first.code, first.out) == (0, f"{registry.host}/team/app@{digest}\n")
    fake = registry.fake
    assert fake.tags("team/app") == {"1.0": digest}
    stored = fake.blobs("team/app") | fake.manifests("team/app")
    files = [file for file in (path / "blobs/sha256").iterdir() if file.is_file()]
    assert {f"sha256:{file.name}": file.read_bytes() for file in files} == {d: fake.content(d) for d in stored}
    before = fake.requests
    again = run("push", "--driver", driver, path, f"{registry.host}/team/app:1.0")
    assert (again.code, again.out, fake.requests - before) == (0, first.out, 1)
    assert again.err.startswith("1.0 existing ")


def test_lines(tmp_path: Path, registry: Registry, run: Any) -> None:
    path = image_layout(tmp_path / "image", [2_000, 300_000, 1_500_000])
    done = run("push", path, f"{registry.host}/app")
    lines = done.err.splitlines()
    sizes = {line.partition(" ")[2] for line in lines}
    assert {"uploaded 2.0 kB", "uploaded 300.0 kB", "uploaded 1.5 MB"} < sizes
    assert len(lines) == 5
    assert lines[-1].startswith("latest uploaded ")
    mounted = run("push", path, f"{registry.host}/copy", "--mount-from", "app")
    layer = layers_of(path, root_digest(path))[2]
    assert f"{layer[:19]} mounted 1.5 MB from app" in mounted.err.splitlines()


def test_tags_and_digest(tmp_path: Path, registry: Registry, run: Any) -> None:
    path = image_layout(tmp_path / "image")
    digest = root_digest(path)
    assert run("push", path, f"{registry.host}/app:1", "-t", "2", "--tag", "3").code == 0
    assert registry.fake.tags("app") == {"1": digest, "2": digest, "3": digest}
    assert run("push", path, f"{registry.host}/other@{digest}").code == 0
    assert (registry.fake.tags("other"), registry.fake.manifests("other")) == ({}, {digest})


def test_named_entry(tmp_path: Path, registry: Registry, run: Any) -> None:
    path = image_layout(tmp_path / "image", name="app:1.0")
    assert run("push", f"{path}:app:1.0", f"{registry.host}/app").code == 0
    wrong = run("push", f"{path}:app:2.0", f"{registry.host}/app")
    assert wrong.code == 1
    assert "no entry is named 'app:2.0'; there are: app:1.0" in wrong.err


def test_quiet(tmp_path: Path, registry: Registry, run: Any) -> None:
    path = image_layout(tmp_path / "image")
    done = run("push", "--quiet", path, f"{registry.host}/app")
    assert (done.code, done.out, done.err) == (0, f"{registry.host}/app@{root_digest(path)}\n", "")
    events = run("push", "--quiet", "--json", path, f"{registry.host}/app").events
    assert [event["event"] for event in events] == ["result"]


def test_json(tmp_path: Path, run: Any) -> None:
    path = image_layout(tmp_path / "image")
    digest = root_digest(path)
    with serving(warnings=("this registry moves",)) as registry:
        done = run("push", "--json", path, f"{registry.host}/app:1")
    *notices, result = done.events
    assert done.err == ""
    assert {event["event"] for event in notices} == {"notice"}
    assert {"uploaded", "warning"} <= {event["status"] for event in notices}
    layer = layers_of(path, digest)[0]
    ended = [event for event in notices if event["subject"] == layer][-1]
    assert (ended["status"], ended["size_bytes"], ended["sent_bytes"]) == ("uploaded", 2_000, 2_000)
    assert result["event"] == "result"
    assert (result["outcome"], result["digest"], result["tags"]) == ("pushed", digest, ["1"])
    assert result["reference"] == f"{registry.host}/app@{digest}"
    assert result["warnings"] == ["this registry moves"]
    assert layer in result["uploaded"]


def test_warnings_and_retries_are_told(tmp_path: Path, run: Any) -> None:
    fault = Fault(kind=FaultKind.STATUS, method="PUT", path="/manifests/", status=503, headers=(("Retry-After", "0"),))
    with serving(warnings=("this registry moves",), faults=[fault]) as registry:
        done = run("push", image_layout(tmp_path / "image"), f"{registry.host}/app")
    assert done.code == 0
    assert f"{registry.host} warns: this registry moves" in done.err
    assert " again in " in done.err


def test_jobs(tmp_path: Path, registry: Registry, run: Any) -> None:
    path = image_layout(tmp_path / "image", [2_000] * 6)
    assert run("push", "--jobs", "1", path, f"{registry.host}/app").code == 0
    assert registry.server.accepted == 1


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_timeout(tmp_path: Path, run: Any, driver: str) -> None:
    silence = Fault(kind=FaultKind.SILENCE, method="PUT", path="/uploads/")
    with serving(faults=[silence], single_post=202) as registry:
        path = image_layout(tmp_path / "image")
        done = run("push", "--timeout", "0.5", "--driver", driver, path, f"{registry.host}/app")
        assert done.code == 1
        assert f"the push to {registry.host}/app was not over within 0.5 s" in done.err
        assert not registry.fake.sessions("app")
        assert run("push", "--timeout", "60", "--driver", driver, path, f"{registry.host}/app").code == 0


def test_password(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image_layout(tmp_path / "image")
    with serving(auth=Auth.BASIC, users={"user": "pass word"}) as registry:
        arguments = ["push", path, f"{registry.host}/app", "--username", "user", "--password-stdin"]
        monkeypatch.setattr("sys.stdin", io.StringIO("pass word\r\n"))
        assert run(*arguments).code == 0
        monkeypatch.setattr("sys.stdin", io.StringIO("wrong-one"))
        refused = run(*arguments, "-t", "2")
        assert refused.code == 1
        assert "wrong-one" not in refused.err
        anonymous = run("push", path, f"{registry.host}/app:3")
        assert anonymous.code == 1
        assert "--username and --password-stdin" in anonymous.err


def test_docker_configuration(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image_layout(tmp_path / "image")
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(config.parent))
    with serving(auth=Auth.BEARER, users={"user": "pass"}, anonymous_tokens=False) as registry:
        config.write_text(json.dumps({"auths": {registry.host: {"auth": "dXNlcjpwYXNz"}}}))
        assert run("push", path, f"{registry.host}/app").code == 0
        config.write_text('{"auths"')
        broken = run("push", path, f"{registry.host}/app:2")
    assert broken.code == 1
    assert f"{config} is not JSON" in broken.err


def test_version_and_help(run: Any) -> None:
    assert run("--version").out == f"regproto {regproto.__version__}\n"
    assert "exit codes: 0 done" in run("push", "--help").out


# --- what is wrong ----------------------------------------------------------------------------------------------


MISUSE: list[tuple[list[str], str]] = [
    ([], "COMMAND"),
    (["pull"], "invalid choice: 'pull'"),
    (["push"], "SOURCE, REFERENCE"),
    (["push", "LAYOUT"], "REFERENCE"),
    (["push", "LAYOUT", "HOST/app", "--more"], "unrecognized arguments: --more"),
    (["push", "LAYOUT", "HOST/app", "--unknown"], "--unknown"),
    (["push", "LAYOUT", "HOST/app", "--js"], "--js"),
    (["push", "LAYOUT", "HOST/app", "--jobs", "0"], "'0' is not a number of requests"),
    (["push", "LAYOUT", "HOST/app", "--jobs", "many"], "'many' is not a number of requests"),
    (["push", "LAYOUT", "HOST/app", "--timeout", "0"], "'0' is not a number of seconds"),
    (["push", "LAYOUT", "HOST/app", "--timeout", "nan"], "'nan' is not a number of seconds"),
    (["push", "LAYOUT", "HOST/app", "--timeout", "soon"], "'soon' is not a number of seconds"),
    (["push", "LAYOUT", "HOST/app", "--driver", "curl"], "invalid choice: 'curl'"),
    (["push", "LAYOUT", "HOST/app", "--username", "user"], "--username and --password-stdin go together"),
    (["push", "LAYOUT", "HOST/app", "--password-stdin"], "--username and --password-stdin go together"),
    (["push", "LAYOUT", "HOST/app", "--username", "u", "--password-stdin"], "expected a password on standard input"),
    (["push", "LAYOUT", "HOST/App"], "'App' is not a repository name"),
    (["push", "LAYOUT", "HOST/app:"], "is not a tag"),
    (["push", "LAYOUT", "HOST/app@sha256:12"], "is not a digest"),
    (["push", "LAYOUT", "http://HOST/app"], "is a URL"),
    (["push", "LAYOUT", "HOST/app", "-t", "a/b"], "'a/b' is not a tag"),
    (["push", "LAYOUT", "HOST/app", "--mount-from", "app:1"], "has no tag or digest"),
    (["push", "nowhere", "HOST/app"], "nowhere: no such file or directory"),
    (["push", "nowhere:name", "HOST/app"], "nowhere:name: no such file or directory"),
    (["serve", "--port", "65536"], "'65536' is not a port"),
]


@pytest.mark.parametrize(("arguments", "expected"), MISUSE, ids=[" ".join(a) for a, _ in MISUSE])
def test_misuse(
    tmp_path: Path,
    registry: Registry,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.chdir(tmp_path)
    path = image_layout(tmp_path / "image")
    done = run(*[a.replace("LAYOUT", str(path)).replace("HOST", registry.host) for a in arguments])
    assert done.code == 2
    assert expected in done.err
    assert done.out == ""
    assert registry.fake.requests == 0


def test_damaged_layout_sends_nothing(tmp_path: Path, registry: Registry, run: Any) -> None:
    path = image_layout(tmp_path / "image")
    os.truncate(blob_path(path, layers_of(path, root_digest(path))[0]), 5)
    done = run("push", path, f"{registry.host}/app")
    assert (done.code, done.out, registry.fake.requests) == (1, "", 0)
    assert done.err.startswith(f"regproto: {path}: blobs/sha256/")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("driver", ["sync", "trio"])
@pytest.mark.parametrize("single_post", [201, 202, 405])
def test_altered_layer_is_named(tmp_path: Path, run: Any, driver: str, single_post: int) -> None:
    path = image_layout(tmp_path / "image", [2_000, 400_000])
    layer = layers_of(path, root_digest(path))[1]
    with blob_path(path, layer).open("r+b") as file:
        file.write(b"not what it was")
    with serving(single_post=single_post) as registry:
        done = run("push", "--driver", driver, path, f"{registry.host}/app")
        assert registry.fake.manifests("app") == frozenset()
    assert done.code == 1
    assert f"{path}: blobs/sha256/{layer.hex}: the content of {layer} does not match its digest" in done.err


def status(code: int, words: bytes = b"", path: str = "") -> Fault:
    return Fault(kind=FaultKind.STATUS, status=code, body=words, count=1_000, path=path)


def redirect(to: str) -> Fault:
    return Fault(kind=FaultKind.STATUS, status=307, headers=(("Location", to),), count=1_000)


WORDS = b'{"errors":[{"code":"DENIED","message":"not \\u001b[2Jtoday"}]}'

BAD_REGISTRIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "refuses": ({"faults": [status(403, WORDS)]}, "RegistryError", r"DENIED: not \x1b[2Jtoday"),
    "refuses the manifest": (
        {"faults": [status(400, b'{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}', "manifests/1")]},
        "RegistryError",
        "MANIFEST_INVALID: no",
    ),
    "knows no repositories": ({"create_repositories": False}, "RegistryError", "NAME_UNKNOWN"),
    "redirects in a loop": ({"faults": [redirect("/v2/again")]}, "RemoteProtocolError", "redirect"),
    "gives no Location": (
        {"location_style": LocationStyle.MISSING, "single_post": 202},
        "RemoteProtocolError",
        "Location",
    ),
    "sends us to a private address": (
        {"faults": [redirect("http://10.0.0.1/v2/x")]},
        "RemoteProtocolError",
        "10.0.0.1",
    ),
}


@pytest.mark.parametrize("case", BAD_REGISTRIES)
def test_bad_registry(tmp_path: Path, run: Any, case: str) -> None:
    options, kind, expected = BAD_REGISTRIES[case]
    path = image_layout(tmp_path / "image", [300_000])
    with serving(**options) as registry:
        done = run("push", path, f"{registry.host}/app:1")
        assert registry.fake.manifests("app") == frozenset()
        as_json = run("push", "--json", path, f"{registry.host}/app:1")
    assert (done.code, as_json.code) == (1, 1)
    assert expected in done.err
    assert done.out == ""
    message = done.err.splitlines()[-1]
    assert message.startswith("regproto: ")
    assert registry.host in message
    result = as_json.events[-1]
    assert (result["event"], result["outcome"], result["error"]["kind"]) == ("result", "failed", kind)
    assert as_json.err == f"regproto: {result['error']['message']}\n"


def test_errors_of_a_registry_as_json(tmp_path: Path, run: Any) -> None:
    with serving(faults=[status(403, WORDS)]) as registry:
        error = run("push", "--json", image_layout(tmp_path / "image"), f"{registry.host}/app").events[-1]["error"]
    assert error["status"] == 403
    assert error["errors"] == [{"code": "DENIED", "message": r"not \x1b[2Jtoday", "detail": ""}]


# --- as a process -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process of its own, which ends with the block at the latest."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, *map(str, arguments)], **pipes, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_what_is_imported(tmp_path: Path) -> None:
    command = modules_after("import regproto_sync.cli.main")
    heavy = {"h11", "ssl", "socket", "subprocess", "trio", "rich", "regproto.testing", "regproto_trio"}
    assert command & heavy == set()
    assert not any(name.startswith(("regproto_sync.driver.driver", "regproto_sync.server.server")) for name in command)
    push = modules_after("import regproto_sync.cli.main, regproto_sync.client")
    assert push & {"trio", "rich", "regproto.testing", "regproto_trio", "regproto_sync.server.server"} == set()
    assert {"h11", "regproto_sync.driver.driver"} <= push
    planning = modules_after("from regproto_sync import plan_source, docker_keychain")
    assert planning & {"h11", "regproto_sync.driver.driver", "ssl"} == set()


def test_trio_that_is_not_installed(tmp_path: Path) -> None:
    script = "import sys; sys.modules['trio'] = None; from regproto_sync.cli.main import main; sys.exit(main())"
    path = image_layout(tmp_path / "image")
    done = subprocess.run(
        [sys.executable, "-c", script, "push", "--driver", "trio", str(path), "localhost:1/app"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'regproto[trio]'" in done.stderr


class Watched(FakeRegistry):
    """Lets a test wait for the first request with one of these methods; PUT is never answered."""

    def __init__(self, *methods: str, silent: tuple[str, ...] = ("PUT",)) -> None:
        faults = [Fault(kind=FaultKind.SILENCE, method=method, count=100) for method in silent]
        super().__init__(RegistryOptions(single_post=202, faults=faults, log_max=100))
        self.reached = {method: threading.Event() for method in methods}

    def open(self, head: RequestHead, now: float = 0.0, fault: Fault | None = None) -> Exchange:
        exchange = super().open(head, now, fault)
        if head.method in self.reached:
            self.reached[head.method].set()
        return exchange


@pytest.mark.parametrize("driver", ["sync", "trio"])
@pytest.mark.parametrize(
    ("number", "ignored"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_interrupted(tmp_path: Path, driver: str, number: signal.Signals, ignored: bool) -> None:
    """Also as shells start their background jobs: with SIGINT ignored."""
    path = image_layout(tmp_path / "image", [400_000])
    fake = Watched("PUT")
    with Server(fake) as server:
        # One request at a time, so that nothing but the upload is under way.
        arguments = ["push", "--json", "--jobs", "1", "--driver", driver, path, f"127.0.0.1:{server.port}/app"]
        with started(*arguments, preexec_fn=ignore_interrupts if ignored else None) as process:
            assert fake.reached["PUT"].wait(20)
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        assert fake.sessions("app") == ()
        assert fake.log[-1][0] == "DELETE"
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1]) == {"event": "result", "outcome": "cancelled"}
    assert err.decode() == "regproto: interrupted\n"


@pytest.mark.parametrize("driver", ["sync", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_again_while_giving_back(tmp_path: Path, driver: str, number: signal.Signals) -> None:
    path = image_layout(tmp_path / "image", [400_000])
    fake = Watched("PUT", "GET", silent=("PUT", "GET"))
    with Server(fake) as server:
        arguments = ["push", "--quiet", "--jobs", "1", "--driver", driver, path, f"127.0.0.1:{server.port}/app"]
        with started(*arguments) as process:
            for method in ("PUT", "GET"):
                assert fake.reached[method].wait(20)
                process.send_signal(number)
            # Less than the ten seconds that giving back may take.
            out, err = process.communicate(timeout=8)
    assert (process.returncode, out) == (130, b"")
    assert err.decode() == "regproto: interrupted\n"


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def ended(arguments: list[str | Path], shell: str = "") -> subprocess.CompletedProcess[str]:
    """The command run to its end, its streams as a shell redirects them."""
    command = ["sh", "-c", f'"$@" {shell}', "sh", *COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_nobody_reads_the_output(tmp_path: Path, registry: Registry, form: list[str]) -> None:
    path = image_layout(tmp_path / "image")
    with started("push", *form, path, f"{registry.host}/app") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read().decode()
        assert process.wait(20) == 1
    assert registry.fake.tags("app") == {"latest": root_digest(path)}
    assert "Traceback" not in err and "Exception" not in err and "roken pipe" not in err


@pytest.mark.parametrize("driver", ["sync", "trio"])
@pytest.mark.parametrize(("closed", "code"), [("2>&-", 0), (">&-", 1), (">&- 2>&-", 1)])
def test_closed_streams(tmp_path: Path, registry: Registry, closed: str, code: int, driver: str) -> None:
    path = image_layout(tmp_path / "image")
    done = ended(["push", "--driver", driver, path, f"{registry.host}/app"], closed)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert ("standard output is closed" in done.stderr) == (closed == ">&-")
    assert registry.fake.tags("app") == {"latest": root_digest(path)}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("form", [[], ["--json"], ["--driver", "trio"]])
def test_a_result_that_can_not_be_written(tmp_path: Path, registry: Registry, form: list[str]) -> None:
    path = image_layout(tmp_path / "image")
    manifest = blob_path(path, root_digest(path))
    target = f"{registry.host}/app"
    commands: list[list[str | Path]] = [
        ["push", path, target],
        ["push", path, target, f"{target}:second"],
        ["push-layer", manifest, target],
        ["put-manifest", manifest, target],
        ["push-artifact", f"{target}:artifact", manifest],
        ["attach", target, manifest, "--no-look-again"],
        ["referrers", target],
        ["tag", target, "third"],
    ]
    for command in commands:
        done = ended([command[0], *form, *command[1:]], ">/dev/full")
        assert done.returncode == 1, (command, done.stderr)
        assert done.stderr.count("standard output: No space left on device") == 1 and "Traceback" not in done.stderr
    assert registry.fake.tags("app").keys() == {"latest", "second", "third", "artifact"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["push", "--help"], ["serve", "--help"]])
@pytest.mark.parametrize(("shell", "says"), [(">/dev/full", "No space left"), (">&-", "standard output is closed")])
def test_help_that_can_not_be_written(arguments: list[str | Path], shell: str, says: str) -> None:
    done = ended(arguments, shell)
    assert (done.returncode, says in done.stderr, len(done.stderr.splitlines())) == (1, True, 1), done.stderr


def test_a_password_that_is_no_text(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image_layout(tmp_path / "image")
    for name, password, said in (("me", "\udcff\n", "can't be read as text"), ("me:x", "y", "without a colon")):
        monkeypatch.setattr("sys.stdin", io.StringIO(password))
        done = run("push", path, "localhost:1/app", "--username", name, "--password-stdin")
        assert (done.code, said in done.err) == (2, True)


def test_lines_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        say("first")
        say("second")


def test_serve(tmp_path: Path) -> None:
    path = image_layout(tmp_path / "image")
    for attempt in range(2):
        with started("serve", "--port", "0", "--dir", tmp_path / "kept") as serve:
            with started("push", path, f"{served_host(serve.stderr)}/app") as push:
                _, err = push.communicate(timeout=20)
            assert (push.returncode, b"existing" in err) == (0, attempt == 1)
            serve.send_signal([signal.SIGINT, signal.SIGTERM][attempt])
            serve.communicate(timeout=20)
        assert serve.returncode == 0


def served_host(stream: IO[bytes] | None) -> str:
    assert stream is not None
    line = stream.readline().decode()
    assert line.startswith("registry at http://127.0.0.1:"), line
    return line.partition("http://")[2].partition(";")[0]


def test_serve_at_an_address_that_is_taken(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port))
    assert done.code == 1
    assert f"can't serve at 127.0.0.1:{port}: Address already in use" in done.err
