"""More of what the explorer is run over: answers that do not count as faults, and come as often as anything is asked.

Connections that close are nobody's fault; and a peer that means ill gives any answer again and again. A part of
tests/explored.py, which has the plans and how a scenario is made. One thing at a time is walked: each state is met with
every count, and two things would be met with the product of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from explored import (
    BEARER,
    EVERY,
    NO_API,
    SESSIONS,
    SUBJECT,
    SUBJECT_TAG,
    Scenario,
    _attach,
    _scenario,
    _seeded,
    attachment,
    one_blob,
    one_stream,
    three_tags,
)
from regproto import Config, Credentials, Digest, ListReferrers, MountSource, PushPlan, ResolveReference
from regproto.testing import Auth, Explorer, FakeRegistry, RegistryOptions
from regproto.testing.explorer.explorer import ANSWERS, OUT_OF_ORDER, SECRET, _commit, _manifest_put

CLOSES = ("stale connection",)
CUTS = (*CLOSES, "stale connection, half done")
DONE = attrs.evolve(
    ANSWERS["stale connection, done"],
    applies=lambda send: _commit(send) or _manifest_put(send),
    name="closes when done",
)
FAILS = ("503", "404", "stale connection")
ANY = tuple(name for name in EVERY if name != "ok")
PATCHES = attrs.evolve(SESSIONS, resumable_above_bytes=0)
BASE = (MountSource(repository="team/base"),)


def _asked(lookup: ResolveReference | ListReferrers) -> PushPlan:
    return PushPlan(repository="team/app", lookups=[lookup], reads_only=True)


def unlimited() -> Iterator[Scenario]:
    """Every way to push, over connections that close again and again; then with refusals that do not end."""
    ways: dict[str, Any] = {"answers": ("ok",), "faults": 0, "unlimited": CLOSES, "config": Config(attempts=2)}
    tag, there = attrs.evolve(three_tags(), tags=("1",)), {"has": (b"{}", b"layer")}
    yield _scenario("tag, closes", tag, **{**ways, **there, "unlimited": OUT_OF_ORDER})
    yield _scenario("manifest, closes", attrs.evolve(tag, tags=()), **{**ways, **there, "unlimited": OUT_OF_ORDER})
    yield _scenario("two tags, closes", attrs.evolve(tag, tags=("1", "2")), **ways, **there)
    yield _scenario("single POST, closes", one_blob(), **{**ways, "unlimited": (*CLOSES, DONE)})
    yield _scenario("POST and PUT, closes", one_blob(), **{**ways, "config": SESSIONS, "unlimited": (*CLOSES, DONE)})
    patches = {**ways, "config": PATCHES}
    yield _scenario("PATCH, closes", one_blob(), **{**patches, "unlimited": CUTS})
    yield _scenario("chunks, closes", one_blob(), **{**ways, "config": attrs.evolve(PATCHES, chunk_bytes=2)})
    yield _scenario("PATCH, closes, cancelled", one_blob(), cancel=True, **{**patches, "faults": 1})
    yield _scenario("mount, closes", one_blob(mount_from=BASE), seeded=b"blob", **{**ways, "config": SESSIONS})
    yield _scenario("stream, closes", one_stream(), **ways)
    known = Credentials(id=0, identity_token=SECRET)
    token = RegistryOptions(auth=Auth.BEARER, identity_tokens={SECRET: "user"})
    yield _scenario("identity token, closes", one_blob(), keychain=known, options=token, **ways)

    def listed(name: str, options: RegistryOptions, push: PushPlan, **more: Any) -> Scenario:
        registry = _seeded(options, listed=(attachment(2), attachment(3)))
        return Scenario(name=name, explorer=_explorer(registry, push, {**ways, **more}))

    few = {"config": Config(attempts=2, referrers_attempts=2)}
    no_api = attrs.evolve(NO_API, auth=Auth.NONE)
    paged = RegistryOptions(referrers_page=1)
    yield listed("list in a tag, closes", no_api, _attach(attachment(1)), **few)
    yield listed("list in a tag, 503", no_api, _attach(attachment(1)), **few, unlimited=("503",))
    yield listed("list by the API, closes", paged, _attach(attachment(1)), **few)
    yield listed(
        "question about a list, fails", paged, _asked(ListReferrers(subject=Digest.of(SUBJECT))), unlimited=FAILS
    )
    nameless = attrs.evolve(no_api, docker_content_digest=False)
    yield listed("question about a tag, any", nameless, _asked(ResolveReference(reference=SUBJECT_TAG)), unlimited=ANY)

    yield _scenario("tag, any", tag, options=BEARER, **{**ways, **there, "unlimited": ANY})
    yield _scenario("PATCH, fails", one_blob(), **{**patches, "unlimited": FAILS})
    stale = ("503", "404", "416", "416 with a range")
    yield _scenario("PATCH, out of range", one_blob(), **{**patches, "unlimited": stale})
    yield _scenario("PATCH, 401", one_blob(), options=BEARER, **{**patches, "unlimited": ("401",)})
    yield _scenario("POST and PUT, 503 and 404", one_blob(), **{**ways, "config": SESSIONS, "unlimited": FAILS[:2]})
    yield _scenario("mount, 503", one_blob(mount_from=BASE), **{**ways, "config": SESSIONS, "unlimited": ("503",)})


def _explorer(registry: FakeRegistry, push: PushPlan, ways: dict[str, Any]) -> Explorer:
    return Explorer(pushes=[push], registry=registry, **ways)
