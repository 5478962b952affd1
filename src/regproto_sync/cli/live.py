"""The live view of a push on a terminal: a bar for each thing that is pushed, and one for all of it.

A bar never goes backwards, unless a try failed and what it had sent is taken back; its line says so.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Self

import attrs
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from regproto import Notice, Status
from regproto._model.errors import escaped
from regproto_sync.cli.lines import line_of, short, size_text

WINDOW_S: Final = 5.0
"""A speed is that of the last seconds: long enough to be read, short enough to follow a network."""
_SOON_S: Final = 0.5
"""Before this no speed is told: the first bytes go into buffers, not over the network."""
_LEFT_MAX_S: Final = 99 * 3600
"""Nobody believes more."""
_REFRESHES: Final = 10
_BAR_WIDTHS: Final = (8, 28)
"""At least and at most, in columns."""
_SPARE_LINES: Final = 3
"""Of the terminal's height: for all of it, for what does not fit, and for the cursor."""
_NAME_WIDTH: Final = len("sha256:") + 12
_AMOUNT_WIDTH: Final = len("999.9 MB of 999.9 MB")
_SAID_WIDTH: Final = len("999.9 MB/s, 9:59:59 left")
_GAP: Final = 2
_ABOUT: Final = re.compile(r".*? https?://\S+ (?:was )?")
_DIGEST: Final = re.compile(r"sha[0-9]+:[0-9a-f]+")
_AGAIN: Final = "again in "
_TAKEN_BACK: Final = "try taken back"

_ENDED: Final = {
    Status.EXISTING: "cyan",
    Status.MOUNTED: "magenta",
    Status.UPLOADED: "green",
    Status.SKIPPED: "dim",
    Status.FAILED: "bold red",
}
"""The colour of each status after which nothing more comes."""


@attrs.define
class Meter:
    """How fast bytes move."""

    marks: deque[tuple[float, int]] = attrs.field(factory=deque)
    """Each movement: when, and how much. The first only says since when."""

    def add(self, count: int, now: float) -> None:
        """So much has moved."""
        self.marks.append((now, count))

    def rate(self, now: float) -> float:
        """Bytes a second, over the last seconds; 0 while that can't be told."""
        while len(self.marks) > 1 and self.marks[1][0] < now - WINDOW_S:
            self.marks.popleft()
        if not self.marks or now - self.marks[0][0] < _SOON_S:
            return 0.0
        return sum(count for _, count in islice(self.marks, 1, None)) / (now - self.marks[0][0])


@attrs.define
class Bar:
    """One line: so much of so much, and what there is to say."""

    name: str
    size: int = 0
    sent: int = 0
    shown: float = 0.0
    """The part that is drawn, 0 to 1."""
    said: str = ""
    style: str = ""
    ended: bool = False
    open_end: bool = False
    """A stream: how large it is, its end will tell."""
    meter: Meter = attrs.field(factory=Meter)
    furthest: int = 0
    """The most that ever was sent of it."""

    def move(self, sent: int, size: int) -> int:
        """So much is sent; returns how much of that was never sent before."""
        more, self.sent, self.size = sent - self.sent, sent, size
        new, self.furthest = max(0, sent - self.furthest), max(sent, self.furthest)
        part = sent / size if size else 0.0
        if more < 0:
            self.shown, self.said, self.style = part, _TAKEN_BACK, "yellow"
            return new
        # What a push brings may grow while it is read, and then the part that is there shrinks; the bar waits.
        self.shown = max(self.shown, part)
        if self.said == _TAKEN_BACK and sent >= self.furthest:
            self.said = ""
        return new

    def end(self, notice: Notice) -> None:
        """Nothing more comes of it."""
        self.ended, self.open_end, self.shown = True, False, 1.0
        self.said, self.style = notice.status.value, _ENDED[notice.status]
        if notice.status in (Status.SKIPPED, Status.FAILED):
            self.shown = self.sent / self.size if self.size else 0.0
        elif notice.status is Status.MOUNTED and notice.text:
            self.said = f"mounted from {notice.text}"

    def cells(self, now: float, bar_width: int) -> tuple[RenderableType, ...]:
        """The line's columns."""
        if self.open_end:
            bar = ProgressBar(total=None, pulse=True, width=bar_width, animation_time=now)
        else:
            bar = ProgressBar(total=1.0, completed=self.shown, width=bar_width)
        amount = size_text(self.size) if self.size else ""
        if not self.ended and self.sent != self.size:
            amount = f"{size_text(self.sent)} of {amount}"
        says = Text(escaped(self._says(now)), style=self.style, overflow="ellipsis", no_wrap=True)
        return Text(escaped(self.name)), bar, Text(amount, justify="right"), says

    def _says(self, now: float) -> str:
        moves = self.open_end or self.sent < self.size
        rate = self.meter.rate(now) if moves and not self.ended and not self.said.startswith(_AGAIN) else 0.0
        if not rate:
            return self.said
        speed = f"{size_text(int(rate))}/s"
        if not self.open_end:
            speed += f", {_time_text((self.size - self.sent) / rate)} left"
        return f"{speed}, {self.said}" if self.said else speed


