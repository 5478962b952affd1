"""Going on after a crash: what is kept and when, what is trusted of it, and what becomes of sessions nobody wants."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import (
    BASE,
    CUT,
    HANG,
    LOST,
    NOT_SENT,
    PASS,
    PATCHES,
    Answer,
    Play,
    always,
    content_of,
    cut_after,
    header,
    refuse,
    say,
)
from pushes import REPO, blob, blobs_push, image
from regproto import (
    Config,
    ContentError,
    Digest,
    PushOutcome,
    PushResult,
    PushTimeoutError,
    RegistryError,
    Save,
    Send,
    Session,
    Status,
    merge_kept,
    plan_push,
)
from regproto._machines.base import Outcome, RegistryCapabilities
from regproto._machines.upload import UploadMachine, UploadState
from regproto.testing import Auth, LocationStyle

CONTENT = bytes(range(200))
DIGEST = Digest.of(CONTENT)
CHUNKS = attrs.evolve(PATCHES, chunk_bytes=50)
LAYER = attrs.evolve(blob(CONTENT), identity="1")
PUSH = blobs_push(LAYER)


def uploads(data: bytes) -> list[dict[str, Any]]:
    """What stands in a hint."""
    found: list[dict[str, Any]] = json.loads(data)["uploads"] if data else []
    return found


def cut(taken: int, config: Config = PATCHES, push: Any = PUSH, **options: Any) -> Play:
    """A push that is under way when its process ends: the registry has taken this much of the body it was sent."""
    play = Play(config=config, save=True, **options)
    play.submit(push)
    play.answer(play.until("PATCH"), cut_after(taken))
    return play


def again(first: Play, script: Any = None, config: Config = PATCHES, **changes: Any) -> Play:
    """A later process, with what the first one kept."""
    changes = {"hint": first.saves[-1], "save": True, **changes}
    return Play(script, config=config, registry=first.registry, **changes)


def ranges(play: Play) -> list[str | None]:
    return [header(send, "content-range") for send in play.sent("PATCH")]


def whole(play: Play) -> bool:
    """The content came through, nothing is left open, and nothing to be kept."""
    there = play.registry.blobs(REPO) >= {DIGEST} and play.registry.content(DIGEST) == CONTENT
    return there and not play.registry.sessions(REPO) and play.saves[-1:] in ([], [b""])


# --- what is kept, and when -------------------------------------------------------------------------------------


def test_kept_before_the_first_body_after_each_range_and_no_more_at_the_end() -> None:
    session = Session(BASE, CHUNKS, save=True)
    play = Play(config=CHUNKS)
    play.session = session
    play.submit(PUSH)
    seen: list[str] = []
    while play.open:
        output = play.poll()
        if isinstance(output, Send):
            seen.append(f"{output.method} {len(content_of(output))}")
        elif isinstance(output, Save):
            seen.append(" ".join(["save", *(str(upload["offset"]) for upload in uploads(output.data))]))
        else:
            play.answer_next()
    assert seen == [
        *("HEAD 0", "POST 0", "save 0", "PATCH 50", "save 50", "PATCH 50", "save 100", "PATCH 50", "save 150"),
        *("PATCH 50", "save 200", "PUT 0", "save"),
    ]


def test_what_is_kept_is_little_and_plain() -> None:
    play = cut(120, auth=Auth.BEARER, users={"user": "s3cret"}, keychain={"username": "user", "password": "s3cret"})
    [data] = play.saves
    assert json.loads(data) == {
        "version": 1,
        "registry": BASE,
        "single_post": None,
        "uploads": [
            {
                "repository": REPO,
                "digest": str(DIGEST),
                "size": 200,
                "identity": "1",
                "location": play.sends[-1].url,
                "offset": 0,
                "chunk_min_bytes": 0,
            }
        ],
    }
    assert b"s3cret" not in data and b"Bearer" not in data
    token = header(play.sends[-1], "authorization")
    assert token is not None and token.removeprefix("Bearer ").encode() not in data
    assert "uploads/" not in repr(Save(data=data)) and "uploads/" not in repr(play.session._pushes.checkpoint)


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    play = Play(config=PATCHES)
    play.run(PUSH)
    assert play.saves == []


def test_blobs_that_go_in_one_request_are_not_kept() -> None:
    play = Play(config=Config(small_blob_bytes=0), save=True)
    play.run(PUSH)
    assert play.names == ["HEAD blob", "POST start", "PUT blob"] and play.saves == []


def test_the_identity_is_the_source_s_own() -> None:
    @attrs.frozen
    class Source:
        identity = "7"

    root = image(CONTENT).manifest
    plan = plan_push(
        REPO, root.descriptor, read_manifest=lambda _: root.content, find_content=lambda _: Source(), tags=["1"]
    )
    assert [b.identity for b in plan.blobs] == ["7", "7"]


# --- going on ---------------------------------------------------------------------------------------------------


def test_it_goes_on_where_the_registry_is() -> None:
    play = again(cut(120))
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names == ["HEAD blob", "GET session", "PATCH", "PUT commit"]
    assert ranges(play) == ["120-199"] and whole(play)
    [told] = play.told(Status.RESUMED)
    assert (told.subject, told.sent_bytes, told.size_bytes) == (DIGEST, 120, 200)


def test_a_session_the_registry_lost_is_said_and_pushed_afresh() -> None:
    # As distribution 2.8: what is cut in the middle of a body is gone.
    play = again(cut(120, CHUNKS, lost_sessions=True))
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names == ["HEAD blob", "GET session", "POST start", "PATCH", "PUT commit"]
    [told] = play.told(Status.RESTARTED)
    assert "loses an upload session whose request is cut in the middle" in told.text
    assert not play.told(Status.RESUMED)


def test_what_arrived_meanwhile_is_not_sent_again() -> None:
    first = Play(config=PATCHES, save=True)
    first.submit(PUSH)
    first.answer(first.until("PUT commit"), LOST)
    first.registry.put_blob(REPO, CONTENT)
    play = again(first)
    assert play.run(PUSH).existing == (DIGEST,)
    assert play.names == ["HEAD blob", "GET session", "DELETE session"] and whole(play)
    assert not play.told(Status.RESUMED)


def test_all_was_there_but_the_commit() -> None:
    first = Play(config=PATCHES, save=True)
    first.submit(PUSH)
    first.until("PUT commit")
    assert uploads(first.saves[-1])[0]["offset"] == 200
    play = again(first)
    play.run(PUSH)
    assert play.names == ["HEAD blob", "GET session", "PUT commit"] and whole(play)


def test_it_can_crash_again_and_again() -> None:
    first = cut(50)
    second = again(first)
    second.submit(PUSH)
    second.answer(second.until("PATCH"), cut_after(70))
    third = again(second)
    third.run(PUSH)
    assert ranges(third) == ["120-199"] and whole(third)


def test_a_crash_before_the_kept_session_was_asked_keeps_it() -> None:
    first = cut(50)
    second = again(first)
    second.submit(PUSH)
    second.until("GET session")
    assert second.saves == []
    third = again(first)
    third.run(PUSH)
    assert ranges(third) == ["50-199"] and whole(third)


def test_without_saving_it_goes_on_all_the_same() -> None:
    play = again(cut(50), save=False)
    play.run(PUSH)
    assert ranges(play) == ["50-199"] and whole(play)


def test_a_mount_is_not_tried_again() -> None:
    mounts = blobs_push(attrs.evolve(LAYER, mount_from=blob(CONTENT, "team/base").mount_from))
    first = cut(50, push=mounts)
    assert "POST mount" in first.names
    play = again(first)
    play.run(mounts)
    assert "POST mount" not in play.names and whole(play)


def test_what_was_learned_goes_with_it() -> None:
    small = blob(b"small")
    first = Play(config=attrs.evolve(PATCHES, small_blob_bytes=100, resumable_above_bytes=100), save=True)
    first.on({"POST blob": [refuse(405, "UNSUPPORTED")]})
    first.submit(blobs_push(LAYER, small))
    first.answer(first.until("PATCH"), cut_after(50))
    assert json.loads(first.saves[-1])["single_post"] is False
    play = again(first, config=first.session.config)
    play.run(blobs_push(LAYER, small, blob(b"another")))
    assert "POST blob" not in play.names


def test_a_status_of_no_use_keeps_the_count_that_was_kept() -> None:
    # As public ECR, after two chunks of four.
    first = Play(config=CHUNKS, save=True, location_query=False)
    first.submit(PUSH)
    while not first.saves or uploads(first.saves[-1])[0]["offset"] < 100:
        first.step()
    play = again(first, {"GET session": always(say(404))}, CHUNKS)
    play.run(PUSH)
    assert ranges(play) == ["100-149", "150-199"] and whole(play)


@pytest.mark.parametrize("status", [400, 403, 405, 416, 500])
def test_a_kept_session_that_is_refused_costs_only_itself(status: int) -> None:
    answers = 5 if status == 500 else 2
    script = {
        "GET session": [refuse(status, "UNKNOWN")] * answers,
        "PATCH": [refuse(status, "UNKNOWN")] * (status != 500),
    }
    first = cut(50, CHUNKS)
    hint = first.saves[-1].replace(b'"offset":0', b'"offset":50')
    play = again(first, script, CHUNKS, hint=hint)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names.count("POST start") == 1 and play.saves[-1] == b""


def test_one_attempt_is_enough_for_a_kept_session_that_is_lost() -> None:
    config = attrs.evolve(PATCHES, attempts=1)
    play = again(cut(120, lost_sessions=True), config=config)
    assert play.run(PUSH).uploaded == (DIGEST,)


def test_a_refused_digest_drops_the_hint() -> None:
    play = again(cut(120), {"PUT commit": [refuse(400, "DIGEST_INVALID")]})
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert ranges(play) == ["120-199", None]
    assert [len(uploads(data)) for data in play.saves] == [1, 1, 0, 1, 1, 0]


# --- what is not trusted ----------------------------------------------------------------------------------------


def spoiled(data: bytes, **changes: Any) -> bytes:
    """A hint with other values, `upload_` ones in its upload."""
    content = json.loads(data)
    for name, value in changes.items():
        if name.startswith("upload_"):
            content["uploads"][0][name.removeprefix("upload_")] = value
        else:
            content[name] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "another version"),
        ({"version": None}, "another version"),
        ({"registry": "https://registry.example:5000"}, "another registry"),
        ({"uploads": {}}, "uploads is not of type list"),
        ({"uploads": [1]}, "not a JSON object"),
        ({"upload_size": "200"}, "size is not of type int"),
        ({"upload_size": True}, "size is not of type int"),
        ({"upload_offset": -1}, "out of range"),
        ({"upload_offset": 201}, "more was acknowledged"),
        ({"upload_digest": "sha256:0"}, "not a digest"),
        ({"upload_repository": "../x"}, "repository"),
        ({"upload_location": None}, "location is not of type str"),
        ({"upload_chunk_min_bytes": "x"}, "chunk_min_bytes is not of type int"),
        ({"upload_identity": 7}, "identity is not of type str"),
        ({"upload_location": "/v2/x"}, "not whole"),
        ({"upload_location": "http://registry.example/up"}, "plain http"),
        ({"upload_location": "https://10.0.0.1/up"}, "private network"),
        ({"upload_location": "https://user:secret@registry.example/up"}, "user name or password"),
        ({"upload_location": "https://registry.example/up\r\nX: y"}, "control characters"),
        ({"upload_location": "file:///etc/passwd"}, "http"),
        *(
            ({"upload_location": f"{base}{path}?x=secret"}, f"is not an upload URL of {REPO}")
            for base in (BASE, f"{BASE}:443", BASE.upper().replace("HTTPS", "https"))
            for path in (
                "/v2/victim/manifests/latest",
                "/v2/victim/blobs/uploads/1",
                f"/v2/{REPO}/manifests/latest",
                f"/v2/{REPO}/blobs/{DIGEST}",
                f"/v2/{REPO}/blobs/uploads/%2e%2E/{DIGEST}",
                f"/v2/{REPO}/blobs/uploads/%252e./..%5C../manifests/latest",
                f"/v2/{REPO}/blobs/uploads/..%2f..%2fmanifests/latest",
                "//v2//victim/manifests/latest",
                "/%76%32/victim/manifests/latest",
                "/x/%2e%2e/v2/victim/manifests/latest",
            )
        ),
    ],
)
def test_what_is_not_trusted_is_said_and_pushed_afresh(changes: dict[str, Any], says: str) -> None:
    first = cut(120)
    play = again(first, hint=spoiled(first.saves[-1], **changes))
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert play.names == ["HEAD blob", "POST start", "PATCH", "PUT commit"]
    [told] = play.told(Status.NOT_RESUMED)
    assert says in told.text and "secret" not in told.text and told.text.isprintable()
    assert play.saves[-1] == b""


@pytest.mark.parametrize(
    "path", [f"/v2/{REPO}/blobs/uploads/1%2f2", f"/v2/{REPO}/blobs/upload/1", "/uploads/v2/1", "/v2uploads/1"]
)
def test_upload_urls_that_registries_make(path: str) -> None:
    first = cut(120)
    play = again(first, hint=spoiled(first.saves[-1], upload_location=f"{BASE}{path}"))
    play.on({"GET": always(say(404))})
    play.run(PUSH)
    assert [send.url for send in play.sends if send.method == "GET"] == [f"{BASE}{path}"]


@pytest.mark.parametrize("answer", [say(404), say(200), say(204, Range="0-500"), say(403), PASS])
def test_what_is_not_wanted_is_deleted_only_if_the_registry_knows_it(answer: Any) -> None:
    play = again(cut(120), {"GET session": always(answer)})
    result = play.run(blobs_push(attrs.evolve(LAYER, identity="2")))
    assert result.outcome is PushOutcome.PUSHED
    assert play.names.count("DELETE session") == (answer is PASS)
    assert "GET session" in play.names and not play.told(Status.RESUMED)
    assert result.left_open == (answer not in (PASS, say(404))), "what stays open is said"


@pytest.mark.parametrize("answer", [say(202), refuse(403, "DENIED"), refuse(400, "UNSUPPORTED")])
def test_what_has_no_status_and_takes_nothing_is_not_deleted(answer: Any) -> None:
    # As public ECR has none; without it there is only what was kept.
    first = cut(50, CHUNKS)
    hint = first.saves[-1].replace(b'"offset":0', b'"offset":50')
    play = again(first, {"GET session": [say(404)], "PATCH": [answer]}, CHUNKS, hint=hint)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert "DELETE session" not in play.names


def test_a_push_that_is_denied_deletes_no_session_that_has_not_answered() -> None:
    first = cut(50, CHUNKS)
    hint = first.saves[-1].replace(b'"offset":0', b'"offset":50')
    denies = {"GET session": always(say(404)), "PATCH": always(say(401))}
    play = again(first, denies, CHUNKS, hint=hint, save=False)
    assert play.run(PUSH).outcome is PushOutcome.FAILED
    kept = uploads(hint)[0]["location"]
    assert [send.method for send in play.sends if send.url == kept] == ["GET", "PATCH"]


def test_what_has_not_answered_is_asked_before_it_is_deleted() -> None:
    upload = UploadMachine(
        base=BASE,
        repository=REPO,
        blob=LAYER,
        state=UploadState.CLOSING,
        location=f"{BASE}/v2/{REPO}/blobs/uploads/1",
        offset=50,
        sent=LAYER.descriptor.size,
        unverified=True,
    )
    assert upload.decide(RegistryCapabilities(), PATCHES) is Outcome.LOOK


@pytest.mark.parametrize("hint", [b"{", b"[]", b"\xff", b"1" * 5_000, b"[" * 100_000, b"null"])
def test_what_is_no_hint_at_all(hint: bytes) -> None:
    play = Play(config=PATCHES, hint=hint, save=True)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert len(play.told(Status.NOT_RESUMED)) == 1 and play.saves[0] == b""


def test_an_origin_that_is_not_trusted_any_more() -> None:
    first = cut(120, location_style=LocationStyle.OTHER_HOST)
    config = attrs.evolve(PATCHES, trust_origin=lambda origin: False)
    play = Play(config=config, hint=first.saves[-1], save=True)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert "not trusted" in play.told(Status.NOT_RESUMED)[0].text


def test_an_upload_host_of_the_registry_s_is_gone_on_with_and_gets_no_authorization() -> None:
    first = cut(120, location_style=LocationStyle.OTHER_HOST, auth=Auth.BEARER)
    play = again(first)
    play.run(PUSH)
    elsewhere = [send for send in play.sends if send.url.startswith("https://uploads.example/")]
    assert [send.method for send in elsewhere] == ["GET", "PATCH", "PUT"]
    assert not any(header(send, "authorization") for send in elsewhere) and whole(play)


@pytest.mark.parametrize(("identity", "size"), [("2", 200), ("", 200)])
def test_changed_content_is_said_and_pushed_afresh(identity: str, size: int) -> None:
    play = again(cut(120))
    changed = blobs_push(attrs.evolve(LAYER, identity=identity))
    assert play.run(changed).uploaded == (DIGEST,)
    [told] = play.told(Status.NOT_RESUMED)
    assert told.subject == DIGEST and "content" in told.text
    assert "DELETE session" in play.names and ranges(play) == [None] and whole(play)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_HINT = {
    "version": 1,
    "registry": BASE,
    "single_post": None,
    "uploads": [
        {
            "repository": REPO,
            "digest": str(DIGEST),
            "size": 200,
            "identity": "1",
            "location": f"{BASE}/v2/{REPO}/blobs/uploads/1",
            "offset": 100,
            "chunk_min_bytes": 0,
        }
    ],
}


@settings(deadline=None)  # a loaded machine is no failure
@given(st.data())
def test_no_hint_whatever_breaks_a_push(data: st.DataObject) -> None:
    hint = json.loads(json.dumps(_HINT))
    where = data.draw(st.sampled_from([hint, hint["uploads"][0]]))
    where[data.draw(st.sampled_from(sorted(where)))] = data.draw(json_values)
    play = Play(config=PATCHES, hint=json.dumps(hint).encode(), save=True)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.saves[-1] == b"" and play.registry.content(DIGEST) == CONTENT


# --- what is left open, and what is not -------------------------------------------------------------------------


def test_a_push_that_can_t_go_on_leaves_its_upload_for_a_later_one() -> None:
    play = Play({"PATCH": [cut_after(120), *[NOT_SENT] * 5]}, config=PATCHES, save=True)
    result = play.run(PUSH)
    assert result.outcome is PushOutcome.FAILED
    assert "DELETE session" not in play.names and uploads(play.saves[-1])[0]["offset"] == 120
    later = again(play)
    later.run(PUSH)
    assert ranges(later) == ["120-199"] and whole(later)


def test_a_registry_that_was_away_for_too_long() -> None:
    # No answer to anything: the upload session is not known to be gone.
    play = Play(config=PATCHES, save=True)
    play.submit(PUSH)
    play.answer(play.until("PATCH"), cut_after(120))
    play.on({name: always(NOT_SENT) for name in ("GET session", "POST start", "PATCH")})
    assert play.run().outcome is PushOutcome.FAILED
    later = again(play)
    later.run(PUSH)
    assert ranges(later) == ["120-199"] and whole(later)


@pytest.mark.parametrize("name", ["PATCH", "GET session", "PUT commit", "HEAD blob"])
def test_a_cancelled_push_leaves_its_upload_for_a_later_one(name: str) -> None:
    play = Play({"PATCH": [cut_after(120)], "PUT commit": [LOST]}, config=PATCHES, save=True)
    push_id = play.submit(PUSH)
    play.until("PATCH")
    if name != "PATCH":
        play.answer(play.sends[-1], cut_after(120))
        play.until(name)
    play.session.cancel(push_id)
    assert play.run().outcome is PushOutcome.CANCELLED
    assert "DELETE session" not in play.names and len(uploads(play.saves[-1])) == 1
    later = again(play)
    later.run(PUSH)
    assert whole(later)


def test_cancelled_before_a_kept_session_was_asked() -> None:
    first = cut(120)
    play = again(first)
    push_id = play.submit(PUSH)
    play.until("HEAD blob")
    play.session.cancel(push_id)
    assert play.run().outcome is PushOutcome.CANCELLED
    assert play.names == ["HEAD blob"] and play.saves == []


def test_a_session_with_nothing_in_it_is_given_back() -> None:
    play = Play(config=PATCHES, save=True)
    push_id = play.submit(PUSH)
    start = play.until("POST start")
    play.session.cancel(push_id)
    play.answer(start, PASS)
    assert play.run().outcome is PushOutcome.CANCELLED
    assert play.names[-1] == "DELETE session" and not play.registry.sessions(REPO)
    assert play.saves[-1:] in ([], [b""])


def test_a_refusal_gives_back_what_it_refused() -> None:
    play = Play({"PATCH": [refuse(403, "DENIED")]}, config=PATCHES, save=True)
    assert isinstance(play.run(PUSH).error, RegistryError)
    assert play.names[-1] == "DELETE session" and play.saves[-1] == b""


def test_what_is_no_part_of_a_push_is_carried_over_unchanged_and_said() -> None:
    first = cut(120)
    play = again(first)
    assert play.run(blobs_push(blob(b"another"))).outcome is PushOutcome.PUSHED
    assert play.names == ["HEAD blob", "POST start", "PATCH", "PUT commit"], "nothing of it is asked"
    [told] = play.told(Status.NOT_RESUMED)
    assert told.subject == DIGEST and "was left as it is" in told.text
    assert play.saves[-1] == first.saves[-1]
    play.run(blobs_push(blob(b"a third")))
    assert len(play.told(Status.NOT_RESUMED)) == 1, "said once"
    later = again(first)
    later.run(PUSH)
    assert ranges(later) == ["120-199"] and whole(later)


def test_half_of_what_is_kept_is_another_s() -> None:
    """A worker that goes on with its half leaves the other half's uploads as they are, in what it keeps itself too."""
    theirs = attrs.evolve(blob(bytes(300)), identity="2")
    first = Play({"PATCH": always(HANG)}, config=PATCHES, save=True)
    first.submit(blobs_push(LAYER, theirs))
    first.settle()
    both = {upload["digest"]: upload for upload in uploads(first.saves[-1])}
    assert len(both) == 2
    play = again(first)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    [kept] = uploads(play.saves[-1])
    assert kept == both[str(theirs.descriptor.digest)]
    assert len(play.registry.sessions(REPO)) == 1 and "DELETE session" not in play.names
    other = again(play)
    assert other.run(blobs_push(theirs)).outcome is PushOutcome.PUSHED
    assert "POST start" not in other.names and not other.registry.sessions(REPO) and other.saves[-1] == b""


