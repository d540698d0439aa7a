"""A policy's record, checked, resolved against the extensions, and made ready to run.

A step that names an unknown or disabled extension, or one of another type, compiles: whether that matters is
decided when a request comes, by the step's failure mode or the provider's fallback. So a policy is never lost
to an extension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import orjson

from beamline_contract.extension import default_failure_mode
from beamline_contract.names import TYPE_OF_ACTION, Action, ExtensionType
from beamline_contract.policy import Strategy
from beamline_contract.projection import PolicyRecord, complexity
from beamline_contract.wire import MAX_STEPS

from .compile_extension import FAILURE_MODES
from .compile_match import compile_match
from .reading import (
    BrokenRecordError,
    breaker,
    flag,
    mapping,
    one_of,
    optional_text,
    sequence,
    serialised,
    text,
    texts,
    whole,
)
from .route import Call, CompiledExtension, CompiledPolicy, FailureMode, ProviderStep, Route, Step

ACTIONS: tuple[Action, ...] = get_args(Action)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
DEFAULT_DEADLINE_MS = 60_000
_EMPTY = orjson.Fragment(b"{}")
_ABSENT_BREAKER = breaker(None, "")


class _Resolver:
    """Looks extensions up for one policy and remembers which ones it depends on."""

    def __init__(self, policy_id: str, table: Mapping[str, CompiledExtension]) -> None:
        self.policy_id = policy_id
        self._table = table
        self.needs: dict[str, CompiledExtension | None] = {}

    def find(self, extension_id: str) -> CompiledExtension | None:
        found = self._table.get(extension_id)
        self.needs[extension_id] = found
        return found

    def call(
        self,
        extension_id: str,
        wanted: ExtensionType,
        step: Mapping[str, Any],
        at: str,
        *,
        key: str = "",
        weight: int = 1,
    ) -> Call:
        """The call of one extension with what ``step`` lays over it; an empty ``step`` lays nothing."""
        extension = self.find(extension_id)
        timeout, retry, on_timeout = _timing(step, at)
        override = step.get("config")
        over = mapping(override, f"{at}.config") if override is not None else None
        own_breaker = step.get("circuit_breaker")
        settings = breaker(own_breaker, f"{at}.circuitBreaker") if own_breaker is not None else None
        if extension is None or not extension.enabled or extension.type != wanted:
            return _nobody(extension_id, wanted, extension, weight)
        config, config_json = extension.config, extension.config_json
        if over:
            config = {**config, **over}
            config_json = serialised(config, f"{at}.config")
        timeout_s = (extension.timeout_ms if timeout is None else timeout) / 1000
        stated = extension.retry_on_timeout if on_timeout is None else on_timeout
        effective = settings or extension.breaker
        return Call(
            extension_id=extension_id,
            type=wanted,
            subject=extension.subject,
            absent=None,
            timeout_s=timeout_s,
            retry=extension.retry if retry is None else retry,
            retry_on_timeout=wanted != "provider" if stated is None else stated,
            fallback_on_timeout=stated is not False,
            config=config,
            config_json=config_json,
            breaker_key=extension_id if settings is None else f"{extension_id}@{self.policy_id}/{key}",
            breaker=effective,
            slow_s=timeout_s * effective.slow_threshold_ratio,
            concurrency=extension.concurrency,
            weight=weight,
        )


def compile_policy(record: PolicyRecord, table: Mapping[str, CompiledExtension]) -> CompiledPolicy:
    """Raises :class:`BrokenRecordError` with the first fault. ``table`` is every compiled extension by id."""
    policy_id = text(record.id, "metadata.name")
    whole(record.generation, "metadata.generation", 0, 2**63 - 1)
    document = mapping(record.policy, "spec")
    resolver = _Resolver(policy_id, table)
    steps = [
        mapping(step, f"spec.steps[{number}]")
        for number, step in enumerate(sequence(document.get("steps"), "spec.steps", MAX_STEPS))
    ]
    default_fallback = texts(document.get("fallback") or (), "spec.fallback", 8)
    route, sticky_key = _route(policy_id, document, steps, default_fallback, resolver)
    return CompiledPolicy(
        id=policy_id,
        name=text(record.name or policy_id, "metadata.name"),
        priority=whole(document.get("priority", 0), "spec.priority", -1_000_000, 1_000_000),
        created_at=text(record.created_at or "~", "metadata.creationTimestamp"),
        criteria=compile_match(document.get("match"), sticky_key),
        route=route,
        complexity=complexity(document),
        needs=tuple(resolver.needs.items()),
        record=record,
    )


def _route(
    policy_id: str,
    document: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    default_fallback: tuple[str, ...],
    resolver: _Resolver,
) -> tuple[Route, str | None]:
    before: list[list[Step]] = []
    after: list[Step] = []
    provider: ProviderStep | None = None
    sticky_key: str | None = None
    for number, document_step in enumerate(steps):
        at = f"spec.steps[{number}]"
        action = one_of(document_step.get("action"), f"{at}.action", ACTIONS)
        if action == "select_provider":
            if provider is not None:
                raise BrokenRecordError(at, "steps must hold exactly one select_provider")
            provider = _provider_step(document_step, at, default_fallback, resolver, number)
            sticky_key = document_step.get("sticky_key")
            continue
        if (action == "extension_post") != (provider is not None):
            place = "after" if action == "extension_post" else "before"
            raise BrokenRecordError(f"{at}.action", f"{action} must stand {place} select_provider")
        step = _step(document_step, action, at, resolver, number)
        if provider is not None:
            after.append(step)
        elif step.group is not None and before and before[-1][-1].group == step.group:
            before[-1].append(step)
        else:
            before.append([step])
    if provider is None:
        raise BrokenRecordError("spec.steps", "steps must hold exactly one select_provider")
    deadline = whole(document.get("deadline_ms", DEFAULT_DEADLINE_MS), "spec.deadlineMs", 1, 600_000)
    return Route(policy_id, deadline / 1000, tuple(map(tuple, before)), provider, tuple(after)), sticky_key


def _step(document: Mapping[str, Any], action: Action, at: str, resolver: _Resolver, number: int) -> Step:
    wanted = TYPE_OF_ACTION[action]
    extension_id = text(document.get("extension_id"), f"{at}.extensionRef")
    group = optional_text(document.get("group"), f"{at}.group")
    if group is not None and action != "extension_validator":
        raise BrokenRecordError(f"{at}.group", "group belongs to extension_validator only")
    mode, fallback_id = _failure_mode(document, at, resolver.find(extension_id), wanted)
    return Step(
        name=optional_text(document.get("name"), f"{at}.name") or extension_id,
        action=action,
        call=resolver.call(extension_id, wanted, document, at, key=str(number)),
        failure_mode=mode,
        fallback=None if fallback_id is None else resolver.call(fallback_id, wanted, {}, at),
        shadow=one_of(document.get("mode", "enforce"), f"{at}.mode", ("enforce", "shadow")) == "shadow",
        group=group,
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
    document: Mapping[str, Any], at: str, default_fallback: tuple[str, ...], resolver: _Resolver, number: int
) -> ProviderStep:
    one_of(document.get("mode", "enforce"), f"{at}.mode", ("enforce",))
    one_of(document.get("failure_mode") or "closed", f"{at}.failureMode", ("closed",))
    choices = _choices(document, at)
    if not any(weight for _, weight in choices):
        raise BrokenRecordError(f"{at}.providers", "at least one provider must have a weight above 0")
    own_fallback = texts(document.get("fallback") or (), f"{at}.fallback", 8)
    weighted = len({weight for _, weight in choices}) > 1
    stated = document.get("strategy")
    sticky = document.get("sticky_key")
    if (
        sticky is not None
        and sticky != "tenant"
        and not text(sticky, f"{at}.stickyKey").startswith("header:")
    ):
        raise BrokenRecordError(f"{at}.stickyKey", f"must be tenant or header:NAME, got {sticky!r}")
    return ProviderStep(
        name=optional_text(document.get("name"), f"{at}.name") or "provider",
        candidates=tuple(
            resolver.call(provider_id, "provider", document, at, key=str(number), weight=weight)
            for provider_id, weight in choices
        ),
        strategy=("weighted" if weighted else "ordered")
        if stated is None
        else one_of(stated, f"{at}.strategy", STRATEGIES),
        sticky_header=sticky[len("header:") :].lower() if sticky and sticky != "tenant" else None,
        fallback=tuple(
            resolver.call(provider_id, "provider", {}, at) for provider_id in own_fallback or default_fallback
        ),
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


def _timing(step: Mapping[str, Any], at: str) -> tuple[int | None, int | None, bool | None]:
    timeout, retry, on_timeout = step.get("timeout_ms"), step.get("retry"), step.get("retry_on_timeout")
    return (
        None if timeout is None else whole(timeout, f"{at}.timeoutMs", 1, 600_000),
        None if retry is None else whole(retry, f"{at}.retry", 0, 5),
        None if on_timeout is None else flag(on_timeout, f"{at}.retryOnTimeout"),
    )


def _nobody(extension_id: str, wanted: ExtensionType, found: CompiledExtension | None, weight: int) -> Call:
    if found is None:
        absent = f"no extension goes by the id {extension_id}"
    elif found.type != wanted:
        absent = f"{extension_id} is a {found.type}, not a {wanted}"
    else:
        absent = f"{extension_id} is disabled"
    return Call(
        extension_id=extension_id,
        type=wanted,
        subject="",
        absent=absent,
        timeout_s=0.0,
        retry=0,
        retry_on_timeout=False,
        fallback_on_timeout=True,
        config={},
        config_json=_EMPTY,
        breaker_key=extension_id,
        breaker=_ABSENT_BREAKER,
        slow_s=0.0,
        concurrency=1,
        weight=weight,
    )
