"""Credentials: docker's and podman's files, credential helpers, and what goes wrong with them."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from regproto import Credentials, NeedCredentials, NoCredentials
from regproto_sync import docker_keychain, static_keychain
from regproto_sync.credentials import keychain as _keychain

SECRET = "s3cret-pa55"


def auth(text: str = f"user:{SECRET}") -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def ask(
    home: Path, registry: str = "registry.example", repository: str = "team/app", **environ: str
) -> Credentials | NoCredentials:
    answer = docker_keychain(environ, home)(NeedCredentials(id=7, registry=registry, repository=repository))
    assert answer.id == 7
    assert SECRET not in repr(answer)
    return answer


def user_of(answer: Credentials | NoCredentials) -> str | None:
    return answer.username if isinstance(answer, Credentials) else None


def docker_config(home: Path, config: object) -> Path:
    path = home / ".docker" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def error_of(answer: Credentials | NoCredentials) -> str:
    assert isinstance(answer, NoCredentials)
    assert SECRET not in answer.error
    return answer.error


def test_static() -> None:
    found = static_keychain("user", SECRET)(NeedCredentials(id=3, registry="registry.example", repository="app"))
    assert found == Credentials(id=3, username="user", password=SECRET)


# --- one entry --------------------------------------------------------------------------------------------------


def padded(text: str, padding: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode().rstrip("=") + padding}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth(), {"username": "user", "password": SECRET}),
        (auth("user:a:b:c"), {"username": "user", "password": "a:b:c"}),
        (auth("user:"), {"username": "user"}),
        (auth("üser:pässword"), {"username": "üser", "password": "pässword"}),
        (auth("user:padded\0\0"), {"username": "user", "password": "padded"}),
        (padded("user:p", ""), {"username": "user", "password": "p"}),
        (padded("user:pa", ""), {"username": "user", "password": "pa"}),
        (padded("user:pa", "===="), {"username": "user", "password": "pa"}),
        (padded("user:pass", "\n"), {"username": "user", "password": "pass"}),
        ({"username": "user", "password": SECRET}, {"username": "user", "password": SECRET}),
        (auth("a:b") | {"username": "other", "password": "other"}, {"username": "a", "password": "b"}),
        ({"identitytoken": SECRET}, {"identity_token": SECRET}),
        (auth("user:") | {"identitytoken": SECRET}, {"username": "user", "identity_token": SECRET}),
        ({"registrytoken": SECRET}, {"registry_token": SECRET}),
        (auth("a:b") | {"email": 1, "auth2": []}, {"username": "a", "password": "b"}),
    ],
)
def test_entry(tmp_path: Path, entry: dict[str, Any], expected: dict[str, str]) -> None:
    docker_config(tmp_path, {"auths": {"registry.example": entry}})
    assert ask(tmp_path) == Credentials(id=7, **expected)


@pytest.mark.parametrize(
    ("key", "registry", "found"),
    [
        ("registry.example", "registry.example", True),
        ("Registry.Example", "registry.example", True),
        ("https://registry.example", "registry.example", True),
        ("http://registry.example/", "registry.example", True),
        ("https://registry.example/v1/", "registry.example", True),
        ("https://registry.example/v2/", "registry.example", True),
        ("registry.example/v2", "registry.example", True),
        ("registry.example:443", "registry.example", False),
        ("registry.example:5000", "registry.example:5000", True),
        ("sub.registry.example", "registry.example", False),
        ("example", "registry.example", False),
        ("registry.example/team", "registry.example", True),
        ("registry.example/team/app", "registry.example", True),
        ("registry.example/team/app/", "registry.example", True),
        ("registry.example/team/ap", "registry.example", False),
        ("registry.example/other", "registry.example", False),
        ("registry.example/team/app/more", "registry.example", False),
        ("https://index.docker.io/v1/", "index.docker.io", True),
        ("https://index.docker.io/v1/", "registry-1.docker.io", True),
        ("docker.io", "registry-1.docker.io", True),
        ("docker.io/team", "registry-1.docker.io", True),
        ("registry-1.docker.io", "docker.io", True),
        ("https://index.docker.io/v1/", "registry.example", False),
        ("", "registry.example", False),
        ("https://", "registry.example", False),
    ],
)
def test_key(tmp_path: Path, key: str, registry: str, found: bool) -> None:
    docker_config(tmp_path, {"auths": {key: auth()}})
    assert (user_of(ask(tmp_path, registry)) == "user") is found


def test_longest_path_wins(tmp_path: Path) -> None:
    entries = {"registry.example": "a:a", "registry.example/team": "b:b", "registry.example/team/app/x": "c:c"}
    docker_config(tmp_path, {"auths": {key: auth(text) for key, text in entries.items()}})
    users = {r: user_of(ask(tmp_path, repository=r)) for r in ("app", "team/app", "team/app/x/y", "teams")}
    assert users == {"app": "a", "team/app": "b", "team/app/x/y": "c", "teams": "a"}


# --- which file -------------------------------------------------------------------------------------------------


def test_order_of_files(tmp_path: Path) -> None:
    for folder in ("docker", "run/containers", "home/.docker"):
        (tmp_path / folder).mkdir(parents=True)
    home = tmp_path / "home"
    places = {
        tmp_path / "run/containers/auth.json": ("run", {"XDG_RUNTIME_DIR": str(tmp_path / "run")}),
        home / ".docker/config.json": ("home", {}),
        tmp_path / "docker/config.json": ("docker", {"DOCKER_CONFIG": str(tmp_path / "docker")}),
        tmp_path / "auth.json": ("podman", {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}),
    }
    environ: dict[str, str] = {}
    assert ask(home, **environ) == NoCredentials(id=7)
    for path, (user, variables) in places.items():
        path.write_text(json.dumps({"auths": {"registry.example": auth(f"{user}:x")}}))
        environ |= variables
        assert user_of(ask(home, **environ)) == user
    environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"registry.example": auth("inline:x")}})
    assert user_of(ask(home, **environ)) == "inline"
    # What has no entry for the registry is passed over.
    environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"other.example": auth("inline:x")}})
    assert user_of(ask(home, **environ)) == "podman"
    (tmp_path / "auth.json").unlink()
    assert user_of(ask(home, **environ)) == "docker"


@pytest.mark.parametrize("config", [{}, {"auths": {}}, {"auths": None}, {"auths": {"registry.example": {}}}])
def test_nothing_there(tmp_path: Path, config: object) -> None:
    docker_config(tmp_path, config)
    assert ask(tmp_path) == NoCredentials(id=7)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", "is not JSON"),
        ('{"auths": {"registry.example": {"auth": "' + SECRET, "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (f'["{SECRET}"]', "must be a JSON object"),
        ({"auths": [SECRET]}, "auths must be an object"),
        ({"credHelpers": SECRET}, "credHelpers must be an object"),
        ({"auths": {"registry.example": SECRET}}, "the entry for registry.example must be an object"),
        ({"auths": {"registry.example": {"auth": "!" + SECRET}}}, "auth is not base64 of user:password"),
        ({"auths": {"registry.example": auth(SECRET)}}, "auth is not base64 of user:password"),
        ({"auths": {"registry.example": {"auth": base64.b64encode(b"\xff:\xff").decode()}}}, "auth is not base64"),
        ({"auths": {"registry.example": {"auth": [SECRET]}}}, "auth must be a string"),
        ({"auths": {"registry.example": {"identitytoken": 1}}}, "identitytoken must be a string"),
        ({"credsStore": [SECRET]}, "the name of a credential helper must be a string"),
    ],
)
def test_malformed(tmp_path: Path, config: object, expected: str) -> None:
    path = docker_config(tmp_path, config)
    error = error_of(ask(tmp_path))
    assert expected in error
    assert str(path) in error


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / ".docker/config.json").mkdir(parents=True)
    assert ".docker/config.json can't be read: Is a directory" in error_of(ask(tmp_path))


def test_too_large(tmp_path: Path) -> None:
    docker_config(tmp_path, " " * (4 * 1024 * 1024) + "{}")
    assert "is over 4194304 bytes" in error_of(ask(tmp_path))


def test_malformed_inline(tmp_path: Path) -> None:
    assert error_of(ask(tmp_path, DOCKER_AUTH_CONFIG=SECRET)).startswith("credentials: DOCKER_AUTH_CONFIG is not JSON")


# --- helpers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with credential helpers of several kinds."""
    folder = tmp_path / "bin"
    folder.mkdir()
    helpers = {
        "good": f"""print(json.dumps({{"Username": "user of " + server, "Secret": "{SECRET}"}}))""",
        "token": f"""print(json.dumps({{"Username": "<token>", "Secret": "{SECRET}"}}))""",
        "none": """print("credentials not found in native keychain"); sys.exit(1)""",
        "broken": """print("no dbus\\x1b[2J"); sys.exit(1)""",
        "leaky": f"""print('{{"Username": "user", "Secret": "{SECRET}"}}'); sys.exit(2)""",
        "noisy": f"""print("{SECRET}")""",
        "partial": f"""print('{{"Secret": "{SECRET}"}}')""",
        "typed": """print('{"Username": 1, "Secret": null}')""",
        "list": """print("[]")""",
        "deaf": """time.sleep(60)""",
    }
    for name, body in helpers.items():
        file = folder / f"docker-credential-{name}"
        start = f"#!{sys.executable}\nimport json, sys, time\nassert sys.argv[1:] == ['get']\n"
        read = "" if name == "deaf" else "server = sys.stdin.read()\n"
        file.write_text(f"{start}{read}{body}\n")
        file.chmod(0o755)
    (folder / "docker-credential-plain").write_text("not executable")
    return str(folder)


