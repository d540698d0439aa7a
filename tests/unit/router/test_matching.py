"""Which policy takes a request, which can never take one, and what explain says of it."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_contract.projection import PolicyRecord
from beamline_router.core.explain import explain
from beamline_router.core.keys import within
from beamline_router.core.snapshot import Compilation, compile_snapshot
from harness.router_world import check, extension, policy, provider, request

EXTENSIONS = [extension("main", "provider"), extension("second", "provider"), extension("check", "validator")]


def compiled(*policies: PolicyRecord) -> Compilation:
    result = compile_snapshot(EXTENSIONS, policies, revision=1, previous=None)
    assert result.refused == ()
    return result


def rule(
    name: str, priority: int = 0, created_at: str = "2026-01-01T00:00:00Z", **match: Any
) -> PolicyRecord:
    return policy(name, [provider()], match=match, priority=priority, created_at=created_at)


def winner(result: Compilation, **changes: Any) -> str | None:
    route = result.snapshot.route_for(request(**changes))
    return None if route is None else route.policy_id


@pytest.mark.parametrize(
    ("match", "changes", "matches"),
    [
        pytest.param({}, {}, True, id="an empty match takes everything"),
        pytest.param({"tenants": ["acme", "b"]}, {}, True, id="one tenant of the list is enough"),
        pytest.param({"tenants": ["b"]}, {}, False, id="another tenant is not taken"),
        pytest.param(
            {"environments": ["prod"]}, {"environment": "prod"}, True, id="the environment is the one"
        ),
        pytest.param(
            {"environments": ["prod"]}, {"environment": None}, False, id="no environment is not prod"
        ),
        pytest.param({"models": ["gpt-4"]}, {"model": "gpt-4"}, True, id="the model is the one"),
        pytest.param({"models": ["gpt-4"]}, {"model": "gpt-4o"}, False, id="a longer model is another"),
        pytest.param(
            {"models": ["gpt-4*"]}, {"model": "gpt-4o"}, True, id="a star stands for any characters"
        ),
        pytest.param({"models": ["*"]}, {"model": "x"}, True, id="a lone star takes any model"),
        pytest.param({"models": ["*"]}, {"model": None}, False, id="but not a request without one"),
        pytest.param(
            {"models": ["gpt-?"]}, {"model": "gpt-4"}, True, id="a question mark stands for one character"
        ),
        pytest.param({"models": ["gpt-?"]}, {"model": "gpt-"}, False, id="and not for none"),
        pytest.param({"models": ["a*b*c"]}, {"model": "a.b/c"}, True, id="stars in the middle"),
        pytest.param({"models": ["a.c"]}, {"model": "abc"}, False, id="a dot is a dot"),
        pytest.param(
            {"headers": {"x-team": "red"}},
            {"headers": {"x-team": "red"}},
            True,
            id="the header has the value",
        ),
        pytest.param(
            {"headers": {"x-team": "red"}}, {"headers": {"x-team": "blue"}}, False, id="another value"
        ),
        pytest.param({"headers": {"x-team": "red"}}, {}, False, id="no such header"),
        pytest.param(
            {"tenants": ["acme"], "models": ["a"]}, {"model": "b"}, False, id="every criterion must hold"
        ),
    ],
)
def test_a_match(match: dict[str, Any], changes: dict[str, Any], matches: bool) -> None:
    assert winner(compiled(rule("only", **match)), **changes) == ("only" if matches else None)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param(
            rule("z", priority=1), rule("a", tenants=["acme"]), id="the higher priority before all else"
        ),
        pytest.param(rule("z", tenants=["acme"]), rule("a", models=["gpt-4"]), id="a tenant before a model"),
        pytest.param(
            rule("z", models=["gpt-4"]), rule("a", models=["gpt-*"]), id="an exact model before a glob"
        ),
        pytest.param(
            rule("z", models=["gpt-*"]), rule("a", models=["g*"]), id="the longer glob before the shorter"
        ),
        pytest.param(
            rule("z", models=["*"]), rule("a", headers={"x-team": "red"}), id="a model before a header"
        ),
        pytest.param(
            rule("z", headers={"x-team": "red"}), rule("a", environments=["prod"]), id="a header before prod"
        ),
        pytest.param(rule("z", environments=["prod"]), rule("a"), id="an environment before nothing"),
        pytest.param(
            rule("z", created_at="2025-01-01T00:00:00Z"),
            rule("a", created_at="2026-01-01T00:00:00Z"),
            id="the older",
        ),
        pytest.param(
            rule("z", created_at="2026-01-01T00:00:00Z"),
            rule("a", created_at="2026-01-01T00:00:00.250000Z"),
            id="the older by a fraction of a second",
        ),
        pytest.param(rule("a"), rule("z"), id="the first by name"),
    ],
)
def test_of_two_that_match_wins(better: PolicyRecord, worse: PolicyRecord) -> None:
    changes = {"model": "gpt-4", "environment": "prod", "headers": {"x-team": "red"}}
    for records in ((better, worse), (worse, better)):
        assert winner(compiled(*records), **changes) == better.id


def test_a_canary_takes_its_share_from_the_rule_beside_it() -> None:
    result = compiled(rule("canary", percent=20), rule("base"))
    counted = Counter(winner(result, request_id=f"req-{number}") for number in range(2_000))
    assert 300 < counted["canary"] < 500


def test_a_percentage_decides_the_same_for_the_same_key_and_grows_without_moving_anybody() -> None:
    keys = [f"k{number}" for number in range(500)]
    small = {key for key in keys if within(10, "salt", key)}
    large = {key for key in keys if within(40, "salt", key)}
    assert small < large
    assert not any(within(0, "salt", key) for key in keys)


def test_a_percentage_is_sticky_by_the_key_that_the_policy_states() -> None:
    canary = policy("canary", [provider(sticky_key="tenant")], match={"percent": 50})
    result = compiled(canary, rule("base"))
    for tenant in ("a", "b", "c", "d", "e", "f"):
        assert len({winner(result, tenant_id=tenant, request_id=f"r{number}") for number in range(20)}) == 1


names = st.sampled_from(["a", "b", "c"])
matches = st.fixed_dictionaries(
    {},
    optional={
        "tenants": st.lists(names, min_size=1, max_size=2, unique=True),
        "models": st.lists(
            st.sampled_from(["a", "b", "ab", "a*", "ab*", "abc*", "*b", "a*c", "*"]),
            min_size=1,
            max_size=3,
            unique=True,
        ),
        "environments": st.lists(names, min_size=1, max_size=2, unique=True),
    },
)


@given(
    st.lists(st.tuples(matches, st.integers(0, 2)), max_size=8),
    names,
    st.sampled_from(["a", "b", "ab", "abc", "abcd", "c"]),
    names,
)
def test_the_index_finds_what_a_search_through_all_would(
    rules: list[tuple[dict[str, Any], int]], tenant: str, model: str, environment: str
) -> None:
    result = compiled(
        *(rule(f"p{n}", priority=priority, **match) for n, (match, priority) in enumerate(rules))
    )
    asked = request(tenant_id=tenant, model=model, environment=environment)

    def takes(match: dict[str, Any]) -> bool:
        return (
            tenant in match.get("tenants", [tenant])
            and environment in match.get("environments", [environment])
            and ("models" not in match or any(fnmatchcase(model, pattern) for pattern in match["models"]))
        )

    expected = next(
        (r.policy.id for r in result.snapshot.matcher.rules if takes(rules[int(r.policy.id[1:])][0])), None
    )
    found = result.snapshot.route_for(asked)
    assert (None if found is None else found.policy_id) == expected


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        pytest.param([rule("z", percent=0)], [("z", "MatchesNothing", None)], id="percent 0 takes nothing"),
        pytest.param(
            [rule("z", headers={"X-Team": "a"})], [("z", "MatchesNothing", None)], id="a header in capitals"
        ),
        pytest.param(
            [rule("z", headers={"x-api-key": "a"})], [("z", "MatchesNothing", None)], id="a header for keys"
        ),
        pytest.param(
            [rule("z", headers={"authorization": "a"})],
            [("z", "MatchesNothing", None)],
            id="the other header for keys",
        ),
        pytest.param(
            [rule("z", headers={"x-team": " a"})],
            [("z", "MatchesNothing", None)],
            id="a space before a value",
        ),
        pytest.param([rule("a"), rule("z")], [("z", "Overridden", "a")], id="two equal rules collide"),
        pytest.param(
            [rule("a", priority=9), rule("z", tenants=["t"])],
            [("z", "Overridden", "a")],
            id="priority takes all",
        ),
        pytest.param(
            [rule("a", priority=9, models=["g*"]), rule("z", models=["g1", "g2"])],
            [("z", "Overridden", "a")],
            id="a glob of higher priority takes the exact models",
        ),
        pytest.param(
            [rule("a", tenants=["t"]), rule("z")], [], id="a special case beside the general one is fine"
        ),
        pytest.param([rule("a", percent=50), rule("z")], [], id="a canary leaves the rest"),
        pytest.param([rule("a", tenants=["t"]), rule("z", tenants=["u"])], [], id="two tenants do not meet"),
        pytest.param(
            [rule("a", priority=9, tenants=["t"]), rule("z", tenants=["t", "u"])], [], id="one of two tenants"
        ),
        pytest.param(
            [rule("a", priority=9, environments=["e"]), rule("z", environments=["e", "f"])],
            [],
            id="one of two environments",
        ),
    ],
)
def test_a_rule_that_can_never_apply_is_noticed(policies: list[PolicyRecord], expected: list[Any]) -> None:
    found = compiled(*policies).notices
    assert [(notice.id, notice.reason, notice.other_id) for notice in found] == expected


def test_however_many_rules_stand_before_it_a_rule_that_another_takes_over_is_noticed() -> None:
    result = compiled(
        *(rule(f"team{n}", priority=3, headers={"x-app": "chat", "x-team": f"t{n}"}) for n in range(100)),
        *(rule(f"region{n}", priority=3, environments=[f"e{n}"]) for n in range(100)),
        *(rule(f"mini{n}", priority=3, models=[f"*-{n}-mini"]) for n in range(100)),
        *(rule(f"canary{n}", priority=3, percent=1) for n in range(100)),
        rule("all", priority=2),
        rule("app", priority=1, headers={"x-app": "chat"}),
        rule("base"),
    )
    found = [(notice.id, notice.reason, notice.other_id) for notice in result.notices]
    assert found == [("app", "Overridden", "all"), ("base", "Overridden", "all")]


def test_a_request_looks_into_small_drawers_however_many_tenants_there_are() -> None:
    result = compiled(*(rule(f"p{number}", tenants=[f"t{number}"]) for number in range(500)))
    assert winner(result, tenant_id="t321") == "p321"
    assert max(map(len, result.snapshot.matcher.drawers.values())) == 1


def test_explain_says_which_policy_and_why_not_the_others() -> None:
    result = compiled(
        rule("base"),
        policy(
            "mine",
            [check(mode="shadow", group="g"), provider(fallback=["second"])],
            match={"tenants": ["acme"]},
        ),
        rule("other", tenants=["b"]),
    )
    explained = explain(request(), result.snapshot)
    assert explained["policy"]["id"] == "mine"
    assert explained["others"] == [
        {"policy": "other", "because": "match.tenants does not hold", "remarks": []},
        {"policy": "base", "because": "it matches, but ranks lower", "remarks": []},
    ]
    shadow, chosen = explained["steps"]
    assert (shadow["mode"], shadow["timeout_ms"], shadow["failure_mode"]) == ("shadow", 1000, "closed")
    assert [call["extension_id"] for call in chosen["fallback"]] == ["second"]


def test_explain_of_a_request_that_nobody_takes_has_no_steps() -> None:
    explained = explain(request(), compiled(rule("other", tenants=["b"])).snapshot)
    assert explained["policy"] is None
    assert "steps" not in explained


def test_explain_says_that_a_provider_is_absent() -> None:
    result = compile_snapshot([], [rule("only")], revision=1, previous=None)
    (step,) = explain(request(policy="only"), result.snapshot)["steps"]
    assert step["providers"][0]["absent"] == "no extension goes by the id main"


@pytest.mark.parametrize(
    ("models", "overridden"),
    [
        pytest.param(["gpt-4o-*"], True, id="a longer glob"),
        pytest.param(["gpt-4?-*"], True, id="a glob with a wildcard in the middle, after the same beginning"),
        pytest.param(["gpt-4o", "gpt-*"], True, id="one of its models and the glob itself"),
        pytest.param(["gpt-4o", "claude-*"], False, id="not where one of its models is another"),
        pytest.param(["g*"], False, id="not a shorter glob"),
    ],
)
def test_a_glob_of_a_higher_priority_overrides_what_it_takes_whole(
    models: list[str], overridden: bool
) -> None:
    result = compiled(rule("wide", priority=9, models=["gpt-*"]), rule("narrow", models=models))
    expected = [("narrow", "Overridden", "wide")] if overridden else []
    assert [(notice.id, notice.reason, notice.other_id) for notice in result.notices] == expected


@pytest.mark.parametrize(
    ("wide", "narrow", "overridden"),
    [
        pytest.param("*claude*", "anthropic/claude-*", True, id="a part in the middle"),
        pytest.param("*-mini", "gpt-*-mini", True, id="the same end"),
        pytest.param("gpt-?-*", "gpt-4-mini", True, id="a name that it takes"),
        pytest.param("a*b*c", "ab*c", True, id="a star for nothing"),
        pytest.param("?-*", "?-x*", True, id="a question mark for a question mark"),
        pytest.param("?-*", "*-x", False, id="not a star for a question mark"),
        pytest.param("*-mini", "gpt-*", False, id="not another end"),
        pytest.param("*a*b", "*b*a", False, id="not another order"),
    ],
)
def test_a_glob_with_a_wildcard_in_the_middle_overrides_one_that_it_takes_whole(
    wide: str, narrow: str, overridden: bool
) -> None:
    result = compiled(rule("wide", priority=9, models=[wide]), rule("narrow", models=[narrow]))
    expected = [("narrow", "Overridden", "wide")] if overridden else []
    assert [(notice.id, notice.reason, notice.other_id) for notice in result.notices] == expected


def test_globs_of_many_stars_are_compared_in_no_time() -> None:
    wide, narrow = "*a" * 120, "ab*" * 80
    assert compiled(rule("wide", priority=9, models=[wide]), rule("narrow", models=[narrow])).notices == ()
