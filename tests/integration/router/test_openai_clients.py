"""The official clients of OpenAI, unmodified, against a router: whole and streamed, an error, a timeout."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from beamline_router.core.api_keys import new_key

from .conftest import Site, extension, policy
from .openai_world import USER, chatting

NODE = Path(__file__).with_name("openai_client.mjs")
NODE_PACKAGE = "openai@6"


@asynccontextmanager
async def client(
    site: Site, api_key: str = "none", router: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[openai.AsyncOpenAI]:
    async with chatting(site, **(router or {})) as served:
        url = f"{served.router.http_url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=api_key, max_retries=0, **options) as opened:
            yield opened


@dataclass(frozen=True)
class Keys:
    """A file of keys, and what stands behind its entries."""

    path: Path
    good: str
    limited: str
    expired: str


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    (good, first), (limited, second), (expired, third) = (
        new_key("acme", None, expires, secrets.token_bytes) for expires in (None, None, "2020-01-01")
    )
    path = tmp_path / "keys.json"
    entries = [first, {**second, "limits": {"requestsPerSecond": 0.01, "burst": 1}}, third]
    path.write_text(json.dumps({"keys": entries}))
    return Keys(path, good, limited, expired)


def complete(api: openai.AsyncOpenAI, stream: bool, **more: Any) -> Any:
    return api.chat.completions.create(model="fast", messages=USER, stream=stream, **more)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_python_clients_api_key_is_the_routers(site: Site, keys: Keys, stream: bool) -> None:
    async with client(site, keys.good, {"api_keys": keys.path}) as api:
        reply = await complete(api, stream)
        text = (
            "".join([chunk.choices[0].delta.content or "" async for chunk in reply])
            if stream
            else reply.choices[0].message.content
        )
        assert "fast" in [model.id async for model in api.models.list()]
        for wrong in ("none", keys.good[:-1], keys.expired):
            with pytest.raises(openai.AuthenticationError) as raised:
                await complete(api.with_options(api_key=wrong), stream)
            assert raised.value.code == "invalid_api_key"
            assert wrong not in str(raised.value)
            with pytest.raises(openai.AuthenticationError):
                await api.with_options(api_key=wrong).models.list()
        with pytest.raises(openai.PermissionDeniedError) as denied:
            await complete(api, stream, extra_headers={"x-beamline-tenant": "other"})
    assert text == "Hello there"
    assert denied.value.code == "permission_denied"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_python_client_is_told_when_its_key_may_come_back(
    site: Site, keys: Keys, stream: bool
) -> None:
    async with client(site, keys.limited, {"api_keys": keys.path}) as api:
        first = await complete(api, stream)
        if stream:
            assert [chunk async for chunk in first]
        with pytest.raises(openai.RateLimitError) as raised:
            await complete(api, stream)
    assert raised.value.code == "rate_limit_exceeded"
    assert 90 <= int(raised.value.response.headers["retry-after"]) <= 100


async def test_the_python_clients_own_timeout_ends_a_whole_request(site: Site) -> None:
    async with client(site, timeout=0.5) as api:
        with pytest.raises(openai.APITimeoutError):
            await api.chat.completions.create(model="pausing", messages=USER)
        reply = await complete(api, False)
    assert reply.choices[0].message.content == "Hello there"


async def test_the_python_client_gets_a_completion_and_the_models(site: Site) -> None:
    async with client(site) as api:
        reply = await api.chat.completions.create(model="fast", messages=USER, temperature=0, max_tokens=9)
        models = [model.id async for model in api.models.list()]
        one = await api.models.retrieve("fast")
    assert reply.choices[0].message.content == "Hello there"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens > 0
    assert "fast" in models
    assert one.id == "fast"


async def test_the_python_client_streams(site: Site) -> None:
    async with client(site) as api:
        stream = await api.chat.completions.create(
            model="fast", messages=USER, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello there"
    assert len(chunks) > 4
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0


PARTS = [{"type": "text", "text": "the weather"}, {"type": "text", "text": "in Vienna"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"of": {"type": "string"}}},
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"of":"Vienna"}'}}


async def put_tools(site: Site) -> list[dict[str, Any]]:
    """A provider that answers with a tool call; what it was asked."""
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        metadata = {"finish_reason": "tool_calls", "message": {"tool_calls": [CALL]}}
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        return {"provider_id": "tools", "output": "", "usage": usage, "metadata": metadata}

    await site.put(
        extension("tools", "provider"),
        policy("tools", [{"action": "select_provider", "provider_id": "tools"}], match={"models": ["tools"]}),
    )
    await site.respond(site.nc, "tools", "beamline.provider.tools.v1", answer)
    return asked


async def test_the_python_client_sends_parts_and_tools_and_reads_calls_streamed_or_not(
    site: Site,
) -> None:
    asked = await put_tools(site)
    given: dict[str, Any] = {
        "model": "tools",
        "messages": [{"role": "user", "content": PARTS}],
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    async with client(site) as api:
        whole = await api.chat.completions.create(**given)
        options = {"include_usage": True}
        async with api.chat.completions.stream(**given, stream_options=options) as stream:  # type: ignore[arg-type]
            streamed = await stream.get_final_completion()
        with pytest.raises(openai.BadRequestError) as refused:
            await api.chat.completions.create(**given, n=2)
    for reply in (whole, streamed):
        [call] = reply.choices[0].message.tool_calls or []
        assert (call.id, call.function.name, call.function.arguments) == ("c1", "weather", '{"of":"Vienna"}')
        assert reply.choices[0].finish_reason == "tool_calls"
        assert reply.usage is not None
        assert reply.usage.total_tokens == 3
    assert refused.value.param == "n"
    for request in asked:
        assert request["messages"] == given["messages"]
        assert request["parameters"]["tools"] == [TOOL]
        assert request["parameters"]["parallel_tool_calls"] is False
    assert len(asked) == 2


async def put_answer(site: Site, name: str, answer: dict[str, Any]) -> None:
    """A provider of the model ``name`` that always gives the same answer."""
    step = {"action": "select_provider", "provider_id": name}
    await site.put(extension(name, "provider", retry=0), policy(name, [step], match={"models": [name]}))
    await site.respond(site.nc, name, f"beamline.provider.{name}.v1", lambda _: answer)


TOKENS = [{"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []} for text in ("Hel", "lo")]


async def test_the_python_client_reads_log_probabilities_streamed_or_not(site: Site) -> None:
    logprobs = {"content": TOKENS, "refusal": None}
    await put_answer(site, "spelling", {"output": "Hello", "metadata": {"logprobs": logprobs}})
    async with client(site) as api:
        given: Any = {"model": "spelling", "messages": USER, "logprobs": True}
        whole = await api.chat.completions.create(**given)
        async with api.chat.completions.stream(**given) as stream:
            streamed = await stream.get_final_completion()
    for reply in (whole, streamed):
        assert reply.choices[0].message.content == "Hello"
        assert reply.choices[0].logprobs is not None
        assert [entry.token for entry in reply.choices[0].logprobs.content or ()] == ["Hel", "lo"]


@pytest.mark.parametrize(
    "message", [{"tool_calls": [CALL]}, {"refusal": "I can't"}], ids=["a tool call", "a refusal"]
)
async def test_the_python_client_gets_no_empty_text_in_place_of_none(
    site: Site, message: dict[str, Any]
) -> None:
    await put_answer(site, "wordless", {"output": "", "metadata": {"message": message}})
    async with client(site) as api:
        whole = await api.chat.completions.create(model="wordless", messages=USER)
        async with api.chat.completions.stream(model="wordless", messages=USER) as stream:
            streamed = await stream.get_final_completion()
    for reply in (whole, streamed):
        assert reply.choices[0].message.content is None
        assert reply.choices[0].message.refusal == message.get("refusal")


@pytest.mark.parametrize("retryable", [True, False], ids=["may help", "can't help"])
async def test_the_python_client_repeats_by_itself_only_what(site: Site, retryable: bool) -> None:
    error = {"code": "RESOURCE_EXHAUSTED", "message": "no", "retryable": retryable, "retry_after_ms": 10}
    await put_answer(site, "spent", {"error": error})
    async with client(site) as api:
        asking = api.with_options(max_retries=1).chat.completions.create(model="spent", messages=USER)
        with pytest.raises(openai.RateLimitError) as raised:
            await asking
    assert (raised.value.response.request.headers["x-stainless-retry-count"] == "1") is retryable


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("nobody", openai.NotFoundError, "model_not_found"),
        ("guarded", openai.BadRequestError, "content_filter"),
        ("busy", openai.RateLimitError, "rate_limit_exceeded"),
        ("slow", openai.InternalServerError, "deadline_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_python_client_raises_its_own_error_for_each_of_ours(
    site: Site, model: str, kind: type[openai.APIStatusError], code: str, stream: bool
) -> None:
    async with client(site) as api:
        with pytest.raises(kind) as raised:
            await api.chat.completions.create(model=model, messages=USER, stream=stream)
    assert raised.value.code == code
    assert raised.value.request_id


async def test_the_python_client_raises_when_a_stream_breaks(site: Site) -> None:
    got: list[str] = []

    async def read() -> None:
        stream = await api.chat.completions.create(model="breaking", messages=USER, stream=True)
        async for chunk in stream:
            got.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 -- kept also when it breaks

    async with client(site) as api:
        with pytest.raises(openai.APIError) as raised:
            await read()
    assert "".join(got) == "Hell"
    assert raised.value.code == "stream_interrupted"


async def test_the_python_clients_own_timeout_ends_a_stream_and_the_router_lives_on(site: Site) -> None:
    async def read() -> None:
        async for _ in await api.chat.completions.create(model="stalling", messages=USER, stream=True):
            pass

    async with client(site, timeout=1.0) as api:
        with pytest.raises(openai.APITimeoutError):
            await read()
        reply = await api.chat.completions.create(model="fast", messages=USER)
    assert reply.choices[0].message.content == "Hello there"


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the npm package; the test is skipped where there is no Node at all."""
    import subprocess

    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on PATH: install Node.js 20 or newer to run the Node client")
    folder = tmp_path_factory.mktemp("openai-node")
    shutil.copy(NODE, folder / NODE.name)
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--silent", NODE_PACKAGE],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    if done.returncode != 0:
        reason = f"npm could not install {NODE_PACKAGE}: {done.stderr.strip()[:300]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


