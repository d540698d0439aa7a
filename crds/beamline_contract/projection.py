"""How an object is written down in the registry, and the shapes that the components share there.

A RoutingPolicy is stored in the spelling of the source documents: ``steps: [{action, extension_id |
provider_id, ...}]`` and ``fallback: [ids]``. References become ids here, so a router never sees a Kubernetes
name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .extension import CircuitBreaker, ExtensionRef, default_failure_mode
from .names import object_id
from .objects import Extension, RoutingPolicy
from .policy import FallbackChoice, Step


@dataclass(frozen=True, slots=True)
class ExtensionRecord:
    """A row of ``extensions``. ``spec`` is the camelCase spec with defaults, without ``workload``.

    ``revision`` is 0 until the registry has assigned one; ``created_at`` is the object's creation time, RFC
    3339.
    """

    id: str
    type: str
    subject: str
    namespace: str
    name: str
    uid: str
    generation: int
    timeout_ms: int = 5_000
    retry: int = 1
    enabled: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None
    weight: int = 100
    spec: Mapping[str, Any] = field(default_factory=dict)
    created_at: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A row of ``routing_policies``; ``policy`` is the document that :func:`policy_document` makes."""

    id: str
    namespace: str
    name: str
    uid: str
    generation: int
    policy: Mapping[str, Any] = field(default_factory=dict)
    created_at: str = ""
    revision: int = 0


def extension_record(extension: Extension, denied: Collection[str] = ()) -> ExtensionRecord:
    """The registry row of a valid Extension. Where its fallback is among the ``denied`` ids it has none and
    fails closed; where what it is a version of is among them, it is a version of nothing, and disabled.
    """
    spec = extension.spec
    document = spec.to_manifest()
    document.pop("workload", None)
    if spec.fallback_ref is not None and object_id(spec.fallback_ref.name) in denied:
        del document["fallbackRef"]
        document["failureMode"] = "closed"
    enabled = spec.enabled
    if spec.version_of is not None and object_id(spec.version_of) in denied:
        del document["versionOf"]
        document["enabled"] = enabled = False
    return ExtensionRecord(
        id=extension.id,
        type=spec.type,
        subject=extension.subject,
        namespace=extension.metadata.namespace,
        name=extension.metadata.name,
        uid=extension.metadata.uid,
        generation=extension.metadata.generation,
        timeout_ms=spec.timeout_ms,
        retry=spec.retry,
        enabled=enabled,
        config=dict(spec.config),
        metadata=dict(spec.metadata),
        version=spec.version,
        weight=spec.weight,
        spec=document,
        created_at=extension.metadata.created_at,
    )


def policy_record(policy: RoutingPolicy, denied: Collection[str] = ()) -> PolicyRecord:
    """The registry row of a valid RoutingPolicy. ``denied``: see :func:`policy_document`."""
    return PolicyRecord(
        id=policy.id,
        namespace=policy.metadata.namespace,
        name=policy.metadata.name,
        uid=policy.metadata.uid,
        generation=policy.metadata.generation,
        policy=policy_document(policy, denied),
        created_at=policy.metadata.created_at,
    )


def policy_document(policy: RoutingPolicy, denied: Collection[str] = ()) -> dict[str, Any]:
    """The stored form of a policy: snake_case, ids instead of references, unset fields left out.

    ``denied`` are ids of Extensions that did not agree to be used by this policy, or no longer do. The
    document names them, and a router treats them as absent: the step answers NOT_FOUND.
    """
    spec = policy.spec
    document: dict[str, Any] = {
        **({"denied": sorted(set(denied))} if denied else {}),
        "match": spec.match.model_dump(mode="json"),
        "priority": spec.priority,
        "deadline_ms": spec.deadline_ms,
        "steps": [_step_document(step) for step in spec.steps],
        "fallback": _ids(spec.fallback),
    }
    if spec.retry_budget is not None:
        document["retry_budget"] = spec.retry_budget.model_dump(mode="json")
    return document


