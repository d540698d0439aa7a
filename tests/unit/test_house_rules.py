"""Rules of the house that a person would only notice when they are broken."""

from __future__ import annotations

import ast
import inspect
import subprocess
from pathlib import Path

import pytest

from beamline_contract.conditions import ConditionType
from beamline_operator.core import checks
from beamline_router.core import pipeline
from beamline_sdk import breaker

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 400
LONGEST_OF_THE_ROUTERS_CORE = 300
ROUTERS_CORE = sorted(Path(str(pipeline.__file__)).parent.glob("*.py"))
ROUTERS_RULES = ["matching", "selection", "breaker", "retry", "deadline", "pipeline"]
PURE = frozenset(
    {"beamline_contract", "beamline_registry", "beamline_sdk", "collections", "typing", "__future__"}
)


def test_no_file_is_longer_than_400_lines() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lengths = {
        name: len((ROOT / name).read_text().splitlines())
        for name in listed.stdout.split()
        if (ROOT / name).is_file()
    }
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


@pytest.mark.parametrize("path", ROUTERS_CORE, ids=lambda path: path.stem)
def test_a_module_of_the_routers_core_is_short_and_opens_with_what_it_promises(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_OF_THE_ROUTERS_CORE
    assert path.stem == "__init__" or len(ast.get_docstring(ast.parse(text)) or "") > 40


@pytest.mark.parametrize("name", ROUTERS_RULES)
def test_each_rule_of_the_router_is_a_module_of_80_to_300_lines(name: str) -> None:
    known = {path.stem: path for path in (*ROUTERS_CORE, Path(str(breaker.__file__)))}
    text = known[name].read_text()
    assert 80 <= len(text.splitlines()) <= LONGEST_OF_THE_ROUTERS_CORE
    promise = ast.get_docstring(ast.parse(text)) or ""
    assert len(promise.splitlines()) >= 5, "it opens with what it promises"


def test_every_condition_has_its_flat_list_of_checks_in_their_order() -> None:
    decided = [condition for condition, _ in checks.CONDITIONS]
    assert set(decided) == set(ConditionType)
    assert len(decided) == len(set(decided))
    for _, found in checks.CONDITIONS:
        for check in found:
            assert list(inspect.signature(check).parameters.values())[2:] == []
            assert not inspect.iscoroutinefunction(check)
            assert check.__doc__, f"{check.__name__} says what it looks for"


@pytest.mark.parametrize(
    "path", sorted(Path(str(checks.__file__)).parent.glob("*.py")), ids=lambda path: path.stem
)
def test_a_check_knows_nothing_but_values(path: Path) -> None:
    """No clock, no network, no loop: what it rests on is in the view."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {name.name.partition(".")[0] for name in node.names} <= PURE
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert str(node.module).partition(".")[0] in PURE
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global)
