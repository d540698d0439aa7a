"""What the provider `anthropic` sends and reads, on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_sdk import Delta, ProviderReply
from harness.model_api import WEATHER_CALL, FakeApi, claude, claude_rows, events, whole

TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather", "parameters": {"type": "object"}},
}


@pytest.fixture
async def asked(api: FakeApi, open_provider: Any) -> Any:
    async with open_provider("anthropic", api) as provider:
        yield provider


async def test_a_prompt_becomes_a_message_with_the_seeds_settings(api: FakeApi, asked: Any) -> None:
    reply = await asked.ask("Hi", config={"max_tokens": 4096})
    seen = api.seen[0]
    assert (seen.path, seen.key) == ("/v1/messages", "sk-canary-0123456789abcdef")
    assert seen.headers["anthropic-version"] > "2023-06-01"
    assert seen.body == {
        "model": "claude-3-opus-20240229",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }
    assert (reply.output, reply.prompt_tokens, reply.completion_tokens) == ("Hello there", 11, 3)
    assert (reply.model, reply.finish_reason) == ("claude-3-opus-20240229", "stop")


async def test_a_conversation_in_openais_shape_is_translated(api: FakeApi, asked: Any) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/PNG;base64,iVBORw0KGgo="}}
    linked = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    await asked.ask(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What?"}, image, linked]},
            {"role": "assistant", "content": None, "tool_calls": [WEATHER_CALL, {**WEATHER_CALL, "id": "b"}]},
            {"role": "tool", "tool_call_id": "call_abc", "content": "sunny"},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "dry"}]},
            {"role": "developer", "content": "Really."},
            {"role": "user", "content": "And now?"},
        ],
        parameters={
            "tools": [TOOL],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "temperature": 1.5,
            "stop": "END",
            "user": "u-1",
            "seed": 1,
            "max_completion_tokens": 50,
            "max_tokens": 50,
        },
    )
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    use = {"type": "tool_use", "name": "get_weather", "input": {"city": "Vienna"}}
    assert api.seen[0].body == {
        "model": "claude-3-opus-20240229",
        "max_tokens": 50,
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Really."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What?"},
                    {"type": "image", "source": source},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                ],
            },
            {"role": "assistant", "content": [{**use, "id": "call_abc"}, {**use, "id": "b"}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_abc", "content": "sunny"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "b",
                        "content": [{"type": "text", "text": "dry"}],
                    },
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        "tools": [{"name": "get_weather", "description": "The weather", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "temperature": 1.0,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u-1"},
    }


async def test_sampling_parameters_are_sent_under_the_version_that_takes_them_or_named(
    api: FakeApi, asked: Any
) -> None:
    sent = await asked.ask(parameters={"temperature": 0, "seed": 1}, config={"top_p": 0.5})
    left = await asked.ask(parameters={"temperature": 0}, config={"sampling_parameters": "ignore"})
    assert api.seen[0].headers["anthropic-version"] == "2023-06-01"
    assert (api.seen[0].body["temperature"], api.seen[0].body["top_p"]) == (0, 0.5)
    assert sent.metadata["ignored_parameters"] == ["seed"]
    assert api.seen[1].headers["anthropic-version"] > "2023-06-01"
    assert "temperature" not in api.seen[1].body
    assert left.metadata["ignored_parameters"] == ["temperature"]


async def test_json_mode_is_a_schema_or_a_sentence(api: FakeApi, asked: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    stated = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    await asked.ask(parameters={"response_format": stated})
    await asked.ask(parameters={"response_format": {"type": "json_object"}})
    assert api.seen[0].body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert "JSON object" in api.seen[1].body["system"][0]["text"]


async def test_a_model_of_another_family_is_not_asked_for_after_a_fallback(api: FakeApi, asked: Any) -> None:
    await asked.ask(parameters={"model": "gpt-4"})
    await asked.ask(parameters={"model": "claude-sonnet-4-5"})
    assert [seen.body["model"] for seen in api.seen] == ["claude-3-opus-20240229", "claude-sonnet-4-5"]


async def test_tool_use_becomes_tool_calls(api: FakeApi, asked: Any) -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Wien"}}
    api.says(whole(claude("c", "tool_use", {"type": "thinking", "thinking": "hm"}, block)))
    reply = await asked.ask()
    call = {
        "id": "toolu_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city":"Wien"}'},
    }
    assert (reply.output, reply.finish_reason) == ("", "tool_calls")
    assert reply.metadata["message"] == {"tool_calls": [call]}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
async def test_stop_reasons_have_one_vocabulary(api: FakeApi, asked: Any, said: str, read: str) -> None:
    api.says(whole(claude("c", said)), events(*claude_rows(said)))
    assert (await asked.ask()).finish_reason == read
    assert (await asked.stream())[-1].finish_reason == read


async def test_a_stream_has_its_texts_tool_calls_and_usage(api: FakeApi, asked: Any) -> None:
    rows = claude_rows("tool_use")
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
    tool = [
        {"type": "content_block_start", "index": 1, "content_block": use},
        *(
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in ("", '{"city":', '"Wien"}')
        ),
        {"type": "content_block_stop", "index": 1},
        {"type": "an_event_of_tomorrow"},
    ]
    api.says(events(*rows[:-2], *tool, *rows[-2:]))
    *parts, last = await asked.stream()
    assert parts[:3] == ["Hel", "lo ", "there"]
    head = {"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    assert parts[3] == Delta(message={"tool_calls": [{"index": 0, **head}]})
    pieces = [part.message["tool_calls"][0]["function"]["arguments"] for part in parts[4:]]
    assert pieces == ['{"city":', '"Wien"}']
    assert isinstance(last, ProviderReply)
    assert (last.prompt_tokens, last.completion_tokens, last.finish_reason) == (11, 3, "tool_calls")


async def test_what_was_used_and_what_is_left_is_counted(api: FakeApi, asked: Any) -> None:
    api.says(whole(claude(), 200, "anthropic-ratelimit-input-tokens-remaining: 1234"))
    await asked.ask(config={"prices": {"claude-3-opus": {"input": 15, "output": 75}}})
    assert asked.count("anthropic_provider_requests_total", status="success") == 1
    assert asked.count("anthropic_provider_tokens_total", type="prompt") == 11
    assert asked.count("anthropic_provider_request_duration_seconds_count") == 1
    assert asked.count("anthropic_provider_ratelimit_remaining", type="input_tokens") == 1234
    cost = (11 * 15 + 3 * 75) / 1_000_000
    assert asked.count("provider_cost_usd_total", provider_id="anthropic_x") == pytest.approx(cost)


async def test_connections_are_used_again_whole_and_streamed(api: FakeApi, asked: Any) -> None:
    for _ in range(3):
        await asked.ask()
        await asked.stream()
    assert api.connections == 1
