"""A connection of the trio driver whose writing is stopped because the answer is there."""

from __future__ import annotations

import socket
from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing

from regproto.http1 import Origin
from regproto_trio.driver.transport import Wire

ORIGIN = Origin(scheme="http", host="registry.example", port=80)


@attrs.define
class AnsweredMeanwhile:
    """A socket that takes what it is given, and is told to stop before the writer hears of it."""

    taken: Callable[[int], int]
    stop: Callable[[], None]

    async def send(self, data: memoryview) -> int:
        self.stop()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self.taken(len(data))


async def wire_and_peer() -> tuple[Wire, socket.socket]:
    ours, theirs = socket.socketpair()
    return Wire(ORIGIN, trio.SocketStream(trio.socket.from_stdlib_socket(ours))), theirs


def test_what_was_taken_before_the_stop_is_told() -> None:
    async def main() -> None:
        wire, peer = await wire_and_peer()
        real = wire._tcp.socket
        wire._tcp.socket = AnsweredMeanwhile(taken=lambda size: size, stop=wire.stop_writing)  # type: ignore[assignment]
        assert await wire.send(memoryview(b"all of it")) == 9
        wire._tcp.socket = real
        assert await wire.send(memoryview(b"the next request")) == 16, "the connection is as good as before"
        wire.close()
        with peer:
            assert peer.recv(100) == b"the next request"

    trio.run(main)


def test_a_part_that_was_taken_before_the_stop_ends_the_writing() -> None:
    async def main() -> None:
        wire, peer = await wire_and_peer()
        real = wire._tcp.socket
        wire._tcp.socket = AnsweredMeanwhile(taken=lambda size: size - 1, stop=wire.stop_writing)  # type: ignore[assignment]
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="the writing was stopped"):
                await wire.send(memoryview(b"all of it"))
            wire._tcp.socket = real
        wire.close()
        with peer:
            assert peer.recv(100) == b""

    trio.run(main)


def test_a_write_that_blocks_is_stopped() -> None:
    async def main() -> None:
        wire, peer = await wire_and_peer()
        with trio.fail_after(30), peer:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    with pytest.raises(trio.BrokenResourceError, match="the writing was stopped"):
                        while True:
                            await wire.send(memoryview(bytes(1_000_000)))

                await trio.testing.wait_all_tasks_blocked()
                wire.stop_writing()
            wire.close()

    trio.run(main)
