"""The life of a subject's referrers list: by the API, or in its tag without losing what others write."""

from __future__ import annotations

import itertools
import json
from typing import Any

import attrs
import pytest

from core import CUT, DONE_BUT_LOST, HANG, LOST, NOT_SENT, PASS, Play, Say, always, content_of, header, refuse, say
from pushes import REPO, Image, blob, described, image, index
from regproto import (
    Config,
    ContentError,
    Descriptor,
    Digest,
    Failed,
    FailureKind,
    Guarantee,
    LocalProtocolError,
    Phase,
    Progress,
    PushOutcome,
    PushPlan,
    PushResult,
    RegistryError,
    RemoteProtocolError,
    Response,
    TransportError,
    Written,
)
from regproto._http.referrers_list import entry_of, fallback_tag, read_listing
from regproto._model.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from regproto.testing import Etag
from regproto.testing.simulation import InFlight

SUBJECT = image(b"the subject")
TAG = fallback_tag(SUBJECT.digest)
SBOM = "application/spdx+json"


def attachment(number: int = 1, subject: Image = SUBJECT, **fields: Any) -> Image:
    """An artifact attached to the subject."""
    fields = {"artifactType": SBOM, "annotations": {"number": str(number)}, **fields}
    return image(b"attachment", subject=described(subject.manifest), **fields)


ONE, TWO, THREE = (attachment(n) for n in (1, 2, 3))


def play(*listed: Image, script: Any = None, config: Config | None = None, **options: Any) -> Play:
    """A registry without the API that has the subject, and a list of these."""
    made = Play(script, config=config, **{"referrers_api": False, "sparse_indexes": True, **options})
    for whole in (SUBJECT, *listed):
        there(made, whole)
    if listed:
        write(made, *listed)
    return made


def there(made: Play, whole: Image) -> None:
    """Have an image in the registry."""
    for part in whole.blobs:
        assert isinstance(part.source, bytes)
        made.registry.put_blob(REPO, part.source)
    made.registry.put_manifest(REPO, whole.manifest.content)


def entry(whole: Image, **fields: Any) -> dict[str, Any]:
    """The entry another client makes."""
    return {**described(whole.manifest), **fields}


def write(made: Play, *listed: Image | dict[str, Any], **fields: Any) -> None:
    """Somebody else writes the list, without looking."""
    entries = [item if isinstance(item, dict) else entry(item) for item in listed]
    content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **fields}
    made.registry.put_manifest(REPO, json.dumps(content).encode(), TAG)


def listed(made: Play) -> dict[str, dict[str, Any]]:
    """The list as it is now."""
    return made.registry.referrers(REPO, SUBJECT.digest)


def guarantee(result: PushResult) -> Guarantee:
    """How the one list of a push is known to be right."""
    assert result.error is None, result.error
    (told,) = result.listed
    return told.guarantee


def list_puts(made: Play) -> list[Any]:
    """The writes of the list."""
    return [send for send in made.sends if send.method == "PUT" and send.url.endswith(TAG)]


# --- the API ----------------------------------------------------------------------------------------------------


def test_oci_subject_is_confirmed_once_per_registry() -> None:
    made = Play()
    there(made, SUBJECT)
    assert guarantee(made.run(ONE.push())) is Guarantee.API
    assert made.names == ["POST blob", "POST blob", "PUT manifest", "GET referrers"]
    made.run(TWO.push())
    assert made.sent("GET referrers")[1:] == []
    assert listed(made).keys() == {ONE.digest, TWO.digest}


def test_without_oci_subject_the_api_is_asked_and_has_to_list_it() -> None:
    made = Play(oci_subject=False, referrers_page=1)
    for whole in (SUBJECT, TWO, THREE):
        there(made, whole)
    assert guarantee(made.run(ONE.push())) is Guarantee.API
    assert 1 <= len(made.sent("GET referrers")) <= 3


def test_what_the_api_does_not_list_is_an_error() -> None:
    nothing = say(200, b'{"schemaVersion":2,"manifests":[]}', Content_Type=OCI_INDEX)
    made = Play({"GET referrers": always(nothing)}, oci_subject=False)
    result = made.run(ONE.push())
    assert isinstance(result.error, RemoteProtocolError) and "does not list it" in str(result.error)
    assert len(made.sent("GET referrers")) == 5 and made.names.count("PUT manifest") == 1


def test_an_api_that_lists_it_late() -> None:
    nothing = say(200, b'{"schemaVersion":2,"manifests":[]}', Content_Type=OCI_INDEX)
    made = Play({"GET referrers": [nothing, nothing]}, oci_subject=False)
    assert guarantee(made.run(ONE.push())) is Guarantee.API


@pytest.mark.parametrize("status", [400, 404, 405, 406, 501])
def test_no_api(status: int) -> None:
    made = Play({"GET referrers": [say(status)]}, oci_subject=False)
    assert guarantee(made.run(ONE.push())) is Guarantee.VERIFIED
    assert made.names[-4:] == ["GET referrers", "GET tag", "PUT tag", "GET tag"]


