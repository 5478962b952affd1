"""Plans as deep as they like: attachments of attachments, walked without recursion, in simulated time and over HTTP."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

import regproto_sync
import regproto_sync.driver.driver
import regproto_trio
import regproto_trio.driver.driver
from core import HANG, PASS, Play, always, refuse
from driving import nobody
from pushes import REPO, blob, blobs_push, image, index
from regproto import Config, Digest, Manifest, PushOutcome, PushPlan, RegistryError, Session
from regproto._engine.construct import machine_for
from regproto._model.manifest import OCI_CONFIG
from regproto.testing import FakeRegistry
from regproto_sync import Server, bytes_blob

CONFIG = blob(b"{}", media_type=OCI_CONFIG)


def chain(length: int, *tags: str, newest_first: bool = False) -> PushPlan:
    """An image, and attachments each of which has the one before as its subject."""
    root = image()
    manifests = [root.manifest]
    for number in range(length):
        subject = manifests[-1].descriptor
        described = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}
        manifests.append(image(subject=described, annotations={"number": str(number)}).manifest)
    ordered = manifests[::-1] if newest_first else manifests
    return PushPlan(repository=REPO, blobs=[CONFIG], manifests=ordered, root=root.digest, tags=tags)


def digests(push: PushPlan) -> set[Digest]:
    return {manifest.descriptor.digest for manifest in push.manifests}


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("tags", [(), ("1.0",), ("1", "2", "3")])
def test_a_chain_of_attachments(tags: tuple[str, ...], newest_first: bool) -> None:
    play = Play()
    push = chain(1_000, *tags, newest_first=newest_first)
    result = play.run(push)
    assert result.outcome is PushOutcome.PUSHED and len(result.listed) == 1_000
    assert digests(push) == set(play.registry.manifests(REPO))
    puts = [send.body for send in play.sent("PUT manifest")]
    attached = [manifest.content for manifest in push.manifests if manifest.info.subject is not None]
    assert [body for body in puts if body in set(attached)] == (attached[::-1] if newest_first else attached)


def test_ten_thousand_deep() -> None:
    assert Play().run(chain(10_000, newest_first=True)).outcome is PushOutcome.PUSHED


def test_two_pushes_of_one_chain_share_it() -> None:
    play = Play()
    push = chain(1_000, newest_first=True)
    play.run(push, push)
    assert [result.outcome for result in play.results.values()] == [PushOutcome.PUSHED] * 2
    assert len(play.sent("PUT manifest")) == 1_001


def test_the_first_of_a_chain_is_refused() -> None:
    play = Play({"PUT manifest": always(refuse(403, "DENIED"))})
    play.submit(chain(1_000, newest_first=True))
    while play.open:
        play.step()
    assert isinstance(play.results[1].error, RegistryError)


def test_a_chain_is_cancelled() -> None:
    play = Play({"POST blob": [HANG]})
    number = play.submit(chain(1_000, newest_first=True))
    play.settle()
    play.session.cancel(number, play.now)
    play.answer(play.held.popitem()[1], PASS)
    play.settle()
    assert play.results[number].outcome is PushOutcome.CANCELLED
    assert not play.session._graph.nodes


def test_indexes_in_indexes() -> None:
    whole = image()
    for number in range(1_000):
        whole = index(whole, annotations={"number": str(number)})
    manifests: list[Manifest] = []
    below = whole
    while True:
        manifests.append(below.manifest)
        if not below.children:
            break
        below = below.children[0]
    push = PushPlan(repository=REPO, blobs=[CONFIG], manifests=manifests, root=whole.digest)
    play = Play(config=Config(check_existing=False))
    assert play.run(push).outcome is PushOutcome.PUSHED
    assert digests(push) == set(play.registry.manifests(REPO))


@pytest.mark.parametrize("module", [regproto_sync, regproto_trio])
def test_a_chain_by_a_driver(module: Any) -> None:
    push = attrs.evolve(chain(1_000, newest_first=True), blobs=[bytes_blob(b"{}", OCI_CONFIG)])
    registry = FakeRegistry()
    with Server(registry) as server:
        session = Session(f"http://localhost:{server.port}")
        results = module.run_session(session, [session.submit(push)], keychain=nobody)
    assert [result.outcome for result in results.values()] == [PushOutcome.PUSHED]
    assert digests(push) == set(registry.manifests(REPO))


# --- what can't be begun ------------------------------------------------------------------------------------------


@attrs.define
class Broken:
    """A choice of the embedder's that raises after some calls: nothing in the core does, so this has to."""

    calls: int
    raises: type[BaseException]

    def __call__(self, *arguments: Any) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise self.raises("out of the ordinary")
        return machine_for(*arguments)


@pytest.mark.parametrize("raises", [RecursionError, MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("calls", range(7))
def test_nothing_of_a_push_stays_that_could_not_be_begun(
    monkeypatch: pytest.MonkeyPatch, calls: int, raises: type[BaseException]
) -> None:
    play = Play({"POST blob": [HANG]})
    first = image(b"shared", b"ours", config=b"1").push("1")
    second = chain(5, "2", newest_first=True)
    play.submit(first)
    play.until("HEAD tag")
    before = set(play.session._graph.nodes)
    with monkeypatch.context() as patched:
        patched.setattr("regproto._engine.graph.machine_for", Broken(calls, raises))
        with pytest.raises(raises):
            play.session.submit(second)
    graph, pushes = play.session._graph, play.session._pushes
    assert not graph.stack and list(pushes.under_way) == [1] and not pushes.ended
    assert set(graph.nodes) == before and not graph.lists.coming
    play.answer(play.held.popitem()[1], PASS)
    assert play.run(second).outcome is PushOutcome.PUSHED
    assert [result.outcome for result in play.results.values()] == [PushOutcome.PUSHED] * 2


@pytest.mark.parametrize("broken", [{"mount_from": ("team/base",)}, {"descriptor": None}])
def test_a_blob_of_a_plan_that_is_none(broken: dict[str, Any]) -> None:
    play = Play()
    with pytest.raises(AttributeError):
        play.session.submit(blobs_push(blob(b"fine"), attrs.evolve(blob(b"other"), **broken)))
    assert not play.session._pushes.under_way and not play.session._graph.nodes
    assert play.run(blobs_push(blob(b"fine"))).outcome is PushOutcome.PUSHED
