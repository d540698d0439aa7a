"""An object that this version stored is read by the next, whose new fields have defaults.

The next version is played by a copy of our CRD under a group of its own: nobody else's objects change.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from beamline_contract.crd import crd
from beamline_contract.objects import Extension, parse_object
from harness.processes import eventually

GROUP = "next.beamline.io"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = f"extensions.{GROUP}"
SPEC = {
    "type": "provider",
    "version": "v2",
    "versionOf": "chat",
    "canary": {"steps": [{"weight": 5}]},
    "workload": {"image": "x:1", "rollback": "auto"},
}


def today() -> dict[str, Any]:
    definition = copy.deepcopy(crd("Extension"))
    definition["metadata"]["name"] = NAME
    definition["spec"]["group"] = GROUP
    del definition["spec"]["names"]["shortNames"], definition["spec"]["names"]["categories"]
    return definition


def tomorrow(old: dict[str, Any]) -> dict[str, Any]:
    """The definition with a second version, which is stored from now on and has one more field."""
    new = copy.deepcopy(old)
    newer = copy.deepcopy(new["spec"]["versions"][0])
    newer["name"] = "v1beta1"
    newer["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["colour"] = {
        "type": "string",
        "maxLength": 16,
        "default": "red",
    }
    new["spec"]["versions"][0]["storage"] = False
    new["spec"]["versions"].append(newer)
    return new


def serves(rest: Any, version: str) -> None:
    """Waits until the API server serves a version; before that its answers are no JSON."""

    def there() -> bool:
        groups = rest.request("GET", "/apis").body["groups"]
        listed = [one["version"] for group in groups if group["name"] == GROUP for one in group["versions"]]
        return version in listed and established()

    def established() -> bool:
        conditions = rest.request("GET", f"{DEFINITIONS}/{NAME}").body["status"].get("conditions") or []
        return any((one["type"], one["status"]) == ("Established", "True") for one in conditions)

    eventually(there, f"{GROUP}/{version}")


@pytest.fixture
def definition(rest: Any) -> Iterator[dict[str, Any]]:
    made = rest.request("POST", DEFINITIONS, today())
    assert made.accepted, made.message
    yield made.body
    rest.request("DELETE", f"{DEFINITIONS}/{NAME}")


def test_what_this_version_stores_the_next_one_reads(
    rest: Any, namespace: str, definition: dict[str, Any]
) -> None:
    def path(version: str) -> str:
        return f"/apis/{GROUP}/{version}/namespaces/{namespace}/extensions"

    document = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "Extension",
        "metadata": {"name": "chat-v2"},
        "spec": SPEC,
    }
    serves(rest, "v1alpha1")
    assert rest.request("POST", path("v1alpha1"), document).accepted
    stored = rest.request("GET", f"{path('v1alpha1')}/chat-v2").body
    current = rest.request("GET", f"{DEFINITIONS}/{NAME}").body
    changed = rest.request("PUT", f"{DEFINITIONS}/{NAME}", tomorrow(current))
    assert changed.accepted, changed.message
    serves(rest, "v1beta1")
    touched = {"metadata": {"annotations": {"example.com/note": "the next operator writes"}}}
    merge = "application/merge-patch+json"
    assert rest.request("PATCH", f"{path('v1beta1')}/chat-v2", touched, merge).accepted

    def as_the_next_version() -> Any:
        return rest.request("GET", f"{path('v1beta1')}/chat-v2").body["spec"]

    wanted = {**stored["spec"], "colour": "red"}
    eventually(lambda: as_the_next_version() == wanted, "the object with the new field's default")
    again = rest.request("GET", f"{path('v1alpha1')}/chat-v2").body
    assert again["spec"] == stored["spec"]
    read = parse_object({**again, "apiVersion": "beamline.io/v1alpha1"})
    assert isinstance(read, Extension)
    assert read.spec.to_manifest() == stored["spec"]
