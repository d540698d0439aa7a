"""Validators that run beside the provider call: the answer is held back until every verdict."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from beamline_contract.errors import ErrorCode
from beamline_router.core.ports import TransportFault
from beamline_router.core.request import Answer, Failure
from beamline_router.core.snapshot import compile_snapshot
from beamline_router.core.stream_port import Chunk
from beamline_router.fake_streams import Item, Wait
from beamline_router.fakes import After, FakeRng
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

END: dict[str, Any] = {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


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


@pytest.mark.parametrize(
    ("at", "attempts"),
    [
        pytest.param(0.2, 1, id="in its first attempt"),
        pytest.param(0.31, 1, id="in the pause behind it"),
        pytest.param(0.5, 2, id="in its second attempt"),
    ],
)
async def test_the_trail_has_all_attempts_of_a_call_that_a_rejection_cancels(
    at: float, attempts: int
) -> None:
    world = World(rng=FakeRng(0.9))
    world.have("main", "provider", retry=3)
    world.answers("check", After(at, REJECT))
    world.answers("main", After(0.3, fails("UNAVAILABLE")))
    world.route(check(overlap=True), provider())
    failure = await world.failure()
    assert world.calls("main") == attempts
    assert [(entry.reason, entry.attempts) for entry in failure.trail] == [
        ("VALIDATION_REJECTED", 1),
        ("CANCELLED", attempts),
    ]


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


# --- streams


async def test_a_stream_begins_beside_the_validator_and_leaves_with_its_verdict(world: World) -> None:
    world.answers("check", After(0.5, PASS))
    world.streams_from("main", [Wait(0.2), "Hel", "lo", END])
    world.route(check(overlap=True), provider())
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot, world.sink))
    await world.clock.advance(0.4)
    assert [sent.subject for sent in world.streams.sent] == ["test.main"]
    assert world.sink.deltas == []
    await world.clock.advance(0.2)
    assert [delta.text for delta in world.sink.deltas] == ["Hel", "lo"]
    answer = task.result()
    assert isinstance(answer, Answer)
    assert [(e.extension_id, e.outcome, e.why) for e in answer.trail] == [
        ("check", "ok", "overlap"),
        ("main", "ok", "ordered"),
    ]


async def test_a_verdict_that_is_there_first_holds_up_no_stream(world: World) -> None:
    world.answers("check", After(0.1, PASS))
    world.streams_from("main", [Wait(0.2), "Hel", Wait(0.5), "lo", END])
    world.route(check(overlap=True), provider())
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot, world.sink))
    await world.clock.advance(0.3)
    assert world.sink.text == "Hel"
    await world.clock.advance(0.6)
    assert task.done()


@pytest.mark.parametrize("reply", [REJECT, fails("INTERNAL")], ids=["rejects", "fails closed"])
async def test_nothing_of_a_stream_leaves_whose_validator(world: World, reply: Any) -> None:
    world.have("other", "validator")
    world.answers("other", PASS)
    world.answers("check", After(0.5, reply))
    world.streams_from("main", ["the secret " * 100, Wait(0.9), "more", END])
    world.route(check("other", overlap=True), check(overlap=True), provider(fallback=["second"]), post())
    result = await world.stream()
    assert isinstance(result, Failure)
    assert result.error.extension_id == "check"
    assert world.sink.deltas == []
    assert world.calls("post") == 0
    assert world.streams.cancelled == ["test.main"]
    assert world.runtime.breaker_states()["main"] == "closed"
    assert world.runtime.in_flight() == {}


SAYS_CALLS = {"message": {"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]}}
SHORT: dict[str, list[Item]] = {
    "tool calls alone": [Chunk(orjson.dumps(SAYS_CALLS)), END],
    "a whole reply": [Chunk(orjson.dumps({"output": "the secret", **END}), last=True, whole=True)],
    "nothing": [END],
}


@pytest.mark.parametrize("after", [(), (post(),)], ids=["bare", "with a post step"])
@pytest.mark.parametrize("script", SHORT.values(), ids=SHORT.keys())
async def test_a_short_stream_waits_for_the_verdict_too(
    world: World, script: list[Item], after: tuple[dict[str, Any], ...]
) -> None:
    world.answers("check", After(0.5, REJECT))
    world.streams_from("main", script)
    world.route(check(overlap=True), provider(), *after)
    result = await world.stream()
    assert isinstance(result, Failure)
    assert result.error.code is ErrorCode.VALIDATION_REJECTED
    assert (world.sink.deltas, world.calls("post")) == ([], 0)


async def test_a_stream_that_can_not_begin_falls_back_beside_the_validator(world: World) -> None:
    world.answers("check", After(0.5, PASS))
    world.streams_from("main", [fails("UNAVAILABLE")])
    world.streams_from("second", ["two", END])
    world.route(check(overlap=True), provider(fallback=["second"]))
    answer = await world.stream()
    assert isinstance(answer, Answer)
    assert (answer.provider_id, world.sink.text) == ("second", "two")


async def test_the_deadline_of_a_held_stream_ends_it(world: World) -> None:
    world.answers("check", TransportFault.TIMED_OUT)
    world.streams_from("main", ["the secret", Wait(9.0), END])
    world.route(check(overlap=True, timeout_ms=60_000), provider(), deadline_ms=500)
    result = await world.stream()
    assert isinstance(result, Failure)
    assert result.error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.sink.deltas == []


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
