"""Ways of requests, for who is bound to tenants: policies of others can't be named, and are not told of.

A router trusts who asks it over NATS, and explains or runs any policy by its id: so the limits are drawn
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beamline_contract.names import object_id

from .api import seen_policy
from .catalogue import View
from .identity import Identity
from .scope import Scope, tenants_of


def must_see_policies(view: View, who: Identity, request: Mapping[str, Any], *named: str | None) -> None:
    """Every policy that a request, or whoever sends it, names. Raises :class:`.problems.ProblemError`, the
    same as for one that does not exist.
    """
    if who.tenants is None:
        return
    for name in (request.get("policy"), *named):
        if name is not None:
            seen_policy(view, object_id(str(name)), who)


def as_seen(explained: Mapping[str, Any], view: View, who: Identity) -> dict[str, Any]:
    """What a router explained, without policies that ``who`` may not see."""
    if who.tenants is None:
        return dict(explained)
    scope = Scope(who.tenants)
    seen = {policy.id for policy in view.policies.values() if scope.sees([tenants_of(policy)])}

    def remarks(of: Mapping[str, Any]) -> list[Any]:
        return [one for one in of.get("remarks") or () if one.get("other") is None or one["other"] in seen]

    others = [
        {**one, "remarks": remarks(one)} for one in explained.get("others") or () if one.get("policy") in seen
    ]
    shown = {**explained, "others": others, "others_total": len(others)}
    if isinstance(policy := explained.get("policy"), Mapping):
        shown["policy"] = {**policy, "remarks": remarks(policy)}
    return shown
