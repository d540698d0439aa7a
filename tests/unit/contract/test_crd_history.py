"""What a release has stored, every later one reads: the CRDs of the releases, kept, against the present ones.

At a release its CRDs are copied to ``released/KIND-VERSION.yaml``. Nothing there is ever edited.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from beamline_contract.crd import crd
from beamline_contract.extension import ExtensionSpec
from beamline_contract.model import Model
from beamline_contract.objects import KINDS
from beamline_contract.policy import RoutingPolicySpec

RELEASED = sorted((Path(__file__).resolve().parent / "released").glob("*.yaml"))
_UPPER = ("maximum", "maxLength", "maxItems", "maxProperties")
_LOWER = ("minimum", "minLength", "minItems")


def schemas(document: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of every served version."""
    versions = document["spec"]["versions"]
    return {one["name"]: one["schema"]["openAPIV3Schema"] for one in versions if one["served"]}


def breaks(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Every way in which something that ``old`` took may be lost or refused by ``new``."""
    if old.get("type") != new.get("type"):
        yield f"{at} was {old.get('type')} and is {new.get('type')}"
        return
    if (enum := new.get("enum")) is not None and not set(old.get("enum") or [object()]) <= set(enum):
        yield f"{at} takes fewer words"
    for bound in _UPPER:
        if bound in new and new[bound] < old.get(bound, float("inf")):
            yield f"{at} has a smaller {bound}"
    for bound in _LOWER:
        if bound in new and new[bound] > old.get(bound, 0 if bound != "minimum" else float("-inf")):
            yield f"{at} has a larger {bound}"
    if new.get("pattern") is not None and new["pattern"] != old.get("pattern"):
        yield f"{at} has another pattern"
    if "default" in old and old["default"] != new.get("default"):
        yield f"{at} has another default"
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before:
        if name not in after and not new.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{at}.{name} is gone"
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        if "default" not in after[name]:
            yield f"{at}.{name} is required now and has no default"
    for name in before.keys() & after.keys():
        yield from breaks(before[name], after[name], f"{at}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(old.get(inner), Mapping):
            yield from breaks(old[inner], new.get(inner) or {}, f"{at}[]")


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_nothing_that_a_release_stored_is_lost_or_refused(path: Path) -> None:
    old = yaml.safe_load(path.read_text())
    (kind,) = (kind for kind in KINDS if kind == old["spec"]["names"]["kind"])
    present = schemas(crd(kind))
    for version, schema in schemas(old).items():
        assert version in present, f"{version} is no longer served"
        assert list(breaks(schema, present[version])) == []


def test_every_kind_has_a_release() -> None:
    assert {path.stem.rpartition("-")[0] for path in RELEASED} == {kind.lower() for kind in KINDS}


def change(path: str, value: Any) -> Any:
    """A later schema of Extension with one thing changed; a value of None takes it away."""

    def apply(schema: dict[str, Any]) -> None:
        *way, last = path.split(".")
        node = schema
        for name in way:
            node = node[name]
        if value is None:
            del node[last]
        else:
            node[last] = value

    return apply


SPEC = "properties.spec"
CHANGES = [
    pytest.param(change(f"{SPEC}.properties.retry", None), "is gone", id="a field that is gone"),
    pytest.param(change(f"{SPEC}.properties.retry.type", "string"), "and is string", id="another type"),
    pytest.param(change(f"{SPEC}.properties.retry.maximum", 2), "smaller maximum", id="a narrower bound"),
    pytest.param(change(f"{SPEC}.properties.retry.default", 3), "another default", id="another default"),
    pytest.param(change(f"{SPEC}.required", ["type", "subject"]), "required now", id="a new required field"),
    pytest.param(change(f"{SPEC}.properties.type.enum", ["pre"]), "fewer words", id="fewer words"),
]


@pytest.mark.parametrize(("apply", "said"), CHANGES)
def test_a_change_that_breaks_what_is_stored_is_found(apply: Any, said: str) -> None:
    old = schemas(crd("Extension"))["v1alpha1"]
    new = copy.deepcopy(old)
    apply(new)
    assert any(said in fault for fault in breaks(old, new))


def test_a_new_field_with_a_default_breaks_nothing() -> None:
    old = schemas(crd("Extension"))["v1alpha1"]
    new = copy.deepcopy(old)
    new["properties"]["spec"]["properties"]["colour"] = {"type": "string", "default": "red"}
    new["properties"]["spec"]["required"] = [*new["properties"]["spec"]["required"], "colour"]
    assert list(breaks(old, new)) == []


FIRST = sorted((Path(__file__).resolve().parent / "firstform").glob("*.yaml"))
MODELS: dict[str, type[Model]] = {"Extension": ExtensionSpec, "RoutingPolicy": RoutingPolicySpec}


def added(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, bool, Any]]:
    """(path, whether it is required, schema) of every field that ``old`` did not have."""
    before = old.get("properties", {})
    for name, child in new.get("properties", {}).items():
        if name in before:
            yield from added(before[name], child, f"{at}.{name}")
        else:
            yield f"{at}.{name}", name in new.get("required", ()), child
    for inner in ("items", "additionalProperties"):
        if isinstance(old.get(inner), Mapping) and isinstance(new.get(inner), Mapping):
            yield from added(old[inner], new[inner], f"{at}[]")


def model_default(model: Any, path: str) -> Any:
    """What a reader of this version takes an absent field for."""
    *way, last = path.strip(".").replace("[]", "").split(".")
    for name in way:
        (annotation,) = (
            info.annotation for field, info in model.model_fields.items() if (info.alias or field) == name
        )
        model = next(found for found in models_in(annotation))
    (info,) = (info for field, info in model.model_fields.items() if (info.alias or field) == last)
    return info.get_default(call_default_factory=True)


def models_in(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


@pytest.mark.parametrize("path", FIRST, ids=lambda path: path.stem)
def test_every_field_that_was_added_since_the_first_form_has_a_default(path: Path) -> None:
    """In the schema, so that the API server fills it in when it reads; or to be absent is what it means."""
    old = yaml.safe_load(path.read_text())
    kind = old["spec"]["names"]["kind"]
    first, present = (schemas(form)["v1alpha1"]["properties"]["spec"] for form in (old, crd(kind)))
    found = list(added(first, present))
    assert found
    for at, required, schema in found:
        assert not required, f"{at} is required"
        if "default" not in schema:
            assert model_default(MODELS[kind], at) in (None, (), {}), f"{at} means something while absent"


@pytest.mark.parametrize("path", FIRST, ids=lambda path: path.stem)
def test_nothing_of_the_first_form_is_gone_or_of_another_type(path: Path) -> None:
    old = yaml.safe_load(path.read_text())
    faults = list(breaks(schemas(old)["v1alpha1"], schemas(crd(old["spec"]["names"]["kind"]))["v1alpha1"]))
    # A quantity was a string only; a number is taken beside it now, which has no type of its own.
    grave = [fault for fault in faults if not fault.endswith("is None")]
    assert [fault for fault in grave if "is gone" in fault or " was " in fault or "required" in fault] == []
