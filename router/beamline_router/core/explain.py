"""Why a request would go where it goes: the same compiled code that serves it, asked instead of run.

Nothing is called and nothing is remembered. Offline, breakers and loads are not known, and the order of
providers shown is the one of a healthy day; with a router's :class:`Runtime` each call says what it knows of
it now, and whom a breaker refuses has no share. What is drawn at random per request is given as shares, what
is decided by a key is decided. The result is plain JSON types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from . import selection
from .explain_settings import origins
from .hints import hints_of
from .keys import key_of, within
from .matching import Matcher, Rule, mismatch, specificity
from .notices import notices_of
from .request import Request
from .route import Call, Canary, CompiledPolicy, ProviderStep, Step
from .score import Score
from .snapshot import Snapshot
from .state import Runtime

MAX_OTHERS = 50
"""Policies that are listed with the reason why they do not apply; their total is given too."""


def explain(request: Request, snapshot: Snapshot, runtime: Runtime | None = None) -> dict[str, Any]:
    """The chosen policy and why not the others, its steps with effective settings and where each comes from,
    its providers and how one is chosen.
    """
    route = snapshot.route_for(request)
    chosen = None if route is None else snapshot.policy(route.policy_id)
    others = [rule for rule in snapshot.matcher.rules if chosen is None or rule.policy.id != chosen.id]
    explained: dict[str, Any] = {
        "revision": snapshot.revision,
        "policy": None if chosen is None else _policy(chosen, request, snapshot.matcher),
        "others": [
            {
                "policy": rule.policy.id,
                "because": _because(rule, request),
                "remarks": _remarks(rule, snapshot.matcher),
            }
            for rule in others[:MAX_OTHERS]
        ],
        "others_total": len(others),
    }
    if route is None or chosen is None:
        return explained
    explained["deadline_ms"] = round(route.deadline_s * 1000)
    told = _Teller(request, snapshot, runtime)
    # The compiler keeps the order of the document, so the steps meet the documents they were made from.
    documents = iter(chosen.record.policy["steps"])
    before = [step for stage in route.before for step in stage]
    explained["steps"] = [
        *(told.step(step, next(documents)) for step in (*before, *route.overlap)),
        told.provider(route.provider, next(documents)),
        *(told.step(step, next(documents)) for step in route.after),
    ]
    return explained


def _policy(policy: CompiledPolicy, request: Request, matcher: Matcher) -> dict[str, Any]:
    rule = next(rule for rule in matcher.rules if rule.policy.id == policy.id)
    criteria = policy.criteria
    return {
        "id": policy.id,
        "because": "the request names it"
        if request.policy is not None
        else "of those that match it has the best rank",
        "rank": rule.rank,
        "priority": policy.priority,
        "specificity": list(specificity(criteria)),
        "percent_key": key_of(criteria.sticky_key, request) if criteria.percent < 100 else None,
        "complexity": policy.complexity,
        "hints": [notice.message for notice in hints_of(policy)],
        "remarks": _remarks(rule, matcher),
    }


def _remarks(rule: Rule, matcher: Matcher) -> list[dict[str, Any]]:
    """That a policy takes nothing, or that another always takes over, whatever the request."""
    return [
        {"reason": notice.reason, "message": notice.message, "other": notice.other_id}
        for notice in notices_of(rule, matcher)
    ]


def _because(rule: Rule, request: Request) -> str:
    if request.policy is not None:
        return "the request names another policy"
    fault = mismatch(rule, request)
    return f"match.{fault} does not hold" if fault is not None else "it matches, but ranks lower"


class _Teller:
    """Puts one request's steps into words."""

    def __init__(self, request: Request, snapshot: Snapshot, runtime: Runtime | None) -> None:
        self._request = request
        self._snapshot = snapshot
        self._runtime = runtime
        self._available = _on_a_healthy_day if runtime is None else runtime.available
        self._expected_ms = _hinted if runtime is None else runtime.expected_ms

    def step(self, step: Step, document: dict[str, Any]) -> dict[str, Any]:
        explained = {
            "step": step.name,
            "action": step.action,
            **self._call(step.call, document),
            "failure_mode": step.failure_mode,
        }
        if step.shadow:
            explained["mode"] = "shadow"
        if step.group is not None:
            explained["group"] = step.group
        if step.overlap:
            explained["overlap"] = True
        if step.fallback is not None:
            explained["fallback"] = self._call(step.fallback, {})
        return explained

    def provider(self, step: ProviderStep, document: dict[str, Any]) -> dict[str, Any]:
        explained: dict[str, Any] = {
            "step": step.name,
            "action": "select_provider",
            "strategy": step.strategy,
            "first": self._first(step),
            "providers": [
                {**self._call(call, document), "weight": call.weight, "share": share}
                for call, share in zip(step.candidates, self._shares(step), strict=True)
            ],
            "fallback": [self._call(call, {}) for call in step.fallback],
        }
        if step.strategy == "score":
            explained["score_weights"] = asdict(step.weights)
            found = {call.named: score for call, score in self._scored(step)}
            for entry, call in zip(explained["providers"], step.candidates, strict=True):
                entry["hints"] = asdict(call.hints)
                entry["score"] = _parts(found.get(call.named))
                for version, one in zip(entry.get("versions", ()), call.versions, strict=True):
                    version["hints"] = asdict(one.hints)
        if step.canary is not None:
            explained["canary"] = self._canary(step.canary, document)
        return explained

    def _first(self, step: ProviderStep) -> str | None:
        """Who is asked first where that does not depend on chance or load; None where it does."""
        if step.canary is not None and self._meets(step.canary):
            return step.canary.call.extension_id
        weighted = [call.named for call in step.candidates if call.weight > 0]
        if len(weighted) == 1 or step.strategy == "ordered":
            return weighted[0]
        if step.strategy == "score":
            return next((call.named for call, _ in self._scored(step)), None)
        able = self._able(step)
        if step.strategy == "sticky":
            return able[selection.sticky(able, key_of(step.sticky_key or "tenant", self._request))].named
        return able[0].named if len(able) == 1 else None

    def _able(self, step: ProviderStep) -> list[Call]:
        """The candidates among which the strategy chooses; of versions, one that answers is enough."""
        return selection.eligible(
            step.candidates, lambda call: any(map(self._available, self._versions(call)))
        )

    def _scored(self, step: ProviderStep) -> list[tuple[Call, Score]]:
        """The candidates by their scores; none where these depend on which version is drawn."""
        met = [self._met(call) for call in step.candidates if call.weight > 0]
        known = [call for call in met if call is not None]
        return selection.scored(known, step.weights, self._expected_ms) if len(known) == len(met) else []

    def _versions(self, call: Call) -> Sequence[Call]:
        return selection.versions_of(call, self._available) if call.versions else (call,)

    def _met(self, call: Call) -> Call | None:
        """The version that this request meets, or one that scores as they all do; None where chance decides
        and matters.
        """
        able = self._versions(call)
        if call.version_key is not None and call.versions:
            key = key_of(call.version_key, self._request)
            return selection.version(call, self._available, key=key, random=0.0)
        alike = {(one.hints, self._expected_ms(one)) for one in able}
        return able[0] if len(alike) == 1 else None

    def _shares(self, step: ProviderStep) -> Sequence[float | None]:
        """Each candidate's share of the requests, 0 to 1; None where load or order decides and not weight."""
        if step.strategy not in {"weighted", "sticky"}:
            return [None] * len(step.candidates)
        able = self._able(step)
        total = sum(call.weight for call in able)
        return [_rounded(call.weight if call in able else 0, total) for call in step.candidates]

    def _canary(self, canary: Canary, document: dict[str, Any]) -> dict[str, Any]:
        return {
            **self._call(canary.call, document),
            "percent": canary.percent,
            "key": key_of(canary.sticky_key, self._request),
            "asked": self._meets(canary),
        }

    def _meets(self, canary: Canary) -> bool:
        return within(canary.percent, canary.salt, key_of(canary.sticky_key, self._request))

    def _call(self, call: Call, document: dict[str, Any]) -> dict[str, Any]:
        if call.absent is not None:
            return {"extension_id": call.extension_id, "absent": call.absent}
        explained = self._one(call, document)
        if call.versions:
            able = self._versions(call)
            shares = [one.share if one in able else 0 for one in call.versions]
            if len(able) == 1:  # whatever its weight is
                shares = [int(one in able) for one in call.versions]
            explained["versions"] = [
                {
                    **self._one(one, document),
                    "version": one.version,
                    "weight": one.share,
                    "share": _rounded(share, sum(shares)),
                }
                for one, share in zip(call.versions, shares, strict=True)
            ]
            if call.version_key is not None:
                key = key_of(call.version_key, self._request)
                explained["version_key"] = key
                explained["version"] = selection.version(call, self._available, key=key, random=0.0).version
        return explained

    def _one(self, call: Call, document: dict[str, Any]) -> dict[str, Any]:
        extension = self._snapshot.compiled_extensions[call.extension_id]
        explained: dict[str, Any] = {
            "extension_id": call.extension_id,
            "subject": call.subject,
            "timeout_ms": round(call.timeout_s * 1000),
            "retry": call.retry,
            "retry_on_timeout": call.retry_on_timeout,
            "concurrency": min(call.concurrency, call.gate_limit or call.concurrency),
            "circuit_breaker": asdict(call.breaker),
            "config": dict(call.config),
            "from": origins(call, document, extension),
        }
        if self._runtime is not None:
            explained["live"] = self._runtime.observed(call)
        return explained


def _on_a_healthy_day(_: Call) -> bool:
    return True


def _hinted(call: Call) -> float | None:
    return call.hints.latency_ms


def _parts(score: Score | None) -> dict[str, float] | None:
    return None if score is None else {name: round(part, 4) for name, part in asdict(score).items()}


def _rounded(part: int, total: int) -> float:
    return round(part / total, 4) if total else 0.0
