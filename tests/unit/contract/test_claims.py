"""Claims and references as pure functions agree with the index that the operator keeps up to date."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from beamline_contract.objects import Extension, ObjectKey, parse_object
from beamline_contract.references import references_of, rivals
from beamline_operator.core.index import ObjectIndex


def made(name: str, namespace: str = "default", created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Any:
    document = {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "Extension",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
        "spec": {"type": "pre", **spec},
    }
    return parse_object(document)


OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
CASES = [
    pytest.param([made("a"), made("b")], {}, id="different names claim different things"),
    pytest.param(
        [made("a", created=NEW), made("a", "other", created=OLD)],
        {ObjectKey("Extension", "default", "a"): ObjectKey("Extension", "other", "a")},
        id="of two with one id the older is served",
    ),
    pytest.param(
        [made("a", subject="x.y", created=OLD), made("b", subject="x.y", created=NEW)],
        {ObjectKey("Extension", "default", "b"): ObjectKey("Extension", "default", "a")},
        id="of two with one subject the older is served",
    ),
    pytest.param(
        [made("b", "zeta"), made("b", "alpha")],
        {ObjectKey("Extension", "zeta", "b"): ObjectKey("Extension", "alpha", "b")},
        id="of two of one age the first by namespace is served",
    ),
]


@pytest.mark.parametrize(("objects", "losers"), CASES)
def test_who_loses_a_claim_is_who_the_operator_says(
    objects: list[Extension], losers: dict[ObjectKey, ObjectKey]
) -> None:
    found = rivals({stored.key: stored for stored in objects})
    assert {key: rival.key for key, rival in found.items()} == losers
    index = ObjectIndex()
    for stored in objects:
        index.update(stored.key, stored)
    assert {stored.key: index.rival(stored.key) for stored in objects} == {
        stored.key: found.get(stored.key) for stored in objects
    }


def test_an_object_that_does_not_exist_yet_is_the_youngest() -> None:
    old, new = made("a", subject="x.y", created=NEW), made("b", subject="x.y")
    new = replace(new, metadata=replace(new.metadata, created_at=""))
    assert set(rivals({old.key: old, new.key: new})) == {new.key}


def test_a_reference_knows_its_target_and_the_namesake_elsewhere() -> None:
    base, version = made("base", "other"), made("canary", versionOf="base", version="v2")
    (found,) = references_of(version, {base.key: base, version.key: version})
    assert (found.target, found.namesake, found.path) == (None, base.key, "spec.versionOf")