def test_another_media_type_is_no_api() -> None:
    made = play(script={"GET referrers": [say(200, b"<html>", Content_Type="text/html")]})
    assert guarantee(made.run(ONE.push())) is Guarantee.VERIFIED


def test_oci_subject_without_the_api_is_ecrs_case() -> None:
    made = play(oci_subject=True)
    assert guarantee(made.run(ONE.push())) is Guarantee.VERIFIED
    assert listed(made).keys() == {ONE.digest}


@pytest.mark.parametrize("status", [500, 502, 503, 403])
def test_a_failing_api_is_not_taken_for_none(status: int) -> None:
    made = Play({"GET referrers": always(say(status))})
    result = made.run(ONE.push())
    assert isinstance(result.error, RegistryError) and result.error.status == status
    assert not made.sent("GET tag")


@pytest.mark.parametrize("body", [b"{}", b"[", b'{"schemaVersion":2,"manifests":[7]}'])
def test_an_api_that_sends_no_list(body: bytes) -> None:
    made = Play({"GET referrers": [say(200, body, Content_Type=OCI_INDEX)]})
    assert isinstance(made.run(ONE.push()).error, RemoteProtocolError)


def test_an_api_with_endless_pages() -> None:
    page = say(200, b'{"schemaVersion":2,"manifests":[]}', Content_Type=OCI_INDEX, Link='</v2/next>; rel="next"')
    made = Play({"GET referrers": always(page), "GET session": always(page)}, oci_subject=False)
    result = made.run(ONE.push())
    assert isinstance(result.error, RemoteProtocolError) and "more than 1000 pages" in str(result.error)


def test_pages_on_another_host_get_no_credentials_and_must_be_allowed() -> None:
    page = say(200, b'{"schemaVersion":2,"manifests":[]}', Content_Type=OCI_INDEX, Link="<http://10.0.0.1/>; rel=next")
    made = Play({"GET referrers": [page]}, oci_subject=False)
    assert isinstance(made.run(ONE.push()).error, RemoteProtocolError)
    assert not any("10.0.0.1" in send.url for send in made.sends)


# --- the list in its tag ----------------------------------------------------------------------------------------


def test_a_new_list() -> None:
    made = play()
    result = made.run(ONE.push())
    assert guarantee(result) is Guarantee.VERIFIED and result.listed[0].tag == TAG
    assert result.listed[0].attached == (ONE.digest,) and result.listed[0].subject == SUBJECT.digest
    assert made.names[-4:] == ["GET referrers", "GET tag", "PUT tag", "GET tag"]
    (put,) = list_puts(made)
    assert header(put, "content-type") == OCI_INDEX and header(put, "if-none-match") == "*"
    assert json.loads(content_of(put)) == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{**entry(ONE), "artifactType": SBOM, "annotations": {"number": "1"}}],
    }


def test_one_attachment_alone_waits_two_seconds() -> None:
    made = play()
    made.run(ONE.push())
    assert made.now == 2.0


def test_the_write_must_begin_within_the_window_of_its_read() -> None:
    made = play()
    put = made.submit(ONE.push()) and made.until("GET tag")
    made.now = 7.0
    made.answer(put, PASS)
    made.hold = ""
    made.settle()
    assert list_puts(made)[0].not_after == 0.5  # what was read at 0.0, however late the answer


def test_merged_into_what_is_there_and_sorted() -> None:
    made = play(TWO, THREE)
    write(made, TWO, THREE, annotations={"kept": "yes"}, artifactType="x/y")
    made.run(ONE.push())
    raw = json.loads(content_of(list_puts(made)[0]))
    digests = [e["digest"] for e in raw["manifests"]]
    assert digests == sorted(digests) and set(digests) == {ONE.digest, TWO.digest, THREE.digest}
    assert raw["annotations"] == {"kept": "yes"} and raw["artifactType"] == "x/y"
    assert header(list_puts(made)[0], "if-match") is not None


def test_listed_already_and_complete_is_only_looked_at() -> None:
    made = play(ONE)
    write(made, entry(ONE, artifactType=SBOM, annotations={"number": "1", "by": "someone"}, platform={"os": "x"}))
    assert guarantee(made.run(ONE.push())) is Guarantee.VERIFIED
    assert not list_puts(made) and len(made.sent("GET tag")) == 2


@pytest.mark.parametrize(
    "lacking", [{}, {"artifactType": SBOM}, {"artifactType": "", "annotations": None}, {"annotations": {"number": "1"}}]
)
def test_an_entry_that_lacks_something_is_repaired(lacking: dict[str, Any]) -> None:
    made = play(ONE)
    write(made, entry(ONE, **lacking, platform={"os": "x"}), entry(TWO))
    made.run(ONE.push())
    found = listed(made)
    assert found[ONE.digest]["artifactType"] == SBOM and found[ONE.digest]["annotations"] == {"number": "1"}
    assert found[ONE.digest]["platform"] == {"os": "x"} and found[TWO.digest] == entry(TWO)
    assert made.now == 2.0, "it is no race"


