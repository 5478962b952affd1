"""Where the command keeps what a crash would lose, and the blocking driver's keeper."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from driving import run
from images import image_layout
from regproto import Save
from regproto_sync import Driver, plan_source
from regproto_sync.sources.source import state_name
from regproto_sync.state.checkpoint_files import StateFile, open_push_state, open_state, state_folder

pytest_plugins = ["sync_fixtures"]


def opened(folder: Path, source: str = "image", reference: str = "r/x:1") -> StateFile:
    state = open_state(folder, source, reference, tell=pytest.fail)
    assert state is not None
    return state


# --- the file ---------------------------------------------------------------------------------------------------


def test_where_it_is(tmp_path: Path) -> None:
    assert state_folder({"XDG_STATE_HOME": "/var/s"}, tmp_path) == Path("/var/s/regproto")
    for relative in ({}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "state"}):
        assert state_folder(relative, tmp_path) == tmp_path / ".local/state/regproto"


def test_private_replaced_as_a_whole_and_gone_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "regproto"
    state = opened(folder)
    assert state.checkpoint == b"" and folder.stat().st_mode & 0o777 == 0o700
    state.save(b"one")
    state.save(b"two")
    state.close()
    [file, lock] = sorted(folder.iterdir())
    assert (file.suffix, lock.suffix) == (".json", ".lock")
    assert file.stat().st_mode & 0o777 == 0o600 == lock.stat().st_mode & 0o777
    again = opened(folder)
    assert again.checkpoint == b"two"
    again.save(b"")
    again.close()
    assert list(folder.iterdir()) == []


def test_one_for_each_source_and_reference(tmp_path: Path) -> None:
    for name in ("a", "b"):
        state = opened(tmp_path, name, "r/x:1")
        state.save(name.encode())
        state.close()
    checkpoints = []
    for source, reference in (("a", "r/x:1"), ("b", "r/x:1"), ("a", "r/x:2")):
        state = opened(tmp_path, source, reference)
        checkpoints.append(state.checkpoint)
        state.close()
    assert checkpoints == [b"a", b"b", b""]


def test_however_a_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = image_layout(tmp_path / "image")
    (tmp_path / "link").symlink_to(layout)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    planned = plan_source(layout, "localhost:1/x:1")
    state = open_push_state(state_name(layout), planned.reference, None)
    assert state is not None and planned.source is not None
    for other in (str(layout), "image", "./image", Path("link")):
        assert open_push_state(state_name(other), planned.reference, None) is None
    own = open_push_state(state_name(planned.source), planned.reference, None)
    assert own is not None
    own.close()
    state.close()


def test_one_push_at_a_time_has_it(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.save(b"first")
    said: list[str] = []
    assert open_state(tmp_path, "image", "r/x:1", said.append) is None
    assert "under way" in said[0]
    first.close()
    assert opened(tmp_path).checkpoint == b"first"


def test_a_lock_file_that_is_removed_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, opens = os.open, []

    def removed_once(path: Any, *arguments: Any) -> int:
        descriptor = real(path, *arguments)
        if str(path).endswith(".lock"):
            opens.append(path)
            if len(opens) == 1:
                os.unlink(path)
        return descriptor

    monkeypatch.setattr(os, "open", removed_once)
    state = opened(tmp_path)
    assert len(opens) == 2
    state.close()


def test_a_file_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    state = opened(tmp_path)
    state.save(b"x")
    state.close()
    [file] = tmp_path.glob("*.json")
    file.chmod(0o644)
    said: list[str] = []
    again = open_state(tmp_path, "image", "r/x:1", said.append)
    assert again is not None and again.checkpoint == b"" and "not private" in said[0]
    again.close()
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    again = open_state(tmp_path, "image", "r/x:1", said.append)
    assert again is not None and again.checkpoint == b"" and "can't be read" in said[1]
    again.close()


def test_a_folder_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    opened(tmp_path).close()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    assert open_state(tmp_path / "file" / "x", "image", "r/x:1", said.append) is None
    assert "can't be kept" in said[0]


def test_what_can_t_be_kept_is_said_once_and_the_push_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    state = open_state(tmp_path, "image", "r/x:1", said.append)
    assert state is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    state.save(b"one")
    state.save(b"two")
    assert said == ["the state of this push can't be kept: No space left on device"]
    state.close()


# --- drivers ----------------------------------------------------------------------------------------------------


class Kept:
    """A keeper in memory."""

    def __init__(self) -> None:
        self.saves: list[bytes] = []
        self.threads: set[str] = set()

    def save(self, data: bytes) -> None:
        self.saves.append(data)
        self.threads.add(threading.current_thread().name)


def test_the_blocking_driver_keeps_before_it_polls_again(driver: Driver) -> None:
    kept = Kept()
    seen: list[list[bytes]] = []

    def look(_: object) -> bool:
        seen.append(list(kept.saves))
        return True

    run(driver, Save(data=b"1"), look, Save(data=b"2"), look, keeper=kept)
    assert seen == [[b"1"], [b"1", b"2"]] and kept.threads == {"regproto-session"}
    run(driver, Save(data=b"3"))


def test_an_error_of_the_keeper_s_is_raised(driver: Driver) -> None:
    class Broken:
        def save(self, data: bytes) -> None:
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        run(driver, Save(data=b"1"), Save(data=b"2"), keeper=Broken())