def test_a_second_push_of_the_same_session_goes_on_with_what_the_first_left() -> None:
    play = Play({"PATCH": [cut_after(120), *[NOT_SENT] * 5]}, config=PATCHES, save=True)
    play.run(PUSH)
    play.run(PUSH)
    assert ranges(play)[-1] == "120-199" and whole(play)


def test_the_faults_of_one_blob_do_not_touch_another_s() -> None:
    other = attrs.evolve(blob(bytes(300)), identity="2")
    both = blobs_push(LAYER, other)
    first = Play({f"PATCH {REPO}": always(CUT)}, config=attrs.evolve(PATCHES, attempts=1), save=True)
    first.run(both)
    kept = {upload["digest"] for upload in uploads(first.saves[-1])}
    assert kept <= {str(DIGEST), str(other.descriptor.digest)}
    play = again(first)
    assert play.run(both).outcome is PushOutcome.PUSHED and not play.registry.sessions(REPO)


@settings(deadline=None)  # a loaded machine is no failure
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_given_as_a_hint(hint: bytes) -> None:
    play = Play(config=PATCHES, hint=hint, save=True)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert len(play.told(Status.NOT_RESUMED)) == bool(hint)


def test_what_was_left_in_another_repository_is_said_and_carried_over() -> None:
    first = cut(120)
    play = again(first)
    assert play.run(blobs_push(blob(b"another"), repository="team/other")).outcome is PushOutcome.PUSHED
    [told] = play.told(Status.NOT_RESUMED)
    assert f"its upload to {REPO} was left as it is" in told.text
    assert "DELETE session" not in play.names and play.saves[-1] == first.saves[-1]


