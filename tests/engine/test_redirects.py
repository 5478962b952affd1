"""Where answers lead, and what goes along: a table of the Authorization that each request of a chain carried."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import attrs
import pytest

from core import BASE, PATCHES, PLAIN, Answer, Play, Say, header, say
from pushes import REPO, blob, blobs_push, image
from regproto import Config, ListReferrers, PushOutcome, PushPlan, RemoteProtocolError, ResolveReference, Send
from regproto._model.manifest import OCI_INDEX
from regproto.testing import Auth, LocationStyle

CONTENT: Final = b"0123456789"
BASIC: Final = "Basic " + base64.b64encode(b"ann:s3cret").decode()
UPLOADS: Final = f"/v2/{REPO}/blobs/uploads"
IMAGE: Final = image(b"layer")

ORIGINS: Final = {"own": BASE, "port": f"{BASE}:8443", "other": "https://storage.example"}
WAYS: Final = {
    "stays": ("own", "own"),
    "another port": ("port",),
    "another host": ("other",),
    "there and back": ("other", "own"),
    "another port and back": ("port", "own"),
    "there, back and on": ("other", "own", "own"),
    "there, back, there and back": ("other", "own", "port", "own"),
}


class Chain(Play):
    """Answers the first authorized request of a method with a redirect, and leads on along a way from there."""

    def lead(self, method: str, status: int, *urls: str) -> None:
        self.method, self.status, self.urls = method, status, list(urls)
        self.chain: list[Send] = []

    def _answer_to(self, send: Send) -> Answer:
        begins = not self.chain and send.method == self.method and header(send, "authorization") is not None
        goes_on = bool(self.chain and self.urls) and send.url == self.urls[0]
        if goes_on:
            self.urls.pop(0)
        if begins or goes_on:
            self.chain.append(send)
            return Say(self.status, (("Location", self.urls[0]),)) if self.urls else say(403)
        return super()._answer_to(send)


def _pushed_in_vain(play: Play) -> None:
    """An upload session is deleted: what it was for is refused."""
    play.on({"PATCH": [say(400)]})


@attrs.frozen
class Method:
    """How a method is provoked, and what its redirects may lead to at the registry."""

    push: Callable[[], PushPlan]
    path: str
    config: Config = PLAIN
    before: Callable[[Play], None] = lambda play: None


LAYER: Final = blobs_push(blob(CONTENT))
METHODS: Final = {
    "HEAD": Method(lambda: LAYER, f"/v2/{REPO}/blobs/elsewhere"),
    "GET": Method(
        lambda: PushPlan(repository=REPO, lookups=[ResolveReference(reference="1.0", content=True)]),
        "/v2/x/manifests/y",
    ),
    "POST": Method(lambda: LAYER, f"{UPLOADS}/"),
    "PUT": Method(lambda: LAYER, f"{UPLOADS}/7"),
    "PATCH": Method(lambda: LAYER, f"{UPLOADS}/7", PATCHES),
    "DELETE": Method(lambda: LAYER, f"{UPLOADS}/7", PATCHES, _pushed_in_vain),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", METHODS)
def test_authorization_along_a_chain(method: str, status: int, way: str) -> None:
    case, origins = METHODS[method], WAYS[way]
    play = Chain(auth=Auth.BASIC, users={"ann": "s3cret"}, config=case.config)
    play.keychain = {"username": "ann", "password": "s3cret"}
    play.registry.put_manifest(REPO, IMAGE.manifest.content, "1.0")
    urls = [f"{ORIGINS[origin]}{case.path}?hop={n}" for n, origin in enumerate(origins)]
    play.lead(method, status, *urls)
    case.before(play)
    play.run(case.push())
    followed = urls if status >= 307 or method in ("HEAD", "GET") else []
    assert [send.url for send in play.chain[1:]] == followed
    assert {send.method for send in play.chain} == {method}
    gone = [any(origin != "own" for origin in origins[: n + 1]) for n in range(len(followed))]
    assert [header(send, "authorization") for send in play.chain] == [BASIC, *(None if g else BASIC for g in gone)]


def test_a_token_servers_chain_that_comes_back_gets_no_credentials() -> None:
    realm, other = "https://auth.example/token", "https://elsewhere.example/token"
    challenge = Say(401, (("WWW-Authenticate", f'Bearer realm="{realm}"'),))
    script = {
        "POST blob": [challenge],
        "GET token auth.example": [say(302, Location=other), say(200, b'{"token": "t"}')],
        "GET token elsewhere.example": [say(302, Location=realm)],
    }
    play = Play(script, keychain={"username": "ann", "password": "s3cret"})
    assert play.run(LAYER).outcome is PushOutcome.PUSHED
    assert [header(send, "authorization") for send in play.sent("GET token")] == [BASIC, None, None]


def test_a_challenge_at_the_end_of_such_a_chain_is_a_refusal() -> None:
    """It would be asked for again and again: a new token changes nothing where none is sent."""
    home = f"{BASE}{UPLOADS}/7"
    script = {
        "PATCH": [say(307, Location="https://storage.example/up"), say(307, Location=home), say(401)],
    }
    play = basic(script, PATCHES)
    result = play.run(LAYER)
    assert result.outcome is PushOutcome.FAILED and play.names.count("PATCH") == 3


# --- Locations --------------------------------------------------------------------------------------------------


def basic(script: dict[str, list[Answer]], config: Config = PLAIN, **options: object) -> Play:
    """A registry that wants a user."""
    user = {"username": "ann", "password": "s3cret"}
    return Play(script, config=config, keychain=user, auth=Auth.BASIC, users={"ann": "s3cret"}, **options)


NO_UPLOADS: Final = [
    f"/v2/{REPO}/manifests/1.0",
    f"/v2/{REPO}/manifests/{IMAGE.digest}",
    f"/v2/{REPO}/blobs/{IMAGE.digest}",
    f"/v2/{REPO}/blobs/uploads/../../manifests/1.0",
    f"/v2/{REPO}/blobs/uploads/%2e%2e/%2e%2e/manifests/1.0",
    f"/v2/{REPO}/blobs/uploads/x/manifests/1.0",
    f"/v2/{REPO}/blobs/uploads/x/blobs/uploads/7",
    f"/v2//{REPO}/manifests/1.0",
    f"/V2/{REPO}/manifests/1.0",
    f"{BASE}:443/v2/{REPO}/manifests/1.0",
    "/v2/team/another/blobs/uploads/7",
    "/v2/team/another/tags/list",
    f"/v2/team/another/referrers/{IMAGE.digest}",
]
"""What a session's Location or redirect is never to lead to at the registry's own origin."""


def _asked_of(play: Play, url: str) -> bool:
    path = urlsplit(url).path
    return any(urlsplit(send.url).path == path for send in play.sends)


@pytest.mark.parametrize("path", NO_UPLOADS)
@pytest.mark.parametrize("at", ["start", "mount", "single post", "patch", "status"])
def test_a_location_that_is_no_upload_of_the_repository(at: str, path: str) -> None:
    answer = say(202, Location=path)
    if at == "start":
        play = basic({"POST start": [say(401, WWW_Authenticate="Basic"), answer]})
    elif at == "mount":
        play = basic({"POST mount": [answer]})
    elif at == "single post":
        play = basic({"POST blob": [say(401, WWW_Authenticate="Basic"), answer]}, Config())
    elif at == "patch":
        play = basic({"PATCH": [answer]}, PATCHES)
    else:
        play = basic({"PATCH": [say(503)], "GET session": [say(204, Location=path, Range="0-3")]}, PATCHES)
    source = ("team/base",) if at == "mount" else ()
    result = play.run(blobs_push(blob(CONTENT, *source)))
    assert isinstance(result.error, RemoteProtocolError) and "is not an upload URL of team/app" in str(result.error)
    assert not _asked_of(play, path)


@pytest.mark.parametrize("path", NO_UPLOADS)
@pytest.mark.parametrize("request_name", ["POST start", "PUT blob", "PATCH", "DELETE session", "GET session"])
def test_a_redirect_that_is_no_upload_of_the_repository(request_name: str, path: str) -> None:
    script: dict[str, list[Answer]] = {request_name: [say(307, Location=path)]}
    if request_name == "DELETE session":
        script["PATCH"] = [say(400)]
    elif request_name == "GET session":
        script["PATCH"] = [say(503)]
    elif request_name == "POST start":
        script[request_name] = [say(401, WWW_Authenticate="Basic"), *script[request_name]]
    play = basic(script, PLAIN if request_name == "PUT blob" else PATCHES)
    result = play.run(LAYER)
    assert result.outcome is PushOutcome.FAILED and not _asked_of(play, path)


@pytest.mark.parametrize(
    "path",
    [
        f"{UPLOADS}/7",
        f"/v2/{REPO}/blobs/upload/7",
        f"{UPLOADS}",
        "/uploads/7",
        "/v2/upload/7",
        "/up?v2=/v2/x/manifests/1",
    ],
)
def test_a_location_that_may_be_one(path: str) -> None:
    play = basic({"POST start": [say(401, WWW_Authenticate="Basic"), say(202, Location=path)], "PUT blob": [say(201)]})
    assert play.run(LAYER).outcome is PushOutcome.PUSHED
    assert _asked_of(play, path)


@pytest.mark.parametrize("path", [f"/v2/{REPO}/manifests/1.0", "/v2/team/another/blobs/uploads/7", f"{UPLOADS}/7"])
@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_an_upload_host_that_redirects_to_the_registry(method: str, path: str) -> None:
    """Nothing of ours goes along, and nothing but an upload is asked for."""
    script: dict[str, list[Answer]] = {
        f"{method} https://uploads.example": [say(307, Location=f"{BASE}{path}")],
    }
    script = {key.replace("PUT ", "PUT commit ").replace("DELETE ", "DELETE session "): v for key, v in script.items()}
    if method == "DELETE":
        script["PATCH"] = [say(400)]
    play = basic(script, PATCHES, location_style=LocationStyle.OTHER_HOST)
    result = play.run(LAYER)
    assert result.outcome is PushOutcome.FAILED
    there = [send for send in play.sends if send.url.startswith(f"{BASE}{path}")]
    assert [header(send, "authorization") for send in there] == ([None] if path == f"{UPLOADS}/7" else [])


def test_a_location_at_the_registry_that_an_upload_host_named_gets_no_authorization() -> None:
    home = f"{UPLOADS}/7"
    script: dict[str, list[Answer]] = {
        "POST start": [say(401, WWW_Authenticate="Basic"), say(202, Location="https://uploads.example/up")],
        "PATCH": [say(202, Location=f"{BASE}{home}")],
        "PUT commit": [say(201)],
    }
    play = basic(script, PATCHES)
    assert play.run(LAYER).outcome is PushOutcome.PUSHED
    assert [(name, header(send, "authorization")) for name, send in zip(play.names, play.sends, strict=True)][-2:] == [
        ("PATCH", None),
        ("PUT commit", None),
    ]
    assert play.sends[-1].url.startswith(BASE + home)


def test_what_comes_after_it_gets_none_either() -> None:
    """The registry's own words, once it was asked where another host had led us, are about that session alone."""
    script: dict[str, list[Answer]] = {
        "POST start": [say(401, WWW_Authenticate="Basic"), say(202, Location="https://uploads.example/up")],
        "PATCH": [say(202, Location=f"{BASE}{UPLOADS}/7"), say(202, Location=f"{UPLOADS}/8")],
        "PUT commit": [say(503)],
        "HEAD blob": [say(404), say(404)],
        "GET session": [say(204, Range="0-9", Location=f"{UPLOADS}/9")],
    }
    play = basic(script, attrs.evolve(PATCHES, chunk_bytes=5))
    play.run(LAYER)
    sent = [(name, header(send, "authorization")) for name, send in zip(play.names, play.sends, strict=True)]
    assert sent[3:8] == [
        *(("PATCH", None), ("PATCH", None), ("PUT commit", None)),
        *(("HEAD blob", BASIC), ("GET session", None)),
    ]
    assert play.sent("PUT commit")[1].url.startswith(f"{BASE}{UPLOADS}/9?")
    assert header(play.sent("PUT commit")[1], "authorization") is None


