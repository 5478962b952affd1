"""Where credentials come from: docker's and podman's configuration files, credential helpers, or what the caller has.

Source: docker's "Credential stores" and config.json, docker-credential-helpers' protocol, containers-auth.json(5) for
matching by path. No text made here holds a secret, nor does any error.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from regproto import Credentials, NeedCredentials, NoCredentials
from regproto._model.errors import printable

Keychain: TypeAlias = Callable[[NeedCredentials], Credentials | NoCredentials]

CONFIG_MAX_BYTES: Final = 4 * 1024 * 1024
"""Of a configuration file; real ones have some kB."""
HELPER_TIMEOUT_S: Final = 30.0
"""For a credential helper's answer: time enough to confirm a dialog, not forever."""

_DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
_DOCKER_HUB_HOSTS: Final = frozenset({"index.docker.io", "docker.io", "registry-1.docker.io"})
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_NOT_FOUND: Final = "credentials not found in native keychain"
"""Said by a helper, with exit code 1, that has nothing for a registry (docker-credential-helpers)."""
_TOKEN_USER: Final = "<token>"
"""As a helper's user name: the secret is an identity token."""

_Found: TypeAlias = dict[str, str]
"""Fields of `Credentials`."""


class _KeychainError(Exception):
    """A fault of a configuration or helper, in words for a person, without secrets."""


def static_keychain(username: str, password: str) -> Keychain:
    """A keychain that has one user and password, for whatever registry asks."""
    return lambda need: Credentials(id=need.id, username=username, password=password)


def default_keychain() -> Keychain:
    """The `docker_keychain` of this process's user."""
    return docker_keychain(os.environ, Path(os.path.expanduser("~")))


def docker_keychain(environ: Mapping[str, str], home: Path) -> Keychain:
    """A keychain that reads what docker and podman keep, anew for each question.

    Looked at in this order, until one has an entry: `$DOCKER_AUTH_CONFIG` (the JSON itself), `$REGISTRY_AUTH_FILE`,
    `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, `$XDG_RUNTIME_DIR/containers/auth.json`. In each: the
    registry's `credHelpers`, then `credsStore`, then `auths`, where the longest matching path wins.

    A configuration or helper that can't be used is `NoCredentials` with an error that names it.
    """

    def look(need: NeedCredentials) -> Credentials | NoCredentials:
        try:
            for where, config in _configurations(environ, home):
                found = _look_in(config, where, need, environ)
                if found is not None:
                    return Credentials(id=need.id, **found)
        except _KeychainError as error:
            return NoCredentials(id=need.id, error=str(error))
        return NoCredentials(id=need.id)

    return look


