"""What the explorer is run over, by `scripts/explore` and by tests/testing/test_explorer.py.

Each scenario is one plan, one registry and the ways its requests may be answered. Together they are
to take every edge of every table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from regproto import (
    Blob,
    Config,
    Credentials,
    Descriptor,
    Digest,
    ListReferrers,
    Manifest,
    Manifests,
    MountSource,
    NeedManifests,
    NoCredentials,
    PushPlan,
    ResolveReference,
    StreamBlob,
    plan_push,
)
from regproto._http.referrers_list import entry_of, fallback_tag
from regproto._machines.base import Edge, Outcome
from regproto._machines.blob import BlobMachine
from regproto._machines.manifest import ManifestMachine
from regproto._machines.query import QueryMachine
from regproto._machines.referrers import ReferrersMachine
from regproto._machines.source_check import SourceCheckMachine
from regproto._machines.stream import StreamMachine
from regproto._machines.token import TokenMachine, TokenState
from regproto._machines.upload import UploadMachine
from regproto._model.messages import FailureKind, Response, Send, Written
from regproto.testing import Answer, Auth, Exploration, Explorer, FakeRegistry, Grant, RegistryOptions
from regproto.testing.explorer.explorer import SECRET, _handled, fails, status

MACHINES = (
    BlobMachine,
    SourceCheckMachine,
    UploadMachine,
    ManifestMachine,
    ReferrersMachine,
    QueryMachine,
    StreamMachine,
    TokenMachine,
)
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def _descriptor(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content)}


def _image(*layers: bytes, config: bytes = b"{}") -> tuple[bytes, dict[Digest, bytes]]:
    content = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": _descriptor(config, CONFIG),
            "layers": [_descriptor(layer, LAYER) for layer in layers],
        }
    ).encode()
    return content, {Digest.of(blob): blob for blob in (config, *layers)}


def _plan(root: bytes, known: dict[Digest, bytes], **options: Any) -> PushPlan:
    manifest = Manifest.of(root)
    found = known | {manifest.descriptor.digest: root}
    return plan_push(
        "team/app",
        manifest.descriptor,
        read_manifest=lambda d: found.get(d.digest),
        find_content=lambda d: found.get(d.digest),
        tags=("1.0",),
        **options,
    )


def single(**options: Any) -> PushPlan:
    """A config, one layer, a manifest."""
    return _plan(*_image(b"layer"), **options)


def two_layers() -> PushPlan:
    """A config, two layers, a manifest."""
    return _plan(*_image(b"layer one", b"layer two"))


def two_images() -> PushPlan:
    """An index of two images that share a layer and their config."""
    one, blobs = _image(b"shared", b"one")
    two, more = _image(b"shared")
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [_descriptor(one, IMAGE), _descriptor(two, IMAGE)]}
    ).encode()
    return _plan(index, blobs | more | {Digest.of(one): one, Digest.of(two): two})


def three_tags() -> PushPlan:
    """A manifest under three tags; what it names is taken to be there."""
    whole = attrs.evolve(single(), tags=("1", "2", "3"))
    return attrs.evolve(whole, blobs=(), omitted=[d.digest for d in whole.manifests[0].names()])


def two_blobs() -> PushPlan:
    """Two blobs and no manifest."""
    return attrs.evolve(one_blob(), blobs=(*one_blob().blobs, *one_blob(b"another").blobs))


def one_blob(content: bytes = b"blob", **options: Any) -> PushPlan:
    """One blob and nothing else."""
    described = Descriptor(media_type=LAYER, digest=Digest.of(content), size=len(content))
    return PushPlan(repository="team/app", blobs=[Blob(descriptor=described, **{"source": content, **options})])


def one_stream(content: bytes = b"stream", key: str = "layer-0") -> PushPlan:
    """One stream and nothing else."""
    return PushPlan(repository="team/app", streams=[StreamBlob(key=key, media_type=LAYER, source=content)])


def stream_image(*contents: bytes) -> PushPlan:
    """An image whose layers are streams."""
    streams = [one_stream(content, f"layer-{n}").streams[0] for n, content in enumerate(contents)]
    return PushPlan(repository="team/app", streams=streams, draft=_made, tags=("1.0",))


def _made(need: NeedManifests) -> Manifests:
    config = Blob(descriptor=Descriptor(media_type=CONFIG, digest=Digest.of(b"{}"), size=2), source=b"{}")
    layers = [s.descriptor for s in need.streams]
    content = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": {"mediaType": CONFIG, "digest": config.descriptor.digest, "size": 2},
        "layers": [{"mediaType": d.media_type, "digest": d.digest, "size": d.size} for d in layers],
    }
    manifest = Manifest.of(json.dumps(content).encode())
    return Manifests(id=need.id, root=manifest.descriptor.digest, manifests=(manifest,), blobs=(config,))


@attrs.frozen(kw_only=True)
class Scenario:
    """One exploration."""

    name: str
    explorer: Explorer


PLAIN = ("ok", "401", "503", "reset", "denied")
EVERY = (
    *("ok", "401", "403", "404", "413", "416", "503", "denied", "garbled", "unconnected", "reset", "lost"),
    *("unreadable", "not the protocol", "other digest", "416 with a range", "blob unknown", "digest invalid"),
    *("bad location", "bad redirect", "bad realm"),
)
BEARER = RegistryOptions(auth=Auth.BEARER)
SESSIONS = Config(attempts=2, small_blob_bytes=0)
"""A registry that takes no single POST."""


def _scenario(
    name: str,
    *pushes: PushPlan,
    options: RegistryOptions | None = None,
    seeded: bytes = b"",
    there: bool = False,
    has: tuple[bytes, ...] = (),
    **rest: Any,
) -> Scenario:
    registry = FakeRegistry(options)
    for content in has:
        registry.put_blob("team/app", content)
    if there:
        for blob in pushes[0].blobs:
            assert isinstance(blob.source, bytes)
            registry.put_blob("team/app", blob.source)
        for manifest in reversed(pushes[0].manifests):
            registry.put_manifest("team/app", manifest.content, tag="1.0")
    if seeded:
        registry.put_blob("team/base", seeded)
    return Scenario(name=name, explorer=Explorer(pushes=pushes, registry=registry, **rest))


def scenarios() -> Iterator[Scenario]:
    """All of them, the two that are proven deepest first."""
    yield _scenario("config, 2 layers, manifest", two_layers(), options=BEARER, faults=2)
    yield _scenario("index of 2 images sharing a layer", two_images(), options=BEARER, faults=1)
    yield from _wide()
    yield from _tokens()
    yield from _streams()
    yield from _cancelled()
    yield from _crowded()
    yield from _crashed()
    yield from _attached()
    yield from _doubted()
    from explored_time import classes, late  # which are made of what is here
    from explored_unlimited import unlimited

    yield from classes()
    yield from late()
    yield from unlimited()


# --- attachments ------------------------------------------------------------------------------------------------

SUBJECT = _image(b"the subject")[0]
SUBJECT_TAG = fallback_tag(Digest.of(SUBJECT))


def attachment(number: int = 1, **fields: Any) -> Manifest:
    """An attachment of the subject whose blobs are there already."""
    raw = json.loads(_image(b"layer")[0])
    raw |= {"artifactType": "application/x.explored", "annotations": {"number": str(number)}, **fields}
    return Manifest.of(json.dumps({**raw, "subject": _descriptor(SUBJECT, IMAGE)}).encode())


def _attach(*manifests: Manifest) -> PushPlan:
    """The push of attachments alone; all they name is taken to be there."""
    absent = frozenset(d.digest for m in manifests for d in m.names())
    return PushPlan(repository="team/app", manifests=manifests, root=manifests[0].descriptor.digest, omitted=absent)


def _seeded(options: RegistryOptions, listed: Sequence[Manifest] = (), there: Sequence[Manifest] = ()) -> FakeRegistry:
    """A registry with the blobs of all attachments, these attachments, and a list of some of them."""
    registry = FakeRegistry(options)
    for blob in _image(b"layer")[1].values():
        registry.put_blob("team/app", blob)
    for manifest in (*listed, *there):
        registry.put_manifest("team/app", manifest.content)
    if listed:
        registry.put_manifest("team/app", _index(*listed), tag=SUBJECT_TAG)
    return registry


def _index(*manifests: Manifest) -> bytes:
    entries = [entry_of(manifest) for manifest in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def _list_put(send: Send) -> bool:
    return send.method == "PUT" and send.url.endswith(SUBJECT_TAG)


def _overwritten(send: Send, registry: FakeRegistry) -> Response:
    """Somebody who had read the list before puts it back as it was, without anything in it, right after our write."""
    response = _handled(send, registry)
    registry.put_manifest("team/app", _index(), tag=SUBJECT_TAG)
    return response


def _to_api(send: Send) -> bool:
    return "/referrers/" in send.url


_OCI_INDEX = ("Content-Type", INDEX)
OVERWRITTEN = Answer(name="overwritten", give=_overwritten, applies=_list_put)
NOTHING_LISTED = Answer(name="nothing listed", give=status(200, _OCI_INDEX, body=_index()), applies=_to_api)
NO_LIST = Answer(name="no list", give=status(200, _OCI_INDEX, body=b"{}"), applies=_to_api)
TOMORROW = Answer(name="503 until tomorrow", give=status(503, ("Retry-After", "86400")))
TOO_LATE = Answer(name="too late", give=fails(FailureKind.NOT_SENT, Written.NONE), applies=_list_put)
NO_API = RegistryOptions(auth=Auth.BEARER, referrers_api=False, sparse_indexes=True)


def _attached() -> Iterator[Scenario]:
    """Attachments: the list by the API and in its tag, with everything that may come between."""

    def scenario(name: str, registry: FakeRegistry, *pushes: PushPlan, **rest: Any) -> Scenario:
        rest = {"config": Config(attempts=3), "answers": EVERY, "faults": 2, **rest}
        return Scenario(name=name, explorer=Explorer(pushes=pushes, registry=registry, **rest))

    one, other, third = attachment(1), attachment(2), attachment(3)
    api = RegistryOptions(auth=Auth.BEARER)
    quiet = RegistryOptions(auth=Auth.BEARER, oci_subject=False, referrers_page=1)
    every_api = (*EVERY, NOTHING_LISTED, NO_LIST)
    yield scenario("attach, API", _seeded(api), _attach(one), answers=every_api)
    yield scenario(
        "attach, API without OCI-Subject", _seeded(quiet, there=(other, third)), _attach(one), answers=every_api
    )
    yield scenario("attach, tag", _seeded(NO_API), _attach(one), answers=(*EVERY, "412"))
    races = ("ok", "401", "denied", "404", "503", "412", "lost", "unconnected", "blob unknown", OVERWRITTEN)
    listed = _seeded(NO_API, listed=(other,))
    yield scenario("attach beside another, races", listed, _attach(one), answers=races)
    few = ("ok", "403", "garbled", "bad redirect", "other digest", OVERWRITTEN)
    yield scenario("attach beside another, refused", listed, _attach(one), answers=few)
    late = ("ok", "401", "denied", "bad realm", TOMORROW, OVERWRITTEN)
    yield scenario("attach beside another, late", listed, _attach(one), answers=late, faults=3)
    slow = ("ok", "401", "lost", TOO_LATE, OVERWRITTEN)
    yield scenario("attach beside another, too late", listed, _attach(one), answers=slow, faults=3)
    yield scenario("attach, API, later", _seeded(api), _attach(one), answers=("ok", TOMORROW))
    once = Config(attempts=2, referrers_attempts=1)
    yield scenario("attach, no second write", listed, _attach(one), answers=("ok", OVERWRITTEN), config=once)
    yield scenario("two pushes to one subject", _seeded(NO_API), _attach(one), _attach(other), answers=PLAIN, faults=1)
    yield scenario("two in one push", _seeded(NO_API), _attach(one, other), answers=("ok", "lost", OVERWRITTEN))
    stops = {"answers": ("ok", "lost", OVERWRITTEN), "cancel": True}
    yield scenario("attach, cancelled", listed, _attach(one), **stops)
    yield scenario("attach, API, cancelled", _seeded(api), _attach(one), **stops)
    yield scenario(
        "two pushes, first cancelled", _seeded(NO_API), _attach(one), _attach(other), **{**stops, "faults": 1}
    )
    asks = PushPlan(
        repository="team/app",
        lookups=[ResolveReference(reference=SUBJECT_TAG), ListReferrers(subject=Digest.of(SUBJECT))],
        reads_only=True,
    )
    nameless = attrs.evolve(NO_API, docker_content_digest=False)
    yield scenario("questions, tag", _seeded(nameless, listed=(one, other)), asks, answers=EVERY, faults=1)
    yield scenario("questions, cancelled", _seeded(nameless, listed=(one, other)), asks, cancel=True, answers=("ok",))
    paged = attrs.evolve(api, referrers_page=1)
    yield scenario(
        "questions, API", _seeded(paged, listed=(one, other)), asks, answers=(*every_api, TOMORROW), faults=1
    )
    tokens = ("ok", "401", "denied", "503", TOMORROW)
    ask = attrs.evolve(asks, lookups=asks.lookups[1:])
    resolve = attrs.evolve(asks, lookups=asks.lookups[:1])
    for name, question in (("tag or API", ask), ("reference", resolve)):
        yield scenario(
            f"question about a {name}, refused late", _seeded(nameless, listed=(one,)), question, answers=tokens
        )
        yield scenario(f"question about a {name}, faults", _seeded(nameless, listed=(one,)), question)


def _wide() -> Iterator[Scenario]:
    """Every way to answer, over small plans that reach every way to push."""
    base = (MountSource(repository="team/base"), MountSource(repository="team/other"))
    posts = {"options": BEARER, "answers": EVERY, "faults": 2}
    ignores = {**posts, "options": RegistryOptions(auth=Auth.BEARER, single_post=202)}
    patient = Config(attempts=3)
    patches = Config(attempts=3, resumable_above_bytes=0, small_blob_bytes=0)
    yield _scenario("blob by single POST", one_blob(), config=patient, **posts)
    yield _scenario("blob by POST and PUT", one_blob(), config=patient, **ignores)
    yield _scenario("blob by PATCH and PUT", one_blob(), config=patches, **posts)
    yield _scenario("blob in chunks", one_blob(), config=attrs.evolve(patches, chunk_bytes=2), **posts)
    finalising = Config(attempts=5, small_blob_bytes=0)
    late = {**posts, "answers": ("ok", "404", "503")}
    yield _scenario("commit still at work", one_blob(), config=finalising, **late)
    large = one_blob(bytes(150_000))
    yield _scenario("blob too large for a proxy", large, config=patches, **{**posts, "answers": ("ok", "413", "lost")})
    yield _scenario(
        "larger PUT", large, config=attrs.evolve(SESSIONS, small_blob_bytes=0), **{**ignores, "answers": ("ok", "413")}
    )
    open_ = {**posts, "options": RegistryOptions()}
    yield _scenario("blob in chunks, no tokens", one_blob(), config=attrs.evolve(patches, chunk_bytes=2), **open_)
    yield _scenario("blob not mounted, no tokens", one_blob(mount_from=base), **open_)
    yield _scenario("image, no tokens", single(), **open_)
    yield _scenario("blob mounted", one_blob(mount_from=base), seeded=b"blob", **posts)
    yield _scenario("blob not mounted", one_blob(mount_from=base), **posts)
    yield _scenario("blob not mounted from its source", one_blob(mount_from=base[:1]), **posts)
    yield _scenario("blob not mounted, by PATCH", one_blob(mount_from=base[:1]), config=patches, **posts)
    yield _scenario(
        "blob that is nowhere", one_blob(source=None), doomed=True, **{**posts, "answers": ("ok",), "faults": 0}
    )
    yield _scenario("image", single(), config=patient, **posts)
    yield _scenario("image by digest", attrs.evolve(single(), tags=()), config=patient, **posts)
    sessions = Config(attempts=2, small_blob_bytes=0)
    few = {**posts, "answers": ("ok", "401", "denied", "503"), "faults": 3}
    yield _scenario("2 blobs in sessions", two_blobs(), config=sessions, **{**few, "faults": 1})
    yield _scenario(
        "2 blobs by PATCH",
        two_blobs(),
        config=attrs.evolve(sessions, resumable_above_bytes=0),
        **{**few, "faults": 1},
    )
    late = {**few, "answers": ("ok", "401", "denied"), "faults": 2}
    yield _scenario(
        "2 blobs by PATCH, refused late",
        two_blobs(),
        config=attrs.evolve(sessions, resumable_above_bytes=0),
        **late,
    )
    yield _scenario("image, refused late", single(), config=patient, **{**few, "answers": ("ok", "401", "503")})
    yield _scenario("blob in a session, refused late", one_blob(), config=sessions, **few)
    busy = {**few, "answers": ("ok", "403", "416")}
    yield _scenario("session at work when given back", one_blob(), config=sessions, **busy)
    unknown = {**posts, "answers": ("ok", "blob unknown"), "faults": 2}
    yield _scenario("index, told to be incomplete", two_images(), **unknown)
    yield _scenario("tag that stays away", single(), config=patient, **{**posts, "answers": ("ok", "503"), "faults": 4})
    three = {**posts, "has": (b"{}", b"layer"), "config": Config(attempts=2)}
    yield _scenario("three tags at once", three_tags(), **three)
    lacks = RegistryOptions(tag_params=False)
    yield _scenario("three tags one by one", three_tags(), **{**three, "options": lacks, "answers": PLAIN})
    yield _scenario("blob that is there", one_blob(), there=True, config=sessions, **posts)
    yield _scenario("image that is there", single(), there=True, **posts)


def _tokens() -> Iterator[Scenario]:
    """Every way to be let in, or not."""
    ways = {"answers": EVERY, "faults": 2, "config": Config(attempts=2)}
    user = RegistryOptions(auth=Auth.BASIC, users={"user": SECRET})
    token = RegistryOptions(auth=Auth.BEARER, identity_tokens={SECRET: "user"}, anonymous_tokens=False)
    known = Credentials(id=0, username="user", password=SECRET)
    yield _scenario("basic", one_blob(), options=user, keychain=known, **ways)
    yield _scenario("basic, no credentials", one_blob(), options=user, doomed=True, **ways)
    yield _scenario(
        "identity token", one_blob(), options=token, keychain=Credentials(id=0, identity_token=SECRET), **ways
    )
    narrow = one_blob(mount_from=(MountSource(repository="team/base"),))
    yield _scenario(
        "identity token, source denied",
        narrow,
        options=attrs.evolve(token, grants=(Grant(repository="team/app"),), ungranted=403),
        keychain=Credentials(id=0, identity_token=SECRET),
        **{**ways, "answers": ("ok", "403", "denied", "503")},
    )
    yield _scenario(
        "broken keychain", one_blob(), options=user, keychain=NoCredentials(id=0, error="no"), doomed=True, **ways
    )


BARE = RegistryOptions(api_version=False, docker_content_digest=False, tag_params=False)
"""Honest, without a header by which registries are known."""
NAMELESS = RegistryOptions(auth=Auth.BEARER, docker_content_digest=False, manifest_status=200, tag_params=False)
"""Known to be a registry; it does not say what it has put."""
LIES = ("ok", "200 html", "201 of nobody")


def _doubted() -> Iterator[Scenario]:
    """Successes that prove nothing: of a registry that does not say what it has, and of what is no registry."""
    base = (MountSource(repository="team/base"),)
    lies = {"options": BARE, "answers": (*LIES, "404", "lost"), "faults": 3, "config": Config(attempts=3)}
    tag, digest = single(), attrs.evolve(single(), tags=())
    yield _scenario("image, lied to", tag, **{**lies, "faults": 2})
    yield _scenario("image by digest, lied to", digest, **{**lies, "faults": 2})
    yield _scenario("tags, lied to", three_tags(), has=(b"{}", b"layer"), **{**lies, "faults": 1})
    yield _scenario("blob, lied to", one_blob(), **lies)
    yield _scenario("blob in a session, lied to", one_blob(), **{**lies, "config": SESSIONS})
    yield _scenario("blob mounted, lied to", one_blob(mount_from=base), seeded=b"blob", **lies)
    yield _scenario("stream, lied to", one_stream(), **lies)
    yield _scenario("blob that is there, lied to", one_blob(), there=True, **{**lies, "config": SESSIONS})
    few = ("ok", "401", "denied", "404", "503", "reset", "unconnected", "lost", "other digest", "200 html")
    doubts = {"answers": few, "faults": 3, "config": Config(attempts=2)}
    nothing = {**doubts, "options": NAMELESS}
    yield _scenario("blob of nothing", one_blob(b""), **{**nothing, "config": Config(attempts=3)})
    in_session = {**nothing, "options": attrs.evolve(NAMELESS, single_post=202)}
    yield _scenario("blob of nothing in a session", one_blob(b""), **in_session)
    manifests = {**doubts, "options": NAMELESS, "has": (b"{}", b"layer")}
    bare = attrs.evolve(three_tags(), tags=("1",))
    yield _scenario("tag put without a word", bare, **manifests)
    yield _scenario("manifest put without a word", attrs.evolve(bare, tags=()), **manifests)
    stops = {"cancel": True, "faults": 2, "answers": ("ok", "lost", "404")}
    yield _scenario("tag put without a word, cancelled", bare, **{**manifests, **stops})
    yield _scenario("blob of nothing, cancelled", one_blob(b""), **{**nothing, **stops})
    yield _scenario("blob of nothing in a session, cancelled", one_blob(b""), **{**in_session, **stops})
    registry = _seeded(attrs.evolve(NAMELESS, referrers_api=False, sparse_indexes=True))
    listed = Explorer(pushes=[_attach(attachment(1))], registry=registry, answers=("ok", "404", "503", OVERWRITTEN))
    yield Scenario(name="attach, list put without a word", explorer=listed)


def _streams() -> Iterator[Scenario]:
    """Streams of which all is kept, or only the last bytes; in one body, or by ranges; beside others."""
    ways = {"answers": EVERY, "faults": 2, "options": BEARER}
    kept, forgetful = Config(attempts=3), Config(attempts=3, stream_buffer_bytes=2)
    yield _scenario("stream, all of it kept", one_stream(), config=kept, **ways)
    yield _scenario("stream, its end kept", one_stream(), config=forgetful, **ways)
    yield _scenario("stream by ranges", one_stream(), config=attrs.evolve(forgetful, chunk_bytes=2), **ways)
    length = {**ways, "options": RegistryOptions(length_required=True), "answers": PLAIN}
    yield _scenario("stream to a registry that wants a length", one_stream(), config=kept, **length)
    yield _scenario("image of a stream", stream_image(b"stream"), config=forgetful, **{**ways, "answers": PLAIN})
    beside = attrs.evolve(stream_image(b"stream", b"two"), blobs=one_blob().blobs)
    yield _scenario("image of two streams, a blob beside", beside, config=forgetful, **{**ways, "faults": 0})
    few = {**ways, "answers": ("ok", "403", "reset"), "faults": 1}
    yield _scenario("image of two streams", stream_image(b"stream", b"two"), config=forgetful, **few)
    ended = {**ways, "answers": ("ok", "lost", "503"), "cancel": True}
    yield _scenario("stream, cancelled", one_stream(), config=forgetful, **ended)
    yield _scenario("image of a stream, cancelled", stream_image(b"stream"), config=kept, **{**ended, "faults": 1})
    both = {**ended, "faults": 1, "answers": ("ok", "reset")}
    yield _scenario("two pushes, the first of a stream", one_stream(), one_blob(b"stream"), config=kept, **both)


def _cancelled() -> Iterator[Scenario]:
    """Cancelled at every state."""
    ways = {"answers": ("ok", "lost", "503"), "faults": 2, "cancel": True, "options": BEARER}
    patches = Config(attempts=2, resumable_above_bytes=0, small_blob_bytes=0)
    base = (MountSource(repository="team/base"),)
    yield _scenario("two pushes sharing, first cancelled", two_layers(), single(), **{**ways, "faults": 1})
    other = attrs.evolve(single(), tags=("2.0",))
    yield _scenario("two tags, first cancelled", single(), other, **{**ways, "faults": 1})
    refused = {**ways, "answers": ("ok", "403", "unreadable"), "cancel": False, "faults": 1}
    yield _scenario("two pushes sharing, refused", two_layers(), single(), **refused)
    follows = one_blob(mount_from=(MountSource(repository="team/base"),))
    leads = attrs.evolve(one_blob(), repository="team/base")
    yield _scenario("mounted from a push under way", leads, follows, **{**ways, "faults": 1})
    yield _scenario(
        "mounted from a push, refused", leads, follows, **{**refused, "answers": ("ok", "403", "unreadable")}
    )
    more = attrs.evolve(follows, blobs=(*follows.blobs, *one_blob(b"another").blobs))
    yield _scenario("mounted from a push, and more", leads, more, **{**ways, "answers": ("ok", "403"), "faults": 1})
    yield _scenario("one blob twice", one_blob(), one_blob(), **{**ways, "answers": ("ok", "403", "unreadable")})
    shared = {**ways, "answers": ("ok", "unreadable", "bad redirect"), "options": RegistryOptions()}
    yield _scenario("one blob twice, by POST and PUT", one_blob(), one_blob(), config=SESSIONS, **shared)
    yield _scenario("one blob twice, by PATCH", one_blob(), one_blob(), config=patches, **shared)
    yield _scenario("one blob twice, content in the first alone", one_blob(), one_blob(source=None), **shared)
    stale = ("ok", "stale connection", "stale connection, unused", "416")
    yield _scenario("PATCH over stale connections, cancelled", one_blob(), config=patches, **{**ways, "answers": stale})
    yield _scenario("image, cancelled", single(), **ways)
    three = {**ways, "has": (b"{}", b"layer"), "faults": 1}
    yield _scenario("three tags, cancelled", three_tags(), **{**three, "answers": ("ok", "unconnected"), "faults": 2})
    yield _scenario("three tags and one of them", three_tags(), attrs.evolve(three_tags(), tags=("1", "4")), **three)
    yield _scenario("image by digest, cancelled", attrs.evolve(single(), tags=()), **ways)
    yield _scenario("PATCH, cancelled", one_blob(), config=patches, **ways)
    yield _scenario("mount, cancelled", one_blob(mount_from=base), seeded=b"blob", **ways)
    put = {**ways, "options": RegistryOptions(auth=Auth.BEARER, single_post=202)}
    yield _scenario("PUT, cancelled", one_blob(), **put)
    known = Credentials(id=0, identity_token=SECRET)
    token = RegistryOptions(auth=Auth.BEARER, identity_tokens={SECRET: "user"})
    yield _scenario("identity token, cancelled", one_blob(), keychain=known, **{**ways, "options": token})


def _crowded() -> Iterator[Scenario]:
    """One place for all, so two upload sessions at most: whatever opens one waits for what ends one."""
    one = Config(attempts=2, max_exchanges=1, small_blob_bytes=0, resumable_above_bytes=0)
    base = (MountSource(repository="team/base"), MountSource(repository="team/other"))
    ways = {"options": RegistryOptions(), "config": one, "answers": ("ok", "404", "lost", "503"), "faults": 1}
    three = attrs.evolve(one_blob(), blobs=[b for n in range(3) for b in one_blob(b"blob %d" % n).blobs])
    yield _scenario("3 blobs, one place", three, **ways)
    yield _scenario("3 blobs, one place, cancelled", three, **{**ways, "answers": ("ok", "404"), "cancel": True})
    no_mount = {**ways, "options": RegistryOptions(mount=False)}
    mounts = attrs.evolve(three, blobs=[attrs.evolve(blob, mount_from=base) for blob in three.blobs])
    yield _scenario("3 blobs not mounted, one place", mounts, **{**no_mount, "answers": ("ok", "404"), "faults": 1})
    posts = {**ways, "config": attrs.evolve(one, small_blob_bytes=10, resumable_above_bytes=10)}
    ignored = {**posts, "options": RegistryOptions(single_post=202)}
    yield _scenario("3 blobs by ignored POSTs, one place", three, **ignored)
    mounted = one_blob(source=None, mount_from=base)  # else it would be sent to both repositories
    two = (mounted, attrs.evolve(mounted, repository="team/two"))
    shared = {**ways, "config": attrs.evolve(one, max_exchanges=2), "cancel": True, "answers": ("ok", "404")}
    yield _scenario("two pushes asking the same sources", *two, seeded=b"blob", **{**shared, "faults": 2})


def _crashed() -> Iterator[Scenario]:
    """The process ends at every state, and another one goes on with what was kept."""
    patches = Config(attempts=3, resumable_above_bytes=0, small_blob_bytes=0)
    chunks = attrs.evolve(patches, chunk_bytes=2)
    ways = {"answers": ("ok", "lost", "503"), "faults": 1, "crash": True, "options": BEARER}
    yield _scenario("PATCH, crashed", one_blob(), config=patches, **ways)
    yield _scenario("chunks, crashed", one_blob(), config=chunks, **ways)
    lossy = {**ways, "options": RegistryOptions(lost_sessions=True)}
    yield _scenario("chunks, crashed, cut is lost", one_blob(), config=chunks, **lossy)
    useless = {**ways, "options": RegistryOptions(upload_status=False), "answers": ("ok", "lost")}
    yield _scenario("chunks, crashed, no status", one_blob(), config=chunks, left_open=1, **useless)
    late = {**ways, "options": RegistryOptions(range_on_416=False, stale_range=True)}
    yield _scenario("chunks, crashed, stale ranges", one_blob(), config=chunks, left_open=1, **late)
    given_up = {**ways, "answers": ("ok", "lost", "404", "denied"), "cancel": True}
    yield _scenario("chunks, crashed or cancelled", one_blob(), config=chunks, **given_up)
    base = (MountSource(repository="team/base"),)
    yield _scenario("mount, crashed", one_blob(mount_from=base), config=patches, seeded=b"blob", **ways)
    yield _scenario("not mounted, crashed", one_blob(mount_from=base), config=patches, **ways)
    yield _scenario("single POST, crashed", one_blob(), **ways)
    plain = {**ways, "options": RegistryOptions(), "faults": 0}
    yield _scenario("image, crashed", single(), config=patches, **plain)
    yield _scenario("2 blobs, crashed", two_blobs(), config=patches, **plain)


def every_edge() -> frozenset[Edge]:
    """Every (machine, state, outcome) in a table."""
    return frozenset(
        (machine.NAME, state, outcome)
        for machine in MACHINES
        for state, row in machine.TABLE.items()
        for outcome in row
    )


def show(scenario: Scenario, found: Exploration, seconds: float) -> str:
    """One line of the table."""
    ends = ", ".join(f"{count} {how.value}" for how, count in sorted(found.finished.items(), key=lambda e: e[0].value))
    return (
        f"{scenario.name:36} {found.states:>7} {found.transitions:>8} {found.requests_max:>5} {seconds:>7.1f}  {ends}"
    )


UNREACHED: dict[Edge, str] = {
    (
        "token",
        TokenState.AWAITING_CREDENTIALS,
        Outcome.CANCEL,
    ): "the explorer's keychain answers at once; see tests/machines/test_token.py",
}
"""Edges no scenario takes, and why."""
