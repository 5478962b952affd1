"""Authorization: challenges, tokens asked for, held and renewed, and who is never told a credential."""

from __future__ import annotations

import base64
import traceback
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from core import BASE, HANG, PASS, PATCHES, PLAIN, Play, Say, always, cut_after, header, name_of, refuse, say, token
from pushes import REPO, blob, blobs_push, image, index
from regproto import AuthenticationError, Config, Credentials, PushOutcome, RegistryError
from regproto._engine.authorizer import SOURCES_KEPT
from regproto.testing import Auth, Grant

CONTENT = b"0123456789"
PUSH = blobs_push(blob(CONTENT))
USER = {"username": "ann", "password": "s3cret"}
BASIC = "Basic " + base64.b64encode(b"ann:s3cret").decode()
REALM = "https://auth.example/token"


def bearer(**options: Any) -> Play:
    return Play(auth=Auth.BEARER, **options)


def challenge(*values: str) -> Say:
    """A 401 with these WWW-Authenticate headers."""
    return Say(401, tuple(("WWW-Authenticate", value) for value in values))


def asked(play: Play) -> list[dict[str, list[str]]]:
    """The queries of the token requests."""
    return [parse_qs(urlsplit(send.url).query) for send in play.sent("GET token")]


# --- challenges -------------------------------------------------------------------------------------------------


def test_no_ping_the_first_request_takes_the_challenge() -> None:
    play = bearer()
    assert play.run(index(image(b"a"), image(b"b")).push("1.0")).outcome is PushOutcome.PUSHED
    assert play.names[:3] == ["HEAD tag", "GET token", "HEAD tag"]
    assert header(play.sends[0], "authorization") is None
    assert all((header(send, "authorization") or "").startswith("Bearer ") for send in play.sends[2:])
    assert play.names.count("GET token") == 1


@pytest.mark.parametrize(
    "values",
    [
        (f'Bearer realm="{REALM}",service="a \\"b\\", c"',),
        ("Negotiate", f'BEARER Realm="{REALM}", SERVICE="a \\"b\\", c"'),
        (f'Basic realm="x, y", bearer realm={REALM},service="a \\"b\\", c"',),
        ('Basic realm="x"', f'Bearer service="a \\"b\\", c",realm="{REALM}"'),
    ],
)
def test_challenges_in_every_form(values: tuple[str, ...]) -> None:
    play = Play({"POST blob": [challenge(*values)], "GET token": [token("t0ken")]})
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.sends[1].url.startswith(REALM) and asked(play)[0]["service"] == ['a "b", c']
    assert header(play.sends[2], "authorization") == "Bearer t0ken"


def test_no_scheme_that_is_known() -> None:
    result = Play({"POST blob": [challenge('Negotiate realm="x"')]}).run(PUSH)
    assert isinstance(result.error, RegistryError) and "no scheme that is known" in str(result.error)


def test_no_challenge_at_all() -> None:
    result = Play({"POST blob": [say(401)]}).run(PUSH)
    assert isinstance(result.error, RegistryError) and result.error.status == 401


def test_a_realm_keeps_its_query() -> None:
    play = Play({"POST blob": [challenge(f'Bearer realm="{REALM}?a=b"')], "GET token": [token("t")]})
    play.run(PUSH)
    assert play.sends[1].url == f"{REALM}?a=b&scope=repository:{REPO}:pull,push"


# --- Basic ------------------------------------------------------------------------------------------------------


def test_basic() -> None:
    play = Play(auth=Auth.BASIC, users={"ann": "s3cret"}, keychain=USER)
    assert play.run(image(b"a").push("1.0")).outcome is PushOutcome.PUSHED
    assert play.names == ["HEAD tag", "HEAD tag", "POST blob", "POST blob", "PUT tag"]
    assert [header(send, "authorization") for send in play.sends] == [None, *[BASIC] * 4]
    (question,) = play.asked
    assert (question.registry, question.repository) == ("registry.example", REPO)


