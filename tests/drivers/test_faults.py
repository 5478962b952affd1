"""One transient fault at each request of a push, over real sockets: the small edition of scripts/faults."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from fault_runs import SHAPES, Runs, Tally, by_sync, by_trio, contents, fake
from faulty import Kind, at, faulty_relay, nothing
from regproto import Digest
from regproto.testing import Auth

CLIENTS = {"sync": by_sync, "trio": by_trio}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("faults")
    with fake() as target:
        yield Runs(target, CLIENTS, {shape: make(folder / shape) for shape, make in SHAPES.items()}, jobs=8)


@pytest.mark.parametrize(
    ("client", "shape", "step"), [("sync", "image", 4), ("trio", "image", 4), ("sync", "index", 7)]
)
def test_one_fault_anywhere_is_borne(runs: Runs, client: str, shape: str, step: int) -> None:
    cells = runs.cells(client, shape, step=step)
    assert {cell.kind for cell in cells} == set(Kind)
    tally = Tally(tuple(runs.run(cells)), 0.0)
    assert tally.lied == 0
    assert tally.succeeded == len(tally.counted), list(tally.failures())
    assert len(tally.counted) >= len(cells) - 6


def test_the_relay_does_what_it_says(runs: Runs) -> None:
    """A fault at every request can't be borne, and a push that did not get there is not called a success."""
    for kind in (Kind.STATUS_500, Kind.LOST, Kind.GARBAGE):
        said, exact, _, seen = runs.push("sync", "image", lambda number, method, target, kind=kind: kind)
        assert said and not exact
        assert {request.fault for request in seen} == {kind}


def test_a_client_that_lies_is_found_out(tmp_path: Path) -> None:
    with fake() as target:
        layout = SHAPES["image"](tmp_path / "image")
        liar = Runs(target, {"liar": lambda layout, reference, config: ""}, {"image": layout})
        said, exact, _, seen = liar.push("liar", "image", nothing)
        assert (said, exact, seen) == ("", False, ())
        assert len(contents(layout)) == 5


def test_a_lost_answer_is_one_whose_work_was_done() -> None:
    with fake(auth=Auth.NONE) as target, faulty_relay(target.address, at(1, Kind.LOST)) as relay:
        client = http.client.HTTPConnection(relay.address, timeout=20)
        client.request("POST", f"/v2/team/app/blobs/uploads/?digest={Digest.of(b'x')}", b"x")
        with pytest.raises(http.client.RemoteDisconnected):
            client.getresponse()
        client.close()
        client.request("HEAD", f"/v2/team/app/blobs/{Digest.of(b'x')}")
        assert client.getresponse().status == 200
        client.close()
