"""Streaming through the pipeline: the commit point, stalls, whose fault it is, and post steps in windows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beamline_contract.errors import ErrorCode
from beamline_router.core.ports import TransportFault
from beamline_router.core.request import Answer, Failure
from beamline_router.core.stream_port import Chunk, SinkStalledError, StreamFault
from beamline_router.fake_streams import FakeSink, Wait
from harness.router_world import REJECT, World, check, fails, post, pre, provider, request

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
END: dict[str, Any] = {"usage": USAGE, "metadata": {"model": "m", "finish_reason": "length"}}


async def answered(world: World) -> Answer:
    result = await world.stream()
    assert isinstance(result, Answer), result
    return result


async def failed(world: World) -> Failure:
    result = await world.stream()
    assert isinstance(result, Failure), result
    return result


def attempts(world: World) -> list[tuple[str, bool, str | None]]:
    return world.recorder.attempts


async def test_chunks_are_delivered_as_they_come_and_the_answer_is_their_sum(world: World) -> None:
    world.route(pre(), check(), provider())
    world.streams_from("main", ["Hel", Wait(0.2), "lo", END])
    answer = await answered(world)
    assert [delta.text for delta in world.sink.deltas] == ["Hel", "lo"]
    assert (answer.output, answer.usage) == ("Hello", USAGE)
    assert (answer.metadata["model"], answer.metadata["finish_reason"]) == ("m", "length")
    assert [(entry.extension_id, entry.outcome) for entry in answer.trail] == [
        ("pre", "ok"),
        ("check", "ok"),
        ("main", "ok"),
    ]


async def test_a_provider_is_told_the_requests_deadline_and_the_window(world: World) -> None:
    world.route(provider(), deadline_ms=30_000)
    world.streams_from("main", ["x", END])
    await answered(world)
    headers = world.streams.sent[0].headers
    assert (headers["Beamline-Stream"], headers["Beamline-Stream-Window"]) == ("1", "64")
    assert headers["Beamline-Deadline-Ms"] == "30000"


async def test_nothing_is_streamed_after_a_rejection(world: World) -> None:
    world.answers("check", REJECT)
    world.route(check(), provider())
    world.streams_from("main", ["x", END])
    assert (await failed(world)).error.code is ErrorCode.VALIDATION_REJECTED
    assert world.streams.sent == []
    assert world.sink.deltas == []


BEFORE_THE_FIRST_CHUNK: dict[str, Any] = {
    "an error": [fails("UNAVAILABLE")],
    "silence": [Wait(5.0), "late", END],
    "no responder": [TransportFault.NO_RESPONDERS],
    "a missing chunk": [StreamFault.GAP],
}


@pytest.mark.parametrize("script", BEFORE_THE_FIRST_CHUNK.values(), ids=BEFORE_THE_FIRST_CHUNK.keys())
async def test_before_the_first_chunk_the_next_provider_is_asked(world: World, script: list[Any]) -> None:
    world.route(provider(retry_on_timeout=True), fallback=["second"])
    world.streams_from("main", script)
    world.streams_from("second", ["from the ", "second", END])
    answer = await answered(world)
    assert (answer.output, answer.provider_id) == ("from the second", "second")
    assert world.sink.text == "from the second"


AFTER_IT: dict[str, Any] = {
    "an error": ["one", fails("UNAVAILABLE")],
    "silence": ["one", Wait(5.0), "late", END],
    "a lost connection": ["one", TransportFault.DISCONNECTED],
    "a missing chunk": ["one", StreamFault.GAP],
    "a sender out of control": ["one", StreamFault.OVERRUN],
    "an end that is no valid reply": ["one", {"usage": {"prompt_tokens": -1}}],
    "a whole reply": ["one", Chunk(b'{"output":"all of it"}', last=True, whole=True)],
}


@pytest.mark.parametrize("script", AFTER_IT.values(), ids=AFTER_IT.keys())
async def test_after_the_first_chunk_it_is_interrupted_and_nobody_else_is_asked(
    world: World, script: list[Any]
) -> None:
    world.have("main", "provider", retry=3)
    world.route(provider(), fallback=["second"])
    world.streams_from("main", script)
    world.streams_from("second", ["never", END])
    error = (await failed(world)).error
    assert error.code is ErrorCode.STREAM_INTERRUPTED
    assert not error.retryable
    assert error.details["delivered_characters"] == 3
    assert error.details["delivered_chunks"] == 1
    assert (error.step, error.extension_id, error.attempts) == ("provider", "main", 1)
    assert world.sink.text == "one"
    assert [sent.subject for sent in world.streams.sent] == ["test.main"]


@pytest.mark.parametrize(("first", "state"), [(0.0, "closed"), (0.9, "open")])
async def test_slow_is_measured_up_to_the_first_chunk(world: World, first: float, state: str) -> None:
    world.route(provider())
    world.streams_from("main", [Wait(first), "one", Wait(0.9), "two", Wait(0.9), END])
    for _ in range(10):
        await answered(world)
    assert world.runtime.breaker_states()["main"] == state


async def test_a_stall_tells_the_provider_to_stop_and_counts_against_it(world: World) -> None:
    world.route(provider())
    world.streams_from("main", ["one", Wait(5.0), END])
    await failed(world)
    assert world.streams.cancelled == ["test.main"]
    assert attempts(world) == [("main", True, "STREAM_INTERRUPTED")]


async def test_the_requests_deadline_ends_a_stream_and_is_not_the_providers_fault(world: World) -> None:
    world.route(provider(), deadline_ms=2_000)
    world.streams_from("main", [*["x", Wait(0.5)] * 10, END])
    error = (await failed(world)).error
    assert error.code is ErrorCode.STREAM_INTERRUPTED
    assert "deadline" in error.message
    assert world.streams.cancelled == ["test.main"]
    assert attempts(world) == [("main", False, "STREAM_INTERRUPTED")]


async def test_a_long_answer_is_not_a_slow_one(world: World) -> None:
    world.route(provider())
    world.streams_from("main", [*["x", Wait(0.9)] * 20, END])
    for _ in range(12):
        await answered(world)
    assert world.runtime.breaker_states().get("main", "closed") == "closed"


async def test_a_caller_that_stops_reading_is_not_the_providers_fault(world: World) -> None:
    world.route(provider(), fallback=["second"])
    world.streams_from("main", ["x"] * 10 + [END])
    world.sink = FakeSink(takes=3, fail=SinkStalledError())
    assert (await failed(world)).error.code is ErrorCode.CANCELLED
    assert world.streams.cancelled == ["test.main"]
    assert [failed for _, failed, _ in attempts(world)] == [False]


async def test_a_caller_that_leaves_stops_the_provider(world: World) -> None:
    world.route(provider())
    world.streams_from("main", ["x", Wait(0.5), "y", END])
    sink = FakeSink()
    task = asyncio.ensure_future(world.pipeline.run(request(), world.snapshot, sink))
    await world.clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.streams.cancelled == ["test.main"]
    assert sink.text == "x"


async def test_a_provider_that_does_not_stream_is_delivered_in_one_piece(world: World) -> None:
    world.route(provider())
    world.streams_from("main", [Chunk(b'{"output":"all of it"}', last=True, whole=True)])
    answer = await answered(world)
    assert (answer.output, world.sink.text) == ("all of it", "all of it")


MALFORMED: dict[str, bytes] = {
    "not JSON": b"{",
    "no object": b"[]",
    "a number for text": b'{"delta":1}',
    "text for a message": b'{"message":"x"}',
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_chunk_is_the_providers_failure(world: World, payload: bytes) -> None:
    world.route(provider())
    world.streams_from("main", [Chunk(payload), END])
    assert (await failed(world)).error.code is ErrorCode.INTERNAL
    assert attempts(world)[-1] == ("main", True, "INTERNAL")


async def test_without_post_steps_tool_calls_pass_at_once(world: World) -> None:
    world.route(provider())
    world.streams_from("main", [Chunk(b'{"message":{"tool_calls":[{"index":0}]}}'), "and text", END])
    await answered(world)
    assert [delta.message for delta in world.sink.deltas] == [{"tool_calls": [{"index": 0}]}, None]


async def test_post_steps_see_the_stream_in_windows_and_have_one_entry_each(world: World) -> None:
    world.answers(
        "post",
        lambda sent: {"output": sent.body["output"].replace("secret", "******"), "max_match_length": 6},
    )
    world.route(provider(), post())
    text = ("nothing to see here, " * 30) + "a secret, " + ("and on it goes, " * 40)
    world.streams_from("main", [*(text[at : at + 13] for at in range(0, len(text), 13)), END])
    answer = await answered(world)
    assert answer.output == world.sink.text == text.replace("secret", "******")
    assert len(world.sink.deltas) > 3
    assert [(entry.extension_id, entry.outcome) for entry in answer.trail] == [("main", "ok"), ("post", "ok")]
    assert answer.trail[1].attempts == world.calls("post") > 3


async def test_a_post_step_that_fails_closed_ends_the_stream_before_its_text_has_left(world: World) -> None:
    world.answers(
        "post",
        lambda sent: (
            fails("VALIDATION_REJECTED") if "forbidden" in sent.body["output"] else {"max_match_length": 9}
        ),
    )
    world.route(provider(), post(failure_mode="closed"), fallback=["second"])
    text = "all is well. " * 60 + "forbidden" + " on it goes. " * 60
    world.streams_from("main", [*(text[at : at + 10] for at in range(0, len(text), 10)), END])
    failure = await failed(world)
    assert failure.error.code is ErrorCode.VALIDATION_REJECTED
    assert "forb" not in world.sink.text
    assert world.sink.text
    assert world.streams.cancelled == ["test.main"]
    assert attempts(world)[-1] == ("main", False, "CANCELLED")


@pytest.mark.parametrize("cut", [1, 399, 700, 1_400])
async def test_a_post_step_that_does_not_say_how_far_it_looks_gets_the_whole_answer(
    world: World, cut: int
) -> None:
    world.answers(
        "post", lambda sent: fails("VALIDATION_REJECTED") if "b" + "a" * 1_300 in sent.body["output"] else {}
    )
    world.route(provider(), post(failure_mode="closed"))
    text = "x" * 400 + "b" + "a" * 1_300 + "y" * 400
    world.streams_from("main", [text[:cut], *(text[at : at + 90] for at in range(cut, len(text), 90)), END])
    assert (await failed(world)).error.code is ErrorCode.VALIDATION_REJECTED
    assert world.sink.deltas == []


async def test_what_is_held_back_is_not_committed_and_another_attempt_begins_anew(world: World) -> None:
    world.answers("post", {})
    world.route(provider(), post(), fallback=["second"])
    world.streams_from("main", ["held back", fails("UNAVAILABLE")])
    world.streams_from("second", ["fresh", END])
    assert (await answered(world)).output == world.sink.text == "fresh"


async def test_a_short_circuit_is_streamed_through_the_post_steps(world: World) -> None:
    world.answers("pre", {"output": "cached secret"})
    world.answers("post", lambda sent: {"output": sent.body["output"].replace("secret", "***")})
    world.route(pre(), provider(), post())
    answer = await answered(world)
    assert (answer.output, answer.provider_id) == ("cached ***", "pre")
    assert world.sink.text == "cached ***"
    assert world.streams.sent == []


async def test_an_answer_without_end_is_cut_off(world: World) -> None:
    world.route(provider())
    world.streams_from("main", ["x" * 50_000] * 40)
    error = (await failed(world)).error
    assert error.code is ErrorCode.STREAM_INTERRUPTED
    assert len(world.sink.text) < 1024 * 1024


async def test_a_shadow_post_step_sees_what_has_left_of_a_stream_and_changes_nothing(world: World) -> None:
    world.have("watcher", "post")
    world.answers("watcher", {"output": "changed"})
    world.answers("post", lambda sent: {"output": sent.body["output"].upper()})
    world.route(provider(), post(), post("watcher", mode="shadow"))
    world.streams_from("main", ["Hel", "lo", END])
    answer = await answered(world)
    await world.clock.settle()
    assert (answer.output, world.sink.text) == ("HELLO", "HELLO")
    assert [sent.body["output"] for sent in world.transport.calls("test.watcher")] == ["HELLO"]
    assert [(entry.extension_id, entry.outcome) for entry in answer.trail][-1] == ("watcher", "shadow")
