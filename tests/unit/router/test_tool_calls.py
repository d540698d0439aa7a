"""What stands beside the text of an answer goes through the post steps: masked, blocked, or byte by byte the
same.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode, WireError
from beamline_router.core.message_parts import guarded
from beamline_router.core.request import Answer, Failure
from beamline_router.core.stream_port import Chunk
from beamline_router.fake_streams import Item
from beamline_sdk.deltas import merged
from harness.router_world import World, fails, post, provider

MAIL = re.compile(r"[a-z.]+@[a-z.]+[a-z]")
CARD = re.compile(r"\b4\d{15}\b")
END: dict[str, Any] = {"usage": {}, "metadata": {}}


async def mask(text: str) -> str | WireError:
    return CARD.sub("[CARD]", MAIL.sub("[EMAIL]", text))


def calling(arguments: str, **more: Any) -> dict[str, Any]:
    call = {"index": 0, "id": "call_1", "type": "function"}
    return {"tool_calls": [{**call, "function": {"name": "send", "arguments": arguments}}], **more}


def arguments_of(message: Any) -> str:
    text = message["tool_calls"][0]["function"]["arguments"]
    assert isinstance(text, str)
    return text


HIDDEN: dict[str, tuple[str, Any]] = {
    "a string": ('{"to": "jane@example.com", "n": 1}', {"to": "[EMAIL]", "n": 1}),
    "an escaped at sign": (r'{"to": "jane\u0040example.com"}', {"to": "[EMAIL]"}),
    "a string in a list": ('{"to": ["a", ["jane@example.com"]]}', {"to": ["a", ["[EMAIL]"]]}),
    "a key": ('{"jane@example.com": true}', {"[EMAIL]": True}),
    "a number": ('{"card": 4111111111111111}', {"card": "[CARD]"}),
    "an id": ('{"id": "4111111111111111", "index": 4111111111111111}', {"id": "[CARD]", "index": "[CARD]"}),
    "JSON in a string": (
        orjson.dumps({"body": '{"to": "jane\\u0040example.com"}'}).decode(),
        {"body": '{"to":"[EMAIL]"}'},
    ),
    "behind a line break": ('{"text": "to\\njane@example.com"}', {"text": "to\n[EMAIL]"}),
}


@pytest.mark.parametrize(("arguments", "wanted"), HIDDEN.values(), ids=HIDDEN.keys())
async def test_what_a_step_masks_it_masks_in_arguments_and_they_stay_json(
    arguments: str, wanted: Any
) -> None:
    shown = await guarded(calling(arguments), mask)
    assert orjson.loads(arguments_of(shown)) == wanted
    assert shown["tool_calls"][0]["id"] == "call_1"
    assert shown["tool_calls"][0]["function"]["name"] == "send"


async def test_a_value_under_a_key_that_comes_twice_is_not_passed_on_unseen() -> None:
    shown = await guarded(calling('{"to": "jane@example.com", "to": "nobody"}'), mask)
    assert arguments_of(shown) == '{"to":"nobody"}'


@pytest.mark.parametrize("text", ["mail jane@example.com", '{"to": "jane@example.com"', "[jane@example.com]"])
async def test_arguments_that_are_no_json_are_masked_as_text(text: str) -> None:
    assert arguments_of(await guarded(calling(text), mask)) == MAIL.sub("[EMAIL]", text)


async def test_other_parts_are_masked_too() -> None:
    message = {
        "refusal": "ask jane@example.com",
        "reasoning_content": "jane@example.com",
        "audio": {"id": "a"},
    }
    assert await guarded(message, mask) == {
        "refusal": "ask [EMAIL]",
        "reasoning_content": "[EMAIL]",
        "audio": {"id": "a"},
    }


async def test_what_no_step_changes_stays_as_it_was_for_one_call() -> None:
    asked: list[str] = []

    async def count(text: str) -> str | WireError:
        asked.append(text)
        return text

    arguments = '{ "b": 1.50, "a": [null, true, "x"] ,"u": "\\u00e9" }'
    message = calling(arguments)
    assert await guarded(message, count) == message
    assert len(asked) == 1


async def test_what_a_step_objects_to_is_its_error() -> None:
    error = WireError(ErrorCode.VALIDATION_REJECTED, "no")

    async def block(text: str) -> str | WireError:
        return error if "jane@" in text else text

    assert await guarded(calling('{"to": "jane\\u0040example.com"}'), block) is error


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=12)
    | st.just("jane@example.com"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=120)
@given(JSON)
async def test_no_arguments_raise_and_nothing_passes_that_the_step_would_change(value: Any) -> None:
    try:
        arguments = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return
    shown = arguments_of(await guarded(calling(arguments), mask))
    assert "jane@example.com" not in shown
    if "jane@" not in arguments and not CARD.search(arguments) and not MAIL.search(arguments):
        assert shown == arguments


async def test_deep_json_in_a_string_is_looked_at_as_text() -> None:
    deep = '{"a":' * 900 + '"jane@example.com"' + "}" * 900
    assert "jane@" not in arguments_of(await guarded(calling(deep), mask))


def test_fragments_are_put_together_by_their_index() -> None:
    whole: dict[str, Any] = {}
    for delta in (
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": '{"x":'}}], "refusal": "n"},
        {"tool_calls": [{"index": 1, "function": {"arguments": "}"}}], "refusal": "o"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ):
        whole = merged(whole, delta)
    assert whole == {
        "tool_calls": [
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
        ],
        "refusal": "no",
    }


# --- through the pipeline


def masking(world: World) -> None:
    world.answers("post", lambda sent: {"output": MAIL.sub("[EMAIL]", sent.body["output"])})


def fragments(arguments: str, size: int) -> list[Item]:
    pieces = [arguments[at : at + size] for at in range(0, len(arguments), size)]
    return [
        *(
            Chunk(orjson.dumps({"message": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}))
            for piece in pieces
        ),
        END,
    ]


async def test_a_whole_answers_tool_calls_are_masked_and_the_step_knows_what_it_sees(world: World) -> None:
    masking(world)
    message = calling('{"to": "jane@example.com"}')
    world.answers("main", {"output": "to jane@example.com", "metadata": {"message": message}})
    world.route(provider(), post())
    answer = await world.answer()
    assert answer.output == "to [EMAIL]"
    assert arguments_of(answer.metadata["message"]) == '{"to":"[EMAIL]"}'
    parts = [sent.body.get("part") for sent in world.transport.calls("test.post")]
    assert parts[0] is None
    assert set(parts[1:]) == {"message"}
    assert [(entry.extension_id, entry.outcome) for entry in answer.trail] == [("main", "ok"), ("post", "ok")]
    assert answer.trail[1].attempts == len(parts)


async def test_streamed_tool_calls_are_masked_wherever_they_are_cut(world: World) -> None:
    masking(world)
    world.route(provider(), post())
    arguments = '{"to": "jane@example.com"}'
    for size in range(1, len(arguments) + 1):
        world.streams_from("main", fragments(arguments, size))
        answer = await world.stream()
        assert isinstance(answer, Answer)
        [delta] = [delta for delta in world.sink.deltas if delta.message]
        assert arguments_of(delta.message) == '{"to":"[EMAIL]"}'


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_step_that_blocks_ends_the_request_before_the_tool_call_has_left(
    world: World, streamed: bool
) -> None:
    world.answers("post", lambda sent: fails("VALIDATION_REJECTED") if "jane@" in sent.body["output"] else {})
    world.route(provider(), post(failure_mode="closed"))
    arguments = r'{"to": "jane\u0040example.com"}'
    world.answers("main", {"output": "", "metadata": {"message": calling(arguments)}})
    world.streams_from("main", fragments(arguments, 5))
    result = await (world.stream() if streamed else world.ask())
    assert isinstance(result, Failure)
    assert result.error.code is ErrorCode.VALIDATION_REJECTED
    assert world.sink.deltas == []


ENDS: dict[str, list[Item]] = {
    "a whole reply": [
        Chunk(
            orjson.dumps({"output": "", "metadata": {"message": calling('{"to": "jane@example.com"}')}}),
            last=True,
            whole=True,
        )
    ],
    "the end of a stream": ["x", {"metadata": {"message": calling('{"to": "jane@example.com"}')}}],
}


@pytest.mark.parametrize("script", ENDS.values(), ids=ENDS.keys())
async def test_a_message_in_the_metadata_of_a_stream_goes_the_same_way(
    world: World, script: list[Item]
) -> None:
    masking(world)
    world.route(provider(), post())
    world.streams_from("main", script)
    answer = await world.stream()
    assert isinstance(answer, Answer)
    assert "message" not in answer.metadata
    [delta] = [delta for delta in world.sink.deltas if delta.message]
    assert arguments_of(delta.message) == '{"to":"[EMAIL]"}'


async def test_a_failed_attempts_tool_calls_are_not_mixed_with_the_next_ones(world: World) -> None:
    masking(world)
    world.route(provider(), post(), fallback=["second"])
    world.streams_from("main", [*fragments('{"a":1}', 3)[:-1], fails("UNAVAILABLE")])
    world.streams_from("second", fragments('{"b":2}', 3))
    answer = await world.stream()
    assert isinstance(answer, Answer)
    assert [arguments_of(delta.message) for delta in world.sink.deltas] == ['{"b":2}']


@pytest.mark.parametrize("text", ["to jane@example.com", "to nobody"], ids=["changed", "unchanged"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_log_probabilities_of_a_text_that_was_changed_do_not_leave(
    world: World, text: str, streamed: bool
) -> None:
    masking(world)
    world.route(provider(), post())
    metadata = {"metadata": {"logprobs": {"content": [{"token": text}]}}}
    world.answers("main", {"output": text, **metadata})
    world.streams_from("main", [text[:4], text[4:], metadata])
    result = await (world.stream() if streamed else world.ask())
    assert isinstance(result, Answer)
    assert ("logprobs" in result.metadata) == ("jane" not in text)


async def test_tool_calls_that_came_in_pieces_are_not_said_again_by_the_end(world: World) -> None:
    world.route(provider())
    arguments = '{"to": "somebody"}'
    whole: dict[str, Any] = {"usage": {}, "metadata": {"message": calling(arguments)}}
    world.streams_from("main", [*fragments(arguments, 5)[:-1], whole])
    assert isinstance(await world.stream(), Answer)
    said: dict[str, Any] = {}
    for delta in world.sink.deltas:
        said = merged(said, delta.message or {})
    assert arguments_of(said) == arguments


async def test_a_chunk_that_is_nested_too_deep_ends_the_stream(world: World) -> None:
    world.route(provider())
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    world.streams_from("main", [Chunk(orjson.dumps({"message": {"x": deep}})), END])
    result = await world.stream()
    assert isinstance(result, Failure)
    assert result.error.code is ErrorCode.INTERNAL
    assert world.sink.deltas == []