def test_twice_in_the_list_is_once_afterwards() -> None:
    made = play(TWO)
    write(made, TWO, TWO)
    made.run(ONE.push())
    raw = json.loads(content_of(list_puts(made)[0]))
    assert len(raw["manifests"]) == 2


def test_the_type_of_an_image_is_its_configs_and_an_index_may_have_none() -> None:
    plain = image(b"x", subject=described(SUBJECT.manifest))
    nested = index(plain, subject=described(SUBJECT.manifest))
    made = play()
    made.run(nested.push())
    assert listed(made)[plain.digest]["artifactType"] == OCI_CONFIG
    assert "artifactType" not in listed(made)[nested.digest] and "annotations" not in listed(made)[nested.digest]


def test_sha512_subjects_have_a_tag_cut_to_64() -> None:
    digest = Digest.of(b"x", "sha512")
    assert fallback_tag(digest) == f"sha512-{digest.hex[:64]}"
    far = attrs.evolve(SUBJECT.manifest.descriptor, digest=digest)
    made = play()
    made.run(image(b"attachment", subject=described(far)).push())
    assert f"sha512-{digest.hex[:64]}" in made.registry.tags(REPO)


def test_the_subject_may_be_absent() -> None:
    made = Play(referrers_api=False)
    assert guarantee(made.run(ONE.push())) is Guarantee.VERIFIED


@pytest.mark.parametrize("tags", [(), ("1.0", "1")])
def test_a_subject_in_the_same_plan_goes_first(tags: tuple[str, ...]) -> None:
    made = Play(referrers_api=False)
    push = PushPlan(
        repository=REPO,
        blobs={b.descriptor.digest: b for b in (*SUBJECT.blobs, *ONE.blobs)}.values(),
        manifests=(SUBJECT.manifest, ONE.manifest),
        root=SUBJECT.digest,
        tags=tags,
    )
    assert guarantee(made.run(push)) is Guarantee.VERIFIED
    puts = [s.url.rpartition("/")[2] for s in made.sends if s.method == "PUT"]
    assert puts.index(tags[0] if tags else SUBJECT.digest) < puts.index(ONE.digest) < puts.index(TAG)
    assert len(puts) == 3 + max(0, len(tags) - 1), "the subject is not put once more for its attachment"


def test_a_plan_cannot_have_an_attachment_of_itself() -> None:
    loop = attrs.evolve(ONE.manifest, info=attrs.evolve(ONE.manifest.info, subject=ONE.manifest.descriptor))
    with pytest.raises(ContentError, match="names itself"):
        PushPlan(repository=REPO, blobs=ONE.blobs, manifests=(loop,))


# --- what is there instead of a list ------------------------------------------------------------------------------


def test_a_tag_on_something_else_is_never_overwritten() -> None:
    made = play(digest_tags=True)  # as GitLab has it
    result = made.run(ONE.push())
    assert isinstance(result.error, RemoteProtocolError) and "left alone" in str(result.error)
    assert OCI_MANIFEST in str(result.error) and not list_puts(made)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"not json", OCI_INDEX),
        (b"[]", OCI_INDEX),
        (b'{"schemaVersion":1,"manifests":[]}', OCI_INDEX),
        (b'{"schemaVersion":2}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[{"digest":7}]}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[]}', "application/json"),
        (b'{"schemaVersion":2,"mediaType":"a/b","manifests":[]}', OCI_INDEX),
    ],
)
def test_what_is_no_index_is_left_alone(body: bytes, kind: str) -> None:
    made = play(script={"GET tag": [say(200, body, Content_Type=kind)]})
    assert isinstance(made.run(ONE.push()).error, RemoteProtocolError)
    assert not list_puts(made)


def test_a_list_too_long_to_be_read_is_left_alone() -> None:
    made = play(script={"GET tag": [Say(200, (("Content-Type", OCI_INDEX),), b"{}", truncated=True)]})
    assert "more than 4194304 bytes" in str(made.run(ONE.push()).error)


def test_a_list_that_would_become_too_long_is_not_written() -> None:
    made = play(TWO)
    write(made, TWO, annotations={"much": "x" * (4 * 1024 * 1024 - 420)})
    result = made.run(ONE.push())
    assert isinstance(result.error, ContentError) and not list_puts(made)


def test_what_joins_a_write_that_was_decided_goes_along_only_if_it_fits() -> None:
    made = play(TWO, script={f"PUT manifest {THREE.digest}": [HANG]})
    ours = len(json.dumps(entry_of(ONE.manifest)))
    alone = len(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry(TWO)]}))
    much = 4 * 1024 * 1024 - alone - 3 * ours // 2
    write(made, TWO, annotations={"much": "x" * much})  # there is room for one more, not for two
    made.submit(ONE.push(), THREE.push())
    reading = made.until("GET tag")
    [late] = [send for send in made.held.values() if send is not reading]
    made.answer(reading, PASS)
    made.answer(late, PASS)
    result = made.run()
    assert [len(content_of(send)) <= 4 * 1024 * 1024 for send in list_puts(made)] == [True]
    assert listed(made).keys() == {TWO.digest, ONE.digest} and isinstance(result.error, ContentError)


