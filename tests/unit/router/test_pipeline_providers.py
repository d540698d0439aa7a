"""Fallback, breaker, bulkhead and cooldown in the pipeline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beamline_contract.errors import ErrorCode
from beamline_router.core.explain import explain
from beamline_router.core.ports import TransportFault
from beamline_router.fakes import After
from harness.router_world import (
    PASS,
    World,
    check,
    fails,
    provider,
    providers,
    request,
    says,
)

NO_RESPONDERS = TransportFault.NO_RESPONDERS
TIMED_OUT = TransportFault.TIMED_OUT


FALLS_BACK = [
    pytest.param(NO_RESPONDERS, id="nobody listens"),
    pytest.param(TransportFault.DISCONNECTED, id="the router is not connected"),
    pytest.param(TIMED_OUT, id="it timed out"),
    pytest.param(fails("RESOURCE_EXHAUSTED"), id="it answers 429"),
    pytest.param(fails("UNAVAILABLE"), id="it is unavailable"),
    pytest.param(fails("INTERNAL"), id="it has a fault"),
    pytest.param(fails("provider_error"), id="it answers a foreign provider_error"),
    pytest.param(b"[]", id="its reply is malformed"),
]


@pytest.mark.parametrize("reply", FALLS_BACK)
async def test_the_fallback_is_asked_when(world: World, reply: Any) -> None:
    world.answers("main", reply)
    world.route(provider(fallback=["second"]))
    answer = await world.answer()
    assert answer.provider_id == "second"
    assert [(e.extension_id, e.outcome) for e in answer.trail] == [("main", "error"), ("second", "ok")]


@pytest.mark.parametrize("how", ["unknown", "disabled"])
async def test_the_fallback_is_asked_for_a_provider_that_is(world: World, how: str) -> None:
    if how == "unknown":
        world.lack("main")
    else:
        world.have("main", "provider", enabled=False)
    world.route(provider(fallback=["second"]))
    assert (await world.answer()).provider_id == "second"


@pytest.mark.parametrize(
    "code", ["INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "CANCELLED"]
)
async def test_no_fallback_is_asked_after_a_fault_of_the_caller(world: World, code: str) -> None:
    world.answers("main", fails(code))
    world.route(provider(fallback=["second"]))
    assert (await world.failure()).error.code == code
    assert world.calls("second") == 0


async def test_no_fallback_is_asked_after_a_timeout_where_a_second_call_is_forbidden(world: World) -> None:
    world.have("main", "provider", retryOnTimeout=False)
    world.answers("main", TIMED_OUT)
    world.route(provider(fallback=["second"]))
    assert (await world.failure()).error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.calls("second") == 0


async def test_the_fallback_list_is_asked_in_order(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.answers("second", NO_RESPONDERS)
    world.route(provider(fallback=["second", "third"]))
    assert (await world.answer()).provider_id == "third"
    assert world.order() == ["main", "second", "third"]


async def test_the_policys_fallback_is_used_where_the_step_has_none(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.route(provider(), fallback=["third"])
    assert (await world.answer()).provider_id == "third"


async def test_the_steps_fallback_replaces_the_policys(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.route(provider(fallback=["second"]), fallback=["third"])
    assert (await world.answer()).provider_id == "second"


async def test_ordered_providers_are_asked_one_after_the_other(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.route(providers({"main": 1, "second": 1}, strategy="ordered", fallback=["third", "main"]))
    assert (await world.answer()).provider_id == "second"
    assert world.order() == ["main", "second"]


async def test_a_weighted_choice_is_followed_by_the_fallback_and_not_by_its_siblings(world: World) -> None:
    world.answers("main", NO_RESPONDERS)
    world.route(providers({"main": 90, "second": 10}, fallback=["third"]))
    assert (await world.answer()).provider_id == "third"


async def test_a_request_makes_at_most_six_provider_attempts(world: World) -> None:
    for name in ("main", "second", "third"):
        world.have(name, "provider", retry=3)
        world.answers(name, fails("UNAVAILABLE"))
    world.route(provider(fallback=["second", "third"]))
    failure = await world.failure()
    assert len(world.transport.sent) == 6
    assert failure.error.attempts == 6


async def test_five_failures_open_the_breaker_and_a_validator_then_fails_without_a_call(world: World) -> None:
    world.route(check(), provider())
    await world.open_breaker("check")
    failure = await world.failure()
    assert world.calls("check") == 5
    assert failure.error.code is ErrorCode.UNAVAILABLE
    assert failure.error.retry_after_ms == 30_000
    assert failure.trail[-1].breaker == "open"
    assert world.recorder.breakers == [("check", "open")]


async def test_an_open_breaker_leads_to_the_fallback(world: World) -> None:
    world.route(provider())
    await world.open_breaker("main")
    world.route(provider(fallback=["second"]))
    assert (await world.answer()).provider_id == "second"
    assert world.calls("main") == 5


async def test_the_breaker_lets_a_probe_through_when_its_time_is_over_and_closes_after_three(
    world: World,
) -> None:
    world.route(check(), provider())
    await world.open_breaker("check")
    world.answers("check", PASS)
    await world.clock.advance(30)
    for expected in ("half-open", "half-open", "closed"):
        await world.answer()
        assert world.runtime.breaker_states()["check"] == expected


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(fails("INVALID_ARGUMENT"), id="the request is at fault"),
        pytest.param(fails("NOT_FOUND"), id="the model is unknown"),
        pytest.param(TransportFault.DISCONNECTED, id="the router is not connected"),
        pytest.param(TransportFault.TOO_LARGE, id="the message is too large"),
    ],
)
async def test_a_breaker_is_untouched_when(world: World, reply: Any) -> None:
    world.answers("check", reply)
    world.route(check(), provider())
    for _ in range(20):
        await world.failure()
    assert world.runtime.breaker_states()["check"] == "closed"
    assert not any(failed for _, failed, _ in world.recorder.attempts)


async def test_a_timeout_that_the_requests_deadline_caused_does_not_count(world: World) -> None:
    world.answers("check", TIMED_OUT)
    world.route(check(), provider())
    for _ in range(20):
        await world.failure(deadline=world.clock.now + 0.2)
    assert world.runtime.breaker_states()["check"] == "closed"


@pytest.mark.parametrize(
    "reply", [TIMED_OUT, NO_RESPONDERS, b"\xff", fails("INTERNAL"), {"verdict": "maybe"}]
)
async def test_these_failures_count_for_the_breaker(world: World, reply: Any) -> None:
    world.answers("check", reply)
    world.route(check(), provider())
    for _ in range(5):
        await world.failure()
    assert world.runtime.breaker_states()["check"] == "open"


async def test_slow_answers_open_the_breaker(world: World) -> None:
    world.answers("check", After(0.85, PASS))
    world.route(check(), provider())
    for _ in range(10):
        await world.answer()
    assert world.runtime.breaker_states()["check"] == "open"


async def test_timeouts_are_slow_calls_too(world: World) -> None:
    world.have("check", "validator", circuitBreaker={"failureThreshold": 10_000})
    world.answers("check", TIMED_OUT)
    world.route(check(), provider())
    for _ in range(10):
        assert world.runtime.breaker_states().get("check") != "open"
        await world.failure()
    assert world.runtime.breaker_states()["check"] == "open"


async def test_once_the_time_is_over_the_rest_of_the_list_is_left_alone(world: World) -> None:
    world.answers("main", After(0.195, fails("UNAVAILABLE")))
    world.route(provider(fallback=["second", "third"]))
    failure = await world.failure(deadline=world.clock.now + 0.2)
    assert [(e.extension_id, e.attempts) for e in failure.trail] == [("main", 1), ("second", 0)]


async def test_an_error_of_somebody_who_was_asked_is_told_before_one_of_somebody_who_was_not(
    world: World,
) -> None:
    world.route(provider("second"))
    await world.open_breaker("second")
    world.answers("main", fails("INTERNAL"))
    world.route(provider(fallback=["second"]))
    failure = await world.failure()
    assert (failure.error.code, failure.error.extension_id) == (ErrorCode.INTERNAL, "main")
    assert world.calls("second") == 5


async def test_there_is_no_last_trial_where_one_was_only_full(world: World) -> None:
    world.route(provider("second"))
    await world.open_breaker("second")
    world.have("main", "provider", concurrency=1)
    world.answers("main", After(0.5, says()))
    world.route(provider(fallback=["second"]))
    first = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    failure = await world.failure()
    assert (failure.error.code, failure.error.extension_id) == (ErrorCode.RESOURCE_EXHAUSTED, "main")
    assert [(entry.extension_id, entry.why) for entry in failure.trail] == [
        ("main", "ordered"),
        ("second", "fallback"),
    ]
    assert world.calls("second") == 5
    await world.clock.advance(1)
    assert first.done()


async def test_a_429_is_a_cooldown_and_not_a_failure(world: World) -> None:
    world.answers("check", fails("RESOURCE_EXHAUSTED", retry_after_ms=2_000), PASS)
    world.route(check(), provider())
    assert (await world.failure()).error.code is ErrorCode.RESOURCE_EXHAUSTED
    failure = await world.failure()
    assert (failure.error.code, failure.error.retry_after_ms) == (ErrorCode.RESOURCE_EXHAUSTED, 2_000)
    assert world.calls("check") == 1
    assert world.runtime.breaker_states()["check"] == "closed"
    await world.clock.advance(2)
    await world.answer()


async def test_when_all_are_open_the_one_that_reopens_first_gets_one_trial(world: World) -> None:
    world.have("second", "provider", circuitBreaker={"recoveryTimeoutMs": 5_000})
    world.route(provider())
    await world.open_breaker("main")
    world.route(provider("second"))
    await world.open_breaker("second")
    world.answers("main", says("main"))
    world.answers("second", says("second"))
    world.route(provider(fallback=["second"]))
    before = len(world.transport.sent)
    answer = await world.answer()
    assert answer.provider_id == "second"
    assert len(world.transport.sent) == before + 1


async def both_open(world: World, **second: Any) -> None:
    """``main`` reopens in 30 s, ``second`` in 5 s."""
    world.have("second", "provider", circuitBreaker={"recoveryTimeoutMs": 5_000}, **second)
    for name in ("main", "second"):
        world.route(provider(name))
        await world.open_breaker(name)
        world.answers(name, says(name))


@pytest.mark.parametrize("strategy", ["weighted", "sticky", "least_inflight", "latency", "score", "ordered"])
async def test_the_last_trial_is_for_the_one_that_reopens_first_whoever_was_drawn(
    world: World, strategy: str
) -> None:
    await both_open(world)
    world.route(providers({"main": 1_000, "second": 1}, strategy=strategy))
    before = len(world.transport.sent)
    answer = await world.answer()
    assert (answer.provider_id, answer.trail[-1].why) == ("second", "last trial")
    assert len(world.transport.sent) == before + 1


async def test_the_last_trial_is_for_the_version_that_reopens_first(world: World) -> None:
    await both_open(world, weight=1, versionOf="main")
    world.have("main", "provider", weight=1_000)
    world.route(provider("main"))
    assert (await world.answer()).provider_id == "second"


async def test_the_last_trial_is_for_one_that_is_open_also_where_one_that_asked_for_a_pause_was_drawn(
    world: World,
) -> None:
    world.route(provider())
    await world.open_breaker("main")
    world.answers("second", fails("RESOURCE_EXHAUSTED", retry_after_ms=20_000))
    world.route(provider("second"))
    await world.failure()
    world.answers("main", says("main"))
    world.route(providers({"second": 1, "main": 1}, strategy="weighted"))
    answer = await world.answer()
    assert [(entry.extension_id, entry.outcome, entry.why) for entry in answer.trail] == [
        ("second", "error", "weighted"),
        ("main", "ok", "last trial"),
    ]
    assert world.calls("second") == 1


async def test_no_last_trial_for_one_without_weight(world: World) -> None:
    await both_open(world)
    world.route(providers({"main": 1, "second": 0}, strategy="weighted"))
    assert (await world.answer()).provider_id == "main"


async def test_who_is_being_tried_already_leaves_the_last_trial_to_the_next(world: World) -> None:
    await both_open(world)
    world.answers("second", After(0.5, says("second")))
    world.route(provider(fallback=["second"]))
    first = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    assert (await world.answer()).provider_id == "main"
    await world.clock.advance(1)
    assert first.done()


async def test_ordered_providers_without_weight_are_not_asked(world: World) -> None:
    world.answers("second", NO_RESPONDERS)
    world.route(providers({"main": 0, "second": 1, "third": 1}, strategy="ordered"))
    assert (await world.answer()).provider_id == "third"
    assert world.order() == ["second", "third"]
    told = explain(request(), world.snapshot)["steps"][0]
    assert told["first"] == "second"


async def test_a_trial_that_fails_makes_no_second_one_and_keeps_the_breaker_open(world: World) -> None:
    world.route(provider())
    await world.open_breaker("main")
    world.have("main", "provider", retry=3, retryBudget={"tokens": 100})
    world.route(provider())
    before = world.calls("main")
    world.answers("main", fails("INTERNAL"))
    await world.failure()
    assert world.calls("main") == before + 1
    assert world.runtime.breaker_states()["main"] == "open"


async def test_an_isolated_provider_gets_no_trial_until_reset(world: World) -> None:
    world.route(provider())
    main = world.snapshot.lookup("main")
    assert main is not None
    world.runtime.isolate(main)
    assert (await world.failure()).error.code is ErrorCode.UNAVAILABLE
    assert world.calls("main") == 0
    assert world.runtime.breaker_states() == {"main": "isolated"}
    world.runtime.reset(main)
    await world.answer()


async def test_an_isolated_extension_is_so_for_a_step_that_a_later_snapshot_brings(world: World) -> None:
    world.route(check(), provider())
    found = world.snapshot.lookup("check")
    assert found is not None
    world.runtime.isolate(found)
    world.route(check(circuit_breaker={"failure_threshold": 2}), provider())
    assert (await world.failure()).error.code is ErrorCode.UNAVAILABLE
    assert world.calls("check") == 0
    assert world.runtime.breaker_states()["check@only/0"] == "isolated"


async def test_a_full_bulkhead_refuses_at_once_and_the_fallback_answers(world: World) -> None:
    world.have("main", "provider", concurrency=2)
    world.answers("main", After(0.5, says()))
    world.route(provider(fallback=["second"]))
    running = [asyncio.create_task(world.pipeline.run(request(), world.snapshot)) for _ in range(2)]
    await world.clock.settle()
    answer = await world.answer()
    assert answer.provider_id == "second"
    assert answer.trail[0].reason == "RESOURCE_EXHAUSTED"
    await world.clock.advance(1)
    assert all(task.done() for task in running)
    assert (await world.answer()).provider_id == "main"


async def test_a_step_with_breaker_settings_of_its_own_has_a_breaker_of_its_own(world: World) -> None:
    world.answers("check", fails("INTERNAL"))
    world.route(check(circuit_breaker={"failure_threshold": 2}), provider())
    for _ in range(2):
        await world.failure()
    assert world.runtime.breaker_states() == {"check@only/0": "open"}