@pytest.mark.parametrize("keychain", [None, {"identity_token": "refresh"}])
def test_basic_without_a_user(keychain: dict[str, str] | None) -> None:
    result = Play(auth=Auth.BASIC, keychain=keychain).run(PUSH)
    assert isinstance(result.error, AuthenticationError) and "wants a user and a password" in str(result.error)


def test_basic_that_is_not_accepted() -> None:
    play = Play(auth=Auth.BASIC, users={"ann": "other"}, keychain=USER)
    result = play.run(PUSH)
    assert isinstance(result.error, AuthenticationError) and "does not accept the credentials" in str(result.error)
    assert play.names == ["POST blob", "POST blob"] and "s3cret" not in str(result.error)


@pytest.mark.parametrize("keychain", [USER, {"registry_token": "t0ken"}], ids=["password", "token"])
def test_one_401_does_not_shake_what_was_accepted_before(keychain: dict[str, str]) -> None:
    basic = challenge("Basic realm=here")
    play = Play(config=PLAIN, keychain=keychain)
    play.on({"HEAD blob": [basic], "PUT blob": [basic]})
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.names.count("PUT blob") + play.names.count("PATCH") == 2

    play = Play(config=PLAIN, keychain=keychain)
    play.on({"HEAD blob": [basic], "POST start": always(basic)})
    error = play.run(PUSH).error
    assert isinstance(error, RegistryError) and error.status == 401 and "log in" in str(error)
    assert play.names == ["HEAD blob", "HEAD blob", "POST start", "POST start"]


def test_basic_for_two_repositories() -> None:
    play = Play(auth=Auth.BASIC, users={"ann": "s3cret"}, keychain=USER)
    play.run(PUSH, blobs_push(blob(CONTENT), repository="team/other"))
    assert {question.repository for question in play.asked} == {REPO, "team/other"} and len(play.asked) == 2


# --- tokens -----------------------------------------------------------------------------------------------------


def test_anonymous() -> None:
    play = bearer()
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    (send,) = play.sent("GET token")
    assert send.url == f"{BASE}/token?service=registry.example&scope=repository:{REPO}:pull,push"
    assert header(send, "authorization") is None and len(play.asked) == 1


def test_with_a_user() -> None:
    play = bearer(users={"ann": "s3cret"}, anonymous_tokens=False, keychain=USER)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    (send,) = play.sent("GET token")
    assert header(send, "authorization") == BASIC and asked(play)[0]["account"] == ["ann"]
    assert not any(header(s, "authorization") == BASIC for s in play.sends if s is not send)


@pytest.mark.parametrize("field", ["token", "access_token", "token access_token"])
def test_either_field(field: str) -> None:
    assert bearer(token_field=field).run(PUSH).outcome is PushOutcome.PUSHED


def test_an_identity_token_is_exchanged() -> None:
    play = bearer(
        identity_tokens={"refresh&me": "ann"}, anonymous_tokens=False, keychain={"identity_token": "refresh&me"}
    )
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    (send,) = play.sent("POST token")
    assert isinstance(send.body, bytes) and header(send, "content-type") == "application/x-www-form-urlencoded"
    form = parse_qs(send.body.decode())
    assert form["grant_type"] == ["refresh_token"] and form["refresh_token"] == ["refresh&me"]
    assert form["scope"] == [f"repository:{REPO}:pull,push"] and form["service"] == ["registry.example"]
    assert form["client_id"] and header(send, "authorization") is None


@pytest.mark.parametrize("status", [400, 401, 404, 405])
def test_where_post_is_not_known_get_is(status: int) -> None:
    play = bearer(token_post=status, keychain={"identity_token": "refresh"}, users={"<token>": "refresh"})
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.names == ["POST blob", "POST token", "GET token", "POST blob"]


