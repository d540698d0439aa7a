"""Validators that run beside the provider call: the answer is held back until every verdict."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beamline_contract.errors import ErrorCode
from beamline_router.core.request import Failure
from beamline_router.core.snapshot import compile_snapshot
from beamline_router.fakes import After
from harness.router_world import (
    PASS,
    REJECT,
    World,
    check,
    fails,
    policy,
    post,
    pre,
    provider,
    request,
    says,
)


async def test_both_run_at_once_and_the_slower_one_decides_how_long_it_takes(world: World) -> None:
    world.answers("check", After(0.3, PASS))
    world.answers("main", After(0.5, says()))
    world.route(check(overlap=True), provider())
    began = world.clock.now
    answer = await world.answer()
    assert world.clock.now - began == pytest.approx(0.5)
    assert [(e.extension_id, e.outcome, e.why) for e in answer.trail] == [
        ("check", "ok", "overlap"),
        ("main", "ok", "ordered"),
    ]


async def test_an_answer_that_is_there_waits_for_the_verdict(world: World) -> None:
    world.answers("check", After(0.8, PASS))
    world.route(check(overlap=True), provider())
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.advance(0.7)
    assert not task.done()
    await world.clock.advance(0.2)
    assert task.done()


async def test_a_rejection_cancels_the_provider_call(world: World) -> None:
    world.answers("check", After(0.2, REJECT))
    world.answers("main", After(0.9, says("the secret")))
    world.route(check(overlap=True), provider(fallback=["second"]), post())
    began = world.clock.now
    failure = await world.failure()
    assert failure.error.code is ErrorCode.VALIDATION_REJECTED
    assert world.clock.now - began == pytest.approx(0.2)
    assert world.transport.cancelled == ["test.main"]
    assert world.order() == ["check", "main"]
    assert [(e.extension_id, e.outcome, e.reason) for e in failure.trail] == [
        ("check", "rejected", "VALIDATION_REJECTED"),
        ("main", "error", "CANCELLED"),
    ]
    assert world.runtime.load("main").in_flight == 0
    assert world.runtime.breaker_states()["main"] == "closed"
    assert not any(failed for _, failed, _ in world.recorder.attempts)


async def test_nothing_of_an_answer_leaks_that_was_there_before_the_rejection(world: World) -> None:
    world.answers("check", After(0.5, REJECT))
    world.answers("main", {**says("the secret"), "metadata": {"note": "the secret"}})
    world.route(check(overlap=True), provider(), post())
    failure = await world.failure()
    assert failure.error.code is ErrorCode.VALIDATION_REJECTED
    assert "the secret" not in repr((failure.error.to_wire(), [e.to_wire() for e in failure.trail]))
    assert world.calls("post") == 0


async def test_one_rejection_of_several_is_enough(world: World) -> None:
    world.have("other", "validator")
    world.answers("other", After(0.1, REJECT))
    world.answers("check", After(0.7, PASS))
    world.answers("main", After(0.9, says()))
    world.route(check(overlap=True), check("other", overlap=True), provider())
    failure = await world.failure()
    assert failure.error.extension_id == "other"
    assert sorted(world.transport.cancelled) == ["test.check", "test.main"]


@pytest.mark.parametrize(
    ("mode", "answered"),
    [pytest.param("open", True, id="open lets it pass"), pytest.param("closed", False, id="closed ends it")],
)
async def test_the_failure_mode_of_an_overlapping_validator(world: World, mode: str, answered: bool) -> None:
    world.answers("check", After(0.1, fails("INTERNAL")))
    world.answers("main", After(0.4, says()))
    world.route(check(overlap=True, failure_mode=mode), provider())
    result = await world.ask()
    assert isinstance(result, Failure) is not answered
    assert world.transport.cancelled == ([] if answered else ["test.main"])


async def test_a_provider_that_fails_ends_the_request_and_the_validator(world: World) -> None:
    world.answers("check", After(0.9, PASS))
    world.answers("main", After(0.1, fails("INVALID_ARGUMENT")))
    world.route(check(overlap=True), provider())
    assert (await world.failure()).error.code is ErrorCode.INVALID_ARGUMENT
    assert world.transport.cancelled == ["test.check"]


async def test_what_stands_before_ends_before_anything_overlaps(world: World) -> None:
    world.have("first", "validator")
    world.answers("first", REJECT)
    world.route(pre(), check("first"), check(overlap=True), provider())
    await world.failure()
    assert world.order() == ["pre", "first"]


async def test_an_overlapping_validator_sees_what_pre_steps_made(world: World) -> None:
    world.answers("pre", {"prompt": "changed"})
    world.route(pre(), check(overlap=True), provider())
    await world.answer()
    assert world.transport.calls("test.check")[0].body["prompt"] == "changed"
    assert "output" not in world.transport.calls("test.check")[0].body


async def test_a_pre_step_that_answers_leaves_it_out_as_well(world: World) -> None:
    world.answers("pre", {"output": "cached"})
    world.route(pre(), check(overlap=True), provider())
    await world.answer()
    assert world.order() == ["pre"]


async def test_cancelling_the_caller_cancels_both(world: World) -> None:
    world.answers("check", After(0.9, PASS))
    world.answers("main", After(0.9, says()))
    world.route(check(overlap=True), provider())
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(world.transport.cancelled) == ["test.check", "test.main"]


async def test_a_fault_of_the_transport_beside_a_validator_becomes_one_internal_error(world: World) -> None:
    world.answers("check", After(0.5, PASS))
    world.answers("main", RuntimeError("secret content"))
    world.route(check(overlap=True), provider())
    failure = await world.failure()
    assert failure.error.code is ErrorCode.INTERNAL
    assert world.transport.cancelled == ["test.check"]


BROKEN: list[Any] = [
    pytest.param([check(overlap=True), pre(), provider()], "spec.steps[1]", id="before a pre step"),
    pytest.param([check(overlap=True), check(), provider()], "spec.steps[1]", id="before one without it"),
    pytest.param([pre(overlap=True), provider()], "spec.steps[0].overlap", id="on a pre step"),
    pytest.param([check(overlap=True, group="g"), provider()], "spec.steps[0].overlap", id="in a group"),
    pytest.param([check(overlap=True, mode="shadow"), provider()], "spec.steps[0].overlap", id="in shadow"),
    pytest.param([check(overlap="yes"), provider()], "spec.steps[0].overlap", id="that is text"),
]


@pytest.mark.parametrize(("steps", "field"), BROKEN)
def test_the_compiler_refuses_overlap(steps: list[dict[str, Any]], field: str) -> None:
    result = compile_snapshot([], [policy("p", steps)], revision=1, previous=None)
    assert [refused.field for refused in result.refused] == [field]
