"""What a release has stored, every later one reads: the CRDs of the releases, kept, against the present ones.

At a release its CRDs are copied to ``released/KIND-VERSION.yaml``. Nothing there is ever edited.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamline_contract.crd import crd
from beamline_contract.objects import KINDS

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
