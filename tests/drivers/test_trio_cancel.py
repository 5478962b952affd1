"""A push on trio that is cancelled or interrupted, at every point it can be: nothing is left behind.

The registry is in this process and is spoken to over real sockets, so how far it has come at a point differs a little
from run to run; what must hold does not.
"""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
import pytest
import trio
import trustme

import regproto_trio
from images import image_layout
from regproto import Config, NoCredentials, PushOutcome, Session
from regproto.testing import Auth, FakeRegistry, Fault, FaultKind, RegistryOptions
from regproto_sync import plan_source
from regproto_sync.server.server import Server

STEPS_MAX = 2_000
"""More steps than any push here takes."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_layout(tmp_path_factory.mktemp("cancel") / "layout", (2_000, 300_000))


OTHERS: set[threading.Thread] = set()
"""Threads from before the test."""


@pytest.fixture(autouse=True)
def others() -> None:
    OTHERS.clear()
    OTHERS.update(threading.enumerate())


# --- watching -----------------------------------------------------------------------------------------------------


@attrs.define(slots=False, eq=False)
class AtStep(trio.abc.Instrument):
    """Does something after the n-th step of any task: each ends at a checkpoint."""

    step: int
    act: Callable[[], object]
    steps: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self.step:
            self.act()


@contextmanager
def instrument(watcher: AtStep) -> Iterator[None]:
    trio.lowlevel.add_instrument(watcher)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(watcher)


def settle(server: Server) -> None:
    """Waits until the server has seen the end of every connection that was made to it before this."""
    connection: http.client.HTTPConnection
    if server.url.startswith("https"):
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=ssl._create_unverified_context())
    else:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.close()
    while server._connections:
        for thread in tuple(server._connections):
            if thread.ident is not None:
                thread.join()


def left_behind(server: Server, repository: str) -> dict[str, object]:
    """What there is of a push that is over; nothing is what there has to be."""
    settle(server)
    names = {thread.name for thread in threading.enumerate() if thread not in OTHERS} - {"registry"}
    found = {
        "upload sessions": server.registry.sessions(repository),
        "threads": {name for name in names if not name.startswith("Trio thread")},  # those wait for work
    }
    return {what: which for what, which in found.items() if which}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


Push = Callable[[str], Awaitable[Any]]


async def cancelled_at(step: int, push: Callable[[], Awaitable[Any]]) -> bool:
    """Whether the push was over before that step came."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        watcher = AtStep(step, scope.cancel)
        with instrument(watcher):
            await push()
    assert trio.lowlevel.current_statistics().tasks_living == tasks, "tasks are left"
    return watcher.steps < step


def cancel_at_every_step(server: Server, push: Push, stride: int = 1) -> int:
    """Pushes again and again, cancelled `stride` steps later each time, until it is not; the number of steps."""
    settle(server)
    before = descriptors()
    for step in range(1, STEPS_MAX, stride):
        reference = f"{server.url.partition('://')[2]}/team/app{step}:1.0"
        over = trio.run(partial(cancelled_at, step, partial(push, reference)))
        assert left_behind(server, f"team/app{step}") == {}, f"cancelled after step {step}"
        assert descriptors() == before, f"sockets are left, cancelled after step {step}"
        if over:
            assert server.registry.tags(f"team/app{step}")
            return step
    raise AssertionError("it never came to its end")


# --- a push -------------------------------------------------------------------------------------------------------

QUICK = Config(backoff_base_s=0.2)
"""A session that the registry is still at work on is given back after a wait."""
SESSIONS = RegistryOptions(single_post=202, auth=Auth.BEARER)


@pytest.mark.parametrize(
    ("options", "config"),
    [
        (SESSIONS, QUICK),
        (attrs.evolve(SESSIONS, single_post=201), QUICK),
        (SESSIONS, attrs.evolve(QUICK, resumable_above_bytes=0, small_blob_bytes=0, chunk_bytes=100_000)),
    ],
    ids=["PUT", "single POST", "chunks"],
)
def test_a_push_cancelled_at_every_checkpoint(source: Path, options: RegistryOptions, config: Config) -> None:
    async def push(reference: str) -> None:
        await regproto_trio.push(source, reference, config=config)

    with Server(FakeRegistry(options)) as server:
        assert cancel_at_every_step(server, push) > 50


def test_a_push_over_tls_cancelled_at_every_third_checkpoint(source: Path) -> None:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    with Server(FakeRegistry(RegistryOptions(single_post=202)), tls=serving) as server:

        async def drive(reference: str) -> None:
            planned = plan_source(source, reference)
            session = Session(server.url, QUICK, now=trio.current_time())
            async with regproto_trio.drive(session, keychain=nobody, tls=trusting) as driver:
                await driver.push(planned.push)

        assert cancel_at_every_step(server, drive, stride=3) > 50


def nobody(need: Any) -> NoCredentials:
    return NoCredentials(id=need.id)


def test_several_images_cancelled_at_every_third_checkpoint(source: Path) -> None:
    with Server(FakeRegistry(SESSIONS)) as server:

        async def push(reference: str) -> None:
            await regproto_trio.push_many([(source, reference), (source, f"{reference}-again")], config=QUICK)

        assert cancel_at_every_step(server, push, stride=3) > 50


