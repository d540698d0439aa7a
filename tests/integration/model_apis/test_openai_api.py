"""What the provider `openai` sends and reads, on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_sdk import Delta, ExtensionError, ProviderReply
from harness.model_api import WEATHER_CALL, FakeApi, error, events, gpt, gpt_chunk, whole

TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}


@pytest.fixture
async def asked(api: FakeApi, open_provider: Any) -> Any:
    async with open_provider("openai", api) as provider:
        yield provider


async def test_a_prompt_becomes_a_chat_completion_with_the_seeds_settings(api: FakeApi, asked: Any) -> None:
    reply = await asked.ask("Hi", config={"max_tokens": 2048, "temperature": 0.7})
    assert api.seen[0].path == "/v1/chat/completions"
    assert api.seen[0].key == "sk-canary-0123456789abcdef"
    assert api.seen[0].body == {
        "model": "gpt-4",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.7,
        "max_tokens": 2048,
    }
    assert (reply.output, reply.prompt_tokens, reply.completion_tokens) == ("Hello there", 11, 3)
    assert (reply.model, reply.finish_reason) == ("gpt-4", "stop")


async def test_messages_tools_images_and_parameters_go_as_they_are(api: FakeApi, asked: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]},
        {"role": "assistant", "content": None, "tool_calls": [WEATHER_CALL]},
        {"role": "tool", "tool_call_id": "call_abc", "content": "sunny"},
    ]
    parameters = {
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "response_format": {"type": "json_object"},
        "seed": 7,
        "a_parameter_of_tomorrow": [1],
    }
    await asked.ask(messages=messages, parameters=parameters)
    assert api.seen[0].body == {"model": "gpt-4", "messages": messages, **parameters}


async def test_temperature_zero_of_a_request_wins_over_the_configuration(api: FakeApi, asked: Any) -> None:
    await asked.ask(
        parameters={"temperature": 0, "max_tokens": 5}, config={"temperature": 0.7, "max_tokens": 9}
    )
    assert (api.seen[0].body["temperature"], api.seen[0].body["max_tokens"]) == (0, 5)


async def test_a_request_may_choose_a_model_of_the_family_and_no_other(api: FakeApi, asked: Any) -> None:
    for wanted in ("gpt-4o-mini", "claude-3-opus-20240229", 5):
        await asked.ask(parameters={"model": wanted})
    await asked.ask(parameters={"model": "gpt-4o"}, config={"models": []})
    assert [seen.body["model"] for seen in api.seen] == ["gpt-4o-mini", "gpt-4", "gpt-4", "gpt-4"]


async def test_reasoning_models_get_the_newer_name_of_the_limit(api: FakeApi, asked: Any) -> None:
    await asked.ask(config={"model": "o3-mini", "max_tokens": 9})
    await asked.ask(parameters={"max_completion_tokens": 5, "max_tokens": 5})
    bodies = [seen.body for seen in api.seen]
    assert [body.get("max_completion_tokens") for body in bodies] == [9, 5]
    assert not any("max_tokens" in body for body in bodies)


async def test_a_request_can_not_smuggle_in_what_the_provider_decides(api: FakeApi, asked: Any) -> None:
    await asked.ask(parameters={"stream": True, "messages": [], "stream_options": {"include_usage": False}})
    assert api.seen[0].body == {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
    with pytest.raises(ExtensionError, match=r"parameters\.n"):
        await asked.ask(parameters={"n": 2})


async def test_settings_of_the_configuration_are_defaults(api: FakeApi, asked: Any) -> None:
    config = {"system": "You are a bird.", "parameters": {"reasoning_effort": "low", "seed": 1}}
    await asked.ask(parameters={"seed": 2}, config=config)
    body = api.seen[0].body
    assert body["messages"][0] == {"role": "system", "content": "You are a bird."}
    assert (body["reasoning_effort"], body["seed"]) == ("low", 2)


async def test_tool_calls_refusals_and_logprobs_are_in_the_reply(api: FakeApi, asked: Any) -> None:
    answer = gpt(finish="tool_calls", content=None, tool_calls=[WEATHER_CALL], refusal="no")
    answer["choices"][0]["logprobs"] = {"content": []}
    api.says(whole(answer))
    reply = await asked.ask()
    assert (reply.output, reply.finish_reason) == ("", "tool_calls")
    assert reply.metadata["message"] == {"tool_calls": [WEATHER_CALL], "refusal": "no"}
    assert reply.metadata["logprobs"] == {"content": []}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("something_new", "stop"),
    ],
)
async def test_finish_reasons_have_one_vocabulary(api: FakeApi, asked: Any, said: str, read: str) -> None:
    api.says(whole(gpt(finish=said)))
    assert (await asked.ask()).finish_reason == read


async def test_a_stream_has_its_texts_tool_calls_usage_and_finish_reason(api: FakeApi, asked: Any) -> None:
    first = {"index": 0, **WEATHER_CALL, "function": {"name": "get_weather", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"city":"Vienna"}'}}
    api.says(
        events(
            gpt_chunk({"role": "assistant", "content": ""}),
            gpt_chunk({"content": "Let me see."}),
            gpt_chunk({"tool_calls": [first]}),
            gpt_chunk({"tool_calls": [more]}),
            ": a comment\n\n",
            gpt_chunk({}, "tool_calls"),
            gpt_chunk(None, usage={"prompt_tokens": 5, "completion_tokens": 6}),
            "data: [DONE]\n\n",
        )
    )
    *parts, last = await asked.stream()
    assert api.seen[0].body["stream"] is True
    assert api.seen[0].body["stream_options"] == {"include_usage": True}
    assert parts == [
        "Let me see.",
        Delta(message={"tool_calls": [first]}),
        Delta(message={"tool_calls": [more]}),
    ]
    assert isinstance(last, ProviderReply)
    assert (last.prompt_tokens, last.completion_tokens, last.finish_reason) == (5, 6, "tool_calls")


def _spelled(text: str) -> dict[str, Any]:
    chunk = gpt_chunk({"content": text})
    token = {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}
    chunk["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    return chunk


async def test_log_probabilities_of_a_stream_stand_in_its_end(api: FakeApi, asked: Any) -> None:
    api.says(
        events(*map(_spelled, ("Hel", "lo")), {"error": None} | gpt_chunk({}, "stop"), "data: [DONE]\n\n")
    )
    *parts, last = await asked.stream()
    assert parts == ["Hel", "lo"]
    assert [entry["token"] for entry in last.metadata["logprobs"]["content"]] == parts
    assert last.metadata["logprobs"]["refusal"] is None


@pytest.mark.parametrize("token", ["y" * 1_000_000, "\ud800"], ids=["too large for NATS", "half a character"])
async def test_log_probabilities_that_can_not_be_passed_on_are_left_out(
    api: FakeApi, asked: Any, token: str
) -> None:
    long = _spelled("Hello")
    long["choices"][0]["logprobs"]["content"][0]["token"] = token
    api.says(events(long, gpt_chunk({}, "stop"), "data: [DONE]\n\n"))
    *parts, last = await asked.stream()
    assert parts == ["Hello"]
    assert "logprobs" not in last.metadata


async def test_connections_are_used_again_whole_and_streamed(api: FakeApi, asked: Any) -> None:
    for _ in range(3):
        await asked.ask()
        assert "".join(part for part in await asked.stream() if isinstance(part, str)) == "Hello there"
    assert api.connections == 1


async def test_what_was_used_is_counted_and_priced(api: FakeApi, asked: Any) -> None:
    lines = ("x-ratelimit-remaining-requests: 59", "x-ratelimit-limit-tokens: 40000")
    api.says(whole(gpt(), 200, *lines))
    await asked.ask()
    await asked.ask(config={"prices": {"gpt-4": {"input": 100_000, "output": 0}}})
    await asked.ask(config={"model": "gpt-unheard-of"})
    assert asked.count("openai_provider_requests_total", status="success") == 3
    assert asked.count("openai_provider_request_duration_seconds_count") == 3
    assert asked.count("openai_provider_tokens_total", type="prompt") == 33
    assert asked.count("openai_provider_tokens_total", type="completion") == 9
    assert asked.count("provider_cost_usd_total", provider_id="openai_x") == pytest.approx(1.1)
    assert asked.count("provider_unpriced_requests_total", provider_id="openai_x") == 2
    assert asked.count("openai_provider_ratelimit_remaining", type="requests") == 59
    assert asked.count("openai_provider_ratelimit_limit", type="tokens") == 40_000
    labels = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": "gpt-4",
    }
    assert asked.count("gen_ai_client_operation_duration_seconds_count", **labels) == 2
    assert asked.count("gen_ai_client_token_usage_sum", **labels, gen_ai_token_type="input") == 22


async def test_our_own_limit_refuses_before_the_api_does(api: FakeApi, asked: Any) -> None:
    config = {"requests_per_minute": 2}
    await asked.ask(config=config)
    await asked.ask(config=config)
    with pytest.raises(ExtensionError) as raised:
        await asked.ask(config=config)
    assert raised.value.code.value == "RESOURCE_EXHAUSTED"
    assert 50_000 < (raised.value.retry_after_ms or 0) <= 60_001
    assert len(api.seen) == 2
    assert asked.count("openai_provider_rate_limited_total") == 1


async def test_any_other_endpoint_needs_only_a_base_url_and_may_have_no_key(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-ours")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-ours")
    from beamline_extensions.openai_compatible.extension import OpenAICompatibleProvider
    from beamline_sdk import ExtensionRequest, Setup

    provider = OpenAICompatibleProvider(
        {"BEAMLINE_ALLOWED_BASE_URLS": api.url, "OPENAI_API_KEY": "sk-not-for-them"}
    )
    await provider.initialize(Setup("local", {}))
    config = provider.config_model.model_validate({"model": "llama3", "base_url": f"{api.url}/api/v1"})
    reply = await provider.handle(ExtensionRequest(prompt="Hi", parameters={"model": "gpt-4"}), config)
    api.says(error(500))
    with pytest.raises(ExtensionError):
        await provider.handle(ExtensionRequest(prompt="Hi"), config)
    await provider.stop()
    assert reply.output == "Hello there"
    assert api.seen[0].path == "/api/v1/chat/completions"
    assert api.seen[0].body["model"] == "llama3"
    assert "authorization" not in api.seen[0].headers
    assert "ours" not in str(api.seen[0].headers)


async def test_a_cookie_does_not_travel_from_one_request_to_the_next(api: FakeApi, asked: Any) -> None:
    api.says(whole(gpt(), 200, "set-cookie: tenant=acme; Path=/"))
    await asked.ask()
    await asked.ask()
    assert "cookie" not in api.seen[1].headers