def test_helper(tmp_path: Path, path: str) -> None:
    docker_config(tmp_path, {"credHelpers": {"registry.example": "good", "id.example": "token"}})
    assert ask(tmp_path, PATH=path) == Credentials(id=7, username="user of registry.example", password=SECRET)
    assert ask(tmp_path, "id.example", PATH=path) == Credentials(id=7, identity_token=SECRET)
    assert ask(tmp_path, "other.example", PATH=path) == NoCredentials(id=7)


def test_store(tmp_path: Path, path: str) -> None:
    docker_config(tmp_path, {"credsStore": "good", "auths": {"registry.example:5000": {}}})
    assert user_of(ask(tmp_path, "registry.example:5000", PATH=path)) == "user of registry.example:5000"
    assert user_of(ask(tmp_path, "registry-1.docker.io", PATH=path)) == "user of https://index.docker.io/v1/"


def test_helper_comes_before_store_and_both_before_entries(tmp_path: Path, path: str) -> None:
    config: dict[str, Any] = {"auths": {"registry.example": auth("entry:x")}}
    docker_config(tmp_path, config | {"credsStore": "token", "credHelpers": {"https://registry.example": "good"}})
    assert user_of(ask(tmp_path, PATH=path)) == "user of registry.example"
    docker_config(tmp_path, config | {"credsStore": "token", "credHelpers": {"registry.example": "none"}})
    assert ask(tmp_path, PATH=path) == Credentials(id=7, identity_token=SECRET)
    docker_config(tmp_path, config | {"credsStore": "none"})
    assert user_of(ask(tmp_path, PATH=path)) == "entry"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("broken", r"docker-credential-broken failed for registry.example (exit 1): no dbus\x1b[2J"),
        ("leaky", "docker-credential-leaky failed for registry.example (exit 2)"),
        ("noisy", "docker-credential-noisy gave no user and secret"),
        ("partial", "docker-credential-partial gave no user and secret"),
        ("typed", "docker-credential-typed gave no user and secret"),
        ("list", "docker-credential-list gave no user and secret"),
        ("absent", "config.json, can't be run: No such file or directory"),
        ("plain", "can't be run: Permission denied"),
        ("../good", "'../good' is not a credential helper's name"),
        ("good; true", "is not a credential helper's name"),
        ("good\n", "is not a credential helper's name"),
        (5, "the name of a credential helper must be a string"),
    ],
)
def test_bad_helper(tmp_path: Path, path: str, name: object, expected: str) -> None:
    docker_config(tmp_path, {"credHelpers": {"registry.example": name}})
    assert expected in error_of(ask(tmp_path, PATH=path))


def test_helper_without_an_answer(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keychain, "HELPER_TIMEOUT_S", 0.05)
    docker_config(tmp_path, {"credsStore": "deaf"})
    assert "docker-credential-deaf gave no answer within" in error_of(ask(tmp_path, PATH=path))


def test_helper_gets_the_environment_it_was_asked_with(tmp_path: Path, path: str) -> None:
    file = Path(path, "docker-credential-env")
    file.write_text(
        f"#!{sys.executable}\nimport json, os\nprint(json.dumps({{'Username': os.environ['WHO'], 'Secret': ''}}))"
    )
    file.chmod(0o755)
    docker_config(tmp_path, {"credsStore": "env"})
    assert "WHO" not in os.environ
    assert user_of(ask(tmp_path, PATH=path, WHO="me")) == "me"
