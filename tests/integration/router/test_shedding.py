"""An overloaded router's refusals: cheap, in the words of their door, and harmless to connections."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from beamline_contract.names import SUBJECT_INVOKE

from .conftest import Site, eventually, extension, policy, provider_reply, running

HOLDING = [{"action": "select_provider", "provider_id": "holding", "fallback": []}]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize("transport", ["fast", "plain"])
async def test_a_full_router_refuses_in_the_words_of_each_door_and_keeps_the_connection(
    site: Site, transport: str
) -> None:
    release = asyncio.Event()

    async def hold(request: dict[str, Any]) -> dict[str, Any]:
        await release.wait()
        return provider_reply(request)

    await site.put(extension("holding", "provider", timeout_ms=30_000), policy("holding", HOLDING))
    await site.respond(site.nc, "holding", "beamline.provider.holding.v1", hold)
    async with running(site.settings(max_in_flight=1, transport=transport)) as served:
        held = asyncio.ensure_future(served.route({"prompt": "x", "policy": "holding"}))
        await eventually(lambda: site.calls.get("holding") == 1, "one is held")
        body = {"prompt": "x", "context": {"filler": "y" * 100_000}}
        routed = [await served.route(body, **{"x-request-id": "r-1"}) for _ in range(3)]
        chatted = await served.http.post("/v1/chat/completions", json=CHAT)
        huge = await served.http.post("/v1/route", content=b"x" * 300_000)
        asked = await site.nc.request(
            SUBJECT_INVOKE, b'{"prompt":"x"}', timeout=10, headers={"Beamline-Request-Id": "n-1"}
        )
        models = await served.http.get("/v1/models")
        healthy = await served.http.get("/healthz")
        metrics = (await served.http.get("/metrics")).text
        release.set()
        assert (await held).status_code == 200
        assert await served.answers()
    for reply in routed:
        assert reply.status_code == 429
        assert reply.headers["retry-after"] == "1"
        assert reply.headers["connection"] == "keep-alive"
        assert reply.headers["x-request-id"] == reply.json()["error"]["request_id"] == "r-1"
        assert reply.json()["error"]["code"] == "RESOURCE_EXHAUSTED"
        assert reply.json()["error"]["retry_after_ms"] == 1000
    assert chatted.status_code == huge.status_code == 429
    assert chatted.json()["error"]["code"] == "rate_limit_exceeded"
    assert huge.headers["connection"] == "close"
    error = orjson.loads(asked.data)["error"]
    assert (error["code"], error["request_id"]) == ("RESOURCE_EXHAUSTED", "n-1")
    assert (models.status_code, healthy.status_code) == (200, 200)
    for door, times in (("http", 5), ("nats", 1)):
        assert f'router_refused_total{{door="{door}",reason="in_flight"}} {times}.0' in metrics
        assert f'router_requests_total{{code="resource_exhausted",door="{door}"}} {times}.0' in metrics
        assert f'router_request_duration_seconds_bucket{{door="{door}",le="0.001"}} {times}.0' in metrics
    assert site.calls == {"holding": 1, "lower": 1, "guard": 1, "echo": 1, "mask": 1}