# --- interrupts ---------------------------------------------------------------------------------------------------


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_push_interrupted_at_every_checkpoint(source: Path) -> None:
    """A KeyboardInterrupt that comes while trio waits is raised in the main task."""
    with Server(FakeRegistry(SESSIONS)) as server:

        async def push(step: int) -> bool:
            watcher = AtStep(step, interrupt)
            with instrument(watcher):
                await regproto_trio.push(source, f"127.0.0.1:{server.port}/team/app{step}", config=QUICK)
                # One that came with the last step is raised here at the latest.
                await trio.lowlevel.checkpoint()
            return watcher.steps < step

        for step in range(1, STEPS_MAX):
            try:
                over = trio.run(push, step)
            except KeyboardInterrupt:
                over = False
            assert left_behind(server, f"team/app{step}") == {}, f"interrupted after step {step}"
            if over:
                break
        assert step > 50


class InCall:
    """Interrupts the n-th call or return of a function of the driver's (a profiler, so that tracers go on)."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "return") and "regproto_trio" in frame.f_code.co_filename:
            self.count += 1
            if self.count == self.number:
                interrupt()


def test_a_push_interrupted_anywhere_in_the_driver(source: Path) -> None:
    """A KeyboardInterrupt that comes while code runs is raised in that code, unless it is protected."""
    with Server(FakeRegistry(SESSIONS)) as server:

        async def push(number: int) -> bool:
            watcher = InCall(number)
            sys.setprofile(watcher)
            try:
                await regproto_trio.push(source, f"127.0.0.1:{server.port}/team/app{number}", config=QUICK)
            finally:
                sys.setprofile(None)
            await trio.lowlevel.checkpoint()
            return watcher.count < number

        for number in range(1, 100_000, 41):
            try:
                over = trio.run(push, number)
            except KeyboardInterrupt:
                over = False
            assert left_behind(server, f"team/app{number}") == {}, f"interrupted in call {number}"
            if over:
                break
        assert number > 500


# --- many tasks, one session ----------------------------------------------------------------------------------------


def test_one_of_three_cancelled_at_every_third_checkpoint(source: Path) -> None:
    """Tasks share the session, and what they push; the others come to their end."""
    with Server(FakeRegistry(SESSIONS)) as server:

        async def all_of(step: int) -> bool:
            planned = plan_source(source, f"127.0.0.1:{server.port}/team/app{step}:1.0")
            session = Session(server.url, QUICK, now=trio.current_time())
            outcomes: list[PushOutcome] = []

            async def push(tag: str) -> None:
                plan = attrs.evolve(planned.push, tags=(tag,))
                outcomes.append((await driver.push(plan)).outcome)

            async def push_cancelled() -> None:
                with scope:
                    await push("cancelled")

            scope = trio.CancelScope()
            watcher = AtStep(step, scope.cancel)
            async with regproto_trio.drive(session, keychain=nobody) as driver:
                with instrument(watcher):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(push, "one")
                        nursery.start_soon(push_cancelled)
                        nursery.start_soon(push, "two")
            assert outcomes.count(PushOutcome.PUSHED) >= 2
            return watcher.steps < step

        for step in range(1, STEPS_MAX, 3):
            over = trio.run(all_of, step)
            assert left_behind(server, f"team/app{step}") == {}, f"cancelled after step {step}"
            assert {"one", "two"} <= server.registry.tags(f"team/app{step}").keys()
            if over:
                break
        assert step > 50


@pytest.mark.parametrize("method", ["DELETE", "PUT"])
def test_the_grace_is_bounded(source: Path, method: str) -> None:
    """A registry that does not answer keeps nobody."""
    silent = Fault(kind=FaultKind.SILENCE, method=method, count=1_000)
    # The silence also meets the PUT, so that there is something to give back.
    put = Fault(kind=FaultKind.SILENCE, method="PUT", count=1_000)
    with Server(FakeRegistry(RegistryOptions(single_post=202, faults=(silent, put)))) as server:

        async def main() -> None:
            planned = plan_source(source, f"127.0.0.1:{server.port}/team/app")
            session = Session(server.url, QUICK, now=trio.current_time())
            tasks = trio.lowlevel.current_statistics().tasks_living
            with trio.CancelScope() as scope:

                def cancel(notice: object) -> None:
                    scope.cancel()

                async with regproto_trio.drive(
                    session, keychain=nobody, on_notice=cancel, cancel_grace_s=0.05
                ) as driver:
                    await driver.push(planned.push)
            assert scope.cancelled_caught
            assert trio.lowlevel.current_statistics().tasks_living == tasks

        before = descriptors()
        trio.run(main)
        settle(server)
        assert descriptors() == before


# --- names --------------------------------------------------------------------------------------------------------


def test_tasks_have_names_that_tell(source: Path) -> None:
    names: set[str] = set()

    class Names(trio.abc.Instrument):
        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            names.add(task.name)

    with Server(FakeRegistry(SESSIONS)) as server:

        async def main() -> None:
            trio.lowlevel.add_instrument(Names())
            await regproto_trio.push(source, f"127.0.0.1:{server.port}/team/app")

        trio.run(main)
        host = f"127.0.0.1:{server.port}"
    assert {"regproto session", f"regproto POST {host}", f"regproto PUT {host} (writing)"} <= names
    assert f"regproto keychain {host}" in names
