"""What a router remembers between requests, and what a snapshot swap does to it."""

from __future__ import annotations

import asyncio

import pytest

from beamline_router.core.request import Failure
from beamline_router.fakes import After
from harness.router_world import PASS, World, check, fails, pre, provider, request, says


async def fail_check(world: World, times: int) -> None:
    world.answers("check", fails("INTERNAL", retryable=False))
    for _ in range(times):
        assert isinstance(await world.ask(), Failure)


async def test_an_open_breaker_stays_open_when_the_snapshot_is_swapped(world: World) -> None:
    world.route(check(), provider())
    await fail_check(world, 5)
    world.have("check", "validator", timeout_ms=123)
    world.route(check(), provider())
    assert world.runtime.breaker_states()["check"] == "open"


async def test_new_breaker_settings_are_taken_over_by_the_breaker_that_is_there(world: World) -> None:
    world.route(check(), provider())
    await fail_check(world, 2)
    world.have("check", "validator", circuitBreaker={"failureThreshold": 3})
    world.route(check(), provider())
    await fail_check(world, 1)
    assert world.runtime.breaker_states()["check"] == "open"


async def test_a_request_from_before_a_swap_makes_what_is_new_by_the_settings_of_today(world: World) -> None:
    def settings(failures: int, tokens: int) -> None:
        world.have(
            "check",
            "validator",
            circuitBreaker={"failureThreshold": failures, "minFailureRatio": 0},
            retryBudget={"tokens": tokens, "threshold": 0},
        )
        world.route(pre(), check(), provider())

    settings(failures=1, tokens=9)
    world.answers("pre", After(0.5, {}))
    old = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    settings(failures=2, tokens=3)
    world.answers("check", fails("INTERNAL", retryable=False))
    await world.clock.advance(1)
    assert isinstance(await old, Failure)
    assert world.runtime.breaker_states()["check"] == "closed"
    compiled = world.snapshot.policy("only")
    assert compiled is not None
    [step] = compiled.route.before[1]
    assert world.runtime.budget(step.call).tokens == 2


async def test_an_extension_that_left_is_forgotten_and_starts_anew(world: World) -> None:
    world.route(check(), provider())
    await fail_check(world, 5)
    world.lack("check")
    world.route(provider())
    assert "check" not in world.runtime.breaker_states()
    world.have("check", "validator")
    world.answers("check", PASS)
    world.route(check(), provider())
    await world.answer()
    assert world.runtime.breaker_states()["check"] == "closed"


async def test_the_breaker_of_a_step_that_left_is_forgotten(world: World) -> None:
    world.route(check(circuit_breaker={"failure_threshold": 2}), provider())
    await world.answer()
    world.route(check(), provider())
    assert list(world.runtime.breaker_states()) == ["main"]


async def test_isolating_an_extension_covers_the_breakers_of_its_steps(world: World) -> None:
    world.route(check(circuit_breaker={"failure_threshold": 2}), provider())
    await world.answer()
    found = world.snapshot.lookup("check")
    assert found is not None
    world.runtime.isolate(found)
    assert set(world.runtime.breaker_states().values()) == {"isolated", "closed"}
    assert isinstance(await world.ask(), Failure)
    world.runtime.reset(found)
    await world.answer()


async def test_calls_in_flight_of_an_extension_that_left_are_still_counted_down(world: World) -> None:
    world.answers("main", After(0.5, says()))
    world.route(provider())
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    load = world.runtime.load("main")
    world.lack("main")
    world.route(provider("second"))
    assert load.in_flight == 1
    await world.clock.advance(1)
    assert task.done()
    assert load.in_flight == 0


async def test_the_retry_budget_belongs_to_the_extension_and_not_to_the_request(world: World) -> None:
    world.have("check", "validator", retry=5, circuitBreaker={"failureThreshold": 10_000})
    world.route(check(), provider())
    world.answers("check", fails("UNAVAILABLE"))
    await world.failure()
    first = world.calls("check")
    await world.failure()
    assert first == 5
    assert world.calls("check") == first + 1


async def test_an_answered_call_moves_the_latency_average(world: World) -> None:
    world.answers("main", After(0.1, says()), After(0.6, says()))
    world.route(provider())
    await world.answer()
    await world.answer()
    assert world.runtime.load("main").latency_s == pytest.approx(0.2)


async def test_every_call_and_every_step_is_recorded(world: World) -> None:
    world.have("main", "provider", retry=1)
    world.answers("main", fails("UNAVAILABLE"), says())
    world.route(check(), provider())
    await world.answer()
    assert world.recorder.attempts == [
        ("check", False, None),
        ("main", True, "UNAVAILABLE"),
        ("main", False, None),
    ]
    assert world.recorder.steps == [("check", "validator", "ok", None), ("main", "provider", "ok", None)]


async def test_an_answer_gives_a_used_up_retry_budget_back_by_a_tenth(world: World) -> None:
    world.have("check", "validator", retry=5, circuitBreaker={"failureThreshold": 10_000})
    world.route(check(), provider())
    world.answers("check", fails("UNAVAILABLE"))
    await world.failure()
    world.answers("check", PASS)
    await world.answer()
    world.answers("check", fails("UNAVAILABLE"))
    before = world.calls("check")
    await world.failure()
    assert world.calls("check") == before + 1, "5.1 tokens less the failure leave 4.1: too few"
    world.answers("check", PASS)
    for _ in range(20):
        await world.answer()
    world.answers("check", fails("UNAVAILABLE"))
    before = world.calls("check")
    await world.failure()
    assert world.calls("check") == before + 2, "6.1 tokens less the failure leave 5.1: one retry"


async def test_a_swap_lets_go_of_what_guarded_the_calls_of_the_table_before(world: World) -> None:
    world.route(check(), provider())
    await world.answer()
    before = set(world.runtime._guards)
    assert {call.extension_id for call in before} == {"check", "main"}
    world.have("main", "provider", timeout_ms=2_000)
    world.route(check(timeout_ms=50), provider())
    assert not world.runtime._guards
    await world.answer()
    assert not before & set(world.runtime._guards)
