"""The matcher beside a plain model, written from the documented rules alone (docs/routing-strategy.md, "Which
policy"): the same winner for every request, and a notice exactly where a policy can never take one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from beamline_router.core.explain import explain
from beamline_router.core.keys import within
from beamline_router.core.request import Request
from beamline_router.core.snapshot import Compilation, compile_snapshot
from harness.router_world import extension, policy, provider, request

TENANTS = ("ann", "bob")
ENVIRONMENTS = ("dev", "prod")
HEADERS = ("x-app", "x-team")
# A letter that no policy names: only a wildcard takes it.
MODELS = tuple("".join(word) for length in range(1, 5) for word in product("abz", repeat=length))
REQUESTS = tuple(
    (tenant, environment, {name: value for name, value in zip(HEADERS, values, strict=True) if value})
    for tenant in (*TENANTS, "somebody")
    for environment in (*ENVIRONMENTS, None)
    for values in product(("1", "2", None), repeat=2)
)


@dataclass(frozen=True)
class Stated:
    """A policy as its author wrote it."""

    id: str
    priority: int
    created: str
    sticky: str | None
    match: dict[str, Any] = field(hash=False)


@cache
def takes(pattern: str, model: str) -> bool:
    if not pattern or not model:
        return not pattern.strip("*") and not model
    if pattern[0] == "*":
        return takes(pattern[1:], model) or takes(pattern, model[1:])
    return pattern[0] in {"?", model[0]} and takes(pattern[1:], model[1:])


def takes_caller(
    match: dict[str, Any], tenant: str, environment: str | None, headers: dict[str, str]
) -> bool:
    return (
        tenant in match.get("tenants", [tenant])
        and environment in match.get("environments", [environment])
        and all(headers.get(name) == value for name, value in match.get("headers", {}).items())
    )


def takes_model(match: dict[str, Any], model: str | None) -> bool:
    patterns = match.get("models")
    return patterns is None or (model is not None and any(takes(pattern, model) for pattern in patterns))


def takes_request(one: Stated, asked: Request) -> bool:
    match = one.match
    if not takes_caller(match, asked.tenant_id, asked.environment, dict(asked.headers)):
        return False
    key = {"tenant": asked.tenant_id, "header:x-app": asked.headers.get("x-app", asked.tenant_id)}
    return takes_model(match, asked.model) and within(
        match.get("percent", 100), one.id, asked.request_id if one.sticky is None else key[one.sticky]
    )


def rank(one: Stated) -> tuple[Any, ...]:
    match = one.match
    models = match.get("models", [])
    globs = [len(name.replace("*", "").replace("?", "")) for name in models if {"*", "?"} & set(name)]
    return (
        -one.priority,
        not match.get("tenants"),
        not models,
        bool(globs),
        -min(globs, default=0),
        -len(match.get("headers", {})),
        not match.get("environments"),
        match.get("percent", 100) == 100,
        datetime.fromisoformat(one.created),
        one.id,
    )


def some(*values: str, most: int = 2) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)


matches = st.fixed_dictionaries(
    {},
    optional={
        "tenants": some(*TENANTS),
        "environments": some(*ENVIRONMENTS),
        "models": some("a", "ab", "a*", "ab*", "*b", "*b*", "*a*b", "a?", "*", most=3),
        "headers": st.dictionaries(st.sampled_from(HEADERS), st.sampled_from("12"), max_size=2),
        "percent": st.sampled_from([0, 30, 100, 100, 100]),
    },
)
stated = st.builds(
    Stated,
    st.uuids().map(lambda found: f"p{found.hex}"),
    st.sampled_from([0, 0, 1]),
    st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.500000Z", "2025-12-31T23:59:59Z"]),
    st.sampled_from([None, "tenant", "header:x-app"]),
    matches,
)
asking = st.builds(
    request,
    tenant_id=st.sampled_from((*TENANTS, "somebody")),
    environment=st.sampled_from((*ENVIRONMENTS, None)),
    model=st.sampled_from([None, "a", "b", "ab", "az", "abz", "zab", "zz"]),
    headers=st.dictionaries(st.sampled_from(HEADERS), st.sampled_from("12")),
    request_id=st.uuids().map(str),
)


def compiled(policies: list[Stated]) -> Compilation:
    records = [
        policy(
            one.id,
            [provider() if one.sticky is None else provider(sticky_key=one.sticky)],
            match=one.match,
            priority=one.priority,
            created_at=one.created,
        )
        for one in policies
    ]
    result = compile_snapshot([extension("main", "provider")], records, revision=1, previous=None)
    assert result.refused == ()
    return result


@given(st.lists(stated, max_size=8), st.lists(asking, min_size=1, max_size=12))
def test_every_request_goes_where_the_model_says(policies: list[Stated], requests: list[Request]) -> None:
    snapshot = compiled(policies).snapshot
    for asked in requests:
        able = [one for one in sorted(policies, key=rank) if takes_request(one, asked)]
        route = snapshot.route_for(asked)
        assert (None if route is None else route.policy_id) == (able[0].id if able else None)
        others = {one["policy"]: one["because"] for one in explain(asked, snapshot)["others"]}
        lower = {name for name, because in others.items() if because == "it matches, but ranks lower"}
        assert lower == {one.id for one in able[1:]}


@given(st.lists(stated, max_size=8))
def test_a_notice_stands_exactly_where_a_policy_can_never_take_a_request(policies: list[Stated]) -> None:
    said = {
        notice.id: (notice.reason, notice.other_id)
        for notice in compiled(policies).notices
        if notice.reason in {"MatchesNothing", "Overridden"}
    }
    better: list[tuple[Stated, set[int], set[int]]] = []
    expected = {}
    for one in sorted(policies, key=rank):
        percent = one.match.get("percent", 100)
        callers = {at for at, caller in enumerate(REQUESTS) if takes_caller(one.match, *caller)}
        models = {at for at, model in enumerate((*MODELS, None)) if takes_model(one.match, model)}
        over = next((who.id for who, who_of, which in better if callers <= who_of and models <= which), None)
        if percent == 0:
            expected[one.id] = ("MatchesNothing", None)
        elif over is not None:
            expected[one.id] = ("Overridden", over)
        if percent == 100:
            better.append((one, callers, models))
    assert said == expected
