"""Why a request would go where it goes: the same compiled code that serves it, asked instead of run.

Nothing is called and nothing is remembered; breakers and latencies are not looked at, so the order of
providers shown is the one of a healthy day. The result is plain JSON types.
"""

from __future__ import annotations

from typing import Any

from .keys import key_of
from .matching import Matcher, Rule, mismatch, specificity
from .request import Request
from .route import Call, CompiledPolicy, ProviderStep, Step
from .snapshot import Snapshot

MAX_OTHERS = 50
"""Policies that are listed with the reason why they do not apply; their total is given too."""


def explain(request: Request, snapshot: Snapshot) -> dict[str, Any]:
    """The chosen policy and why not the others, its steps with effective settings, its providers."""
    route = snapshot.route_for(request)
    chosen = None if route is None else snapshot.policy(route.policy_id)
    others = [rule for rule in snapshot.matcher.rules if chosen is None or rule.policy.id != chosen.id]
    explained: dict[str, Any] = {
        "revision": snapshot.revision,
        "policy": None if chosen is None else _policy(chosen, request, snapshot.matcher),
        "others": [
            {"policy": rule.policy.id, "because": _because(rule, request)} for rule in others[:MAX_OTHERS]
        ],
        "others_total": len(others),
    }
    if route is None:
        return explained
    explained["deadline_ms"] = round(route.deadline_s * 1000)
    explained["steps"] = [
        *(_step(step) for stage in route.before for step in stage),
        _provider(route.provider),
        *(_step(step) for step in route.after),
    ]
    return explained


def _policy(policy: CompiledPolicy, request: Request, matcher: Matcher) -> dict[str, Any]:
    rank = next(rule.rank for rule in matcher.rules if rule.policy.id == policy.id)
    return {
        "id": policy.id,
        "because": "the request names it"
        if request.policy is not None
        else "of those that match it has the best rank",
        "rank": rank,
        "priority": policy.priority,
        "specificity": list(specificity(policy.criteria)),
        "percent_key": key_of(policy.criteria.sticky_key, request) if policy.criteria.percent < 100 else None,
        "complexity": policy.complexity,
    }


def _because(rule: Rule, request: Request) -> str:
    if request.policy is not None:
        return "the request names another policy"
    fault = mismatch(rule, request)
    return f"match.{fault} does not hold" if fault is not None else "it matches, but ranks lower"


def _step(step: Step) -> dict[str, Any]:
    explained = {
        "step": step.name,
        "action": step.action,
        **_call(step.call),
        "failure_mode": step.failure_mode,
    }
    if step.shadow:
        explained["mode"] = "shadow"
    if step.group is not None:
        explained["group"] = step.group
    if step.fallback is not None:
        explained["fallback"] = _call(step.fallback)
    return explained


def _provider(step: ProviderStep) -> dict[str, Any]:
    return {
        "step": step.name,
        "action": "select_provider",
        "strategy": step.strategy,
        "providers": [{**_call(call), "weight": call.weight} for call in step.candidates],
        "fallback": [_call(call) for call in step.fallback],
    }


def _call(call: Call) -> dict[str, Any]:
    if call.absent is not None:
        return {"extension_id": call.extension_id, "absent": call.absent}
    return {
        "extension_id": call.extension_id,
        "subject": call.subject,
        "timeout_ms": round(call.timeout_s * 1000),
        "retry": call.retry,
        "retry_on_timeout": call.retry_on_timeout,
        "concurrency": call.concurrency,
        "config": dict(call.config),
    }
