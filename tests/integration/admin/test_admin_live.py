"""What the application tells as it happens: streams begin with the state, end with the session, and leak
nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request

from beamline_admin.catalogue import Catalogue
from beamline_admin.events_api import events_api
from beamline_admin.identity import Identity, Role
from beamline_admin.live.hub import QUEUE
from beamline_admin.live.watcher import GRACE_S, Watcher
from beamline_admin.routers import RoutersError
from beamline_contract.projection import ExtensionRecord
from beamline_registry.memory import MemoryRegistry
from beamline_registry.port import Remove, Upsert
from harness.served_admin import OneRouter

ADA = Identity("ada", Role.ADMIN)


class World:
    """The route alone, with an identity that can end."""

    def __init__(self, who: Identity = ADA, *, heartbeat_s: float = 0.05) -> None:
        self.registry = MemoryRegistry()
        self.watcher = Watcher(Catalogue(self.registry), self.registry, routers=OneRouter())
        self.logged_in = True
        app = FastAPI()

        @app.middleware("http")
        async def gate(request: Request, call_next: Any) -> Any:
            request.state.identity = who
            request.state.still = self.still
            return await call_next(request)

        app.include_router(events_api(self.watcher, heartbeat_s=heartbeat_s))
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://admin")

    async def still(self) -> bool:
        return self.logged_in

    async def write(self, *ops: Any) -> None:
        await self.registry.write(list(ops), epoch=await self.registry.acquire_epoch("tests"))


def record(generation: int = 1) -> ExtensionRecord:
    return ExtensionRecord("one", "pre", "beamline.ext.pre.one.v1", "default", "one", "u1", generation)


def events(text: str) -> list[tuple[str, Any]]:
    return [
        (name, json.loads(data)) for name, data in re.findall(r"event: (.+)\nid: \d+\ndata: (.+)\n", text)
    ]


async def listening(world: World, topic: str) -> None:
    """Returns once somebody listens to ``topic``."""
    for _ in range(10_000):
        if world.watcher.hub.wanted(topic):
            return
        await asyncio.sleep(0)
    raise AssertionError("nobody listens")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.client.aclose()


async def test_a_stream_begins_with_the_state_of_every_topic_that_has_one(world: World) -> None:
    answer = await world.client.get("/events?seconds=0.02")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("retry: 2000\n\n")
    told = events(answer.text)
    assert [name for name, _ in told] == ["routers", "breakers", "canaries", "traffic"]
    assert told[1][1]["extensions"]["pii_guard"] == {
        "state": "open", "score": None, "routers": {"router-1": "open"},
    }  # fmt: skip
    assert re.findall(r"id: (\d+)", answer.text) == ["1", "2", "3", "4"]


async def test_objects_are_told_as_they_come_change_and_go(world: World) -> None:
    stream = asyncio.create_task(world.client.get("/events?topics=objects&seconds=0.3"))
    await listening(world, "objects")
    await world.watcher.look_at_objects()
    for op in (Upsert(record(), "ada"), Upsert(record(2), "ada"), Remove("Extension", "one", "u1", 3, "ada")):
        await world.write(op)
        await world.watcher.look_at_objects()
    told = [data for _, data in events((await stream).text)]
    assert [(one["id"], one["action"], one["generation"]) for one in told] == [
        ("one", "added", 1), ("one", "changed", 2), ("one", "removed", 2),
    ]  # fmt: skip
    revisions = [one["revision"] for one in told]
    assert revisions == sorted(revisions)


async def test_who_lost_the_connection_is_told_what_came_meanwhile_and_nothing_twice(world: World) -> None:
    first = await world.client.get("/events?topics=objects&seconds=0.02")
    await world.write(Upsert(record(), "ada"))
    await world.watcher.look_at_objects()
    last = {"last-event-id": "0"}
    second = await world.client.get("/events?topics=objects&seconds=0.02", headers=last)
    assert [(name, data["action"]) for name, data in events(second.text)] == [("objects", "added")]
    seen = re.findall(r"id: (\d+)", second.text)[-1]
    third = await world.client.get("/events?topics=objects&seconds=0.02", headers={"last-event-id": seen})
    assert events(first.text) == events(third.text) == []


@pytest.mark.parametrize("last", ["99", "-1", "1.5", "x", "\u0661"])
async def test_who_comes_with_a_number_that_is_not_known_is_told_to_load_anew(
    world: World, last: str
) -> None:
    headers = {"last-event-id": last.encode()}
    answer = await world.client.get("/events?topics=objects,canaries&seconds=0.02", headers=headers)
    assert [name for name, _ in events(answer.text)] == ["reset", "canaries"]


async def test_a_change_right_after_the_stream_has_begun_is_told(world: World) -> None:
    stream = asyncio.create_task(world.client.get("/events?topics=objects&seconds=0.3"))
    await listening(world, "objects")
    await world.write(Upsert(record(), "ada"))
    await world.watcher.look_at_objects()
    assert [data["action"] for _, data in events((await stream).text)] == ["added"]


async def test_changes_that_nobody_looked_for_end_what_can_be_resumed() -> None:
    now = [0.0]
    registry = MemoryRegistry()
    watcher = Watcher(Catalogue(registry), registry, clock=lambda: now[0])
    await watcher.expect_objects()
    last = watcher.hub.join(ADA, {"objects"})
    watcher.hub.leave(last)
    now[0] += GRACE_S - 1
    await watcher.look_at_objects()
    assert watcher.hub.missed(watcher.hub.join(ADA, set()), last.number) == []
    now[0] += GRACE_S + 1
    await watcher.look_at_objects()
    assert watcher.hub.missed(watcher.hub.join(ADA, set()), last.number) is None


async def test_a_stream_ends_with_the_session(world: World) -> None:
    stream = asyncio.create_task(world.client.get("/events?topics=objects"))
    await listening(world, "objects")
    world.logged_in = False
    told = events((await asyncio.wait_for(stream, 20)).text)
    assert told == [("end", {"reason": "the session is over"})]
    assert not world.watcher.hub.wanted("objects"), "nobody is left behind"


async def test_a_quiet_stream_says_that_it_is_alive(world: World) -> None:
    answer = await world.client.get("/events?topics=objects&seconds=0.2")
    assert ": still here\n\n" in answer.text


async def test_a_stream_ends_when_the_process_stops(world: World) -> None:
    stream = asyncio.create_task(world.client.get("/events?topics=objects"))
    await listening(world, "objects")
    world.watcher.close()
    assert (await asyncio.wait_for(stream, 20)).status_code == 200


async def test_who_reads_too_slowly_is_told_to_begin_anew(world: World) -> None:
    stream = asyncio.create_task(world.client.get("/events?topics=trail"))
    await listening(world, "trail")
    for number in range(QUEUE + 1):  # without giving the stream a turn
        world.watcher.heard(b'{"request_id":"r%d","tenant":"acme","steps":[]}' % number)
    told = events((await asyncio.wait_for(stream, 20)).text)
    assert [name for name, _ in told] == ["trail"] * QUEUE + ["lagged"]


async def test_a_fault_in_the_middle_of_a_stream_is_a_problem_without_its_text(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(who: Identity) -> dict[str, Any]:
        raise ValueError("secret place")

    monkeypatch.setattr(world.watcher, "canaries", broken)
    ((name, problem),) = events((await world.client.get("/events?topics=canaries&seconds=1")).text)
    assert (name, problem["code"], problem["status"]) == ("error", "INTERNAL", 500)
    assert "secret" not in str(problem)


async def test_what_can_not_be_asked_now_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise RoutersError("NATS does not answer")

    monkeypatch.setattr(world.watcher.routers, "ask", away)
    told = events((await world.client.get("/events?topics=routers,canaries&seconds=0.02")).text)
    assert [name for name, _ in told] == ["canaries"]
