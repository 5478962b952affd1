"""Long and rough: many pushes in one session under random faults, and what befalls a registry or a source on the way.

Everything is seeded and bounded. Each says what became of it; whoever calls decides what is good enough.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

import regproto_trio
from fault_runs import CONFIG, PASSWORD, USER, Client, contents, fake
from faulty import Kind, Plan, faulty_relay
from images import image_layout, layer
from pushes import Image, image
from regproto import (
    Blob,
    Config,
    ContentError,
    Credentials,
    NeedCredentials,
    PushOutcome,
    PushPlan,
    RegprotoError,
    Session,
)
from regproto_sync.driver.driver import Driver
from regproto_sync.sources.content import BytesContent

RATE = 0.05
REPOSITORIES = 20
MB = 1_000_000


# --- many pushes ------------------------------------------------------------------------------------------------


def random_faults(seed: int, rate: float = RATE) -> Plan:
    """A fault for about so many of all requests; which kinds and which numbers follow from the seed."""

    def plan(number: int, method: str, target: str) -> Kind | None:
        dice = random.Random(f"{seed} {number}")
        kind = dice.choice(list(Kind)) if dice.random() < rate else None
        # A 401 from the token server is its word and no fault.
        return Kind.STATUS_503 if kind is Kind.STATUS_401 and target.startswith("/token") else kind

    return plan


def _source(known: Blob) -> Blob:
    assert isinstance(known.source, bytes)
    return attrs.evolve(known, source=BytesContent(known.source))


def plans(count: int) -> list[tuple[PushPlan, dict[str, bytes]]]:
    """Images that share a layer, over some repositories, each under a tag of its own; and what each consists of."""
    shared = layer(1, 60_000)
    made: list[tuple[PushPlan, dict[str, bytes]]] = []
    for number in range(count):
        sizes = (2_000, 20_000) if number % 10 else (2_000, 20_000, 150_000)
        own = [layer(1_000 + number * 10 + n, size) for n, size in enumerate(sizes)]
        whole: Image = image(shared, *own, config=b'{"number":%d}' % number)
        push = whole.push(f"v{number}", repository=f"soak/app{number % REPOSITORIES}")
        parts = {str(b.descriptor.digest): b.source for b in push.blobs} | {str(whole.digest): whole.manifest.content}
        made.append((attrs.evolve(push, blobs=[_source(b) for b in push.blobs]), parts))
    return made


@attrs.frozen(kw_only=True)
class Soaked:
    """What became of many pushes."""

    pushes: int
    succeeded: int
    failures: dict[str, int]
    """By the error's type."""
    false_successes: int
    untyped: int
    """Failures that are no error of ours."""
    requests: int
    faults: dict[str, int]
    """By kind."""
    clean_requests: int
    """How many the same pushes take where nothing goes wrong."""
    seconds: float

    @property
    def honest(self) -> bool:
        return (
            not self.false_successes
            and not self.untyped
            and self.succeeded + sum(self.failures.values()) == self.pushes
        )


def _keychain(need: NeedCredentials) -> Credentials:
    return Credentials(id=need.id, username=USER, password=PASSWORD)


def _by_sync(session: Session, pushes: list[PushPlan]) -> list[BaseException | None]:
    ids = [session.submit(push) for push in pushes]
    with Driver() as driver:
        results = driver.run(session, ids, keychain=_keychain)
    assert all((results[n].error is None) is (results[n].outcome is PushOutcome.PUSHED) for n in ids)
    return [results[n].error for n in ids]


def _by_trio(session: Session, pushes: list[PushPlan]) -> list[BaseException | None]:
    errors: list[BaseException | None] = [None] * len(pushes)

    async def one(driver: regproto_trio.Driver, number: int) -> None:
        try:
            await driver.push(pushes[number])
        except Exception as error:
            errors[number] = error

    async def run() -> None:
        async with regproto_trio.drive(session, keychain=_keychain) as driver, trio.open_nursery() as nursery:
            for number in range(len(pushes)):
                nursery.start_soon(one, driver, number)

    trio.run(run)
    return errors


def soak(driver: str, count: int, *, seed: int, rate: float = RATE, attempts: int = 5) -> Soaked:
    """Many pushes in one session, through a relay that makes faults, into the fake registry, and read back."""
    made = plans(count)
    config = attrs.evolve(CONFIG, attempts=attempts)
    run = {"sync": _by_sync, "trio": _by_trio}[driver]
    clean = 0
    if rate:
        with fake() as target, faulty_relay(target.address) as relay:
            assert run(Session(f"http://{relay.address}", config), [push for push, _ in made]) == [None] * count
            clean = len(relay.seen)
    with fake() as target, faulty_relay(target.address, random_faults(seed, rate)) as relay:
        session = Session(f"http://{relay.address}", config, seed=seed)
        begun = time.monotonic()
        errors = run(session, [push for push, _ in made])
        seconds = time.monotonic() - begun
        seen = tuple(relay.seen)
        lies = 0
        for (push, parts), error in zip(made, errors, strict=True):
            there = target.read(push.repository, push.tags[0])
            lies += error is None and not parts.items() <= there.items()
    return Soaked(
        pushes=count,
        succeeded=errors.count(None),
        failures=dict(Counter(type(error).__name__ for error in errors if error is not None)),
        false_successes=lies,
        untyped=sum(error is not None and not isinstance(error, RegprotoError) for error in errors),
        requests=len(seen),
        faults=dict(Counter(request.fault.value for request in seen if request.fault is not None)),
        clean_requests=clean,
        seconds=seconds,
    )


