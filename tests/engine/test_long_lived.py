"""A session that lives for months: what it keeps of pushes that are over has a bound."""

from __future__ import annotations

import pickle

import pytest

from core import Play
from pushes import blob, blobs_push
from regproto import PushOutcome
from regproto._engine.authorizer import IDLE_REPOSITORIES_MAX
from regproto.testing import Auth, FakeRegistry, RegistryOptions


def push_to(play: Play, count: int, begin: int = 0) -> None:
    """A push to each of so many repositories, one after the other; the registry forgets."""
    for number in range(begin, begin + count):
        result = play.run(blobs_push(blob(b"%d" % number), repository=f"team/app-{number}"))
        assert result.outcome is PushOutcome.PUSHED
        play.registry = FakeRegistry(play.registry.options)
        for seen in (play.sends, play.notices, play.edges, play.asked, play.results, play.saves):
            seen.clear()


@pytest.mark.parametrize("auth", [Auth.NONE, Auth.BEARER])
def test_pushes_to_thousands_of_repositories_leave_little_behind(auth: Auth) -> None:
    play = Play(registry=FakeRegistry(RegistryOptions(auth=auth)))
    push_to(play, IDLE_REPOSITORIES_MAX + 44)
    some = len(pickle.dumps(play.session))
    push_to(play, 3_000 - IDLE_REPOSITORIES_MAX - 44, IDLE_REPOSITORIES_MAX + 44)
    authorizer = play.session._scheduler.auth
    assert len(authorizer.idle) == len(authorizer.sources) == IDLE_REPOSITORIES_MAX and not authorizer.pushes
    assert len(authorizer.tokens) == (IDLE_REPOSITORIES_MAX if auth is not Auth.NONE else 0)
    assert len(pickle.dumps(play.session)) < 1.05 * some


def test_a_repository_that_is_forgotten_gets_another_token() -> None:
    play = Play(registry=FakeRegistry(RegistryOptions(auth=Auth.BEARER)))
    push_to(play, IDLE_REPOSITORIES_MAX + 1)
    play.run(blobs_push(blob(b"again"), repository="team/app-0"))
    assert play.names.count("GET token") == 1
    play.sends.clear()
    play.run(blobs_push(blob(b"and again"), repository="team/app-0"))
    assert play.names.count("GET token") == 0, "it is the newest now"
