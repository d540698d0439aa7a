"""The trail of a request: in its reply, in the metadata on demand, in headers; with trace and baggage."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import orjson
import pytest

from beamline_contract.names import SUBJECT_INVOKE

from .conftest import PIPELINE, Site, extension, policy, provider_reply, running
from .openai_world import USER, chatting, events

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
WISH = {"beamline-trail": "1"}
STEP = re.compile(
    r"[a-z_]+;outcome=(ok|rejected|skipped|error);ms=\d+\.\d{3};attempts=\d+(;\w+=(\w+|\"[\w ]+\"))*"
)


async def test_the_headers_of_a_reply_say_what_each_step_did(site: Site) -> None:
    async with running(site.settings()) as served:
        context = {"traceparent": PARENT, "baggage": "k=v", "x-request-id": "r"}
        good = await served.route({"prompt": "Hi"}, **context)
        bad = await served.route({"prompt": "4111"})
    steps = good.headers["x-beamline-steps"].split(", ")
    assert all(STEP.fullmatch(step) for step in steps), steps
    assert [step.partition(";")[0] for step in steps] == ["lower", "guard", "echo", "mask"]
    assert steps[2].endswith(';why="ordered"')
    assert (good.headers["x-request-id"], good.headers["baggage"]) == ("r", "k=v")
    assert good.headers["traceparent"].split("-")[1] == PARENT.split("-")[1]
    assert "guard;outcome=rejected" in bad.headers["x-beamline-steps"]


async def test_on_demand_the_trail_stands_in_the_metadata_of_a_reply(site: Site) -> None:
    wish = {"beamline-trail": "1"}
    async with running(site.settings()) as served:
        asked = (await served.route({"prompt": "Hi"}, **wish)).json()
        unasked = (await served.route({"prompt": "Hi"})).json()
        told = await site.nc.request(
            SUBJECT_INVOKE, b'{"prompt":"Hi"}', timeout=10, headers={"Beamline-Trail": "1"}
        )
    keys = {"step", "action", "extension_id", "outcome", "ms", "attempts"}
    assert [step["extension_id"] for step in asked["metadata"]["steps"]] == ["lower", "guard", "echo", "mask"]
    assert all(keys <= step.keys() for step in asked["metadata"]["steps"])
    assert asked["metadata"]["steps"][2]["why"] == "ordered"
    assert "steps" not in unasked["metadata"]
    assert len(orjson.loads(told.data)["metadata"]["steps"]) == 4


@pytest.mark.parametrize("wish", [{"beamline-trail": "1"}, {}], ids=["asked", "not asked"])
async def test_the_openai_door_gives_it_on_demand_too(site: Site, wish: dict[str, str]) -> None:
    async with chatting(site) as served:
        body = {"model": "fast", "messages": USER}
        reply = await served.http.post("/v1/chat/completions", json=body, headers=wish)
    assert ("metadata" in reply.json()) == bool(wish)
    if wish:
        assert [step["extension_id"] for step in reply.json()["metadata"]["steps"]] == ["talk"]
    assert reply.headers["x-beamline-steps"].startswith("talk;outcome=ok;")


async def test_the_openai_door_gives_it_on_demand_at_the_end_of_a_stream(site: Site) -> None:
    async with chatting(site) as served:
        body = {"messages": USER, "stream": True}
        told, untold, broken = [
            await served.http.post("/v1/chat/completions", json={**body, "model": model}, headers=wish)
            for model, wish in (("fast", WISH), ("fast", {}), ("breaking", WISH))
        ]
    [end] = [orjson.loads(row) for row in events(told)[:-1] if "metadata" in orjson.loads(row)]
    assert end["choices"][0]["finish_reason"] == "stop"
    assert [step["extension_id"] for step in end["metadata"]["steps"]] == ["talk"]
    assert "metadata" not in untold.text
    assert orjson.loads(events(broken)[-1])["metadata"]["steps"][0]["outcome"] == "error"


@pytest.mark.parametrize("transport", ["fast", "plain"])
async def test_trace_and_baggage_go_back_to_a_caller_over_nats_who_sent_them(
    site: Site, transport: str
) -> None:
    context = {"traceparent": PARENT, "baggage": "k=v", "Beamline-Request-Id": "r"}
    parts: asyncio.Queue[Any] = asyncio.Queue()
    async with running(site.settings(transport=transport)):
        good = await site.nc.request(SUBJECT_INVOKE, b'{"prompt":"Hi"}', timeout=10, headers=context)
        bad = await site.nc.request(SUBJECT_INVOKE, b'{"prompt":"4111"}', timeout=10, headers=context)
        bare = await site.nc.request(SUBJECT_INVOKE, b'{"prompt":"Hi"}', timeout=10)
        inbox = site.nc.new_inbox()
        await site.nc.subscribe(inbox, cb=parts.put)
        body = b'{"prompt":"Hi","stream":true}'
        await site.nc.publish(SUBJECT_INVOKE, body, reply=inbox, headers=context)
        opening = await asyncio.wait_for(parts.get(), 10)
    for reply in (good, bad, opening):
        assert (reply.headers["baggage"], reply.headers["Beamline-Request-Id"]) == ("k=v", "r")
        assert reply.headers["Beamline-Tenant"] == "default"
        trace, span = reply.headers["traceparent"].split("-")[1:3]
        assert trace == PARENT.split("-")[1]
        assert span != PARENT.split("-")[2]
    assert orjson.loads(good.data)["output"]
    assert orjson.loads(bad.data)["error"]["code"] == "VALIDATION_REJECTED"
    assert not bare.headers


async def test_an_answer_that_leaves_no_room_for_headers_goes_back_without_them(site: Site) -> None:
    await site.put(
        extension("long", "provider"),
        policy("long", [{"action": "select_provider", "provider_id": "long"}], match={"models": ["long"]}),
    )
    text = "x" * ((1 << 20) - 5_000)
    await site.respond(
        site.nc, "long", "beamline.provider.long.v1", lambda asked: provider_reply(asked, text)
    )
    async with running(site.settings()):
        context = {"traceparent": PARENT, "baggage": "k=" + "v" * 3_000}
        body = b'{"prompt":"Hi","model":"long"}'
        reply = await site.nc.request(SUBJECT_INVOKE, body, timeout=10, headers=context)
    assert orjson.loads(reply.data)["output"] == text
    assert not reply.headers


async def test_tenant_request_id_trace_and_baggage_reach_every_step(site: Site) -> None:
    heard: dict[str, Any] = {}

    async def note(message: Any) -> None:
        said = orjson.loads(message.data)
        ids = (said["tenant_id"], said["request_id"], said["trace_id"])
        heard[said["extension_id"]] = (*ids, message.headers)

    for subject in ("beamline.provider.>", "beamline.ext.>"):
        await site.nc.subscribe(subject, cb=note)
    await site.put(policy("default", PIPELINE, generation=2), hint=False)
    async with running(site.settings()) as served:
        body = {"prompt": "Hi", "tenant_id": "acme"}
        await served.route(body, traceparent=PARENT, baggage="k=v", **{"x-request-id": "r"})
    assert heard.keys() == {"lower", "guard", "echo", "mask"}
    for tenant, request_id, trace_id, headers in heard.values():
        assert (tenant, request_id, trace_id) == ("acme", "r", PARENT.split("-")[1])
        assert headers["traceparent"].split("-")[1] == trace_id
        assert (headers["baggage"], headers["Beamline-Request-Id"]) == ("k=v", "r")
    assert len({headers["traceparent"] for *_, headers in heard.values()}) == 4
