"""How streams end: what the breaker learns, what the caller is told, and when the deadline ends them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from beamline_contract.errors import ErrorCode
from beamline_router.core.ports import TransportFault
from beamline_router.core.request import Answer, Failure
from beamline_router.core.stream_port import Chunk, Delta, StreamFault
from beamline_router.fake_streams import FakeSink, Item, Wait
from harness.router_world import World, fails, post, pre, provider, request

END: dict[str, Any] = {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


async def failed(world: World) -> Failure:
    result = await world.stream()
    assert isinstance(result, Failure), result
    return result


async def answered(world: World) -> Answer:
    result = await world.stream()
    assert isinstance(result, Answer), result
    return result


WITHIN: dict[str, tuple[list[Item], bool]] = {
    "UNAVAILABLE": ([fails("UNAVAILABLE")], True),
    "INTERNAL": ([fails("INTERNAL")], True),
    "INVALID_ARGUMENT": ([fails("INVALID_ARGUMENT")], False),
    "VALIDATION_REJECTED": ([fails("VALIDATION_REJECTED")], False),
    "DEADLINE_EXCEEDED with its own time over": ([Wait(0.9), fails("DEADLINE_EXCEEDED")], True),
    "DEADLINE_EXCEEDED with the request's nearly over": (
        [*["x", Wait(0.9)] * 6, fails("DEADLINE_EXCEEDED")],
        False,
    ),
    "silence for its own time": ([Wait(5.0)], True),
    "a missing chunk with the request's nearly over": ([*[Wait(0.9), "x"] * 6, StreamFault.GAP], True),
}


@pytest.mark.parametrize(("script", "counts"), WITHIN.values(), ids=WITHIN.keys())
async def test_the_breaker_learns_of_an_error_within_a_stream_what_it_would_before(
    world: World, script: list[Item], counts: bool
) -> None:
    world.route(provider(), deadline_ms=6_000)
    world.streams_from("main", ["one", *script])
    for _ in range(5):
        error = (await failed(world)).error
        assert error.code is ErrorCode.STREAM_INTERRUPTED
        assert "deadline" not in error.message
    assert world.recorder.attempts == [("main", counts, "STREAM_INTERRUPTED")] * 5
    assert world.runtime.breaker_states()["main"] == ("open" if counts else "closed")


async def test_a_429_within_a_stream_is_the_pause_it_asks_for_and_no_failure(world: World) -> None:
    world.route(provider(), fallback=["second"])
    world.streams_from("main", ["one", fails("RESOURCE_EXHAUSTED", retry_after_ms=5_000)], ["again", END])
    world.streams_from("second", ["instead", END])
    assert (await failed(world)).error.details["cause"] == "RESOURCE_EXHAUSTED"
    assert world.recorder.attempts == [("main", False, "STREAM_INTERRUPTED")]
    assert (await answered(world)).output == "instead"
    await world.clock.advance(5.0)
    assert (await answered(world)).output == "again"


@pytest.mark.parametrize(("first", "state"), [(0.0, "closed"), (0.9, "open")])
async def test_a_stream_that_breaks_late_was_slow_only_if_its_first_chunk_was(
    world: World, first: float, state: str
) -> None:
    world.have("main", "provider", circuitBreaker={"failureThreshold": 1_000})
    world.route(provider())
    world.streams_from("main", [Wait(first), "one", Wait(0.9), "two", fails("UNAVAILABLE")])
    for _ in range(10):
        await failed(world)
    assert world.runtime.breaker_states()["main"] == state


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL"])
async def test_a_post_step_that_fails_within_a_stream_has_interrupted_it(world: World, code: str) -> None:
    world.answers(
        "post", lambda sent: fails(code) if "bad" in sent.body["output"] else {"max_match_length": 3}
    )
    world.route(provider(), post(failure_mode="closed"), fallback=["second"])
    text = "all is well. " * 60 + "bad"
    world.streams_from("main", [*(text[at : at + 10] for at in range(0, len(text), 10)), END])
    error = (await failed(world)).error
    assert (error.code, error.retryable) == (ErrorCode.STREAM_INTERRUPTED, False)
    assert error.details == {
        "delivered_chunks": len(world.sink.deltas),
        "delivered_characters": len(world.sink.text),
        "cause": code,
    }
    assert (error.extension_id, world.sink.text[:3]) == ("post", "all")
    assert [sent.subject for sent in world.streams.sent] == ["test.main"]


async def test_a_post_step_that_fails_before_anything_has_left_keeps_its_error(world: World) -> None:
    world.answers("post", fails("UNAVAILABLE"))
    world.route(provider(), post(failure_mode="closed"))
    world.streams_from("main", ["one", END])
    assert (await failed(world)).error.code is ErrorCode.UNAVAILABLE


BREAKS: dict[str, list[Item]] = {
    "with an error": [fails("UNAVAILABLE")],
    "with an end that is no valid reply": [{"usage": {"prompt_tokens": -1}}],
    "in silence": [Wait(5.0)],
}


@pytest.mark.parametrize("before", [0, 60], ids=["before anything has left", "after a part has left"])
@pytest.mark.parametrize("script", BREAKS.values(), ids=BREAKS.keys())
async def test_what_was_held_back_of_a_stream_that_breaks_never_leaves(
    world: World, script: list[Item], before: int
) -> None:
    world.answers("post", {"max_match_length": 9})
    world.route(provider(), post())
    world.streams_from("main", [*["all is well. "] * before, "held back", *script])
    error = (await failed(world)).error
    assert "held" not in world.sink.text
    assert bool(world.sink.text) is (error.code is ErrorCode.STREAM_INTERRUPTED) is bool(before)
    assert {sent.body["part"] for sent in world.transport.calls("test.post")} <= {"window"}


async def test_an_answer_of_a_pre_step_is_blocked_for_good_by_one_error(world: World) -> None:
    world.answers("pre", {"output": "cached " * 80})
    world.answers("post", fails("UNAVAILABLE"), {})
    world.route(pre(), provider(), post(failure_mode="closed"))
    assert (await failed(world)).error.code is ErrorCode.UNAVAILABLE
    assert (world.sink.deltas, world.calls("post")) == ([], 1)


UNSENT: dict[str, tuple[TransportFault, ErrorCode]] = {
    "no connection": (TransportFault.DISCONNECTED, ErrorCode.UNAVAILABLE),
    "a request that is too large": (TransportFault.TOO_LARGE, ErrorCode.INVALID_ARGUMENT),
}


@pytest.mark.parametrize(("fault", "code"), UNSENT.values(), ids=UNSENT.keys())
async def test_what_was_never_sent_is_not_the_providers_fault(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: TransportFault, code: ErrorCode
) -> None:
    async def unsent(*_: object) -> TransportFault:
        return fault

    monkeypatch.setattr(world.streams, "open", unsent)
    world.route(provider())
    assert (await failed(world)).error.code is code
    assert world.recorder.attempts == [("main", False, code.value)]


# --- the deadline


async def test_a_provider_that_could_not_be_asked_until_the_deadline_has_interrupted_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> TransportFault:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(world.streams, "open", hang)
    world.route(provider(), deadline_ms=2_000)
    assert (await failed(world)).error.code is ErrorCode.DEADLINE_EXCEEDED
    assert world.runtime.breaker_states()["main"] == "closed"


class Stuck(FakeSink):
    """A reader that takes ``takes`` deltas and then no more, without leaving."""

    async def emit(self, delta: Delta) -> None:
        if len(self.deltas) == self.takes:
            await asyncio.Event().wait()
        await super().emit(delta)


@pytest.mark.parametrize("script", [["one", "two", END], ["one", "two", Wait(60.0)]], ids=["ended", "open"])
async def test_a_reader_that_makes_no_room_does_not_outlive_the_deadline(
    world: World, script: list[Item]
) -> None:
    world.route(provider(), deadline_ms=2_000)
    world.streams_from("main", script)
    sink, began = Stuck(takes=1), world.clock.now
    result = await world.clock.drive(world.pipeline.run(request(), world.snapshot, sink))
    assert isinstance(result, Failure)
    assert world.clock.now - began == pytest.approx(2.0)
    assert result.error.code is ErrorCode.STREAM_INTERRUPTED
    assert "deadline" in result.error.message
    assert result.error.details == {"delivered_chunks": 1, "delivered_characters": 3}
    assert world.streams.cancelled == ["test.main"]
    assert world.runtime.breaker_states()["main"] == "closed"
    assert world.recorder.attempts == [("main", False, "CANCELLED")]
    assert world.runtime.in_flight() == {}


async def test_an_answer_that_has_left_whole_is_one_however_late_its_last_part_was_taken(
    world: World,
) -> None:
    class Late(FakeSink):
        async def emit(self, delta: Delta) -> None:
            await super().emit(delta)
            world.clock.now += 60.0

    world.answers("post", {})
    world.route(provider(), post(), deadline_ms=2_000)
    world.streams_from("main", ["one", END])
    result = await world.clock.drive(world.pipeline.run(request(), world.snapshot, sink := Late()))
    assert isinstance(result, Answer)
    assert (result.output, sink.text) == ("one", "one")


@pytest.mark.parametrize("script", [["one", END], ["one", fails("INTERNAL")]], ids=["answered", "failed"])
async def test_nothing_waits_for_the_deadline_of_a_stream_that_has_ended(
    world: World, script: list[Item]
) -> None:
    world.route(provider())
    world.streams_from("main", script)
    await world.stream()
    await world.clock.settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_fault_of_the_sink_is_not_taken_for_the_deadline(world: World) -> None:
    world.route(provider())
    world.streams_from("main", ["one", END])
    world.sink = FakeSink(takes=0, fail=TimeoutError())
    assert (await failed(world)).error.code is ErrorCode.INTERNAL


async def test_an_answer_without_a_word_is_none_after_the_deadline(world: World) -> None:
    def late(_: Any) -> dict[str, Any]:
        world.clock.now += 2.0
        return {"output": ""}

    world.answers("pre", late)
    world.route(pre(), provider(), deadline_ms=1_000)
    assert (await failed(world)).error.code is ErrorCode.DEADLINE_EXCEEDED


# --- what the provider says


SAID: dict[str, tuple[list[Item], str]] = {
    "an end that holds the whole answer": ([{"output": "all of it", **END}], "all of it"),
    "an end that says again what the chunks said": (["all", " of it", {"output": "all of it"}], "all of it"),
    "an end with the last of the text": (["all", {"delta": " of it", "output": "all of it"}], "all of it"),
    "an end that holds it all behind empty chunks": ([Chunk(b"{}"), {"output": "all of it"}], "all of it"),
    "an end whose output is null": ([{"output": None, **END}], ""),
    "chunks that are empty": ([Chunk(b"{}"), Chunk(b'{"delta":""}'), "all", Chunk(b"{}"), END], "all"),
    "a chunk of half a word in another script": (["gr", "ü", "ße 世", "界", END], "grüße 世界"),
    "chunks behind the end": (["all", END, " of", END], "all"),
    "an end with all of the text and an output": ([{"delta": "all", "output": "what?"}], "all"),
    "an output before the end": ([Chunk(b'{"output":"what?"}'), "all", END], "all"),
}


@pytest.mark.parametrize(("script", "wanted"), SAID.values(), ids=SAID.keys())
@pytest.mark.parametrize("after", [(), (post(),)], ids=["bare", "with a post step"])
async def test_no_text_is_lost_or_said_twice_by(
    world: World, script: list[Item], wanted: str, after: tuple[dict[str, Any], ...]
) -> None:
    world.route(provider(), *after)
    world.streams_from("main", script)
    assert (await answered(world)).output == world.sink.text == wanted
    assert all(delta.text or delta.message for delta in world.sink.deltas)


async def test_what_stands_around_each_chunk_is_no_part_of_the_answers_size(world: World) -> None:
    world.route(provider())
    world.streams_from("main", [*["x" * 60] * 14_000, END])
    assert len((await answered(world)).output) == 840_000


@pytest.mark.parametrize("payload", [b"{}", b'{"delta":""}'], ids=["nothing", "no text"])
async def test_chunks_without_end_that_say_nothing_are_cut_off_too(
    world: World, monkeypatch: pytest.MonkeyPatch, payload: bytes
) -> None:
    monkeypatch.setattr("beamline_router.core.stream_invoke.MAX_REPLY_BYTES", 64 * 1024 + 500)
    world.route(provider())
    world.streams_from("main", [Chunk(payload)] * 501)
    assert (await failed(world)).error.code is ErrorCode.INTERNAL


async def test_a_whole_reply_may_be_as_large_as_one_that_was_not_asked_to_stream(world: World) -> None:
    world.route(provider())
    text = "x" * (1024 * 1024 - 100)
    world.streams_from("main", [Chunk(orjson.dumps({"output": text}), last=True, whole=True)])
    assert (await answered(world)).output == text


UNREADABLE: dict[str, bytes] = {
    "half a character": b'{"TEXT":"\xe4\xb8"}',
    "half a surrogate pair": b'{"TEXT":"\\ud83d"}',
    "a text that is said twice": b'{"TEXT":"a","TEXT":"b"}',
    "a text that is said twice in disguise": (
        b'{"delta":"a","d\\u0065lta":"b","output":"a","o\\u0075tput":"b"}'
    ),
}


@pytest.mark.parametrize("payload", [b"{}", b'{"output":null}', b'{"delta":"a"}', b'{"output":1}'])
async def test_a_whole_reply_without_text_is_as_malformed_as_one_that_was_not_asked_to_stream(
    world: World, payload: bytes
) -> None:
    world.route(provider(), fallback=["second"])
    world.streams_from("main", [Chunk(payload, last=True, whole=True)])
    world.streams_from("second", ["instead", END])
    assert (await answered(world)).output == "instead"
    assert world.recorder.attempts[0] == ("main", True, "INTERNAL")


@pytest.mark.parametrize("whole", [False, True], ids=["a chunk", "a whole reply"])
@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_reply_that_can_be_read_in_two_ways_or_none_is_malformed(
    world: World, payload: bytes, whole: bool
) -> None:
    world.route(provider())
    sent = payload.replace(b"TEXT", b"output" if whole else b"delta")
    world.streams_from("main", [Chunk(sent, last=whole, whole=whole), END])
    assert (await failed(world)).error.code is ErrorCode.INTERNAL
    assert world.sink.deltas == []