def test_a_push_that_took_too_long_leaves_its_upload_for_a_later_one() -> None:
    play = Play({"PATCH": [HANG]}, config=attrs.evolve(PATCHES, push_timeout_s=5), save=True)
    play.when_aborted = cut_after(120)
    assert isinstance(play.run(PUSH).error, PushTimeoutError)
    assert "DELETE session" not in play.names
    later = again(play)
    later.run(PUSH)
    assert ranges(later) == ["120-199"] and whole(later)


def test_of_many_that_were_left_the_newest_are_kept_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regproto._engine.checkpoint.UPLOADS_MAX", 3)
    layers = [blob(bytes([n]) * 200) for n in range(5)]
    play = Play({"PATCH": always(HANG)}, config=PATCHES, save=True)
    for layer in layers:
        push_id = play.submit(blobs_push(layer))
        play.settle()
        play.session.cancel(push_id)
        play.run()
    newest = [str(layer.descriptor.digest) for layer in layers[2:]]
    assert [upload["digest"] for upload in uploads(play.saves[-1])] == newest
    monkeypatch.setattr("regproto._engine.checkpoint.UPLOADS_MAX", 2)
    later = again(play)
    later.run(blobs_push(*layers))
    assert [send.url for send in later.sent("GET session")] == [u["location"] for u in uploads(play.saves[-1])[1:]]


