"""What is tried again and when: backoff, Retry-After, timeouts, redirects, and what is not worth another try."""

from __future__ import annotations

import json

import pytest

from core import (
    BASE,
    HANG,
    LOST,
    NOT_SENT,
    PASS,
    PATCHES,
    PLAIN,
    Fail,
    Pass,
    Play,
    Say,
    always,
    content_of,
    header,
    refuse,
    say,
    token,
)
from pushes import REPO, blob, blobs_push, image, index
from regproto import (
    Config,
    FailureKind,
    LocalProtocolError,
    Phase,
    Progress,
    PushOutcome,
    RegistryError,
    RemoteProtocolError,
    Status,
    TransportError,
    Wait,
    Written,
)
from regproto._model.config import TRANSIENT
from regproto.testing import Auth

CONTENT = b"0123456789"
PUSH = blobs_push(blob(CONTENT))
WHOLE = index(image(b"a", config=b"1"), image(b"b", config=b"2"))


# --- when -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(TRANSIENT))
def test_worth_another_try(status: int) -> None:
    play = Play({"PUT manifest": [say(status)]})
    assert play.run(image(b"a").push()).outcome is PushOutcome.PUSHED


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 501, 505, 304])
def test_not_worth_it(status: int) -> None:
    play = Play({"PUT manifest": [refuse(status, "UNSUPPORTED", "not here")]})
    result = play.run(image(b"a").push())
    assert isinstance(result.error, RegistryError) and result.error.status == status
    assert play.names.count("PUT manifest") == 1


