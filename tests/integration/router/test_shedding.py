"""An overloaded router's refusals: cheap, in the words of their door, and harmless to connections."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from beamline_contract.names import SUBJECT_INVOKE
from beamline_router.edges.http_exchange import Exchange
from beamline_router.edges.nats_door import NatsDoor
from beamline_router.edges.overload_probe import OverloadProbe

from .conftest import Site, eventually, extension, policy, provider_reply, running
from .http_line import GET, POST, Client, Serve, says_its_path, serve

__all__ = ["serve"]

HOLDING = [{"action": "select_provider", "provider_id": "holding", "fallback": []}]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


async def holding(site: Site) -> asyncio.Event:
    """A policy of that name, whose provider answers once the event is set."""
    release = asyncio.Event()

    async def hold(request: dict[str, Any]) -> dict[str, Any]:
        await release.wait()
        return provider_reply(request)

    await site.put(extension("holding", "provider", timeout_ms=30_000), policy("holding", HOLDING))
    await site.respond(site.nc, "holding", "beamline.provider.holding.v1", hold)
    return release


@pytest.mark.parametrize("transport", ["fast", "plain"])
async def test_a_full_router_refuses_in_the_words_of_each_door_and_keeps_the_connection(
    site: Site, transport: str
) -> None:
    release = await holding(site)
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


@pytest.mark.parametrize("transport", ["fast", "plain"])
async def test_what_one_read_brings_does_not_pass_the_bound_together(site: Site, transport: str) -> None:
    release = await holding(site)
    body = orjson.dumps({"prompt": "x", "policy": "holding"})
    async with running(site.settings(max_in_flight=3, transport=transport)) as served:
        asked = [asyncio.ensure_future(site.nc.request(SUBJECT_INVOKE, body, timeout=10)) for _ in range(20)]
        await eventually(lambda: sum(one.done() for one in asked) == 17, "all others are refused")
        release.set()
        answers = [orjson.loads((await one).data) for one in asked]
        assert sum("output" in answer for answer in answers) == site.calls["holding"] == 3
        release.clear()
        lines = [await asyncio.open_connection("127.0.0.1", served.http.base_url.port) for _ in range(20)]
        for _, writer in lines:
            writer.write(POST % (b"v1/route", len(body)) + body)
        first = [asyncio.ensure_future(reader.readline()) for reader, _ in lines]
        await eventually(lambda: sum(one.done() for one in first) == 17, "all others are refused")
        release.set()
        assert sorted([await one for one in first])[2:4] == [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 429 Too Many Requests\r\n",
        ]
        assert site.calls["holding"] == 6
        for _, writer in lines:
            writer.close()


async def test_the_distance_of_nats_is_measured_before_any_request_comes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    measure, open_door = OverloadProbe.opened, NatsDoor.open

    async def measuring(self: OverloadProbe) -> None:
        await measure(self)
        steps.append("measured")

    async def opening(self: NatsDoor, nc: Any) -> None:
        steps.append("opened")
        await open_door(self, nc)

    monkeypatch.setattr(OverloadProbe, "opened", measuring)
    monkeypatch.setattr(NatsDoor, "open", opening)
    async with running(site.settings()) as served:
        assert await served.answers()
    assert steps == ["measured", "opened"]


def test_who_comes_back_at_once_is_not_read_for_a_while(serve: Serve) -> None:
    asked = 0

    def full() -> bool:
        nonlocal asked
        asked += 1
        return True

    async def client(line: Client) -> None:
        for _ in range(3):
            line.writer.write(POST % (b"v1/route", 2) + b"hi")
        assert (await line.answer())[0] == 429
        line.writer.write(POST % (b"v1/route", 2) + b"hi")
        await asyncio.sleep(0.1)
        assert asked <= 3, "what came in one piece is answered, the rest waits"

    serve(says_its_path, client, full=full, rest_s=60.0)


def test_after_its_rest_a_connection_is_as_good_as_any(serve: Serve) -> None:
    full = True

    async def client(line: Client) -> None:
        nonlocal full
        line.writer.write(POST % (b"v1/route", 20_000) + b"x" * 10_000)
        assert (await line.answer())[0] == 429
        full = False
        line.writer.write(b"x" * 10_000 + GET % b"v1/route" + GET % b"healthz")
        assert [(await line.answer())[2] for _ in range(2)] == [b"/v1/route", b"/healthz"]

    serve(says_its_path, client, full=lambda: full, rest_s=0.02)


def test_a_request_that_is_let_in_ends_the_rest_that_came_before_it(serve: Serve) -> None:
    answers = iter([True])

    async def says_its_body(exchange: Exchange) -> None:
        exchange.answer(200, await exchange.read(100) or b"")

    async def client(line: Client) -> None:
        line.writer.write(POST % (b"v1/route", 2) + b"no" + POST % (b"v1/route", 2) + b"h")
        assert (await line.answer())[0] == 429
        line.writer.write(b"i")
        assert (await line.answer())[2] == b"hi"

    serve(says_its_body, client, full=lambda: next(answers, False), rest_s=60.0)


def test_who_does_not_read_refusals_is_not_read_either(serve: Serve) -> None:
    sent, asked = 100_000, 0

    def full() -> bool:
        nonlocal asked
        asked += 1
        return True

    async def client(line: Client) -> None:
        line.writer.write((POST % (b"v1/route", 2) + b"hi") * sent)
        before = -1
        while before < asked:
            before = asked
            await asyncio.sleep(1)
        assert 0 < asked < sent, "forty megabytes of refusals wait in the router"

    serve(says_its_path, client, full=full)
