"""The public names are those that are kept in tests/public_surface.json: a change of them is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_users_rely_on_is_as_it_was_kept() -> None:
    command = [sys.executable, ROOT / "scripts" / "public-surface", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}if this is meant, run scripts/public-surface"