def test_what_is_forgotten_of_many_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regproto._engine.checkpoint.UPLOADS_MAX", 2)
    play = Play({"PATCH": always(HANG)}, config=PATCHES, save=True)
    for layer in (blob(bytes([n]) * 200) for n in range(3)):
        push_id = play.submit(blobs_push(layer))
        play.settle()
        play.session.cancel(push_id)
        play.run()
    [told] = play.told(Status.NOT_RESUMED)
    assert "forgotten" in told.text and told.subject == Digest.of(bytes(200))
    monkeypatch.setattr("regproto._engine.checkpoint.UPLOADS_MAX", 1)
    later = again(play)
    later.settle()
    assert "the 1 oldest are forgotten" in later.told(Status.NOT_RESUMED)[0].text


# --- given back on request --------------------------------------------------------------------------------------


def cancel_kept(play: Play, hint: bytes) -> PushResult:
    """Give back what a hint tells of; the result."""
    push_id = play.session.cancel_kept(hint)
    play.open.add(push_id)
    play.run()
    return play.results[push_id]


def test_what_is_kept_is_given_back_on_request() -> None:
    first = cut(120)
    play = again(first)
    result = cancel_kept(play, first.saves[-1])
    assert (result.outcome, result.left_open, result.repository) == (PushOutcome.PUSHED, 0, f"registry.example/{REPO}")
    assert play.names == ["GET session", "DELETE session"] and whole_or_nothing(play)