@pytest.mark.parametrize("depth", [*range(96, 102), 500, *range(900, 1000, 3)])
@pytest.mark.parametrize("place", ["in an entry", "beside them"])
def test_a_list_nested_too_deeply_is_left_alone(depth: int, place: str) -> None:
    nested = b"[" * depth + b"]" * depth
    listed, beside = (nested, b"0") if place == "in an entry" else (b"0", nested)
    body = b'{"schemaVersion":2,"manifests":[{"digest":"x","y":%s}],"y":%s}' % (listed, beside)
    made = play(
        script={"GET tag": always(say(200, body, Content_Type=OCI_INDEX))}, config=Config(referrers_look_again=False)
    )
    result = made.run(ONE.push())
    assert bool(list_puts(made)) == (depth < 100)
    if depth >= 100:
        assert isinstance(result.error, RemoteProtocolError) and "left alone" in str(result.error)


@pytest.mark.parametrize("status", [403, 416])
def test_a_list_that_may_not_be_read_is_not_taken_for_none(status: int) -> None:
    made = play(script={"GET tag": always(say(status))})
    assert isinstance(made.run(ONE.push()).error, RegistryError) and not list_puts(made)


# --- races --------------------------------------------------------------------------------------------------------


def overwritten(made: Play, *by: Image, times: int = 1) -> None:
    """After each of the first writes of the list, somebody who had read it before writes theirs."""
    complete, left = made.complete, [times]

    def racing(flight: InFlight) -> None:
        complete(flight)
        send = flight.send
        if left[0] and send.method == "PUT" and send.url.endswith(TAG):
            left[0] -= 1
            write(made, *by)

    made.complete = racing  # type: ignore[method-assign]


def test_overwritten_it_writes_again_with_everything_it_has_seen() -> None:
    made = play(TWO)
    overwritten(made, THREE)
    result = made.run(ONE.push())
    assert guarantee(result) is Guarantee.VERIFIED and not result.listed[0].unsure
    assert listed(made).keys() == {ONE.digest, TWO.digest, THREE.digest}
    assert len(list_puts(made)) == 2
    assert [s.url.rpartition("/")[2] for s in made.sent("HEAD manifest")] == [TWO.digest], "is it still there?"


def test_what_somebody_deleted_is_not_put_back() -> None:
    made = play(TWO, script={"HEAD manifest": always(say(404))})
    overwritten(made, THREE)
    made.run(ONE.push())
    assert listed(made).keys() == {ONE.digest, THREE.digest}


def test_an_entry_of_others_that_is_no_digest_is_carried_and_never_asked_for() -> None:
    made = play(TWO)
    odd = {"mediaType": OCI_MANIFEST, "digest": "sha256:../../x", "size": 1}
    raw = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [odd]}
    made.on({"GET tag": [say(200, json.dumps(raw).encode(), Content_Type=OCI_INDEX)], "PUT tag": [say(201)]})
    made.run(ONE.push())
    assert odd in json.loads(content_of(list_puts(made)[0]))["manifests"]
    assert not made.sent("HEAD manifest")


def test_overwritten_for_ever_it_gives_up_and_says_so() -> None:
    made = play(config=Config(referrers_attempts=4))
    overwritten(made, TWO, times=99)
    result = made.run(ONE.push())
    assert isinstance(result.error, TransportError) and "after 4 writes" in str(result.error)
    assert made.names.count("PUT manifest") == 1


def test_a_list_that_never_comes_to_rest() -> None:
    made = play(config=Config(referrers_attempts=3))
    made.submit(ONE.push())
    count = 0
    while not made.step():
        if made.sends and made.sends[-1].method == "GET" and made.sends[-1].url.endswith(TAG) and list_puts(made):
            count += 1
            write(made, ONE, attachment(100 + count))
            write(made, {**listed(made)[ONE.digest], "artifactType": SBOM, "annotations": {"number": "1"}, "n": count})
    assert guarantee(made.results[1]) is Guarantee.CONTENDED


def test_an_old_quiet_list_does_not_vouch_for_a_new_write() -> None:
    # Written, overwritten, written the same again: the look before the second write says nothing about it.
    made = play(TWO)
    overwritten(made, TWO)
    made.run(ONE.push())
    last = max(n for n, send in enumerate(made.sends) if send in list_puts(made))
    assert made.names[last + 1 :] == ["GET tag"]


def test_the_wait_after_a_race_grows() -> None:
    made = play(config=Config(referrers_attempts=8))
    overwritten(made, TWO, times=99)
    made.run(ONE.push())
    assert made.now > 8 * 2.0


