"""The canary of select_provider: who meets it, and that it costs nobody an answer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from beamline_router.core.ports import TransportFault
from harness.router_world import World, fails, provider, providers


def canary(percent: int, **more: Any) -> dict[str, Any]:
    return {"canary": {"provider_id": "third", "percent": percent, **more}}


async def met(world: World, percent: int, by: str = "request_id", **more: Any) -> set[str]:
    """The keys, of 300, that meet the canary at ``percent``."""
    world.route(provider(**canary(percent, **more)))
    found = set()
    for number in range(300):
        key = f"k-{number}"
        changes: dict[str, Any] = {by: {"x-user": key} if by == "headers" else key}
        if (await world.answer(**changes)).provider_id == "third":
            found.add(key)
    return found


@pytest.mark.parametrize(
    ("by", "sticky"),
    [
        pytest.param("request_id", None, id="by the request's id"),
        pytest.param("tenant_id", "tenant", id="by tenant"),
        pytest.param("headers", "header:x-user", id="by a header"),
    ],
)
async def test_raising_the_percentage_only_adds_keys(world: World, by: str, sticky: str | None) -> None:
    more = {} if sticky is None else {"sticky_key": sticky}
    steps = [await met(world, percent, by, **more) for percent in (0, 5, 25, 60, 100)]
    assert all(small <= large for small, large in pairwise(steps))
    assert (len(steps[0]), len(steps[-1])) == (0, 300)
    assert 50 < len(steps[2]) < 100


async def test_a_sticky_canary_is_the_same_for_every_request_of_a_key(world: World) -> None:
    world.route(provider(**canary(50, sticky_key="tenant")))
    for tenant in ("a", "b", "c", "d"):
        asked = {
            (await world.answer(tenant_id=tenant, request_id=f"r{number}")).provider_id for number in range(8)
        }
        assert len(asked) == 1


async def test_the_trail_says_that_the_canary_was_asked_as_such(world: World) -> None:
    world.route(provider(**canary(100)))
    assert [(e.extension_id, e.why) for e in (await world.answer()).trail] == [("third", "canary")]
    world.route(provider(**canary(0)))
    assert [(e.extension_id, e.why) for e in (await world.answer()).trail] == [("main", "ordered")]


@pytest.mark.parametrize(
    "reply", [fails("INTERNAL"), fails("RESOURCE_EXHAUSTED"), TransportFault.NO_RESPONDERS, b"[]"]
)
async def test_a_canary_that_cant_answer_is_followed_by_the_choice_as_it_would_have_been(
    world: World, reply: Any
) -> None:
    world.answers("third", reply)
    world.route(providers({"main": 1, "second": 9}, **canary(100)))
    answer = await world.answer()
    assert [(e.extension_id, e.why) for e in answer.trail] == [("third", "canary"), ("main", "weighted")]


async def test_a_fault_of_the_caller_ends_the_request_at_the_canary(world: World) -> None:
    world.answers("third", fails("INVALID_ARGUMENT"))
    world.route(provider(**canary(100)))
    assert (await world.failure()).error.code == "INVALID_ARGUMENT"
    assert world.calls("main") == 0


async def test_a_canary_whose_breaker_is_open_costs_no_call(world: World) -> None:
    world.route(provider("third"))
    await world.open_breaker("third")
    world.route(provider(**canary(100)))
    before = world.calls("third")
    assert (await world.answer()).provider_id == "main"
    assert world.calls("third") == before


async def test_a_canary_that_is_a_candidate_as_well_is_asked_once(world: World) -> None:
    world.answers("third", fails("UNAVAILABLE"))
    world.answers("main", fails("UNAVAILABLE"))
    world.route(providers({"third": 1, "main": 1}, strategy="ordered", fallback=["second"], **canary(100)))
    answer = await world.answer()
    assert [(e.extension_id, e.why) for e in answer.trail] == [
        ("third", "canary"),
        ("main", "ordered"),
        ("second", "fallback"),
    ]


async def test_an_unknown_canary_is_passed_over_visibly(world: World) -> None:
    world.lack("third")
    world.route(provider(**canary(100)))
    assert [e.outcome for e in (await world.answer()).trail] == ["error", "ok"]


async def test_a_canary_counts_among_the_six_attempts(world: World) -> None:
    for name in ("main", "second", "third"):
        world.have(name, "provider", retry=3)
        world.answers(name, fails("UNAVAILABLE"))
    world.route(provider(fallback=["second"], **canary(100)))
    await world.failure()
    assert len(world.transport.sent) == 6