def whole_or_nothing(play: Play) -> bool:
    """Nothing is left open, and nothing kept."""
    return not play.registry.sessions(REPO) and play.saves[-1:] in ([], [b""])


def test_by_a_session_that_was_not_given_the_hint() -> None:
    first = cut(120)
    play = Play(registry=first.registry)
    assert cancel_kept(play, first.saves[-1]).left_open == 0
    assert not play.registry.sessions(REPO) and play.saves == []


@pytest.mark.parametrize("auth", [Auth.NONE, Auth.BEARER])
def test_in_several_repositories(auth: Auth) -> None:
    first = Play({"PATCH": always(HANG)}, config=PATCHES, save=True, auth=auth)
    first.submit(PUSH, blobs_push(blob(bytes(300)), repository="team/other"))
    first.settle()
    assert len(uploads(first.saves[-1])) == 2
    play = again(first)
    assert cancel_kept(play, first.saves[-1]).left_open == 0
    assert not play.registry.sessions(REPO) and not play.registry.sessions("team/other") and play.saves[-1] == b""


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ({"GET session": always(say(403))}, "403"),
        ({"GET session": always(say(200))}, "no upload session"),
        ({"GET session": always(LOST)}, "GET"),
        ({"DELETE session": always(refuse(405, "UNSUPPORTED"))}, "405"),
        ({"DELETE session": always(LOST)}, "DELETE"),
    ],
)
def test_what_can_not_be_given_back_stays_kept_and_says_why(script: Any, says: str) -> None:
    first = cut(120)
    play = again(first, script)
    result = cancel_kept(play, first.saves[-1])
    assert (result.outcome, result.left_open) == (PushOutcome.FAILED, 1)
    assert says in str(result.error) and play.saves[-1:] in ([], first.saves[-1:])
    assert len(play.told(Status.LEFT_OPEN)) == 1
    play.on({})
    assert cancel_kept(play, first.saves[-1]).left_open == 0 and play.saves[-1] == b""