def _configurations(environ: Mapping[str, str], home: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    inline = environ.get("DOCKER_AUTH_CONFIG")
    if inline:
        yield "DOCKER_AUTH_CONFIG", _parse(inline, "DOCKER_AUTH_CONFIG")
    docker = Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else home / ".docker"
    paths = [docker / "config.json"]
    if environ.get("REGISTRY_AUTH_FILE"):
        paths.insert(0, Path(environ["REGISTRY_AUTH_FILE"]))
    if environ.get("XDG_RUNTIME_DIR"):
        paths.append(Path(environ["XDG_RUNTIME_DIR"], "containers", "auth.json"))
    for path in paths:
        where = printable(str(path), 300)
        try:
            with open(path, "rb") as file:
                content = file.read(CONFIG_MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _KeychainError(f"credentials: {where} can't be read: {error.strerror}") from None
        yield where, _parse(content, where)


def _parse(content: str | bytes, where: str) -> dict[str, Any]:
    if len(content) > CONFIG_MAX_BYTES:
        raise _KeychainError(f"credentials: {where} is over {CONFIG_MAX_BYTES} bytes")
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        raise _KeychainError(f"credentials: {where} is not JSON; mend it, or log in again") from None
    if not isinstance(config, dict):
        raise _KeychainError(f"credentials: {where} must be a JSON object; mend it, or log in again")
    return config


def _look_in(config: dict[str, Any], where: str, need: NeedCredentials, environ: Mapping[str, str]) -> _Found | None:
    host = _canonical(need.registry)
    helpers = _by_key(config, "credHelpers", where)
    helper = next((helpers[key] for key in _keys(host, need.repository) if key in helpers), None)
    for name in (helper, config.get("credsStore")):
        if name:
            found = _ask_helper(name, where, host, environ)
            if found is not None:
                return found
    entries = _by_key(config, "auths", where)
    for key in _keys(host, need.repository):
        if key in entries:
            return _entry(entries[key], f"{where}: the entry for {printable(key, 100)}")
    return None


def _by_key(config: dict[str, Any], field: str, where: str) -> dict[str, Any]:
    """The entries of an object by canonical key. Empty ones are left out: docker keeps them beside a credsStore."""
    entries = config.get(field) or {}
    if not isinstance(entries, dict):
        raise _KeychainError(f"credentials: {where}: {field} must be an object; mend it, or log in again")
    found: dict[str, Any] = {}
    for key, value in entries.items():
        if value:
            found.setdefault(_canonical(key), value)
    return found


def _canonical(key: str) -> str:
    """`host[:port]` or `host[:port]/path`, of any form that is in use; of a URL the host alone, as docker does."""
    _, is_url, rest = key.rpartition("://")
    host, _, path = rest.strip("/").partition("/")
    host = host.lower()
    host = "index.docker.io" if host in _DOCKER_HUB_HOSTS else host
    return host if is_url or path in ("", "v1", "v2") else f"{host}/{path}"


def _keys(host: str, repository: str) -> Iterator[str]:
    """From the longest path to the host alone (containers-auth.json(5))."""
    path = f"{host}/{repository}" if repository else host
    while path:
        yield path
        path = path.rpartition("/")[0]


def _entry(entry: object, where: str) -> _Found:
    if not isinstance(entry, dict):
        raise _KeychainError(f"credentials: {where} must be an object; mend it, or log in again")
    fields = {}
    for name in ("auth", "username", "password", "identitytoken", "registrytoken"):
        value = entry.get(name) or ""
        if not isinstance(value, str):
            raise _KeychainError(f"credentials: {where}: {name} must be a string; mend it, or log in again")
        fields[name] = value
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        username, password = _decoded(fields["auth"], where)
    return {
        "username": username,
        "password": password,
        "identity_token": fields["identitytoken"],
        "registry_token": fields["registrytoken"],
    }


def _decoded(auth: str, where: str) -> tuple[str, str]:
    stripped = "".join(auth.split()).rstrip("=")
    try:
        text = base64.b64decode(stripped + "=" * (-len(stripped) % 4), validate=True).decode()
    except ValueError:
        text = ""
    username, colon, password = text.partition(":")
    if not colon:
        raise _KeychainError(f"credentials: {where}: auth is not base64 of user:password; log in again")
    # Docker's own writer padded the password with zero bytes once, and its reader takes them off.
    return username, password.strip("\0")


def _ask_helper(name: object, where: str, host: str, environ: Mapping[str, str]) -> _Found | None:
    if not isinstance(name, str):
        raise _KeychainError(f"credentials: {where}: the name of a credential helper must be a string")
    if not _HELPER_NAME.fullmatch(name):
        raise _KeychainError(f"credentials: {where}: {printable(repr(name), 100)} is not a credential helper's name")
    command = f"docker-credential-{name}"
    server = _DOCKER_HUB_KEY if host == "index.docker.io" else host
    try:
        done = subprocess.run(
            [command, "get"],
            input=server.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=HELPER_TIMEOUT_S,
            env=dict(environ),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _KeychainError(f"credentials: {command} gave no answer within {HELPER_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise _KeychainError(f"credentials: {command}, named in {where}, can't be run: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode == 1 and said.startswith(_NOT_FOUND):
            return None
        # What looks like an answer may hold the secret.
        shown = "" if "{" in said else f": {printable(said, 200)}"
        raise _KeychainError(f"credentials: {command} failed for {server} (exit {done.returncode}){shown}")
    try:
        answer = json.loads(done.stdout)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise _KeychainError(f"credentials: {command} gave no user and secret for {server}")
    return {"identity_token": secret} if username == _TOKEN_USER else {"username": username, "password": secret}