def test_such_a_session_is_not_kept_for_a_later_process() -> None:
    script: dict[str, list[Answer]] = {
        "POST start": [say(401, WWW_Authenticate="Basic"), say(202, Location="https://uploads.example/up")],
        "PATCH": [say(202, Location=f"{BASE}{UPLOADS}/7")],
    }
    play = basic(script, attrs.evolve(PATCHES, chunk_bytes=5), save=True)
    play.submit(LAYER)
    play.until("PATCH")
    play.settle()
    assert all(b"uploads/7" not in data for data in play.saves)


def test_a_page_at_the_registry_that_another_host_named_gets_no_authorization() -> None:
    body = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % OCI_INDEX.encode()

    def page(then: str) -> Say:
        return Say(200, (("Content-Type", OCI_INDEX), ("Link", f'<{then}>; rel="next"')), body)

    script: dict[str, list[Answer]] = {
        "GET referrers": [
            say(401, WWW_Authenticate="Basic"),
            page("https://pages.example/v2/x/referrers/2"),
            page(f"{BASE}/v2/x/referrers/3"),
            Say(200, (("Content-Type", OCI_INDEX),), body),
        ],
    }
    play = basic(script)
    result = play.run(PushPlan(repository=REPO, lookups=[ListReferrers(subject=IMAGE.digest)]))
    assert result.outcome is PushOutcome.PUSHED
    assert [header(send, "authorization") for send in play.sends] == [None, BASIC, None, None]