def test_without_a_token_all_of_it_stays_kept() -> None:
    first = cut(120, auth=Auth.BEARER)
    play = again(first, {"GET token": always(say(403))})
    result = cancel_kept(play, first.saves[-1])
    assert (
        isinstance(result.error, RegistryError) and result.left_open == 1 and play.saves[-1:] in ([], first.saves[-1:])
    )


def test_one_that_is_gone_is_kept_no_longer() -> None:
    first = cut(120, lost_sessions=True)
    play = again(first)
    assert cancel_kept(play, first.saves[-1]).left_open == 0
    assert play.names == ["GET session"] and play.saves[-1] == b""


def test_what_a_push_goes_on_with_is_left_alone() -> None:
    first = cut(120)
    play = again(first)
    play.submit(PUSH)
    patch = play.until("PATCH")
    result_id = play.session.cancel_kept(first.saves[-1])
    play.open.add(result_id)
    play.settle()
    assert play.results[result_id].outcome is PushOutcome.PUSHED and "DELETE session" not in play.names
    play.answer(patch, PASS)
    assert play.run().outcome is PushOutcome.PUSHED and ranges(play) == ["120-199"] and whole(play)


@pytest.mark.parametrize("save", [True, False])
def test_what_a_push_has_gone_on_with_is_not_kept_any_more(save: bool) -> None:
    # It is too small to be kept by now.
    first = cut(120)
    play = again(first, config=attrs.evolve(PATCHES, resumable_above_bytes=1_000), save=save)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert whole(play) and not play.session._pushes.checkpoint.open