def test_a_registry_token_is_used_as_it_is() -> None:
    play = Play({"POST blob": [challenge(f'Bearer realm="{REALM}"')]}, keychain={"registry_token": "as-it-is"})
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.names == ["POST blob", "POST blob"]
    assert header(play.sends[1], "authorization") == "Bearer as-it-is"


def test_a_registry_token_that_is_not_accepted() -> None:
    play = Play({"POST blob": always(challenge(f'Bearer realm="{REALM}"'))}, keychain={"registry_token": "as-it-is"})
    result = play.run(PUSH)
    assert isinstance(result.error, AuthenticationError) and "does not accept" in str(result.error)


def test_a_broken_keychain() -> None:
    result = bearer(keychain_error="docker-credential-x: not found").run(PUSH)
    assert isinstance(result.error, AuthenticationError) and "docker-credential-x: not found" in str(result.error)


@pytest.mark.parametrize("broken", ["\udce9", "\ud800", "\r\nX-Injected: 1", "\n", "\0", "\x1b", "\x7f"])
@pytest.mark.parametrize("field", ["username", "password", "identity_token", "registry_token"])
@pytest.mark.parametrize("auth", [Auth.BASIC, Auth.BEARER])
def test_credentials_that_no_request_can_carry(auth: Auth, field: str, broken: str) -> None:
    keychain = {**USER, field: f"s3cret-{broken}-pa55"}
    play = Play(auth=auth, keychain=keychain, users={"ann": "s3cret"}, anonymous_tokens=False)
    result = play.run(PUSH)
    error = result.error
    assert isinstance(error, AuthenticationError) and "characters that can't be sent" in str(error)
    assert play.names == ["POST blob"], "nothing is asked with them"
    shown = "".join(traceback.format_exception(error)) + repr(result) + repr(play.notices) + repr(play.session)
    assert "s3cret" not in shown and "pa55" not in shown
    assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize("text", ["non-ascii-é", "two words"])
def test_a_registry_token_that_is_none(text: str) -> None:
    play = Play(auth=Auth.BEARER, keychain={"registry_token": text})
    assert "the registry token holds characters" in str(play.run(PUSH).error)


def test_users_and_passwords_in_any_language() -> None:
    user = {"username": "jürgen", "password": "größer 日本 😀"}
    options = {"users": {user["username"]: user["password"]}, "anonymous_tokens": False}
    for auth in (Auth.BASIC, Auth.BEARER):
        assert Play(auth=auth, keychain=user, **options).run(PUSH).outcome is PushOutcome.PUSHED


def test_a_challenge_that_is_no_text() -> None:
    play = Play({"POST blob": [challenge(f'Bearer realm="{REALM}",service="a\udcffb"')], "GET token": [token("t")]})
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert "service=a%3Fb&" in play.sent("GET token")[0].url


@pytest.mark.parametrize(
    "answer",
    [
        say(200, b"no json"),
        say(200, b"[]"),
        say(200, b"{}"),
        token(""),
        token("two words"),
        token("line\nbreak"),
        token("non-ascii-é"),
        say(200, b'{"token": 7}'),
        Say(200, (), b'{"token": "t"}', True),
    ],
)
def test_an_answer_without_a_usable_token(answer: Say) -> None:
    play = Play({"GET token": [answer]}, auth=Auth.BEARER)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED, "asked again"
    play = Play({"GET token": always(answer)}, auth=Auth.BEARER)
    result = play.run(PUSH)
    assert "without a usable token" in str(result.error) and play.names == ["POST blob", *["GET token"] * 5]


def test_no_token_for_us() -> None:
    result = bearer(anonymous_tokens=False).run(PUSH)
    assert isinstance(result.error, RegistryError) and result.error.status == 401
    assert f"token for {REPO}" in str(result.error) and "check the credentials" in str(result.error)


