"""What authors of policies may not expect: rules that never apply, and rules that another always takes over.

Found when a snapshot is compiled, once for each policy, and reported so that the operator can put it into
status. ``MatchesNothing``: no request at all. ``Overridden``: every request that the rule matches is taken by
one other rule of a better rank, the first of them, which is named with the reason of its rank. Both are
certain where they are said; a rule that several others take over together, each a part, is not noticed.
"""

from __future__ import annotations

from collections.abc import Iterator

from beamline_contract.reports import Notice

from .api_keys import KEY_HEADERS
from .matching import Matcher, Rule, head, specificity


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
    for name, value in rule.headers:
        at = f"match.headers.{name} can never match"
        if name != name.lower():
            return f"{at}: header names are compared in lower case"
        if name in KEY_HEADERS:
            return f"{at}: what may hold a key is taken out at the door; match.tenants knows whose it is"
        if value != value.lstrip():
            return f"{at}: spaces before a header's value are no part of it"
    return None


def _takes_all_of(winner: Rule, loser: Rule) -> bool:
    if winner.tenants and not (loser.tenants and loser.tenants <= winner.tenants):
        return False
    if winner.environments and not (loser.environments and loser.environments <= winner.environments):
        return False
    if not set(winner.headers) <= set(loser.headers):
        return False
    if winner.any_model:
        return True
    patterns = frozenset(winner.policy.criteria.models)
    loser_models = loser.policy.criteria.models
    return bool(loser_models) and all(
        model in patterns
        or head(model).startswith(winner.model_prefixes)
        or any(_covers(pattern, model) for pattern in patterns)
        for model in loser_models
    )


def _covers(pattern: str, narrower: str) -> bool:
    """Whether ``pattern`` takes whatever the model or pattern ``narrower`` takes, where that shows character
    by character: a ``*`` stands for any part of it, wildcards too, a ``?`` for all but a ``*``.
    """
    at = begun = here = 0
    star = -1
    while here < len(narrower):
        wanted = pattern[at : at + 1]
        if wanted == "*":
            star, begun = at, here
            at += 1
        elif wanted == narrower[here] or (wanted == "?" and narrower[here] != "*"):
            at, here = at + 1, here + 1
        elif star >= 0:
            begun += 1
            at, here = star + 1, begun
        else:
            return False
    return not pattern[at:].strip("*")


def _why(winner: Rule, loser: Rule) -> str:
    if winner.policy.priority != loser.policy.priority:
        return "of a higher priority"
    if specificity(winner.policy.criteria) != specificity(loser.policy.criteria):
        return "more specific"
    if winner.policy.created_at != loser.policy.created_at:
        return "older"
    return "first by name"