def test_what_is_being_given_back_is_gone_on_with_by_no_push() -> None:
    first = cut(120)
    play = again(first)
    play.open.add(play.session.cancel_kept(first.saves[-1]))
    play.submit(PUSH)
    play.run()
    assert play.names.count("POST start") == 1 and whole(play)


@pytest.mark.parametrize("stage", ["GET session", "DELETE session"])
def test_it_can_be_cancelled_and_what_was_not_reached_stays_kept(stage: str) -> None:
    layers = [blob(bytes([n]) * 200) for n in range(4)]
    first = Play({"PATCH": always(HANG)}, config=PATCHES, save=True)
    first.submit(blobs_push(*layers))
    first.settle()
    play = again(first, config=attrs.evolve(PATCHES, max_exchanges=1))
    push_id = play.session.cancel_kept(first.saves[-1])
    play.open.add(push_id)
    held = play.until(stage)
    play.session.cancel(push_id, play.now)
    play.answer(held, PASS)
    play.run()
    result = play.results[push_id]
    assert result.outcome is PushOutcome.CANCELLED and result.left_open == 3
    assert len(uploads(play.saves[-1])) == len(play.registry.sessions(REPO)) == 3


@pytest.mark.parametrize("hint", [b"{", b"[]", b'{"version": 1, "registry": "https://other.example", "uploads": []}'])
def test_a_hint_that_can_not_be_used_is_refused(hint: bytes) -> None:
    play = Play(config=PATCHES, save=True)
    with pytest.raises(ContentError, match="can't be used"):
        play.session.cancel_kept(hint)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED


def test_an_upload_that_is_not_trusted_is_said_and_not_asked() -> None:
    first = cut(120)
    play = Play(registry=first.registry)
    result = cancel_kept(play, spoiled(first.saves[-1], upload_location="http://10.0.0.1/up"))
    assert result.outcome is PushOutcome.PUSHED and play.sends == []
    assert len(play.told(Status.NOT_RESUMED)) == 1


def test_nothing_to_give_back() -> None:
    play = Play()
    assert cancel_kept(play, b"").outcome is PushOutcome.PUSHED and play.sends == []


# --- joined -----------------------------------------------------------------------------------------------------


def entry(content: bytes, offset: int, where: int = 1, repository: str = REPO) -> dict[str, Any]:
    """An upload as it is kept."""
    location = f"{BASE}/v2/{repository}/blobs/uploads/{where}"
    described = {"repository": repository, "digest": str(Digest.of(content)), "size": 200, "identity": "1"}
    return {**described, "location": location, "offset": offset, "chunk_min_bytes": 0}


def kept(*entries: dict[str, Any], single_post: bool | None = None, registry: str = BASE) -> bytes:
    """A hint of these."""
    fields = {"version": 1, "registry": registry, "single_post": single_post, "uploads": list(entries)}
    return json.dumps(fields, separators=(",", ":")).encode()


