"""What a policy's author should hear before a limit is met: too complex, or near to what is refused.

A limit is near from four fifths of it on. These are notices, never refusals: the policy is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from beamline_contract.model import MAX_CONFIG_DEPTH
from beamline_contract.projection import COMPLEXITY_WARNING
from beamline_contract.reports import Notice
from beamline_contract.wire import MAX_STEPS

from .reading import depth
from .route import CompiledPolicy

NEAR: Final = 0.8
MAX_PROVIDERS: Final = 16
MAX_FALLBACKS: Final = 8


def hints(policies: Iterable[CompiledPolicy]) -> list[Notice]:
    """The notices for all policies of a snapshot."""
    return [notice for policy in policies for notice in hints_of(policy)]


def hints_of(policy: CompiledPolicy) -> list[Notice]:
    """Complexity first, then each limit that is near, with what to do about it."""
    found = []
    if policy.complexity > COMPLEXITY_WARNING:
        message = (
            f"complexity {policy.complexity} is above {COMPLEXITY_WARNING}: group validators, "
            "shorten the fallback list, or split the policy by tenant or model"
        )
        found.append(Notice(kind="RoutingPolicy", id=policy.id, reason="Complex", message=message))
    found += [
        Notice(
            kind="RoutingPolicy",
            id=policy.id,
            reason="NearLimit",
            message=f"{what}: {count} of at most {limit}; {advice}",
        )
        for what, count, limit, advice in _measures(policy)
        if count >= NEAR * limit
    ]
    return found


def _measures(policy: CompiledPolicy) -> Iterator[tuple[str, int, int, str]]:
    route = policy.route
    steps = policy.record.policy["steps"]
    yield (
        "steps",
        len(steps),
        MAX_STEPS,
        "split the policy by tenant or model, or join steps in one extension",
    )
    nesting = max((depth(step.get("config")) for step in steps), default=0)
    yield "nesting of a step's config", nesting, MAX_CONFIG_DEPTH, "flatten it, or name a preset instead"
    provider = route.provider
    yield "providers", len(provider.candidates), MAX_PROVIDERS, "put versions of one provider under it"
    advice = "no request makes more than six provider attempts"
    yield "fallback", len(provider.fallback), MAX_FALLBACKS, advice