def test_a_later_push_may_ask_again() -> None:
    play = Play({"GET token": [refuse(403, "DENIED")]}, auth=Auth.BEARER)
    assert play.run(PUSH).outcome is PushOutcome.FAILED
    assert play.run(PUSH).outcome is PushOutcome.PUSHED


# --- lifetimes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("expires_in", "lives"), [(None, 60), (1, 60), (300, 300), (True, 60), ("soon", 60)])
def test_renewed_before_it_ends(expires_in: object, lives: int) -> None:
    more = {} if expires_in is None else {"expires_in": expires_in}
    script = {"POST blob": [challenge(f'Bearer realm="{REALM}"')], "GET token": [token("one", **more), token("two")]}
    play = Play(script)
    play.run(PUSH)
    for at, held in ((0.5 * lives, "Bearer one"), (0.99 * lives, "Bearer two")):
        play.now = at
        play.run(blobs_push(blob(str(at).encode())))
        assert header(play.sends[-1], "authorization") == held
    assert play.names.count("GET token") == 2


def test_renewed_in_the_middle_of_a_push() -> None:
    play = bearer(config=Config(small_blob_bytes=0), expires_in=60)
    play.submit(PUSH)
    start = play.until("POST start")
    play.now = 61.0
    play.answer(start, PASS)
    assert play.run().outcome is PushOutcome.PUSHED
    assert play.names == ["HEAD blob", "GET token", "HEAD blob", "POST start", "GET token", "POST start", "PUT blob"]


def test_401_in_the_middle_of_a_body_goes_on_where_the_registry_is() -> None:
    play = bearer(config=PATCHES)
    play.on({"PATCH": [cut_after(4), challenge(f'Bearer realm="{BASE}/token",service="registry.example"')]})
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert play.names[4:] == ["PATCH", "GET session", "PATCH", "GET token", "GET session", "PATCH", "PUT commit"]
    assert header(play.sent("PATCH")[-1], "content-range") == "4-9"


def test_401_to_many_requests_is_one_token() -> None:
    play = bearer()
    whole = image(*(bytes([n]) * 10 for n in range(8)))
    play.run(image(b"first").push("0"))
    play.on({"POST blob": [challenge(f'Bearer realm="{BASE}/token",service="registry.example"')] * 8})
    play.sends.clear()
    assert play.run(whole.push("1.0")).outcome is PushOutcome.PUSHED
    assert play.names.count("GET token") == 1 and play.names.count("POST blob") == 8 + 9  # the config is asked for too


def test_one_question_for_a_token_at_a_time() -> None:
    play = Play({"GET token": [HANG]}, auth=Auth.BEARER)
    play.submit(image(b"a", b"b", b"c").push("1.0"), image(b"d").push("2.0"))
    play.until("GET token")
    play.settle()
    assert play.names.count("GET token") == 1


# --- scopes -----------------------------------------------------------------------------------------------------


def test_one_token_for_the_target_first_and_its_mount_sources() -> None:
    play = bearer()
    play.registry.put_blob("base/two", CONTENT)
    assert play.run(blobs_push(blob(CONTENT, "base/one", "base/two"))).mounted
    scopes = [f"repository:{REPO}:pull,push", "repository:base/one:pull", "repository:base/two:pull"]
    assert asked(play)[0]["scope"] == scopes and len(asked(play)) == 1


def test_a_source_that_a_later_push_brings() -> None:
    play = bearer()
    play.registry.put_blob("base/one", CONTENT)
    play.run(blobs_push(blob(b"before")))
    assert play.run(blobs_push(blob(CONTENT, "base/one"))).mounted
    assert "repository:base/one:pull" in asked(play)[-1]["scope"] and len(asked(play)) == 2


