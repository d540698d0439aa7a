"""What explain says: settings and their origin, shares, keys, versions, canary, hints, and live state."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from beamline_router.core.explain import explain
from harness.router_world import World, check, post, pre, provider, providers, request


def explained(world: World, *steps: dict[str, Any], live: bool = False, **changes: Any) -> dict[str, Any]:
    world.route(*steps)
    answer = explain(request(**changes), world.snapshot, world.runtime if live else None)
    orjson.dumps(answer)
    return answer


def step_of(world: World, *steps: dict[str, Any], at: int = 0, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = explained(world, *steps, **more)["steps"][at]
    return found


def quality(value: float) -> dict[str, Any]:
    return {"score": {"quality": value}}


ORIGINS: list[Any] = [
    pytest.param("timeout_ms", {"timeout_ms": 70}, {"timeout_ms": 70}, {"timeout_ms": 5_000}, id="timeout"),
    pytest.param("retry", {"retry": 3}, {"retry": 3}, {"retry": 1}, id="retry"),
    pytest.param(
        "retry_on_timeout", {"retry_on_timeout": False}, {"retryOnTimeout": False}, {}, id="retry on timeout"
    ),
    pytest.param("failure_mode", {"failure_mode": "open"}, {"failureMode": "open"}, {}, id="failure mode"),
    pytest.param("concurrency", {"concurrency": 9}, {"concurrency": 9}, {}, id="concurrency"),
    pytest.param(
        "circuit_breaker",
        {"circuit_breaker": {"failure_threshold": 2}},
        {"circuitBreaker": {"failureThreshold": 2}},
        {},
        id="breaker",
    ),
]


@pytest.mark.parametrize(("name", "on_step", "on_extension", "default"), ORIGINS)
def test_each_setting_says_where_it_comes_from(
    world: World, name: str, on_step: dict[str, Any], on_extension: dict[str, Any], default: dict[str, Any]
) -> None:
    world.have("check", "validator", **default)
    plain = step_of(world, check(), provider())
    world.have("check", "validator", **on_extension)
    by_extension = step_of(world, check(), provider())
    by_step = step_of(world, check(**on_step), provider())
    assert [one["from"][name] for one in (plain, by_extension, by_step)] == ["default", "extension", "step"]
    assert by_step[name] == by_extension[name]


def test_a_steps_config_is_named_key_by_key(world: World) -> None:
    world.have("check", "validator", config={"a": 1, "b": 2})
    found = step_of(world, check(config={"b": 3}), provider())
    assert (found["config"], found["from"]["config"]) == ({"a": 1, "b": 3}, ["b"])


def test_the_steps_meet_their_own_documents_in_every_place(world: World) -> None:
    world.have("other", "validator")
    steps = (
        pre(timeout_ms=1),
        check(timeout_ms=2, group="g"),
        check("other", timeout_ms=3, group="g"),
        check(timeout_ms=4, overlap=True),
        provider(timeout_ms=5),
        post(timeout_ms=6),
    )
    found = explained(world, *steps)["steps"]
    flat = [one if "timeout_ms" in one else one["providers"][0] for one in found]
    assert [one["timeout_ms"] for one in flat] == [1, 2, 3, 4, 5, 6]
    assert {one["from"]["timeout_ms"] for one in flat} == {"step"}
    assert found[3]["overlap"] is True


def test_shares_are_those_of_the_weights_among_providers_that_can_be_asked(world: World) -> None:
    world.lack("third")
    found = step_of(world, providers({"main": 3, "second": 1, "third": 4}))
    assert [(one["weight"], one["share"]) for one in found["providers"]] == [(3, 0.75), (1, 0.25), (4, 0.0)]
    assert found["first"] is None


@pytest.mark.parametrize("strategy", ["ordered", "least_inflight", "latency"])
def test_no_share_is_claimed_where_weight_alone_does_not_decide(world: World, strategy: str) -> None:
    found = step_of(world, providers({"main": 1, "second": 1}, strategy=strategy))
    assert [one["share"] for one in found["providers"]] == [None, None]
    assert found["first"] == ("main" if strategy == "ordered" else None)


async def test_the_first_provider_of_a_sticky_choice_is_the_one_that_is_asked(world: World) -> None:
    step = providers({"main": 1, "second": 1, "third": 1}, strategy="sticky", sticky_key="tenant")
    for number in range(20):
        first = step_of(world, step, tenant_id=f"t{number}")["first"]
        assert (await world.answer(tenant_id=f"t{number}")).provider_id == first


async def test_whether_the_canary_is_asked_is_said_as_it_happens(world: World) -> None:
    step = provider(canary={"provider_id": "third", "percent": 40, "sticky_key": "tenant"})
    said = set()
    for number in range(20):
        found = step_of(world, step, tenant_id=f"t{number}")
        asked = (await world.answer(tenant_id=f"t{number}")).provider_id == "third"
        assert (found["canary"]["asked"], found["first"] == "third") == (asked, asked)
        assert (found["canary"]["percent"], found["canary"]["key"]) == (40, f"t{number}")
        said.add(asked)
    assert said == {True, False}


async def test_versions_are_listed_with_shares_and_a_sticky_one_is_named(world: World) -> None:
    world.have("main", "provider", weight=75, version="v1", stickyKey="tenant")
    world.have("main_v2", "provider", weight=25, version="v2", versionOf="main")
    world.answers("main_v2", {"output": "new"})
    for number in range(20):
        (found,) = step_of(world, provider(), tenant_id=f"t{number}")["providers"]
        assert [(v["version"], v["weight"], v["share"]) for v in found["versions"]] == [
            ("v1", 75, 0.75),
            ("v2", 25, 0.25),
        ]
        (entry,) = (await world.answer(tenant_id=f"t{number}")).trail
        assert (found["version"], found["version_key"]) == (entry.version, f"t{number}")


def test_where_no_version_has_a_weight_the_base_has_all_of_them(world: World) -> None:
    world.have("main", "provider", weight=0, version="v1")
    world.have("main_v2", "provider", weight=0, version="v2", versionOf="main")
    (found,) = step_of(world, provider())["providers"]
    assert [(one["version"], one["share"]) for one in found["versions"]] == [("v1", 1.0), ("v2", 0.0)]


async def test_the_best_by_score_is_the_version_that_the_request_meets(world: World) -> None:
    world.have("main", "provider", weight=1, version="v1", stickyKey="tenant", metadata=quality(0.9))
    world.have("main_v2", "provider", weight=1, version="v2", versionOf="main", metadata=quality(0.1))
    world.have("second", "provider", metadata=quality(0.5))
    world.answers("main_v2", {"output": "new"})
    step = providers({"main": 1, "second": 1}, strategy="score", score={"cost": 0, "latency": 0})
    said = set()
    for number in range(20):
        found = step_of(world, step, tenant_id=f"t{number}")
        (entry,) = (await world.answer(tenant_id=f"t{number}")).trail
        assert found["first"] == entry.extension_id
        main = found["providers"][0]
        hints = {one["version"]: one["hints"]["quality"] for one in main["versions"]}
        assert hints == {"v1": 0.9, "v2": 0.1}
        assert main["score"]["quality"] == hints[main["version"]]
        said.add(found["first"])
    assert said == {"main", "second"}


def test_no_best_by_score_is_claimed_where_it_depends_on_the_version_that_is_drawn(world: World) -> None:
    world.have("main", "provider", weight=1, version="v1", metadata=quality(0.9))
    world.have("second", "provider", metadata=quality(0.5))
    step = providers({"main": 1, "second": 1}, strategy="score")
    for other, first in ((0.9, "main"), (0.1, None)):
        world.have("main_v2", "provider", weight=1, version="v2", versionOf="main", metadata=quality(other))
        assert step_of(world, step)["first"] == first


async def test_whom_a_breaker_refuses_is_neither_first_nor_has_a_share_in_a_router(world: World) -> None:
    step = providers({"main": 1, "second": 1}, strategy="sticky", sticky_key="tenant")
    tenant = next(f"t{n}" for n in range(20) if step_of(world, step, tenant_id=f"t{n}")["first"] == "main")
    world.runtime.isolate(world.snapshot.compiled_extensions["main"])
    (entry,) = (await world.answer(tenant_id=tenant)).trail
    for live, first, shares in ((False, "main", [0.5, 0.5]), (True, entry.extension_id, [0.0, 1.0])):
        found = step_of(world, step, live=live, tenant_id=tenant)
        assert (found["first"], [one["share"] for one in found["providers"]]) == (first, shares)
    world.runtime.isolate(world.snapshot.compiled_extensions["second"])
    assert step_of(world, step, live=True, tenant_id=tenant)["first"] == "main"


async def test_the_version_of_a_key_is_the_one_that_can_be_called_in_a_router(world: World) -> None:
    world.have("main", "provider", weight=1, version="v1", stickyKey="tenant")
    world.have("main_v2", "provider", weight=1, version="v2", versionOf="main")
    world.answers("main_v2", {"output": "new"})
    world.route(provider())
    world.runtime.isolate(world.snapshot.compiled_extensions["main"])
    for number in range(8):
        (found,) = step_of(world, provider(), live=True, tenant_id=f"t{number}")["providers"]
        (entry,) = (await world.answer(tenant_id=f"t{number}")).trail
        assert found["version"] == entry.version == "v2"
        assert [one["share"] for one in found["versions"]] == [0.0, 1.0]


def test_complexity_comes_with_its_hints(world: World) -> None:
    policy = explained(world, *[check(f"c{n}") for n in range(4)], provider())["policy"]
    assert policy["complexity"] == 13
    assert [hint.partition(":")[0] for hint in policy["hints"]] == ["complexity 13 is above 10"]


def test_a_policys_own_retry_budget_is_named(world: World) -> None:
    world.route(provider(), retry_budget={"tokens": 3, "threshold": 1})
    (found,) = explain(request(), world.snapshot)["steps"][0]["providers"]
    assert found["from"]["retry_budget"] == "policy"


async def test_offline_nothing_live_is_claimed_and_live_it_is_what_the_router_knows(world: World) -> None:
    assert "live" not in step_of(world, check(), provider())
    await world.open_breaker("check")
    found = step_of(world, check(), provider(), live=True)["live"]
    assert found == {
        "breaker": "open",
        "available": False,
        "reopens_in_ms": 30_000,
        "in_flight": 0,
        "latency_ms": None,
        "retry_tokens": 5.0,
    }


def test_asking_makes_neither_breakers_nor_counters(world: World) -> None:
    found = step_of(world, check(), provider(), live=True)["live"]
    assert (found["breaker"], found["available"], found["retry_tokens"]) == ("closed", True, None)
    assert world.runtime.breaker_states() == {}
    assert world.runtime._loads == {}