def test_not_looked_at_again_where_that_is_off() -> None:
    made = play(config=Config(referrers_look_again=False))
    assert guarantee(made.run(ONE.push())) is Guarantee.WRITTEN
    assert made.names[-1] == "PUT tag" and made.now == 0.0
    again = play(ONE, config=Config(referrers_look_again=False))
    write(again, entry(ONE, artifactType=SBOM, annotations={"number": "1"}))
    assert guarantee(again.run(ONE.push())) is Guarantee.WRITTEN


def test_no_fallback_where_that_is_off() -> None:
    made = play(config=Config(referrers_fallback=False))
    result = made.run(ONE.push())
    assert guarantee(result) is Guarantee.UNLISTED and result.listed[0].tag == ""
    assert not made.sent("GET tag") and not listed(made)


@pytest.mark.parametrize("name", ["window_s", "settle_s", "attempts"])
def test_options_are_checked(name: str) -> None:
    with pytest.raises(LocalProtocolError, match=name):
        Config(**{f"referrers_{name}": 0})


# --- faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [LOST, NOT_SENT, say(503), DONE_BUT_LOST])
def test_a_failed_write_is_read_again_and_never_puts_the_manifest_again(fault: Any) -> None:
    made = play(script={"PUT tag": [fault]})
    result = made.run(ONE.push())
    assert guarantee(result) is Guarantee.VERIFIED
    assert made.names.count("PUT manifest") == 1
    assert result.listed[0].unsure is (fault is not NOT_SENT)
    assert len(list_puts(made)) == (1 if fault is DONE_BUT_LOST else 2)


def test_a_write_without_an_answer_is_aborted_at_its_own_deadline() -> None:
    made = play(script={"PUT tag": [HANG]})
    result = made.run(ONE.push())
    assert made.aborted and result.listed[0].unsure and guarantee(result) is Guarantee.VERIFIED


def test_a_slow_registry_is_given_more_time_for_each_write() -> None:
    made = play()
    made.submit(ONE.push())
    taken = []
    for _ in range(3):
        put = made.until("PUT tag")
        begun = made.now
        while put.id not in made.aborted:
            made.step()
        taken.append(made.now - begun)
    assert taken == pytest.approx([1.5, 3.0, 6.0])
    while not made.step():
        pass
    assert guarantee(made.results[1]) is Guarantee.VERIFIED and made.results[1].listed[0].unsure


def test_an_answer_after_its_deadline_makes_it_unsure() -> None:
    made = play()
    made.submit(ONE.push())
    put = made.until("PUT tag")
    made.now += 2.0
    made.when_aborted = PASS
    assert made.poll() is not None
    while not made.step():
        pass
    assert put.id in made.aborted and made.results[1].listed[0].unsure


@pytest.mark.parametrize("there_is_one", [True, False])
@pytest.mark.parametrize("fault", [say(503), LOST])
def test_writes_that_always_fail_end_the_push(fault: Any, there_is_one: bool) -> None:
    made = play(*([TWO] if there_is_one else []), script={"PUT tag": always(fault)})
    result = made.run(ONE.push())
    assert isinstance(result.error, (RegistryError, TransportError))
    assert len(list_puts(made)) == 5 and made.names.count("PUT manifest") == 1


@pytest.mark.parametrize("kind", [FailureKind.CONNECT, FailureKind.NOT_SENT])
def test_writes_that_are_never_sent_are_not_blamed_on_others(kind: FailureKind) -> None:
    made = play(script={"PUT tag": always(attrs.evolve(NOT_SENT, kind=kind))})
    result = made.run(ONE.push())
    assert isinstance(result.error, TransportError)
    assert "PUT https://" in str(result.error) and "overwriting" not in str(result.error)
    assert len(list_puts(made)) == 5 and made.names.count("PUT manifest") == 1


def test_writes_that_come_too_late_are_prepared_anew() -> None:
    made = play(script={"PUT tag": [attrs.evolve(NOT_SENT, kind=FailureKind.NOT_SENT)] * 4})
    assert guarantee(made.run(ONE.push())) is Guarantee.VERIFIED


def test_refused_writes_end_the_push_with_the_registrys_words() -> None:
    made = play(script={"PUT tag": always(refuse(403, "DENIED", "not you"))})
    result = made.run(ONE.push())
    assert isinstance(result.error, RegistryError) and "not you" in str(result.error)


def test_another_digest_for_the_list() -> None:
    made = play(script={"PUT tag": [say(201, Docker_Content_Digest=TWO.digest)]})
    assert isinstance(made.run(ONE.push()).error, RemoteProtocolError)


def test_entries_whose_manifest_is_gone_are_left_out_where_the_registry_insists() -> None:
    made = play(sparse_indexes=False)
    there(made, THREE)
    write(made, TWO, THREE)  # nobody has TWO any more
    result = made.run(ONE.push())
    assert guarantee(result) is Guarantee.VERIFIED and listed(made).keys() == {ONE.digest, THREE.digest}
    assert len(list_puts(made)) == 2


