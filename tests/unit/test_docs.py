"""The documentation names tests; they exist, and every convention has one."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST_NAME = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_of_tests_of(path: Path) -> frozenset[str]:
    """Return the names of a file's test functions."""
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_")


def rows_of_tables(text: str) -> list[str]:
    """Return the rows of all Markdown tables, without headings and rules."""
    lines = text.splitlines()
    rules = {i for i, line in enumerate(lines) if re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line)}
    return [line for i, line in enumerate(lines) if line.startswith("|") and i not in rules and i + 1 not in rules]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for file, name in TEST_NAME.findall(page.read_text()):
        assert (ROOT / file).is_file(), f"{page.name} names {file}, which does not exist"
        assert name in names_of_tests_of(ROOT / file), f"{page.name} names {file}::{name}, which does not exist"


def test_every_convention_is_pinned_by_a_test() -> None:
    rows = rows_of_tables((ROOT / "docs" / "conventions.md").read_text())
    assert len(rows) > 10
    for row in rows:
        assert TEST_NAME.search(row.split("|")[-2]), f"no test is named for: {row}"
