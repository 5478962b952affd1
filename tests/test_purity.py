"""The core does no I/O, reads no clock or environment and rolls no dice: by its source, and while it runs."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attr
import pytest

import regproto

PACKAGE = Path(regproto.__file__).parent
PROBE = Path(__file__).with_name("purity_probe.py")

CORE = {
    ".".join(("regproto", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "http1.py" and "testing" not in path.parts
}
"""http1 is for drivers; so is the package `testing`."""

PURE = frozenset(
    ["__future__", "attrs", "base64", "binascii", "collections", "collections.abc", "datetime", "enum", "functools"]
    + ["hashlib", "heapq", "ipaddress", "itertools", "json", "math", "operator", "re", "typing", "urllib.parse"]
)
"""What the core may import beside itself."""

IMPURE_NAMES = frozenset(
    ["open", "print", "input", "breakpoint", "eval", "exec", "compile", "id", "hash"]
    + ["__import__", "__builtins__", "__loader__"]
)
"""`id` and `hash` differ from run to run."""
CLOCKS = frozenset({"now", "utcnow", "today"})

IMPURE_MODULES = frozenset(
    ["asyncio", "concurrent", "email", "getpass", "h11", "http", "logging", "multiprocessing", "pathlib", "queue"]
    + ["random", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess"]
    + ["tempfile", "trio", "uuid", "regproto.http1", "regproto.testing"]
)
"""What importing the core must not bring, even through the library. (time and threading come with attrs.)"""


# --- by its source ------------------------------------------------------------------------------------------


def imported_names(node: ast.AST) -> list[str]:
    """The modules an import statement reaches for; a relative one as seen from inside the package."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            package = "regproto" if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            if module == "regproto":
                return [f"regproto.{alias.name}" for alias in node.names]
            return [module]
        case _:
            return []


def impurities(source: str) -> list[str]:
    """What in a core module's source reaches outside."""
    own = CORE.keys() - {"regproto"}
    found = []
    for node in ast.walk(ast.parse(source)):
        found += [f"imports {name}" for name in imported_names(node) if name not in PURE | own]
        match node:
            case ast.Name(id=name) if name in IMPURE_NAMES and isinstance(node.ctx, ast.Load):
                found.append(f"uses {name}")
            case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=name) if name in CLOCKS:
                found.append(f"reads the clock by {name}")
    return found


def test_there_is_a_core() -> None:
    assert {"regproto", "regproto._session", "regproto._http.url", "regproto._machines.blob"} <= CORE.keys()


@pytest.mark.parametrize("name", CORE)
def test_source_is_pure(name: str) -> None:
    lazy = ["imports importlib"] if name == "regproto" else []
    assert impurities(CORE[name].read_text()) == lazy


@pytest.mark.parametrize(
    ("guilty", "finding"),
    [
        ("import os", "imports os"),
        ("import os.path as p", "imports os.path"),
        ("from time import monotonic", "imports time"),
        ("import json, random", "imports random"),
        ("def f():\n    import socket", "imports socket"),
        ("if True:\n    from urllib.request import urlopen", "imports urllib.request"),
        ("from urllib import request", "imports urllib"),
        ("from regproto import http1", "imports regproto.http1"),
        ("from regproto.http1 import exchange", "imports regproto.http1"),
        ("from . import http1", "imports regproto.http1"),
        ("from .testing import registry", "imports regproto.testing"),
        ("import regproto.testing", "imports regproto.testing"),
        ("import regproto_sync", "imports regproto_sync"),
        ("x = open('f')", "uses open"),
        ("p = print", "uses print"),
        ("__import__('os')", "uses __import__"),
        ("eval('1')", "uses eval"),
        ("order = sorted([], key=hash)", "uses hash"),
        ("from datetime import datetime\nx = datetime.now()", "reads the clock by now"),
        (
            "import datetime\nx = datetime.datetime(1, 1, 1)\ny = datetime.date\nz = date.today()",
            "reads the clock by today",
        ),
    ],
)
def test_guilty_source_is_found(guilty: str, finding: str) -> None:
    assert impurities(f'"""A module."""\nfrom regproto._http.url import shown\n{guilty}\n') == [finding]