def _step_document(step: Step) -> dict[str, Any]:
    document: dict[str, Any] = {"action": step.action}
    for name in (
        "name", "config", "timeout_ms", "retry", "retry_on_timeout", "failure_mode", "group", "concurrency",
    ):  # fmt: skip
        value = getattr(step, name)
        if value is not None:
            document[name] = value
    document |= {"mode": step.mode} if step.mode != "enforce" else {}
    document |= {"overlap": True} if step.overlap else {}
    for name in ("circuit_breaker", "retry_budget", "score"):
        block = getattr(step, name)
        if block is not None:
            document[name] = block.model_dump(mode="json")
    if step.fallback_ref is not None:
        document["fallback_id"] = object_id(step.fallback_ref.name)
    if step.extension_ref is not None:
        document["extension_id"] = object_id(step.extension_ref.name)
        return document
    if len(step.providers) == 1:
        document["provider_id"] = object_id(step.providers[0].extension_ref.name)
    else:
        document["providers"] = [
            {"provider_id": object_id(choice.extension_ref.name), "weight": choice.weight}
            for choice in step.providers
        ]
    for name in ("strategy", "sticky_key"):
        if getattr(step, name) is not None:
            document[name] = getattr(step, name)
    if step.canary is not None:
        document["canary"] = {
            "provider_id": object_id(step.canary.extension_ref.name),
            **step.canary.model_dump(mode="json", include={"percent", "sticky_key"}, exclude_none=True),
        }
    document["fallback"] = _ids(step.fallback)
    return document


def _ids(choices: tuple[FallbackChoice, ...]) -> list[str]:
    return [object_id(choice.extension_ref.name) for choice in choices]


def references(policy: RoutingPolicy) -> list[tuple[str, ExtensionRef, str]]:
    """Every reference of a policy: (field path, reference, wanted extension type)."""
    found: list[tuple[str, ExtensionRef, str]] = []
    wanted = {"extension_pre": "pre", "extension_validator": "validator", "extension_post": "post"}
    for number, step in enumerate(policy.spec.steps):
        at = f"spec.steps[{number}]"
        if step.extension_ref is not None:
            found.append((f"{at}.extensionRef", step.extension_ref, wanted[step.action]))
        if step.fallback_ref is not None:
            found.append((f"{at}.fallbackRef", step.fallback_ref, wanted[step.action]))
        found.extend(
            (f"{at}.providers[{position}].extensionRef", choice.extension_ref, "provider")
            for position, choice in enumerate(step.providers)
        )
        if step.canary is not None:
            found.append((f"{at}.canary.extensionRef", step.canary.extension_ref, "provider"))
        found.extend(
            (f"{at}.fallback[{position}].extensionRef", choice.extension_ref, "provider")
            for position, choice in enumerate(step.fallback)
        )
    found.extend(
        (f"spec.fallback[{position}].extensionRef", choice.extension_ref, "provider")
        for position, choice in enumerate(policy.spec.fallback)
    )
    return found


def breaker_settings(record: ExtensionRecord) -> CircuitBreaker:
    """The breaker settings in a record's spec; defaults where the spec has none."""
    return CircuitBreaker.model_validate(record.spec.get("circuitBreaker", {}))


def effective_failure_mode(record: ExtensionRecord) -> str:
    """The failure mode in a record's spec, or the default of its type."""
    stated = record.spec.get("failureMode")
    return stated if isinstance(stated, str) else default_failure_mode(record.type)  # type: ignore[arg-type]  # checked by the CRD


def complexity(document: Mapping[str, Any]) -> int:
    """Complexity score of a policy document: steps + 2 x validators in series + 3 x fallbacks + nesting.

    Nesting counts the groups, which are the only thing that nests. Source: contract.md, "Tests and docs by
    name".
    """
    steps = document.get("steps", [])
    validators = [step for step in steps if step["action"] == "extension_validator"]
    groups = {step["group"] for step in validators if step.get("group")}
    in_series = sum(1 for step in validators if not step.get("group")) + len(groups)
    fallbacks = len(document.get("fallback", ())) + sum(
        len(step.get("fallback", ())) + ("fallback_id" in step) for step in steps
    )
    return len(steps) + 2 * in_series + 3 * fallbacks + len(groups)


COMPLEXITY_WARNING = 10
