"""Whether what was applied still stands, read off the API server's books."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_sdk.deployment.ownership import is_ours, shortened, stands, taken_over

MANIFEST: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "guard", "namespace": "ns", "labels": {"a": "1"}},
    "spec": {
        "selector": {"app": "guard"},
        "ports": [{"name": "metrics", "port": 9090}],
        "finalizers": ["x"],
        "args": ["--one"],
    },
}
PORT = {'k:{"port":9090,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}}}
SPEC: dict[str, Any] = {
    "f:selector": {},
    "f:ports": PORT,
    "f:finalizers": {'v:"x"': {}},
    "f:args": {},
}


def live(
    spec: dict[str, Any], *, manager: str = "us", operation: str = "Apply", **entry: Any
) -> dict[str, Any]:
    fields = {"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": spec}
    managed = {"manager": manager, "operation": operation, "fieldsV1": fields, **entry}
    return {"metadata": {"managedFields": [managed], "resourceVersion": "7"}, "spec": {"big": "x" * 1000}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(live(SPEC), True, id="every field is ours"),
        pytest.param(live({**SPEC, "f:more": {}}), True, id="we hold more than that"),
        pytest.param(live({k: v for k, v in SPEC.items() if k != "f:selector"}), False, id="one was taken"),
        pytest.param(live({**SPEC, "f:ports": {}}), True, id="a list that is owned as a whole"),
        pytest.param(
            live({**SPEC, "f:ports": {'k:{"port":1}': {"f:name": {}, "f:port": {}}}}), False,
            id="another item of a list",
        ),
        pytest.param(
            live({**SPEC, "f:ports": {'k:{"port":9090}': {".": {}, "f:port": {}}}}), False,
            id="a field of an item was taken",
        ),
        pytest.param(live({**SPEC, "f:finalizers": {'v:"y"': {}}}), False, id="a value of a set was taken"),
        pytest.param(live(SPEC, manager="them"), False, id="the entry of somebody else"),
        pytest.param(live(SPEC, operation="Update"), False, id="an update under our name"),
        pytest.param(live(SPEC, subresource="scale"), False, id="an entry of a subresource"),
    ],
)  # fmt: skip
def test_what_was_applied_stands_while_the_books_cover_it(document: dict[str, Any], expected: bool) -> None:
    assert stands(MANIFEST, document, "us") is expected
    assert stands(MANIFEST, shortened(document, "us"), "us") is expected


def test_little_is_kept_of_an_object_that_is_only_watched() -> None:
    assert "spec" not in shortened(live(SPEC), "us")


def owner(kind: str, uid: str, group: str = "beamline.io") -> dict[str, Any]:
    return {"ownerReferences": [{"apiVersion": f"{group}/v1", "kind": kind, "name": "x", "uid": uid}]}


APPLIED = {"managedFields": live(SPEC)["metadata"]["managedFields"]}
LABELLED = {"labels": {"app.kubernetes.io/managed-by": "beamline", "app.kubernetes.io/part-of": "beamline"}}


@pytest.mark.parametrize(
    ("metadata", "ours"),
    [
        pytest.param(owner("Extension", "u1"), True, id="our owner"),
        pytest.param(owner("Extension", "u2"), False, id="an earlier one"),
        pytest.param(owner("ReplicaSet", "u1"), False, id="another kind"),
        pytest.param(owner("Extension", "u1", "acme.example"), False, id="a kind of another group"),
        pytest.param(APPLIED, True, id="released"),
        pytest.param({**APPLIED, **owner("Rollout", "u9", "acme")}, False, id="taken over by somebody else"),
        pytest.param(LABELLED, False, id="a copy with our labels"),
        pytest.param({}, False, id="of nobody"),
    ],
)
def test_whose_it_is(metadata: dict[str, Any], ours: bool) -> None:
    document = {"metadata": metadata}
    assert is_ours(document, "u1", "us") is ours
    assert is_ours(shortened({"metadata": {**metadata, "resourceVersion": "1"}}, "us"), "u1", "us") is ours


def entry(manager: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": spec}, **more}


def books(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"managedFields": list(entries)}}


def test_taking_over_leaves_subresources_and_everything_else_is_ours() -> None:
    own = entry("us", {"f:a": {"f:x": {}}}, operation="Apply")
    hand = entry("kubectl-edit", {"f:a": {"f:y": {}}, "f:b": {}})
    scale = entry("autoscaler", {"f:replicas": {}}, subresource="scale")
    found = taken_over(books(own, hand, scale), "us")
    assert found is not None
    assert [one["manager"] for one in found] == ["us", "autoscaler"]
    assert found[0]["fieldsV1"] == {"f:spec": {"f:a": {"f:x": {}, "f:y": {}}, "f:b": {}}}
    assert own["fieldsV1"] == {"f:spec": {"f:a": {"f:x": {}}}}, "the object itself is left as it was"


def test_there_is_nothing_to_take_over_where_nobody_else_wrote() -> None:
    own = entry("us", {}, operation="Apply")
    assert taken_over(books(own, entry("controller", {}, subresource="status")), "us") is None
    assert taken_over(books(entry("somebody", {})), "us") is None
