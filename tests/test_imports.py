"""The packages import what runs, when it runs. (Who may import whom at all is import-linter's, in pyproject.toml.)"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import regproto

LAZY = ["regproto", "regproto.testing", "regproto_sync", "regproto_trio"]
DRIVERS = ("regproto_sync.client", "regproto_sync.driver", "regproto_sync.server", "regproto_trio", "regproto.testing")
HEAVY = frozenset(["asyncio", "h11", "rich", "socket", "ssl", "subprocess", "trio"])


def modules_after(code: str) -> set[str]:
    """The modules there are once this has run in a process of its own."""
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("name", LAZY)
def test_a_package_imports_nothing_of_its_own(name: str) -> None:
    found = modules_after(f"import {name}")
    assert not any(module.startswith(f"{name}.") for module in found)
    assert found & HEAVY == set()


@pytest.mark.parametrize(
    "code",
    [
        "import regproto",
        "import regproto; [getattr(regproto, name) for name in regproto.__all__]",
        "import regproto_sync, regproto_trio",
        "from regproto_sync.cli.main import main",
        "from regproto_sync.cli.main import main\ntry: main(['--version'])\nexcept SystemExit: pass",
        "from regproto_sync.cli.main import main\ntry: main(['push', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_no_driver_before_it_is_used(code: str) -> None:
    found = modules_after(code)
    allowed = {"regproto_trio"} if "regproto_trio" in code else set()
    assert {module for module in found if module.startswith(DRIVERS)} == allowed
    assert found & HEAVY == set()


@pytest.mark.parametrize("name", LAZY)
def test_public_names_are_those_that_type_checkers_see(name: str) -> None:
    package = import_module(name)
    assert package.__file__ is not None
    block = Path(package.__file__).read_text().partition("\nif TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    seen = dict(reversed(pair) for pair in re.findall(r"from (\S+) import (\w+) as \2", block))
    known = package._MODULES
    assert seen == known
    for public in package.__all__:
        assert getattr(package, public) is getattr(import_module(known.get(public, name)), public)


def test_the_core_is_lazy_too() -> None:
    assert regproto.__version__ and "regproto._session" not in modules_after("import regproto; regproto.__version__")
