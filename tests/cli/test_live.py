"""The live view of the command: what stands on the screen, and when there is none."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from rich.console import Console

from images import image_layout
from regproto import Notice, Status
from regproto.testing import FakeRegistry, Fault, FaultKind, RegistryOptions, When
from regproto_sync.cli.live import LiveView, Meter
from regproto_sync.server.server import Server

FIRST, SECOND, THIRD = ("sha256:" + digit * 64 for digit in "abc")
BAR = "━"
WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from regproto_sync.cli.main import main; sys.exit(main())"


class Screen:
    """A view on a terminal of 140 columns, in simulated time."""

    def __init__(self, height: int = 20) -> None:
        self.now = 0.0
        self.console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=140, height=height)
        self.view = LiveView(self.console, clock=lambda: self.now)

    def tell(self, status: Status, subject: str = FIRST, sent: int = 0, size: int = 0, **more: object) -> None:
        self.view.notice(Notice(status=status, subject=subject, sent_bytes=sent, size_bytes=size, **more))  # type: ignore[arg-type]

    def lines(self) -> list[str]:
        """What is drawn now."""
        before = len(self.printed())
        self.console.print(self.view.render())
        return [line.rstrip() for line in self.printed()[before:].splitlines()]

    def line(self, start: str) -> str:
        [line] = [line for line in self.lines() if line.startswith(start)]
        return line

    def length(self, start: str) -> int:
        """Of the drawn part of a bar; unknown parts are blank without colours."""
        return self.line(start).count(BAR)

    def printed(self) -> str:
        file = self.console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue()


def test_the_fields_words() -> None:
    screen = Screen()
    screen.tell(Status.EXISTING, FIRST, size=1_500)
    screen.tell(Status.MOUNTED, SECOND, size=2_000_000, text="base/one")
    screen.tell(Status.UPLOADED, THIRD, 3_000_000, 3_000_000)
    screen.tell(Status.UPLOADED, "1.0", 500, 500)
    screen.tell(Status.SKIPPED, "sha256:" + "d" * 64, size=7)
    screen.tell(Status.FAILED, "sha256:" + "e" * 64, size=8, text="no")
    assert [(line.split()[0], line.split(" B  ")[-1].split("B  ")[-1]) for line in screen.lines()] == [
        ("sha256:aaaaaaaaaaaa", "existing"),
        ("sha256:bbbbbbbbbbbb", "mounted from base/one"),
        ("sha256:cccccccccccc", "uploaded"),
        ("1.0", "uploaded"),
        ("sha256:dddddddddddd", "skipped"),
        ("sha256:eeeeeeeeeeee", "failed"),
    ]
    assert screen.length(FIRST[:19]) == screen.length(THIRD[:19]) == 28 and screen.length("sha256:d") == 0


def test_speed_and_time_left() -> None:
    screen = Screen()
    for second in range(5):
        screen.now = float(second)
        screen.tell(Status.UPLOADING, FIRST, second * 1_000_000, 10_000_000)
        screen.tell(Status.PROGRESS, "team/app", second * 1_000_000 + 5_000_000, 16_000_000, push_id=1)
    assert screen.line(FIRST[:19]).endswith("4.0 MB of 10.0 MB  1.0 MB/s, 0:06 left")
    assert screen.line("total").endswith("9.0 MB of 16.0 MB  1.0 MB/s, 0:07 left"), "what was there is no speed"


def test_a_bar_goes_backwards_only_when_a_try_is_taken_back_and_says_so() -> None:
    screen = Screen()
    screen.tell(Status.UPLOADING, FIRST, 5_000_000, 10_000_000)
    screen.tell(Status.PROGRESS, "team/app", 5_000_000, 10_000_000, push_id=1)
    assert screen.length(FIRST[:19]) == screen.length("total") == 14
    text = f"upload of blob {FIRST}: PATCH https://r/v2/x the connection ended before the answer was whole"
    screen.tell(Status.RETRYING, FIRST, text=text, delay_s=1.25)
    screen.tell(Status.PROGRESS, "team/app", 2_000_000, 10_000_000, push_id=1)
    assert screen.line(FIRST[:19]).endswith("again in 1.2 s: the connection ended before the answer was whole")
    assert "try taken back" in screen.line("total") and screen.length("total") == 5
    screen.tell(Status.UPLOADING, FIRST, 2_000_000, 10_000_000)
    assert "try taken back" in screen.line(FIRST[:19]) and screen.length(FIRST[:19]) == 5
    screen.tell(Status.UPLOADING, FIRST, 5_500_000, 10_000_000)
    assert "try taken back" not in screen.line(FIRST[:19]), "it has gone on beyond that"
    screen.tell(Status.RESTARTED, FIRST, size=10_000_000, text="lost")
    assert screen.line(FIRST[:19]).endswith("restarted (try taken back)") and screen.length(FIRST[:19]) == 0
    screen.tell(Status.UPLOADED, FIRST, 10_000_000, 10_000_000)
    screen.tell(Status.PROGRESS, "team/app", 10_000_000, 10_000_000, push_id=1)
    assert screen.line(FIRST[:19]).endswith("uploaded") and "taken back" not in screen.line("total")


def test_a_total_that_grows_does_not_move_the_bar_back() -> None:
    screen = Screen()
    lengths = []
    for complete, total in ((50, 100), (60, 200), (150, 200), (200, 300), (300, 300)):
        screen.tell(Status.PROGRESS, "team/app", complete, total, push_id=1)
        lengths.append(screen.length("total"))
    assert lengths == [14, 14, 21, 21, 28]


def test_the_pushes_of_one_command_add_up() -> None:
    screen = Screen()
    screen.tell(Status.PROGRESS, "team/app", 10, 20, push_id=1)
    screen.tell(Status.PROGRESS, "team/app", 5, 40, push_id=2)
    assert "15 B of 60 B" in screen.line("total")


def test_a_stream_has_no_end_before_it_ends() -> None:
    screen = Screen()
    screen.tell(Status.UPLOADING, "layer-0", 1_000, 1_000)
    screen.now = 1.0
    screen.tell(Status.UPLOADING, "layer-0", 9_000, 9_000)
    assert screen.line("layer-0").endswith("9.0 kB  8.0 kB/s")
    screen.tell(Status.UPLOADED, "layer-0", 10_000, 10_000, text=FIRST)
    assert screen.line("layer-0").endswith("10.0 kB  uploaded")


def test_what_has_no_bar_is_a_line() -> None:
    screen = Screen()
    screen.tell(Status.WARNING, "registry.example", text="be quick")
    screen.tell(Status.RETRYING, "team/app", text="no token yet", delay_s=2.0)
    assert screen.printed() == "registry.example warns: be quick\nteam/app again in 2.0 s: no token yet\n"
    assert screen.lines() == [""] or screen.lines() == []


def test_a_low_terminal() -> None:
    screen = Screen(height=6)
    digests = ["sha256:" + f"{number:064x}" for number in range(10)]
    for number, digest in enumerate(digests):
        screen.tell(Status.UPLOADING, digest, number, 100)
    screen.tell(Status.PROGRESS, "team/app", 45, 1_000, push_id=1)
    assert len(screen.lines()) == 5 and screen.lines()[-1] == "and 7 more"
    for digest in digests:
        screen.tell(Status.UPLOADED, digest, 100, 100)
    assert screen.printed().count("uploaded") >= 7, "what has ended goes up when there is no room"
    assert len(screen.lines()) == 4


def test_a_speed_needs_time_and_follows() -> None:
    meter = Meter()
    assert meter.rate(0.0) == 0.0
    meter.add(1_000_000, 0.0)
    meter.add(1_000_000, 0.2)
    assert meter.rate(0.2) == 0.0
    assert meter.rate(2.0) == 500_000
    assert meter.rate(10.0) == 0.0


# --- the command ------------------------------------------------------------------------------------------------


@attrs.frozen
class Ran:
    code: int
    result: str
    terminal: str


def on_terminal(*arguments: str, program: tuple[str, ...] = ("-m", "regproto_sync"), **environment: str) -> Ran:
    """The command with a terminal as its standard error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 120, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**kept, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    result = process.communicate(timeout=30)[0]
    return Ran(process.returncode, result, shown.decode())


