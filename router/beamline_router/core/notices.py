"""What authors of policies may not expect: rules that never apply, and rules that another always takes over.

Found when a snapshot is compiled, once for each policy, and reported so that the operator can put it into
status. ``MatchesNothing``: no request at all. ``Overridden``: every request that the rule matches is taken by
one other rule of a better rank, which is named with the reason of its rank. Both are certain where they are
said; a rule that several others take over together, each a part, is not noticed.
"""

from __future__ import annotations

from collections.abc import Iterator

from beamline_contract.reports import Notice

from .matching import WILDCARDS, Matcher, Rule, head, model_matches, specificity


def notices(matcher: Matcher) -> list[Notice]:
    """What policies' authors may not expect: one that takes nothing, one that another always takes over."""
    return [notice for rule in matcher.rules for notice in notices_of(rule, matcher)]


def notices_of(rule: Rule, matcher: Matcher) -> Iterator[Notice]:
    """Those of one policy."""
    policy_id = rule.policy.id
    if reason := _never(rule):
        yield Notice(kind="RoutingPolicy", id=policy_id, reason="MatchesNothing", message=reason)
        return
    rival = next((other for other in matcher.rivals(rule) if _takes_all_of(other, rule)), None)
    if rival is not None:
        why = _why(rival, rule)
        message = f"every request that it matches is taken by {rival.policy.id}, which is {why}"
        yield Notice(
            kind="RoutingPolicy", id=policy_id, reason="Overridden", message=message, other_id=rival.policy.id
        )


def _never(rule: Rule) -> str | None:
    if rule.percent == 0:
        return "match.percent is 0: the policy takes no request"
    for name, _ in rule.headers:
        if name != name.lower():
            return f"match.headers.{name} can never match: header names are compared in lower case"
    return None


def _takes_all_of(winner: Rule, loser: Rule) -> bool:
    if winner.percent < 100:
        return False
    if winner.tenants and not (loser.tenants and loser.tenants <= winner.tenants):
        return False
    if winner.environments and not (loser.environments and loser.environments <= winner.environments):
        return False
    if not set(winner.headers) <= set(loser.headers):
        return False
    if winner.any_model:
        return True
    patterns = set(winner.policy.criteria.models)
    loser_models = loser.policy.criteria.models
    return bool(loser_models) and all(
        pattern in patterns
        or head(pattern).startswith(winner.model_prefixes)
        or (not WILDCARDS.search(pattern) and model_matches(winner, pattern))
        for pattern in loser_models
    )


def _why(winner: Rule, loser: Rule) -> str:
    if winner.policy.priority != loser.policy.priority:
        return "of a higher priority"
    if specificity(winner.policy.criteria) != specificity(loser.policy.criteria):
        return "more specific"
    if winner.policy.created_at != loser.policy.created_at:
        return "older"
    return "first by name"