class LiveView:
    """Shows the news of pushes; a context manager, told them by `notice` from any one thread at a time.

    Args:
        console: what it draws on.
        clock: seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._bars: dict[str, Bar] = {}
        self._all = Bar("total")
        self._pushes: dict[tuple[str, int], tuple[int, int]] = {}
        self._live = Live(
            console=console, get_renderable=self._locked, refresh_per_second=_REFRESHES, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def notice(self, notice: Notice) -> None:
        """Takes note of one event."""
        now = self._clock()
        # What is printed goes out after the lock: the view is drawn under rich's own, and asks for this one then.
        with self._lock:
            line = self._take(notice, now)
            gone = self._overflow()
        for bar in gone:
            self._console.print(_table([bar], now, self._console.width))
        if line is not None:
            self._console.print(Text(escaped(line), style="yellow"))

    def render(self) -> RenderableType:
        """The view as it is now."""
        now = self._clock()
        bars = list(self._bars.values())
        room = max(1, self._console.height - _SPARE_LINES)
        shown, hidden = bars[:room], len(bars) - room
        if self._pushes:
            shown.append(self._all)
        more = [Text(f"and {hidden} more", style="dim")] if hidden > 0 else []
        return Group(_table(shown, now, self._console.width), *more)

    def _locked(self) -> RenderableType:
        with self._lock:
            return self.render()

    def _take(self, notice: Notice, now: float) -> str | None:
        """Changes the view; returns the line to be printed above it where an event has no bar."""
        match notice.status:
            case Status.PROGRESS:
                self._pushes[notice.subject, notice.push_id] = notice.sent_bytes, notice.size_bytes
                complete, total = (sum(amounts) for amounts in zip(*self._pushes.values(), strict=True))
                self._all.move(complete, total)
                if complete == total:
                    self._all.said = ""
            case Status.UPLOADING:
                self._move(self._bar(notice), notice, now)
            case Status.RETRYING if notice.subject in self._bars or _DIGEST.fullmatch(notice.subject):
                bar = self._bar(notice)
                bar.said, bar.style = f"{_AGAIN}{notice.delay_s:.1f} s: {_reason(notice.text)}", "yellow"
            case Status.RESTARTED | Status.RESUMED:
                bar = self._bar(notice)
                self._move(bar, notice, now)
                taken_back = f" ({_TAKEN_BACK})" if bar.said == _TAKEN_BACK else ""
                bar.said, bar.style = f"{notice.status.value}{taken_back}", "yellow"
            case status if status in _ENDED:
                bar = self._bar(notice)
                if status is Status.UPLOADED:
                    self._move(bar, notice, now)
                bar.size = notice.size_bytes
                bar.end(notice)
            case _:
                return line_of(notice)
        return None

    def _bar(self, notice: Notice) -> Bar:
        bar = self._bars.get(notice.subject)
        if bar is None:
            bar = self._bars[notice.subject] = Bar(short(notice.subject), size=notice.size_bytes)
            is_digest = _DIGEST.fullmatch(notice.subject) is not None
            bar.open_end = notice.status is Status.UPLOADING and not is_digest
        return bar

    def _move(self, bar: Bar, notice: Notice, now: float) -> None:
        if bar.said.startswith(_AGAIN):
            bar.said, bar.style = "", ""
        before = bar.sent
        new = bar.move(notice.sent_bytes, notice.size_bytes or bar.size)
        if bar.sent < before:
            bar.meter = Meter()
        # What is found there takes no time, what is sent again brings nothing forward, and the first megabytes only
        # fill buffers: none of these is the push's speed.
        begins = not bar.meter.marks and bar.sent < bar.size
        self._all.meter.add(0 if begins else new, now)
        bar.meter.add(max(0, bar.sent - before), now)

    def _overflow(self) -> list[Bar]:
        """Bars that have ended and for which there is no room: they go up, out of the view."""
        gone: list[Bar] = []
        spare = len(self._bars) - max(1, self._console.height - _SPARE_LINES)
        if spare > 0:
            names = [name for name, bar in self._bars.items() if bar.ended][:spare]
            gone = [self._bars.pop(name) for name in names]
        return gone


def _table(bars: list[Bar], now: float, width: int) -> Table:
    least, most = _BAR_WIDTHS
    bar_width = max(least, min(most, width - _NAME_WIDTH - _AMOUNT_WIDTH - _SAID_WIDTH - 3 * _GAP))
    table = Table.grid(padding=(0, _GAP, 0, 0), expand=True)
    table.add_column(no_wrap=True, width=_NAME_WIDTH)
    table.add_column(width=bar_width)
    table.add_column(no_wrap=True, width=_AMOUNT_WIDTH, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for bar in bars:
        table.add_row(*bar.cells(now, bar_width))
    return table


def _reason(text: str) -> str:
    """The end of an error's text, which says why; what it is about stands at the line's beginning."""
    return _ABOUT.sub("", text, count=1)


def _time_text(seconds: float) -> str:
    whole = int(min(seconds, _LEFT_MAX_S))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
