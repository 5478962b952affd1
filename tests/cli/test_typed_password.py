"""A password that is typed on a terminal: not shown there, and the terminal is as it was before, however it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from images import image_layout
from regproto.testing import Auth, FakeRegistry, RegistryOptions
from regproto_sync import Server

SECRET = "typed-s3cret-größer"
PATIENCE_S = 20.0


@attrs.define
class Typing:
    """A command whose standard input is a terminal, and who sits before it."""

    process: subprocess.Popen[bytes]
    master: int
    slave: int
    shown: bytes = b""
    """All that appeared on the terminal."""

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def until(self, text: bytes) -> None:
        """Wait until this is shown."""
        end = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self.master], [], [], 0.1)[0]:
                self.shown += os.read(self.master, 4096)
            assert self.process.poll() is None, self.shown

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> tuple[int, str, str]:
        """Its exit code, what it printed, and all that was shown."""
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        while select.select([self.master], [], [], 0.1)[0]:
            self.shown += os.read(self.master, 4096)
        return self.process.returncode, out.decode(), self.shown.decode()


@contextmanager
def typing(*arguments: str | Path, controls: bool = True) -> Iterator[Typing]:
    """Start the command; `controls`: the terminal is its controlling one, whose keys send signals."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "regproto_sync", *map(str, arguments)],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        start_new_session=True,
        preexec_fn=(lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0)) if controls else None,
    )
    try:
        yield Typing(process, master, slave)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("controls", [True, False], ids=["controlling", "other"])
@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_it_is_not_shown(tmp_path: Path, driver: str, controls: bool) -> None:
    layout = image_layout(tmp_path / "layout")
    registry = FakeRegistry(RegistryOptions(auth=Auth.BASIC, users={"me": SECRET}))
    with Server(registry) as server:
        name = f"127.0.0.1:{server.port}/a/b:1.0"
        options = ("--username", "me", "--password-stdin", "--driver", driver, "--quiet")
        with typing("push", layout, name, *options, controls=controls) as terminal:
            terminal.until(b"Password: ")
            assert not terminal.echoes
            terminal.type(f"{SECRET}\n")
            code, out, shown = terminal.end()
            assert code == 0 and out.startswith(f"127.0.0.1:{server.port}/a/b@sha256:")
            assert terminal.echoes and "s3cret" not in shown
    assert registry.tags("a/b")


@pytest.mark.parametrize("how", ["key", "SIGINT", "SIGTERM"])
def test_interrupted(tmp_path: Path, how: str) -> None:
    arguments = ("push", image_layout(tmp_path / "layout"), "localhost:1/a", "--username", "me", "--password-stdin")
    with typing(*arguments) as terminal:
        terminal.until(b"Password: ")
        terminal.type("typed-s3")
        if how == "key":
            terminal.type("\x03")
        else:
            terminal.process.send_signal(getattr(signal, how))
        code, _, shown = terminal.end()
        assert (code, terminal.echoes) == (130, True)
        assert "interrupted" in shown and "s3" not in shown and "Traceback" not in shown


@pytest.mark.parametrize(("typed", "says"), [("\n", "expected a password"), ("\x04", "expected a password")])
def test_nothing_typed(tmp_path: Path, typed: str, says: str) -> None:
    arguments = ("push", image_layout(tmp_path / "layout"), "localhost:1/a", "--username", "me", "--password-stdin")
    with typing(*arguments) as terminal:
        terminal.until(b"Password: ")
        terminal.type(typed)
        code, _, shown = terminal.end()
        assert (code, terminal.echoes) == (2, True) and says in shown and "Traceback" not in shown


def test_what_is_no_text(tmp_path: Path) -> None:
    arguments = ("push", image_layout(tmp_path / "layout"), "localhost:1/a", "--username", "me", "--password-stdin")
    with typing(*arguments) as terminal:
        terminal.until(b"Password: ")
        os.write(terminal.master, b"s3\xff\xfe\n")
        code, _, shown = terminal.end()
        assert (code, terminal.echoes) == (2, True) and "can't be read as text" in shown and "Traceback" not in shown


def test_no_standard_input_at_all(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    command = [sys.executable, "-m", "regproto_sync", "push", str(layout), "localhost:1/a", "--username", "me"]
    code = "import os, sys; os.close(0); os.execv(sys.executable, sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--password-stdin"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and "expected a password on standard input" in done.stderr
