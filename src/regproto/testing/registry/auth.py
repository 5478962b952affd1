"""Who may do what: challenges, Basic, Bearer tokens and the endpoint that hands them out.

Source: the distribution project's "Token Authentication Specification" and "OAuth2 Token Authentication". A
token says itself what it is good for and is sealed with a key, so the registry keeps no list of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import TypeAlias
from urllib.parse import parse_qs

from regproto.testing.registry.http import Reply, RequestHead, json_reply, refused
from regproto.testing.registry.options import ALL_ACTIONS, Auth, RegistryOptions
from regproto.testing.registry.sinks import Collect, Sink
from regproto.testing.registry.state import Call

Access: TypeAlias = Mapping[str, frozenset[str]]
"""Actions by repository."""

_FORM_MAX = 64 * 1024
"""A token request's form: a refresh token of some kB and a few scopes."""


def authorize(call: Call, access: Access) -> None:
    """Refuse a request that may not have this access.

    A bearer token that does not reach far enough is answered 401 with `insufficient_scope`; a known user
    without the right is 403.
    """
    options = call.options
    if options.auth is Auth.NONE:
        return
    scheme, _, value = (call.head.header("authorization") or "").partition(" ")
    if options.auth is Auth.BASIC:
        user = _basic_user(options, value) if scheme.lower() == "basic" else None
        if user is None:
            raise refused(401, "UNAUTHORIZED", "credentials needed", headers=(challenge(options, call.head, access),))
        if any(not actions <= granted(options, user, name) for name, actions in access.items()):
            raise refused(403, "DENIED", "requested access to the resource is denied")
        return
    error = ""
    if scheme.lower() == "bearer":
        held = _open_token(options, value, call.now)
        if held is None:
            error = "invalid_token"
        elif any(not actions <= held.get(name, frozenset()) for name, actions in access.items()):
            error = "insufficient_scope"
        else:
            return
    header = challenge(options, call.head, access, error)
    raise refused(401, "UNAUTHORIZED", error or "a token is needed", headers=(header,))


def challenge(options: RegistryOptions, head: RequestHead, access: Access, error: str = "") -> tuple[str, str]:
    """The WWW-Authenticate header that says how to get this access."""
    if options.auth is Auth.BASIC:
        return ("WWW-Authenticate", 'Basic realm="registry"')
    realm = options.realm or f"{head.origin}/token"
    value = f'Bearer realm="{realm}",service="{options.service}"'
    if access:
        scopes = (f"repository:{name}:{','.join(_ordered(actions))}" for name, actions in access.items())
        value += f',scope="{" ".join(scopes)}"'
    return ("WWW-Authenticate", value + (f',error="{error}"' if error else ""))


def _ordered(actions: Iterable[str]) -> list[str]:
    return sorted(actions, key=("pull", "push", "delete").index)


def granted(options: RegistryOptions, user: str, repository: str) -> frozenset[str]:
    """What this user (empty: anonymous) may do in this repository."""
    actions: frozenset[str] = frozenset()
    for grant in options.grants:
        prefix = grant.repository.removesuffix("*")
        matches = repository == prefix or (prefix != grant.repository and repository.startswith(prefix))
        if matches and grant.user in ("*", user):
            actions |= grant.actions
    return actions


def _basic_user(options: RegistryOptions, value: str) -> str | None:
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user if (user, password) in options.users else None


# --- tokens -------------------------------------------------------------------------------------------------


def _seal(options: RegistryOptions, text: str) -> str:
    return hmac.new(options.token_key, text.encode(), hashlib.sha256).hexdigest()[:32]


def _make_token(options: RegistryOptions, user: str, access: Access, now: float) -> str:
    life = 60 if options.expires_in is None else options.expires_in
    claims = {
        "user": user,
        "access": {name: sorted(actions) for name, actions in access.items()},
        "until": now + life,
    }
    text = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"{text}.{_seal(options, text)}"


def _open_token(options: RegistryOptions, token: str, now: float) -> Access | None:
    text, _, seal = token.partition(".")
    if not hmac.compare_digest(seal.encode(), _seal(options, text).encode()):
        return None
    claims = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    if now >= claims["until"]:
        return None
    return {name: frozenset(actions) for name, actions in claims["access"].items()}


# --- the token endpoint -------------------------------------------------------------------------------------


def get_token(call: Call) -> Reply:
    """GET: `service`, any number of `scope`, and Basic credentials if there are any."""
    scheme, _, value = (call.head.header("authorization") or "").partition(" ")
    user = ""
    if scheme:
        known = _basic_user(call.options, value) if scheme.lower() == "basic" else None
        if known is None:
            raise refused(401, "UNAUTHORIZED", "wrong user or password")
        user = known
    scopes = [scope for value in call.query.get("scope", []) for scope in value.split()]
    offline = user != "" and call.param("offline_token") == "true"
    return _token_reply(call, user, call.param("service") or "", scopes, offline)


def post_token(call: Call) -> Sink:
    """POST: an OAuth2 form, grant type `refresh_token` or `password`."""
    if call.options.token_post != 200:
        raise refused(call.options.token_post, "UNSUPPORTED", "there is no OAuth2 here")
    return Collect(_FORM_MAX, lambda body: _post_token(call, body))


def _post_token(call: Call, body: bytes) -> Reply:
    form = {key: values[0] for key, values in parse_qs(body.decode("latin-1")).items()}
    options = call.options
    user: str | None = None
    if form.get("grant_type") == "refresh_token":
        user = _refresh_user(options, form.get("refresh_token", ""))
    elif form.get("grant_type") == "password":
        pair = (form.get("username", ""), form.get("password", ""))
        user = pair[0] if pair in options.users else None
    else:
        raise refused(400, "UNSUPPORTED", "grant_type must be refresh_token or password")
    if user is None:
        raise refused(401, "UNAUTHORIZED", "wrong credentials")
    offline = form.get("access_type") == "offline"
    return _token_reply(call, user, form.get("service", ""), form.get("scope", "").split(), offline)


def _refresh_user(options: RegistryOptions, token: str) -> str | None:
    for known, user in options.identity_tokens:
        if token == known:
            return user
    user, _, _seal_text = token.rpartition(".")
    return user if user and token == _refresh_token(options, user) else None


def _refresh_token(options: RegistryOptions, user: str) -> str:
    return f"{user}.{_seal(options, f'refresh {user}')}"


def _token_reply(call: Call, user: str, service: str, scopes: list[str], offline: bool) -> Reply:
    options = call.options
    if service != options.service:
        raise refused(400, "UNSUPPORTED", f"service must be {options.service}")
    if not user and not options.anonymous_tokens:
        raise refused(401, "UNAUTHORIZED", "no anonymous tokens here")
    access: dict[str, frozenset[str]] = {}
    for scope in scopes[:1] if options.first_scope_only else scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind != "repository" or not name:
            continue
        asked = ALL_ACTIONS if actions == "*" else frozenset(actions.split(","))
        may = granted(options, user, name)
        if options.ungranted and not asked <= may:
            raise refused(options.ungranted, "DENIED", "requested access to the resource is denied", {"scope": scope})
        access[name] = access.get(name, frozenset()) | (asked & may)
    token = _make_token(options, user, access, call.now)
    answer: dict[str, object] = dict.fromkeys(options.token_field.split(), token)
    if options.expires_in is not None:
        answer["expires_in"] = options.expires_in
    if offline:
        answer["refresh_token"] = _refresh_token(options, user)
    return json_reply(answer, headers=(("Cache-Control", "no-store"),))