# --- what befalls a registry or a source ------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Disaster:
    """What became of a push in the middle of which something happened."""

    what: str
    said: str
    """"" if it was said to have succeeded."""
    there: bool
    """All its content is at the registry under its tag."""
    seconds: float
    body_bytes: int
    """That the client sent, all told."""
    again: str = ""
    """What the same push said once the cause was gone."""
    again_there: bool = True

    @property
    def honest(self) -> bool:
        """What it said was so."""
        return (not self.said) is self.there and (not self.again) is self.again_there


def _read(address: str, repository: str) -> dict[str, bytes]:
    from clients import by_http

    try:
        return by_http(address, repository, "1.0")
    except OSError:
        return {}


def restarted(kind: str, client: Client, folder: Path, *, size: int = 40 * MB, away_s: float = 1.5) -> Disaster:
    """The registry is killed when half of a layer is sent, and is back a little later, where it was."""
    from registries import running
    from relay import relay

    layout = image_layout(folder / "layout", [200_000, size])
    data = folder / "registry"
    data.mkdir()
    port = 0
    back = threading.Event()
    over = threading.Event()

    def come_back() -> None:
        time.sleep(away_s)
        with running(kind, data, port=port):
            back.set()
            over.wait(300)

    with running(kind, data) as registry:
        host, port = registry.host_and_port
        returning = threading.Thread(target=come_back, daemon=True)
        killed = threading.Event()
        sent = [0]

        def on_sent(total: int) -> None:
            sent[0] = total
            if total > size // 2 and not killed.is_set():
                killed.set()
                registry.stop()
                returning.start()

        try:
            with relay((host, port), on_sent) as between:
                config = Config(resumable_above_bytes=MB, response_timeout_s=10.0)
                begun = time.monotonic()
                said = client(layout, f"{between.address}/soak/restarted:1.0", config)
                seconds = time.monotonic() - begun
            assert killed.is_set() and back.wait(60)
            there = _read(registry.address, "soak/restarted") == contents(layout)
        finally:
            over.set()
            if returning.ident is not None:
                returning.join(60)
    what = f"{kind} killed in a layer of {size // MB} MB, back after {away_s:g} s"
    return Disaster(what=what, said=said, there=there, seconds=seconds, body_bytes=sent[0])


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A file system of this size at `path`; what it gives makes it larger. `OSError`: that is not allowed here."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True)
    if done.returncode:
        raise OSError(f"no file system can be mounted here: {done.stderr.decode(errors='replace').strip()}")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(path)], check=True) and None
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def disk_full(kind: str, client: Client, folder: Path, *, size: int = 12 * MB) -> Disaster:
    """The registry's disk has room for half of a layer; then it gets more, and the push is made again."""
    from registries import running
    from relay import relay

    layout = image_layout(folder / "layout", [200_000, size])
    config = Config(resumable_above_bytes=MB, backoff_base_s=0.1, attempts=3, response_timeout_s=10.0)
    sent = [0]
    with small_disk(folder / "registry", size // 2) as enlarge, running(kind, folder / "registry") as registry:

        def on_sent(total: int) -> None:
            sent[0] = total

        with relay(registry.host_and_port, on_sent) as between:
            reference = f"{between.address}/soak/full:1.0"
            begun = time.monotonic()
            said = client(layout, reference, config)
            seconds = time.monotonic() - begun
            there, total = _read(registry.address, "soak/full") == contents(layout), sent[0]
            enlarge(10 * size)
            again = client(layout, reference, config)
        again_there = _read(registry.address, "soak/full") == contents(layout)
    what = f"{kind} with a disk of {size // 2 // MB} MB, a layer of {size // MB} MB"
    return Disaster(
        what=what, said=said, there=there, seconds=seconds, body_bytes=total, again=again, again_there=again_there
    )


def source_truncated(kind: str, client: Client, folder: Path, *, size: int = 40 * MB) -> Disaster:
    """The file of a layer is cut to a quarter when half of it is sent; then it is whole again, and pushed again."""
    from registries import running
    from relay import relay

    layout = image_layout(folder / "layout", [200_000, size])
    path = max(layout.glob("blobs/*/*"), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    (folder / "registry").mkdir()
    cut = threading.Event()
    sent = [0]
    with running(kind, folder / "registry") as registry:

        def on_sent(total: int) -> None:
            sent[0] = total
            if total > size // 2 and not cut.is_set():
                cut.set()
                with path.open("r+b") as file:
                    file.truncate(size // 4)

        with relay(registry.host_and_port, on_sent) as between:
            reference = f"{between.address}/soak/truncated:1.0"
            begun = time.monotonic()
            said = client(layout, reference, Config())
            seconds = time.monotonic() - begun
            assert cut.is_set()
            there, total = bool(_read(registry.address, "soak/truncated")), sent[0]
            path.write_bytes(whole)
            again = client(layout, reference, Config())
        again_there = _read(registry.address, "soak/truncated") == contents(layout)
    assert not said or said.startswith(ContentError.__name__), said
    what = f"a layer's file of {size // MB} MB cut to {size // 4 // MB} MB while it is sent to {kind}"
    return Disaster(
        what=what, said=said, there=there, seconds=seconds, body_bytes=total, again=again, again_there=again_there
    )
