"""One transient fault at each request of a push in turn, and what became of the push.

A cell is one push: one client, one image, one kind of fault, at one request. It succeeded if the client says so and
the registry, asked behind the relay's back, has every byte; a client that says so without is the worst there is.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

import regproto_sync
import regproto_trio
from faulty import RETRY_AFTER_S, SILENCE_S, Kind, Plan, Seen, at, faulty_relay, nothing
from images import LayoutBuilder, image_layout, layer
from regproto import Config, Credentials, NeedCredentials, RegprotoError
from regproto.testing import Auth, FakeRegistry, RegistryOptions
from regproto_sync.server.server import Server

USER, PASSWORD = "tester", "s3cret"
CONFIG = Config(
    # Three layers go three ways: in one POST, in a session's PUT, in PATCHes that can be asked for.
    small_blob_bytes=4_000,
    resumable_above_bytes=100_000,
    # As the defaults, but smaller: the silence of 20 s is scaled down to one of 1 s.
    connect_timeout_s=5.0,
    response_timeout_s=1.0,
    idle_timeout_s=1.0,
    backoff_base_s=0.05,
    backoff_max_s=0.5,
    retry_after_max_s=5.0,
)
SIZES = (2_000, 60_000, 300_000)
SLACK_S = 8.0
"""What a machine that does a lot else may add to a wait."""
CLIENT_TIMEOUT_S = 150.0

Content = dict[str, bytes]


def wait_s(kind: Kind, config: Config = CONFIG) -> float:
    """How long one such fault may keep a push from going on, by the limits that are configured."""
    if kind is Kind.SILENCE:
        return config.response_timeout_s + 2 * config.backoff_base_s
    return (RETRY_AFTER_S if kind is Kind.STATUS_429 else 0.0) + 2 * config.backoff_base_s


# --- images -----------------------------------------------------------------------------------------------------


def two_images(path: Path) -> Path:
    """A layout of an index of two images that share a layer."""
    build = LayoutBuilder(path)
    shared = layer(7, SIZES[2])
    images = []
    for number, architecture in enumerate(("amd64", "arm64"), start=1):
        own = [layer(number * 10, SIZES[0]), layer(number * 10 + 1, SIZES[1])]
        image = build.image([shared, *own], architecture=architecture)
        images.append({**image, "platform": {"architecture": architecture, "os": "linux"}})
    return build.entry(build.index(images), "1.0")


SHAPES: dict[str, Callable[[Path], Path]] = {
    "image": lambda path: image_layout(path, SIZES, name="1.0"),
    "index": two_images,
}


def contents(layout: Path) -> Content:
    """Every blob of a layout."""
    return {f"{path.parent.name}:{path.name}": path.read_bytes() for path in layout.glob("blobs/*/*")}


# --- registries -------------------------------------------------------------------------------------------------


@attrs.frozen
class Target:
    """A registry to push to."""

    kind: str
    address: tuple[str, int]
    read: Callable[[str, str], Content]
    """All that a tag of a repository leads to, read at the registry itself."""


@contextmanager
def fake(**options: Any) -> Iterator[Target]:
    """The fake registry over loopback HTTP, which wants tokens."""
    registry = FakeRegistry(RegistryOptions(**{"auth": Auth.BEARER, "users": {USER: PASSWORD}, **options}))
    with Server(registry) as server:

        def read(repository: str, tag: str) -> Content:
            with server.lock:
                if tag not in registry.tags(repository):
                    return {}
                there = registry.blobs(repository) | registry.manifests(repository)
                return {str(digest): registry.content(digest) for digest in there}

        yield Target("fake", ("127.0.0.1", server.port), read)


# --- clients ----------------------------------------------------------------------------------------------------

Client = Callable[[Path, str, Config], str]
"""Pushes a layout to a reference; "" if it says that all is well, else what it says."""


def _keychain(need: NeedCredentials) -> Credentials:
    return Credentials(id=need.id, username=USER, password=PASSWORD)


def by_sync(layout: Path, reference: str, config: Config) -> str:
    """The blocking driver."""
    try:
        regproto_sync.push(layout, reference, config=config, keychain=_keychain, seed=1)
    except RegprotoError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def by_trio(layout: Path, reference: str, config: Config) -> str:
    """The trio driver."""

    async def push() -> None:
        await regproto_trio.push(layout, reference, config=config, keychain=_keychain, seed=1)

    try:
        trio.run(push)
    except RegprotoError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def peer(name: str, program: str) -> Client:
    """Another client, as it comes."""

    def run(layout: Path, reference: str, config: Config) -> str:
        host = reference.partition("/")[0]
        command = {
            "crane": [program, "push", "--insecure", "--index", str(layout), reference],
            "oras": [program, "cp", "--to-plain-http", "--from-oci-layout", f"{layout}:1.0", reference],
            "regctl": [program, "--host", f"reg={host},tls=disabled", "image", "copy", f"ocidir://{layout}:1.0"],
        }[name]
        if name == "regctl":
            command.append(reference)
        elif name == "crane" and "/image" in reference:
            command.remove("--index")
        with tempfile.TemporaryDirectory() as home:
            auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            Path(home, "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
            env = {**os.environ, "HOME": home, "DOCKER_CONFIG": home}
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CLIENT_TIMEOUT_S, env=env
                )
            except subprocess.TimeoutExpired:
                return f"no end within {CLIENT_TIMEOUT_S:g} s"
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return "" if done.returncode == 0 else f"exit code {done.returncode}: {last}"

    return run


# --- cells ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Cell:
    """One push."""

    client: str
    shape: str
    kind: Kind
    position: int


@attrs.frozen
class Outcome:
    """What became of it."""

    cell: Cell
    said: str
    """"" if the client says that all is well."""
    exact: bool
    """The registry has every byte."""
    seconds: float
    seen: tuple[Seen, ...]

    @property
    def hit(self) -> Seen | None:
        """The request that the fault befell; None if the push made too few."""
        return next((seen for seen in self.seen if seen.fault is not None), None)

    @property
    def succeeded(self) -> bool:
        return not self.said and self.exact

    @property
    def lied(self) -> bool:
        return not self.said and not self.exact

    @property
    def is_the_token_servers_word(self) -> bool:
        """A 401 from a token server is its word on the credentials, and not to be asked for again."""
        return self.hit is not None and self.hit.to_token_server and self.hit.fault is Kind.STATUS_401

    @property
    def during_hold(self) -> int:
        """Requests that came in while a 429 asked to wait; what was on its way when it came is not counted."""
        hit = self.hit
        if hit is None or hit.fault is not Kind.STATUS_429:
            return 0
        return sum(hit.at + 0.4 < seen.at < hit.at + 0.9 * RETRY_AFTER_S for seen in self.seen)


class Runs:
    """Pushes with faults into one registry.

    Args:
        target: where to.
        clients: by name.
        layouts: by shape.
        jobs: pushes at a time; most of their time they wait.
    """

    def __init__(
        self, target: Target, clients: dict[str, Client], layouts: dict[str, Path], jobs: int = 4, label: str = "faults"
    ) -> None:
        self._target = target
        self._clients = clients
        self._layouts = layouts
        self._contents = {shape: contents(layout) for shape, layout in layouts.items()}
        self._jobs = jobs
        self._label = label
        self._names = itertools.count(1)

    def push(
        self, client: str, shape: str, plan: Plan, config: Config = CONFIG, silence_s: float = SILENCE_S
    ) -> tuple[str, bool, float, tuple[Seen, ...]]:
        """What the client says, whether all is there, seconds, requests."""
        repository = f"{self._label}/{shape}-{next(self._names)}"
        with faulty_relay(self._target.address, plan, silence_s) as relay:
            begun = time.monotonic()
            said = self._clients[client](self._layouts[shape], f"{relay.address}/{repository}:1.0", config)
            seconds = time.monotonic() - begun
            seen = tuple(relay.seen)
        return said, self._target.read(repository, "1.0") == self._contents[shape], seconds, seen

    def clean(self, client: str, shape: str, config: Config = CONFIG) -> tuple[int, float]:
        """How many requests the push makes where nothing goes wrong, and its seconds."""
        said, exact, seconds, seen = self.push(client, shape, nothing, config)
        assert not said and exact, f"{client} can't push this {shape} without a fault: {said}"
        return len(seen), seconds

    def cells(self, client: str, shape: str, kinds: Sequence[Kind] = tuple(Kind), step: int = 1) -> list[Cell]:
        """A cell for each kind at each request (each `step`-th, another one for each kind)."""
        count, _ = self.clean(client, shape)
        return [
            Cell(client, shape, kind, position)
            for number, kind in enumerate(kinds)
            for position in range(1 + number % step, count + 1, step)
        ]

    def run(self, cells: Sequence[Cell], each: Callable[[Outcome], None] = lambda outcome: None) -> list[Outcome]:
        """Run these, a few at a time."""

        def one(cell: Cell) -> Outcome:
            outcome = Outcome(cell, *self.push(cell.client, cell.shape, at(cell.position, cell.kind)))
            each(outcome)
            return outcome

        with ThreadPoolExecutor(self._jobs) as pool:
            return list(pool.map(one, cells))


# --- the table --------------------------------------------------------------------------------------------------


@attrs.frozen
class Tally:
    """What some cells came to."""

    outcomes: tuple[Outcome, ...]
    clean_s: float

    @property
    def counted(self) -> tuple[Outcome, ...]:
        """Without those that no fault befell, and the token server's word."""
        return tuple(o for o in self.outcomes if o.hit is not None and not o.is_the_token_servers_word)

    @property
    def succeeded(self) -> int:
        return sum(o.succeeded for o in self.counted)

    @property
    def lied(self) -> int:
        return sum(o.lied for o in self.outcomes)

    @property
    def during_hold(self) -> int:
        return sum(o.during_hold for o in self.outcomes)

    def late(self, config: Config = CONFIG) -> list[Outcome]:
        """Those that waited beyond the limits."""
        return [o for o in self.outcomes if o.seconds > self.clean_s + wait_s(o.cell.kind, config) + SLACK_S]

    @property
    def longest(self) -> Outcome:
        return max(self.outcomes, key=lambda o: o.seconds)

    def failures(self) -> Iterator[str]:
        """A line for each cell that did not succeed."""
        for o in self.outcomes:
            if not o.succeeded:
                where = f"{o.hit.method} {o.hit.target.partition('?')[0]}" if o.hit is not None else "no request"
                said = "FALSE SUCCESS" if o.lied else o.said[:200]
                yield f"{o.cell.client} {o.cell.shape}: {o.cell.kind.value} at {o.cell.position} ({where}): {said}"


@contextmanager
def real(kind: str, folder: Path) -> Iterator[Target]:
    """A real registry that lets everybody in; `tests/real` has to be importable."""
    from clients import by_http
    from registries import running

    with running(kind, folder) as started:

        def read(repository: str, tag: str) -> Content:
            try:
                return by_http(started.address, repository, tag)
            except OSError:
                return {}

        yield Target(kind, started.host_and_port, read)