def test_a_registry_that_does_not_say_which_is_gone() -> None:
    made = play(TWO, script={"PUT tag": [refuse(400, "MANIFEST_BLOB_UNKNOWN")], "HEAD manifest": [say(404)]})
    made.run(ONE.push())
    assert listed(made).keys() == {ONE.digest}


def test_a_registry_that_insists_on_something_that_is_there() -> None:
    made = play(TWO, script={"PUT tag": always(refuse(400, "MANIFEST_BLOB_UNKNOWN", "no idea"))})
    result = made.run(ONE.push())
    assert isinstance(result.error, RegistryError) and "no idea" in str(result.error) and len(list_puts(made)) == 1


def test_a_registry_that_does_not_have_ours() -> None:
    made = play(script={"PUT tag": always(refuse(400, "MANIFEST_BLOB_UNKNOWN", "no idea"))})
    assert isinstance(made.run(ONE.push()).error, RegistryError) and len(list_puts(made)) == 1


# --- a registry that is slower than the window ------------------------------------------------------------------


class Slow:
    """Has every read and write of the list take this long; what would begin after its `not_after` is not sent.

    Args:
        took: how long each read takes; the last value goes on, and is what a write takes without `write_s`.
        connecting: how many requests of each method a connection has to be made for first, which takes `connect_s`.

    Attributes:
        reads: when each read was begun.
        written: when each write was begun, and how long after its read it might have been.
        late: how many came too late.
    """

    def __init__(
        self,
        made: Play,
        *took: float,
        write_s: float | None = None,
        connect_s: float = 0.0,
        connecting: dict[str, int] | None = None,
    ) -> None:
        self.made, self.took, self.write_s = made, list(took), write_s
        self.connect_s, self.connecting = connect_s, connecting or {}
        self.reads: list[float] = []
        self.written: list[tuple[float, float]] = []
        self.late = 0
        self._complete = made.complete
        made.complete = self.complete  # type: ignore[method-assign]

    def complete(self, flight: InFlight) -> None:
        """Answer it when its time has come."""
        made, send = self.made, flight.send
        if not send.url.endswith(TAG) or send.id in made.aborted:
            return self._complete(flight)
        reads = send.method == "GET"
        if reads:
            self.reads.append(made.now)
        elif made.now <= send.not_after:
            self._connect(send)
        if reads:
            self._connect(send)
            made.now += self.took.pop(0) if len(self.took) > 1 else self.took[0]
        elif made.now > send.not_after:
            self.late += 1
            flight.answer = Failed(id=send.id, kind=FailureKind.NOT_SENT, written=Written.NONE)
        else:
            self.written.append((made.now, send.not_after - self.reads[-1]))
            made.now += self.took[0] if self.write_s is None else self.write_s
        return self._complete(flight)

    def _connect(self, send: Any) -> None:
        if self.connecting.get(send.method):
            self.connecting[send.method] -= 1
            self.made.session.receive(self.made.now, Progress(id=send.id, phase=Phase.CONNECTING))
            self.made.now += self.connect_s


@pytest.mark.parametrize(
    ("round_trip_s", "window_s", "unsure"),
    [(0.6, 0.9, False), (0.7, 1.05, False), (0.8, 1.04, False), (1.0, 1.5, True), (3.0, 4.5, True), (10.0, 15.0, True)],
)
def test_a_window_that_every_read_outlasts_is_widened(round_trip_s: float, window_s: float, unsure: bool) -> None:
    made = play()
    slow = Slow(made, round_trip_s)
    result = made.run(ONE.push())
    assert guarantee(result) is Guarantee.VERIFIED and listed(made).keys() == {ONE.digest}
    assert slow.late == 2 and len(slow.written) == 1 and len(made.sent("GET tag")) == 4
    assert slow.written[0][1] == pytest.approx(window_s)
    assert result.listed[0].unsure is unsure, "2 s after its read it has taken effect, or not"


def test_the_window_of_the_next_write_leaves_room_for_one_twice_as_long_as_the_last() -> None:
    made = play()
    overwritten(made, TWO, times=3)  # also after the two that come too late
    slow = Slow(made, 0.6)
    result = made.run(ONE.push())
    assert [window for _, window in slow.written] == pytest.approx([0.9, 2.0 - 2 * 0.6])
    assert slow.late == 2 and not result.listed[0].unsure
    assert listed(made).keys() == {ONE.digest, TWO.digest}


def test_where_the_wide_window_does_not_fit_the_wait_is_as_long_as_that_of_others_has_to_be() -> None:
    made = play()
    slow = Slow(made, 3.0)
    result = made.run(ONE.push())
    (begun, window_s) = slow.written[0]
    assert slow.reads[-1] - (begun + 3.0) == pytest.approx(window_s + 2 * 3.0) and result.listed[0].unsure


