"""What is stored in the registry: the spelling of the source documents, with ids for references."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_contract.objects import Extension, RoutingPolicy, parse_object
from beamline_contract.projection import (
    COMPLEXITY_WARNING,
    breaker_settings,
    complexity,
    effective_failure_mode,
    extension_record,
    policy_document,
    policy_record,
    references,
)

METADATA = {"name": "my-object", "namespace": "team-a", "uid": "u1", "generation": 4,
            "creationTimestamp": "2026-01-01T00:00:00Z"}  # fmt: skip


def extension(**spec: Any) -> Extension:
    parsed = parse_object(
        {"apiVersion": "beamline.io/v1alpha1", "kind": "Extension", "metadata": METADATA, "spec": spec}
    )
    assert isinstance(parsed, Extension)
    return parsed


def policy(*steps: dict[str, Any], **spec: Any) -> RoutingPolicy:
    document = {"apiVersion": "beamline.io/v1alpha1", "kind": "RoutingPolicy", "metadata": METADATA}
    parsed = parse_object({**document, "spec": {"steps": list(steps), **spec}})
    assert isinstance(parsed, RoutingPolicy)
    return parsed


def provider(*names: str, **fields: Any) -> dict[str, Any]:
    return {
        "action": "select_provider",
        "providers": [{"extensionRef": {"name": name}} for name in names],
        **fields,
    }


def step(kind: str, extension: str = "my-step", /, **fields: Any) -> dict[str, Any]:
    return {"action": f"extension_{kind}", "extensionRef": {"name": extension}, **fields}


def test_an_extension_becomes_a_row_without_its_workload() -> None:
    record = extension_record(
        extension(type="provider", timeoutMs=9, retry=0, config={"a": 1}, metadata={"b": 2}, version="v2",
                  weight=3, enabled=False, workload={"image": "x"})
    )  # fmt: skip
    assert (record.id, record.subject, record.type) == (
        "my_object",
        "beamline.provider.my_object.v2",
        "provider",
    )
    assert (record.namespace, record.name, record.uid, record.generation) == ("team-a", "my-object", "u1", 4)
    assert (record.timeout_ms, record.retry, record.enabled, record.version, record.weight) == (
        9,
        0,
        False,
        "v2",
        3,
    )
    assert (record.config, record.metadata) == ({"a": 1}, {"b": 2})
    assert record.created_at == "2026-01-01T00:00:00Z"
    assert "workload" not in record.spec
    assert record.spec["timeoutMs"] == 9


def test_breaker_and_failure_mode_are_read_back_from_a_row() -> None:
    record = extension_record(extension(type="validator", circuitBreaker={"failureThreshold": 2}))
    assert breaker_settings(record).failure_threshold == 2
    assert breaker_settings(record).slow_call.min_calls == 10
    assert effective_failure_mode(record) == "closed"
    assert effective_failure_mode(extension_record(extension(type="validator", failureMode="open"))) == "open"
    assert effective_failure_mode(extension_record(extension(type="pre"))) == "open"


def test_a_policy_is_stored_in_the_spelling_of_the_sources() -> None:
    document = policy_document(
        policy(
            step("pre", "normalize-text", config={"x": 1}, timeoutMs=5, retry=0, retryOnTimeout=True,
                 failureMode="fallback", fallbackRef={"name": "other-one"}),
            step("validator", "pii-guard", group="checks", mode="shadow", name="guard"),
            provider("openai-gpt4", fallback=[{"extensionRef": {"name": "mock-provider"}}]),
            match={"tenants": ["acme"]}, priority=3, deadlineMs=7,
            fallback=[{"extensionRef": {"name": "last-one"}}],
        )
    )  # fmt: skip
    assert document == {
        "match": {"tenants": ["acme"], "environments": [], "models": [], "headers": {}, "percent": 100},
        "priority": 3,
        "deadline_ms": 7,
        "steps": [
            {"action": "extension_pre", "extension_id": "normalize_text", "config": {"x": 1}, "timeout_ms": 5,
             "retry": 0, "retry_on_timeout": True, "failure_mode": "fallback", "fallback_id": "other_one"},
            {"action": "extension_validator", "extension_id": "pii_guard", "group": "checks",
             "mode": "shadow", "name": "guard"},
            {"action": "select_provider", "provider_id": "openai_gpt4", "fallback": ["mock_provider"]},
        ],
        "fallback": ["last_one"],
    }  # fmt: skip


def test_several_candidates_are_stored_with_their_weights() -> None:
    choice = provider(
        "a-1", "b-2", strategy="sticky", stickyKey="tenant", circuitBreaker={"failureThreshold": 9}
    )
    (stored,) = policy_record(policy(choice)).policy["steps"]
    assert stored["providers"] == [{"provider_id": "a_1", "weight": 1}, {"provider_id": "b_2", "weight": 1}]
    assert (stored["strategy"], stored["sticky_key"], stored["fallback"]) == ("sticky", "tenant", [])
    assert stored["circuit_breaker"]["failure_threshold"] == 9
    assert "provider_id" not in stored


def test_every_reference_comes_with_its_path_and_the_type_it_needs() -> None:
    found = references(
        policy(
            step("pre", "a", failureMode="fallback", fallbackRef={"name": "b"}),
            step("validator", "c"),
            provider("d", fallback=[{"extensionRef": {"name": "e", "namespace": "shared"}}]),
            step("post", "f"),
            fallback=[{"extensionRef": {"name": "g"}}],
        )
    )
    assert [(path, ref.name, wanted) for path, ref, wanted in found] == [
        ("spec.steps[0].extensionRef", "a", "pre"),
        ("spec.steps[0].fallbackRef", "b", "pre"),
        ("spec.steps[1].extensionRef", "c", "validator"),
        ("spec.steps[2].providers[0].extensionRef", "d", "provider"),
        ("spec.steps[2].fallback[0].extensionRef", "e", "provider"),
        ("spec.steps[3].extensionRef", "f", "post"),
        ("spec.fallback[0].extensionRef", "g", "provider"),
    ]
    assert [ref.namespace for _, ref, _ in found if ref.namespace] == ["shared"]


@pytest.mark.parametrize(
    ("built", "score"),
    [
        (policy(provider("a")), 1),
        (policy(step("pre"), step("validator"), provider("a"), step("post")), 4 + 2),
        (policy(step("validator"), step("validator"), provider("a")), 3 + 4),
        (policy(step("validator", group="g"), step("validator", group="g"), provider("a")), 3 + 2 + 1),
        (
            policy(
                provider("a", fallback=[{"extensionRef": {"name": "b"}}]),
                fallback=[{"extensionRef": {"name": "c"}}],
            ),
            7,
        ),
        (policy(step("pre", failureMode="fallback", fallbackRef={"name": "b"}), provider("a")), 2 + 3),
    ],
    ids=[
        "provider alone",
        "one of each",
        "validators in series",
        "validators in a group",
        "fallbacks",
        "step fallback",
    ],
)
def test_complexity_counts_steps_validators_in_series_fallbacks_and_groups(
    built: RoutingPolicy, score: int
) -> None:
    assert complexity(policy_document(built)) == score
    assert score <= COMPLEXITY_WARNING


def test_what_newer_fields_state_is_stored_and_what_they_leave_out_is_not() -> None:
    stored = policy_document(
        policy(
            step("validator", "pii-guard", overlap=True, concurrency=9, retryBudget={"threshold": 2}),
            provider("a-1", canary={"extensionRef": {"name": "b-2"}, "percent": 5, "stickyKey": "tenant"}),
            retryBudget={"tokens": 20},
        )
    )
    assert stored["retry_budget"] == {"tokens": 20, "refill": 0.1, "threshold": 5}
    guard, chosen = stored["steps"]
    assert (guard["overlap"], guard["concurrency"]) == (True, 9)
    assert guard["retry_budget"] == {"tokens": 10, "refill": 0.1, "threshold": 2}
    assert chosen["canary"] == {"provider_id": "b_2", "percent": 5, "sticky_key": "tenant"}
    plain = policy_document(policy(step("validator"), provider("a-1")))
    assert "retry_budget" not in plain
    newer = {"overlap", "concurrency", "canary", "retry_budget"}
    assert not newer & {name for one in plain["steps"] for name in one}


def test_an_extensions_retry_budget_is_stored_where_it_states_one() -> None:
    stated = extension_record(extension(type="provider", retryBudget={"tokens": 3, "threshold": 1}))
    assert stated.spec["retryBudget"] == {"tokens": 3, "refill": 0.1, "threshold": 1}
    assert "retryBudget" not in extension_record(extension(type="provider")).spec


def test_a_canary_is_a_reference_to_a_provider() -> None:
    found = references(policy(provider("a-1", canary={"extensionRef": {"name": "b-2"}})))
    assert ("spec.steps[0].canary.extensionRef", "b-2", "provider") in [
        (path, ref.name, wanted) for path, ref, wanted in found
    ]


def test_a_version_says_in_its_row_whose_version_it_is() -> None:
    record = extension_record(extension(type="pre", version="v2", versionOf="my-base", stickyKey="tenant"))
    assert (record.spec["versionOf"], record.spec["stickyKey"]) == ("my-base", "tenant")
    assert record.subject == "beamline.ext.pre.my_object.v2"
