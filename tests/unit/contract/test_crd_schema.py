"""The generated CRDs: bounded everywhere, fresh, the same each time; and every reason is explained."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamline_contract import conditions, errors
from beamline_contract.crd import crd, crd_yaml
from beamline_contract.objects import KINDS, Kind

CRDS = Path(__file__).resolve().parents[3] / "crds"
_NEEDS = {
    "string": ("maxLength", "enum", "format"),
    "array": ("maxItems",),
    "integer": ("maximum",),
    "number": ("maximum",),
}
_UNBOUNDED_BY_NATURE = {"apiVersion", "kind", "metadata"}
"""Kubernetes' own; and numbers in the status, which only the operator writes."""


def walk(node: Mapping[str, Any], at: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield at, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{at}.{name}" if at else name)
    for part in ("items", "additionalProperties"):
        if isinstance(node.get(part), Mapping):
            yield from walk(node[part], f"{at}[]")


def root(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("kind", KINDS)
def test_the_yaml_beside_the_package_is_what_the_models_generate(kind: Kind) -> None:
    assert (CRDS / f"{kind.lower()}.yaml").read_text() == crd_yaml(kind), "stale: run `make crds`"


@pytest.mark.parametrize("kind", KINDS)
def test_generation_is_deterministic_and_reads_back(kind: Kind) -> None:
    assert crd_yaml(kind) == crd_yaml(kind)
    assert yaml.safe_load(crd_yaml(kind)) == crd(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_string_list_map_and_number_has_an_upper_bound(kind: Kind) -> None:
    for at, node in walk(root(kind), ""):
        if at in _UNBOUNDED_BY_NATURE:
            continue
        if node.get("x-kubernetes-int-or-string"):
            assert {"maxLength", "pattern", "minimum"} <= set(node), at
            continue
        needs = _NEEDS.get(node["type"], ())
        if at.startswith("status.") and node["type"] in {"integer", "number"}:
            needs = ()
        assert not needs or any(bound in node for bound in needs), f"{kind} {at} has no {' or '.join(needs)}"
        if node["type"] == "object" and at:
            closed = "properties" in node or "maxProperties" in node
            assert closed, f"{kind} {at} may hold any number of entries"


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_has_a_message_and_the_top_level_fields_are_explained(kind: Kind) -> None:
    for at, node in walk(root(kind), ""):
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["message"], at
    spec = root(kind)["properties"]["spec"]
    bare = [name for name, node in spec["properties"].items() if not node.get("description")]
    assert bare == []


@pytest.mark.parametrize(
    "enumeration",
    [conditions.Reason, conditions.EventReason, errors.ErrorCode],
    ids=lambda found: found.__name__,
)
def test_every_reason_and_code_is_declared_once_with_one_sentence(enumeration: type) -> None:
    module = ast.parse(inspect.getsource(inspect.getmodule(enumeration)))  # type: ignore[arg-type]
    (body,) = (
        node.body
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == enumeration.__name__
    )
    declared = [number for number, node in enumerate(body) if isinstance(node, ast.Assign)]
    values = []
    for number in declared:
        statement, following = body[number], body[number + 1] if number + 1 < len(body) else None
        assert isinstance(statement, ast.Assign)
        assert isinstance(statement.value, ast.Constant)
        values.append(statement.value.value)
        explained = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        assert explained, f"{statement.value.value} has no sentence below it"
        assert str(following.value.value).endswith(".")  # type: ignore[union-attr]
    assert len(values) == len(set(values)) > 0
