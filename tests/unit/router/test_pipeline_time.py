"""Deadlines and retry in the pipeline."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_contract.errors import ErrorCode
from beamline_router.core.ports import TransportFault
from beamline_router.fakes import After, FakeRng
from harness.router_world import (
    World,
    check,
    fails,
    pre,
    provider,
    says,
)

TIMED_OUT = TransportFault.TIMED_OUT


async def test_an_attempt_gets_its_own_timeout_when_there_is_time(world: World) -> None:
    world.route(provider())
    await world.answer(deadline=world.clock.now + 60)
    assert world.transport.sent[0].timeout_s == 1.0


async def test_an_attempt_gets_what_remains_less_ten_milliseconds_when_time_is_short(world: World) -> None:
    world.route(provider())
    await world.answer(deadline=world.clock.now + 0.5)
    sent = world.transport.sent[0]
    assert sent.timeout_s == pytest.approx(0.49)
    assert sent.headers["Beamline-Deadline-Ms"] in {"489", "490"}
    assert int(sent.headers["Beamline-Deadline-At"]) == pytest.approx(
        (world.clock.wall() + 0.49) * 1000, abs=2
    )


async def test_every_hop_subtracts_what_the_ones_before_took(world: World) -> None:
    world.answers("pre", After(0.3, {}))
    world.route(pre(), provider())
    await world.answer(deadline=world.clock.now + 1)
    assert world.transport.sent[1].timeout_s == pytest.approx(0.69)


async def test_the_policys_deadline_holds_where_the_caller_asks_for_more(world: World) -> None:
    world.route(provider(), deadline_ms=500)
    await world.answer(deadline=world.clock.now + 60)
    assert world.transport.sent[0].timeout_s == pytest.approx(0.49)


async def test_the_deadline_ends_the_request_whatever_timeouts_and_retries_would_allow(world: World) -> None:
    world.have("check", "validator", retry=5)
    world.answers("check", TIMED_OUT)
    world.route(check(), provider(), deadline_ms=2_500)
    began = world.clock.now
    failure = await world.failure()
    assert failure.error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.clock.now - began <= 2.5
    assert world.calls("main") == 0


async def test_no_call_is_begun_once_the_time_is_over(world: World) -> None:
    world.route(pre(), provider())
    failure = await world.failure(deadline=world.clock.now + 0.01)
    assert failure.error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.transport.sent == []


async def test_a_fallback_gets_no_more_time_than_the_request_has(world: World) -> None:
    world.answers("main", TIMED_OUT)
    world.answers("second", TIMED_OUT)
    world.route(provider(fallback=["second", "third"]), deadline_ms=1_500)
    began = world.clock.now
    assert (await world.failure()).error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.clock.now - began <= 1.5
    assert world.calls("third") == 0


async def test_who_would_be_asked_too_late_is_not_blamed_for_it(world: World) -> None:
    world.answers("main", TIMED_OUT)
    world.route(provider(fallback=["second"]), deadline_ms=500)
    failure = await world.failure()
    assert (failure.error.code, failure.error.extension_id, failure.error.attempts) == (
        ErrorCode.DEADLINE_EXCEEDED,
        "main",
        1,
    )


async def test_a_retryable_error_is_tried_again(world: World) -> None:
    world.have("main", "provider", retry=2)
    world.answers("main", fails("UNAVAILABLE"), fails("UNAVAILABLE"), says())
    world.route(provider())
    answer = await world.answer()
    assert [sent.headers["Beamline-Attempt"] for sent in world.transport.sent] == ["1", "2", "3"]
    assert answer.trail[0].attempts == 3
    assert len(world.clock.slept) == 2


async def test_retry_counts_extra_attempts(world: World) -> None:
    world.have("main", "provider", retry=1)
    world.answers("main", fails("UNAVAILABLE"))
    world.route(provider())
    failure = await world.failure()
    assert (world.calls("main"), failure.error.attempts) == (2, 2)


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "PERMISSION_DENIED", "NOT_FOUND", "RESOURCE_EXHAUSTED"])
async def test_these_errors_are_not_retried_in_place(world: World, code: str) -> None:
    world.have("main", "provider", retry=5)
    world.answers("main", fails(code))
    world.route(provider())
    await world.failure()
    assert world.calls("main") == 1


async def test_an_error_that_says_not_retryable_is_not_retried(world: World) -> None:
    world.have("main", "provider", retry=5)
    world.answers("main", fails("UNAVAILABLE", retryable=False))
    world.route(provider())
    await world.failure()
    assert world.calls("main") == 1


@pytest.mark.parametrize(
    ("kind", "stated", "calls"),
    [
        pytest.param("provider", None, 1, id="a provider is not retried after a timeout"),
        pytest.param("provider", True, 2, id="a provider with retryOnTimeout is"),
        pytest.param("validator", None, 2, id="a validator is"),
        pytest.param("validator", False, 1, id="a validator without retryOnTimeout is not"),
    ],
)
async def test_retry_after_a_timeout(world: World, kind: str, stated: bool | None, calls: int) -> None:
    name = "main" if kind == "provider" else "check"
    world.have(name, kind, retry=1, **({} if stated is None else {"retryOnTimeout": stated}))
    world.answers(name, TIMED_OUT)
    world.route(check(), provider())
    await world.failure()
    assert world.calls(name) == calls


async def test_a_pause_that_would_leave_no_time_is_not_begun(world: World) -> None:
    world.rng = FakeRng(0.999)
    world.__post_init__()
    world.have("main", "provider", retry=5)
    world.answers("main", After(0.45, fails("UNAVAILABLE")))
    world.route(provider())
    began = world.clock.now
    await world.failure(deadline=began + 0.475)
    assert world.calls("main") == 1
    assert world.clock.now == began + 0.45


async def test_who_has_no_time_left_behind_a_pause_is_told_what_came_before_it(world: World) -> None:
    world.have("main", "provider", retry=5)
    world.answers("main", fails("UNAVAILABLE", retry_after_ms=70))
    world.route(provider())
    error = (await world.failure(deadline=world.clock.now + 0.0805)).error
    assert (error.code, error.attempts) == (ErrorCode.UNAVAILABLE, 1)


async def test_the_retry_budget_ends_retries_in_an_outage(world: World) -> None:
    world.have("main", "provider", retry=1, circuitBreaker={"failureThreshold": 10_000})
    world.answers("main", fails("UNAVAILABLE"))
    world.route(provider())
    for _ in range(100):
        await world.failure()
    assert world.calls("main") <= 120


async def test_a_step_overrides_timeout_and_retry_of_its_extension(world: World) -> None:
    world.answers("check", fails("UNAVAILABLE"))
    world.route(check(timeout_ms=50, retry=3), provider())
    await world.failure()
    assert [sent.timeout_s for sent in world.transport.sent] == [0.05] * 4


async def test_an_answer_that_comes_after_the_deadline_is_no_answer(world: World) -> None:
    def late(_: Any) -> dict[str, Any]:
        world.clock.now += 60
        return says()

    world.answers("main", late)
    world.route(provider(), deadline_ms=1_000)
    assert (await world.failure()).error.code is ErrorCode.DEADLINE_EXCEEDED
