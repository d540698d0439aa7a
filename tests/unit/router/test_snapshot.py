"""Compiling the registry: what is decided beforehand, and how what is broken is isolated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_contract.objects import parse_object
from beamline_contract.projection import ExtensionRecord, PolicyRecord, extension_record, policy_record
from beamline_router.core.reading import depth
from beamline_router.core.snapshot import Compilation, Snapshot, compile_snapshot
from harness.router_world import check, extension, policy, post, pre, provider, providers, request

EXTENSIONS = [extension("pre", "pre"), extension("check", "validator"), extension("main", "provider")]
POLICY = policy("only", [pre(), check(), provider()])


def compiled(
    extensions: list[ExtensionRecord], policies: list[PolicyRecord], previous: Snapshot | None = None
) -> Compilation:
    return compile_snapshot(extensions, policies, revision=7, previous=previous)


def step_call(snapshot: Snapshot, position: int = 0) -> Any:
    found = snapshot.policy("only")
    assert found is not None
    return found.route.before[position][0].call


def test_what_the_operator_writes_compiles() -> None:
    manifest = {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": "only", "namespace": "default"},
        "spec": {
            "match": {"tenants": ["acme"], "models": ["gpt-4*"], "headers": {"x-team": "red"}, "percent": 50},
            "fallback": [{"extensionRef": {"name": "main"}}],
            "steps": [
                {
                    "action": "extension_pre",
                    "extensionRef": {"name": "pre"},
                    "circuitBreaker": {"failureThreshold": 2},
                },
                {
                    "action": "select_provider",
                    "strategy": "sticky",
                    "stickyKey": "header:x-user",
                    "providers": [{"extensionRef": {"name": "main"}, "weight": 3}],
                },
            ],
        },
    }
    guard = {
        **manifest,
        "kind": "Extension",
        "metadata": {"name": "pre"},
        "spec": {"type": "pre", "concurrency": 3},
    }
    parsed, parsed_extension = parse_object(manifest), parse_object(guard)
    result = compiled(
        [extension_record(parsed_extension), extension("main", "provider")], [policy_record(parsed)]
    )  # type: ignore[arg-type]  # of these kinds
    assert result.refused == ()
    route = result.snapshot.policy("only").route  # type: ignore[union-attr]  # it is there
    assert route.before[0][0].call.concurrency == 3
    assert route.before[0][0].call.breaker.failure_threshold == 2
    assert route.provider.sticky_key == "header:x-user"
    assert [call.extension_id for call in route.provider.fallback] == ["main"]


def test_look_ups_know_enabled_extensions_only() -> None:
    snapshot = compiled([*EXTENSIONS, extension("off", "pre", enabled=False)], [POLICY]).snapshot
    assert snapshot.lookup("off") is None
    assert snapshot.lookup_by_subject("test.off") is None
    assert [found.id for found in snapshot.lookup_by_type("pre")] == ["pre"]
    assert snapshot.lookup("pre") is snapshot.lookup_by_subject("test.pre")
    assert (snapshot.extensions, snapshot.enabled_extensions, snapshot.policies, snapshot.revision) == (
        4,
        3,
        1,
        7,
    )


def test_a_steps_config_is_laid_over_the_extensions_key_by_key_at_the_top() -> None:
    extensions = [
        extension("pre", "pre", config={"a": 1, "b": {"c": 1, "d": 2}}),
        extension("main", "provider"),
    ]
    snapshot = compiled(
        extensions, [policy("only", [pre(config={"b": {"c": 9}, "e": 3}), provider()])]
    ).snapshot
    call = step_call(snapshot)
    assert call.config == {"a": 1, "b": {"c": 9}, "e": 3}
    assert orjson.loads(orjson.dumps(call.config_json)) == call.config


def test_the_step_wins_over_the_extension_and_the_extension_over_the_default() -> None:
    extensions = [
        extension("pre", "pre", timeout_ms=300, retry=2, failureMode="closed"),
        extension("main", "provider"),
    ]
    plain = step_call(compiled(extensions, [policy("only", [pre(), provider()])]).snapshot)
    stepped = step_call(
        compiled(extensions, [policy("only", [pre(timeout_ms=50, retry=0), provider()])]).snapshot
    )
    assert (plain.timeout_s, plain.retry, plain.slow_s) == (0.3, 2, pytest.approx(0.24))
    assert (stepped.timeout_s, stepped.retry) == (0.05, 0)
    found = compiled(extensions, [policy("only", [pre(), provider()])]).snapshot.policy("only")
    assert found is not None
    assert found.route.before[0][0].failure_mode == "closed"


@pytest.mark.parametrize(
    ("choices", "strategy"),
    [
        pytest.param({"main": 1, "other": 1}, "ordered", id="ordered where the weights are equal"),
        pytest.param({"main": 9, "other": 1}, "weighted", id="weighted where they differ"),
    ],
)
def test_the_default_strategy_is(choices: dict[str, int], strategy: str) -> None:
    found = compiled(EXTENSIONS, [policy("only", [providers(choices)])]).snapshot.policy("only")
    assert found is not None
    assert found.route.provider.strategy == strategy


BROKEN_EXTENSIONS = [
    pytest.param({"type": "filter"}, "spec.type", id="an unknown type"),
    pytest.param({"subject": "a.*"}, "spec.subject", id="a wildcard in the subject"),
    pytest.param({"subject": "a.b\r\nPUB x 0"}, "spec.subject", id="a line break in the subject"),
    pytest.param({"subject": "beamline.router.v1.invoke"}, "spec.subject", id="a reserved subject"),
    pytest.param({"subject": None}, "spec.subject", id="no subject"),
    pytest.param({"timeout_ms": 0}, "spec.timeoutMs", id="a timeout of zero"),
    pytest.param({"timeout_ms": "100"}, "spec.timeoutMs", id="a timeout in text"),
    pytest.param({"timeout_ms": float("nan")}, "spec.timeoutMs", id="a timeout that is not a number"),
    pytest.param({"retry": True}, "spec.retry", id="a bool for retry"),
    pytest.param({"retry": 6}, "spec.retry", id="too many retries"),
    pytest.param({"enabled": "false"}, "spec.enabled", id="enabled in text"),
    pytest.param({"config": []}, "spec.config", id="a list for config"),
    pytest.param({"config": {"a": object()}}, "spec.config", id="a config that is not JSON"),
    pytest.param({"spec": None}, "spec", id="no spec"),
    pytest.param({"concurrency": 0}, "spec.concurrency", id="no concurrency"),
    pytest.param({"failureMode": "maybe"}, "spec.failureMode", id="an unknown failure mode"),
    pytest.param({"failureMode": "fallback"}, "spec.fallbackRef", id="fallback to nobody"),
    pytest.param(
        {"circuitBreaker": {"failureThreshold": 0}},
        "spec.circuitBreaker.failureThreshold",
        id="a threshold of 0",
    ),
    pytest.param(
        {"circuitBreaker": {"recoveryTimeoutMs": 600_000}},
        "spec.circuitBreaker.maxRecoveryTimeoutMs",
        id="a cap below",
    ),
    pytest.param({"weight": -1}, "spec.weight", id="a negative weight"),
    pytest.param({"retryOnTimeout": 1}, "spec.retryOnTimeout", id="a number for a flag"),
]


@pytest.mark.parametrize(("changes", "field"), BROKEN_EXTENSIONS)
def test_an_extension_is_refused_with_its_field_for(changes: dict[str, Any], field: str) -> None:
    result = compiled([*EXTENSIONS[1:], extension("pre", "pre", **{"generation": 4, **changes})], [POLICY])
    assert [(r.kind, r.id, r.generation, r.field) for r in result.refused] == [("Extension", "pre", 4, field)]
    assert result.refused[0].reason
    assert result.snapshot.lookup("check") is not None
    assert step_call(result.snapshot).absent is not None


BROKEN_POLICIES = [
    pytest.param({"steps": None}, "spec.steps", id="no steps"),
    pytest.param({"steps": []}, "spec.steps", id="an empty list of steps"),
    pytest.param({"steps": [pre()] * 16 + [provider()]}, "spec.steps", id="seventeen steps"),
    pytest.param({"steps": [pre()]}, "spec.steps", id="no provider step"),
    pytest.param({"steps": [provider(), provider()]}, "spec.steps[1]", id="two provider steps"),
    pytest.param({"steps": ["pre"]}, "spec.steps[0]", id="a step that is text"),
    pytest.param({"steps": [{"action": "run_shell"}]}, "spec.steps[0].action", id="an unknown action"),
    pytest.param({"steps": [provider(), pre()]}, "spec.steps[1].action", id="a pre step after the provider"),
    pytest.param(
        {"steps": [post(), provider()]}, "spec.steps[0].action", id="a post step before the provider"
    ),
    pytest.param(
        {"steps": [pre(timeout_ms=-5), provider()]}, "spec.steps[0].timeoutMs", id="a negative timeout"
    ),
    pytest.param(
        {"steps": [pre("unknown", retry=9), provider()]}, "spec.steps[0].retry", id="too many retries"
    ),
    pytest.param({"steps": [pre(config=3), provider()]}, "spec.steps[0].config", id="a number for config"),
    pytest.param({"steps": [pre(mode="dark"), provider()]}, "spec.steps[0].mode", id="an unknown mode"),
    pytest.param({"steps": [pre(group="g"), provider()]}, "spec.steps[0].group", id="a group of pre steps"),
    pytest.param(
        {"steps": [pre(extension_id=None), provider()]}, "spec.steps[0].extensionRef", id="a step of nobody"
    ),
    pytest.param(
        {"steps": [pre(failure_mode="fallback"), provider()]}, "spec.steps[0].fallbackRef", id="no fallback"
    ),
    pytest.param({"steps": [provider(strategy="magic")]}, "spec.steps[0].strategy", id="an unknown strategy"),
    pytest.param(
        {"steps": [provider(sticky_key="cookie")]}, "spec.steps[0].stickyKey", id="an unknown sticky key"
    ),
    pytest.param(
        {"steps": [providers({"main": 0})]}, "spec.steps[0].providers", id="weights that are all zero"
    ),
    pytest.param({"steps": [providers({})]}, "spec.steps[0].providers", id="no candidate"),
    pytest.param({"deadline_ms": 0}, "spec.deadlineMs", id="a deadline of zero"),
    pytest.param({"priority": 1.5}, "spec.priority", id="half a priority"),
    pytest.param({"fallback": [1]}, "spec.fallback[0]", id="a number for a fallback"),
    pytest.param({"match": []}, "spec.match", id="a list for match"),
    pytest.param({"match": {"tenants": "acme"}}, "spec.match.tenants", id="text for tenants"),
    pytest.param(
        {"match": {"models": ["gpt-[45]"]}}, "spec.match.models[0]", id="a character class in a model"
    ),
    pytest.param({"match": {"headers": {"x": 1}}}, "spec.match.headers", id="a number for a header"),
    pytest.param({"match": {"percent": 101}}, "spec.match.percent", id="more than all"),
]


@pytest.mark.parametrize(("changes", "field"), BROKEN_POLICIES)
def test_a_policy_is_refused_with_its_field_for(changes: dict[str, Any], field: str) -> None:
    document = {"steps": [provider()], **changes}
    broken = PolicyRecord("broken", "default", "broken", "uid", 4, document)
    result = compiled(EXTENSIONS, [broken, POLICY])
    assert [(r.kind, r.id, r.generation, r.field) for r in result.refused] == [
        ("RoutingPolicy", "broken", 4, field)
    ]
    assert result.snapshot.policy("broken") is None
    assert result.snapshot.policy("only") is not None


def test_what_the_contract_takes_at_its_longest_the_router_takes() -> None:
    name, ref = "m" * 63, {"extensionRef": {"name": "m" * 63}}
    config: dict[str, Any] = {}
    for _ in range(15):
        config = {"a": config}
    match = {
        "tenants": ["t" * 128] * 256,
        "environments": ["e" * 63] * 32,
        "models": ["m" * 256] * 64,
        "headers": {f"h{n:02}" + "x" * 125: "v" * 256 for n in range(16)},
    }
    check_step = {"action": "extension_validator", "extensionRef": {"name": "c" * 63}, "config": config}
    select = {
        "action": "select_provider",
        "providers": [{**ref, "weight": 1000}] * 16,
        "fallback": [ref] * 8,
        "canary": {**ref, "percent": 100, "stickyKey": "header:" + "h" * 128},
    }
    policy_spec = {"match": match, "steps": [*[check_step] * 15, select], "fallback": [ref] * 8}
    extension_spec = {
        "type": "provider",
        "subject": ".".join(["s" * 63] * 4),
        "config": config,
        "weight": 1000,
    }
    main, long = (
        parse_object(
            {"apiVersion": "beamline.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        )
        for kind, spec in (("Extension", extension_spec), ("RoutingPolicy", policy_spec))
    )
    result = compiled([extension_record(main)], [policy_record(long)])  # type: ignore[arg-type]  # of these kinds
    assert result.refused == ()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
WORDS = [
    "match",
    "steps",
    "fallback",
    "priority",
    "deadline_ms",
    "action",
    "extension_id",
    "provider_id",
    "providers",
    "tenants",
]


@given(st.dictionaries(st.sampled_from(WORDS), ANYTHING), ANYTHING, ANYTHING, ANYTHING)
def test_whatever_the_registry_holds_the_others_compile(
    document: Any, spec: Any, subject: Any, key: Any
) -> None:
    broken = extension("main2", "provider", spec=spec, subject=subject, version=key, timeout_ms=key)
    odd = replace(extension("x", "pre"), id=key)
    result = compiled(
        [broken, odd, *EXTENSIONS], [PolicyRecord("any", "default", "any", "uid", 1, document), POLICY]
    )
    assert result.snapshot.lookup("main") is not None
    assert result.snapshot.policy("only") is not None


def test_the_last_good_version_keeps_serving_while_others_update() -> None:
    first = compiled(EXTENSIONS, [POLICY]).snapshot
    broken = extension("pre", "pre", generation=2, timeout_ms=-1)
    newer = extension("check", "validator", generation=2, timeout_ms=77)
    second = compiled(
        [broken, newer, EXTENSIONS[2]], [replace(POLICY, policy={"steps": 3}, generation=2)], first
    )
    assert [refused.id for refused in second.refused] == ["pre", "only"]
    assert second.snapshot.lookup("pre") is first.lookup("pre")
    assert step_call(second.snapshot, 1).timeout_s == 0.077
    assert POLICY in [one.record for one in second.snapshot.compiled_policies.values()]
    assert EXTENSIONS[0] in [one.record for one in second.snapshot.compiled_extensions.values()]
    third = compiled([broken, newer, EXTENSIONS[2]], [POLICY], second.snapshot)
    assert [refused.id for refused in third.refused] == ["pre"]


def test_what_did_not_change_keeps_its_compiled_object() -> None:
    first = compiled(EXTENSIONS, [POLICY, policy("other", [provider()])]).snapshot
    newer = extension("pre", "pre", generation=2)
    second = compiled([newer, *EXTENSIONS[1:]], [POLICY, policy("other", [provider()])], first).snapshot
    assert second.lookup("check") is first.lookup("check")
    assert second.lookup("pre") is not first.lookup("pre")
    assert second.policy("other") is first.policy("other")
    assert second.policy("only") is not first.policy("only")


def test_an_extension_that_comes_later_completes_a_policy_that_waited_for_it() -> None:
    first = compiled(EXTENSIONS[1:], [POLICY]).snapshot
    assert step_call(first).absent is not None
    assert step_call(compiled(EXTENSIONS, [POLICY], first).snapshot).absent is None


def test_of_two_extensions_on_one_subject_the_second_is_refused() -> None:
    result = compiled([*EXTENSIONS, extension("copy", "pre", subject="test.pre")], [POLICY])
    assert [(refused.id, refused.field) for refused in result.refused] == [("copy", "spec.subject")]


def test_a_named_policy_is_used_without_matching() -> None:
    snapshot = compiled(EXTENSIONS, [policy("only", [provider()], match={"tenants": ["nobody"]})]).snapshot
    assert snapshot.route_for(request()) is None
    assert snapshot.route_for(request(policy="only")) is not None
    assert snapshot.route_for(request(policy="unknown")) is None


def test_models_are_those_that_policies_name_without_wildcards() -> None:
    policies = [policy("a", [provider()], match={"models": ["gpt-4", "claude-*"]}), policy("b", [provider()])]
    assert compiled(EXTENSIONS, policies).snapshot.models("default", None, {}) == ("gpt-4",)


def test_a_complex_policy_is_noticed_with_a_hint() -> None:
    steps = [check(), check(), check(), check(), provider()]
    notices = compiled(EXTENSIONS, [policy("only", steps)]).notices
    assert [(notice.reason, notice.id) for notice in notices] == [("Complex", "only")]
    assert "group" in notices[0].message


@pytest.mark.parametrize(("value", "expected"), [(1, 0), ({}, 1), ([[]], 2), ({"a": [{"b": 1}]}, 3)])
def test_depth_counts_objects_and_lists(value: Any, expected: int) -> None:
    assert depth(value) == expected


def test_an_extension_that_denies_itself_to_a_policy_is_absent_there_and_nowhere_else() -> None:
    document = {**POLICY.policy, "denied": ["check"]}
    snapshot = compiled(EXTENSIONS, [replace(POLICY, policy=document)]).snapshot
    assert step_call(snapshot, 1).absent == "check does not let this policy use it"
    assert step_call(snapshot, 0).absent is None
    assert step_call(compiled(EXTENSIONS, [POLICY]).snapshot, 1).absent is None