@pytest.mark.parametrize("ungranted", [0, 401, 403])
@pytest.mark.parametrize("first_scope_only", [False, True])
def test_a_source_refused_a_token_costs_the_mount_not_the_push(ungranted: int, first_scope_only: bool) -> None:
    play = bearer(grants=(Grant(repository=REPO),), ungranted=ungranted, first_scope_only=first_scope_only)
    play.registry.put_blob("base/one", CONTENT)
    result = play.run(blobs_push(blob(CONTENT, "base/one"), blob(b"other", "base/one")))
    assert result.outcome is PushOutcome.PUSHED and not result.mounted and len(result.uploaded) == 2
    assert not play.registry.sessions(REPO)


@pytest.mark.parametrize("ungranted", [401, 403])
def test_a_refused_source_costs_no_other_its_mount(ungranted: int) -> None:
    play = bearer(grants=(Grant(repository="team/*"), Grant(repository="good/*")), ungranted=ungranted, config=PLAIN)
    for n in range(2):
        play.registry.put_blob("good/base", b"layer %d" % n)
    assert play.run(blobs_push(blob(b"layer 0", "good/base"))).mounted
    result = play.run(blobs_push(blob(b"other", "bad/base"), blob(b"layer 1", "good/base")))
    assert len(result.uploaded) == len(result.mounted) == 1


def test_what_was_refused_to_one_push_may_be_granted_to_the_next() -> None:
    play = bearer(config=PLAIN, script={"GET token": [PASS, say(403), PASS]})
    for n in range(2):
        play.registry.put_blob("base/one", b"layer %d" % n)
    play.run(blobs_push(blob(b"before")))
    assert not play.run(blobs_push(blob(b"layer 0", "base/one"))).mounted
    assert play.run(blobs_push(blob(b"layer 1", "base/one"))).mounted


def test_sources_of_pushes_long_over_are_not_asked_for() -> None:
    play = bearer(config=PLAIN)
    for n in range(3 * SOURCES_KEPT):
        play.registry.put_blob(f"base/{n}", b"%d" % n)
        assert play.run(blobs_push(blob(b"%d" % n, f"base/{n}"))).mounted
    assert len(asked(play)[-1]["scope"]) == 1 + SOURCES_KEPT


def test_pushes_with_more_sources_than_are_kept_get_all_of_them() -> None:
    play = bearer(config=PLAIN)
    many = [f"base/{n}" for n in range(4 * SOURCES_KEPT)]
    for name in many:
        play.registry.put_blob(name, name.encode())
    half = len(many) // 2
    first, second = (blobs_push(*(blob(s.encode(), s) for s in part)) for part in (many[:half], many[half:]))
    play.run(first, second)
    assert [len(play.results[n].mounted) for n in (1, 2)] == [half, half]


def test_insufficient_scope_asks_for_the_union() -> None:
    wider = f'Bearer realm="{REALM}",error="insufficient_scope",scope="repository:{REPO}:delete repository:x/y:pull"'
    play = Play(
        {"POST blob": [challenge(f'Bearer realm="{REALM}"'), challenge(wider)], "GET token": always(token("t"))}
    )
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert asked(play)[1]["scope"] == [
        f"repository:{REPO}:pull,push",
        f"repository:{REPO}:delete",
        "repository:x/y:pull",
    ]


def test_insufficient_scope_for_ever() -> None:
    values = [f'Bearer realm="{REALM}",error="insufficient_scope",scope="repository:r/{n}:pull"' for n in range(9)]
    play = Play({"POST blob": map(challenge, values), "GET token": always(token("t"))})
    result = play.run(PUSH)
    assert isinstance(result.error, RegistryError) and result.error.status == 401
    assert play.names.count("POST blob") <= 4


def test_401_twice_with_fresh_tokens_is_a_refusal() -> None:
    play = Play({"POST blob": always(challenge(f'Bearer realm="{REALM}"')), "GET token": map(token, "abcdefgh")})
    result = play.run(PUSH)
    assert isinstance(result.error, RegistryError) and "log in to the registry" in str(result.error)
    assert play.names == ["POST blob", "GET token", "POST blob", "GET token", "POST blob"]


