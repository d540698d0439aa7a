"""Order, messages, short circuit, context: what a request goes through."""

from __future__ import annotations

import asyncio

import pytest

from beamline_contract.errors import ErrorCode
from beamline_router.fakes import After
from harness.router_world import (
    PASS,
    World,
    check,
    post,
    pre,
    provider,
    request,
    says,
)


async def test_steps_run_in_the_listed_order(world: World) -> None:
    world.route(pre(), check(), provider(), post())
    answer = await world.answer()
    assert world.order() == ["pre", "check", "main", "post"]
    assert [(entry.extension_id, entry.outcome) for entry in answer.trail] == [
        ("pre", "ok"),
        ("check", "ok"),
        ("main", "ok"),
        ("post", "ok"),
    ]


async def test_a_pre_step_and_a_validator_may_stand_in_any_order(world: World) -> None:
    world.route(check(), pre(), provider())
    await world.answer()
    assert world.order() == ["check", "pre", "main"]


async def test_an_extension_gets_exactly_the_message_of_the_wire_contract(world: World) -> None:
    world.have("main", "provider", config={"model": "m", "temperature": 0})
    world.route(provider(config={"model": "n"}))
    await world.answer(parameters={"temperature": 0}, context={"lang": "en"}, trace_id="a" * 32)
    assert world.transport.sent[0].body == {
        "trace_id": "a" * 32,
        "request_id": "req-1",
        "tenant_id": "acme",
        "extension_id": "main",
        "provider_id": "main",
        "prompt": "Hi",
        "parameters": {"temperature": 0},
        "config": {"model": "n", "temperature": 0},
        "context": {"lang": "en"},
    }


async def test_messages_are_sent_instead_of_a_prompt(world: World) -> None:
    world.route(provider())
    await world.answer(prompt=None, messages=[{"role": "user", "content": "Hi"}])
    body = world.transport.sent[0].body
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert "prompt" not in body


async def test_a_pre_steps_patch_reaches_the_provider(world: World) -> None:
    world.answers("pre", {"prompt": "hi", "context": {"b": 2}, "parameters": {"max_tokens": 5}})
    world.route(pre(), provider())
    await world.answer(context={"a": 1}, parameters={"temperature": 0})
    body = world.transport.calls("test.main")[0].body
    assert body["prompt"] == "hi"
    assert body["context"] == {"a": 1, "b": 2}
    assert body["parameters"] == {"temperature": 0, "max_tokens": 5}


async def test_a_post_step_gets_the_answer_and_changes_it(world: World) -> None:
    world.answers("post", {"output": "masked", "metadata": {"masked": 1}})
    world.route(provider(), post())
    answer = await world.answer()
    body = world.transport.calls("test.post")[0].body
    assert (body["output"], body["prompt"]) == ("main", "Hi")
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert answer.output == "masked"
    assert answer.metadata["masked"] == 1


async def test_an_answer_always_has_its_four_metadata_fields(world: World) -> None:
    world.answers(
        "main", After(0.25, {**says(), "metadata": {"model": 7, "latency_ms": True, "trace_id": "x"}})
    )
    world.route(provider())
    answer = await world.answer(model="gpt-4", trace_id="a" * 32)
    assert answer.metadata == {
        "model": "gpt-4",
        "finish_reason": "stop",
        "latency_ms": 250.0,
        "trace_id": "a" * 32,
    }


async def test_a_request_that_no_policy_takes_is_not_found(world: World) -> None:
    failure = await world.failure()
    assert (failure.error.code, failure.error.request_id) == (ErrorCode.NOT_FOUND, "req-1")


async def test_a_pre_step_that_answers_leaves_out_the_provider_but_not_the_post_steps(world: World) -> None:
    world.have("later", "pre")
    world.answers("pre", {"output": "from the cache"})
    world.route(pre(), pre("later"), check(), provider(), post())
    answer = await world.answer()
    assert world.order() == ["pre", "post"]
    assert (answer.output, answer.provider_id) == ("from the cache", "pre")
    assert answer.usage["total_tokens"] == 0


