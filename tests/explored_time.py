"""More of what the explorer is run over: other classes of answers, and no answer at all.

A part of tests/explored.py, which has the plans and how a scenario is made.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from explored import (
    BEARER,
    NO_API,
    SESSIONS,
    Scenario,
    _attach,
    _scenario,
    _seeded,
    attachment,
    one_blob,
    one_stream,
    single,
    three_tags,
    two_layers,
)
from regproto import Config, Credentials, MountSource
from regproto.testing import Auth, Explorer, RegistryOptions
from regproto.testing.explorer.explorer import SECRET


def classes() -> Iterator[Scenario]:
    """Classes of answers that the scenarios above leave out: other refusals, waits asked for, bodies half taken in."""
    more = ("ok", "400", "409", "429", "half sent", "truncated", "lost")
    ways = {"answers": more, "faults": 2, "options": BEARER}
    base = (MountSource(repository="team/base"),)
    patches = Config(attempts=2, resumable_above_bytes=0, small_blob_bytes=0)
    yield _scenario("blob by single POST, other classes", one_blob(), **ways)
    yield _scenario("blob by POST and PUT, other classes", one_blob(), config=SESSIONS, **ways)
    yield _scenario("blob in chunks, other classes", one_blob(), config=attrs.evolve(patches, chunk_bytes=2), **ways)
    lost = {**ways, "options": RegistryOptions(auth=Auth.BEARER, lost_sessions=True)}
    yield _scenario("blob by PATCH, cut sessions are lost", one_blob(), config=patches, **lost)
    yield _scenario("blob mounted, other classes", one_blob(mount_from=base), seeded=b"blob", **ways)
    yield _scenario("image, other classes", single(), **ways)
    yield _scenario("stream, other classes", one_stream(), config=Config(attempts=2), **ways)
    attached = Explorer(pushes=[_attach(attachment(1))], registry=_seeded(NO_API), answers=more, faults=1)
    yield Scenario(name="attach, other classes", explorer=attached)


def late() -> Iterator[Scenario]:
    """No answer at all: the limits of the core are met, on exchanges, on whole pushes, and on giving back."""
    ways = {"answers": ("ok", "503"), "faults": 2, "timeouts": True, "options": BEARER}
    limit = {"push_timeout_s": 8.0, "cleanup_timeout_s": 4.0}
    base = (MountSource(repository="team/base"),)
    sessions = attrs.evolve(SESSIONS, cleanup_timeout_s=4.0)
    patches = attrs.evolve(sessions, resumable_above_bytes=0)
    silent = {
        "single POST": ([one_blob()], Config(attempts=2)),
        "POST and PUT": ([one_blob()], sessions),
        "PATCH": ([one_blob()], patches),
        "chunks": ([one_blob()], attrs.evolve(patches, chunk_bytes=2)),
        "mount": ([one_blob(mount_from=base)], sessions),
        "image": ([single()], Config(attempts=2)),
        "stream": ([one_stream()], Config(attempts=2)),
        "three tags": ([three_tags()], Config(attempts=2)),
        "two pushes sharing": ([two_layers(), single()], Config(attempts=2)),
    }
    for name, (pushes, config) in silent.items():
        few = {**ways, "faults": 1} if name in ("three tags", "two pushes sharing") else ways
        if name == "three tags":
            few["has"] = (b"{}", b"layer")
        if len(pushes) == 1:
            yield _scenario(f"{name}, silence", *pushes, config=config, **few)
        late = {**few, "answers": ("ok",)}
        yield _scenario(f"{name}, push timeout", *pushes, config=attrs.evolve(config, **limit), **late)
    yield _scenario("PATCH, silence, cancelled", one_blob(), config=patches, **{**ways, "cancel": True})
    shared = {**ways, "answers": ("ok",), "options": RegistryOptions(), "cancel": True}
    yield _scenario("one blob twice, cancelled in silence", one_blob(), one_blob(), config=patches, **shared)
    known = Credentials(id=0, identity_token=SECRET)
    token = {**ways, "options": RegistryOptions(auth=Auth.BEARER, identity_tokens={SECRET: "user"})}
    yield _scenario(
        "identity token, silence", one_blob(), keychain=known, config=attrs.evolve(sessions, **limit), **token
    )
    hours = {**ways, "timeouts": False, "hours": True, "answers": ("ok", "401", "lost")}
    yield _scenario("chunks, an hour passes", one_blob(), config=attrs.evolve(patches, chunk_bytes=2), **hours)
    yield _scenario("image, an hour passes", single(), **hours)
    yield _scenario(
        "identity token, an hour passes", one_blob(), keychain=known, **{**hours, "options": token["options"]}
    )


NOT_COVERED = (
    "more than two blobs, images or pushes at once; more faults on a path than each scenario says (1 to 4)",
    "statuses one by one: each class stands for those the core does not tell apart (503 for 408, 425, 499, 5xx)",
    "silence under two pushes at once, but with a limit on the whole push: the orders of limits are too many to walk",
    "a body that stops in the middle: it is told to be sent, and then nothing comes",
    "the keychain's delay: it answers at once (tests/machines/test_token.py has the rest)",
    "answers without a limit while two things are under way: the counts of both are too many to walk",
    "headers and bodies out of the ordinary: tests/engine/test_fuzz_session.py",
    "redirects that lead somewhere, and other hosts: tests/engine/test_retries.py",
)
"""What the walk leaves out."""
