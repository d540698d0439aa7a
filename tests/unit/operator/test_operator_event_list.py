"""Events come from a declared list: what the code emits and what is declared are the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import beamline_contract.conditions
import beamline_operator.core
from beamline_contract.conditions import EventReason

ROOT = Path(beamline_operator.core.__file__).parents[1]


def trees() -> Iterator[ast.Module]:
    return (ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py")) if path.name != "fakes.py")


def test_every_declared_reason_is_emitted_and_no_other() -> None:
    emitted = {
        node.attr
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "EventReason"
    }
    assert emitted == set(EventReason.__members__)


def test_no_event_is_made_from_a_string() -> None:
    made = [
        node
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Event"
    ]
    assert made
    for call in made:
        assert not isinstance(call.args[0], ast.Constant), f"line {call.lineno}"


def test_every_declared_reason_has_its_sentence() -> None:
    source = Path(str(beamline_contract.conditions.__file__)).read_text()
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    lines = classes["EventReason"].body[1:]
    for name, sentence in zip(lines[::2], lines[1::2], strict=True):
        assert isinstance(name, ast.Assign)
        assert isinstance(sentence, ast.Expr)
