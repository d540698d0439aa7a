"""Whether what was applied still stands, read off the API server's books."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_sdk.deployment.ownership import is_ours, shortened, stands

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


@pytest.mark.parametrize(
    ("metadata", "ours"),
    [
        pytest.param({"ownerReferences": [{"kind": "Extension", "uid": "u1"}]}, True, id="our owner"),
        pytest.param({"ownerReferences": [{"kind": "Extension", "uid": "u2"}]}, False, id="an earlier one"),
        pytest.param({"ownerReferences": [{"kind": "ReplicaSet", "uid": "u1"}]}, False, id="another kind"),
        pytest.param({"labels": {"app.kubernetes.io/managed-by": "beamline"}}, True, id="released"),
        pytest.param({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, False, id="of another tool"),
        pytest.param({}, False, id="of nobody"),
    ],
)
def test_whose_it_is(metadata: dict[str, Any], ours: bool) -> None:
    assert is_ours({"metadata": metadata}, "u1") is ours
