"""Post steps on streams: what they say beside the text, their version, and their entry in the trail."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from beamline_router.core.request import Answer
from beamline_router.fakes import After
from harness.router_world import World, fails, post, provider

END: dict[str, Any] = {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


async def answered(world: World) -> Answer:
    result = await world.stream()
    assert isinstance(result, Answer), result
    return result


async def test_what_a_post_step_says_of_a_window_is_laid_over_what_the_provider_says_at_the_end(
    world: World,
) -> None:
    def look(sent: Any) -> dict[str, Any]:
        found = {"metadata": {"found": True, "model": "mine"}, "context": {"seen": 1}}
        return {"max_match_length": 3, **(found if "bad" in sent.body["output"] else {})}

    world.have("second_post", "post")
    world.answers("second_post", {})
    world.answers("post", look)
    world.route(provider(), post(), post("second_post"))
    text = "bad " + "all is well. " * 90
    world.streams_from("main", [text, {**END, "metadata": {"model": "m", "finish_reason": "length"}}])
    answer = await answered(world)
    assert (answer.metadata["found"], answer.metadata["model"]) == (True, "mine")
    assert answer.metadata["finish_reason"] == "length"
    last = world.transport.calls("test.second_post")[-1].body
    assert (last["part"], last["context"], last["metadata"]["found"]) == ("end", {"seen": 1}, True)
    assert last["metadata"]["finish_reason"] == "length"


async def test_what_a_post_step_said_of_an_attempt_that_failed_is_gone_with_it(world: World) -> None:
    world.answers(
        "post",
        lambda sent: (
            {"hold": True, "metadata": {"found": True}, "context": {"seen": 1}}
            if "bad" in sent.body["output"]
            else {}
        ),
    )
    world.route(provider(), post(), fallback=["second"])
    world.streams_from("main", ["bad " * 200, fails("UNAVAILABLE")])
    world.streams_from("second", ["fresh", END])
    answer = await answered(world)
    assert (answer.output, "found" in answer.metadata) == ("fresh", False)
    assert orjson.loads(world.streams.sent[1].payload)["context"] == {}
    assert world.transport.calls("test.post")[-1].body["context"] == {}


async def test_a_stream_meets_one_version_of_a_post_step_as_a_whole_answer_does(world: World) -> None:
    world.have("post_v2", "post", versionOf="post", version="v2")
    for name, mask in (("post", "***"), ("post_v2", "###")):
        world.answers(
            name,
            lambda sent, mask=mask: {
                "output": sent.body["output"].replace("secret", mask),
                "max_match_length": 6,
            },
        )
    world.route(provider(), post())
    text = "a secret here, and more of it there. " * 60
    message = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "secret"}}]}
    world.streams_from("main", [text, {**END, "metadata": {"message": message}}])
    masks = set()
    for first in (0.1, 0.9):
        world.rng._floats = [first, *[0.9, 0.1] * 50]
        answer = await answered(world)
        [mask] = {mask for mask in ("***", "###") if mask in answer.output}
        masks.add(mask)
        assert answer.output == text.replace("secret", mask)
        assert (world.sink.deltas[-1].message or {})["tool_calls"][0]["function"]["arguments"] == mask
        assert len(answer.trail) == 2
    assert masks == {"***", "###"}


# --- the trail


def in_turn(*replies: dict[str, Any]) -> list[Any]:
    """Each takes 10 ms; the last stays."""
    return [After(0.01, reply) for reply in replies]


SEES: dict[str, Any] = {"max_match_length": 1}
OUTCOMES: dict[str, tuple[list[dict[str, Any]], tuple[str, str | None]]] = {
    "every window": ([SEES], ("ok", None)),
    "all but the first": ([fails("UNAVAILABLE"), SEES], ("skipped", "UNAVAILABLE")),
    "the first alone": ([SEES, fails("UNAVAILABLE"), fails("INTERNAL")], ("skipped", "UNAVAILABLE")),
}


@pytest.mark.parametrize(("replies", "wanted"), OUTCOMES.values(), ids=OUTCOMES.keys())
async def test_the_entry_of_a_step_says_the_worst_of_its_windows_and_sums_them_where_it_saw(
    world: World, replies: list[dict[str, Any]], wanted: tuple[str, str | None]
) -> None:
    world.answers("post", *in_turn(*replies))
    world.have("post", "post", circuitBreaker={"failureThreshold": 1_000})
    world.route(provider(), post())
    world.streams_from("main", [*["all is well. "] * 100, END])
    entry = (await answered(world)).trail[1]
    assert (entry.extension_id, entry.outcome, entry.reason) == ("post", *wanted)
    assert entry.attempts == world.calls("post") > 3
    assert entry.ms == pytest.approx(entry.attempts * 10.0)


async def test_a_step_that_was_replaced_in_one_window_shows_both_and_the_breaker_as_it_stood_last(
    world: World,
) -> None:
    world.have("other", "post")
    world.have("post", "post", circuitBreaker={"failureThreshold": 2, "minFailureRatio": 0.0})
    world.answers("post", SEES, SEES, SEES, fails("UNAVAILABLE"))
    world.answers("other", SEES)
    world.route(provider(), post(failure_mode="fallback", fallback_id="other"))
    world.streams_from("main", [*["all is well. "] * 100, END])
    trail = (await answered(world)).trail
    assert [(entry.extension_id, entry.outcome, entry.breaker) for entry in trail[1:]] == [
        ("post", "error", "open"),
        ("other", "ok", None),
    ]


async def test_a_post_step_is_told_whether_it_sees_a_window_or_the_end(world: World) -> None:
    world.answers("post", SEES)
    world.route(provider(), post())
    world.streams_from("main", [*["all is well. "] * 100, END])
    await answered(world)
    parts = [sent.body["part"] for sent in world.transport.calls("test.post")]
    assert parts == ["window"] * (len(parts) - 1) + ["end"]
    assert len(parts) > 3


async def test_a_post_step_that_says_nothing_is_asked_once_before_the_end(world: World) -> None:
    world.answers("post", {})
    world.route(provider(), post())
    world.streams_from("main", [*["all is well. "] * 400, END])
    await answered(world)
    assert [sent.body["part"] for sent in world.transport.calls("test.post")] == ["window", "end"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_shadow_step_is_shown_the_text_and_its_entry_is_its_own(world: World, streamed: bool) -> None:
    world.answers("post", {})
    world.route(provider(), post(), post(mode="shadow"))
    message = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}
    end = {**END, "metadata": {"message": message}}
    world.answers("main", {"output": "text", **end})
    world.streams_from("main", ["text", end])
    result = await (world.stream() if streamed else world.ask())
    assert isinstance(result, Answer)
    await world.clock.settle()
    outcomes = {entry.outcome: entry.attempts for entry in result.trail[1:]}
    assert outcomes == {"ok": 2, "shadow": 1}
    shown = [sent.body for sent in world.transport.calls("test.post") if "part" not in sent.body]
    assert [body["output"] for body in shown] == ["text"] * (1 if streamed else 2)


async def test_of_an_answer_without_text_a_post_step_is_shown_none(world: World) -> None:
    world.route(provider(), post())
    world.streams_from("main", [END])
    assert (await answered(world)).output == ""
    assert world.calls("post") == 0