def test_late_tries_that_are_not_in_a_row_widen_nothing() -> None:
    made = play()
    overwritten(made, TWO, times=2)
    slow = Slow(made, 0.6, 0.1, 0.1, 0.6, 0.1, write_s=0.1)
    result = made.run(ONE.push())
    assert slow.late == 2 and [window for _, window in slow.written] == pytest.approx([0.5, 0.5])
    assert guarantee(result) is Guarantee.VERIFIED and not result.listed[0].unsure


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_late_tries_for_connections_that_had_to_be_made_widen_nothing(method: str) -> None:
    made = play()
    slow = Slow(made, 0.1, connect_s=3.0, connecting={method: 3})
    result = made.run(ONE.push())
    assert slow.late == 3 and [window for _, window in slow.written] == pytest.approx([0.5])
    assert guarantee(result) is Guarantee.VERIFIED and not result.listed[0].unsure


def test_what_connecting_took_does_not_count_when_a_kept_connection_is_too_slow() -> None:
    made = play()
    slow = Slow(made, 0.6, connect_s=3.0, connecting={"GET": 1})
    made.run(ONE.push())
    assert slow.late == 3 and [window for _, window in slow.written] == pytest.approx([0.9])


def test_where_no_connection_is_kept_the_last_try_has_a_wide_window() -> None:
    made = play()
    overwritten(made, TWO, times=5)
    slow = Slow(made, 0.3, connect_s=0.25, connecting={"GET": 99, "PUT": 99})
    result = made.run(ONE.push())
    assert slow.late == 4 and [window for _, window in slow.written] == pytest.approx([0.825, 0.825])
    assert guarantee(result) is Guarantee.VERIFIED and not result.listed[0].unsure


def test_late_tries_are_faults_and_come_to_an_end() -> None:
    made = play()
    slow = Slow(made, *(0.6 * 1.6**n for n in range(40)))  # each takes longer than the window has become
    result = made.run(ONE.push())
    assert isinstance(result.error, TransportError)
    assert (slow.late, slow.written) == (5, []) and made.names.count("PUT manifest") == 1


def test_a_registry_too_slow_for_any_window_comes_to_an_end() -> None:
    made = play()
    slow = Slow(made, 80.0)
    assert isinstance(made.run(ONE.push()).error, TransportError)
    assert slow.late == 5 and made.now < 5 * (80.0 + 30.0)


def test_that_writes_are_given_more_time_does_not_make_others_wait_longer() -> None:
    made = play(script={"PUT tag": [HANG]})
    made.when_aborted = CUT  # it was not sent whole: it can't take effect
    slow = Slow(made, 0.1, write_s=2.2)
    result = made.run(ONE.push())
    assert made.aborted and not slow.late and len(slow.written) == 1 and guarantee(result) is Guarantee.VERIFIED
    assert result.listed[0].unsure, "within the 3 s that it was given, and not within the 2 s that others wait"


# --- conditional writes -----------------------------------------------------------------------------------------


def test_a_refused_condition_proves_that_they_are_enforced() -> None:
    made = play(etag=Etag.ENFORCED)
    made.submit(ONE.push())
    put = made.until("PUT tag")
    there(made, TWO)
    write(made, TWO)
    made.answer(put, PASS)
    while not made.step():
        pass
    assert guarantee(made.results[1]) is Guarantee.CONDITIONAL
    assert listed(made).keys() == {ONE.digest, TWO.digest}
    assert made.names[-3:] == ["PUT tag", "GET tag", "PUT tag"], "no look again"
    assert guarantee(made.run(THREE.push())) is Guarantee.CONDITIONAL, "and it is remembered"
    assert made.names[-2:] == ["GET tag", "PUT tag"]


def test_an_accepted_condition_proves_nothing() -> None:
    made = play(TWO, etag=Etag.ENFORCED)
    assert guarantee(made.run(ONE.push())) is Guarantee.VERIFIED


def test_a_412_for_an_unchanged_list_is_a_refusal() -> None:
    made = play(immutable_tags=412, script={"PUT tag": always(refuse(412, "DENIED", "immutable"))})
    result = made.run(ONE.push())
    assert isinstance(result.error, RegistryError) and "immutable" in str(result.error)
    assert len(list_puts(made)) == 2


def test_without_an_etag_there_is_no_condition_to_send() -> None:
    made = play(TWO, etag=Etag.NONE, script={"PUT tag": [refuse(412, "DENIED")]})
    assert isinstance(made.run(ONE.push()).error, RegistryError)
    (put,) = list_puts(made)
    assert header(put, "if-match") is None and header(put, "if-none-match") is None


# --- in one session ---------------------------------------------------------------------------------------------


def test_attachments_of_one_push_cost_one_write() -> None:
    many = [attachment(n) for n in range(20)]
    push = PushPlan(
        repository=REPO,
        blobs={b.descriptor.digest: b for whole in many for b in whole.blobs}.values(),
        manifests=[whole.manifest for whole in many],
    )
    made = play()
    result = made.run(push)
    assert len(list_puts(made)) == 1 and len(listed(made)) == 20
    assert set(result.listed[0].attached) == {whole.digest for whole in many}


def test_pushes_at_the_same_time_share_a_list() -> None:
    made = play()
    made.run(*(attachment(n).push() for n in range(20)))
    assert len(listed(made)) == 20 and len(list_puts(made)) <= 2
    assert {guarantee(result) for result in made.results.values()} == {Guarantee.VERIFIED}


