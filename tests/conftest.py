"""What every test stands on: none of the user's own credentials, proxies or registry settings."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

_USER_SETTINGS = ("DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True, scope="session")
def no_user_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the commands they start, see an empty docker configuration and connect directly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", str(tmp_path_factory.mktemp("docker-config")))
        for name in (*_USER_SETTINGS, *_PROXIES, *map(str.lower, _PROXIES)):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> None:
    """Tests, and the commands they start, can be interrupted, also where a shell started this in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
