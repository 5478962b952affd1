"""The Python that the pages show: every block is Python, and what it imports of ours is there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "conformance" / "README.md")
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1)
]
PACKAGES = ("regproto", "regproto_sync", "regproto_trio")


@pytest.mark.parametrize("block", BLOCKS)
def test_what_a_block_names_is_there(block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in PACKAGES:
                for name in names:
                    assert hasattr(importlib.import_module(module), name.name), name.name
            case ast.Attribute(value=ast.Name(id=package), attr=name) if package in PACKAGES:
                assert hasattr(importlib.import_module(package), name), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_a_page_links_to_are_there(page: Path) -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / path).exists(), path


def test_files_of_the_engine_and_the_machines_are_named() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    for room in ("_engine", "_machines"):
        for module in (ROOT / "src" / "regproto" / room).glob("[a-z]*.py"):
            assert f"`{module.name}`" in design, module.name
    files = {path.name for path in (ROOT / "src").rglob("*.py")} | {"test_purity.py", "open_sessions.py", "chaos.py"}
    assert set(re.findall(r"(\w+\.py)", design)) <= files