def test_backoff_doubles_and_is_spread_over_its_upper_half() -> None:
    play = Play({"POST start": always(say(503))}, config=Config(small_blob_bytes=0, attempts=8, backoff_max_s=10.0))
    play.run(PUSH)
    waits = [notice.delay_s for notice in play.told(Status.RETRYING)]
    for wait, whole in zip(waits, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert whole / 2 <= wait <= whole
    assert play.now == pytest.approx(sum(waits))


def test_notices_say_why() -> None:
    play = Play({"POST start": [NOT_SENT]}, config=PLAIN)
    play.run(PUSH)
    (notice,) = play.told(Status.RETRYING)
    assert "could not be reached (connection refused)" in notice.text


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry_After": "60"}, 60.0),
        ({"Retry_After": "Thu, 01 Jan 2026 00:01:00 GMT", "Date": "Thu, 01 Jan 2026 00:00:00 GMT"}, 60.0),
        ({"Retry_After": "Thu, 01 Jan 2026 00:00:00 GMT", "Date": "Thu, 01 Jan 2026 00:01:00 GMT"}, 0.5),
        ({"Retry_After": "Thu, 01 Jan 2026 00:01:00 GMT"}, 0.5),
        ({"Retry_After": "soon"}, 0.5),
        ({"Retry_After": "0"}, 0.5),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(status: int, headers: dict[str, str], wait: float) -> None:
    play = Play({"POST start": [say(status, **headers)]}, config=PLAIN)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert wait <= play.now <= max(wait, 1.0)


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_beyond_the_maximum_is_a_refusal(status: int) -> None:
    play = Play({"POST start": [say(status, Retry_After="121")]}, config=PLAIN)
    result = play.run(PUSH)
    assert isinstance(result.error, RegistryError) and result.error.status == status and play.now == 0


def test_429_holds_back_the_whole_origin_and_no_other() -> None:
    play = Play(config=PLAIN)
    play.run(blobs_push(blob(b"first")))
    play.submit(PUSH)
    play.answer(play.until("HEAD blob"), say(429, Retry_After="30"))
    play.submit(blobs_push(blob(b"other")))
    before = len(play.sends)
    for play.now in (0.0, 15.0, 29.9):
        assert play.settle() <= 30.0 and len(play.sends) == before
    assert play.run().outcome is PushOutcome.PUSHED


def test_an_idle_connection_that_was_closed_counts_once_for_nothing() -> None:
    closed = Fail(FailureKind.CLOSED, Written.ALL, reused=True)
    play = Play({"POST start": [closed]}, config=Config(small_blob_bytes=0, attempts=1))
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.now == 0
    play = Play({"POST start": [closed, closed]}, config=Config(small_blob_bytes=0, attempts=1))
    assert play.run(PUSH).outcome is PushOutcome.FAILED


def test_a_certificate_gets_no_better() -> None:
    play = Play({"POST blob": always(Fail(FailureKind.TLS, Written.NONE, detail="self-signed certificate"))})
    result = play.run(PUSH)
    assert isinstance(result.error, TransportError) and "self-signed certificate" in str(result.error)
    assert play.names == ["POST blob"]


def test_garbage_again_and_again_is_the_registrys_fault() -> None:
    play = Play({"POST start": always(Fail(FailureKind.PROTOCOL, detail="head over 64 kB"))}, config=PLAIN)
    result = play.run(PUSH)
    assert isinstance(result.error, RemoteProtocolError) and "head over 64 kB" in str(result.error)
    assert play.names.count("POST start") == 5


def test_sent_too_late_is_sent_again() -> None:
    play = Play({"PUT manifest": [Fail(FailureKind.NOT_SENT, Written.NONE)]})
    assert play.run(image(b"a").push()).outcome is PushOutcome.PUSHED


def test_one_attempt() -> None:
    play = Play({"POST start": [LOST]}, config=Config(small_blob_bytes=0, attempts=1))
    assert play.run(PUSH).outcome is PushOutcome.FAILED
    assert play.names.count("POST start") == 1


# --- timeouts ---------------------------------------------------------------------------------------------------

LIMITS = Config(small_blob_bytes=0, connect_timeout_s=3, response_timeout_s=7, idle_timeout_s=5)


@pytest.mark.parametrize(
    ("phase", "after_s", "says"),
    [
        (None, 3, "no connection within 3 s"),
        (Phase.CONNECTING, 3, "no connection within 3 s"),
        (Phase.SENDING, 5, "no byte moved within 5 s"),
        (Phase.WAITING, 7, "no answer within 7 s"),
        (Phase.RECEIVING, 5, "no byte moved within 5 s"),
    ],
)
def test_each_phase_has_its_limit(phase: Phase | None, after_s: float, says: str) -> None:
    play = Play(config=LIMITS)
    play.submit(PUSH)
    sent = play.until("PUT blob")
    play.now = 1.0
    if phase is not None:
        play.session.receive(play.now, Progress(id=sent.id, phase=phase, bytes=1))
        after_s += play.now
    play.now = after_s - 0.01
    play.settle()
    assert not play.aborted
    play.now = after_s
    play.settle()
    assert play.aborted == [sent.id]
    assert any(says in notice.text for notice in play.told(Status.RETRYING))
    assert play.run().outcome is PushOutcome.PUSHED


def test_as_long_as_bytes_move() -> None:
    play = Play(config=LIMITS)
    play.submit(PUSH)
    sent = play.until("PUT blob")
    for moved in range(1, 11):
        play.session.receive(play.now, Progress(id=sent.id, phase=Phase.SENDING, bytes=moved))
        play.settle()
        play.now += 4.0
    assert not play.aborted
    assert [notice.sent_bytes for notice in play.told(Status.UPLOADING)] == list(range(1, 11))
    play.session.receive(play.now, Progress(id=sent.id, phase=Phase.SENDING, bytes=10))
    play.now += 1.0
    play.settle()
    assert play.aborted == [sent.id], "the same again is no sign of life"
    play.run()


def test_the_whole_exchange_may_have_a_limit() -> None:
    play = Play(config=Config(small_blob_bytes=0, exchange_timeout_s=10))
    play.submit(PUSH)
    sent = play.until("PUT blob")
    for moved in range(1, 11):
        play.now = float(moved)
        play.settle()
        assert bool(play.aborted) is (moved == 10)
        if not play.aborted:
            play.session.receive(play.now, Progress(id=sent.id, phase=Phase.SENDING, bytes=moved))
    assert any("not over within 10 s" in notice.text for notice in play.told(Status.RETRYING))


def test_what_comes_in_after_an_abort() -> None:
    play = Play({"HEAD blob": [HANG]}, config=LIMITS)
    play.when_aborted = PASS
    play.submit(PUSH)
    sent = play.until("HEAD blob")
    held = play.held.pop(sent.id)
    play.now = 3.0
    play.settle()
    assert play.aborted == [sent.id]
    play.session.receive(play.now, Progress(id=sent.id, phase=Phase.RECEIVING, bytes=1))
    play.now = 100.0
    assert play.settle() > play.now and play.aborted == [sent.id], "asked for once"
    play.answer(held, PASS)
    assert play.run().outcome is PushOutcome.PUSHED
    with pytest.raises(LocalProtocolError):
        play.answer(held, PASS)


# --- redirects --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_look_follows_every_redirect(status: int) -> None:
    elsewhere = "https://cdn.example/1?sig=a%2Fb"
    play = Play(
        {
            "HEAD blob /v2/": [say(status, Location=elsewhere)],
            "HEAD blob cdn": [say(200, Content_Length=str(len(CONTENT)))],
        },
        config=PLAIN,
    )
    assert play.run(PUSH).existing
    assert [send.url for send in play.sends][1:] == [elsewhere]


@pytest.mark.parametrize("status", [307, 308])
def test_a_body_is_sent_again_from_its_start(status: int) -> None:
    play = Play({"PUT blob": [say(status, Location="/up/2?x=1"), say(201)]}, config=PLAIN)
    play.run(PUSH)
    first, second = play.sent("PUT blob")
    assert second.url == f"{BASE}/up/2?x=1" and content_of(first) == content_of(second) == CONTENT


@pytest.mark.parametrize("status", [301, 302, 303])
@pytest.mark.parametrize("name", ["PUT blob", "POST start", "PUT manifest"])
def test_a_put_never_becomes_a_get(name: str, status: int) -> None:
    play = Play({name: [say(status, Location="/elsewhere")]}, config=PLAIN)
    result = play.run(image(b"a").push())
    assert isinstance(result.error, RegistryError) and result.error.status == status
    assert not any(send.url.endswith("/elsewhere") for send in play.sends)


def test_authorization_does_not_come_back_with_a_redirect() -> None:
    play = Play(auth=Auth.BEARER, config=PLAIN)
    play.run(blobs_push(blob(b"first")))
    there, back = say(307, Location="https://cdn.example/x"), say(307, Location=f"{BASE}/v2/{REPO}/blobs/back")
    play.on({"HEAD blob": [there, back, say(200, Content_Length=str(len(CONTENT)))]})
    play.sends.clear()
    play.run(PUSH)
    assert [bool(header(send, "authorization")) for send in play.sends] == [True, False, False]


def test_a_redirect_loop() -> None:
    play = Play({"HEAD blob": always(say(302, Location="?again"))}, config=PLAIN)
    result = play.run(PUSH)
    assert isinstance(result.error, RemoteProtocolError) and "redirected more than 5 times" in str(result.error)
    assert play.names == ["HEAD blob"] * 6


@pytest.mark.parametrize(
    ("location", "says"),
    [("http://registry.example/x", "plain http"), ("https://127.0.0.1/x", "private"), ("/\x7f", "control characters")],
)
def test_a_redirect_that_is_not_followed(location: str, says: str) -> None:
    play = Play({"HEAD blob": [say(307, Location=location)]}, config=PLAIN)
    result = play.run(PUSH)
    assert isinstance(result.error, RemoteProtocolError) and says in str(result.error)
    assert play.names == ["HEAD blob"]


def test_a_redirect_without_location() -> None:
    play = Play({"HEAD blob": [say(307)], "PUT blob": [say(307)]}, config=PLAIN)
    result = play.run(PUSH)
    assert isinstance(result.error, RegistryError) and result.error.status == 307
    assert play.names == ["HEAD blob", "POST start", "PUT blob", "DELETE session"]


def test_cancelled_on_its_way_elsewhere() -> None:
    play = Play(config=PLAIN)
    play.when_aborted = say(307, Location="/x")
    push_id = play.submit(PUSH)
    play.until("HEAD blob")
    play.session.cancel(push_id)
    assert play.run().outcome is PushOutcome.CANCELLED and play.names == ["HEAD blob"]


def test_a_token_form_goes_to_no_other_host() -> None:
    script: dict[str, list[Say | Pass]] = {
        "POST token": [say(307, Location="https://elsewhere.example/token")],
        "POST token elsewhere": [token("t")],
    }
    play = Play(script, auth=Auth.BEARER, keychain={"identity_token": "refresh me"})
    result = play.run(PUSH)
    assert result.outcome is PushOutcome.FAILED and play.names == ["POST blob", "POST token"]
    assert "no credentials" in str(result.error)


# --- what the registry says -------------------------------------------------------------------------------------


def test_warnings_are_shown_once_per_text() -> None:
    play = Play(warnings=("moving soon", "read only\x1b[31m tomorrow"))
    result = play.run(WHOLE.push("1.0"))
    assert result.warnings == ("moving soon", "read only\\x1b[31m tomorrow")
    assert [(n.subject, n.text) for n in play.told(Status.WARNING)] == [
        ("registry.example", t) for t in result.warnings
    ]


def test_errors_name_what_where_and_what_next() -> None:
    errors = [{"code": "DENIED", "message": "quota\x1b[2J exceeded", "detail": {"a": 1}}] * 9
    play = Play({"PUT commit": [say(403, json.dumps({"errors": errors}).encode())]}, config=PATCHES)
    result = play.run(PUSH)
    error = result.error
    assert isinstance(error, RegistryError) and error.codes == {"DENIED"} and len(error.errors) == 5
    text = str(error)
    for part in ("upload of blob sha256:", "PUT", f"{BASE}/v2/{REPO}/blobs/uploads/", "403", "DENIED: quota\\x1b[2J"):
        assert part in text
    assert "check that this account may push" in text and "_state" not in text and "\x1b" not in text
    assert error.errors[0].detail == '{"a": 1}'


def test_what_an_unknown_error_is_stands_in_its_detail() -> None:
    body = json.dumps(
        {"errors": [{"code": "UNKNOWN", "message": "unknown error", "detail": {"Op": "write", "Err": 28}}]}
    )
    result = Play({"POST start": always(say(500, body.encode()))}, config=PLAIN).run(PUSH)
    assert '(UNKNOWN: unknown error, {"Op": "write", "Err": 28})' in str(result.error)


@pytest.mark.parametrize(
    "body", [b"<html>no \x07</html>", b'{"errors": 7}', b'{"errors": [7]}', b"[" * 100_000, b"\xff" * 9]
)
def test_errors_of_no_known_form(body: bytes) -> None:
    result = Play({"POST start": [say(403, body)]}, config=PLAIN).run(PUSH)
    assert isinstance(result.error, RegistryError) and result.error.errors == ()
    assert len(str(result.error)) < 1_000 and str(result.error).isprintable()


def test_more_hosts_than_anybody_needs_are_forgotten_when_idle() -> None:
    play = Play(config=PLAIN)
    for n in range(100):
        play.on({"POST start": [say(202, Location=f"https://host{n}.example/up")], "PUT blob": [say(201)]})
        assert play.run(blobs_push(blob(str(n).encode()))).outcome is PushOutcome.PUSHED


def test_too_many_hosts_at_once() -> None:
    play = Play(config=Config(small_blob_bytes=0, max_exchanges=500))
    count = 70
    play.on(
        {
            "POST start": [say(202, Location=f"https://host{n}.example/up") for n in range(count)],
            "PUT blob": always(HANG),
        }
    )
    play.submit(blobs_push(*(blob(str(n).encode()) for n in range(count))))
    result = play.run()
    assert isinstance(result.error, RemoteProtocolError) and "more than 64 hosts" in str(result.error)
    assert isinstance(play.session.poll(play.now), Wait)
