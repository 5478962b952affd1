"""A push through the trio driver, against the embedded registry over real HTTP."""

from __future__ import annotations

from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import trio

import regproto_sync
import regproto_trio
from images import image_layout, platforms_layout, root_digest
from regproto import AuthenticationError, InvalidReferenceError, PushOutcome, RegistryError
from regproto.testing import Auth, FakeRegistry, RegistryOptions
from regproto_sync.server.server import Server


def _push(source: Path, registry: FakeRegistry) -> tuple[object, ...]:
    with Server(registry) as server:
        reference = f"127.0.0.1:{server.port}/team/app:1.0"

        async def main() -> tuple[object, ...]:
            with trio.fail_after(30):
                first = await regproto_trio.push(source, reference)
                again = await regproto_trio.push(source, reference)
            return first.outcome, first.digest, again.requests

        return trio.run(main)


@pytest.mark.parametrize("single_post", [201, 202])
def test_an_index_arrives_and_is_found_there_again(tmp_path: Path, single_post: int) -> None:
    source = platforms_layout(tmp_path / "layout")
    registry = FakeRegistry(RegistryOptions(single_post=single_post))
    digest = root_digest(source)
    assert _push(source, registry) == (PushOutcome.PUSHED, digest, 1)
    assert registry.tags("team/app") == {"1.0": digest}
    assert not registry.sessions("team/app")


def test_a_refusal_is_raised(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "layout")
    registry = FakeRegistry(RegistryOptions(create_repositories=False))
    with pytest.raises(RegistryError, match="NAME_UNKNOWN"):
        _push(source, registry)


@pytest.mark.parametrize("name", sorted(set(regproto_trio.__all__) & set(regproto_sync.__all__) - {"Driver"}))
def test_both_drivers_have_the_same_options(name: str) -> None:
    options = [
        {option.name: (option.kind, option.default) for option in signature(getattr(module, name)).parameters.values()}
        for module in (regproto_sync, regproto_trio)
    ]
    assert options[0] == options[1]


@pytest.mark.parametrize("returned", [None, ("bob", "s3cret")])
@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_a_keychain_that_returns_something_else(tmp_path: Path, returned: object, driver: str) -> None:
    source = image_layout(tmp_path / "layout")
    with Server(FakeRegistry(RegistryOptions(auth=Auth.BASIC, users={"bob": "s3cret"}))) as server:
        reference = f"127.0.0.1:{server.port}/team/app:1.0"
        options: dict[str, Any] = {"keychain": lambda need: returned}
        with pytest.raises(AuthenticationError, match="the keychain returned") as raised:
            if driver == "sync":
                regproto_sync.push(source, reference, **options)
            else:
                trio.run(partial(regproto_trio.push, source, reference, **options))
    assert "s3cret" not in str(raised.value)


def test_tags_that_are_a_string(tmp_path: Path) -> None:
    with pytest.raises(InvalidReferenceError, match=r"tags must be a sequence of tags: \['abc'\]"):
        regproto_sync.push(image_layout(tmp_path / "layout"), "localhost:1/app", tags="abc")