# --- while it runs ------------------------------------------------------------------------------------------


def probe(source: Path, cwd: Path, hash_seed: str = "0") -> Any:
    """What a session, imported from the folder `source`, did (see purity_probe.py)."""
    library = Path(attr.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-B", str(PROBE), str(source), str(library)],
        env={"PYTHONHASHSEED": hash_seed},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def outsiders(imported: list[str]) -> set[str]:
    """Those of the imported modules that are, or belong to, an impure one."""
    return {name for name in imported if name in IMPURE_MODULES or name.partition(".")[0] in IMPURE_MODULES}


def test_a_running_session_reaches_nothing(tmp_path: Path) -> None:
    report = probe(PACKAGE.parent, tmp_path)
    assert "regproto._session" in report["imported"]
    assert outsiders(report["imported"]) == set()
    assert report["reached"] == []
    assert sorted(report["ended"]) == ["cancelled", "pushed"]


def test_a_session_says_the_same_in_every_run(tmp_path: Path) -> None:
    """The order of sets of strings differs between hash seeds; what is sent may not."""
    reports = [probe(PACKAGE.parent, tmp_path, hash_seed) for hash_seed in ("1", "2", "3")]
    assert reports[0]["steps"] > 50
    assert len({report["said"] for report in reports}) == 1


def guilty_core(folder: Path, imports: str, act: str) -> Path:
    """A copy of the core whose `poll` does something it must not."""
    shutil.copytree(PACKAGE, folder / "regproto", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "regproto" / "_session.py").open("a") as module:
        module.write(
            f"\n{imports}\n_poll = Session.poll\n"
            f"def _guilty(self, now):\n    {act}\n    return _poll(self, now)\n"
            "Session.poll = _guilty\n"
        )
    return folder


@pytest.mark.parametrize(
    ("imports", "act", "reached"),
    [
        ("", "open('x')", "builtins.open"),
        ("", "print('x')", "builtins.print"),
        ("import time", "time.time()", "time.time"),
        ("from time import monotonic", "import time; time.monotonic_ns()", "time.monotonic_ns"),
        ("import os", "os.environ['HOME']", "_Environ.__getitem__"),
        ("import os", "os.getenv('HOME')", "os.getenv"),
        ("import os", "list(os.environ)", "_Environ.__iter__"),
        ("import os", "os.urandom(8)", "os.urandom"),
        ("import os", "os.listdir('/')", "os.listdir"),
        ("from os import listdir", "listdir('/')", "audit: os.listdir"),
        ("from io import FileIO", "FileIO('/dev/null')", "audit: open"),
        ("import sys", "sys.stdout.write('x')", "standard stream .write"),
        ("import _socket", "_socket.socket()", "audit: socket.__new__"),
        ("import threading", "threading.Thread().start()", "Thread.start"),
        ("", "import sqlite3", "audit: import"),
    ],
)
def test_a_guilty_session_is_caught(tmp_path: Path, imports: str, act: str, reached: str) -> None:
    report = probe(guilty_core(tmp_path, imports, act), tmp_path)
    assert report["reached"] == [reached]
    assert "ended" not in report


@pytest.mark.parametrize("module", ["random", "socket", "regproto.http1"])
def test_a_guilty_import_is_caught(tmp_path: Path, module: str) -> None:
    report = probe(guilty_core(tmp_path, f"import {module}", "pass"), tmp_path)
    assert module in outsiders(report["imported"])


def test_order_by_hash_is_caught(tmp_path: Path) -> None:
    folder = guilty_core(tmp_path, "", "now += len(next(iter({'a', 'bb', 'ccc', 'dddd', 'eeeee'}))) / 1000")
    assert len({probe(folder, tmp_path, str(seed))["said"] for seed in range(1, 6)}) > 1
