"""Which providers are asked: each strategy by itself, and as the pipeline uses it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_router.core import selection
from beamline_router.core.route import Call
from beamline_router.core.snapshot import compile_snapshot
from beamline_router.fakes import After, FakeRng
from harness.router_world import World, extension, policy, providers, request, says


def candidates(**weights: int) -> tuple[Call, ...]:
    extensions = [extension(name, "provider") for name in weights]
    result = compile_snapshot(extensions, [policy("only", [providers(weights)])], revision=1, previous=None)
    found = result.snapshot.policy("only")
    assert found is not None
    return found.route.provider.candidates


@pytest.mark.parametrize(("random", "index"), [(0.0, 0), (0.89, 0), (0.91, 1), (0.999, 1)])
def test_a_weighted_choice_follows_the_weights(random: float, index: int) -> None:
    assert selection.weighted(candidates(a=90, b=10), random) == index


def test_weight_zero_takes_no_traffic() -> None:
    assert [call.extension_id for call in selection.eligible(candidates(a=0, b=1), lambda _: True)] == ["b"]


def test_only_available_candidates_take_part_as_long_as_there_is_one() -> None:
    both = candidates(a=2, b=1)
    assert [
        call.extension_id for call in selection.eligible(both, lambda call: call.extension_id == "b")
    ] == ["b"]
    assert len(selection.eligible(both, lambda _: False)) == 2


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.integers(1, 4))
def test_two_different_ones_are_drawn_where_there_are_two(first: float, second: float, count: int) -> None:
    drawn = selection.two_of(
        candidates(**{f"p{number}": number + 1 for number in range(count)}), first, second
    )
    assert (drawn[0] != drawn[1]) is (count > 1)
    assert all(0 <= index < count for index in drawn)


def test_of_two_the_cheaper_one_is_taken() -> None:
    both = candidates(a=2, b=1)
    assert selection.better_of_two(both, lambda call: {"a": 5.0, "b": 1.0}[call.extension_id], 0.0, 0.0) == 1
    assert selection.better_of_two(both, lambda call: 1.0, 0.0, 0.0) == 0


def test_an_old_latency_fades_and_a_queue_adds_to_it() -> None:
    assert selection.expected_latency(1.0, 0.0, 0) == 1.0
    assert selection.expected_latency(1.0, 0.0, 2) == 3.0
    assert selection.expected_latency(1.0, 60.0, 0) < 0.01
    assert selection.expected_latency(1.0, 60.0, 1) == 2.0
    assert selection.expected_latency(0.0, 60.0, 0) == 0.0
    assert selection.expected_latency(0.0, 60.0, 1) > selection.expected_latency(9.0, 0.0, 99)


def test_a_sticky_key_keeps_its_provider_when_another_leaves() -> None:
    three = candidates(a=2, b=1, c=1)
    keys = [f"tenant-{number}" for number in range(400)]
    before = {key: three[selection.sticky(three, key)].extension_id for key in keys}
    two = tuple(call for call in three if call.extension_id != "c")
    moved = [key for key in keys if before[key] != two[selection.sticky(two, key)].extension_id]
    assert all(before[key] == "c" for key in moved)
    shares = Counter(before.values())
    assert shares["a"] > shares["b"] > 50


async def test_sticky_follows_the_header_that_the_step_names(world: World) -> None:
    choices = providers({"main": 1, "second": 1, "third": 1}, strategy="sticky", sticky_key="header:x-user")
    world.route(choices)
    for user in ("ann", "bob", "cy", "di"):
        headers = {"x-user": user}
        met = {
            (await world.answer(headers=headers, request_id=f"r{n}", tenant_id=f"t{n}")).provider_id
            for n in range(5)
        }
        assert len(met) == 1


async def test_least_inflight_avoids_the_busy_provider(world: World) -> None:
    world.route(providers({"main": 2, "second": 1}, strategy="least_inflight"))
    world.runtime.load("main").in_flight = 7
    assert (await world.answer()).provider_id == "second"


async def test_latency_avoids_the_slow_provider(world: World) -> None:
    world.route(providers({"main": 2, "second": 1}, strategy="latency"))
    world.runtime.load("main").observe(5.0, world.clock.now)
    world.runtime.load("second").observe(0.1, world.clock.now)
    assert (await world.answer()).provider_id == "second"


@pytest.mark.parametrize("idle_s", [None, 300.0], ids=["has never answered", "was slow long ago"])
async def test_latency_tries_by_one_call_a_provider_that(world: World, idle_s: float | None) -> None:
    world.rng = FakeRng(0.0)
    world.__post_init__()
    world.route(providers({"main": 1, "second": 1}, strategy="latency"))
    if idle_s is not None:
        world.runtime.load("second").observe(40.0, world.clock.now - idle_s)
    world.runtime.load("main").observe(0.5, world.clock.now)
    world.answers("main", After(0.5, says("main")))
    world.answers("second", After(0.9, says("second")))
    asked = [
        asyncio.ensure_future(world.pipeline.run(request(request_id=f"r{n}"), world.snapshot))
        for n in range(20)
    ]
    await world.clock.advance(0.6)
    assert (world.calls("main"), world.calls("second")) == (19, 1)
    await world.clock.advance(1.0)
    assert all(one.done() for one in asked)


async def test_a_weighted_choice_is_drawn_anew_for_each_request(world: World) -> None:
    world.rng = FakeRng(0.0, 0.95, 0.0)
    world.__post_init__()
    world.route(providers({"main": 90, "second": 10}))
    assert [(await world.answer()).provider_id for _ in range(2)].count("main") == 1