def test_of_one_blob_the_upload_that_is_further_is_taken() -> None:
    one = kept(entry(b"a", 50), entry(b"b", 10))
    two = kept(entry(b"a", 60, where=2), entry(b"c", 5), entry(b"b", 9, where=2))
    both = [entry(b"a", 60, where=2), entry(b"b", 10), entry(b"c", 5)]
    for joined in (merge_kept(one, two), merge_kept(two, one), merge_kept(b"", one, b"", two, one)):
        assert sorted(uploads(joined), key=str) == sorted(both, key=str)
    assert merge_kept(one) == one and merge_kept() == merge_kept(b"") == b""


def test_the_same_blob_in_two_repositories_is_two_uploads() -> None:
    one, two = kept(entry(b"a", 50)), kept(entry(b"a", 60, repository="team/other"))
    assert len(uploads(merge_kept(one, two))) == 2


@pytest.mark.parametrize(
    ("told", "joined"), [((True, None), True), ((True, False), None), ((None, None), None), ((False, False), False)]
)
def test_what_was_learned_is_joined_where_it_agrees(told: tuple[bool | None, ...], joined: bool | None) -> None:
    hints = [kept(entry(b"a", 1), single_post=single_post) for single_post in told]
    assert json.loads(merge_kept(*hints))["single_post"] is joined


@pytest.mark.parametrize("other", [b"{", b"[]", kept(entry(b"a", 1), registry="https://other.example"), kept() + b"]"])
def test_what_can_not_be_joined_is_refused(other: bytes) -> None:
    with pytest.raises(ContentError, match="can't be used"):
        merge_kept(kept(entry(b"a", 1)), other)


def test_two_workers_that_join_what_they_kept_leave_nothing() -> None:
    other = attrs.evolve(blob(bytes(300)), identity="2")
    one = cut(120)
    two = Play({"PATCH": [HANG]}, config=PATCHES, save=True, registry=one.registry)
    two.submit(blobs_push(other))
    two.settle()
    play = again(one, hint=merge_kept(one.saves[-1], two.saves[-1]))
    assert play.run(blobs_push(LAYER, other)).outcome is PushOutcome.PUSHED
    assert play.names.count("GET session") == 2 and whole(play)


# --- where an upload host leads ---------------------------------------------------------------------------------


def test_an_upload_that_its_own_host_led_on_is_kept() -> None:
    first = Play(config=CHUNKS, save=True, location_style=LocationStyle.OTHER_HOST)
    first.submit(PUSH)
    for _ in range(3):  # the second answer and the third name a Location at the upload host by its own word
        first.answer(first.until("PATCH"), PASS)
    assert [upload["offset"] for upload in uploads(first.saves[-1])] == [100]
    play = again(first, config=CHUNKS)
    assert play.run(PUSH).uploaded == (DIGEST,)
    assert ranges(play)[0] == "150-199" and whole(play)


def _led_back(*then: Answer) -> Play:
    """Its upload host leads an upload back to the registry."""
    back = f"{BASE}/v2/{REPO}/blobs/uploads/1"
    led = [say(202, Location=back, Range="0-49"), *then]
    start = [say(202, Location="https://uploads.example/1")]
    play = Play({"POST start": start, "PATCH": led, "DELETE session": [say(204)]}, config=CHUNKS, save=True)
    play.submit(PUSH)
    return play


def test_what_leads_back_to_the_registry_is_not_kept_and_so_given_back() -> None:
    play = _led_back(HANG)
    play.script["GET session"] = iter([say(204, Range="0-49")])
    while not play.held:
        play.step()
    play.session.cancel(1)
    result = play.run()
    assert play.names[-1] == "DELETE session" and result.left_open == 0 and play.saves[-1] == b""


def test_what_leads_back_to_the_registry_and_is_given_up_is_said() -> None:
    play = _led_back(LOST)
    play.script["GET session"] = always(LOST)
    play.script["POST start"] = iter([*play.script["POST start"], say(403)])
    result = play.run()
    assert result.outcome is PushOutcome.FAILED and result.left_open == 1 and play.saves[-1] == b""


def test_a_session_whose_place_another_of_the_same_blob_takes_is_said() -> None:
    play = Play({"PATCH": [LOST], "GET session": [LOST] * 5}, config=PATCHES, save=True)
    result = play.run(PUSH)
    assert result.uploaded == (DIGEST,) and play.names.count("POST start") == 2 and play.saves[-1] == b""
    assert result.left_open == len(play.registry.sessions(REPO)) == 1


def test_so_is_one_of_an_earlier_process() -> None:
    play = again(cut(120), {"GET session": [LOST] * 5})
    result = play.run(PUSH)
    assert result.uploaded == (DIGEST,) and play.saves[-1] == b""
    assert result.left_open == len(play.registry.sessions(REPO)) == 1


def test_one_that_no_other_takes_the_place_of_is_kept() -> None:
    script = {"PATCH": [LOST], "GET session": [LOST] * 5, "POST start": [PASS, say(403)]}
    play = Play(script, config=PATCHES, save=True)
    result = play.run(PUSH)
    assert result.outcome is PushOutcome.FAILED and result.left_open == 0 and len(uploads(play.saves[-1])) == 1