# --- who is told ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("realm", "says"),
    [
        ("http://auth.example/token", "plain http"),
        ("https://192.168.0.1/token", "private network"),
        ("https://169.254.169.254/token", "private network"),
        ("https://user@auth.example/token", "user name"),
        ("ftp://auth.example/token", "no token server"),
        ("/token", "no token server"),
        ("", "no token server"),
    ],
)
def test_the_realm_is_judged(realm: str, says: str) -> None:
    play = Play({"POST blob": [challenge(f'Bearer realm="{realm}"')]}, keychain=USER)
    result = play.run(PUSH)
    assert isinstance(result.error, AuthenticationError) and says in str(result.error)
    assert play.names == ["POST blob"] and not play.asked


def test_a_private_realm_on_the_registrys_own_host_is_fine() -> None:
    answers = {"POST blob": [challenge('Bearer realm="http://127.0.0.1:5001/token"')], "GET token": [token("t")]}
    assert Play(answers, base="http://127.0.0.1:5000").run(PUSH).outcome is PushOutcome.PUSHED


def test_trust_is_asked_about_the_realm() -> None:
    config = Config(trust_origin=lambda origin: origin != "https://auth.example:443")
    result = Play({"POST blob": [challenge(f'Bearer realm="{REALM}"')]}, config=config).run(PUSH)
    assert isinstance(result.error, AuthenticationError) and "not trusted" in str(result.error)


@pytest.mark.parametrize("realm", ["http://127.0.0.1:5001/token", "https://127.0.0.1:5000/token"])
def test_trust_is_asked_about_a_realm_on_the_registrys_own_host(realm: str) -> None:
    asked: list[str] = []
    config = Config(trust_origin=lambda origin: bool(asked.append(origin)))
    script = {"POST blob": [challenge(f'Bearer realm="{realm}"')]}
    play = Play(script, base="http://127.0.0.1:5000", config=config, keychain=USER)
    result = play.run(PUSH)
    assert isinstance(result.error, AuthenticationError) and "not trusted" in str(result.error)
    assert asked == [realm.removesuffix("/token")] and play.names == ["POST blob"] and not play.asked


def test_credentials_go_to_the_realm_and_nowhere_else_when_it_redirects() -> None:
    script = {
        "POST blob": [challenge(f'Bearer realm="{REALM}"')],
        "GET token auth.example": [say(302, Location="https://elsewhere.example/token")],
        "GET token elsewhere.example": [token("t")],
    }
    play = Play(script, keychain=USER)
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert [header(send, "authorization") for send in play.sent("GET token")] == [BASIC, None]


def test_an_upload_host_that_asks_for_a_token_of_its_own_gets_none() -> None:
    host = "https://store.example/up"
    play = Play(
        {"POST start": [say(202, Location=host)], "PUT blob": [challenge(f'Bearer realm="{REALM}"')]}, config=PLAIN
    )
    result = play.run(PUSH)
    assert isinstance(result.error, RegistryError) and result.error.status == 401
    assert "GET token" not in play.names and not play.asked


def test_cancelling_stops_asking() -> None:
    play = Play({"GET token": [HANG]}, auth=Auth.BEARER)
    push_id = play.submit(PUSH)
    play.until("GET token")
    play.session.cancel(push_id)
    assert play.run().outcome is PushOutcome.CANCELLED and play.aborted
    assert play.run(PUSH).outcome is PushOutcome.PUSHED
    assert name_of(play.sends[-1]) == "POST blob"


def test_a_keychains_answer_after_the_push_is_ignored() -> None:
    play = bearer()
    play.session.submit(PUSH)
    play.keychain_waits = True
    play.open.add(1)
    while not play.asked:
        play.step()
    play.session.cancel(1)
    play.run()
    play.session.receive(play.now, Credentials(id=play.asked[0].id, username="ann", password="late"))
    play.keychain_waits = False
    assert play.run(PUSH).outcome is PushOutcome.PUSHED and len(play.asked) == 2
