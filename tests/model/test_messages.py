"""What passes between core and driver, and the errors: nothing secret in any repr."""

from __future__ import annotations

import pickle

import attrs
import pytest

from core import PATCHES, Play, header, refuse, say
from pushes import blob, blobs_push, image
from regproto import (
    BlobSlice,
    Config,
    Credentials,
    Digest,
    LocalProtocolError,
    RegistryError,
    RegistryErrorDetail,
    RegprotoError,
    Response,
    Send,
)
from regproto._machines.base import Request
from regproto._model.config import MIB
from regproto._model.errors import ERROR_TEXT_MAX, printable
from regproto._model.messages import body_size
from regproto.testing import Auth

CONTENT = b"0123456789"
USER = {"username": "ann", "password": "s3cret"}


@pytest.mark.parametrize("name", ["Authorization", "COOKIE", "set-cookie", "Proxy-Authorization"])
def test_headers_with_secrets(name: str) -> None:
    headers = ((name, "Bearer s3cret"), ("Accept", "a/b"))
    send = Send(id=1, method="GET", url="https://x/y?sig=s3cret", headers=headers, max_head_bytes=1, max_body_bytes=1)
    response = Response(id=1, status=200, headers=headers, body=b'{"token": "s3cret"}')
    for message in (send, response):
        assert "s3cret" not in repr(message) and "a/b" in repr(message) and "<redacted>" in repr(message)
    assert "https://x/y" in repr(send) and "<19 bytes>" in repr(response)


@pytest.mark.parametrize("name", ["Location", "content-location", "LINK"])
def test_urls_in_headers_lose_their_query(name: str) -> None:
    headers = ((name, '<https://up.example/u/1?sig=s3cret&_state=s3cret>; rel="next"'), ("Range", "0-?"))
    said = repr(Response(id=1, status=202, headers=headers))
    assert "s3cret" not in said and "https://up.example/u/1?<redacted>" in said and "next" in said and "0-?" in said


def test_a_machine_s_request() -> None:
    headers = (("Authorization", "s3cret"),)
    said = repr(Request("POST", "https://x/y?sig=s3cret", headers, b"refresh_token=s3cret"))
    assert "s3cret" not in said and "https://x/y" in said


def test_credentials() -> None:
    known = Credentials(id=1, username="ann", password="s3cret", identity_token="s3cret", registry_token="s3cret")
    assert "s3cret" not in repr(known) and "ann" in repr(known)


def test_nothing_secret_in_anything_a_push_says() -> None:
    options = {"auth": Auth.BEARER, "users": {"ann": "s3cret"}, "anonymous_tokens": False, "keychain": USER}
    play = Play({"PUT commit": [refuse(403, "DENIED")]}, config=PATCHES, **options)
    result = play.run(image(CONTENT).push("1.0"))
    tokens = {header(send, "authorization") for send in play.sends} - {None}
    assert len(tokens) == 2
    secrets = [str(value).partition(" ")[2] for value in tokens] + ["s3cret", "_state"]
    said = [repr(play.sends), repr(play.notices), repr(result), str(result.error), repr(play.session), repr(play.edges)]
    for secret in secrets:
        assert all(secret not in text for text in said)


def test_the_size_of_a_body() -> None:
    part = BlobSlice(source=CONTENT, digest=Digest.of(CONTENT), offset=2, size=5)
    assert (body_size(b"abc"), body_size(part)) == (3, 5)
    assert "0123456789" not in repr(part)


def test_messages_are_frozen() -> None:
    play = Play()
    play.run(blobs_push(blob(CONTENT)))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        play.sends[0].url = "https://elsewhere.example"  # type: ignore[misc]


def test_bounds_of_an_answer_are_on_every_send() -> None:
    play = Play(auth=Auth.BEARER)
    play.run(image(CONTENT).push("1.0"))
    assert {send.max_head_bytes for send in play.sends} == {64 * 1024}
    assert {send.max_body_bytes for send in play.sent("GET token")} == {MIB}
    assert {send.max_body_bytes for send in play.sent("PUT tag")} == {64 * 1024}


# --- errors -----------------------------------------------------------------------------------------------------


def test_a_registrys_error() -> None:
    error = RegistryError("no", status=403, errors=(RegistryErrorDetail("DENIED"), RegistryErrorDetail("X", "y", "z")))
    assert isinstance(error, RegprotoError) and error.codes == {"DENIED", "X"}
    assert error.errors[1].message == "y"


def test_an_error_can_be_sent_to_another_process() -> None:
    result = Play({"POST blob": [say(403)]}).run(blobs_push(blob(CONTENT)))
    again = pickle.loads(pickle.dumps(result.error))
    assert isinstance(again, RegistryError) and (str(again), again.status) == (str(result.error), 403)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\r\nb", "a\\r\\nb"),
        ("\u202eevil", "\\u202eevil"),
        ("é", "é"),
        ("x" * 5_000, "x" * ERROR_TEXT_MAX + "…"),
    ],
)
def test_what_is_safe_to_print(text: str, shown: str) -> None:
    assert printable(text) == shown


# --- choices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "max_exchanges",
        "max_body_bytes",
        "attempts",
        "backoff_base_s",
        "backoff_max_s",
        "retry_after_max_s",
        "connect_timeout_s",
        "response_timeout_s",
        "idle_timeout_s",
        "exchange_timeout_s",
        "chunk_bytes",
    ],
)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_is_more_than_nothing(name: str, value: float) -> None:
    with pytest.raises(LocalProtocolError, match=f"{name} must be more than 0"):
        Config(**{name: value})


@pytest.mark.parametrize("name", ["small_blob_bytes", "resumable_above_bytes"])
def test_a_size_may_be_nothing(name: str) -> None:
    assert getattr(Config(**{name: 0}), name) == 0
    with pytest.raises((LocalProtocolError, ValueError)):
        Config(**{name: -1})
