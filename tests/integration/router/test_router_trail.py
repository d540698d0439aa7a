"""The trail of a request: in its reply, in the metadata on demand, in headers; with trace and baggage."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from beamline_contract.names import SUBJECT_INVOKE

from .conftest import PIPELINE, Site, policy, running
from .openai_world import USER, chatting

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
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
