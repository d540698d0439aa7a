"""A post step that sends an answer back, one that waits for the end of a stream, and what a validator
notes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from beamline_router.core.steps import MAX_NOTES
from beamline_router.fakes import After
from harness.router_world import World, check, fails, post, pre, provider, says

SENT_BACK = fails("VALIDATION_REJECTED", retryable=True, details={"path": "$.a"})
CLOSED = {"failure_mode": "closed"}


def bodies(world: World, extension_id: str) -> list[dict[str, Any]]:
    return [orjson.loads(sent.payload) for sent in world.transport.calls(f"test.{extension_id}")]


async def test_an_answer_that_is_sent_back_is_asked_for_once_more(world: World) -> None:
    world.route(pre(), check(), provider(), post(**CLOSED))
    world.answers("main", says("bad"), says("good"))
    world.answers("post", SENT_BACK, {})
    answer = await world.answer()
    assert answer.output == "good"
    assert world.order() == ["pre", "check", "main", "post", "main", "post"]
    assert answer.usage == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    assert [entry.outcome for entry in answer.trail] == ["ok", "ok", "ok", "error", "ok", "ok"]


async def test_an_answer_that_is_sent_back_twice_is_the_callers_error_with_its_details(world: World) -> None:
    world.route(provider(), post(retry=5, **CLOSED))
    world.answers("post", SENT_BACK)
    failure = await world.failure()
    assert (failure.error.code, failure.error.details) == ("VALIDATION_REJECTED", {"path": "$.a"})
    assert world.order() == ["main", "post", "main", "post"]
    assert world.runtime.breaker_states()["post"] == "closed"


@pytest.mark.parametrize(
    ("reply", "mode", "order"),
    [
        pytest.param(fails("VALIDATION_REJECTED", retryable=False), "closed", 2, id="it is final"),
        pytest.param(fails("INTERNAL", retryable=True), "closed", 2, id="the step itself failed"),
        pytest.param(SENT_BACK, "open", 2, id="the step is open: the answer passes"),
    ],
)
async def test_nobody_is_asked_again_where(world: World, reply: Any, mode: str, order: int) -> None:
    world.route(provider(), post(retry=0, failure_mode=mode))
    world.answers("post", reply)
    await world.ask()
    assert len(world.order()) == order


async def test_what_a_pre_step_answered_is_not_asked_for_again(world: World) -> None:
    world.route(pre(), provider(), post(**CLOSED))
    world.answers("pre", {"output": "canned"})
    world.answers("post", SENT_BACK)
    await world.failure()
    assert world.order() == ["pre", "post"]


async def test_six_attempts_are_all_there_are(world: World) -> None:
    world.have("main", "provider", retry=2)
    world.have("second", "provider", retry=2)
    world.route(provider(fallback=["second"]), post(**CLOSED))
    world.answers("main", fails("UNAVAILABLE"))
    world.answers("second", *[fails("UNAVAILABLE")] * 2, says("bad"))
    world.answers("post", SENT_BACK)
    await world.failure()
    assert (world.calls("main"), world.calls("second"), world.calls("post")) == (3, 3, 1)


async def test_the_deadline_holds_for_the_second_time_as_well(world: World) -> None:
    world.route(provider(timeout_ms=10_000), post(**CLOSED), deadline_ms=2_000)
    world.answers("main", says("bad"), After(5.0, says("too late")))
    began = world.clock()
    world.answers("post", SENT_BACK)
    failure = await world.failure()
    assert failure.error.code == "VALIDATION_REJECTED"
    assert world.clock() - began <= 2.0


async def test_a_post_step_is_told_what_the_provider_said_of_its_answer(world: World) -> None:
    world.route(provider(), post())
    world.answers("main", {**says("x"), "metadata": {"finish_reason": "length"}})
    await world.answer()
    [body] = bodies(world, "post")
    assert body["metadata"] == {"finish_reason": "length"}
    assert "part" not in body


async def test_a_step_that_holds_sees_the_whole_answer_at_the_end_of_the_stream(world: World) -> None:
    world.route(provider(), post(**CLOSED))
    chunks = ["x" * 500] * 4
    world.streams_from("main", [*chunks, {"metadata": {}, "usage": {}}])
    world.answers("post", lambda sent: {} if b'"part":"end"' in sent.payload else {"hold": True})
    await world.stream()
    seen = bodies(world, "post")
    assert [body["part"] for body in seen[:-1]] == ["window"]
    assert (seen[-1]["part"], seen[-1]["output"]) == ("end", "x" * 2_000)
    assert [delta.text for delta in world.sink.deltas] == ["x" * 2_000]


async def test_what_a_validator_notes_of_a_request_it_lets_pass_is_in_the_trail(world: World) -> None:
    world.route(check(), provider())
    world.answers("check", {"verdict": "pass", "details": {"kinds": ["email"]}})
    answer = await world.answer()
    assert answer.trail[0].to_wire()["notes"] == {"kinds": ["email"]}
    assert "notes" not in answer.trail[1].to_wire()


@pytest.mark.parametrize(
    "details",
    [
        pytest.param({"x": "y" * MAX_NOTES}, id="notes that are too long"),
        pytest.param(["x"], id="notes that are no object"),
    ],
)
async def test_left_out_are(world: World, details: Any) -> None:
    world.route(check(), provider())
    world.answers("check", {"verdict": "pass", "details": details})
    assert "notes" not in (await world.answer()).trail[0].to_wire()
