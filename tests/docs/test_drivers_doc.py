"""docs/drivers.md says what there is, and docs/machines.md is current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import attrs
import pytest
from test_examples import LACKS

import regproto
from regproto import Input, Output, Phase, driving, http1
from regproto.testing.driver_check.run import CHECKS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "drivers.md").read_text()
MESSAGES = (*get_args(Output), *get_args(Input))


def row(first: str) -> str:
    """The one line of a table that begins with this."""
    [line] = re.findall(rf"^\| {re.escape(first)} \|.*$", TEXT, re.MULTILINE)
    return str(line)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_every_message_is_there_with_its_fields(message: type) -> None:
    told = set(re.findall(r"`(\w+)`", row(f"`{message.__name__}`")))
    fields = {field.name for field in attrs.fields(message)}
    if message is regproto.Notice:  # for people; its fields are in its docstring
        fields = {"status", "subject"}
    assert fields <= told


def test_what_it_names_is_there() -> None:
    for name in re.findall(r"`http1\.(\w+)", TEXT):
        assert hasattr(http1, name), name
    for name in re.findall(r"\bdriving\.(\w+)", TEXT.replace("regproto.driving", "")):
        assert name in driving.__all__, name
    exchange = vars(http1.Exchange) | {"outcome": None}
    for name in re.findall(r"`exchange\.(\w+)", TEXT):
        assert name in exchange, name
    for phase in Phase:
        assert f"`{phase.name}`" in TEXT
    for kind in regproto.FailureKind:
        assert kind.name in TEXT
    for path in re.findall(r"\]\((?:\.\./)?([\w/.]+)\)", TEXT):
        assert (ROOT / path).exists() or (ROOT / "docs" / path).exists(), path


def test_what_the_drivers_lack_is_what_is_checked() -> None:
    columns = ["regproto_sync", "regproto_trio", "asyncio_driver", "httpx_driver"]
    told: dict[str, set[str]] = {name: set() for name in columns}
    table = TEXT.partition("| check |")[2].partition("\n\n")[0]
    known = {check.name for check in CHECKS}
    for line in table.splitlines()[2:]:
        checks, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        names = {checks} if checks in known else set(checks.split(", "))
        assert names <= known
        for name, cell in zip(columns, cells, strict=True):
            if cell:
                told[name] |= names
    assert told == {"regproto_sync": set(), "regproto_trio": set(), **LACKS}


def test_the_diagrams_are_current(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "diagrams"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_diagrams_that_are_not_current_are_told(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "src").symlink_to(ROOT / "src")
    script = tmp_path / "scripts" / "diagrams"
    script.write_text((ROOT / "scripts" / "diagrams").read_text())
    command = [sys.executable, str(script)]
    for text, code in ((None, 1), ("old", 1)):
        if text is not None:
            (tmp_path / "docs" / "machines.md").write_text(text)
        assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == code
    assert subprocess.run(command, check=False).returncode == 0
    assert (tmp_path / "docs" / "machines.md").read_text() == (ROOT / "docs" / "machines.md").read_text()
