"""Every command, with both drivers, before a server that is no registry: never done, and it says why."""

from __future__ import annotations

import contextlib
import gzip
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final

import pytest
from test_evidence import BARE, HTML, LIARS, page

from archives import docker_save, layout_tar
from images import blob_path, image_layout, platforms_layout, root_digest
from regproto.testing import FakeRegistry, RegistryOptions, Reply
from regproto_sync import Server
from regproto_sync.cli.main import main


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Liar

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply = page(200, HTML) if self.path == "/login" else self.server.reply
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Liar(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.asked: list[str] = []


@contextlib.contextmanager
def lying(reply: Reply) -> Iterator[_Liar]:
    with _Liar(reply) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is pushed."""
    path = tmp_path_factory.mktemp("things")
    image_layout(path / "image")
    platforms_layout(path / "index")
    layout_tar(path / "image", path / "image.tar")
    docker_save(path / "saved.tar")
    manifest = blob_path(path / "image", root_digest(path / "image"))
    (path / "manifest.json").write_bytes(manifest.read_bytes())
    layer = json.loads(manifest.read_bytes())["layers"][0]
    content = blob_path(path / "image", layer["digest"]).read_bytes()
    (path / "layer.tar.gz").write_bytes(content)
    (path / "layer.tar").write_bytes(gzip.decompress(content))
    (path / "file.txt").write_bytes(b"a file\n")
    return path


COMMANDS: Final[dict[str, Callable[[Path, str, str], list[object]]]] = {
    "push": lambda at, repo, digest: ["push", at / "image", f"{repo}:1.0"],
    "push, three tags": lambda at, repo, digest: ["push", at / "image", f"{repo}:1", "-t", "2", "-t", "3"],
    "push, two repositories": lambda at, repo, digest: ["push", at / "image", f"{repo}:1.0", f"{repo}/two:1.0"],
    "push of an archive": lambda at, repo, digest: ["push", at / "image.tar", f"{repo}:1.0", "--verify"],
    "push of an index": lambda at, repo, digest: ["push", at / "index", f"{repo}:1.0"],
    "push by digest": lambda at, repo, digest: ["push", at / "image", f"{repo}@{digest}"],
    "push, mounted": lambda at, repo, digest: ["push", at / "image", f"{repo}:1.0", "--mount-from", f"{repo}/base"],
    "push, compressed": lambda at, repo, digest: ["push", at / "saved.tar", f"{repo}:1.0", "--compression", "gzip"],
    "push-image": lambda at, repo, digest: ["push-image", f"{repo}:1.0", at / "layer.tar"],
    "push-artifact": lambda at, repo, digest: ["push-artifact", f"{repo}:1.0", at / "file.txt"],
    "push-artifact by digest": lambda at, repo, digest: ["push-artifact", repo, at / "file.txt"],
    "push-layer": lambda at, repo, digest: ["push-layer", at / "layer.tar.gz", repo],
    "push-layer, compressed": lambda at, repo, digest: ["push-layer", at / "layer.tar", repo, "--compression", "zstd"],
    "put-manifest": lambda at, repo, digest: ["put-manifest", at / "manifest.json", f"{repo}:1.0"],
    "put-manifest by digest": lambda at, repo, digest: ["put-manifest", at / "manifest.json", f"{repo}@{digest}"],
    "tag": lambda at, repo, digest: ["tag", f"{repo}:1.0", "2.0"],
    "tag of a digest": lambda at, repo, digest: ["tag", f"{repo}@{digest}", "2.0"],
    "attach": lambda at, repo, digest: ["attach", f"{repo}:1.0", at / "file.txt"],
    "attach to a digest": lambda at, repo, digest: ["attach", f"{repo}@{digest}", at / "file.txt", "--no-look-again"],
    "referrers": lambda at, repo, digest: ["referrers", f"{repo}:1.0"],
    "referrers of a digest": lambda at, repo, digest: ["referrers", f"{repo}@{digest}"],
}


@pytest.mark.parametrize("driver", ["sync", "trio"])
@pytest.mark.parametrize("liar", LIARS)
def test_no_command_is_done(liar: str, driver: str, things: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, command in COMMANDS.items():
        with lying(LIARS[liar]) as server:
            repository = f"127.0.0.1:{server.server_address[1]}/team/app"
            arguments = command(things, repository, root_digest(things / "image"))
            code = main([str(argument) for argument in arguments] + ["--driver", driver])
        said = capfd.readouterr()
        assert (code, said.out) == (1, ""), f"{name}: {code} {said}"
        assert "this does not look like a registry: check the host and the name" in said.err, f"{name}: {said.err}"
        assert 1 <= len(server.asked) <= 40, f"{name}: {server.asked}"


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_with_a_bare_registry_all_are_done(driver: str, things: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fake = FakeRegistry(RegistryOptions(**BARE))
    with Server(fake) as server:
        repository = f"127.0.0.1:{server.port}/team/app"
        digest = root_digest(things / "image")
        for name, command in COMMANDS.items():
            arguments = command(things, repository, digest)
            code = main([str(argument) for argument in arguments] + ["--driver", driver])
            said = capfd.readouterr()
            assert code == 0 and (said.out or "referrers" in name), f"{name}: {code} {said}"
    assert fake.tags("team/app").keys() >= {"1.0", "1", "2", "3", "2.0"}
