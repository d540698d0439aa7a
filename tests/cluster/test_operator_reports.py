"""What several routers report, as an Extension's status tells it, and how little is written for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from controlplane.client import Cluster
from operatorbench import GROUP, Bench
from routerplayer import RouterPlayer

from beamline_contract.conditions import EventReason
from beamline_contract.reports import Refused


@pytest.fixture
async def routers(nats_server: Any) -> AsyncIterator[RouterPlayer]:
    async with RouterPlayer(nats_server.url) as player:
        yield player


class Watch:
    """Every version of the Extensions of a namespace that the API server tells of."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.seen: list[dict[str, Any]] = []

    async def __aenter__(self) -> Watch:
        self._path = f"{GROUP}/namespaces/{self._bench.namespace}/extensions"
        listed = await self._bench.api.request("GET", self._path)
        self._task = asyncio.create_task(self._follow(listed["metadata"]["resourceVersion"]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _follow(self, version: str) -> None:
        async for event in self._bench.api.watch(self._path, {"resourceVersion": version}):
            self.seen.append(event["object"])


async def status(bench: Bench, name: str = "guard") -> dict[str, Any]:
    found = await bench.get("Extension", name)
    assert found is not None
    return dict(found.get("status", {}))


async def test_routers_are_counted_named_and_forgotten(bench: Bench, routers: RouterPlayer) -> None:
    await bench.start()
    for number in range(6):
        await bench.extension("guard", workload=None, timeoutMs=100 + number)
    await bench.extension("guard", workload=None)
    await bench.wait("Extension", "guard", "Synced", "True")
    for instance in ("r1", "r2"):
        await routers.status(instance)
    await routers.status("r3", revision=0)
    await routers.health("guard", "r1", success=20)
    await routers.health("guard", "r3", breaker="open", failure=3, last_error="UNAVAILABLE")

    async def two_of_three() -> bool:
        told = await bench.condition("Extension", "guard", "Programmed")
        return bool(told.get("message") == "2/3 routers at generation 7.")

    await bench.until(two_of_three, "2/3 routers at generation 7")
    assert (await status(bench))["programmed"] == "2/3"

    refusal = Refused(
        kind="Extension", id="guard", generation=7, field="spec.config.level", reason="'high' is no number"
    )
    await routers.status("r3", refused=[refusal])
    refused = await bench.wait("Extension", "guard", "Programmed", "False", "Refused")
    assert "2/3 routers at generation 7" in refused["message"]
    assert "router r3 refused spec.config.level: 'high' is no number" in refused["message"]
    await bench.wait("Extension", "guard", "Stalled", "True", "Refused")

    async def opened() -> bool:
        return (await status(bench)).get("breaker") == "open"

    await bench.until(opened, "the open breaker")
    assert (await status(bench))["lastError"] == "UNAVAILABLE"

    routers.silent("r3")  # killed: it says no good-bye
    await bench.wait("Extension", "guard", "Programmed", "True", "Programmed")
    assert (await status(bench))["programmed"] == "2/2"

    async def closed() -> bool:
        return (await status(bench))["breaker"] == "closed"

    await bench.until(closed, "the breaker that went with its router")
    for instance in ("r1", "r2"):
        await routers.status(instance, leaving=True)
    await bench.wait("Extension", "guard", "Programmed", "Unknown", "NoRouters")
    assert "programmed" not in await status(bench)


async def test_the_first_word_is_unknown_and_a_flapping_breaker_is_seldom_written(
    bench: Bench, routers: RouterPlayer, cluster: Cluster
) -> None:
    await routers.status("r1")
    await bench.start()
    async with Watch(bench) as watch:
        await bench.extension("guard", workload=None)
        await bench.wait("Extension", "guard", "Ready", "True", "Ready")
        # Before that the API server itself says Unknown, of generation 0.
        first = next(seen["status"] for seen in watch.seen if seen["status"].get("observedGeneration"))
        (ready,) = first["conditions"]
        assert (first["observedGeneration"], ready["type"], ready["status"]) == (1, "Ready", "Unknown")
        assert ready["observedGeneration"] == 1

        await routers.health("guard", breaker="open", failure=5)

        async def opened() -> bool:
            return (await status(bench)).get("breaker") == "open"

        await bench.until(opened, "the open breaker")
        before = len(watch.seen)
        for number in range(40):
            await routers.health("guard", breaker="closed" if number % 2 else "open", failure=1, success=9)
            await asyncio.sleep(0.05)
        assert len(watch.seen) - before <= 1, "at most one write in ten seconds"

        events = f"/apis/events.k8s.io/v1/namespaces/{bench.namespace}/events"
        told = [item async for item in bench.api.items(events) if item["regarding"]["name"] == "guard"]
        reasons = [item["reason"] for item in told]
        assert set(reasons) <= set(EventReason)
        assert {"Programmed", "BreakerOpened"} <= set(reasons)
        assert all((item.get("series") or {"count": 1})["count"] == 1 for item in told)

    await bench.stop()
    versions = await bench.versions()
    await bench.start()
    await bench.extension("later", workload=None)
    await bench.wait("Extension", "later", "Synced", "True")
    now = await bench.versions()
    assert now["extensions/guard"] == versions["extensions/guard"], "a restart and its reports write nothing"
    again = [item async for item in bench.api.items(events) if item["regarding"]["name"] == "guard"]
    assert [item["metadata"]["resourceVersion"] for item in again] == [
        item["metadata"]["resourceVersion"] for item in told
    ]
    shown = cluster.kubectl("get", "-n", bench.namespace, "ext", "-o", "wide").stdout.splitlines()[0].split()
    assert shown == [
        "NAME", "TYPE", "READY", "REASON", "PROGRAMMED", "BREAKER", "REPLICAS", "AGE", "SUBJECT", "TIMEOUT",
        "RETRY", "ENABLED", "HEALTH", "LASTERROR", "CANARY", "WEIGHT", "REVISION", "MESSAGE",
    ]  # fmt: skip