async def test_the_node_client_does_the_same(site: Site, node_folder: Path, keys: Keys) -> None:
    asked = await put_tools(site)
    async with chatting(site, api_keys=keys.path) as served:
        process = await asyncio.create_subprocess_exec(
            "node",
            NODE.name,
            f"{served.router.http_url}/v1",
            keys.good,
            keys.limited,
            cwd=node_folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    said = json.loads(out)
    assert said["whole"] == {"content": "Hello there", "finish": "stop", "tokens": True}
    assert said["models"] is True
    assert said["streamed"]["content"] == "Hello there"
    assert said["streamed"]["chunks"] > 3
    assert said["streamed"]["tokens"] is True
    assert said["errors"] == {
        "nobody": ["NotFoundError", 404, "model_not_found"],
        "guarded": ["BadRequestError", 400, "content_filter"],
        "busy": ["RateLimitError", 429, "rate_limit_exceeded"],
        "slow": ["InternalServerError", 504, "deadline_exceeded"],
    }
    assert said["calls"] == said["streamedCalls"] == [["c1", "weather", '{"of":"Vienna"}']]
    assert [request["messages"][0]["content"] for request in asked] == [PARTS, PARTS]
    assert said["n"] == ["BadRequestError", 400, "n"]
    assert said["broken"] == {"content": "Hell", "code": "stream_interrupted"}
    assert said["timeout"] == "APIConnectionTimeoutError"
    assert said["streamedErrors"] == said["errors"]
    assert said["keys"] == {
        "wrong": ["AuthenticationError", 401, "invalid_api_key"],
        "wrongStreamed": ["AuthenticationError", 401, "invalid_api_key"],
        "wrongModels": ["AuthenticationError", 401, "invalid_api_key"],
        "foreign": ["PermissionDeniedError", 403, "permission_denied"],
        "first": "Hello there",
        "limited": ["RateLimitError", 429, "rate_limit_exceeded"],
        "limitedStreamed": ["RateLimitError", 429, "rate_limit_exceeded"],
        "retryAfter": True,
    }
