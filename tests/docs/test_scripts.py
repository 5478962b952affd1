"""The scripts and benchmarks start, and the files that anything here names are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())
PYTHON = [path for path in SCRIPTS if "python3" in path.read_text().partition("\n")[0]]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
TEXTS = [*SCRIPTS, *BENCHMARKS, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("conformance/**/*.md")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("script", [*PYTHON, *BENCHMARKS], ids=relative)
def test_starts(script: Path) -> None:
    """It says how it is used; one that takes no arguments runs, and takes a second at most."""
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        assert (done.stderr, bool(done.stdout)) == ("", True)
    else:
        assert (done.returncode, done.stderr.partition(" ")[0]) == (2, "usage:"), done.stderr


@pytest.mark.parametrize("text", TEXTS, ids=relative)
def test_the_files_it_names_are_there(text: Path) -> None:
    named = re.findall(r"(?<![\w/.])(?:tests|src|scripts|benchmarks|docs|examples)/[\w./*-]*[\w*]", text.read_text())
    assert [name for name in named if not list(ROOT.glob(name))] == []
