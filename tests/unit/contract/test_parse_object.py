"""A manifest becomes a valid object, or every one of its faults, each with the path of its field."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from beamline_contract.model import Fault, InvalidObjectError
from beamline_contract.objects import Extension, RoutingPolicy, parse_object


def manifest(spec: object, kind: str = "Extension", **document: Any) -> dict[str, Any]:
    return {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "a"},
        "spec": spec,
        **document,
    }


def faults_of(document: dict[str, Any], old: dict[str, Any] | None = None) -> list[Fault]:
    with pytest.raises(InvalidObjectError) as caught:
        parse_object(document, old=parse_object(old) if old else None)
    assert str(caught.value.faults[0]) in str(caught.value)
    return list(caught.value.faults)


PROVIDER = {"action": "select_provider", "providers": [{"extensionRef": {"name": "b"}}]}


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        (manifest({"type": "pre"}, apiVersion="beamline.io/v9"), ["apiVersion"]),
        (manifest({"type": "pre"}, kind="Extensoin"), ["kind"]),
        (manifest({"type": "pre"}, metadata=None), ["metadata"]),
        (manifest({"type": "pre"}, metadata={"name": "A b"}), ["metadata.name"]),
        (manifest({"type": "pre"}, metadata={"name": "a\n"}), ["metadata.name"]),
        (manifest(None), ["spec"]),
        (manifest({}), ["spec.type"]),
        (manifest({"type": None}), ["spec.type"]),
        (manifest({"type": "pre"}, specs={}), ["specs"]),
        (
            manifest({"type": "wrong", "timeoutMs": "5", "retry": -1}),
            ["spec.type", "spec.timeoutMs", "spec.retry"],
        ),
        (manifest({"type": "pre", "enabled": 1}), ["spec.enabled"]),
        (manifest({"type": "pre", "timeout_ms": 1}), ["spec.timeout_ms"]),
        (manifest({"type": "pre", "circuitBreaker": {"slow_call": {}}}), ["spec.circuitBreaker.slow_call"]),
        (
            manifest({"type": "pre", "circuitBreaker": {"slowCall": {"ratio": 2}}}),
            ["spec.circuitBreaker.slowCall.ratio"],
        ),
        (
            manifest(
                {
                    "type": "pre",
                    "workload": {"image": "a", "resources": {"limits": {"gpu": "1", "cpu": True}}},
                }
            ),
            ["spec.workload.resources.limits.gpu", "spec.workload.resources.limits.cpu"],
        ),
        (
            manifest({"match": {"headers": {"X": "y", "a": 1}}, "steps": [PROVIDER]}, "RoutingPolicy"),
            ["spec.match.headers", "spec.match.headers.a"],
        ),
        (
            manifest({"steps": [{**PROVIDER, "timeoutMs": 0}, {"action": "x"}]}, "RoutingPolicy"),
            ["spec.steps[0].timeoutMs", "spec.steps[1].action"],
        ),
        (
            manifest(
                {"steps": [{**PROVIDER, "mode": "shadow"}, {"action": "extension_post"}]}, "RoutingPolicy"
            ),
            ["spec.steps[0].mode", "spec.steps[1].extensionRef"],
        ),
        (
            manifest({"steps": [], "fallback": [{}]}, "RoutingPolicy"),
            ["spec.steps", "spec.fallback[0].extensionRef"],
        ),
    ],
    ids=lambda value: " and ".join(value) if isinstance(value, list) else "",
)
def test_all_faults_are_reported_at_once_with_their_paths(document: dict[str, Any], paths: list[str]) -> None:
    assert [fault.path for fault in faults_of(document)] == paths


def test_a_fault_names_the_value_that_was_refused() -> None:
    (fault,) = faults_of(manifest({"type": "pre", "timeoutMs": 0}))
    assert str(fault) == "spec.timeoutMs: input should be greater than or equal to 1, got '0'"


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ({"type": "pre"}, {"type": "post"}, "spec.type"),
        ({"type": "pre"}, {"type": "pre", "subject": "a.b"}, "spec.subject"),
        ({"type": "pre", "subject": "a.b"}, {"type": "pre"}, "spec.subject"),
    ],
    ids=["type changed", "subject added", "subject removed"],
)
def test_type_and_subject_stay_what_they_were(
    before: dict[str, Any], after: dict[str, Any], path: str
) -> None:
    assert [fault.path for fault in faults_of(manifest(after), manifest(before))] == [path]


def test_an_unchanged_object_passes_the_rules_on_changes() -> None:
    document = manifest({"type": "pre", "subject": "a.b"})
    assert isinstance(parse_object(document, old=parse_object(document)), Extension)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "pre", "timeoutMs": None, "config": None},
        {"type": "pre", "timeoutMs": 5000.0},
        MappingProxyType({"type": "pre"}),
    ],
    ids=["null is absent", "5000.0 is an integer", "any mapping will do"],
)
def test_what_the_api_server_takes_is_taken(spec: object) -> None:
    parsed = parse_object(manifest(spec))
    assert isinstance(parsed, Extension)
    assert parsed.spec.timeout_ms == 5000
    assert parsed.spec.config == {}


def test_metadata_of_an_api_object_is_read_with_the_manager_that_changed_the_spec() -> None:
    managed = [
        {"manager": "kubectl", "time": "2026-01-01T00:00:00Z"},
        {"manager": "argocd", "time": "2026-01-02T00:00:00Z"},
        {"manager": "beamline-operator", "time": "2026-01-03T00:00:00Z", "subresource": "status"},
    ]
    metadata = {
        "name": "my-policy", "namespace": "team-a", "uid": "u", "generation": 3, "resourceVersion": "9",
        "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-04T00:00:00Z",
        "finalizers": ["f"], "labels": {"a": "b"}, "annotations": {"c": "d"}, "managedFields": managed,
    }  # fmt: skip
    parsed = parse_object(manifest({"steps": [PROVIDER]}, "RoutingPolicy", metadata=metadata))
    assert isinstance(parsed, RoutingPolicy)
    assert str(parsed.key) == "RoutingPolicy team-a/my-policy"
    assert parsed.id == "my_policy"
    read = parsed.metadata
    assert (read.uid, read.generation, read.resource_version, read.deleting) == ("u", 3, "9", True)
    assert (read.finalizers, read.labels, read.annotations) == (("f",), {"a": "b"}, {"c": "d"})
    assert read.changed_by == "argocd"


def test_a_manifest_without_a_namespace_goes_to_the_default_one() -> None:
    assert parse_object(manifest({"type": "pre"}), default_namespace="lab").key.namespace == "lab"
    assert parse_object(manifest({"type": "pre"})).metadata.generation == 1


def test_the_manifest_holds_defaults_but_not_what_nobody_set() -> None:
    written = parse_object(manifest({"type": "pre", "allowedNamespaces": []})).spec.to_manifest()
    assert written["timeoutMs"] == 5000
    assert written["allowedNamespaces"] == []
    assert not {"subject", "config", "workload"} & set(written)
