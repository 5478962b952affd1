"""The fake registry's challenges, tokens and grants."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from fake_requests import ABSENT, REPO, UPLOADS, Client
from regproto.testing import ALL_ACTIONS, Auth, Fault, FaultKind, Grant, Reply

USERS = {"ann": "secret", "ben": "hidden"}
GRANTS = (
    Grant(repository="public/*", actions={"pull"}),
    Grant(user="ann", repository="team/*"),
    Grant(user="ben", repository=REPO, actions={"pull"}),
    Grant(user="", repository="open", actions=ALL_ACTIONS),
)
BLOB = f"/v2/{REPO}/blobs/{ABSENT}"


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def fetch(client: Client, *scopes: str, user: str = "", now: float = 0.0, **query: Any) -> Reply:
    """A token request by GET."""
    text = urlencode({"service": "registry.example", "scope": scopes, **query}, doseq=True)
    return client("GET", f"/token?{text}", b"", basic(user, USERS[user]) if user else {}, now=now)


def token_of(reply: Reply) -> str:
    assert reply.status == 200
    return str(json.loads(reply.content)["token"])


def post(client: Client, **form: str) -> Reply:
    """A token request by OAuth2 POST."""
    body = urlencode({"service": "registry.example", "scope": f"repository:{REPO}:pull,push", **form})
    return client("POST", "/token", body.encode(), {"Content-Type": "application/x-www-form-urlencoded"})


@pytest.mark.parametrize(
    ("headers", "method", "target", "status"),
    [
        ({}, "GET", "/v2/", 401),
        (basic("ann", "wrong"), "GET", "/v2/", 401),
        (basic("nobody", "secret"), "GET", "/v2/", 401),
        ({"Authorization": "Basic !"}, "GET", "/v2/", 401),
        (bearer("x"), "GET", "/v2/", 401),
        (basic("ann", "secret"), "GET", "/v2/", 200),
        (basic("ann", "secret"), "POST", UPLOADS, 202),
        (basic("ben", "hidden"), "HEAD", BLOB, 404),
        (basic("ben", "hidden"), "POST", UPLOADS, 403),
        (basic("ben", "hidden"), "GET", "/v2/team/other/tags/list", 403),
    ],
)
def test_basic(headers: dict[str, str], method: str, target: str, status: int) -> None:
    client = Client(auth=Auth.BASIC, users=USERS, grants=GRANTS)
    reply = client(method, target, b"", headers)
    assert reply.status == status
    assert (reply.header("www-authenticate") == 'Basic realm="registry"') is (status == 401)
    assert client("GET", "/token").status == 404


@pytest.mark.parametrize(
    ("method", "target", "scope"),
    [
        ("GET", "/v2/", ""),
        ("HEAD", BLOB, f',scope="repository:{REPO}:pull"'),
        ("DELETE", BLOB, f',scope="repository:{REPO}:delete"'),
        ("POST", UPLOADS, f',scope="repository:{REPO}:pull,push"'),
        ("PUT", f"/v2/{REPO}/manifests/v1", f',scope="repository:{REPO}:pull,push"'),
        ("DELETE", f"{UPLOADS}0123", f',scope="repository:{REPO}:pull,push"'),
        (
            "POST",
            f"{UPLOADS}?mount={ABSENT}&from=public/base",
            f',scope="repository:{REPO}:pull,push repository:public/base:pull"',
        ),
    ],
)
def test_challenges(method: str, target: str, scope: str) -> None:
    reply = Client(auth=Auth.BEARER)(method, target)
    assert (reply.status, reply.codes) == (401, () if method == "HEAD" else ("UNAUTHORIZED",))
    expected = f'Bearer realm="http://registry.example/token",service="registry.example"{scope}'
    assert reply.header("www-authenticate") == expected


def test_a_realm_elsewhere() -> None:
    reply = Client(auth=Auth.BEARER, realm="https://auth.example/t")("GET", "/v2/")
    assert 'realm="https://auth.example/t"' in (reply.header("www-authenticate") or "")


@pytest.mark.parametrize(
    ("user", "scopes", "target", "status"),
    [
        ("ann", [f"repository:{REPO}:pull,push"], UPLOADS, 202),
        ("ann", [f"repository:{REPO}:*"], UPLOADS, 202),
        ("ann", ["repository:team/x:pull", f"repository:{REPO}:pull,push"], UPLOADS, 202),
        ("ann", [f"repository:team/x:pull repository:{REPO}:pull,push"], UPLOADS, 202),
        ("ann", [f"repository:{REPO}:pull", f"repository:{REPO}:push"], UPLOADS, 202),
        ("ann", [f"repository:{REPO}:pull"], UPLOADS, 401),
        ("ann", ["registry:catalog:*", "nonsense"], UPLOADS, 401),
        ("ben", [f"repository:{REPO}:pull,push"], UPLOADS, 401),
        ("", [f"repository:{REPO}:pull,push"], UPLOADS, 401),
        ("", ["repository:open:pull,push"], "/v2/open/blobs/uploads/", 202),
        ("ann", ["repository:open:pull,push"], "/v2/open/blobs/uploads/", 401),
        ("", ["repository:public/x:pull,push"], "/v2/public/x/blobs/uploads/", 401),
    ],
)
def test_a_token_has_what_was_asked_for_and_is_granted(user: str, scopes: list[str], target: str, status: int) -> None:
    client = Client(auth=Auth.BEARER, users=USERS, grants=GRANTS)
    token = token_of(fetch(client, *scopes, user=user))
    reply = client("POST", target, b"", bearer(token))
    assert reply.status == status
    assert ("insufficient_scope" in (reply.header("www-authenticate") or "")) is (status == 401)


def test_mounting_needs_the_right_to_pull_from_the_source() -> None:
    client = Client(auth=Auth.BEARER, users=USERS, grants=GRANTS)
    digest = client.registry.put_blob("public/base", b"layer")
    push = f"repository:{REPO}:pull,push"
    for scopes, status in (((push,), 401), ((push, "repository:public/base:pull"), 201)):
        token = token_of(fetch(client, *scopes, user="ann"))
        reply = client("POST", f"{UPLOADS}?mount={digest}&from=public/base", b"", bearer(token))
        assert reply.status == status


@pytest.mark.parametrize(("expires_in", "life"), [(300, 300), (None, 60)])
def test_tokens_end(expires_in: int | None, life: int) -> None:
    client = Client(auth=Auth.BEARER, expires_in=expires_in)
    reply = fetch(client, f"repository:{REPO}:pull", now=1000.0)
    assert json.loads(reply.content).get("expires_in") == expires_in
    token = token_of(reply)
    assert client("HEAD", BLOB, b"", bearer(token), now=1000.0 + life - 1).status == 404
    late = client("HEAD", BLOB, b"", bearer(token), now=1000.0 + life)
    assert (late.status, "invalid_token" in str(late.header("www-authenticate"))) == (401, True)
    claims, _, seal = token.partition(".")
    assert client("HEAD", BLOB, b"", bearer(f"{claims}x.{seal}"), now=1000.0).status == 401


@pytest.mark.parametrize(
    ("options", "user", "query", "status"),
    [
        ({}, "", {}, 200),
        ({"anonymous_tokens": False}, "", {}, 401),
        ({"anonymous_tokens": False}, "ann", {}, 200),
        ({"ungranted": 403}, "", {}, 403),
        ({"ungranted": 403}, "ben", {}, 403),
        ({"ungranted": 403}, "ann", {}, 200),
        ({}, "ann", {"service": "another"}, 400),
    ],
)
def test_token_requests(options: dict[str, Any], user: str, query: dict[str, Any], status: int) -> None:
    client = Client(auth=Auth.BEARER, users=USERS, grants=GRANTS, **options)
    assert fetch(client, f"repository:{REPO}:pull,push", user=user, **query).status == status


def test_wrong_passwords_get_no_token() -> None:
    client = Client(auth=Auth.BEARER, users=USERS)
    reply = client("GET", "/token?service=registry.example", b"", basic("ann", "wrong"))
    assert (reply.status, reply.codes) == (401, ("UNAUTHORIZED",))


def test_answers_of_other_token_servers() -> None:
    client = Client(auth=Auth.BEARER, token_field="access_token", first_scope_only=True)
    reply = fetch(client, "repository:a:pull", f"repository:{REPO}:pull")
    answer = json.loads(reply.content)
    assert answer.keys() == {"access_token", "expires_in"}
    assert client("HEAD", BLOB, b"", bearer(answer["access_token"])).status == 401


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"grant_type": "refresh_token", "refresh_token": "given"}, 200),
        ({"grant_type": "refresh_token", "refresh_token": "ann.forged"}, 401),
        ({"grant_type": "refresh_token"}, 401),
        ({"grant_type": "password", "username": "ann", "password": "secret"}, 200),
        ({"grant_type": "password", "username": "ann", "password": "wrong"}, 401),
        ({"grant_type": "magic"}, 400),
    ],
)
def test_oauth2(form: dict[str, str], status: int) -> None:
    client = Client(auth=Auth.BEARER, users=USERS, grants=GRANTS, identity_tokens={"given": "ann"})
    reply = post(client, **form)
    assert reply.status == status
    if status == 200:
        assert client("POST", UPLOADS, b"", bearer(token_of(reply))).status == 202
    assert post(Client(auth=Auth.BEARER, token_post=404), **form).status == 404


def test_refresh_tokens_are_handed_out_and_taken_back() -> None:
    client = Client(auth=Auth.BEARER, users=USERS, grants=GRANTS)
    assert "refresh_token" not in json.loads(fetch(client, offline_token="true").content)
    refresh = json.loads(fetch(client, user="ann", offline_token="true").content)["refresh_token"]
    reply = post(client, grant_type="refresh_token", refresh_token=refresh, access_type="offline")
    assert json.loads(reply.content)["refresh_token"] == refresh
    assert client("POST", UPLOADS, b"", bearer(token_of(reply))).status == 202


def test_an_injected_401_carries_the_challenge() -> None:
    client = Client(auth=Auth.BEARER)
    reply = client("HEAD", BLOB, fault=Fault(kind=FaultKind.STATUS, status=401))
    assert reply.status == 401
    assert "scope=" in (reply.header("www-authenticate") or "")
    own = (("WWW-Authenticate", "Negotiate"),)
    reply = client("HEAD", BLOB, fault=Fault(kind=FaultKind.STATUS, status=401, headers=own))
    assert reply.header("www-authenticate") == "Negotiate"
