"""A request through both front doors, down to real responders and back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
import pytest

from beamline_contract.names import SUBJECT_INVOKE

from .conftest import Site, eventually, extension, policy, provider_reply, running

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_prompt_goes_through_all_four_steps_and_comes_back_with_its_trail(site: Site) -> None:
    async with running(site.settings()) as served:
        reply = await served.route(
            {"prompt": "MAIL me@here"}, **{"x-request-id": "req-7", "traceparent": PARENT}
        )
    body = reply.json()
    assert reply.status_code == 200
    assert body["output"] == "echo: mail me*here"
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert [(step["extension_id"], step["outcome"]) for step in body["steps"]] == [
        ("lower", "ok"),
        ("guard", "ok"),
        ("echo", "ok"),
        ("mask", "ok"),
    ]
    assert (body["request_id"], body["policy"], body["provider_id"]) == ("req-7", "default", "echo")
    assert reply.headers["x-request-id"] == "req-7"
    assert reply.headers["x-beamline-policy"] == "default"
    assert reply.headers["x-beamline-provider"] == "echo"
    assert reply.headers["traceparent"].split("-")[1] == PARENT.split("-")[1]


async def test_a_rejected_prompt_is_422_and_the_provider_is_never_called(site: Site) -> None:
    async with running(site.settings()) as served:
        reply = await served.route({"prompt": "4111 1111 1111 1111"})
    assert reply.status_code == 422
    assert reply.json()["error"]["code"] == "VALIDATION_REJECTED"
    assert site.calls.get("echo", 0) == 0


STATUS = {
    "INVALID_ARGUMENT": (400, 400),
    "UNAUTHENTICATED": (401, 401),
    "PERMISSION_DENIED": (403, 403),
    "NOT_FOUND": (404, 404),
    "VALIDATION_REJECTED": (422, 400),
    "RESOURCE_EXHAUSTED": (429, 429),
    "CANCELLED": (499, 499),
    "INTERNAL": (500, 500),
    "STREAM_INTERRUPTED": (502, 502),
    "UNAVAILABLE": (503, 503),
    "DEADLINE_EXCEEDED": (504, 504),
}
"""Of /v1/route and of the OpenAI door, as contract.md has it ("Errors over HTTP")."""


async def test_what_an_extension_answers_has_its_status_at_either_door_and_its_trail(site: Site) -> None:
    def fails(request: dict[str, Any]) -> dict[str, Any]:
        code = request["prompt"] if "prompt" in request else request["messages"][0]["content"]
        pause = {"retry_after_ms": 0} if code == "RESOURCE_EXHAUSTED" else {}
        return {"error": {"code": code, "message": "no", **pause}}

    patient = {"failureThreshold": 1_000, "slowCall": {"minCalls": 1_000}}
    await site.put(
        extension("failing", "provider", retry=0, spec={"circuitBreaker": patient}),
        policy(
            "failing",
            [{"action": "select_provider", "provider_id": "failing", "fallback": []}],
            match={"models": ["failing"]},
        ),
    )
    await site.respond(site.nc, "failing", "beamline.provider.failing.v1", fails)
    async with running(site.settings()) as served:
        for code, (status, status_chat) in STATUS.items():
            reply = await served.route({"prompt": code, "policy": "failing"})
            assert (code, reply.status_code) == (code, status)
            assert reply.json()["error"]["code"] == code
            assert [step["reason"] for step in reply.json()["steps"]] == [code]
            assert ("retry-after" in reply.headers) == (code in {"RESOURCE_EXHAUSTED", "UNAVAILABLE"})
            chat = {"model": "failing", "messages": [{"role": "user", "content": code}]}
            reply = await served.http.post("/v1/chat/completions", json=chat)
            assert (code, reply.status_code) == (code, status_chat)
            assert reply.json()["error"]["message"] == "no"
            over_nats = orjson.dumps({"prompt": code, "policy": "failing"})
            answer = await site.nc.request(SUBJECT_INVOKE, over_nats, timeout=10)
            assert orjson.loads(answer.data)["error"]["code"] == code


@dataclass(frozen=True)
class Case:
    body: bytes
    status: int
    code: str
    method: str = "POST"
    path: str = "/v1/route"
    headers: Mapping[str, str] = field(default_factory=dict)


REFUSALS = {
    "broken JSON": Case(b"{", 400, "INVALID_ARGUMENT"),
    "an unknown field": Case(b'{"prompt":"x","extra":1}', 400, "INVALID_ARGUMENT"),
    "not JSON at all": Case(b"a=1", 415, "INVALID_ARGUMENT", headers={"content-type": "text/plain"}),
    "300 kB": Case(b"x" * 300_000, 413, "INVALID_ARGUMENT"),
    "a hundred thousand levels": Case(b"[" * 100_000, 400, "INVALID_ARGUMENT"),
    "expired": Case(b'{"prompt":"x"}', 504, "DEADLINE_EXCEEDED", headers={"beamline-deadline-ms": "0"}),
    "an unknown policy": Case(b'{"prompt":"x","policy":"none"}', 404, "NOT_FOUND"),
    "GET": Case(b"", 405, "INVALID_ARGUMENT", method="GET"),
    "an unknown path": Case(b"", 404, "NOT_FOUND", path="/nowhere"),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
async def test_every_refusal_has_its_status_and_the_one_error_format(site: Site, case: Case) -> None:
    async with running(site.settings()) as served:
        headers = {"content-type": "application/json", **case.headers}
        reply = await served.http.request(case.method, case.path, content=case.body, headers=headers)
    assert reply.status_code == case.status
    error = reply.json()["error"]
    assert error["code"] == case.code
    assert isinstance(error["message"], str)
    assert isinstance(error["retryable"], bool)
    assert not site.calls


async def test_a_body_without_an_end_is_cut_off_at_its_limit(site: Site) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        for _ in range(10_000):
            sent += 65_536
            yield b"x" * 65_536

    async with running(site.settings()) as served:
        try:
            reply = await served.http.post(
                "/v1/route", content=endless(), headers={"content-type": "application/json"}
            )
            assert reply.status_code == 413
        except (httpx2.WriteError, httpx2.ReadError, httpx2.RemoteProtocolError):
            pass  # the router answered and closed while this client still sent
        assert sent < 100_000_000
        assert await served.answers()


async def test_a_provider_without_responders_is_503_with_retry_after(site: Site) -> None:
    await site.put(
        extension("nobody", "provider", retry=0),
        policy("lonely", [{"action": "select_provider", "provider_id": "nobody", "fallback": []}]),
    )
    async with running(site.settings()) as served:
        reply = await served.route({"prompt": "x", "policy": "lonely"})
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "UNAVAILABLE"
    assert int(reply.headers["retry-after"]) >= 1


async def test_a_client_that_leaves_cancels_its_request(site: Site) -> None:
    asked = asyncio.Event()

    async def never(request: dict[str, Any]) -> dict[str, Any]:
        asked.set()
        await asyncio.sleep(3600)
        return provider_reply(request)

    await site.put(
        extension("stalling", "provider", timeout_ms=60_000),
        policy(
            "stalling",
            [{"action": "select_provider", "provider_id": "stalling", "fallback": []}],
            deadline_ms=60_000,
        ),
    )
    await site.respond(site.nc, "stalling", "beamline.provider.stalling.v1", never)
    async with running(site.settings()) as served:
        task = asyncio.ensure_future(served.route({"prompt": "x", "policy": "stalling"}))
        await asked.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        async def cancelled() -> bool:
            text = (await served.http.get("/metrics")).text
            return 'router_requests_total{code="cancelled",door="http"} 1.0' in text

        await eventually(cancelled, "the request is counted as cancelled")
        assert "router_requests_in_flight 0.0" in (await served.http.get("/metrics")).text


async def test_a_client_that_leaves_within_its_body_is_recorded_too(site: Site) -> None:
    async with running(site.settings()) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", int(served.router.http_url.rpartition(":")[2]))
        writer.write(b"POST /v1/route HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n" + b'{"prompt"')
        await writer.drain()
        writer.close()

        async def recorded() -> bool:
            text = (await served.http.get("/metrics")).text
            return 'router_requests_total{code="cancelled",door="http"} 1.0' in text

        await eventually(recorded, "the request is counted as cancelled")
    assert not site.calls


async def test_the_nats_door_takes_and_gives_the_same(site: Site) -> None:
    async with running(site.settings()):
        reply = await site.nc.request(
            SUBJECT_INVOKE, b'{"prompt":"Hi a@b"}', timeout=10, headers={"Beamline-Request-Id": "n-1"}
        )
    body = orjson.loads(reply.data)
    assert body["output"] == "echo: hi a*b"
    assert body["request_id"] == "n-1"
    assert len(body["steps"]) == 4


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        pytest.param(b"{", {}, "INVALID_ARGUMENT", id="broken JSON"),
        pytest.param(
            b'{"prompt":"x"}', {"Beamline-Deadline-At": "1000"}, "DEADLINE_EXCEEDED", id="expired long ago"
        ),
        pytest.param(
            b'{"prompt":"x"}', {"Beamline-Deadline-Ms": "0"}, "DEADLINE_EXCEEDED", id="nothing remains"
        ),
    ],
)
async def test_the_nats_door_refuses_unexecuted_in_the_same_words(
    site: Site, body: bytes, headers: dict[str, str], code: str
) -> None:
    async with running(site.settings()):
        reply = await site.nc.request(SUBJECT_INVOKE, body, timeout=10, headers=headers or None)
    assert orjson.loads(reply.data)["error"]["code"] == code
    assert not site.calls


async def test_a_message_that_nobody_waits_for_is_not_executed(site: Site) -> None:
    async with running(site.settings()):
        await site.nc.publish(SUBJECT_INVOKE, b'{"prompt":"x"}')
        await site.nc.request(SUBJECT_INVOKE, b'{"prompt":"y"}', timeout=10)
    assert site.calls["echo"] == 1


async def test_above_its_limit_a_router_refuses_at_once_and_serves_the_others(site: Site) -> None:
    release = asyncio.Event()

    async def hold(request: dict[str, Any]) -> dict[str, Any]:
        await release.wait()
        return provider_reply(request)

    await site.put(
        extension("holding", "provider", timeout_ms=30_000),
        policy("holding", [{"action": "select_provider", "provider_id": "holding", "fallback": []}]),
    )
    await site.respond(site.nc, "holding", "beamline.provider.holding.v1", hold)
    async with running(site.settings(max_in_flight=2)) as served:
        held = [asyncio.ensure_future(served.route({"prompt": "x", "policy": "holding"})) for _ in range(2)]
        await eventually(lambda: site.calls.get("holding") == 2, "both are held")
        over_http = await served.route({"prompt": "x"})
        over_nats = orjson.loads((await site.nc.request(SUBJECT_INVOKE, b'{"prompt":"x"}', timeout=10)).data)
        release.set()
        assert [reply.status_code for reply in await asyncio.gather(*held)] == [200, 200]
    assert over_http.status_code == 429
    assert over_http.headers["retry-after"] == "1"
    assert over_nats["error"]["code"] == "RESOURCE_EXHAUSTED"