@contextmanager
def served(*faults: Fault) -> Iterator[str]:
    with Server(FakeRegistry(RegistryOptions(faults=faults))) as server:
        yield f"127.0.0.1:{server.port}/team/app:1.0"


@pytest.fixture
def layout(tmp_path: Path) -> str:
    return str(image_layout(tmp_path / "layout", (300_000, 2_000)))


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_on_a_terminal(layout: str, driver: str) -> None:
    fault = Fault(kind=FaultKind.DROP, when=When.IN_BODY, method="PUT", path="/blobs/", after_bytes=1_000)
    with served(fault) as reference:
        ran = on_terminal("push", layout, reference, "--driver", driver)
    assert ran.code == 0, ran.terminal
    assert re.fullmatch(r"127\.0\.0\.1:\d+/team/app@sha256:[0-9a-f]{64}\n", ran.result)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ran.terminal).replace("\r", "").split("\n")[-6:]
    assert [line.split()[-1] for line in last[:4]] == ["uploaded"] * 4, ran.terminal
    assert last[4].startswith("total") and BAR * 28 in last[4]
    assert "\x1b[?25h" in ran.terminal, "the cursor is shown again"


def test_an_error_comes_after_the_view(layout: str) -> None:
    fault = Fault(kind=FaultKind.STATUS, status=403, method="PUT", path="/manifests/", count=99)
    with served(fault) as reference:
        ran = on_terminal("push", layout, reference)
    assert (ran.code, ran.result) == (1, "")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ran.terminal).replace("\r", "")
    assert "total" in plain and re.search(r"\nregproto: tag 1\.0: PUT .* 403", plain)


@pytest.mark.parametrize(
    ("environment", "program"), [({"TERM": "dumb"}, ("-m", "regproto_sync")), ({}, ("-c", WITHOUT_RICH))]
)
def test_plain_lines(layout: str, environment: dict[str, str], program: tuple[str, ...]) -> None:
    with served() as reference:
        ran = on_terminal("push", layout, reference, program=program, **environment)
    assert ran.code == 0 and ran.result and "\x1b" not in ran.terminal
    lines = ran.terminal.splitlines()
    assert len(lines) == 4 and all(" uploaded " in line for line in lines)


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_nothing_on_the_terminal(layout: str, option: str) -> None:
    with served() as reference:
        ran = on_terminal("push", layout, reference, option)
    assert (ran.code, ran.terminal) == (0, "") and ran.result