async def test_an_empty_text_is_an_answer_too(world: World) -> None:
    world.answers("pre", {"output": ""})
    world.route(pre(), provider())
    assert (await world.answer()).output == ""
    assert world.calls("main") == 0


@pytest.mark.parametrize(
    "name", ["tenant_id", "request_id", "trace_id", "extension_id", "provider_id", "deadline_ms", "route"]
)
async def test_a_pre_step_cant_change(world: World, name: str) -> None:
    world.answers("pre", {name: "evil", "prompt": "hi"})
    world.route(pre(), provider())
    answer = await world.answer()
    body = world.transport.calls("test.main")[0].body
    assert body["prompt"] == "hi"
    assert "evil" not in body.values()
    assert answer.provider_id == "main"
    assert world.recorder.drops == [("pre", name)]


async def test_a_provider_cant_pose_as_another(world: World) -> None:
    world.answers("main", {**says(), "provider_id": "second"})
    world.route(provider())
    assert (await world.answer()).provider_id == "main"
    assert world.recorder.drops == [("main", "provider_id")]


async def test_the_callers_trace_goes_on_with_a_span_of_its_own_per_step(world: World) -> None:
    world.route(pre(), provider())
    parent = f"00-{'4b' * 16}-{'0a' * 8}-00"
    answer = await world.answer(traceparent=parent, tracestate="a=b", baggage="k=v")
    first, second = (sent.headers for sent in world.transport.sent)
    assert first["traceparent"].startswith(f"00-{'4b' * 16}-")
    assert first["traceparent"].endswith("-00")
    assert len({parent, first["traceparent"], second["traceparent"]}) == 3
    assert (first["tracestate"], first["baggage"], first["Beamline-Request-Id"]) == ("a=b", "k=v", "req-1")
    assert answer.metadata["trace_id"] == "4b" * 16


@pytest.mark.parametrize(
    "bad", [None, "", "garbage", f"00-{'0' * 32}-{'1' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01"]
)
async def test_without_a_valid_trace_a_new_one_is_started(world: World, bad: str | None) -> None:
    world.route(provider())
    await world.answer(traceparent=bad)
    version, trace_id, span_id, flags = world.transport.sent[0].headers["traceparent"].split("-")
    assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "01")
    assert int(trace_id, 16)


async def test_a_value_that_could_break_a_header_line_is_not_passed_on(world: World) -> None:
    world.route(provider())
    await world.answer(baggage="a=b\r\nBeamline-Deadline-Ms: 1")
    assert "baggage" not in world.transport.sent[0].headers


async def test_cancelling_the_caller_cancels_the_step_that_runs(world: World) -> None:
    world.answers("main", After(0.9, says()))
    world.route(provider())
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.transport.cancelled == ["test.main"]
    assert world.recorder.steps == [("main", "provider", "error", "CANCELLED")]
    assert world.recorder.attempts == [("main", False, "CANCELLED")]
    assert world.runtime.load("main").in_flight == 0


async def test_cancelling_the_caller_cancels_a_whole_group(world: World) -> None:
    world.have("other", "validator")
    world.answers("other", After(0.9, PASS))
    world.answers("check", After(0.9, PASS))
    world.route(check(group="g"), check("other", group="g"), provider())
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(world.transport.cancelled) == ["test.check", "test.other"]


async def test_a_cancelled_probe_gives_its_place_back(world: World) -> None:
    world.route(check(), provider())
    await world.open_breaker("check")
    world.answers("check", After(0.9, PASS))
    await world.clock.advance(30)
    task = asyncio.create_task(world.pipeline.run(request(), world.snapshot))
    await world.clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.answer()


async def test_a_fault_of_the_transport_becomes_internal_and_holds_nothing_back(world: World) -> None:
    world.answers("main", RuntimeError("secret content"))
    world.route(provider())
    failure = await world.failure()
    assert failure.error.code is ErrorCode.INTERNAL
    assert "secret" not in failure.error.message
    assert world.runtime.load("main").in_flight == 0
    assert world.runtime.breaker_states() == {"main": "closed"}
