"""A policy's record, checked, resolved against the extensions, and made ready to run.

A step that names an unknown or disabled extension, or one of another type, compiles: whether that matters is
decided when a request comes, by the step's failure mode or the provider's fallback. So a policy is never lost
to an extension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from beamline_contract.extension import default_failure_mode
from beamline_contract.names import TYPE_OF_ACTION, Action, ExtensionType
from beamline_contract.policy import Strategy
from beamline_contract.projection import PolicyRecord, complexity
from beamline_contract.wire import MAX_STEPS

from .compile_call import Resolver
from .compile_extension import FAILURE_MODES
from .compile_match import compile_match
from .hints import hints_of
from .reading import (
    BrokenRecordError,
    flag,
    mapping,
    number,
    one_of,
    optional_text,
    retry_budget,
    sequence,
    sticky_key,
    text,
    texts,
    whole,
)
from .route import Canary, CompiledExtension, CompiledPolicy, FailureMode, ProviderStep, Route, Step
from .score import ALIKE, Weights

ACTIONS: tuple[Action, ...] = get_args(Action)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
DEFAULT_DEADLINE_MS = 60_000
MAX_DENIED = 512
_WEIGHED = ("quality", "cost", "latency")


def compile_policy(record: PolicyRecord, table: Mapping[str, CompiledExtension]) -> CompiledPolicy:
    """Raises :class:`BrokenRecordError` with the first fault. ``table`` is every compiled extension by id."""
    policy_id = text(record.id, "metadata.name")
    whole(record.generation, "metadata.generation", 0, 2**63 - 1)
    document = mapping(record.policy, "spec")
    # Ids of extensions that did not agree to be used by this policy: absent, as far as it is concerned.
    denied = texts(document.get("denied") or (), "spec.steps", MAX_DENIED)
    resolver = Resolver(
        policy_id, table, retry_budget(document.get("retry_budget"), "spec.retryBudget"), denied
    )
    steps = [
        mapping(step, f"spec.steps[{number}]")
        for number, step in enumerate(sequence(document.get("steps"), "spec.steps", MAX_STEPS))
    ]
    default_fallback = texts(document.get("fallback") or (), "spec.fallback", 8)
    route = _route(policy_id, document, steps, default_fallback, resolver)
    compiled = CompiledPolicy(
        id=policy_id,
        name=text(record.name or policy_id, "metadata.name"),
        priority=whole(document.get("priority", 0), "spec.priority", -1_000_000, 1_000_000),
        created_at=text(record.created_at or "~", "metadata.creationTimestamp"),
        criteria=compile_match(document.get("match"), route.provider.sticky_key),
        route=route,
        complexity=complexity(document),
        needs=tuple(resolver.needs.items()),
        record=record,
    )
    return replace(compiled, hints=tuple(hints_of(compiled)))


def _route(
    policy_id: str,
    document: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    default_fallback: tuple[str, ...],
    resolver: Resolver,
) -> Route:
    before: list[list[Step]] = []
    overlap: list[Step] = []
    after: list[Step] = []
    provider: ProviderStep | None = None
    for position, document_step in enumerate(steps):
        at = f"spec.steps[{position}]"
        action = one_of(document_step.get("action"), f"{at}.action", ACTIONS)
        if action == "select_provider":
            if provider is not None:
                raise BrokenRecordError(at, "steps must hold exactly one select_provider")
            provider = _provider_step(document_step, at, default_fallback, resolver, position)
            continue
        if (action == "extension_post") != (provider is not None):
            place = "after" if action == "extension_post" else "before"
            raise BrokenRecordError(f"{at}.action", f"{action} must stand {place} select_provider")
        step = _step(document_step, action, at, resolver, position)
        if overlap and provider is None and not step.overlap:
            raise BrokenRecordError(at, "must not stand between a validator with overlap and select_provider")
        if provider is not None:
            after.append(step)
        elif step.overlap:
            overlap.append(step)
        elif step.group is not None and before and before[-1][-1].group == step.group:
            before[-1].append(step)
        else:
            before.append([step])
    if provider is None:
        raise BrokenRecordError("spec.steps", "steps must hold exactly one select_provider")
    deadline = whole(document.get("deadline_ms", DEFAULT_DEADLINE_MS), "spec.deadlineMs", 1, 600_000)
    return Route(
        policy_id, deadline / 1000, tuple(map(tuple, before)), provider, tuple(after), tuple(overlap)
    )


def _step(document: Mapping[str, Any], action: Action, at: str, resolver: Resolver, position: int) -> Step:
    wanted = TYPE_OF_ACTION[action]
    extension_id = text(document.get("extension_id"), f"{at}.extensionRef")
    group = optional_text(document.get("group"), f"{at}.group")
    if group is not None and action != "extension_validator":
        raise BrokenRecordError(f"{at}.group", "group belongs to extension_validator only")
    shadow = one_of(document.get("mode", "enforce"), f"{at}.mode", ("enforce", "shadow")) == "shadow"
    overlap = flag(document.get("overlap", False), f"{at}.overlap")
    if overlap and (action != "extension_validator" or shadow or group is not None):
        raise BrokenRecordError(
            f"{at}.overlap", "belongs to an enforced extension_validator without group only"
        )
    mode, fallback_id = _failure_mode(document, at, resolver.find(extension_id), wanted)
    return Step(
        name=optional_text(document.get("name"), f"{at}.name") or extension_id,
        action=action,
        call=resolver.call(extension_id, wanted, document, at, key=str(position), shadow=shadow),
        failure_mode=mode,
        fallback=None if fallback_id is None else resolver.call(fallback_id, wanted, {}, at),
        shadow=shadow,
        group=group,
        overlap=overlap,
    )


def _failure_mode(
    document: Mapping[str, Any], at: str, extension: CompiledExtension | None, wanted: ExtensionType
) -> tuple[FailureMode, str | None]:
    stated = document.get("failure_mode")
    if stated is None:
        if extension is None:
            return default_failure_mode(wanted), None
        return extension.failure_mode, extension.fallback_id
    mode = one_of(stated, f"{at}.failureMode", FAILURE_MODES)
    if mode != "fallback":
        return mode, None
    return mode, text(document.get("fallback_id"), f"{at}.fallbackRef")


def _provider_step(
    document: Mapping[str, Any], at: str, default_fallback: tuple[str, ...], resolver: Resolver, position: int
) -> ProviderStep:
    one_of(document.get("mode", "enforce"), f"{at}.mode", ("enforce",))
    one_of(document.get("failure_mode") or "closed", f"{at}.failureMode", ("closed",))
    choices = _choices(document, at)
    if not any(weight for _, weight in choices):
        raise BrokenRecordError(f"{at}.providers", "at least one provider must have a weight above 0")
    own_fallback = texts(document.get("fallback") or (), f"{at}.fallback", 8)
    weighted = len({weight for _, weight in choices}) > 1
    stated = document.get("strategy")
    candidates = tuple(
        resolver.call(provider_id, "provider", document, at, key=str(position), weight=weight)
        for provider_id, weight in choices
    )
    return ProviderStep(
        name=optional_text(document.get("name"), f"{at}.name") or "provider",
        candidates=candidates,
        strategy=("weighted" if weighted else "ordered")
        if stated is None
        else one_of(stated, f"{at}.strategy", STRATEGIES),
        sticky_key=sticky_key(document.get("sticky_key"), f"{at}.stickyKey"),
        fallback=tuple(
            resolver.call(provider_id, "provider", {}, at) for provider_id in own_fallback or default_fallback
        ),
        canary=_canary(document, at, resolver, position),
        versioned=any(call.versions for call in candidates),
        weights=_weights(document.get("score"), f"{at}.score"),
    )


def _weights(value: object, at: str) -> Weights:
    if value is None:
        return ALIKE
    stated = mapping(value, at)
    weights = Weights(*(number(stated.get(name, 1), f"{at}.{name}", 0, 100) for name in _WEIGHED))
    if not (weights.quality or weights.cost or weights.latency):
        raise BrokenRecordError(at, "at least one of quality, cost and latency must be above 0")
    return weights


def _canary(document: Mapping[str, Any], at: str, resolver: Resolver, position: int) -> Canary | None:
    if document.get("canary") is None:
        return None
    here = f"{at}.canary"
    stated = mapping(document["canary"], here)
    provider_id = text(stated.get("provider_id"), f"{here}.extensionRef")
    return Canary(
        call=resolver.call(provider_id, "provider", document, at, key=str(position)),
        percent=whole(stated.get("percent", 0), f"{here}.percent", 0, 100),
        sticky_key=sticky_key(stated.get("sticky_key"), f"{here}.stickyKey"),
        salt=f"{resolver.policy_id}/canary",
    )


def _choices(document: Mapping[str, Any], at: str) -> list[tuple[str, int]]:
    single = document.get("provider_id")
    if single is not None:
        return [(text(single, f"{at}.providers[0].extensionRef"), 1)]
    found: list[tuple[str, int]] = []
    for position, entry in enumerate(sequence(document.get("providers"), f"{at}.providers", 16)):
        here = f"{at}.providers[{position}]"
        choice = mapping(entry, here)
        found.append(
            (
                text(choice.get("provider_id"), f"{here}.extensionRef"),
                whole(choice.get("weight", 1), f"{here}.weight", 0, 1_000),
            )
        )
    if not found:
        raise BrokenRecordError(f"{at}.providers", "must have at least one entry")
    return found