def test_a_push_that_comes_during_the_wait_does_not_wait_for_it() -> None:
    made = play()
    made.submit(ONE.push())
    made.settle()
    made.now = 1.0
    made.submit(TWO.push())
    made.settle()
    assert len(list_puts(made)) == 2 and listed(made).keys() == {ONE.digest, TWO.digest}
    while not made.step():
        pass
    assert made.now == 3.0 and made.results.keys() == {1, 2}


def test_a_push_already_listed_that_comes_during_the_wait_begins_it_anew() -> None:
    made = play(TWO)
    write(made, entry(TWO, artifactType=SBOM, annotations={"number": "2"}))
    made.submit(ONE.push())
    made.settle()
    made.now = 1.5
    made.submit(TWO.push())
    while not made.step():
        pass
    assert made.now == 3.5 and guarantee(made.results[2]) is Guarantee.VERIFIED


def test_pushes_that_keep_coming_do_not_fail_nor_wait_for_ever() -> None:
    made = play(config=Config(referrers_attempts=10))
    for n in range(40):
        made.submit(attachment(n).push())
        made.settle()
        made.now = max(made.now, n + 1.0)
    while not made.step():
        pass
    assert {guarantee(made.results[n]) for n in range(1, 41)} <= {Guarantee.CONTENDED, Guarantee.VERIFIED}
    assert guarantee(made.results[40]) is Guarantee.VERIFIED
    assert len(listed(made)) == 40


def test_cancelled_pushes_leave_the_list_to_the_others() -> None:
    made = play()
    made.submit(ONE.push(), TWO.push())
    made.settle()
    made.session.cancel(1)
    while not made.step():
        pass
    assert made.results[1].outcome is PushOutcome.CANCELLED and guarantee(made.results[2]) is Guarantee.VERIFIED


def test_the_last_to_be_cancelled_stops_the_list() -> None:
    made = play()
    made.submit(ONE.push())
    made.until("PUT tag")
    made.session.cancel(1)
    while not made.step():
        pass
    assert made.results[1].outcome is PushOutcome.CANCELLED and made.aborted


def test_an_attachment_that_was_there_has_its_place_confirmed() -> None:
    made = play(ONE)
    write(made, TWO)  # a crash came between ONE's manifest and its list
    assert guarantee(made.run(ONE.push())) is Guarantee.VERIFIED
    assert ONE.digest in listed(made)


def test_large_attachments_are_looked_for_before_they_are_sent() -> None:
    large = image(blob(bytes(300_000)), subject=described(SUBJECT.manifest), artifactType=SBOM)
    made = play(large)
    made.run(large.push())
    assert made.names[:1] == ["HEAD manifest"] and "POST blob" not in made.names


def test_the_lists_of_different_subjects_are_kept_apart() -> None:
    other = image(b"another subject")
    more = image(b"x", subject=described(other.manifest), artifactType=SBOM)
    made = play()
    result = made.run(
        PushPlan(repository=REPO, blobs=(*ONE.blobs, *more.blobs[1:]), manifests=(ONE.manifest, more.manifest))
    )
    assert {told.subject for told in result.listed} == {SUBJECT.digest, other.digest}
    assert isinstance(more.manifest.descriptor, Descriptor)
    assert more.digest in made.registry.referrers(REPO, other.digest) and ONE.digest in listed(made)


# --- attachments that an index names ----------------------------------------------------------------------------


def test_an_attachment_that_an_index_names_is_listed_also_when_the_index_is_there() -> None:
    whole = index(ONE)
    made = play()
    there(made, ONE)
    made.registry.put_manifest(REPO, whole.manifest.content, "v1")
    assert guarantee(made.run(whole.push("v1"))) is Guarantee.VERIFIED
    assert listed(made).keys() == {ONE.digest}
    assert guarantee(made.run(whole.push())) is Guarantee.VERIFIED


def test_an_api_of_several_pages_that_never_lists_it_ends_the_push() -> None:
    empty = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    more = f'</v2/{REPO}/referrers/{SUBJECT.digest}?page=2>; rel="next"'
    pages = [say(200, empty, Content_Type=OCI_INDEX, Link=more), say(200, empty, Content_Type=OCI_INDEX)]
    made = play(script={"GET referrers": itertools.cycle(pages)}, referrers_api=True, oci_subject=False)
    result = made.run(ONE.push())
    assert isinstance(result.error, RemoteProtocolError) and "does not list it" in str(result.error)
    assert len(made.sent("GET referrers")) == 10


def test_a_list_of_null_is_empty() -> None:
    listing = read_listing(Response(id=0, status=200, body=b'{"schemaVersion": 2, "manifests": null}'))
    assert listing.entries == {} and listing.identity
    with pytest.raises(ContentError, match="no image index"):
        read_listing(Response(id=0, status=200, body=b'{"schemaVersion": 2}'))
