"""The official OpenAI client, a router, the providers as processes, and the fakes of both APIs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from harness.model_api import WEATHER_CALL, FakeApi, error, events, fake_api, gpt, gpt_chunk, whole

from .conftest import Site, extension, policy, running

KEY = "sk-canary-0123456789"
SECRET = "canary in the prompt"
USER = [{"role": "user", "content": SECRET}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
]


@dataclass
class Door:
    """Everything that serves, and a client in front of it."""

    client: openai.AsyncOpenAI
    gpt: FakeApi
    claude: FakeApi
    logs: list[Path]

    async def chat(self, **given: Any) -> Any:
        call = {"model": "gpt-4", "messages": USER, **given}
        return await self.client.chat.completions.create(**call)


@pytest.fixture
async def door(site: Site, tmp_path: Path) -> AsyncIterator[Door]:
    step = {
        "action": "select_provider",
        "provider_id": "openai_gpt4",
        "fallback": ["anthropic_claude"],
    }
    alone = {"action": "select_provider", "provider_id": "openai_gpt4", "fallback": []}
    configs = {
        "openai_gpt4": {"model": "gpt-4", "max_tokens": 2048, "temperature": 0.7},
        "anthropic_claude": {"model": "claude-3-opus-20240229", "max_tokens": 4096},
    }
    await site.put(
        *(
            extension(name, "provider", timeout_ms=20_000, retry=0, config=config)
            for name, config in configs.items()
        ),
        policy("both", [step], match={"models": ["gpt-4*"]}),
        policy("alone", [alone], match={"models": ["alone"]}),
    )
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(fake_api()) for _ in range(2)]
        logs = [
            await stack.enter_async_context(_process(site, tmp_path, name, extension_id, url))
            for name, extension_id, url in (
                ("openai", "openai_gpt4", f"{apis[0].url}/v1"),
                ("anthropic", "anthropic_claude", apis[1].url),
            )
        ]
        served = await stack.enter_async_context(running(site.settings()))
        client = await stack.enter_async_context(
            openai.AsyncOpenAI(base_url=f"{served.router.http_url}/v1", api_key="none", max_retries=0)
        )
        yield Door(client, apis[0], apis[1], logs)


@asynccontextmanager
async def _process(site: Site, folder: Path, name: str, extension_id: str, url: str) -> AsyncIterator[Path]:
    log = folder / f"{name}.log"
    environment = {
        **os.environ,
        "NATS_URL": site.nats_url,
        "BEAMLINE_EXTENSION_ID": extension_id,
        "METRICS_PORT": "0",
        "LOG_LEVEL": "debug",
        f"{name.upper()}_API_KEY": KEY,
        f"{name.upper()}_BASE_URL": url,
    }
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "beamline_extensions", name, env=environment, stderr=out
        )
    try:
        async with asyncio.timeout(20):
            await _logged(log, process, b'"extension.ready"')
        yield log
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def _logged(log: Path, process: asyncio.subprocess.Process, event: bytes) -> None:
    while event not in await asyncio.to_thread(log.read_bytes):
        assert process.returncode is None, f"it ended with {process.returncode}"
        await asyncio.sleep(0.02)


async def test_chat_whole_and_streamed_with_tools_images_and_json_mode(door: Door) -> None:
    reply = await door.chat()
    assert reply.choices[0].message.content == "Hello there"
    assert (reply.model, reply.usage.total_tokens) == ("gpt-4", 14)
    sent = door.gpt.seen[0]
    assert sent.key == KEY
    assert (sent.body["temperature"], sent.body["max_tokens"]) == (0.7, 2048)

    stream = await door.chat(stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == "Hello there"
    assert chunks[-1].usage.total_tokens == 14

    answer = gpt(finish="tool_calls", content=None, tool_calls=[WEATHER_CALL])
    answer["choices"][0]["logprobs"] = {"content": [], "refusal": None}
    door.gpt.says(whole(answer))
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]},
        {"role": "assistant", "content": None, "tool_calls": [WEATHER_CALL]},
        {"role": "tool", "tool_call_id": "call_abc", "content": "sunny"},
    ]
    asked = {"tools": TOOLS, "tool_choice": "auto", "response_format": {"type": "json_object"}, "seed": 7}
    reply = await door.chat(messages=messages, temperature=0, **asked)
    sent = door.gpt.seen[-1]
    assert sent.body == {
        "model": "gpt-4",
        "messages": messages,
        "temperature": 0,
        "max_tokens": 2048,
        **asked,
    }
    assert reply.choices[0].finish_reason == "tool_calls"
    assert reply.choices[0].message.content is None
    assert reply.choices[0].logprobs.content == []
    assert reply.choices[0].message.tool_calls[0].function.arguments == '{"city":"Vienna"}'

    first = {"index": 0, **WEATHER_CALL, "function": {"name": "get_weather", "arguments": ""}}
    pieces = ['{"city":', '"Vienna"}']
    more = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
    rows = [gpt_chunk({"tool_calls": [first]}), *map(gpt_chunk, more), gpt_chunk({}, "tool_calls")]
    door.gpt.says(events(*rows, "data: [DONE]\n\n"))
    calls = [
        call
        async for chunk in await door.chat(stream=True, tools=TOOLS)
        for choice in chunk.choices
        for call in choice.delta.tool_calls or ()
    ]
    assert calls[0].function.name == "get_weather"
    assert "".join(call.function.arguments for call in calls) == '{"city":"Vienna"}'

    logged = "".join(log.read_text() for log in door.logs)
    assert "canary" not in logged
    assert "request.answered" in logged


async def test_a_limit_at_the_api_is_a_429_with_retry_after_at_the_door(door: Door) -> None:
    door.gpt.says(error(429, "rate_limit_error", "retry-after: 7", message=f"Limit for {KEY}"))
    with pytest.raises(openai.RateLimitError) as raised:
        await door.chat(model="alone", stream=True)
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.response.headers["retry-after"] == "7"
    assert "canary" not in raised.value.response.text + "".join(log.read_text() for log in door.logs)


async def test_when_one_vendor_fails_the_other_answers(door: Door) -> None:
    system = [{"role": "system", "content": "Be brief."}]
    for number, status in enumerate((500, 529), 1):
        door.gpt.says(error(status, "overloaded_error"), error(status, "overloaded_error"))
        whole_reply = await door.chat(messages=system + USER, max_tokens=5)
        stream = await door.chat(messages=system + USER, max_tokens=5, stream=True)
        text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
        assert whole_reply.choices[0].message.content == text == "Hello there"
        assert whole_reply.model == "claude-3-opus-20240229"
        assert len(door.gpt.seen) == len(door.claude.seen) == 2 * number
    sent = door.claude.seen[0].body
    assert (sent["model"], sent["max_tokens"]) == ("claude-3-opus-20240229", 5)
    assert sent["system"] == [{"type": "text", "text": "Be brief."}]


async def test_any_compatible_endpoint_is_served_at_the_door_by_configuration_only(
    site: Site, tmp_path: Path
) -> None:
    """vLLM, Ollama and the like: what they say of an answer reaches the official client."""
    step = {"action": "select_provider", "provider_id": "local_model", "fallback": []}
    config = {"model": "qwen3:8b"}
    details = {
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    marks = {"system_fingerprint": "fp_local", "service_tier": "default"}
    answer = gpt() | marks
    answer["usage"] |= details
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(fake_api())
        await site.put(
            extension("local_model", "provider", timeout_ms=20_000, retry=0, config=config),
            policy("local", [step], match={"models": ["local"]}),
        )
        url = f"{api.url}/v1"
        await stack.enter_async_context(_process(site, tmp_path, "openai_compatible", "local_model", url))
        served = await stack.enter_async_context(running(site.settings()))
        client = await stack.enter_async_context(
            openai.AsyncOpenAI(base_url=f"{served.router.http_url}/v1", api_key="none", max_retries=0)
        )
        door = Door(client, api, api, [])
        api.says(whole(answer))
        reply = await door.chat(model="local")
        assert api.seen[-1].body["model"] == "qwen3:8b"
        assert reply.choices[0].message.content == "Hello there"
        assert (reply.system_fingerprint, reply.service_tier) == ("fp_local", "default")
        assert reply.usage.prompt_tokens_details.cached_tokens == 4
        assert reply.usage.completion_tokens_details.reasoning_tokens == 2

        last = gpt_chunk({}, "stop") | marks | {"usage": answer["usage"]}
        api.says(events(gpt_chunk({"content": "Hi"}), last, "data: [DONE]\n\n"))
        asked = await door.chat(model="local", stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in asked]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hi"
        assert chunks[-1].system_fingerprint == "fp_local"
        assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 4


async def test_a_process_without_a_key_says_so_stays_and_is_not_ready(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI")}
    environment |= {"NATS_URL": site.nats_url, "METRICS_PORT": "0"}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "beamline_extensions", "openai", env=environment, stderr=out
        )
    try:
        async with asyncio.timeout(20):
            await _logged(log, process, b'"extension.not_ready"')
        lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
        port = next(line["port"] for line in lines if line["event"] == "extension.starting")
        said = next(line["error"] for line in lines if line["event"] == "extension.not_ready")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        assert process.returncode is None
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)
    assert said == "CredentialsMissing: OPENAI_API_KEY is not set"
    assert answer.startswith("HTTP/1.1 503")
    assert "CredentialsMissing" in answer
