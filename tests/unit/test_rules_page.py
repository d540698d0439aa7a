"""docs/pipeline-rules.md names for every rule tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "pipeline-rules.md"
TEST = re.compile(r"`([a-z/_]+\.py)::([A-Za-z0-9_]+)`")


def rows() -> dict[str, str]:
    """The tests' column by the rule's."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [line.strip("| ").split(" | ") for line in lines if not line.startswith("| Rule |")]
    assert all(len(cell) == 2 for cell in cells)
    return {cell[0]: cell[1] for cell in cells}


@cache
def defined(file: Path) -> frozenset[str]:
    """The names at the top level of a file."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(found)


@pytest.mark.parametrize("rule", rows())
def test_every_rule_names_tests_that_exist(rule: str) -> None:
    named = TEST.findall(rows()[rule])
    assert named
    assert not TEST.sub("", rows()[rule]).strip(), "something beside tests stands in the column"
    for path, name in named:
        assert (TESTS / path).is_file(), path
        assert name in defined(TESTS / path), f"{path} has no {name}"


def test_the_page_has_the_rules_of_every_part() -> None:
    assert len(rows()) >= 50
