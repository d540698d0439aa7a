"""The OpenAI-compatible door in raw HTTP, down to a real mock provider and the real mask."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from .conftest import Served, Site, eventually, extension, policy, running
from .openai_world import FILLER, USER, chatting, deltas, events


async def test_a_completion_has_the_shape_of_the_api(site: Site) -> None:
    async with chatting(site) as served:
        reply = await served.http.post(
            "/v1/chat/completions", json={"model": "fast", "messages": USER, "temperature": 0}
        )
    body = reply.json()
    assert reply.status_code == 200
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert isinstance(body["created"], int)
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert set(body["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert reply.headers["x-beamline-provider"] == "talk"


async def test_a_method_or_path_that_is_not_there_is_said_in_the_words_of_the_api(site: Site) -> None:
    async with running(site.settings()) as served:
        reply = await served.http.get("/v1/chat/completions")
        other = await served.http.post("/v1/models", json={})
        nowhere = await served.http.post("/v1/embeddings", json={})
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert reply.json()["error"]["type"] == other.json()["error"]["type"] == "invalid_request_error"
    assert (nowhere.status_code, nowhere.json()["error"]["type"]) == (404, "invalid_request_error")


async def test_all_other_parameters_reach_the_provider_and_its_tool_calls_come_back(site: Site) -> None:
    seen: list[dict[str, Any]] = []
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        seen.append(request)
        metadata = {"finish_reason": "tool_calls", "message": {"tool_calls": calls}}
        return {"provider_id": "tools", "output": "", "usage": {}, "metadata": metadata}

    await site.put(
        extension("tools", "provider"),
        policy(
            "tools", [{"action": "select_provider", "provider_id": "tools"}], match={"models": ["tools*"]}
        ),
    )
    await site.respond(site.nc, "tools", "beamline.provider.tools.v1", answer)
    given = {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "max_completion_tokens": 7,
        "user": "u-1",
        "temperature": 0,
        "something_new": [1],
    }
    async with running(site.settings()) as served:
        body = {"model": "tools-1", "messages": USER, **given}
        whole = await served.http.post(
            "/v1/chat/completions",
            json=body,
            headers={"x-beamline-tenant": "acme", "x-beamline-environment": "prod"},
        )
        stream = await served.http.post("/v1/chat/completions", json={**body, "stream": True})
    assert seen[0]["tenant_id"] == "acme"
    assert seen[0]["messages"] == USER
    assert seen[0]["parameters"] == {"model": "tools-1", "max_tokens": 7, **given}
    choice = whole.json()["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}
    assert choice["finish_reason"] == "tool_calls"
    assert deltas(stream)[1]["tool_calls"] == [{"index": 0, **calls[0]}]


async def test_a_stream_is_events_that_end_in_done(site: Site) -> None:
    async with chatting(site) as served:
        reply = await served.http.post(
            "/v1/chat/completions",
            json={
                "model": "fast",
                "messages": USER,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        )
    assert reply.headers["content-type"].startswith("text/event-stream")
    rows = events(reply)
    assert rows[-1] == "[DONE]"
    chunks = [orjson.loads(row) for row in rows[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas(reply)) == "Hello there"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0


async def test_an_address_that_is_cut_by_every_chunk_is_masked(site: Site) -> None:
    async with chatting(site) as served:
        reply = await served.http.post(
            "/v1/chat/completions", json={"model": "leaky", "messages": USER, "stream": True}
        )
    text = "".join(delta.get("content", "") for delta in deltas(reply))
    assert text == f"{FILLER * 12}write to [EMAIL] or don't. {FILLER * 12}"
    assert len(deltas(reply)) > 5


REFUSALS: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "an unknown model": ({"model": "nobody"}, 404, "invalid_request_error", "model_not_found"),
    "no model": ({"model": None}, 400, "invalid_request_error", None),
    "no messages": ({"messages": None}, 400, "invalid_request_error", None),
    "two choices": ({"n": 2}, 400, "invalid_request_error", None),
    "a word for stream": ({"stream": "yes"}, 400, "invalid_request_error", None),
    "a rejected prompt": ({"model": "guarded"}, 400, "invalid_request_error", "content_filter"),
    "a full provider": ({"model": "busy"}, 429, "rate_limit_error", "rate_limit_exceeded"),
    "nobody there": ({"model": "absent"}, 503, "server_error", "unavailable"),
    "a timeout": ({"model": "slow"}, 504, "server_error", "deadline_exceeded"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
async def test_every_error_has_its_status_and_the_apis_shape(
    site: Site, case: tuple[dict[str, Any], int, str, str | None], stream: bool
) -> None:
    changes, status, kind, code = case
    async with chatting(site) as served:
        reply = await served.http.post(
            "/v1/chat/completions", json={"model": "fast", "messages": USER, "stream": stream, **changes}
        )
    assert reply.status_code == status
    error = reply.json()["error"]
    assert (error["type"], error["code"]) == (kind, code)
    assert isinstance(error["message"], str)
    if status in {429, 503}:
        assert int(reply.headers["retry-after"]) >= 1


async def test_an_error_after_the_stream_began_is_an_event_and_no_done_follows(site: Site) -> None:
    async with chatting(site) as served:
        reply = await served.http.post(
            "/v1/chat/completions", json={"model": "breaking", "messages": USER, "stream": True}
        )
    rows = events(reply)
    assert reply.status_code == 200
    error = orjson.loads(rows[-1])["error"]
    assert error["code"] == "stream_interrupted"
    assert error["details"]["delivered_characters"] == 4
    assert "[DONE]" not in rows


async def test_the_models_of_the_policies_are_listed(site: Site) -> None:
    async with chatting(site) as served:
        listed = (await served.http.get("/v1/models")).json()
        one = (await served.http.get("/v1/models/fast")).json()
        none = await served.http.get("/v1/models/nobody")
    assert listed["object"] == "list"
    assert "fast" in [model["id"] for model in listed["data"]]
    assert (one["id"], one["object"]) == ("fast", "model")
    assert none.status_code == 404
    assert none.json()["error"]["code"] == "model_not_found"


async def test_the_plain_route_streams_too(site: Site) -> None:
    async with chatting(site) as served:
        reply = await served.route({"model": "fast", "prompt": "Hi", "stream": True})
    rows = events(reply)
    assert "".join(orjson.loads(row).get("delta", "") for row in rows) == "Hello there"
    end = orjson.loads(rows[-1])
    assert end["usage"]["total_tokens"] > 0
    assert "output" not in end
    assert [step["extension_id"] for step in end["steps"]] == ["talk"]


async def test_chunks_leave_while_the_provider_still_speaks(site: Site) -> None:
    async with chatting(site) as served:
        body = {"model": "stalling", "messages": USER, "stream": True}
        async with served.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            rows: list[str] = []
            async for line in reply.aiter_lines():
                rows.append(line)
                if "Hell" in line:
                    break  # it will say no more for an hour
    assert any("Hell" in row for row in rows)


async def test_a_client_that_leaves_a_stream_stops_the_provider(site: Site) -> None:
    async with chatting(site) as served:
        body = {"model": "stalling", "messages": USER, "stream": True}
        async with served.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            async for line in reply.aiter_lines():
                if "Hell" in line:
                    break
        await eventually(lambda: _is_idle(served), "the request is over, though the provider would go on")


async def _is_idle(served: Served) -> bool:
    text = (await served.http.get("/metrics")).text
    rows = [row for row in text.splitlines() if row.startswith("router_requests_in_flight")]
    return bool(rows) and float(rows[0].rpartition(" ")[2]) == 0.0
